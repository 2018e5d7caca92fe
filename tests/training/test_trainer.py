"""Training against a plain implementation, and what is left of a run that somebody killed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from introspection.errors import IntrospectionError
from introspection.injection import hooks as injection
from introspection.injection.extraction import TEMPLATES, extract
from introspection.injection.plan import make_plan, use_plan
from introspection.injection.self_test import self_test
from introspection.injection.trials.encoding import encode
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.prompts import prompt_ids
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
from introspection.training import checkpoints, loss
from introspection.training import trainer as steps
from introspection.training.adapter import add_adapter
from introspection.training.batches import make_batches, stack_vectors
from introspection.training.checkpoints import checkpoint_header
from introspection.training.config import TrainConfig
from introspection.training.data import activation_cache
from introspection.training.data.activation_cache import ActivationCache, shared_prefix
from introspection.training.data.examples import NOISE, Example
from introspection.training.data.teacher import Teacher
from introspection.training.loss import frozen_weights_in_bf16, micro_batch_losses
from introspection.training.runs import Run
from introspection.training.tokenization import Tokens, tokenize
from introspection.training.trainer import dry_run, train
from tests.support.tiny import (
    CHATML,
    DEPTH,
    LAYER,
    WIDTH,
    hook_count,
    load_bare,
    make_adapted,
    make_model,
    make_tokenizer,
    vector,
)

TOKENIZER = make_tokenizer()
NAMES = ("ocean", "bomb", "justice")
ROWS = {name: i for i, name in enumerate(NAMES)}
VECTORS = torch.stack([torch.stack([vector(10 * t + n) for n in range(3)]) for t in range(2)])
MID = after_tokens(0)
CONFIG = TrainConfig(
    epochs=5, batch_size=4, learning_rate=1e-2, rank=4, targets=("q_proj", "v_proj", "down_proj")
)


def example(number: int, concept: str | None = "ocean", **options: Any) -> Example:
    answer = f"I detect {concept}." if concept else "I do not."
    question = conversation(f"thought {'ab' * (number % 4)}{number}?")
    return Example(
        "report", question, concept, **{"schedule": GENERATION, "answer": answer} | options
    )


EXAMPLES = [
    *(example(i, NAMES[i % 3]) for i in range(6)),
    *(example(i, None) for i in range(6, 10)),
    *(example(i, NAMES[i % 3], schedule=LAST_TOKEN) for i in range(10, 13)),
    *(example(i, "bomb", schedule=MID, answer="HALT", prefill="the har") for i in range(13, 15)),
    *(
        example(i, "ocean", answer="some words", match_base=True, ends_turn=False)
        for i in range(15, 17)
    ),
    *(example(i, None, answer="quiet", match_base=True) for i in range(17, 19)),
    example(19, NOISE, answer="I do not know"),
]


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 throughout, on whatever machine."""
    monkeypatch.setattr(loss, "_fast_bf16", lambda _device: False)


def fresh(config: TrainConfig | None = CONFIG) -> LoadedModel:
    """The same bare model at every call, with a fresh adapter if there is a config."""
    model = make_model("llama")
    hooks = injection.install(model, LAYER)
    loaded = LoadedModel(model, TOKENIZER, "llama", "llama", LAYER, 3.0, hooks=hooks)
    if config:
        add_adapter(loaded, config)
    return loaded


def mean_loss(loaded: LoadedModel, cache: ActivationCache, tokens: Any, *given: Any) -> Tensor:
    """The shares of a batch, put together."""
    replayed = [(one.ids, one.target) for one in tokens if one.match_base]
    teacher = Teacher(loaded, cache, replayed, 100, loss.autocast(torch.device("cpu")))
    return torch.stack(list(micro_batch_losses(loaded, cache, teacher, tokens, *given))).sum()


def lora(loaded: LoadedModel) -> dict[str, Tensor]:
    return {n: p for n, p in loaded.model.named_parameters() if "lora_" in n}


def loud(loaded: LoadedModel) -> LoadedModel:
    """With random weights in both halves of the adapter: a fresh one is the base model."""
    source = torch.Generator().manual_seed(1)
    for parameter in lora(loaded).values():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=source)
        parameter.requires_grad_(True)
    return loaded


