"""The table of schedules: both spellings, the lists that people see, positions with a given answer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from introspection.errors import IntrospectionError
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import (
    KINDS,
    Schedule,
    after_tokens,
    choice,
    schedule_value,
    span,
    spellings,
)

TALK = conversation(
    "Third", Message("system", "S"), Message("user", "A"), Message("assistant", "B")
)


@dataclass
class Layout:
    """A prompt in which message i has the tokens 10 i to 10 i + 8."""

    length: int
    messages: tuple[Message, ...] = TALK

    def tokens_of(self, first: int, last: int) -> tuple[int, int]:
        return 10 * first, 10 * last + 8


@pytest.mark.parametrize("name", ["all", "previous_turns", "after_tokens:5", "span:3-7"])
def test_a_kind_is_read_by_its_name_and_written_as_ever(name: str) -> None:
    schedule = schedule_value(name)
    assert schedule.kind == name.partition(":")[0]
    assert schedule_value(str(schedule)) == Schedule.parse(name) == schedule


def test_no_two_kinds_share_a_spelling() -> None:
    names = [{kind.name, kind.stored} for kind in KINDS]
    assert sum(map(len, names)) == len(set().union(*names))


def test_the_lists_that_people_see() -> None:
    assert choice() == "final, final_on, all, prior_turn, span:3-7 or from_step:5"
    assert choice("any prompt", number="N") == "final, final_on, all or from_step:N"
    assert spellings("any prompt", "one prompt", default_first=True) == [
        *("final_on", "final", "all", "span:3-7", "from_step:5")
    ]
    assert [Schedule.parse(name).label for name in spellings("any prompt")][-1] == (
        "once 5 answer tokens are written"
    )


@pytest.mark.parametrize(
    ("schedule", "positions"),
    [
        ("last_token", (39, 39)),
        ("generation", (39, None)),
        ("after_tokens:3", (42, None)),
        ("span:3-39", (3, 39)),
        ("span:3-", (3, None)),
        ("all", (0, None)),
        ("previous_turns", (10, 28)),
    ],
)
def test_positions(schedule: str, positions: tuple[int, int | None]) -> None:
    assert Schedule.parse(schedule).positions(Layout(40)) == positions


def test_a_given_part_of_the_answer_counts_as_written() -> None:
    given = 6
    written = Schedule.parse("generation").positions(Layout(40 + given))
    assert written == after_tokens(given).positions(Layout(40)) == (45, None)


def test_what_does_not_fit_a_prompt_is_refused() -> None:
    for start, end in ((3, 40), (40, 40), (40, None)):
        with pytest.raises(IntrospectionError, match="which has 40 tokens: choose .* 0 to 39"):
            span(start, end).positions(Layout(40))
    for before in ((), (Message("system", "S"),), (Message("user", " "),)):
        with pytest.raises(IntrospectionError, match="prior_turn needs an earlier turn"):
            Schedule.parse("previous_turns").positions(Layout(40, conversation("Hi", *before)))
