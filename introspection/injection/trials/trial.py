"""Trials: one question to the model under one injection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from introspection.errors import IntrospectionError
from introspection.injection.trials.message import Message
from introspection.injection.trials.schedule import GENERATION, Schedule


@dataclass(frozen=True, slots=True, eq=False)
class Injection:
    """A unit concept vector [D] (float32, CPU), its strength and its schedule.

    ``strength`` is rho = |added vector| / typical residual norm at layer L, the same dose on every
    model; a negative one subtracts. ``layer`` is where the vector is added if not at layer L. Raises
    IntrospectionError for a strength that is not finite, a negative layer, a vector not of length one.
    """

    vector: Tensor
    strength: float
    schedule: Schedule = GENERATION
    layer: int | None = None

    def __post_init__(self) -> None:
        try:
            dose = math.isfinite(self.strength)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            dose = False
        if not dose:
            raise IntrospectionError(
                f"The strength of an injection is {str(self.strength)[:40]}: give a finite number, "
                "such as 1.0."
            )
        if self.layer is not None and not (type(self.layer) is int and self.layer >= 0):
            raise IntrospectionError(
                f"There is no layer {str(self.layer)[:40]}: layers are counted from 0, and None is "
                "the one where the model is read."
            )
        _check_unit(self.vector)


def _check_unit(vector: Tensor) -> None:
    """Raise IntrospectionError unless it is a finite real vector [D] of length one."""
    plain = isinstance(vector, Tensor) and vector.is_floating_point() and not vector.is_meta
    if not plain or vector.ndim != 1 or not len(vector):
        kind = type(vector).__name__
        if isinstance(vector, Tensor):
            kind = f"a tensor of shape {list(vector.shape)}, {vector.dtype}, on {vector.device}"
        raise IntrospectionError(
            f"An injection needs one vector of real numbers, as wide as the model's residual stream, "
            f"and was given {kind}: take one from loaded.vector or extract."
        )
    if vector.requires_grad:
        raise IntrospectionError(
            "The vector of an injection asks for gradients, which no report gives: pass "
            "vector.detach()."
        )
    length = float(torch.linalg.vector_norm(vector.float()))
    if not math.isfinite(length):
        raise IntrospectionError(
            "The vector of an injection holds NaN or infinite values: extract it again."
        )
    # Sixteen bits of a number keep three digits.
    if abs(length - 1) > (1e-3 if vector.itemsize > 2 else 1e-2):
        advice = "divide it by its length" if length else "take one that is not zero"
        raise IntrospectionError(
            f"The vector of an injection has the length {length:.4g} and not 1, so its strength "
            f"would mean another dose: {advice}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One row: a conversation, an injection (or none), with the adapter or the base model."""

    messages: tuple[Message, ...]
    injection: Injection | None = None
    adapter: bool = True