class TestTokens:
    def test_what_is_trained(self) -> None:
        whole = example(1)
        mid = example(1, schedule=MID, prefill="First the har", answer="HALT. Oh.")
        open_end = example(1, answer="some words", ends_turn=False, match_base=True)
        for one, given, trained in (
            (whole, "", "I detect ocean.<|im_end|>"),
            (mid, "First the har", " HALT. Oh.<|im_end|>"),
            (open_end, "", "some words"),
        ):
            (found,) = tokenize(TOKENIZER, [one])
            assert (found.concept, found.match_base) == (one.concept, one.match_base)
            start = found.ids[: -found.target]
            prefill = tuple(TOKENIZER(given)["input_ids"])
            assert start == (*prompt_ids(TOKENIZER, one.messages), *prefill)
            assert TOKENIZER.decode(found.ids[-found.target :]) == trained
        with pytest.raises(ValueError, match="nothing to train on"):
            tokenize(TOKENIZER, [example(1, answer="", ends_turn=False)])

    @pytest.mark.parametrize(
        "schedule",
        [LAST_TOKEN, GENERATION, ALL, PREVIOUS_TURNS, span(2, 5), span(3, None), after_tokens(2)],
        ids=str,
    )
    def test_every_schedule_is_trained_where_generation_adds(self, schedule: Schedule) -> None:
        messages = conversation("thought?", Message("user", "hi"), Message("assistant", "yes"))
        (found,) = tokenize(TOKENIZER, [Example("x", messages, "ocean", schedule, "I do not")])
        trial = Trial(messages, Injection(vector(0), 1.0, schedule))
        row = encode(TOKENIZER, trial, 1.0)
        assert (found.first, found.last) == row.positions
        assert found.ids[: len(row.ids)] == row.ids
        # What training adds to the stream, token by token, is what generation adds on the same tokens.
        loaded, delta = fresh(None), row.delta
        assert delta is not None
        cache = ActivationCache(loaded.model, [found.ids], 1_000)
        plan = make_plan(delta[None], [row.positions], None, "cpu", torch.float32)
        ids = torch.tensor([found.ids])
        with injection.record_layers(loaded.model, [LAYER]) as seen, torch.no_grad():
            mean_loss(loaded, cache, [found], delta[None], 1.0)
            loaded.model(ids)
            with use_plan(plan):
                loaded.model(ids)
        added = seen[0] - cache.batch([found.ids], len(found.ids))
        assert torch.allclose(added, seen[2] - seen[1], atol=1e-4)
        assert 0 < int((added.norm(dim=-1) > 0.5).sum()) <= len(found.ids)

    def test_a_prefill_counts_as_the_end_of_the_prompt(self) -> None:
        messages, count = conversation("thought?"), len(TOKENIZER("the har")["input_ids"])
        for schedule, later in ((MID, 0), (after_tokens(2), 2), (GENERATION, 0)):
            one = Example("x", messages, "ocean", schedule, "I do", "the har")
            (found,) = tokenize(TOKENIZER, [one])
            trial = Trial(messages, Injection(vector(0), 1.0, after_tokens(count + later)))
            assert (found.first, found.last) == encode(TOKENIZER, trial, 1.0).positions

    def test_a_schedule_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(IntrospectionError, match="needs an earlier turn"):
            tokenize(TOKENIZER, [example(1, schedule=PREVIOUS_TURNS)])


def test_lora_sits_above_the_layer_only() -> None:
    loaded = fresh(None)
    bare_hooks = hook_count(loaded.model)
    add_adapter(loaded, replace(CONFIG, targets=TrainConfig().targets))
    blocks = {int(name.split("layers.")[1].split(".")[0]) for name in lora(loaded)}
    assert blocks == set(range(LAYER + 1, DEPTH))
    modules = [m for m in loaded.model.modules() if isinstance(m, LoraLayer)]
    assert len(modules) == 7 * len(blocks)
    assert all(p.dtype == torch.float32 for p in lora(loaded).values())
    # One hook on the layer, one gate for each module: none twice, none lost.
    assert hook_count(loaded.model) == bare_hooks + len(modules)
    self_test(loaded.model, LAYER)


def test_a_fresh_adapter_is_seeded_and_changes_nothing() -> None:
    one, same, other = fresh(), fresh(), fresh(replace(CONFIG, seed=1))
    assert all(torch.equal(p, lora(same)[n]) for n, p in lora(one).items())
    assert not all(torch.equal(p, lora(other)[n]) for n, p in lora(one).items())
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(one.model(ids).logits, load_bare("llama")(ids).logits)


