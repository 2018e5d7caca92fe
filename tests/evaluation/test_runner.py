"""Suites without leaks, runs that can be interrupted, and rates against counts by hand."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from introspection.concepts.catalogue import Concept, borderline_pairs, catalogue, find, paper
from introspection.concepts.splits import UNSEEN_CATEGORIES, Split
from introspection.concepts.texts import Texts, texts
from introspection.errors import IntrospectionError
from introspection.evaluation import runner
from introspection.evaluation.records import provenance
from introspection.evaluation.runner import run
from introspection.evaluation.samples import Sample
from introspection.evaluation.suites import (
    SIZES,
    STRENGTHS,
    SuiteSizes,
    custom_cases,
    paper_cases,
    suite_cases,
)
from introspection.evaluation.summary import summarise, table
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import GENERATION, after_tokens
from tests.support.tiny import WIDTH, load_tiny


@lru_cache(maxsize=8)
def suite(size: str = "quick", split: Split = "test", seed: int = 0) -> tuple[Sample, ...]:
    return tuple(suite_cases(SIZES[size], split, seed))


class TestSuite:
    @pytest.mark.parametrize("split", ["test", "validation"])
    def test_distinct_and_deterministic(self, split: Split) -> None:
        cases = suite("quick", split)
        assert len({case.key for case in cases}) == len(cases)
        assert len({replace(case, concept=None) for case in cases}) > 0.5 * len(cases)
        assert tuple(suite_cases(SIZES["quick"], split, 0)) == cases
        assert suite("quick", split, 1) != cases

    def test_every_difference_shows_in_the_key(self) -> None:
        case = Sample("a", conversation("b"), Concept("c"), 0.5)
        changes: list[dict[str, Any]] = [
            *({"condition": "x"}, {"messages": conversation("x")}, {"concept": None}),
            *({"messages": (Message("system", "b"),)}, {"concept": Concept("x")}),
            *({"strength": 1.0}, {"schedule": after_tokens(4)}, {"adapter": False}),
            {"vector": "noise"},
        ]
        keys = {replace(case, **change).key for change in changes}
        assert len(keys | {case.key}) == len(changes) + 1

    @pytest.mark.parametrize("size", SIZES)
    def test_conditions(self, size: str) -> None:
        """That every condition is there is tested with the conditions."""
        found, sizes = Counter(case.condition for case in suite(size)), SIZES[size]
        assert min(found.values()) >= 10
        assert found["injected, seen"] == sizes.seen
        assert found["injected, unseen, base model"] == sizes.base
        halts = {n for name, n in found.items() if name.startswith("halt, harmful")}
        assert len(halts) == 1

    @pytest.mark.parametrize("size", SIZES)
    def test_seen_and_unseen(self, size: str) -> None:
        for case in suite(size):
            if case.concept is None:
                assert case.condition.startswith("clean, ")
            elif case.condition == "injected, seen":
                assert case.concept.trained
            else:
                assert not case.concept.trained, case
                held_out = case.concept.category in UNSEEN_CATEGORIES
                assert case.concept.split == "test" or held_out
                if case.condition == "injected, unseen category":
                    assert held_out
                elif "unseen" in case.condition:
                    assert not held_out

    def test_look_alikes_are_of_the_borderline_pairs(self) -> None:
        alike = {benign for _, benign in borderline_pairs()}
        assert all(c.concept in alike for c in suite("full") if "look-alike" in c.condition)

    def test_doses(self) -> None:
        assert all((c.strength in STRENGTHS) is (c.concept is not None) for c in suite())
        doses = Counter(case.strength for case in suite() if case.condition == "injected, unseen")
        assert doses[STRENGTHS[0]] == doses[STRENGTHS[1]]

    def test_a_thousand_distinct_clean_contexts(self) -> None:
        clean = [case for case in suite("full") if case.condition.startswith("clean, ")]
        assert len({case.context for case in clean}) >= 1_000

    def test_every_unseen_concept_is_tested(self) -> None:
        cases = [case for case in suite("full") if case.condition == "injected, unseen"]
        assert {case.concept for case in cases} == {
            c for c in catalogue() if c.split == "test" and c.category not in UNSEEN_CATEGORIES
        }


@lru_cache(maxsize=2)
def lines(split: Split) -> tuple[set[str], list[re.Pattern[str]]]:
    """The texts of a split as they stand, and as patterns where they have a slot."""
    every = {text for field in fields(Texts) for text in getattr(texts(split), field.name)}
    open_ = {text for text in every if "{c}" in text}
    patterns = [re.compile(re.escape(text).replace(r"\{c\}", "(.+?)")) for text in open_]
    return every - open_, patterns


def made_of(text: str, split: Split) -> bool:
    """Whether a message is one or two texts of the split with concepts of the split in the slots."""
    plain, patterns = lines(split)

    def filled(match: re.Match[str]) -> bool:
        concept = find(match[1])
        return set(match.groups()) == {match[1]} and bool(concept and concept.split == split)

    def stands(part: str) -> bool:
        matches = (pattern.fullmatch(part) for pattern in patterns)
        return part in plain or any(match and filled(match) for match in matches)

    cuts = [match.span() for match in re.finditer("\n\n|\n| ", text)]
    pairs = ((text[:a], text[b:]) for a, b in cuts)
    return stands(text) or any(
        (one in plain or other in plain) and stands(one) and stands(other) for one, other in pairs
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_texts_and_concepts_of_one_split_only(split: Split) -> None:
    turns = {tuple(line.split(" ||| ")) for line in texts(split).prior_turns}
    for case in suite("quick", split):
        if case.concept and case.condition != "injected, seen":
            held_out = case.concept.category in UNSEEN_CATEGORIES
            assert case.concept.split == split or (held_out and split == "test")
        before = [message for message in case.messages if message.role != "assistant"]
        if len(case.messages) == 3:
            user, answer, _ = case.messages
            assert (user.content, answer.content) in turns
            before = before[1:]
        assert all(made_of(message.content, split) for message in before), case
    if split == "validation":
        concepts = [case.concept for case in suite("quick", split) if case.concept]
        assert not [concept for concept in concepts if concept.split == "test"]


def test_the_papers_lists() -> None:
    cases, lists = paper_cases(), paper()
    assert paper_cases() == cases != paper_cases(1)
    injected = {"injected, seen": lists.train, "injected, unseen": lists.test}
    injected |= {f"{condition}, base model": words for condition, words in injected.items()}
    injected |= {"halt, harmful, asked": lists.dangerous, "halt, harmless, asked": lists.safe}
    for condition, words in injected.items():
        found = [c.concept.name for c in cases if c.condition == condition and c.concept]
        assert Counter(found) == dict.fromkeys(words, 2)
    counts = Counter(case.condition for case in cases)
    assert counts["clean, asked"] == counts["clean, asked, base model"] == 60
    questions = set(texts("test").questions)
    assert all(case.messages[0].content in questions for case in cases)


class TestCustomCases:
    def test_two_strengths_and_two_ways(self) -> None:
        concepts = [Concept("zorblat"), Concept("flurb", "machines", True), Concept("ocean")]
        contexts = ["The sky is blue.", "Lorem ipsum", "The sky is blue."]
        cases = custom_cases(concepts, contexts)
        assert cases == custom_cases(concepts, contexts) != custom_cases(concepts, contexts, 1)
        for concept in concepts:
            every = [case for case in cases if case.concept == concept]
            own = [case for case in every if case.condition != "injected, own context"]
            assert sorted(case.strength for case in own) == sorted(STRENGTHS)
            label = "harmful" if concept.harmful else "harmless"
            assert {case.condition for case in own} == {f"injected, {label}"}
            assert {case.schedule for case in own} == {GENERATION}
        stands = [c.messages[0].content for c in cases if c.condition == "clean, as it stands"]
        assert stands == contexts[:2]
        asked = [c.messages[0].content for c in cases if c.condition == "clean, then asked"]
        parts = [text.rpartition("\n\n") for text in asked]
        assert {context for context, _, _ in parts} == set(contexts)
        assert {question for _, _, question in parts} <= set(texts("test").questions)
        assert not custom_cases([], [])

    def test_own_contexts_meet_own_thoughts(self) -> None:
        concepts = [Concept("zorblat"), Concept("ocean")]
        contexts = ["The sky is blue.", "Lorem ipsum", "The ocean is deep."]
        contexts += ["Zorblats sing to oceans."]
        cases = custom_cases(concepts, contexts)
        met = [case for case in cases if case.condition == "injected, own context"]
        asked = [case.messages for case in cases if case.condition == "clean, then asked"]
        # A concept that the context names is no thought of its own there.
        assert [case.messages for case in met] == asked[:3]
        names = [case.concept.name for case in met if case.concept]
        assert names == ["zorblat", "ocean", "zorblat"]
        assert {case.strength for case in met} == set(STRENGTHS)
        for some in (custom_cases(concepts, []), custom_cases([], contexts)):
            assert not [case for case in some if case.condition == "injected, own context"]

    def test_strengths(self) -> None:
        doses = (0.25, 0.7, 2.0)
        cases = custom_cases([Concept("zorblat")], [], strengths=doses)
        assert [case.strength for case in cases] == list(doses)
        injected = [c.strength for c in paper_cases(0, doses) if c.concept]
        assert Counter(injected) == dict.fromkeys(doses, len(injected) // 3)
        quick = suite_cases(SIZES["quick"], "test", 0, doses)
        found = Counter(case.strength for case in quick if case.condition == "injected, seen")
        assert found == {0.25: 34, 0.7: 33, 2.0: 33}


# Every kind of case, and texts that break naive readers of lines.
SMALL = SuiteSizes(3, 4, 3, 3, 3, 2, 2, 2)
CASES = [
    *suite_cases(SMALL, "validation"),
    *custom_cases([Concept("zorblat é")], ["An odd\u2028line\x85end é\u00e9.", "Plain"]),
]


def start(out: Path, progress: Callable[[int, int], None] | None = None, **options: Any) -> Any:
    given = {"cases": CASES, "name": "run", "batch_size": 7} | options
    return run(load_tiny("llama"), out=out, progress=progress, **given)


def sorted_lines(out: Path) -> list[bytes]:
    data = (out / "records.jsonl").read_bytes()
    assert data.endswith(b"\n")
    return sorted(data.split(b"\n")[:-1], key=lambda line: json.loads(line)["key"])


def sorted_records(out: Path) -> list[dict[str, Any]]:
    """Of what every start gives alike: all but the time, and the checksum that covers it."""
    found = [json.loads(line) for line in sorted_lines(out)]
    return [{k: v for k, v in record.items() if k not in ("time", "check")} for record in found]


def rates_of(out: Path) -> dict[str, Any]:
    summary = json.loads((out / "summary.json").read_text())
    assert provenance.sealed(summary)
    return {key: summary[key] for key in ("complete", "done", "conditions", "comparisons")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    start(out)
    return out


class _Kill(BaseException):
    pass


class TestRun:
    def test_records(self, whole: Path) -> None:
        records = [json.loads(line) for line in sorted_lines(whole)]
        assert {record["key"] for record in records} == {case.key for case in CASES}
        assert len(records) == len(CASES)
        cases = {case.key: case for case in CASES}
        for record in records:
            case = cases[record["key"]]
            for field in ("condition", "adapter", "strength"):
                assert record[field] == getattr(case, field)
            for field in ("harmful", "split", "category"):
                assert record[field] == getattr(case.concept, field, None)
            assert record["concept"] == getattr(case.concept, "name", None)
            assert (record["question"], record["schedule"]) == (case.context, str(case.schedule))
            score = record["p_detect"]  # where the first words decide, and nowhere else
            late = str(case.schedule).startswith("from_step")
            known = {*texts("test").questions, *texts("validation").questions}
            asks = any(question in case.messages[-1].content for question in known)
            assert record["asked"] is asks
            assert (score is None) is (late or not asks or not case.adapter)
            assert score is None or 0 <= score <= 1
            assert 0 <= record["tokens"] <= 44
            assert all(type(record[k]) is bool for k in ("detected", "correct", "halted"))
            assert (record["halted_at"] is not None) is record["halted"]
        summary = json.loads((whole / "summary.json").read_text())
        by_key = {record["key"]: record for record in records}
        counted = json.loads(json.dumps(summarise([by_key[c.key] for c in CASES])))
        assert {key: summary[key] for key in counted} == counted

    @pytest.mark.parametrize("batches", [1, pytest.param(4, marks=pytest.mark.slow)])
    def test_interrupted(self, batches: int, whole: Path, tmp_path: Path) -> None:
        told: list[int] = []

        def tell(done: int, total: int) -> None:
            assert total == len(CASES)
            told.append(done)
            if len(told) == batches:
                raise _Kill

        with pytest.raises(_Kill):
            start(tmp_path, tell)
        assert told == [7 * (i + 1) for i in range(batches)]
        assert len(sorted_lines(tmp_path)) == 7 * batches
        partial = rates_of(tmp_path)
        assert not partial["complete"] and partial["done"] == 7 * batches
        assert sum(found["n"] for found in partial["conditions"].values()) == 7 * batches
        summary = start(tmp_path, tell)
        assert told[batches] == 7 * (batches + 1) and told[-1] == len(CASES)
        assert sorted_records(tmp_path) == sorted_records(whole)
        assert summary["complete"] and rates_of(tmp_path) == rates_of(whole)

    @pytest.mark.slow  # seconds each
    @pytest.mark.parametrize("where", ["character", "line", "newline", "first"])
    def test_half_a_line(self, where: str, whole: Path, tmp_path: Path) -> None:
        data = (whole / "records.jsonl").read_bytes()
        tenth = [match.end() for match in re.finditer(b"\n", data)][9]
        cuts = {"line": tenth + 80, "newline": tenth - 1, "first": 40}
        cut = (cuts | {"character": data.rindex("é".encode()) + 1})[where]
        (tmp_path / "records.jsonl").write_bytes(data[:cut])
        start(tmp_path)
        assert sorted_records(tmp_path) == sorted_records(whole)

    def test_a_finished_run_is_only_counted(
        self, whole: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (whole / "records.jsonl").read_bytes(), (whole / "summary.json").read_bytes()
        (whole / "summary.json").unlink()
        monkeypatch.setattr(runner, "generate_with_scores", None)
        start(whole)
        after = (whole / "records.jsonl").read_bytes(), (whole / "summary.json").read_bytes()
        assert after == before

    def test_records_of_another_run(self, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = (whole / "records.jsonl").read_bytes()
        for options, said in (
            ({"name": "other"}, "run run "),
            ({"seed": 1}, "seed 0 there, 1 here"),
            ({"cases": CASES[1:]}, "planned"),
            ({"cases": [*CASES[1:], Sample("x", conversation("New"))]}, "is not planned"),
            ({"options": {"limit": 3}}, "options|run"),
            ({"template": "Say {c}"}, "template"),
        ):
            with pytest.raises(IntrospectionError, match=rf"another run \(.*{said}.* --out.*\.$"):
                start(whole, **options)
        monkeypatch.setattr(provenance, "versions", lambda: {"torch": "0.1"})
        with pytest.raises(IntrospectionError, match=r"another run \(versions: "):
            start(whole)
        assert (whole / "records.jsonl").read_bytes() == before

    def test_vectors_of_the_controls(self) -> None:
        vectors = {"c": torch.nn.functional.normalize(torch.ones(WIDTH), dim=0)}
        case = Sample("x", conversation("y"), Concept("c"), 0.5, after_tokens(3))

        def vector(seed: int = 0, **changes: Any) -> torch.Tensor:
            trial = runner._trial(replace(case, **changes), vectors, seed)
            assert trial.injection is not None and trial.adapter
            return trial.injection.vector

        assert torch.equal(vector(), vectors["c"])
        assert torch.equal(vector(vector="negated"), -vectors["c"])
        noise = vector(vector="noise")
        assert torch.equal(noise, vector(vector="noise"))
        assert not torch.equal(noise, vector(vector="noise", seed=1))
        assert not torch.equal(noise, vector(vector="noise", messages=conversation("z")))
        clean = runner._trial(replace(case, concept=None, adapter=False), vectors, 0)
        assert clean.injection is None and not clean.adapter


def record(condition: str, question: str, **fields_: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("concept", "named", "halted_at"))
    empty |= dict.fromkeys(("detected", "correct", "halted"), False)
    empty |= {"schedule": "final_on", "text": "", "coherent": True, "p_detect": 0.0}
    return {"condition": condition, "question": question, **empty, **fields_}


RECORDS = [
    record("injected, seen", "a", concept="x", detected=True, correct=True, p_detect=0.9),
    record("injected, seen", "b", concept="y", detected=True, correct=True, p_detect=0.8),
    record("injected, unseen", "a", concept="u", detected=True, correct=True, p_detect=0.9),
    record("injected, unseen", "a", concept="u", detected=True, p_detect=0.2),
    record("injected, unseen", "b", concept="v", coherent=False, p_detect=0.05),
    record("clean, asked", "a", correct=True, p_detect=0.1),
    record("clean, asked", "c", detected=True, p_detect=0.2),
    record("clean, ordinary request", "d", halted=True, halted_at=3),
    record("clean, ordinary request", "d", correct=True),
    record("clean, asked, base model", "a", detected=True, p_detect=0.99),
    *(
        record("halt, harmful, mid-answer", "e", concept=name, halted=at is not None)
        | {"halted_at": at, "schedule": "from_step:8"}
        for name, at in (("k", 9), ("l", 12), ("m", 10), ("n", None))
    ),
]


class TestSummary:
    def test_rates_by_hand(self) -> None:
        found = summarise(RECORDS)["conditions"]
        assert list(found) == list(dict.fromkeys(record["condition"] for record in RECORDS))

        def counts(condition: str, field: str) -> tuple[int, int, int]:
            cell = found[condition][field]
            return cell["successes"], cell["n"], cell["contexts"]

        unseen = found["injected, unseen"]
        assert (unseen["n"], unseen["concepts"], unseen["contexts"]) == (3, 2, 2)
        assert counts("injected, unseen", "detected") == (2, 3, 2)
        assert counts("injected, unseen", "correct") == (1, 3, 2)
        assert counts("injected, unseen", "coherent") == (2, 3, 2)
        assert counts("clean, ordinary request", "detected") == (0, 2, 1)
        assert counts("clean, ordinary request", "flagged") == (1, 2, 1)
        assert found["clean, asked"]["concepts"] == 0
        assert counts("halt, harmful, mid-answer", "halted") == (3, 4, 1)
        assert found["halt, harmful, mid-answer"]["median_tokens_to_halt"] == 2
        assert unseen["median_tokens_to_halt"] is None
        # Wilson's interval for 1 of 3, by its formula.
        z, p, n = 1.959964, 1 / 3, 3
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert math.isclose(unseen["correct"]["low"], middle - half, rel_tol=1e-4)
        assert math.isclose(unseen["correct"]["high"], middle + half, rel_tol=1e-4)

    def test_comparisons_by_hand(self) -> None:
        found = summarise(RECORDS)["comparisons"]
        assert math.isclose(found["seen minus unseen, correct"]["value"], 1 - 1 / 3)
        assert math.isclose(found["seen minus unseen, detected"]["value"], 1 - 2 / 3)
        false = found["false positives, all clean contexts"]
        assert (false["successes"], false["n"], false["contexts"]) == (2, 4, 3)
        # Of 3 x 2 pairs the unseen one scores above in 2 + 1.5 + 0.
        area = found["auroc of p_detect, unseen against clean asked"]
        assert math.isclose(area, 3.5 / 6)

    def test_nothing_to_compare(self) -> None:
        assert summarise([]) == {"conditions": {}, "comparisons": {}}
        assert summarise(RECORDS[:1])["comparisons"] == {}

    def test_table(self) -> None:
        shown = table(json.loads(json.dumps(summarise(RECORDS))))
        assert len(shown) == 1 + 6 + 4
        row = next(line for line in shown if line.startswith("injected, unseen "))
        assert row.split()[2:4] == ["3", "2"] and "66.7 [" in row and "33.3 [" in row
        assert any("50.0 [" in line and "% of 4" in line for line in shown)
        assert any(line.endswith("0.5833") for line in shown)
