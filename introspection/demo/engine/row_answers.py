"""The three answers to one request, as far as they are written."""

from __future__ import annotations

from dataclasses import dataclass

from introspection.evaluation.grading.graded_answer import GradedAnswer
from introspection.injection.decoding.readout import ReadToken


@dataclass(frozen=True, slots=True)
class RowAnswer(GradedAnswer):
    """One of the three answers so far: what was done, what was written, the verdict once it has ended.

    ``row`` is "adapter_thought", "base_thought" or "adapter_clean"; ``began`` counts the characters
    before a thought that came in mid-answer; ``tokens_read`` is the linear readout of every token,
    once the run has ended.
    """

    row: str
    adapter: bool
    injected: bool
    began: int | None = None
    tokens_read: tuple[ReadToken, ...] = ()


RowAnswers = tuple[RowAnswer, RowAnswer, RowAnswer]
