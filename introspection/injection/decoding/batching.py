"""Trials as one batch: tokens, left padding, the plan of its rows, and the prefix that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.injection.hooked_model import HookedModel
from introspection.injection.plan import InjectionPlan, make_plan, use_plan
from introspection.injection.speedups import prefix_cache
from introspection.injection.trials import limits
from introspection.injection.trials.encoding import EncodedTrial, encode
from introspection.injection.trials.trial import Trial


def encode_trials(
    loaded: HookedModel, trials: Sequence[Trial], more: int = 0
) -> list[EncodedTrial]:
    """The trials as tokens. Raises IntrospectionError for a trial that this model cannot run with
    ``more`` tokens of an answer: a vector of another width, a layer, adapter or position that the model
    does not have, a schedule that does not fit the prompt."""
    model, layers = loaded.model, hooks.decoder_layers(loaded.model)
    width = hooks.width(model)
    for injection in (trial.injection for trial in trials if trial.injection is not None):
        if len(injection.vector) != width:
            raise IntrospectionError(
                f"The vector of an injection has {len(injection.vector)} numbers, but the residual "
                f"stream of this model has {width}: extract it from this model."
            )
        if injection.layer is not None and injection.layer >= len(layers):
            raise IntrospectionError(
                f"There is no layer {injection.layer}: this model has layers 0 to {len(layers) - 1}."
            )
    if any(trial.adapter for trial in trials) and not hooks.has_adapter(model):
        raise IntrospectionError(
            "A trial asks for the adapter, but this model has none: load one with it, or ask the base "
            "model with Trial(..., adapter=False)."
        )
    rows = [encode(loaded.tokenizer, trial, loaded.norm) for trial in trials]
    limits.check_prompts(model, [row.ids for row in rows], more)
    return rows


def pad_left(
    rows: Sequence[EncodedTrial], pad: int, device: torch.device, prefix: int = 0
) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T] on ``device``, prompts aligned at their ends. The first ``prefix`` tokens of
    each row are put before the padding ``pad``."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        at = prefix + width - len(row.ids)
        for start, part in ((0, row.ids[:prefix]), (at, row.ids[prefix:])):
            ids[i, start : start + len(part)] = torch.tensor(part, dtype=torch.long)
            mask[i, start : start + len(part)] = 1
    return ids.to(device), mask.to(device)


def prefill_shared_prefix(
    model: PreTrainedModel, rows: Sequence[EncodedTrial]
) -> tuple[int, DynamicCache | None]:
    """The length of the prefix that all rows share, before the first injected position, and a cache
    that holds it for every row; 0 and None where that is not worth a forward. It is run with the
    adapter and without it: the keys and values differ above layer L."""
    weight = model.get_input_embeddings().weight
    adapters = sorted({row.adapter for row in rows})
    length, cache = prefix_cache.shared_prefix(
        model,
        [row.ids for row in rows],
        (row.positions[0] for row in rows if row.delta is not None),
        copies=len(adapters),
    )
    if cache is not None:
        ids = torch.tensor([rows[0].ids[:length]] * len(adapters))
        plan = make_plan(None, (), adapters, weight.device, weight.dtype)
        with torch.inference_mode(), use_plan(plan):
            prefix_cache.prefill(model, ids, cache)
            cache.batch_select_indices(torch.tensor([adapters.index(row.adapter) for row in rows]))
    return length, cache


def row_plan(model: PreTrainedModel, rows: Sequence[EncodedTrial]) -> InjectionPlan:
    """The plan of a batch of rows, in which rows without an injection get a zero vector."""
    weight = model.get_input_embeddings().weight
    nothing = torch.zeros(hooks.width(model))
    deltas = {
        layer: torch.stack(
            [nothing if r.delta is None or r.layer != layer else r.delta for r in rows]
        )
        for layer in {row.layer for row in rows if row.delta is not None}
    }
    return make_plan(
        deltas.pop(None, None),
        [row.positions for row in rows],
        [row.adapter for row in rows],
        weight.device,
        weight.dtype,
        {layer: delta for layer, delta in deltas.items() if layer is not None},
    )


@contextmanager
def with_plan(model: PreTrainedModel, rows: Sequence[EncodedTrial]) -> Iterator[None]:
    """Use the plan of ``rows`` for every forward in this context, at all layers of their injections."""
    plan = row_plan(model, rows)
    with hooks.inject_at_other_layers(model, plan), use_plan(plan):
        yield
