"""An answer together with the verdict on it, as every part of the program records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from introspection.concepts.catalogue import Concept
from introspection.evaluation.grading.grade import Grade, grade
from introspection.injection.decoding.generation import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAnswer:
    """What a model wrote, and the verdict on it, None as long as the answer is being written.
    ``halted_at`` is the number of its ``tokens`` at which the halt marker was complete."""

    text: str = ""
    tokens: int = 0
    halted_at: int | None = None
    verdict: Grade | None = None

    @property
    def halted(self) -> bool:
        """Whether the halt marker ended the answer or stands in it."""
        return self.halted_at is not None or bool(self.verdict and self.verdict.halted)

    def as_json(self, *without: str) -> dict[str, Any]:
        """What JSON documents say of an answer, but the fields in ``without``. An unfinished answer has
        detected and named nothing."""
        verdict = self.verdict
        fields = {
            "text": self.text,
            "detected": bool(verdict and verdict.detected),
            "named": verdict.named if verdict else None,
            "correct": bool(verdict and verdict.correct),
            "coherent": bool(verdict and verdict.coherent),
            "halted": self.halted,
            "halted_at": self.halted_at,
            "tokens": self.tokens,
        }
        return {name: value for name, value in fields.items() if name not in without}


def grade_answer(answer: Answer, expected: Concept | None) -> GradedAnswer:
    """A finished answer with its verdict; ``expected`` as in :func:`~.grade.grade`."""
    verdict = grade(answer.text, expected)
    return GradedAnswer(
        text=answer.text, tokens=answer.tokens, halted_at=answer.halted_at, verdict=verdict
    )
