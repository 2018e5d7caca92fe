"""Trials -> reports: batched or streamed, with the mechanical halt.

Knows: padding, plans, ``generate``, stopping. The only file that calls ``generate``. Does not know:
what a report means (``grading``), where trials come from.

Every batch mixes whatever rows it is given: injected or not, adapter or base, any schedule. Greedy
decoding, so a row's report does not depend on its neighbours.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from introspection.concepts.texts import HALT_MARKER
from introspection.errors import IntrospectionError
from introspection.injection import hooks, limits
from introspection.injection.hooked_model import HookedModel
from introspection.injection.speedups import cuda_graphs, prefix_cache
from introspection.injection.trials.trial import EncodedTrial, Trial, encode, end_of_turn

__all__ = [
    "Answer",
    "detection_scores",
    "encode_trials",
    "generate",
    "generate_with_scores",
    "greedy_decode",
    "pad_left",
    "row_plan",
    "stream",
    "with_plan",
]

FIRST_WORD = "I"  # every trained report begins so


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's text for one trial. ``halted_at`` is the number of answer tokens at which the halt
    marker was complete (None: no halt), ``finished`` whether it ended by itself or by the halt."""

    text: str
    tokens: int
    halted_at: int | None
    finished: bool


def pad_left(
    rows: Sequence[EncodedTrial], pad: int, device: torch.device, opening: int = 0
) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T], prompts aligned at their ends, as ``generate`` wants them. The first
    ``opening`` tokens stand before the padding."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        at = opening + width - len(row.ids)
        for start, part in ((0, row.ids[:opening]), (at, row.ids[opening:])):
            ids[i, start : start + len(part)] = torch.tensor(part, dtype=torch.long)
            mask[i, start : start + len(part)] = 1
    return ids.to(device), mask.to(device)


def _prefill_shared_prefix(
    model: PreTrainedModel, rows: Sequence[EncodedTrial]
) -> tuple[DynamicCache | None, int]:
    """A cache that holds what all rows begin with, and its length; None and 0 where none is worth it.

    Base and adapter differ above layer L, so each is run once.
    """
    weight = model.get_input_embeddings().weight
    kinds = sorted({row.adapter for row in rows})
    written_to = (row.positions[0] for row in rows if row.delta is not None)
    length = prefix_cache.shared_prefix_length([row.ids for row in rows], written_to)
    if not prefix_cache.is_worthwhile((len(rows) - len(kinds)) * length, weight.device):
        return None, 0
    cache = prefix_cache.new_kv_cache(model, windows=False)
    if cache is None:
        return None, 0
    ids = torch.tensor([rows[0].ids[:length]] * len(kinds))
    plan = hooks.make_plan(None, (), kinds, weight.device, weight.dtype)
    with torch.inference_mode(), hooks.use_plan(plan):
        model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
        cache.batch_select_indices(torch.tensor([kinds.index(row.adapter) for row in rows]))
    return cache, length


def encode_trials(
    loaded: HookedModel, trials: Sequence[Trial], more: int = 0
) -> list[EncodedTrial]:
    """The trials as tokens. Raises IntrospectionError for one that this model cannot run, with ``more``
    tokens of an answer behind it."""
    model, layers = loaded.model, hooks.decoder_layers(loaded.model)
    width = hooks.width(model)
    for given in (trial.injection for trial in trials if trial.injection is not None):
        if len(given.vector) != width:
            raise IntrospectionError(
                f"The vector of an injection has {len(given.vector)} numbers, but the residual stream "
                f"of this model has {width}: extract it from this model."
            )
        if given.layer is not None and given.layer >= len(layers):
            raise IntrospectionError(
                f"There is no layer {given.layer}: this model has layers 0 to {len(layers) - 1}."
            )
    if any(trial.adapter for trial in trials) and not hooks.has_adapter(model):
        raise IntrospectionError(
            "A trial asks for the adapter, but this model has none: load one with it, or ask the base "
            "model with Trial(..., adapter=False)."
        )
    rows = [encode(loaded.tokenizer, trial, loaded.norm) for trial in trials]
    limits.check_prompts(model, [row.ids for row in rows], more)
    return rows