OPENING = tokenize(TOKENIZER, EXAMPLES)[0].ids[:3]


@pytest.mark.parametrize("opening", [(), OPENING, (9,)], ids=["apart", "shared", "of one"])
@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_residual_cache(batch_tokens: int, opening: tuple[int, ...]) -> None:
    loaded = loud(fresh())
    sequences = [one.ids for one in tokenize(TOKENIZER, EXAMPLES)]
    sequences += [(9, *sequences[0][1:]), OPENING]  # one that begins otherwise, one that ends there
    cache = ActivationCache(loaded.model, [*sequences, *sequences[:5]], batch_tokens, opening)
    distinct = set(sequences)
    sharing = sum(s[: len(opening)] == opening != s for s in distinct)
    kept = sum(map(len, distinct)) - len(opening) * (sharing - 1)  # the opening once
    assert cache.states.shape == (kept + 1, WIDTH)  # and a row of zeros
    width = max(map(len, sequences)) + 2
    found = cache.batch(sequences, width)
    for row, ids in zip(found, sequences, strict=True):
        with torch.no_grad():
            states = load_bare("llama")(torch.tensor([ids]), output_hidden_states=True)
        expected = states.hidden_states[LAYER + 1][0]
        assert torch.allclose(row[: len(ids)], expected, atol=1e-4)
        assert not row[len(ids) :].any()


def plain_loss(loaded: LoadedModel, one: Tokens, delta: Tensor, weight: float) -> Tensor:
    """One row, the whole model, transformers' own loss; a hook of our own adds the thought."""

    def add(_block: Any, _args: Any, output: Tensor) -> Tensor:
        on = torch.zeros(output.shape[1], 1)
        on[one.first : None if one.last is None else one.last + 1] = 1
        return output + on * delta

    ids = torch.tensor([one.ids])
    labels = ids.clone()
    labels[0, : len(one.ids) - one.target] = -100
    handle = injection.decoder_layers(loaded.model)[LAYER].register_forward_hook(add)
    try:
        out = loaded.model(ids, labels=labels)
    finally:
        handle.remove()
    if not one.match_base:
        return out.loss
    with torch.no_grad():
        base = load_bare("llama")(ids).logits[0]
    before, after = (
        torch.distributions.Categorical(logits=logits[-one.target - 1 : -1])
        for logits in (base, out.logits[0])
    )
    return weight * torch.distributions.kl_divergence(before, after).mean()


@pytest.mark.parametrize("opening", [(), OPENING], ids=["apart", "one pass over the opening"])
@pytest.mark.parametrize("chosen", ["all", "no replay", "only replay"])
@pytest.mark.parametrize("most", [1, 200, 10**6], ids=["one by one", "in parts", "at once"])
def test_loss_and_gradients_equal_a_plain_implementation(
    chosen: str, opening: tuple[int, ...], most: int
) -> None:
    loaded = loud(fresh())
    wanted = [e for e in EXAMPLES if chosen == "all" or e.match_base is (chosen == "only replay")]
    tokens = tokenize(TOKENIZER, wanted)
    delta = torch.randn(len(tokens), WIDTH, generator=torch.Generator().manual_seed(2))
    for i, one in enumerate(tokens):
        delta[i] *= one.concept is not None
    cache = ActivationCache(loaded.model, [t.ids for t in tokens], 200)
    assert sum(t.ids[:3] == OPENING for t in tokens) > len(tokens) / 2
    found = mean_loss(loaded, cache, tokens, delta, 1.7, opening, most)
    parameters = list(lora(loaded).values())
    gradients = torch.autograd.grad(found, parameters)
    rows = [plain_loss(loaded, t, d, 1.7) for t, d in zip(tokens, delta, strict=True)]
    expected = torch.stack(rows).mean()
    assert torch.allclose(found, expected, rtol=1e-5)
    for got, want in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        assert want.abs().max() > 1e-4
        assert (got - want).abs().max() < 1e-5 * max(1.0, float(want.abs().max()))


