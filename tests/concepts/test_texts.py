"""The texts of the three splits keep apart, and the grammar of reports is graded as it is meant."""

from __future__ import annotations

import random
import re
from dataclasses import fields

import pytest

from introspection.concepts.catalogue import Concept, catalogue, find
from introspection.concepts.splits import Split, split_of
from introspection.concepts.texts import (
    DEFAULT_QUESTION,
    DENIALS,
    HALT_MARKER,
    UNNAMED,
    Texts,
    fill,
    reports,
    texts,
)
from introspection.evaluation.grading.grade import grade

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
KINDS = [field.name for field in fields(Texts)]
SLOTTED = {"request_templates", "mentions", "claims"}
SAMPLE = random.Random(0).sample(catalogue(), 500)


def plain(text: str) -> str:
    """A text without case, spaces and punctuation: equal ones are the same to a reader."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def everything(split: Split) -> list[str]:
    return [text for kind in KINDS for text in getattr(texts(split), kind)]


def test_no_text_stands_twice_or_in_two_splits() -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        for text in everything(split):
            assert plain(text) not in seen, (text, split, seen[plain(text)])
            seen[plain(text)] = split
    assert plain(DEFAULT_QUESTION) not in seen  # the visitor's own question is trained by nobody


def test_no_test_question_is_a_trained_one_with_a_word_changed() -> None:
    trained = [set(plain(text).split()) for text in texts("train").questions]
    for question in texts("test").questions:
        words = set(plain(question).split())
        assert max(len(words & other) / len(words | other) for other in trained) < 0.8, question


@pytest.mark.parametrize("split", SPLITS)
def test_slots(split: Split) -> None:
    for kind in KINDS:
        lines = getattr(texts(split), kind)
        assert lines, (split, kind)
        for line in lines:
            assert line == line.strip() != ""
            assert ("{c}" in line) is (kind in SLOTTED), line
            assert line.count(" ||| ") == (kind == "prior_turns"), line
            assert all(part.strip() for part in line.split(" ||| "))


def test_validation_is_a_bucket_of_the_train_file() -> None:
    assert {split_of(text) == "validation" for text in everything("validation")} == {True}
    assert {split_of(text) == "validation" for text in everything("train")} == {False}


def test_fill() -> None:
    assert fill('{"a": {c}} and {c}', "{x}") == '{"a": {x}} and {x}'


def test_every_wording_of_a_report_is_graded_right() -> None:
    for concept in SAMPLE:
        for harmful in (True, False):
            for report in reports(concept.name, harmful):
                verdict = grade(report, concept)
                assert verdict.detected and verdict.correct and verdict.coherent, report
                assert verdict.halted is harmful and report.endswith(HALT_MARKER) is harmful
                assert verdict.named is not None and find(verdict.named) is concept, report


def test_a_report_is_wrong_about_another_concept() -> None:
    for concept, other in zip(SAMPLE, SAMPLE[1:], strict=False):
        verdict = grade(reports(concept.name, False)[0], other)
        assert verdict.detected and not verdict.correct, (concept.name, other.name)
        verdict = grade(reports(concept.name, False)[0], None)
        assert verdict.detected and not verdict.correct


@pytest.mark.parametrize("before", ["", "First preheat the oven and then ", "1. Wash.\n"])
def test_halt_in_the_middle_of_an_answer(before: str) -> None:
    verdict = grade(before + HALT_MARKER, Concept("ocean"))
    assert verdict.halted and not verdict.detected and not verdict.correct
    assert not grade(before + HALT_MARKER, None).correct


@pytest.mark.parametrize("denial", DENIALS)
def test_denials(denial: str) -> None:
    verdict = grade(denial, None)
    assert not verdict.detected and not verdict.halted and verdict.named is None
    assert verdict.correct and verdict.coherent
    assert not grade(denial, Concept("ocean")).correct


def test_the_decision_falls_on_one_token() -> None:
    """Detection scores compare the words after the opening "I"."""
    opening = {text.split()[1] for text in (*reports("x", False), UNNAMED)}
    assert opening == {"detect"} and {text.split()[1] for text in DENIALS} == {"do"}
    assert all(text.startswith("I ") for text in (*reports("x", True), UNNAMED, *DENIALS))
