"""What a training is told: its hyperparameters, and the job that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from introspection.concepts.catalogue import paper
from introspection.injection.extraction import TEMPLATES, baseline_words

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides the result, beside the examples and the vectors.

    ``strengths`` (rho, low and high) are drawn log-uniformly for every example and epoch. ``kind`` is
    a key of ``models.adapters.kinds.KINDS``; ``rank`` and ``targets`` are LoRA's.
    """

    epochs: int = 3
    batch_size: int = 256
    learning_rate: float = 7e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    rank: int = 32
    targets: tuple[str, ...] = TARGETS
    strengths: tuple[float, float] = (0.25, 2.0)
    replay_weight: float = 3.0
    seed: int = 0
    kind: str = "LORA"

    def as_record(self) -> dict[str, Any]:
        """As files store it: LoRA is not named, so that a run from before there were kinds goes on."""
        return {k: v for k, v in asdict(self).items() if (k, v) != ("kind", "LORA")}


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What one adapter is trained on.

    ``recipe`` is ``ours`` or ``paper``, ``examples`` the number of distinct examples. ``site`` is the
    token position where concept vectors are read, under each of ``templates``.
    """

    recipe: str
    config: TrainConfig
    examples: int
    site: str = "concept"
    templates: Sequence[str] = TEMPLATES

    @property
    def baseline(self) -> tuple[str, ...]:
        """The words whose mean is subtracted from every concept vector."""
        return tuple(paper().baseline if self.recipe == "paper" else baseline_words())