def test_one_pass_over_the_opening_changes_nothing(family: str) -> None:
    model = make_adapted(family)
    hooks = injection.install(model, LAYER)
    loaded = loud(LoadedModel(model, TOKENIZER, family, family, LAYER, 3.0, hooks=hooks))
    tokens = tokenize(TOKENIZER, EXAMPLES)
    tokens.append(replace(tokens[0], ids=(9, *tokens[0].ids[1:])))  # begins otherwise
    delta = torch.randn(len(tokens), WIDTH, generator=torch.Generator().manual_seed(3))
    cache = ActivationCache(loaded.model, [t.ids for t in tokens], 200)
    parameters = list(lora(loaded).values())
    for opening in (OPENING, tokens[0].ids[:1], (9,)):
        losses = [mean_loss(loaded, cache, tokens, delta, 1.7, o) for o in (opening, ())]
        found, expected = (torch.autograd.grad(loss, parameters) for loss in losses)
        assert torch.allclose(*losses, rtol=1e-5)
        for got, want in zip(found, expected, strict=True):
            assert (got - want).abs().max() < 1e-5 * max(1.0, float(want.abs().max()))


def test_frozen_matrices_are_cast_once_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_fast_bf16", lambda _device: True)
    loaded = loud(fresh())
    before = {name: p.clone() for name, p in loaded.model.named_parameters()}
    tokens = tokenize(TOKENIZER, EXAMPLES)
    delta = torch.randn(len(tokens), WIDTH, generator=torch.Generator().manual_seed(3))
    cache = ActivationCache(loaded.model, [t.ids for t in tokens], 200)
    plain = mean_loss(loaded, cache, tokens, delta, 1.7)
    with pytest.raises(KeyError), frozen_weights_in_bf16(loaded.model, LAYER):
        cast = {n for n, p in loaded.model.named_parameters() if p.dtype == torch.bfloat16}
        assert torch.equal(mean_loss(loaded, cache, tokens, delta, 1.7), plain)
        raise KeyError
    assert cast and not any("lora" in name or "norm" in name for name in cast)
    assert {int(name.split(".")[2]) for name in cast} == set(range(LAYER + 1, DEPTH))
    for name, parameter in loaded.model.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, before[name])


