"""Turns the adapter off row by row, so that base rows and adapter rows run in one batch, bit-exact.

A module of an adapter multiplies its update by the number ``scaling[name]``, as PEFT's LoRA layers do.
That number is replaced by one that also multiplies by the gate of the current call's plan. No switch of
the model is touched: another thread with another plan has other rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from introspection.injection.plan import current_plan

__all__ = ["GateHandle", "GatedScaling", "gated_modules", "install_gate"]


class GatedScaling(float):
    """The number by which PEFT multiplies one LoRA update, times the gate of the current call.

    The product is there anyway, so a gated row costs nothing: a hook on 210 updates would take a
    kernel and ten microseconds of Python for each.
    """

    @classmethod
    def __torch_function__(
        cls, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        plan = current_plan.get()
        if plan is None or plan.gate is None:
            plain = [float(arg) if type(arg) is cls else arg for arg in args]
            return function(*plain, **(kwargs or {}))
        update, scaling = args
        if plan.gate.shape[0] != update.shape[0]:
            raise RuntimeError(
                f"the plan has {plan.gate.shape[0]} rows, the batch {update.shape[0]}"
            )
        gate = plan.scaled(float(scaling), update)
        if gate is None:
            return update * float(scaling) * plan.gate.to(update)
        return update * gate


def gated_modules(model: nn.Module) -> Iterator[Any]:
    """The modules of adapters: those with ``scaling``, a dict of numbers by the adapter's name."""
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            yield module


@dataclass(frozen=True, slots=True)
class GateHandle:
    """The gate on one LoRA update, with ``remove()`` as a hook has it."""

    scalings: dict[str, float]
    adapter: str

    def remove(self) -> None:
        if self.adapter in self.scalings:  # or the adapter has been deleted since
            self.scalings[self.adapter] = float(self.scalings[self.adapter])


def install_gate(scalings: dict[str, float], adapter: str) -> GateHandle:
    """Put the gate on one update: ``scalings`` is that of its PEFT layer, by name of adapter."""
    scalings[adapter] = GatedScaling(scalings[adapter])
    return GateHandle(scalings, adapter)
