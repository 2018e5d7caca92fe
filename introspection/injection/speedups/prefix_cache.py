"""Shared-prefix KV cache: the common first tokens of a batch are run once, and every row gets a copy of
their keys and values. Only on a CPU: on a GPU the extra forward costs more than it saves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

MIN_TOKENS_SAVED = 40  # of a batch: the forward over the prefix reads all weights once more


def shared_prefix(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    before: Iterable[int],
    copies: int = 1,
    windows: bool = False,
) -> tuple[int, DynamicCache | None]:
    """How many first tokens of ``rows`` (token ids) to run once, and an empty cache for them; 0 and
    None where it is not worth a forward.

    The prefix ends before every position in ``before``, leaves at least one token of each row, and is
    run for ``copies`` rows. ``windows`` allows layers that keep the latest tokens only.
    """
    same = len(os.path.commonprefix([list(row) for row in rows]))
    length = min(same, *(len(row) - 1 for row in rows), *before)
    on_cpu = model.get_input_embeddings().weight.device.type == "cpu"
    if not on_cpu or (len(rows) - copies) * length < MIN_TOKENS_SAVED:
        return 0, None
    cache = DynamicCache(config=model.config)
    kinds = (DynamicLayer, DynamicSlidingWindowLayer) if windows else (DynamicLayer,)
    return (length, cache) if all(type(layer) in kinds for layer in cache.layers) else (0, None)


def prefill(model: PreTrainedModel, ids: Tensor, cache: DynamicCache) -> None:
    """Run the decoder on token ids [B, T] and leave their keys and values in ``cache``.

    ``cache.batch_repeat_interleave`` and ``cache.batch_select_indices`` then copy them to more rows.
    """
    model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
