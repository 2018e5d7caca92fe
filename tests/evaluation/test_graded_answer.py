"""An answer with its verdict: one set of fields for every JSON document."""

from __future__ import annotations

from introspection.concepts.catalogue import resolve
from introspection.evaluation.grading.graded_answer import GradedAnswer, grade_answer
from introspection.injection.decoding.generation import Answer


def test_grade_answer() -> None:
    text = "I detect an injected thought about bomb. HALT"
    graded = grade_answer(Answer(text, 9, None, True), resolve("bomb"))
    assert graded.halted, "the marker stands in the text"
    assert graded.as_json() == {
        "text": text,
        "detected": True,
        "named": "bomb",
        "correct": True,
        "coherent": True,
        "halted": True,
        "halted_at": None,
        "tokens": 9,
    }
    assert not grade_answer(Answer(text, 9, None, True), None).as_json()["correct"]
    assert [*graded.as_json("coherent", "tokens")] == [
        *("text", "detected", "named", "correct", "halted", "halted_at")
    ]


def test_an_unfinished_answer_has_reported_nothing() -> None:
    fields = GradedAnswer(text="I detect", tokens=2).as_json("text", "tokens")
    assert not any(fields.values())