def row_plan(model: PreTrainedModel, rows: Sequence[EncodedTrial]) -> hooks.InjectionPlan:
    """The plan of a batch of rows; rows without an injection get a zero vector."""
    weight = model.get_input_embeddings().weight
    nothing = torch.zeros(hooks.width(model))
    deltas = {
        layer: torch.stack(
            [nothing if r.delta is None or r.layer != layer else r.delta for r in rows]
        )
        for layer in {row.layer for row in rows if row.delta is not None}
    }
    return hooks.make_plan(
        deltas.pop(None, None),
        [row.positions for row in rows],
        [row.adapter for row in rows],
        weight.device,
        weight.dtype,
        {layer: delta for layer, delta in deltas.items() if layer is not None},
    )


@contextmanager
def with_plan(model: PreTrainedModel, rows: Sequence[EncodedTrial]) -> Iterator[None]:
    """Make the plan of ``rows`` that of every forward in this context, at whatever layers they have."""
    plan = row_plan(model, rows)
    with hooks.inject_at_other_layers(model, plan), hooks.use_plan(plan):
        yield


def halt_sequences(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], ...]:
    """Every way the tokenizer may write the halt marker after a space, a newline or nothing."""
    found = set()
    for before in ("", " ", "\n", ". ", '"'):
        ids = tokenizer(before + HALT_MARKER, add_special_tokens=False)["input_ids"]
        # Drop what belongs to the text before the marker.
        while len(ids) > 1 and HALT_MARKER in tokenizer.decode(ids[1:]):
            ids = ids[1:]
        found.add(tuple(ids))
    return tuple(sorted(found))


class HaltCriteria(StoppingCriteria):
    """Ends a row when its halt marker is complete, and all rows on request or past the deadline."""

    def __init__(
        self,
        width: int,
        rows: int,
        sequences: tuple[tuple[int, ...], ...],
        cancel: threading.Event | None,
        deadline: float | None,
        device: torch.device,
    ) -> None:
        self.width, self.cancel, self.deadline = width, cancel, deadline
        self.sequences = [torch.tensor(sequence, device=device) for sequence in sequences]
        self.halted_at = torch.zeros(rows, dtype=torch.long, device=device)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        written = input_ids[:, self.width :]
        for sequence in self.sequences:
            if written.shape[1] >= len(sequence):
                hit = (written[:, -len(sequence) :] == sequence).all(dim=1)
                self.halted_at[hit & (self.halted_at == 0)] = written.shape[1]
        done = self.halted_at > 0
        if (self.cancel is not None and self.cancel.is_set()) or (
            self.deadline is not None and time.monotonic() > self.deadline
        ):
            done = torch.ones_like(done)
        return done


class DetectionProbe(LogitsProcessor):
    """Looks at the weights of " detect" and " do" in the rows that have just written the first word,
    and changes nothing."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, width: int, rows: int) -> None:
        self.width = width
        self.seen: list[float | None] = [None] * rows
        self.start, self.pair = _first_and_pair(tokenizer)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] == self.width + len(self.start):
            written = input_ids[:, self.width :]
            begun = (written == torch.tensor(self.start, device=written.device)).all(dim=1)
            found = scores[:, self.pair].float().softmax(-1)[:, 0]
            self.seen = [
                score if here else None
                for score, here in zip(found.tolist(), begun.tolist(), strict=True)
            ]
        return scores


def _first_and_pair(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], list[int]]:
    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return tuple(ids(FIRST_WORD)), [ids(" detect")[0], ids(" do")[0]]


class BatchStreamer(BaseStreamer):
    """Hands each step's tokens [B] to a function; transformers' own streamers refuse B > 1."""

    def __init__(self, put: Callable[[list[int]], None]) -> None:
        self.hand_over, self.prompt = put, True

    def put(self, value: Tensor) -> None:
        if self.prompt:
            self.prompt = False
        else:
            self.hand_over(value.tolist())

    def end(self) -> None:
        self.prompt = True


def _end_ids(loaded: HookedModel) -> list[int]:
    """Every token that ends an answer. GGUF files and hubs disagree on these, so both are used."""
    ends = {loaded.tokenizer.eos_token_id, end_of_turn(loaded.tokenizer)}
    configured = loaded.model.generation_config.eos_token_id
    ends.update(configured if isinstance(configured, list) else [configured])
    return sorted(end for end in ends if end is not None)


def greedy_decode(
    model: PreTrainedModel,
    rows: Sequence[EncodedTrial],
    pad: int,
    max_new_tokens: int,
    **options: Any,
) -> Tensor:
    """The tokens [B, N] that greedy decoding writes after each row, under the plan of the rows; N is at
    most ``max_new_tokens``. ``options`` are those of transformers' ``generate``."""
    device = model.get_input_embeddings().weight.device
    begun, opening = _prefill_shared_prefix(model, rows)
    ids, mask = pad_left(rows, pad, device, opening)
    faster = cuda_graphs.graph_decoding(model, ids.shape[1] + max_new_tokens)
    with torch.inference_mode(), with_plan(model, rows), faster as cache:
        output: Tensor = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=begun if cache is None else cache,
            disable_compile=True,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            **options,
        )
    return output[:, ids.shape[1] :]


