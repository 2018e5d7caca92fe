"""Hooks that add vectors to the residual stream, per row, and read it at the same place.

One permanent hook sits on the output of layer ``L`` (0-based; equal to ``hidden_states[L + 1]`` of
transformers). What it adds is data: a ``ContextVar`` holds the plan of the current call (``plan``), so
two threads with two plans never see each other, and a call without a plan is the plain model, bit for
bit. Positions come from ``position_ids``, which stay right under left padding, the KV cache, chunked
prefill and a static cache. Prompts, tokenizers and concepts are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.injection import row_gate
from introspection.injection.plan import InjectionPlan, current_plan

# Falcon and Bloom return a tuple of which the residual stream [B, T, D] is the first.
LayerOutput = Tensor | tuple[Any, ...]


class _StopForward(Exception):
    """Ends a forward pass at layer L once the residual stream there has been read."""


@dataclass(slots=True)
class _Capture:
    stop: bool
    hidden: list[Tensor] = field(default_factory=list)


_capture: ContextVar[_Capture | None] = ContextVar("introspection_capture", default=None)


@contextmanager
def capture_residual(stop: bool = True) -> Iterator[list[Tensor]]:
    """Collect the residual stream [B, T, D] at the output of layer L, before anything is added.

    With ``stop`` the forward pass ends there, which saves the layers above and the unembedding.
    """
    capture = _Capture(stop)
    token = _capture.set(capture)
    try:
        yield capture.hidden
    except _StopForward:
        pass
    finally:
        _capture.reset(token)


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
    capture, plan = _capture.get(), current_plan.get()
    if capture is not None:
        capture.hidden.append(_residual(output))
        if capture.stop:
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
    # Out of place: captured states and the cache must not change. The casts are for models that are
    # split over several devices.
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
        return (
            _add_delta(layer, kwargs, output, plan, delta) if current_plan.get() is plan else None
        )

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
    return any(True for _ in row_gate.gated_modules(model))


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

    Call it once, after the adapter is loaded and before any ``torch.compile``: a hook that is added
    to a compiled model is silently ignored. Raises IntrospectionError for a layer that the model does
    not have.
    """
    handles: list[RemovableHandle | row_gate.GateHandle] = [
        _decoder_layer(model, layer).register_forward_hook(_injection_hook, with_kwargs=True)
    ]
    for module in row_gate.gated_modules(model):
        handles += [row_gate.install_gate(module.scaling, name) for name in module.scaling]
    return InjectionHooks(layer, tuple(handles))


def _decoder_layer(model: nn.Module, layer: int) -> nn.Module:
    stack = decoder_layers(model)
    if not 0 <= layer < len(stack):
        raise IntrospectionError(
            f"Layer {layer} does not exist: this model has layers 0 to {len(stack) - 1}."
        )
    return stack[layer]


def move_hook(model: nn.Module, hooks: InjectionHooks, layer: int) -> InjectionHooks:
    """Move the permanent hook to layer ``layer``; the gates stay.

    For the layer sweep: the shared model changes, so nobody else may be using it.
    """
    moved = _decoder_layer(model, layer).register_forward_hook(_injection_hook, with_kwargs=True)
    hooks.handles[0].remove()
    return InjectionHooks(layer, (moved, *hooks.handles[1:]))
