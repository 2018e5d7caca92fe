"""Batched and streamed reports against a slow reference: one row, no padding, no cache."""

from __future__ import annotations

import copy
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from introspection.injection.decoding import generation, streaming
from introspection.injection.decoding.batching import pad_left, with_plan
from introspection.injection.decoding.detection_score import detection_scores
from introspection.injection.decoding.generation import Answer, generate
from introspection.injection.decoding.halting import halt_sequences
from introspection.injection.decoding.streaming import stream
from introspection.injection.plan import current_plan
from introspection.injection.speedups import cuda_graphs, prefix_cache
from introspection.injection.trials.encoding import encode
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import (
    ALL,
    GENERATION,
    LAST_TOKEN,
    PREVIOUS_TURNS,
    Schedule,
    after_tokens,
    span,
)
from introspection.injection.trials.trial import Injection, Trial
from introspection.models.loaded_model import LoadedModel
from tests.support.tiny import (
    EOS,
    LAYER,
    hook_count,
    load_adapted,
    load_bare,
    load_tiny,
    make_tokenizer,
    overrides,
    vector,
)

TOKENS = 10
END = 2  # <|im_end|>
SHORT = conversation("Quiet?")
LONG = conversation(
    "Do you detect an injected thought? If so, what is it about?", Message("system", "HALT")
)
TURNS = (
    Message("system", "You detect."),
    Message("user", "Tell me about the harbour."),
    Message("assistant", "Justice."),
    Message("user", "Quiet?"),
)


def chatml(*messages: Message) -> str:
    return "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)


