"""Hooks that add vectors to the residual stream, per row, and read it at the same place.

One permanent hook sits on the output of layer ``L`` (0-based; transformers' ``hidden_states[L + 1]``).
What it adds is the plan of the current call (``plan``); without one it changes no bit. Positions come
from ``position_ids``, which stay right under left padding, any KV cache and chunked prefill.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.injection import row_gate
from introspection.injection.plan import InjectionPlan, current_plan, use_plan

# Falcon and Bloom return a tuple of which the residual stream [B, T, D] is the first.
LayerOutput = Tensor | tuple[Any, ...]


class _StopForward(Exception):
    """Ends a forward pass at layer L once the residual stream there has been read."""


@contextmanager
def capture_residual() -> Iterator[list[Tensor]]:
    """Collect the residual stream [B, T, D] at the output of layer L, before anything is added. The
    forward pass ends there, which saves the layers above and the unembedding."""
    hidden: list[Tensor] = []
    plan = replace(current_plan.get() or InjectionPlan(), capture=hidden)
    with suppress(_StopForward), use_plan(plan):
        yield hidden


@contextmanager
def record_layers(model: PreTrainedModel, where: Sequence[int]) -> Iterator[list[Tensor]]:
    """Collect the residual stream [B, T, D] (float32, CPU) at the output of the layers ``where``, in
    the order in which they run, with the vectors that a plan adds there."""
    seen: list[Tensor] = []

    def record(_layer: nn.Module, _args: tuple[Any, ...], output: LayerOutput) -> None:
        seen.append(_residual(output).float().cpu())

    stack = decoder_layers(model)
    with ExitStack() as open_:
        for layer in where:  # after the permanent hook and those of other layers, which came first
            open_.callback(stack[layer].register_forward_hook(record).remove)
        yield seen


def _residual(output: LayerOutput) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _injection_hook(
    layer: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: LayerOutput
) -> LayerOutput | None:
    plan = current_plan.get()
    if plan is not None and plan.capture is not None:
        plan.capture.append(_residual(output))
        raise _StopForward
    if plan is None or plan.delta is None:
        return None
    return _add_delta(layer, kwargs, output, plan, plan.delta)


def _add_delta(
    layer: nn.Module,
    kwargs: dict[str, Any],
    output: LayerOutput,
    plan: InjectionPlan,
    delta: Tensor,
) -> LayerOutput:
    """The output of a layer with ``delta`` [B, 1, D] added at the positions of the plan."""
    hidden = _residual(output)
    assert plan.first is not None
    if delta.shape[0] != hidden.shape[0]:
        # A one-row delta would broadcast over the batch without an error.
        raise RuntimeError(f"the plan has {delta.shape[0]} rows, the batch {hidden.shape[0]}")
    positions = kwargs.get("position_ids")
    if positions is None:
        raise RuntimeError(
            f"{type(layer).__name__} receives no position_ids: cannot place a thought"
        )
    # Out of place: captured states must not change. The casts are for models split over devices.
    on = positions >= plan.first.to(positions.device)
    if plan.last is not None:
        on &= positions <= plan.last.to(positions.device)
    hidden = torch.addcmul(hidden, on[..., None].to(hidden), delta.to(hidden))
    return hidden if isinstance(output, Tensor) else (hidden, *output[1:])


@contextmanager
def inject_at_other_layers(model: PreTrainedModel, plan: InjectionPlan) -> Iterator[None]:
    """Temporary hooks for ``plan.other_layers``, as a sweep over layers in one batch needs them.

    They fire only while ``plan`` is the current one, so other threads are not affected.
    """

    def add(
        delta: Tensor,
        layer: nn.Module,
        _args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: LayerOutput,
    ) -> LayerOutput | None:
        mine = current_plan.get() is plan
        return _add_delta(layer, kwargs, output, plan, delta) if mine else None

    stack = decoder_layers(model)
    with ExitStack() as open_:
        for layer, delta in plan.other_layers.items():
            hook = stack[layer].register_forward_hook(partial(add, delta), with_kwargs=True)
            open_.callback(hook.remove)
        yield


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers of any decoder-only transformers model, with or without a PEFT adapter.

    Raises IntrospectionError for a model without a list of them.
    """
    decoder = model.get_decoder()
    for name in ("layers", "h", "blocks"):
        layers = getattr(decoder, name, None)
        if isinstance(layers, nn.ModuleList):
            return layers
    raise IntrospectionError(
        f"{type(decoder).__name__} has no list of decoder layers that we know; "
        "use a decoder-only text model such as Llama, Qwen, Gemma, Mistral or Phi."
    )


def width(model: PreTrainedModel) -> int:
    """The width D of the residual stream; some models have narrower embeddings."""
    return int(model.config.get_text_config().hidden_size)


def has_adapter(model: nn.Module) -> bool:
    """Whether the model has an adapter."""
    return next(row_gate.gated_modules(model), None) is not None


@dataclass(frozen=True, slots=True)
class InjectionHooks:
    """The permanent hook on ``layer`` and the gates of a model; ``remove()`` takes them off."""

    layer: int
    handles: tuple[RemovableHandle | row_gate.GateHandle, ...]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def install(model: nn.Module, layer: int) -> InjectionHooks:
    """Put the permanent hook on the output of layer ``layer`` and the gate on every adapter update.

    Once, after the adapter is loaded and before any ``torch.compile``: a compiled model ignores new
    hooks silently. Raises IntrospectionError for a layer that the model does not have.
    """
    handles: list[RemovableHandle | row_gate.GateHandle] = [_hook(model, layer)]
    for module in row_gate.gated_modules(model):
        handles += [row_gate.install_gate(module.scaling, name) for name in module.scaling]
    return InjectionHooks(layer, tuple(handles))


def _hook(model: nn.Module, layer: int) -> RemovableHandle:
    stack = decoder_layers(model)
    if not 0 <= layer < len(stack):
        raise IntrospectionError(
            f"Layer {layer} does not exist: this model has layers 0 to {len(stack) - 1}."
        )
    return stack[layer].register_forward_hook(_injection_hook, with_kwargs=True)


def move_hook(model: nn.Module, hooks: InjectionHooks, layer: int) -> InjectionHooks:
    """Move the permanent hook to layer ``layer``; the gates stay.

    For the layer sweep: the shared model changes, so nobody else may be using it.
    """
    moved = _hook(model, layer)
    hooks.handles[0].remove()
    return InjectionHooks(layer, (moved, *hooks.handles[1:]))