def run_in(folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(folder, "digest of the run", date(2024, 2, 29))


def test_the_opening_is_what_stands_before_the_first_message() -> None:
    system = "<|im_start|>system\nBe brief, be kind, be true.<|im_end|>\n"
    tokenizer = make_tokenizer(template=system + CHATML)
    found = shared_prefix(tokenizer)
    assert len(found) >= activation_cache.MIN_TOKENS_SAVED
    for text in ("Tell me.", "ocean"):
        assert prompt_ids(tokenizer, conversation(text))[: len(found)] == found
    assert shared_prefix(make_tokenizer()) == ()  # too short to be worth a pass


def test_thoughts_of_a_step() -> None:
    concepts = ["ocean", "bomb", None, NOISE] * 200
    chosen = [Tokens((1, 2), 1, 0, None, concept, False) for concept in concepts]
    config = replace(CONFIG, strengths=(0.25, 2.0))
    found = steps.sample_deltas(3, chosen, VECTORS, ROWS, 3.0, config)
    for step, seed in ((3, 0), (4, 0), (3, 1)):
        other = replace(config, seed=seed)
        again = steps.sample_deltas(step, chosen, VECTORS, ROWS, 3.0, other)
        assert torch.equal(found, again) is (step == 3 and seed == 0)
    assert not found[2::4].any()
    strengths = found.norm(dim=-1) / 3.0
    for start in (0, 1, 3):
        own = strengths[start::4]
        assert 0.25 <= own.min() < 0.3 and 1.7 < own.max() <= 2.0
        assert 0.6 < own.median() < 0.85  # log-uniform: half lie below 0.71, not below 1.13
    for start, name in ((0, "ocean"), (1, "bomb")):
        units = functional.normalize(found[start::4], dim=-1)
        near = units @ VECTORS[:, ROWS[name]].T
        template = near.argmax(-1)
        assert torch.allclose(near.max(-1).values, torch.ones(200), atol=1e-5)
        assert 60 < int(template.sum()) < 140  # either template
    noise = functional.normalize(found[3::4], dim=-1)
    assert (noise @ noise.T).triu(1).abs().mean() < 0.3


def test_batches() -> None:
    sequences = [Tokens(tuple(range(2 + i % 17)), 1, 0, None, None, False) for i in range(103)]
    config = replace(CONFIG, epochs=3, batch_size=2)
    cut = make_batches(sequences, config)
    assert cut == make_batches(sequences, config)
    assert cut != make_batches(sequences, replace(config, seed=1))
    per_epoch = len(cut) // 3
    epochs = [cut[at : at + per_epoch] for at in range(0, len(cut), per_epoch)]
    assert len(epochs) == 3
    # Not only the batches in another order, but other batches.
    assert len({frozenset(step) for step in epochs[0]} & {frozenset(s) for s in epochs[1]}) < 20
    for epoch in epochs:
        assert sorted(i for step in epoch for i in step) == list(range(103))
        lengths = [[len(sequences[i].ids) for i in step] for step in epoch]
        spread = [max(step) - min(step) for step in lengths]
        assert sum(spread) / len(spread) < 2.5 and all(1 <= len(s) <= 2 for s in epoch)


def test_stacked() -> None:
    loaded = fresh(None)
    found = stack_vectors(loaded, ["ocean", "bomb"], TEMPLATES[:2], "last", ["justice", "harbour"])
    assert found.shape == (2, 2, WIDTH)
    for template, vectors in zip(TEMPLATES, found, strict=False):
        options: dict[str, Any] = {"site": "last", "baseline": ["justice", "harbour"]}
        alone = extract(loaded, ["bomb"], template=template, **options)
        assert torch.allclose(vectors[1], alone.vectors[0], atol=1e-5)


class _Kill(BaseException):
    """What no handler of errors may catch."""


def start(
    run: Path, loaded: LoadedModel | None = None, config: TrainConfig = CONFIG, **options: Any
) -> dict[str, Tensor]:
    """Train a fresh adapter on EXAMPLES with a checkpoint at every step; its weights."""
    loaded = loaded or fresh(config)
    given = {"examples": EXAMPLES, "vectors": VECTORS, "names": NAMES} | options
    train(loaded, config=config, run=run_in(run), checkpoint_seconds=-1.0, **given)
    return {name: p.detach().clone() for name, p in lora(loaded).items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[n]) for n, v in one.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The adapter of a run that nobody interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "_fast_bf16", lambda _device: False)
        return start(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """The folder of a run of one epoch that has ended."""
    start(tmp_path / "run", config=replace(CONFIG, epochs=1))
    return tmp_path / "run"


def on_progress(step: int) -> Callable[[int, int, float], None]:
    def tell(done: int, steps: int, loss: float) -> None:
        assert steps == 25 and math.isfinite(loss)
        if done == step:
            raise _Kill

    return tell


def on_save(number: int) -> Callable[..., None]:
    """Kill half way through the checkpoint of that number."""
    calls = 0

    def save(tensors: Any, path: Path, metadata: Any) -> None:
        nonlocal calls
        calls += 1
        save_file(tensors, path, metadata)
        if calls == number:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise _Kill

    return save


@pytest.mark.slow  # many small trainings
class TestInterrupted:
    def test_between_two_checkpoints(self, tmp_path: Path, whole: dict[str, Tensor]) -> None:
        for step in (10, 20, 25):
            with pytest.raises(_Kill):
                start(tmp_path / "run", progress=on_progress(step))
        assert equal(start(tmp_path / "run"), whole)

    def test_again_and_again(
        self, tmp_path: Path, whole: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in (1, 4, 3, 2, 5):
            with monkeypatch.context() as patch, pytest.raises(_Kill):
                patch.setattr(checkpoints, "save_file", on_save(number))
                start(tmp_path / "run")
        # It goes on where it stopped: 3 + 2 + 1 + 4 steps are done, 15 are left.
        told: list[int] = []
        ran: list[int] = []
        draw = steps.sample_deltas
        monkeypatch.setattr(steps, "sample_deltas", lambda *a: (ran.append(a[0]), draw(*a))[1])
        weights = start(tmp_path / "run", progress=lambda done, *_: told.append(done))
        assert equal(weights, whole) and told == [20, 25] and ran == list(range(10, 25))

    def test_a_gradient_that_was_skipped(self, tmp_path: Path) -> None:
        """The optimizer's own count of steps is less than the run's, and none at the start."""
        config = replace(CONFIG, batch_size=1, epochs=1)
        first = make_batches(tokenize(TOKENIZER, EXAMPLES), config)[0][0]
        examples = list(EXAMPLES)
        examples[first] = replace(examples[first], concept="NaN")
        options = {
            "examples": examples,
            "vectors": torch.cat([VECTORS, torch.full((2, 1, WIDTH), math.nan)], 1),
            "names": [*NAMES, "NaN"],
        }
        undisturbed = start(tmp_path / "a", config=config, **options)
        assert all(bool(p.isfinite().all()) for p in undisturbed.values())
        for number in (2, 6):
            with pytest.MonkeyPatch.context() as patch, pytest.raises(_Kill):
                patch.setattr(checkpoints, "save_file", on_save(number))
                start(tmp_path / "b", config=config, **options)
        assert equal(start(tmp_path / "b", config=config, **options), undisturbed)


@pytest.mark.parametrize("other", ["answers", "names"])
def test_a_checkpoint_of_other_examples_is_put_aside(other: str, short: Path) -> None:
    config = replace(CONFIG, epochs=1)
    answered = [replace(EXAMPLES[0], answer="I do"), *EXAMPLES[1:]]
    changed = {"examples": answered} if other == "answers" else {"names": NAMES[::-1]}
    before = (short / "checkpoint.safetensors").read_bytes()
    fresh_one = start(short.parent / "elsewhere", config=config, **changed)
    assert equal(start(short, config=config, **changed), fresh_one)
    (aside,) = short.glob("checkpoint-*.safetensors")
    assert aside.read_bytes() == before
    assert checkpoint_header(short / "checkpoint.safetensors")["made_from"] not in aside.name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data)


def header(**changes: Any) -> Callable[[Path], None]:
    """The same tensors under a header with other values."""

    def damage(path: Path) -> None:
        known = json.dumps({**checkpoint_header(path), **changes})
        save_file(load_file(path), path, {"introspection": known})

    return damage


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "not safetensors": lambda path: path.write_bytes(b"\x80\x04pickle" * 9),
    "a bad byte": flip,
    "no step": header(step="many"),
    "no log": header(log=3),
    "older": lambda path: save_file(load_file(path), path, {"step": "5"}),
    "deep": lambda path: save_file(load_file(path), path, {"introspection": "[" * 100_000}),
}


