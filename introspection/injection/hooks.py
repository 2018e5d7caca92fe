"""Writes concept vectors into the residual stream, per row, and reads it at the same site.

Knows: decoder layers, forward hooks and the plan of the current call. It is the only file that
touches hooks. Does not know: prompts, tokenizers, concepts or what a report is.

One permanent hook sits on the output of layer ``L`` (0-based; equal to ``hidden_states[L + 1]`` of
transformers). What it does is *data*: a ``ContextVar`` holds the plan of the current call, so two
threads with two plans never see each other, and a call without a plan is the plain model, bit for
bit. Positions come from ``position_ids``, which stay right under left padding, the KV cache, chunked
prefill and a static cache.
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
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.injection import row_gate
from introspection.injection.plan import InjectionPlan, current_plan, make_plan, use_plan
from introspection.injection.trials.chat_templates import reason

__all__ = [
    "InjectionHooks",
    "InjectionPlan",
    "capture_residual",
    "decoder_layers",
    "has_adapter",
    "inject_at_other_layers",
    "install",
    "make_plan",
    "move_hook",
    "patch_forward",
    "readable_model_errors",
    "record_layers",
    "self_test",
    "start_at_layer",
    "use_plan",
    "width",
]


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
    reading = _Capture(stop)
    token = _capture.set(reading)
    try:
        yield reading.hidden
    except _StopForward:
        pass
    finally:
        _capture.reset(token)


@contextmanager
def record_layers(model: PreTrainedModel, where: Sequence[int]) -> Iterator[list[Tensor]]:
    """Collect the residual stream [B, T, D] (float32, CPU) that leaves each of these layers, in the
    order in which they run, with everything added that a plan adds there."""
    seen: list[Tensor] = []

    def look(_block: nn.Module, _args: Any, output: Any) -> None:
        seen.append((output if isinstance(output, Tensor) else output[0]).float().cpu())

    stack = decoder_layers(model)
    with ExitStack() as open_:
        for layer in where:  # after the permanent hook and those of other layers, which came first
            open_.callback(stack[layer].register_forward_hook(look).remove)
        yield seen


def _injection_hook(
    layer: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any | None:
    reading, plan = _capture.get(), current_plan.get()
    if reading is None and (plan is None or plan.delta is None):
        return None
    bare = isinstance(output, Tensor)  # falcon and bloom return a tuple
    hidden: Tensor = output if bare else output[0]
    if reading is not None:
        reading.hidden.append(hidden)
        if reading.stop:
            raise _StopForward
    if plan is None or plan.delta is None:
        return None
    return _add_delta(layer, kwargs, output, plan, plan.delta)


def _add_delta(
    layer: nn.Module, kwargs: dict[str, Any], output: Any, plan: InjectionPlan, delta: Tensor
) -> Any | None:
    """The output of a layer with ``delta`` added at the positions of the plan."""
    bare = isinstance(output, Tensor)
    hidden: Tensor = output if bare else output[0]
    assert plan.first is not None
    if delta.shape[0] != hidden.shape[0]:
        # A one-row delta would broadcast over the batch without a word.
        raise RuntimeError(f"the plan has {delta.shape[0]} rows, the batch {hidden.shape[0]}")
    positions = kwargs.get("position_ids")
    if positions is None:
        raise RuntimeError(
            f"{type(layer).__name__} receives no position_ids: cannot place a thought"
        )
    # Out of place: captured states and the cache must not change. The casts serve device_map.
    on = positions >= plan.first.to(positions.device)
    if plan.last is not None:
        on &= positions <= plan.last.to(positions.device)
    hidden = torch.addcmul(hidden, on[..., None].to(hidden), delta.to(hidden))
    return hidden if bare else (hidden, *output[1:])


@contextmanager
def inject_at_other_layers(model: PreTrainedModel, plan: InjectionPlan) -> Iterator[None]:
    """Let ``plan`` write at its other layers too, what it has there (``elsewhere``).

    For sweeps over layers, in one batch. The hooks are this plan's own: another thread, whose plan
    may have the same layers, notices nothing of them.
    """

    def write(
        delta: Tensor, layer: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any | None:
        return (
            _add_delta(layer, kwargs, output, plan, delta) if current_plan.get() is plan else None
        )

    stack = decoder_layers(model)
    with ExitStack() as open_:
        for layer, delta in plan.elsewhere.items():
            hook = stack[layer].register_forward_hook(partial(write, delta), with_kwargs=True)
            open_.callback(hook.remove)
        yield


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers of any decoder-only transformers model, with or without a PEFT adapter."""
    decoder = model.get_decoder()
    for name in ("layers", "h", "blocks"):
        found = getattr(decoder, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    raise IntrospectionError(
        f"{type(decoder).__name__} has no list of decoder layers that we know; "
        "use a decoder-only text model such as Llama, Qwen, Gemma, Mistral or Phi."
    )


def width(model: PreTrainedModel) -> int:
    """How wide the residual stream is; some models have narrower embeddings."""
    return int(model.config.get_text_config().hidden_size)


def has_adapter(model: nn.Module) -> bool:
    return any(True for _ in row_gate.gated_modules(model))


@dataclass(frozen=True, slots=True)
class InjectionHooks:
    """The hooks that live on one model: ``remove()`` takes them off again."""

    layer: int
    handles: tuple[Any, ...]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def install(model: nn.Module, layer: int) -> InjectionHooks:
    """Put the permanent hook on the output of layer ``layer`` and the gate on every adapter update.

    Call it once, after the adapter is loaded and before any ``torch.compile``: a hook that is added
    to a compiled model is silently ignored.
    """
    handles: list[Any] = [
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


def move_hook(model: nn.Module, installation: InjectionHooks, layer: int) -> InjectionHooks:
    """Take the permanent hook from its layer to layer ``layer``; the gate stays where it is.

    For the layer sweep: the shared model changes, so nobody else may be using it.
    """
    fresh = _decoder_layer(model, layer).register_forward_hook(_injection_hook, with_kwargs=True)
    installation.handles[0].remove()
    return InjectionHooks(layer, (fresh, *installation.handles[1:]))


@contextmanager
def start_at_layer(model: nn.Module, layer: int, hidden: Tensor) -> Iterator[None]:
    """Run forwards as if layers ``0..layer`` had produced ``hidden`` [B, T, D], without running them.

    For training and scoring only (``use_cache=False``): it changes the shared model while it is
    open. The hook still fires on the replayed output, so a plan adds its thought to it.
    """
    stack = decoder_layers(model)
    is_tuple = _returns_tuple(stack[layer])

    def pass_through(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states, None) if is_tuple else hidden_states

    def replay(*_args: Any, **_kwargs: Any) -> Any:
        return (hidden, None) if is_tuple else hidden

    with ExitStack() as open_:
        for block in stack[:layer]:
            open_.enter_context(patch_forward(block, pass_through))
        open_.enter_context(patch_forward(stack[layer], replay))
        yield


@contextmanager
def patch_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """Let a module answer with another function for a while; hooks on it still fire."""
    missing = object()
    before = vars(module).get("forward", missing)
    module.forward = forward
    try:
        yield
    finally:
        if before is missing:
            vars(module).pop("forward", None)
        else:
            module.forward = before  # accelerate wraps forward per layer: put its wrapper back


# Layers whose forward returns (hidden, ...) in transformers 5; all others return the tensor itself.
_TUPLE_BLOCKS = frozenset({"FalconDecoderLayer", "BloomBlock"})


def _returns_tuple(block: nn.Module) -> bool:
    return type(block).__name__ in _TUPLE_BLOCKS


@torch.no_grad()
def self_test(model: PreTrainedModel, layer: int, norm: float = 1.0) -> None:
    """Prove that the hook is alive: inject a probe and measure what arrives.

    Runs two tiny forwards of two rows: plain, then with a probe vector at positions 2 and 3 of the
    first row. The residual stream must have moved by exactly the probe, there and nowhere else.
    Raises IntrospectionError otherwise (a layer that is compiled, wrapped or never called).
    """
    with readable_model_errors(model, "injection"):
        _probe(model, layer, norm)


def _probe(model: PreTrainedModel, layer: int, norm: float) -> None:
    stack = decoder_layers(model)
    device = next(model.parameters()).device
    dtype = next(model.parameters()).dtype
    own = width(model)
    ids = torch.tensor([[5, 6, 7, 8, 9]] * 2, device=device)
    unit = torch.randn(own, generator=torch.Generator().manual_seed(0)) / own**0.5
    probe = torch.zeros(2, own)
    # The last layer tells whether anything is read from right to left.
    where = sorted({layer, len(stack) - 1})
    gate_ = [True, False] if has_adapter(model) else None  # base rows beside adapter rows
    with record_layers(model, where) as seen:
        model.get_decoder()(input_ids=ids, use_cache=False)
        plain = seen[:]
        if plain:  # as loud as what it is added to, or bf16 would round it away
            norm = max(norm, float(plain[0][:, 2:4].norm(dim=-1).max()))
        probe[0] = unit * norm
        with use_plan(make_plan(probe, [(2, 3), (0, None)], gate_, device, dtype)):
            model.get_decoder()(input_ids=ids, use_cache=False)
    moved = seen[len(plain) :]
    if plain and not bool(torch.isfinite(plain[0]).all()):
        raise IntrospectionError(
            f"The model's own weights give NaN or infinite values at layer {layer}: download the model "
            "again or load it in another precision."
        )
    expected = torch.zeros(2, 5, own)
    expected[0, 2:4] = probe[0]
    # Per token, relative to the probe: a scale of the whole stream would be that of its outliers.
    if (
        not plain
        or len(moved) != len(plain)
        or not ((moved[0] - plain[0] - expected).norm(dim=-1).max() < 0.02 * norm)
    ):
        raise IntrospectionError(
            f"The injection hook on layer {layer} is dead: a probe that was added did not arrive in "
            "the residual stream. Reload the model without torch.compile or other wrappers."
        )
    before = (moved[-1] - plain[-1])[0, :2].norm(dim=-1)
    if not bool((before <= 0.02 * plain[-1][0, :2].norm(dim=-1) + 1e-6).all()):
        raise IntrospectionError(
            f"{type(model).__name__} reads its text in both directions (a thought at one token changes "
            "the tokens before it): use a decoder-only text model such as Llama, Qwen or Gemma."
        )


@contextmanager
def readable_model_errors(model: PreTrainedModel, what: str) -> Iterator[None]:
    """An architecture that does something else than this program assumes ends in one sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        if "CUDA error" in str(error):
            raise
        raise IntrospectionError(
            f"{type(model).__name__} is built in a way that {what} does not know here "
            f"({type(error).__name__}: {reason(error)}): use a model that is built as Llama, Qwen, "
            "Gemma, Mistral or Phi are."
        ) from error