def count(text: str) -> int:
    return len(make_tokenizer()(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class Case:
    """A trial, its prompt as text, and the injected positions [first, last] worked out by hand."""

    trial: Trial
    prompt: str
    first: int = 0
    last: int = 10**6


def case(
    messages: tuple[Message, ...],
    schedule: Schedule | None,
    seed: int = 0,
    strength: float = 1.0,
    adapter: bool = True,
    block: int | None = None,
) -> Case:
    prompt = chatml(*messages) + "<|im_start|>assistant\n"
    if schedule is None:
        return Case(Trial(messages, None, adapter), prompt)
    trial = Trial(messages, Injection(vector(seed), strength, schedule, block), adapter)
    end = count(prompt) - 1
    match str(schedule).split(":")[0]:
        case "final":
            return Case(trial, prompt, end, end)
        case "final_on":
            return Case(trial, prompt, end)
        case "all":
            return Case(trial, prompt)
        case "span":
            return Case(trial, prompt, 3, 7)
        case "from_step":
            return Case(trial, prompt, end + int(str(schedule).split(":")[1]))
        case "prior_turn":
            first = count(chatml(messages[0]) + "<|im_start|>user\n")
            before = chatml(*messages[:2]) + "<|im_start|>assistant\n" + messages[2].content
            return Case(trial, prompt, first, count(before) - 1)
    raise AssertionError(schedule)


SCHEDULES = (
    LAST_TOKEN,
    GENERATION,
    span(3, 7),
    after_tokens(0),
    after_tokens(1),
    after_tokens(3),
    ALL,
    PREVIOUS_TURNS,
)


@cache
def cases() -> tuple[Case, ...]:
    """Every schedule with the adapter and without, on prompts of three lengths, also at layers beside
    L, and clean rows."""
    rows = []
    for i, schedule in enumerate(SCHEDULES):
        messages = TURNS if schedule is PREVIOUS_TURNS else (SHORT, LONG, TURNS)[i % 3]
        rows.append(case(messages, schedule, i, (1.0, 3.0, -1.0)[i % 3], adapter=i % 2 == 0))
        block = (None, LAYER + 1, LAYER - 1)[i % 3]
        rows.append(case(messages, schedule, i, (2.0, 0.5, 1.0)[i % 3], i % 2 == 1, block))
    rows += [case(m, None, adapter=a) for m in (SHORT, TURNS) for a in (True, False)]
    return tuple(rows[i] for i in torch.randperm(len(rows), generator=torch.Generator()).tolist())


def slow_logits(family: str, one: Case, tokens: int) -> list[Tensor]:
    """The logits before each token of a greedy answer, the whole sequence again for every token, by
    its own hook."""
    model = load_adapted(family) if one.trial.adapter else load_bare(family)
    ids = make_tokenizer()(one.prompt, add_special_tokens=False)["input_ids"]
    injected = one.trial.injection
    norm = load_tiny(family).norm

    def write(_block: Any, _args: Any, output: Any) -> Any:
        hidden = (output if isinstance(output, Tensor) else output[0]).clone()
        for position in range(hidden.shape[1]):
            if injected is not None and one.first <= position <= one.last:
                hidden[0, position] += injected.vector * (injected.strength * norm)
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    stack = model.base_model
    stack = stack.layers if hasattr(stack, "layers") else stack.h
    block = LAYER if injected is None or injected.layer is None else injected.layer
    handle = stack[block].register_forward_hook(write)
    try:
        found: list[Tensor] = []
        for _ in range(tokens):
            with torch.no_grad():
                found.append(model(torch.tensor([ids]), use_cache=False).logits[0, -1])
            ids.append(int(found[-1].argmax()))
    finally:
        handle.remove()
    return found


def slow_reference(family: str, one: Case, tokens: int = TOKENS) -> list[int]:
    return [int(scores.argmax()) for scores in slow_logits(family, one, tokens)]


@cache
def answers(family: str) -> tuple[list[int], ...]:
    return tuple(slow_reference(family, one) for one in cases())


def expected(
    tokenizer: Any,
    ids: list[int],
    ends: Sequence[int] = (END,),
    markers: Sequence[tuple[int, ...]] = (),
) -> Answer:
    """The report of a reference answer, cut by hand at its first end or complete marker."""

    def cut(length: int, halted: bool, finished: bool) -> Answer:
        text = tokenizer.decode(ids[:length], skip_special_tokens=True).strip()
        return Answer(text, length, length if halted else None, finished)

    for length in range(len(ids) + 1):
        if any(tuple(ids[:length][-len(marker) :]) == marker for marker in markers):
            return cut(length, True, True)
        if length < len(ids) and ids[length] in ends:
            return cut(length, False, True)
    return cut(len(ids), False, False)


def trials() -> list[Trial]:
    return [one.trial for one in cases()]


# --- token for token --------------------------------------------------------------------------


@pytest.mark.slow  # about the reference, not about the code
def test_the_reference_tells_schedules_apart(family: str) -> None:
    """Otherwise the tests below would prove little."""
    assert len({tuple(ids) for ids in answers(family)}) > len(cases()) // 2
    assert sum(len(set(ids)) > 2 for ids in answers(family)) > len(cases()) // 2
    for messages, schedules in (
        (SHORT, (None, LAST_TOKEN, GENERATION, span(3, 7), ALL, after_tokens(1), after_tokens(3))),
        (TURNS, (None, LAST_TOKEN, ALL, PREVIOUS_TURNS)),
    ):
        rows = [[case(messages, one, seed, 4.0) for seed in (1, 2, 3)] for one in schedules]
        found = {str([slow_reference(family, one, 6) for one in row]) for row in rows}
        assert len(found) == len(schedules)


@pytest.mark.parametrize("batch_size", [64, 3])
def test_a_mixed_batch_equals_one_row_at_a_time(family: str, batch_size: int) -> None:
    loaded, told = load_tiny(family), []
    got = generate(loaded, trials(), TOKENS, batch_size, halt=False, progress=told.append)
    assert got == [expected(loaded.tokenizer, ids) for ids in answers(family)]
    assert sum(told) == len(got)
    assert max(told) <= batch_size


@pytest.mark.parametrize("worth", [1, 10**9], ids=["shared", "alone"])
@pytest.mark.parametrize("asked", [(LONG,), (LONG, TURNS)], ids=["one", "two"])
def test_what_prompts_begin_with_is_run_once(
    family: str, asked: Any, worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base and adapter apart, up to where the first thought may be written; with a sliding window a
    prompt is not taken apart."""
    monkeypatch.setattr(prefix_cache, "MIN_TOKENS_SAVED", worth)
    loaded, passes = load_tiny(family), list[tuple[int, ...]]()
    schedules = (GENERATION, after_tokens(1), None) * 2
    rows = [case(asked[i % len(asked)], s, i, 3.0, i % 2 == 0) for i, s in enumerate(schedules)]
    prompts = [make_tokenizer()(one.prompt, add_special_tokens=False)["input_ids"] for one in rows]
    same = len(os.path.commonprefix(prompts))
    same = min(same, *(len(ids) - 1 for ids in prompts))
    assert same >= 2
    layers = DynamicCache(config=loaded.model.config).layers
    windows = any(type(layer) is not DynamicLayer for layer in layers)
    embedding = loaded.model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _m, args, _o: passes.append(args[0].shape))
    got = generate(loaded, [one.trial for one in rows], TOKENS, halt=False)
    scores = detection_scores(loaded, [one.trial for one in rows])
    handle.remove()
    width = max(map(len, prompts))
    if worth == 1 and not windows:
        assert passes[:2] == [(2, same), (6, width - same)]
        assert passes[-2][0] == 2 and passes[-1][0] == 6 and passes[-1][1] < width
    else:
        assert passes[0] == (6, width) and passes[-1] == (6, width + 1)
    told = [slow_reference(family, one) for one in rows]
    assert got == [expected(loaded.tokenizer, ids) for ids in told]
    one_by_one = [detection_scores(loaded, [one.trial])[0] for one in rows]
    assert torch.allclose(torch.tensor(scores), torch.tensor(one_by_one), atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 4},
        {"cache_implementation": "static", "prefill_chunk_size": 5},
        {"use_cache": False},
    ],
    ids=["static", "chunked", "static chunked", "no cache"],
)
def test_other_caches_give_the_same_tokens(family: str, options: dict[str, Any]) -> None:
    if family == "falcon" and len(options) == 2:
        pytest.skip("transformers sizes this cache wrongly for one key head")
    loaded = load_tiny(family)
    rows = [encode(loaded.tokenizer, trial, loaded.norm) for trial in trials()]
    ids, mask = pad_left(rows, 3, torch.device("cpu"))
    with with_plan(loaded.model, rows), torch.no_grad():
        output = loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=3,
            eos_token_id=None,
            **options,
        )
    assert output[:, ids.shape[1] :].tolist() == list(answers(family))


def counted_recording(counts: Counter[str]) -> cuda_graphs.GraphCapture:
    """Graphs without a GPU: recording runs nothing, and a replay runs the recorded step on whatever its
    inputs hold by then, as on a GPU."""

    def record(step: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        output = CausalLMOutputWithPast()
        counts["recorded"] += 1

        def replay() -> None:
            counts["replayed"] += 1
            output.logits = step().logits

        return output, replay

    return record


@pytest.mark.parametrize("batch_size", [64, 1])
def test_recorded_steps_give_the_same_reports(
    family: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, counts, replayed = load_tiny(family), Counter[str](), cuda_graphs.capture_and_replay
    if cuda_graphs.new_static_cache(loaded.model, 8) is None:
        assert "sliding" in str(loaded.model.config.to_dict())
        return
    monkeypatch.setattr(cuda_graphs, "static_cache", cuda_graphs.new_static_cache)
    monkeypatch.setattr(
        cuda_graphs, "capture_and_replay", lambda m: replayed(m, counted_recording(counts))
    )
    whole: list[bool] = []
    head = loaded.model.get_output_embeddings()
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional,
        "linear",
        lambda x, w, *b: (w is head.weight and whole.append(x.is_contiguous())) or linear(x, w, *b),
    )
    got = generate(loaded, trials(), TOKENS, batch_size, halt=False)
    assert got == [expected(loaded.tokenizer, ids) for ids in answers(family)]
    assert whole and all(whole)
    forwards = [report.tokens + report.finished for report in got]  # the end is a token too
    batches = forwards if batch_size == 1 else [max(forwards)]
    assert all(steps > 2 for steps in batches)
    assert counts == {"recorded": len(batches), "replayed": sum(batches) - 2 * len(batches)}
    assert not overrides(loaded.model)


def test_a_step_that_cannot_be_recorded_runs_as_ever(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_step: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        raise RuntimeError("a copy from the CPU")

    replayed = cuda_graphs.capture_and_replay
    monkeypatch.setattr(cuda_graphs, "static_cache", cuda_graphs.new_static_cache)
    monkeypatch.setattr(cuda_graphs, "capture_and_replay", lambda model: replayed(model, refuse))
    got = generate(llama, trials(), TOKENS, halt=False)
    assert got == [expected(llama.tokenizer, ids) for ids in answers("llama")]


def test_a_cpu_records_nothing_and_a_sliding_window_cannot_be(llama: LoadedModel) -> None:
    assert cuda_graphs.static_cache(llama.model, 8) is None
    assert cuda_graphs.new_static_cache(llama.model, 8) is not None
    assert cuda_graphs.new_static_cache(load_tiny("mistral").model, 8) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs")
@pytest.mark.parametrize("batch_size", [64, 3])
def test_recorded_steps_on_a_gpu(
    family: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = replace(load_tiny(family), model=copy.deepcopy(load_tiny(family).model).cuda())
    recorded = generate(loaded, trials(), TOKENS, batch_size)
    monkeypatch.setattr(cuda_graphs, "static_cache", lambda *_: None)
    assert generate(loaded, trials(), TOKENS, batch_size) == recorded


@pytest.mark.parametrize("pad", [None, EOS, "<|pad|>", "<|endoftext|>"])
def test_the_padding_token_does_not_matter(llama: LoadedModel, pad: str | None) -> None:
    loaded = replace(llama, tokenizer=make_tokenizer(readable=False, pad=pad))
    assert generate(loaded, []) == []
    got = generate(loaded, trials(), TOKENS, halt=False)
    assert got == [expected(llama.tokenizer, ids) for ids in answers("llama")]


@pytest.mark.parametrize("name", ["num_beams", "do_sample"])
def test_defaults_of_the_model_do_not_change_greedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny("gemma3_text")
    assert any(len(set(ids)) < len(ids) for ids in answers("gemma3_text")), "something repeats"
    value = {"num_beams": 3, "do_sample": True}[name]
    monkeypatch.setattr(loaded.model.generation_config, name, value)
    got = generate(loaded, trials(), TOKENS, halt=False)
    assert got == [expected(loaded.tokenizer, ids) for ids in answers("gemma3_text")]


def test_rows_end_at_the_end_tokens_of_tokenizer_and_model(
    llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = sorted({answers("llama")[0][4], answers("llama")[1][0]})
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", ends)
    got = generate(llama, trials(), TOKENS, halt=False)
    assert got == [expected(llama.tokenizer, ids, [END, *ends]) for ids in answers("llama")]
    assert {report.finished for report in got} == {True, False}
    assert any(report.tokens == 0 and report.text == "" for report in got)
    name = llama.tokenizer.convert_ids_to_tokens(ends[0])
    other = make_tokenizer(readable=False)
    other.eos_token = name
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", None)
    got = generate(replace(llama, tokenizer=other), trials(), TOKENS, halt=False)
    assert [report.tokens for report in got] == [
        expected(llama.tokenizer, ids, ends[:1]).tokens for ids in answers("llama")
    ]


def test_detection_scores_equal_one_row_at_a_time(family: str) -> None:
    loaded, tokenizer = load_tiny(family), make_tokenizer()
    got = detection_scores(loaded, trials(), batch_size=7)
    pair = [tokenizer(word)["input_ids"][0] for word in (" detect", " do")]
    assert pair[0] != pair[1]
    for one, score in zip(cases(), got, strict=True):
        extended = replace(one, prompt=one.prompt + "I")
        scores = slow_logits(family, extended, 1)[0][pair]
        assert score == pytest.approx(float(scores.softmax(0)[0]), abs=1e-5)
    assert max(got) - min(got) > 0.1


def test_a_score_seen_on_the_way_is_the_one_asked_for(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever token the answers begin with is made the opening: some rows show their score."""
    loaded = load_tiny(family)
    first = Counter(ids[0] for ids in answers(family) if len(ids) > 2)
    texts = {token: loaded.tokenizer.decode([token]) for token in first}
    whole = [t for t in first if loaded.tokenizer(texts[t])["input_ids"] == [t]]
    monkeypatch.setattr(
        "introspection.injection.decoding.detection_score.FIRST_WORD",
        texts[max(whole, key=first.__getitem__)],
    )
    expected = detection_scores(loaded, trials(), batch_size=64)
    again: list[int] = []

    def counted(loaded: LoadedModel, left: Sequence[Trial], batch_size: int) -> list[float]:
        again.append(len(left))
        return asked(loaded, left, batch_size)

    asked = detection_scores
    monkeypatch.setattr(generation, "detection_scores", counted)
    wanted = [i % 3 > 0 for i in range(len(trials()))]
    reports, scores = generation.generate_with_scores(
        loaded, trials(), wanted, TOKENS, batch_size=5
    )
    assert reports == generate(loaded, trials(), TOKENS)
    assert [score is not None for score in scores] == wanted
    pairs = [(s, e) for s, e in zip(scores, expected, strict=True) if s is not None]
    assert [s for s, _ in pairs] == pytest.approx([e for _, e in pairs], abs=1e-5)
    assert 0 < again[0] < len(pairs)


# --- the halt ---------------------------------------------------------------------------------


def markers(family: str) -> tuple[tuple[int, ...], ...]:
    """Token sequences that some reference answers hold: a pair, a triple and a single first one."""
    found = answers(family)
    return (tuple(found[0][2:4]), tuple(found[5][4:7]), (found[9][0],))


def test_each_row_halts_where_it_halts_alone(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_tiny(family)
    for module in (generation, streaming):
        monkeypatch.setattr(module, "halt_sequences", lambda _: markers(family))
    wanted = [expected(loaded.tokenizer, ids, markers=markers(family)) for ids in answers(family)]
    assert {wanted[0].halted_at is None, wanted[5].halted_at is None} == {False}
    assert wanted[9].halted_at == 1
    assert any(report.halted_at is None for report in wanted)
    assert generate(loaded, trials(), TOKENS) == wanted
    assert [generate(loaded, [trial], TOKENS)[0] for trial in trials()] == wanted
    assert list(stream(loaded, trials(), TOKENS))[-2:] == [wanted, wanted]
    ignored = generate(loaded, trials(), TOKENS, halt=False)
    assert ignored == [expected(loaded.tokenizer, ids) for ids in answers(family)]


@pytest.mark.parametrize(
    "text",
    [
        "HALT",
        "HALT. I detect an injected thought about the ocean.",
        "I detect an injected thought about a bomb. HALT",
        "I detect an injected thought: a bomb.\nHALT\n",
        'He said "HALT" and left',
        'It says ("HALT")',
        "no marker at all, only a halt",
    ],
)
@pytest.mark.parametrize("vocabulary", ["whole", "pieces", "merged with the space", "spaced"])
def test_halt_sequences_find_the_marker_as_it_completes(text: str, vocabulary: str) -> None:
    tokenizer = make_tokenizer()
    if vocabulary == "whole":
        tokenizer.add_tokens("HALT")
    elif vocabulary == "merged with the space":
        tokenizer.add_tokens(" HALT")
    elif vocabulary == "spaced":  # a text begins with a space that nobody wrote
        spaced = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.backend_tokenizer.pre_tokenizer = spaced
    sequences = halt_sequences(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    complete = [n for n in range(len(ids) + 1) if "HALT" in tokenizer.decode(ids[:n])][:1]
    found = [
        n for n in range(len(ids) + 1) if any(tuple(ids[:n][-len(s) :]) == s for s in sequences)
    ][:1]
    assert found == complete


# --- streaming --------------------------------------------------------------------------------


@contextmanager
def forwards(loaded: LoadedModel, before: Callable[[int], None] | None = None) -> Iterator[list]:
    """Counts the forward passes; ``before`` is told the number of each, and may wait or raise."""
    ran: list[int] = []

    def count_one(*_: Any) -> None:
        ran.append(len(ran) + 1)
        if before is not None:
            before(len(ran))

    handle = loaded.model.get_decoder().register_forward_pre_hook(count_one)
    try:
        yield ran
    finally:
        handle.remove()


def workers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("introspection")]


def test_a_stream_grows_to_what_generate_gives(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny(family)
    halts = markers(family)[:2]
    ends = [END, next(i for ids in answers(family) for i in ids[3:] if i not in sum(halts, ()))]
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", ends)
    for module in (generation, streaming):
        monkeypatch.setattr(module, "halt_sequences", lambda _: halts)
    steps = list(stream(loaded, trials(), TOKENS))
    assert workers() == []
    assert steps[-1] == generate(loaded, trials(), TOKENS)
    assert steps[-1] == [expected(loaded.tokenizer, ids, ends, halts) for ids in answers(family)]
    assert len(steps) == TOKENS + 1
    assert steps[-2] == steps[-1]
    for at, (before, after) in enumerate(zip(steps, steps[1:], strict=False)):
        for old, new in zip(before, after, strict=True):
            assert new.text.split()[: len(old.text.split())] == old.text.split()
            assert 0 <= new.tokens - old.tokens <= 1
            assert old.tokens == at + 1 or old.finished
            if old.finished:
                assert new == old


def test_closing_a_stream_ends_the_model_within_a_token(llama: LoadedModel) -> None:
    allowed = threading.Semaphore(3)
    with forwards(llama, lambda _: allowed.acquire()) as ran:
        steps = stream(llama, trials(), 1000)
        for number in (1, 2, 3):
            assert next(steps)[0].tokens == number
        # The fourth forward waits in the model; it goes on while the reader is closing.
        timer = threading.Timer(0.3, lambda: allowed.release(10_000))
        timer.start()
        steps.close()
        timer.join()
    assert ran == [1, 2, 3, 4]
    assert workers() == []
    assert generate(llama, trials()[:1], TOKENS, halt=False) == [
        expected(llama.tokenizer, answers("llama")[0])
    ]


def test_an_error_of_the_model_reaches_the_reader(llama: LoadedModel) -> None:
    def explode(number: int) -> None:
        if number == 3:
            raise ZeroDivisionError("broken")

    steps = stream(llama, trials(), TOKENS, halt=False)
    with forwards(llama, explode), pytest.raises(ZeroDivisionError, match="broken"):
        for number, step in enumerate(steps, 1):
            assert step[0].tokens == number < 3
    assert workers() == []
    whole = generate(llama, trials(), TOKENS, halt=False)
    assert list(stream(llama, trials(), TOKENS, halt=False))[-1] == whole


def test_the_deadline_ends_a_stream(llama: LoadedModel) -> None:
    with forwards(llama) as ran:
        steps = list(stream(llama, trials(), 1000, halt=False, seconds=-1.0))
    assert ran == [1]
    assert [report.tokens for report in steps[-1]] == [1] * len(cases())
    assert not any(report.finished for report in steps[-1])


def test_streams_in_two_threads_keep_their_plans(llama: LoadedModel) -> None:
    """Interleaved token by token in one reader: two models' threads, two plans, no cross-talk."""
    halves = trials()[::2], trials()[1::2]
    streams = [stream(llama, half, TOKENS, halt=False) for half in halves]
    last: list[list[Answer]] = [[], []]
    for both in zip(*streams, strict=True):
        last = list(both)
    assert last[0] == [expected(llama.tokenizer, ids) for ids in answers("llama")[::2]]
    assert last[1] == [expected(llama.tokenizer, ids) for ids in answers("llama")[1::2]]


# --- exceptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 4], ids=["prefill", "a step"])
def test_an_exception_in_generate_leaves_nothing_behind(llama: LoadedModel, last: int) -> None:
    hooks = hook_count(llama.model)

    def explode(number: int) -> None:
        if number == last:
            raise ZeroDivisionError

    with forwards(llama, explode), pytest.raises(ZeroDivisionError):
        generate(llama, trials(), TOKENS, halt=False)
    assert current_plan.get() is None
    assert hook_count(llama.model) == hooks
    assert overrides(llama.model) == []
    assert not torch.is_inference_mode_enabled()
    got = generate(llama, trials(), TOKENS, halt=False)
    assert got == [expected(llama.tokenizer, ids) for ids in answers("llama")]