def _run(
    loaded: HookedModel,
    rows: Sequence[EncodedTrial],
    max_new_tokens: int,
    halt: bool,
    cancel: threading.Event | None = None,
    deadline: float | None = None,
    feed: Callable[[list[int]], None] | None = None,
    look: bool = False,
) -> tuple[list[Answer], list[float | None]]:
    """The reports and, with ``look``, the scores of the rows that showed theirs (else None)."""
    model, tokenizer = loaded.model, loaded.tokenizer
    device = model.get_input_embeddings().weight.device
    ends = _end_ids(loaded)
    pad = tokenizer.pad_token_id
    if pad is None or pad >= len(model.get_input_embeddings().weight):  # some add one later
        pad = ends[0]
    width = max(len(row.ids) for row in rows)
    sequences = halt_sequences(tokenizer) if halt else ()
    stop = HaltCriteria(width, len(rows), sequences, cancel, deadline, device)
    pair = DetectionProbe(tokenizer, width, len(rows))
    written = greedy_decode(
        model,
        rows,
        pad,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        logits_processor=LogitsProcessorList([pair] if look else []),
        stopping_criteria=StoppingCriteriaList([stop]),
        streamer=BatchStreamer(feed) if feed else None,
    )
    reports = [
        _report(tokenizer, row, ends, halted)
        for row, halted in zip(written.tolist(), stop.halted_at.tolist(), strict=True)
    ]
    return reports, pair.seen


def _report(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int], halted: int
) -> Answer:
    if halted:
        return Answer(_decode(tokenizer, ids[:halted]), halted, halted, True)
    length = next((i for i, token in enumerate(ids) if token in ends), None)
    kept = ids[:length]
    return Answer(_decode(tokenizer, kept), len(kept), None, length is not None)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def generate(
    loaded: HookedModel,
    trials: Sequence[Trial],
    max_new_tokens: int = 40,
    batch_size: int = 64,
    halt: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """One report per trial, in order; greedy, left-padded batches sorted by prompt length.

    ``halt`` stops a row the moment its halt marker is complete. ``progress`` is told how many rows
    each batch had.
    """
    return _batches(loaded, trials, max_new_tokens, batch_size, halt, progress, look=False)[0]


def generate_with_scores(
    loaded: HookedModel,
    trials: Sequence[Trial],
    wanted: Sequence[bool],
    max_new_tokens: int = 40,
    batch_size: int = 64,
) -> tuple[list[Answer], list[float | None]]:
    """:func:`generate` and :func:`detection_scores` of the same trials, the scores where ``wanted``.

    A report that opens as every trained one does has already shown its score on the way; only the
    others are asked again.
    """
    reports, shown = _batches(loaded, trials, max_new_tokens, batch_size, True, None, look=True)
    left = [i for i, score in enumerate(shown) if score is None and wanted[i]]
    again = iter(detection_scores(loaded, [trials[i] for i in left], batch_size))
    found = [
        None if not asked else next(again) if score is None else score
        for score, asked in zip(shown, wanted, strict=True)
    ]
    return reports, found


def _batches(
    loaded: HookedModel,
    trials: Sequence[Trial],
    max_new_tokens: int,
    batch_size: int,
    halt: bool,
    progress: Callable[[int], None] | None,
    look: bool,
) -> tuple[list[Answer], list[float | None]]:
    rows = encode_trials(loaded, trials, max_new_tokens)
    # Equal prompts next to each other: a batch of them runs the prompt once.
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), rows[i].ids))
    reports: dict[int, Answer] = {}
    scores: dict[int, float | None] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch, found = _run(loaded, [rows[i] for i in chosen], max_new_tokens, halt, look=look)
        reports |= zip(chosen, batch, strict=True)
        scores |= zip(chosen, found, strict=True)
        if progress:
            progress(len(chosen))
    return [reports[i] for i in range(len(rows))], [scores[i] for i in range(len(rows))]


