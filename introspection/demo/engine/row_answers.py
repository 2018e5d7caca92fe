"""The three answers to one request, as far as they are written.

Knows: what a row is. Does not know: how it is computed, Gradio, HTML.
"""

from __future__ import annotations

from dataclasses import dataclass

from introspection.evaluation.grading.grade import Grade
from introspection.injection.decoding.readout import ReadToken

__all__ = ["RowAnswer", "RowAnswers"]


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """One row: what it is, what it wrote so far, and its verdict once it has ended."""

    row: str
    adapter: bool
    injected: bool
    text: str = ""
    tokens: int = 0
    halted_at: int | None = None
    verdict: Grade | None = None
    began: int | None = None  # characters written before a thought that came in mid-answer
    tokens_read: tuple[ReadToken, ...] = ()  # what the reader found, once the run has ended

    @property
    def halted(self) -> bool:
        return self.halted_at is not None or bool(self.verdict and self.verdict.halted)


RowAnswers = tuple[RowAnswer, RowAnswer, RowAnswer]
