"""Forwards of modules that are replaced for a while, so that a model starts above its lower layers.

Transformers cannot continue from hidden states. ``start_at_layer`` is named as in TransformerLens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from introspection.injection.hooks import decoder_layers

# Layers whose forward returns (hidden, ...) in transformers 5; all others return the tensor itself.
_TUPLE_LAYERS = frozenset({"FalconDecoderLayer", "BloomBlock"})


@contextmanager
def patch_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the forward of a module inside the block; hooks on it still fire."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            vars(module).pop("forward", None)
        else:
            module.forward = before  # accelerate wraps forward per layer: put its wrapper back


@contextmanager
def start_at_layer(model: nn.Module, layer: int, hidden: Tensor) -> Iterator[None]:
    """Run forwards as if layers ``0..layer`` had produced ``hidden`` [B, T, D], without running them.

    For training and scoring: the shared model is changed inside the block. The injection hook fires on
    ``hidden``, so a plan adds its vectors to it.
    """
    stack = decoder_layers(model)
    is_tuple = type(stack[layer]).__name__ in _TUPLE_LAYERS

    def pass_through(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states, None) if is_tuple else hidden_states

    with ExitStack() as open_:
        for below in stack[:layer]:
            open_.enter_context(patch_forward(below, pass_through))
        top = patch_forward(stack[layer], lambda *_args, **_kwargs: pass_through(hidden))
        open_.enter_context(top)
        yield
