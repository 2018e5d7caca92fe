"""Reading the residual stream of many prompts at the output of layer L.

Knows: batches, how the words of a phrase are averaged. Does not know: templates, sites, concept
vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from introspection.injection import hooks, limits
from introspection.injection.speedups import prefix_cache

__all__ = ["LAST_WORD_WEIGHT", "read_residuals", "run_prefix"]

# A plain mean over the words of a phrase forgets their order ("sea salt" reads like "salt sea"): how
# loud the last word is beside the first keeps it.
LAST_WORD_WEIGHT = 0.6
Spans = Sequence[tuple[int, int]]


@torch.no_grad()
def read_residuals(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    words: Sequence[Spans],
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    apart: int = 0,
) -> tuple[Tensor, Tensor]:
    """The residual stream [N, D] of each row, averaged over its words, and norms.

    A word is a span of tokens ``first..last`` and counts as their mean; the words of a row are
    weighted, falling linearly from 1 for the first to ``LAST_WORD_WEIGHT`` for the last.

    The second tensor [M] holds the norms of every token but the first (its norm is an outlier in
    most models) and padding. ``progress`` is told how many rows each batch had. The first ``apart``
    rows come first and share no batch with the others: company moves the last bits of a reading.
    """
    limits.check_prompts(model, rows)
    device = next(model.parameters()).device
    batch_size = batch_size or (1024 if device.type == "cuda" else 64)
    parts = (range(apart), range(apart, len(rows)))
    by_length = [sorted(part, key=lambda i: len(rows[i])) for part in parts]
    found: list[Tensor | None] = [None] * len(rows)
    norms = []
    for chosen in (
        part[at : at + batch_size] for part in by_length for at in range(0, len(part), batch_size)
    ):
        picked, theirs = _read([rows[i] for i in chosen], [words[i] for i in chosen], model, device)
        for row, i in enumerate(chosen):
            found[i] = picked[row]
        norms.append(theirs)
        if progress:
            progress(len(chosen))
    return torch.stack([row for row in found if row is not None]), torch.cat(norms)


def _read(
    rows: list[Sequence[int]], words: list[Spans], model: PreTrainedModel, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The same for one batch, in its order."""
    cache, norms = None, []
    begin = prefix_cache.shared_prefix_length(
        rows, (first for spans in words for first, _ in spans)
    )
    if prefix_cache.is_worthwhile((len(rows) - 1) * begin, device):
        cache = prefix_cache.new_kv_cache(model, windows=True)
    if cache is None:
        begin = 0
    else:
        state = run_prefix(model, rows[0][:begin], cache)
        cache.batch_repeat_interleave(len(rows))
        norms.append(state[0, 1:].float().norm(dim=-1).cpu().repeat(len(rows)))
    # Right padding: a plain forward numbers positions one after the other whatever the mask says.
    ids = pad_sequence([torch.tensor(row[begin:]) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(begin + ids.shape[1]) < lengths[:, None]).long()
    with hooks.capture_residual() as hidden:
        model.get_decoder()(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
    state = hidden[0]  # on the device of its layer, where a model is split over several
    shares = [
        (row, token - begin, share / (last + 1 - first))
        for row, spans in enumerate(words)
        for (first, last), share in zip(spans, _word_weights(len(spans)), strict=True)
        for token in range(first, last + 1)
    ]
    row_of, token_of, share_of = (torch.tensor(part) for part in zip(*shares, strict=True))
    weights = torch.zeros(ids.shape)
    weights.index_put_((row_of, token_of), share_of, accumulate=True)
    picked = torch.einsum("bt,btd->bd", weights.to(state.device), state.float()).cpu()
    first = max(1 - begin, 0)  # of the tokens in this pass whose norms count
    kept = mask[:, begin + first :].bool().to(state.device)
    norms.append(state[:, first:].float().norm(dim=-1)[kept].cpu())
    return picked, torch.cat(norms)


def run_prefix(model: PreTrainedModel, opening: Sequence[int], cache: DynamicCache) -> Tensor:
    """The residual stream [1, T, D] of what sequences begin with, whose keys and values are left in
    ``cache``."""
    ids = torch.tensor([list(opening)], device=next(model.parameters()).device)
    with hooks.capture_residual() as hidden:
        model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return hidden[0]


@lru_cache
def _word_weights(words: int) -> tuple[float, ...]:
    """The share of each word of a name."""
    shares = torch.linspace(1, LAST_WORD_WEIGHT, words)
    return tuple((shares / shares.sum()).tolist())
