"""The plan of a forward or ``generate`` call: what is added to the residual stream, which rows run
without the adapter. The current plan is in a ``ContextVar``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class InjectionPlan:
    """What one forward or ``generate`` call adds to the residual stream, one entry per row.

    ``delta`` [B, 1, D] is added at positions ``first <= position <= last``, both [B, 1] int64; ``last``
    is None when every row goes on to the end. ``other_layers`` maps a layer other than L to its delta.
    ``gate`` [B, 1, 1] multiplies every LoRA update: 1 is the adapter, 0 the base model, None is
    the adapter everywhere. A forward with a ``capture`` adds the stream [B, T, D] at layer L to that
    list and ends there.
    """

    delta: Tensor | None = None
    first: Tensor | None = None
    last: Tensor | None = None
    gate: Tensor | None = None
    other_layers: Mapping[int, Tensor] = field(default_factory=dict)
    capture: list[Tensor] | None = None
    _scaled_gates: dict[tuple[float, torch.dtype, torch.device], Tensor | None] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def scaled_gate(self, scaling: float, like: Tensor) -> Tensor | None:
        """The gate [B, 1, 1] times ``scaling``, with the dtype and device of ``like``, made once; None
        where that dtype would round ``scaling``, which the product with a Python float does not."""
        key = (scaling, like.dtype, like.device)
        if key not in self._scaled_gates:
            assert self.gate is not None
            exact = float(torch.tensor(scaling, dtype=like.dtype)) == scaling
            self._scaled_gates[key] = self.gate.to(like) * scaling if exact else None
        return self._scaled_gates[key]


current_plan: ContextVar[InjectionPlan | None] = ContextVar("introspection_plan", default=None)


def make_plan(
    delta: Tensor | None,
    spans: Sequence[tuple[int, int | None]],
    adapter: Sequence[bool] | None,
    device: torch.device | str,
    dtype: torch.dtype,
    other_layers: Mapping[int, Tensor] | None = None,
) -> InjectionPlan:
    """The plan of a batch of B rows on ``device``.

    ``delta`` [B, D] is vector x strength x residual norm, zeros for rows without an injection;
    ``spans`` [B] are (first, last) positions without padding, last None for "to the end"; ``adapter``
    [B] is False for the base model; ``other_layers`` maps layers other than L to their ``delta``.
    """
    gate = None
    if adapter is not None and not all(adapter):
        gate = torch.tensor(adapter, device=device, dtype=dtype)[:, None, None]
    if delta is None and not other_layers:
        return InjectionPlan(gate=gate)
    first = torch.tensor([start for start, _ in spans], device=device)[:, None]
    last = None
    if any(end is not None for _, end in spans):
        ends = [2**31 - 1 if end is None else end for _, end in spans]
        last = torch.tensor(ends, device=device)[:, None]
    deltas = {layer: d.to(device, dtype)[:, None, :] for layer, d in (other_layers or {}).items()}
    at_layer = None if delta is None else delta.to(device, dtype)[:, None, :]
    return InjectionPlan(at_layer, first, last, gate, deltas)


@contextmanager
def use_plan(plan: InjectionPlan) -> Iterator[None]:
    """Make ``plan`` the plan of every forward in this context (thread or task), then forget it. Not
    across a ``yield`` of a generator: its steps may run in different contexts."""
    token = current_plan.set(plan)
    try:
        yield
    finally:
        current_plan.reset(token)