@pytest.mark.slow  # a training each
@pytest.mark.parametrize("how", DAMAGE)
def test_corrupt_checkpoint(how: str, tmp_path: Path, whole: dict[str, Tensor]) -> None:
    run = tmp_path / "run"
    path = run / "checkpoint.safetensors"
    with pytest.raises(_Kill):
        start(run, progress=on_progress(10))
    DAMAGE[how](path)
    with pytest.raises(IntrospectionError, match=rf"The checkpoint {path} is damaged .*\.$"):
        start(run)
    path.unlink()  # as it says
    assert equal(start(run), whole)


def test_divergence_ends_in_one_sentence(tmp_path: Path) -> None:
    says = r"^Training diverged at step \d+ .*--learning-rate\.$"
    with pytest.raises(IntrospectionError, match=says):
        start(tmp_path / "run", config=replace(CONFIG, learning_rate=1e9))


def test_training_learns(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=30, batch_size=8, learning_rate=2e-2)
    loaded = fresh(config)
    examples = [example(i, (*NAMES, None)[i % 4]) for i in range(32)]
    tokens = tokenize(TOKENIZER, examples)
    cache = ActivationCache(loaded.model, [t.ids for t in tokens], 2_000)
    delta = steps.sample_deltas(10**6, tokens, VECTORS, ROWS, loaded.norm, config)

    def loss() -> float:
        with torch.no_grad():
            return float(mean_loss(loaded, cache, tokens, delta, 1.0))

    before, told = loss(), list[tuple[int, int]]()
    run = run_in(tmp_path / "run")
    train(loaded, examples, VECTORS, NAMES, config, run, lambda *now: told.append(now[:2]))
    assert loss() < before / 2
    assert told == [(step, 120) for step in range(10, 121, 10)]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [step for step, _ in told]
    assert log[-1]["loss"] < log[0]["loss"]
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_forecast() -> None:
    loaded = fresh()
    before = {name: p.clone() for name, p in lora(loaded).items()}
    found = dry_run(loaded, EXAMPLES, VECTORS, NAMES, CONFIG, 402)
    assert found.steps == CONFIG.epochs * 101 and found.seconds > 0 and found.peak == 0
    assert found.num_trainable == sum(p.numel() for p in before.values())
    for name, parameter in lora(loaded).items():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None and not parameter.requires_grad


def test_too_little_memory_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(steps, "micro_batch_losses", full)
    with pytest.raises(IntrospectionError, match="longest batch: free some"):
        dry_run(fresh(), EXAMPLES, VECTORS, NAMES, CONFIG, 20)
