"""What the prompts of a batch begin with, run once instead of once per row.

Knows: which first tokens rows have in common, the cache that hands their keys and values to every
row. Does not know: trials, where a thought is written, what is read.

Prompts share their chat frame and often a question, and nothing that comes later changes a token's
keys and values. On a CPU every token saved is time saved. On a GPU a pass of its own takes as long
as thousands of tokens in a batch, so there nothing is shared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

__all__ = ["is_worthwhile", "new_kv_cache", "shared_prefix_length"]

MIN_TOKENS_SAVED = 40  # tokens of a batch; the pass over the opening reads all weights once more


def shared_prefix_length(rows: Sequence[Sequence[int]], before: Iterable[int]) -> int:
    """How many first tokens all rows have in common before any of the positions ``before``, at least
    one token of every row being left."""
    same = len(os.path.commonprefix([list(row) for row in rows]))
    return min(same, *(len(row) - 1 for row in rows), *before)


def is_worthwhile(saved: int, device: torch.device) -> bool:
    """Whether saving so many tokens is worth a pass over the opening."""
    return device.type == "cpu" and saved >= MIN_TOKENS_SAVED


def new_kv_cache(model: PreTrainedModel, windows: bool) -> DynamicCache | None:
    """A cache to be filled with an opening, or None for a model whose layers keep something else than
    keys and values of tokens; ``windows`` allows layers that only keep the latest."""
    cache = DynamicCache(config=model.config)
    kinds = (DynamicLayer, DynamicSlidingWindowLayer) if windows else (DynamicLayer,)
    return cache if all(type(layer) in kinds for layer in cache.layers) else None
