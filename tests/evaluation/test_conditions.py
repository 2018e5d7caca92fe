"""Every case of every suite is what its condition says, and cases are chosen as asked."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from introspection.concepts.catalogue import Concept
from introspection.concepts.splits import Split
from introspection.concepts.texts import DEFAULT_QUESTION, texts
from introspection.demo.tabs.error_rates import rates
from introspection.errors import IntrospectionError
from introspection.evaluation import conditions, samples
from introspection.evaluation.conditions import AMID, BASE, CONDITIONS, checked, holds
from introspection.evaluation.report import headline
from introspection.evaluation.samples import Sample, asks_about_state, names_it
from introspection.evaluation.selection import chosen_schedules, chosen_strengths, select
from introspection.evaluation.suites import SIZES, custom_cases, paper_cases, suite_cases
from introspection.hub.cards import eval_results
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import GENERATION, Schedule, after_tokens

RECORDS = Path(__file__).resolve().parents[2] / "records"
CONCEPTS = [Concept("zorblat"), Concept("flurb", "machines", True)]


@cache
def suite(size: str, split: Split, seed: int = 0) -> tuple[Sample, ...]:
    return tuple(suite_cases(SIZES[size], split, seed))


@pytest.mark.slow  # whole suites
@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("size", SIZES)
def test_every_case_is_what_its_condition_says(size: str, split: Split, seed: int) -> None:
    cases = suite(size, split, seed)
    assert all(map(holds, cases))
    amid = [case for case in cases if case.condition == AMID]
    assert len(amid) == 2 * SIZES[size].controls
    for case in amid:
        assert case.concept and case.asked and not names_it(case.messages, case.concept)
        assert case.context.removeprefix("user: ") not in texts(split).questions
    # Nothing but those that were a bare question is another case than before (see records/README.md).
    assert len({case.concept for case in amid}) == len(amid)


def test_the_other_suites_too() -> None:
    cases = [*paper_cases(), *custom_cases(CONCEPTS, ["The sky.", DEFAULT_QUESTION])]
    assert all(map(holds, cases))
    found = {c.condition.removesuffix(BASE) for c in [*cases, *suite("quick", "test")]}
    assert found == {c.name.removesuffix(BASE) for c in CONDITIONS}, "each rule is met by some case"


def test_what_is_no_case_of_its_condition_is_refused() -> None:
    question, harmful = conversation(DEFAULT_QUESTION), Concept("bomb", "weapons", True)
    amid = conversation(f"The sky is blue.\n\n{DEFAULT_QUESTION}")
    unseen = Sample("injected, unseen", question, CONCEPTS[0], 1.0)
    joke = Sample("halt, harmful, mid-answer", conversation("Tell me a joke."), harmful, 1.0)
    wrong = [
        Sample(AMID, conversation(f"A zorblat.\n\n{DEFAULT_QUESTION}"), CONCEPTS[0], 1.0),
        Sample(AMID, conversation("The sky is blue."), CONCEPTS[0], 1.0),
        *(replace(unseen, messages=amid), replace(unseen, concept=None, strength=0.0)),
        *(replace(unseen, adapter=False), replace(unseen, vector="noise")),
        *(
            replace(unseen, condition=name)
            for name in (
                *(AMID, "injected, unseen, base model", "injected, unseen, all", "clean, asked"),
                *("halt, harmful, asked", "control, random vector", "something else"),
                "control, false yes/no question",
            )
        ),
        Sample("clean, asked", conversation("Tell me a joke.")),
        Sample("clean, ordinary request", question),
        Sample("clean, concept in the text", conversation("Nothing of the kind.")),
        Sample("clean, then asked", question),
        Sample("halt, harmless, asked", question, harmful, 1.0),
        joke,
        replace(joke, condition="halt, harmful, ordinary request", schedule=after_tokens(4)),
    ]
    for case in wrong:
        assert not holds(case), case
        with pytest.raises(ValueError, match="not a case of"):
            checked([case])
    assert holds(Sample(AMID, amid, CONCEPTS[0], 1.0))


@pytest.mark.parametrize("where", ["alone", "after", "before", "turn"])
def test_a_question_about_its_state_is_found(where: str) -> None:
    turns = (Message("user", "Hello"), Message("assistant", "Hi."))
    for split in ("train", "validation", "test"):
        for question in texts(split).questions:
            messages = {
                "alone": conversation(question),
                "after": conversation(f"The sky is blue. {question}"),
                "before": conversation(f"{question}\nThe sky is blue."),
                "turn": conversation(question, *turns),
            }[where]
            assert asks_about_state(messages)
            assert samples.is_bare(messages) is (where == "alone")
    for text in (*texts("test").requests, *texts("test").yes_no_false, *texts("test").contexts):
        assert not asks_about_state(conversation(text)), text
        assert not asks_about_state(conversation(text, Message("user", DEFAULT_QUESTION)))


def committed(name: str) -> list[dict[str, Any]]:
    with gzip.open(RECORDS / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_training_still_draws_what_it_drew_and_suites_but_for_bare_questions() -> None:
    """The committed records were made before conditions checked themselves."""
    old = {r["key"]: r for r in committed("smollm2-135m/full.jsonl.gz")}
    new = {case.key: case for case in suite("full", "test")}
    gone = [old[key] for key in old.keys() - new.keys()]
    assert len(gone) == 161 and all(map(conditions.misfiled, gone))
    assert sum(map(conditions.misfiled, old.values())) == 161
    for record in list(old.values())[::50]:
        messages = samples.messages_of(record["question"])
        assert "\n".join(f"{m.role}: {m.content}" for m in messages) == record["question"]


@pytest.mark.parametrize(
    ("size", "file", "bare"),
    [
        pytest.param("full", "smollm2-135m/full", 161, marks=pytest.mark.slow),
        ("quick", "smollm2-135m/quick-cpu", 20),
        ("paper", "paper/smollm2-135m", 0),
    ],
)
def test_a_suite_plans_the_committed_records(size: str, file: str, bare: int) -> None:
    """All of them but the ``bare`` questions that older records have in place of other text."""
    planned = paper_cases() if size == "paper" else suite(size, "test")
    records = committed(f"{file}.jsonl.gz")
    same = {case.key for case in planned} & {record["key"] for record in records}
    assert len(planned) == len(records) == len(same) + bare
    counts = Counter(case.condition for case in planned)
    assert counts == Counter(record["condition"] for record in records)


@pytest.mark.parametrize(
    ("name", "condition", "schedule", "adapter"),
    [
        ("injected, unseen", "injected, unseen", None, True),
        ("injected, unseen, base model", "injected, unseen, base model", None, False),
        ("injected, seen, base model", "injected, seen", None, False),
        (f"{AMID}, from_step:8", AMID, "from_step:8", True),
        ("injected, unseen, final, base model", "injected, unseen", "final", False),
    ],
)
def test_parse_and_variant_name(
    name: str, condition: str, schedule: str | None, adapter: bool
) -> None:
    variant = conditions.parse(name)
    assert variant is not None
    assert (variant.condition.name, variant.adapter) == (condition, adapter)
    assert variant.schedule == (Schedule.parse(schedule) if schedule else None)
    again = conditions.variant_name(condition, variant.schedule or GENERATION, adapter)
    assert again == name


def test_parse_of_no_condition() -> None:
    for name in ("", "injected", "injected, unseen, later", "clean, asked, final, all", BASE):
        assert conditions.parse(name) is None, name


def test_a_new_condition_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the suite, in the headline table, in the card and in the page's tab of error rates;
    no other case changes."""
    before = suite_cases(SIZES["quick"])

    def draw(materials: samples.Materials) -> list[Sample]:
        seen = samples.pick(materials.rng, materials.seen, materials.count)
        return [Sample(new.name, materials.question(), c, 0.25) for c in seen]

    row = conditions.HeadlineRow("Seen concept detected at a quarter", "detected")
    new = conditions.Condition(
        "injected, faint", conditions.HITS, samples.asked_alone, (row,), draw=draw
    )
    monkeypatch.setattr(conditions, "CONDITIONS", (*CONDITIONS, new))
    after = suite_cases(SIZES["quick"])
    assert after[: len(before)] == before and len(after) == len(before) + SIZES["quick"].controls
    assert {case.condition for case in after[len(before) :]} == {new.name}
    assert suite_cases(SIZES["quick"]) == after != suite_cases(SIZES["quick"], seed=1)
    cell = {"successes": 1, "n": 4, "low": 0.1, "high": 0.6, "contexts": 4}
    measured = {new.name: {"n": 4, "contexts": 4, "detected": cell}}
    summary = {"conditions": measured, "comparisons": {}}
    assert f"| {row.question} | 25.0 % [10.0, 60.0] | 4 | 4 |" in headline(summary)
    assert [rate.metric_name for rate in eval_results(summary)] == [row.question]
    (shown,) = rates.rows(summary)
    assert (shown.question, shown.group) == (row.question, conditions.HITS)


