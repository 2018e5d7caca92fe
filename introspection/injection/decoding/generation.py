"""Trials to answers: greedy decoding in batches, with the mechanical halt.

A batch may mix any rows: decoding is greedy, so an answer does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from introspection.injection.decoding import batching
from introspection.injection.decoding.detection_score import DetectionProbe, detection_scores
from introspection.injection.decoding.halting import HaltCriteria, halt_sequences
from introspection.injection.hooked_model import HookedModel
from introspection.injection.speedups import cuda_graphs
from introspection.injection.trials.encoding import EncodedTrial
from introspection.injection.trials.prompts import end_of_turn
from introspection.injection.trials.trial import Trial


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's text for one trial and its number of ``tokens``. ``halted_at`` is the number of
    tokens at which the halt marker was complete (None: no halt); ``finished`` says whether the answer
    ended by an end token or the halt, not by the limit of tokens."""

    text: str
    tokens: int
    halted_at: int | None
    finished: bool


def generate(
    loaded: HookedModel,
    trials: Sequence[Trial],
    max_new_tokens: int = 40,
    batch_size: int = 64,
    halt: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """One answer per trial, in order; greedy, left-padded batches sorted by prompt length.

    ``halt`` stops a row the moment its halt marker is complete. ``progress`` is called with the number
    of rows of each batch. Raises IntrospectionError for a trial that this model cannot run.
    """
    return _batches(loaded, trials, max_new_tokens, batch_size, halt, progress)[0]


def generate_with_scores(
    loaded: HookedModel,
    trials: Sequence[Trial],
    wanted: Sequence[bool],
    max_new_tokens: int = 40,
    batch_size: int = 64,
) -> tuple[list[Answer], list[float | None]]:
    """:func:`generate` and :func:`detection_scores` of the same trials, the scores where ``wanted``.
    Only an answer that begins otherwise than every trained report needs a forward of its own for it."""
    answers, read = _batches(loaded, trials, max_new_tokens, batch_size, True, with_scores=True)
    missing = [i for i, score in enumerate(read) if score is None and wanted[i]]
    others = detection_scores(loaded, [trials[i] for i in missing], batch_size)
    for i, other in zip(missing, others, strict=True):
        read[i] = other
    return answers, [score if use else None for score, use in zip(read, wanted, strict=True)]


def _batches(
    loaded: HookedModel,
    trials: Sequence[Trial],
    max_new_tokens: int,
    batch_size: int,
    halt: bool,
    progress: Callable[[int], None] | None = None,
    with_scores: bool = False,
) -> tuple[list[Answer], list[float | None]]:
    rows = batching.encode_trials(loaded, trials, max_new_tokens)
    # Equal prompts next to each other: a batch of them runs the prompt once.
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), rows[i].ids))
    answers: dict[int, Answer] = {}
    scores: dict[int, float | None] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch, read = answer_batch(
            loaded, [rows[i] for i in chosen], max_new_tokens, halt, with_scores=with_scores
        )
        answers |= zip(chosen, batch, strict=True)
        scores |= zip(chosen, read, strict=True)
        if progress:
            progress(len(chosen))
    return [answers[i] for i in range(len(rows))], [scores[i] for i in range(len(rows))]


def answer_batch(
    loaded: HookedModel,
    rows: Sequence[EncodedTrial],
    max_new_tokens: int,
    halt: bool,
    on_step: Callable[[list[int]], bool] | None = None,
    with_scores: bool = False,
) -> tuple[list[Answer], list[float | None]]:
    """The answers of one batch and, with ``with_scores``, the detection scores of the rows that begin
    with the first word (else None). ``on_step`` as in :class:`HaltCriteria`."""
    model, tokenizer = loaded.model, loaded.tokenizer
    device = model.get_input_embeddings().weight.device
    ends = end_ids(loaded)
    pad = tokenizer.pad_token_id
    # A padding token may have been added to the tokenizer alone.
    if pad is None or pad >= len(model.get_input_embeddings().weight):
        pad = ends[0]
    width = max(len(row.ids) for row in rows)
    sequences = halt_sequences(tokenizer) if halt else ()
    stop = HaltCriteria(width, len(rows), sequences, device, on_step)
    probe = DetectionProbe(tokenizer, width, len(rows))
    written = greedy_decode(
        model,
        rows,
        pad,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        logits_processor=LogitsProcessorList([probe] if with_scores else []),
        stopping_criteria=StoppingCriteriaList([stop]),
    )
    answers = [
        answer_of(tokenizer, row, ends, halted)
        for row, halted in zip(written.tolist(), stop.halted_at.tolist(), strict=True)
    ]
    return answers, probe.scores


def greedy_decode(
    model: PreTrainedModel,
    rows: Sequence[EncodedTrial],
    pad: int,
    max_new_tokens: int,
    **options: Any,
) -> Tensor:
    """The tokens [B, N] that greedy decoding writes after each row, under the plan of the rows.

    N is at most ``max_new_tokens``; ``options`` go to transformers' ``generate``.
    """
    device = model.get_input_embeddings().weight.device
    prefix, cache = batching.prefill_shared_prefix(model, rows)
    ids, mask = batching.pad_left(rows, pad, device, prefix)
    plan = batching.with_plan(model, rows)
    recording = cuda_graphs.graph_decoding(model, ids.shape[1] + max_new_tokens)
    with torch.inference_mode(), plan, recording as static_cache:
        output: Tensor = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache if static_cache is None else static_cache,
            disable_compile=True,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            **options,
        )
    return output[:, ids.shape[1] :]


def answer_of(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int], halted: int
) -> Answer:
    """The answer of one row: its token ids up to the first of ``ends``, or up to the halt at ``halted``
    tokens (0: no halt)."""
    length = halted or next((i for i, token in enumerate(ids) if token in ends), None)
    text: str = tokenizer.decode(ids[:length], skip_special_tokens=True)
    return Answer(text.strip(), len(ids[:length]), halted or None, length is not None)


def end_ids(loaded: HookedModel) -> list[int]:
    """Every token that ends an answer; GGUF files and Hub repositories of one model differ in them."""
    ends = {loaded.tokenizer.eos_token_id, end_of_turn(loaded.tokenizer)}
    configured = loaded.model.generation_config.eos_token_id
    ends.update(configured if isinstance(configured, list) else [configured])
    return sorted(end for end in ends if end is not None)
