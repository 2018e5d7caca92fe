"""The adapter on or off for each row, so that base and adapter rows run in one batch, bit-exact.

PEFT's LoRA layers multiply their update by the float ``scaling[name]``. We replace it by a subclass of
float that multiplies by scaling times the [B, 1, 1] gate of the current plan. No state of the model
changes, so other threads with other plans are not affected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from introspection.injection.plan import current_plan


class GatedScaling(float):
    """The scaling of one LoRA update, times the gate of the current plan. It needs no kernel of its
    own: hooks on 210 updates would cost one kernel and about 10 µs each."""

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
        gate = plan.scaled_gate(float(scaling), update)
        if gate is None:
            return update * float(scaling) * plan.gate.to(update)
        return update * gate


def gated_modules(model: nn.Module) -> Iterator[Any]:
    """The modules of adapters: those with ``scaling``, a dict of floats by adapter name."""
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            yield module


@dataclass(frozen=True, slots=True)
class GateHandle:
    """The gate on one LoRA update; ``remove()`` restores the plain float."""

    scalings: dict[str, float]
    adapter: str

    def remove(self) -> None:
        if self.adapter in self.scalings:  # or the adapter has been deleted since
            self.scalings[self.adapter] = float(self.scalings[self.adapter])


def install_gate(scalings: dict[str, float], adapter: str) -> GateHandle:
    """Put the gate on one update; ``scalings`` is the dict of its PEFT layer, by adapter name."""
    scalings[adapter] = GatedScaling(scalings[adapter])
    return GateHandle(scalings, adapter)