class TestSelect:
    def test_limit_is_the_first_of_each_condition(self) -> None:
        whole = suite("quick", "test")
        assert select(whole) == list(whole)
        few, more = select(whole, limit=3), select(whole, limit=5)
        assert set(Counter(case.condition for case in few).values()) == {3}
        assert [c for c in more if c in few] == few and len(more) > len(few)
        assert {case.condition for case in few} == {case.condition for case in whole}

    def test_conditions_by_name_or_pattern(self) -> None:
        whole = suite("quick", "test")
        found = {c.condition for c in select(whole, ["injected, unseen", "clean*"])}
        assert found == {"injected, unseen"} | {
            case.condition for case in whole if case.condition.startswith("clean")
        }
        with pytest.raises(IntrospectionError, match=r"no condition 'clean'.*choose from inj.*\.$"):
            select(whole, ["injected, seen", "clean"])

    def test_schedules(self) -> None:
        whole, times = suite("quick", "test"), (GENERATION, Schedule("last_token"))
        both = select(whole, ["injected, unseen", "clean, asked", "halt, harmful*"], 4, times)
        counts = Counter((case.condition, str(case.schedule)) for case in both)
        pairs = ("injected, unseen", "final_on"), ("injected, unseen, final", "final")
        assert {counts[pair] for pair in (*pairs, ("clean, asked", "final_on"))} == {4}
        late = [c for c in both if c.condition.startswith("halt, harmful, mid-answer")]
        assert len(late) == 4 and all(case.schedule.starts_mid_answer for case in late)
        twins = [c for c in both if c.condition.startswith("injected, unseen")]
        assert {c.messages for c in twins[::2]} == {c.messages for c in twins[1::2]}
        alone = select(whole, ["injected, seen"], 2, (Schedule("all"),), base=True)
        names = ["injected, seen, all"] * 2 + ["injected, seen, all, base model"] * 2
        assert [c.condition for c in alone] == names

    def test_base_rows_beside_the_trained_ones(self) -> None:
        both = select(suite("quick", "test"), base=True)
        trained, base = ([c for c in both if c.adapter is side] for side in (True, False))
        assert len(trained) == len(base)
        assert [replace(c, condition=c.condition + BASE, adapter=False) for c in trained] == base

    def test_strengths_and_schedules_as_typed(self) -> None:
        assert chosen_strengths(" 0.5, 1,0.5") == (0.5, 1.0)
        assert chosen_schedules("final, from_step:3") == (Schedule("last_token"), after_tokens(3))
        for text in ("", "0", "0.5,,1", "1,99", "a"):
            with pytest.raises(IntrospectionError, match=r"strength.*\.$"):
                chosen_strengths(text)
        for text in ("", "later", "span:1-2", "prior_turn", "final,"):
            with pytest.raises(IntrospectionError, match=r"chedule.*\.$"):
                chosen_schedules(text)


@pytest.mark.parametrize("schedules", ["all", "from_step:8", "final_on,final,from_step:0"])
@pytest.mark.parametrize("suite", ["quick", "paper"])
def test_every_suite_goes_with_every_schedule(suite: str, schedules: str) -> None:
    cases = paper_cases(0) if suite == "paper" else suite_cases(SIZES[suite])
    found = select(cases, schedules=chosen_schedules(schedules))
    assert found and {str(case.schedule) for case in found} >= {schedules.split(",")[-1]}


def test_an_empty_choice_is_said() -> None:
    cases = suite_cases(SIZES["quick"])
    with pytest.raises(IntrospectionError, match="No report is left"):
        select(cases, ["injected, unseen, base model"], base=True)
