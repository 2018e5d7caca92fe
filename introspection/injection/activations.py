"""The residual stream of many prompts at the output of layer L, averaged over words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from introspection.injection import hooks
from introspection.injection.speedups import prefix_cache
from introspection.injection.trials import limits

# By falling weights the order of words counts: a plain mean reads "sea salt" like "salt sea".
LAST_WORD_WEIGHT = 0.6
Spans = Sequence[tuple[int, int]]


@torch.no_grad()
def read_residuals(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    word_spans: Sequence[Spans],
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    isolate_first: int = 0,
) -> tuple[Tensor, Tensor]:
    """The residual stream [N, D] of each row of token ids, averaged over its words, and norms.

    A word is a span of tokens ``first..last`` and counts as their mean; the words of a row are
    weighted, falling linearly from 1 for the first to ``LAST_WORD_WEIGHT`` for the last. The second
    tensor [M] holds the norms of every token but the first, an outlier in most models, and padding.
    ``progress`` is called with the number of rows of each batch. The first ``isolate_first`` rows
    get batches of their own, so that their result is the same, bit for bit, beside any others.
    Raises IntrospectionError for rows that the model cannot take.
    """
    limits.check_prompts(model, rows)
    device = next(model.parameters()).device
    batch_size = batch_size or (1024 if device.type == "cuda" else 64)
    parts = (range(isolate_first), range(isolate_first, len(rows)))
    by_length = [sorted(part, key=lambda i: len(rows[i])) for part in parts]
    residuals: dict[int, Tensor] = {}
    norms = []
    for part in by_length:
        for at in range(0, len(part), batch_size):
            chosen = part[at : at + batch_size]
            batch, spans = [rows[i] for i in chosen], [word_spans[i] for i in chosen]
            pooled, batch_norms = _read_batch(model, batch, spans, device)
            residuals.update(zip(chosen, pooled, strict=True))
            norms.append(batch_norms)
            if progress:
                progress(len(chosen))
    return torch.stack([residuals[i] for i in range(len(rows))]), torch.cat(norms)


def _read_batch(
    model: PreTrainedModel, rows: list[Sequence[int]], word_spans: list[Spans], device: torch.device
) -> tuple[Tensor, Tensor]:
    """:func:`read_residuals` of one batch, in its order."""
    norms = []
    first_words = (first for spans in word_spans for first, _ in spans)
    prefix, cache = prefix_cache.shared_prefix(model, rows, first_words, windows=True)
    if cache is not None:
        state = run_prefix(model, rows[0][:prefix], cache)
        cache.batch_repeat_interleave(len(rows))
        norms.append(state[0, 1:].float().norm(dim=-1).cpu().repeat(len(rows)))
    # Right padding: a plain forward numbers positions one after the other whatever the mask says.
    ids = pad_sequence([torch.tensor(row[prefix:]) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(prefix + ids.shape[1]) < lengths[:, None]).long()
    with hooks.capture_residual() as hidden:
        model.get_decoder()(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
    state = hidden[0]  # on the device of its layer, where a model is split over several
    shares = [
        (row, token - prefix, share / (last + 1 - first))
        for row, spans in enumerate(word_spans)
        for (first, last), share in zip(spans, _word_weights(len(spans)), strict=True)
        for token in range(first, last + 1)
    ]
    row_of, token_of, share_of = (torch.tensor(part) for part in zip(*shares, strict=True))
    weights = torch.zeros(ids.shape)
    weights.index_put_((row_of, token_of), share_of, accumulate=True)
    pooled = torch.einsum("bt,btd->bd", weights.to(state.device), state.float()).cpu()
    first = max(1 - prefix, 0)  # of the tokens in this forward whose norms count
    real = mask[:, prefix + first :].bool().to(state.device)
    norms.append(state[:, first:].float().norm(dim=-1)[real].cpu())
    return pooled, torch.cat(norms)


def run_prefix(model: PreTrainedModel, prefix: Sequence[int], cache: DynamicCache) -> Tensor:
    """The residual stream [1, T, D] of ``prefix``; keys and values up to layer L go to ``cache``."""
    ids = torch.tensor([list(prefix)], device=next(model.parameters()).device)
    with hooks.capture_residual() as hidden:
        prefix_cache.prefill(model, ids, cache)
    return hidden[0]


@lru_cache
def _word_weights(words: int) -> tuple[float, ...]:
    """The share of each of so many words; the shares add up to 1."""
    shares = torch.linspace(1, LAST_WORD_WEIGHT, words)
    return tuple((shares / shares.sum()).tolist())
