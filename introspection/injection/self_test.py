"""A test that the injection works on a model, and one sentence for architectures on which it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.injection.hooks import decoder_layers, has_adapter, record_layers, width
from introspection.injection.plan import make_plan, use_plan
from introspection.injection.trials.chat_templates import reason


@torch.no_grad()
def self_test(model: PreTrainedModel, layer: int, norm: float = 1.0) -> None:
    """Add a probe vector and measure that it arrives in the residual stream.

    Of two rows the residual stream must move by exactly the probe, of least length ``norm``, at
    positions 2 and 3 of the first and nowhere else. Raises IntrospectionError otherwise (a layer that
    is compiled or never called, weights that are not finite, a model that reads both ways).
    """
    with readable_model_errors(model, "injection"):
        _probe(model, layer, norm)


def _probe(model: PreTrainedModel, layer: int, norm: float) -> None:
    stack = decoder_layers(model)
    device = next(model.parameters()).device
    dtype = next(model.parameters()).dtype
    size = width(model)
    ids = torch.tensor([[5, 6, 7, 8, 9]] * 2, device=device)
    unit = torch.randn(size, generator=torch.Generator().manual_seed(0)) / size**0.5
    probe = torch.zeros(2, size)
    # At the last layer a model that reads from right to left shows the probe at earlier tokens.
    where = sorted({layer, len(stack) - 1})
    adapter = [True, False] if has_adapter(model) else None  # base rows beside adapter rows
    with record_layers(model, where) as seen:
        model.get_decoder()(input_ids=ids, use_cache=False)
        plain = seen[:]
        if plain:  # as long as the residual stream there, or bf16 would round it away
            norm = max(norm, float(plain[0][:, 2:4].norm(dim=-1).max()))
        probe[0] = unit * norm
        with use_plan(make_plan(probe, [(2, 3), (0, None)], adapter, device, dtype)):
            model.get_decoder()(input_ids=ids, use_cache=False)
    moved = seen[len(plain) :]
    if plain and not bool(torch.isfinite(plain[0]).all()):
        raise IntrospectionError(
            f"The model's own weights give NaN or infinite values at layer {layer}: download the model "
            "again or load it in another precision."
        )
    expected = torch.zeros(2, 5, size)
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
    """Turn the errors of an architecture that differs from what this program assumes into one
    IntrospectionError; ``what`` is the part of the program that fails on it. Errors of memory and of
    CUDA are passed on."""
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
