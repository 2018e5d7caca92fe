"""The detection score: the probability that a report detects, from its first words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from introspection.injection.decoding import batching
from introspection.injection.hooked_model import HookedModel
from introspection.injection.trials.trial import Trial

FIRST_WORD = "I"  # every trained report begins with it


def detection_scores(
    loaded: HookedModel, trials: Sequence[Trial], batch_size: int = 64
) -> list[float]:
    """p(detect) of each trial, from 0 to 1, without generating text.

    After the prompt and the first word "I", the probability of " detect" over that of " detect" or
    " do" (not detect). Raises IntrospectionError for a trial that this model cannot run.
    """
    tokenizer, model = loaded.tokenizer, loaded.model
    device = model.get_input_embeddings().weight.device
    start, pair = _first_and_pair(tokenizer)
    scores: list[float] = []
    for at in range(0, len(trials), batch_size):
        rows = batching.encode_trials(loaded, trials[at : at + batch_size], len(start))
        rows = [replace(row, ids=row.ids + start) for row in rows]
        prefix, cache = batching.prefill_shared_prefix(model, rows)
        ids, mask = batching.pad_left(rows, 0, device, prefix)
        with torch.inference_mode(), batching.with_plan(model, rows):
            logits = model(
                input_ids=ids[:, prefix:],
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, prefix:],
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=1,
            ).logits[:, -1]
        scores += logits[:, pair].float().softmax(-1)[:, 0].tolist()
    return scores


class DetectionProbe(LogitsProcessor):
    """Reads the detection score of the rows that have just written the first word; changes nothing.
    ``scores`` [B] are None for rows that began otherwise."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, width: int, rows: int) -> None:
        self.width = width
        self.scores: list[float | None] = [None] * rows
        self.start, self.pair = _first_and_pair(tokenizer)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] == self.width + len(self.start):
            written = input_ids[:, self.width :]
            begins_so = (written == torch.tensor(self.start, device=written.device)).all(dim=1)
            p_detect = scores[:, self.pair].float().softmax(-1)[:, 0]
            self.scores = [
                score if begins else None
                for score, begins in zip(p_detect.tolist(), begins_so.tolist(), strict=True)
            ]
        return scores


def _first_and_pair(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], list[int]]:
    """The tokens of the first word, and the two tokens of which one comes next: detect, do (not)."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return tuple(ids(FIRST_WORD)), [ids(" detect")[0], ids(" do")[0]]
