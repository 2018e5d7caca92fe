"""The product turned round is the same product, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from introspection.injection.speedups import small_batch_linear


def quickened(inputs: int = 64, outputs: int = 512, bias: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=bias))
    small_batch_linear.use_small_batch_linear(model)
    return model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(64,), (1, 64), (2, 64), (3, 1, 64), (1, 5, 64), (2, 2, 64), (6, 64), (2, 9, 64), (0, 64)],
)
def test_it_is_the_same_product(shape: tuple[int, ...], bias: bool) -> None:
    model, x = quickened(bias=bias), torch.randn(shape)
    (layer,) = model
    assert type(layer) is small_batch_linear.SmallBatchLinear
    with torch.inference_mode():
        found = model(x)
    wanted = nn.functional.linear(x, layer.weight, layer.bias)
    assert found.shape == wanted.shape and found.is_contiguous()
    assert torch.allclose(found, wanted, atol=1e-5)


def test_gradients_are_those_of_the_usual_way() -> None:
    model, x = quickened(), torch.randn(3, 64, requires_grad=True)
    model(x).sum().backward()
    (layer,) = model
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(3, -1), atol=1e-5)  # type: ignore[arg-type]
    assert layer.weight.grad is not None


def test_only_large_layers_in_full_precision_are_touched() -> None:
    class Other(nn.Linear):
        pass

    layers = {
        small_batch_linear.SmallBatchLinear: nn.Linear(1024, 512),
        nn.Linear: nn.Linear(1025, 512),
        Other: Other(64, 512),
    }
    small, half = nn.Linear(64, 511), nn.Linear(64, 512).bfloat16()
    small_batch_linear.use_small_batch_linear(nn.Sequential(*layers.values(), small, half))
    assert [type(layer) for layer in layers.values()] == list(layers)
    assert type(small) is type(half) is nn.Linear
    small_batch_linear.use_small_batch_linear(nn.Sequential(*layers.values()))  # twice is once
    assert [type(layer) for layer in layers.values()] == list(layers)


def test_the_usual_way_is_left_for_few_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, usual = quickened(), nn.functional.linear
    taken: list[int] = []

    def linear(x: torch.Tensor, *weights: torch.Tensor | None) -> torch.Tensor:
        taken.append(x.shape[0])
        return usual(x, *weights)

    monkeypatch.setattr(small_batch_linear.functional, "linear", linear)
    with torch.inference_mode():
        for rows in range(1, 8):
            model(torch.randn(rows, 64))
    assert taken == [1, 6, 7]