def stream(
    loaded: HookedModel,
    trials: Sequence[Trial],
    max_new_tokens: int = 40,
    halt: bool = True,
    seconds: float = 120.0,
) -> Iterator[list[Answer]]:
    """The reports of one batch as they grow: a list of one report per trial after every token.

    Closing the iterator (a visitor who leaves, a stop button) ends the model within a token; the
    deadline of ``seconds`` ends it in any case. The model runs in a thread of its own, with its own
    plan, and is joined before the iterator ends.
    """
    rows = encode_trials(loaded, trials, max_new_tokens)
    ends, tokenizer = _end_ids(loaded), loaded.tokenizer
    sequences = halt_sequences(tokenizer) if halt else ()
    steps: queue.Queue[list[int] | list[Answer] | BaseException] = queue.Queue()
    cancel = threading.Event()

    def work() -> None:
        try:
            deadline = time.monotonic() + seconds
            steps.put(_run(loaded, rows, max_new_tokens, halt, cancel, deadline, steps.put)[0])
        except BaseException as error:  # noqa: BLE001 - handed to the reader, who raises it
            steps.put(error)

    worker = threading.Thread(target=work, name="introspection-generate", daemon=True)
    worker.start()
    written: list[list[int]] = [[] for _ in rows]
    halted = [0] * len(rows)
    try:
        while True:
            step = steps.get()
            if isinstance(step, BaseException):
                raise step
            if step and isinstance(step[0], Answer):
                yield step
                return
            for i, token in enumerate(step):
                if halted[i] or (written[i] and written[i][-1] in ends):
                    continue
                written[i].append(token)  # type: ignore[arg-type]
                if any(tuple(written[i][-len(s) :]) == s for s in sequences):
                    halted[i] = len(written[i])
            yield [
                _report(tokenizer, ids, ends, at) for ids, at in zip(written, halted, strict=True)
            ]
    finally:
        cancel.set()
        worker.join()


def detection_scores(
    loaded: HookedModel, trials: Sequence[Trial], batch_size: int = 64
) -> list[float]:
    """p(detect) of each trial: how the model splits its weight between detecting and denying.

    Teacher-forced, no text is generated: after the prompt and the first word "I", the probability of
    " detect" over that of " detect" or " do" (not detect). Every trained report begins so; for an
    untrained model it is a poor measure of anything.
    """
    tokenizer, model = loaded.tokenizer, loaded.model
    device = model.get_input_embeddings().weight.device
    start, pair = _first_and_pair(tokenizer)
    scores: list[float] = []
    for at in range(0, len(trials), batch_size):
        rows = encode_trials(loaded, trials[at : at + batch_size], len(start))
        rows = [replace(row, ids=row.ids + start) for row in rows]
        begun, opening = _prefill_shared_prefix(model, rows)
        ids, mask = pad_left(rows, 0, device, opening)
        with torch.inference_mode(), with_plan(model, rows):
            logits = model(
                input_ids=ids[:, opening:],
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, opening:],
                past_key_values=begun,
                use_cache=begun is not None,
                logits_to_keep=1,
            ).logits[:, -1]
        scores += logits[:, pair].float().softmax(-1)[:, 0].tolist()
    return scores
