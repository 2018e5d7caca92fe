"""Where a vector is added: the table of schedules.

To add a kind of schedule, add one entry to :data:`KINDS`. Files, answers and messages use the older
spelling of a kind (``stored``); both spellings are read. No torch is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from introspection.errors import IntrospectionError
from introspection.injection.trials.message import Message
from introspection.io.characters import quoted
from introspection.io.input_checks import type_phrase

Positions = tuple[int, int | None]  # first and last, None for "to the end of the answer"
MAX_ANSWER_TOKENS = 4096


class PromptLayout(Protocol):
    """What a schedule asks of a prompt. ``length`` counts the tokens before the first new one: the
    prompt's, and those of an answer that is given in part."""

    @property
    def messages(self) -> Sequence[Message]: ...

    @property
    def length(self) -> int: ...

    def tokens_of(self, first: int, last: int) -> tuple[int, int]:
        """First and last token of the messages ``first..last``."""


@dataclass(frozen=True, slots=True)
class ScheduleKind:
    """One kind of schedule.

    ``stored`` is its spelling in files and answers, ``label`` its description for people. Of its
    ``parameters``, one number or a first and a last position, messages show ``example``. ``fits`` says
    whether it can be used with any prompt, one prompt of known length, or in a conversation.
    """

    name: str
    stored: str
    label: str
    positions: Callable[[Schedule, PromptLayout], Positions]
    parameters: Literal["", "n", "a-b"] = ""
    example: str = ""
    fits: Literal["any prompt", "one prompt", "conversation"] = "any prompt"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a vector is added, in token positions of the prompt and answer (0-based, no padding).

    ``start`` is the number of ``after_tokens``; ``start`` and ``end`` are the positions of ``span``,
    whose end is None for "through the answer". Raises IntrospectionError for a kind that is not in
    :data:`KINDS` and for negative or reversed positions.
    """

    kind: str = "generation"
    start: int = 0
    end: int | None = 0

    def __post_init__(self) -> None:
        late = self.kind == "span" and self.end is not None and self.end < self.start
        if self.kind not in _BY_NAME or self.start < 0 or late:
            raise IntrospectionError(
                f"There is no schedule {self.kind} from {self.start} to {self.end}: use one of "
                f"{', '.join(kind.stored for kind in KINDS)}, and positions from 0 on, the last not "
                "before the first."
            )

    def __str__(self) -> str:
        """The stored spelling, such as ``final_on``, ``span:3-7`` or ``from_step:5``."""
        stored, parameters = _BY_NAME[self.kind].stored, _BY_NAME[self.kind].parameters
        if parameters == "a-b":
            return f"{stored}:{self.start}-{'' if self.end is None else self.end}"
        return f"{stored}:{self.start}" if parameters else stored

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """A schedule from either spelling. Raises IntrospectionError for anything else."""
        name, _, rest = text.strip().partition(":")
        kind = _BY_NAME.get(name) or _BY_STORED.get(name)
        try:
            if kind and kind.parameters == "a-b":
                begin, end = rest.split("-")
                start, last = int(begin), int(end) if end else None
                if 0 <= start <= (start if last is None else last):
                    return cls(kind.name, start, last)
            elif kind and kind.parameters == "n":
                if 0 <= int(rest) <= MAX_ANSWER_TOKENS:
                    return cls(kind.name, int(rest))
            elif kind and not rest:
                return cls(kind.name)
        except ValueError:
            pass
        raise IntrospectionError(f"'{text[:40]}' is not a schedule: use {choice()}.")

    @property
    def fits_any_prompt(self) -> bool:
        """Whether the schedule makes sense for prompts of any length, without earlier turns."""
        return _BY_NAME[self.kind].fits == "any prompt"

    @property
    def starts_mid_answer(self) -> bool:
        """Whether the vector is added only once ``start`` answer tokens are written."""
        return self.kind == "after_tokens"

    @property
    def label(self) -> str:
        """The description for people."""
        return _BY_NAME[self.kind].label.format(start=self.start)

    def positions(self, prompt: PromptLayout) -> Positions:
        """First and last position at which the vector is added, from the start of the prompt; last is
        None for the end of the answer. Raises IntrospectionError where it does not fit the prompt."""
        return _BY_NAME[self.kind].positions(self, prompt)


def _span(schedule: Schedule, prompt: PromptLayout) -> Positions:
    last = prompt.length - 1
    if max(schedule.start, schedule.end or 0) > last:
        raise IntrospectionError(
            f"The {str(schedule).replace(':', ' ')} is outside the prompt, which has "
            f"{last + 1} tokens: choose positions from 0 to {last}."
        )
    return schedule.start, schedule.end


def _previous_turns(schedule: Schedule, prompt: PromptLayout) -> Positions:
    earlier = [
        i
        for i, message in enumerate(prompt.messages[:-1])
        if message.role != "system" and message.content.strip()
    ]
    if not earlier:
        raise IntrospectionError(
            f"The schedule {schedule} needs an earlier turn: add a first message and its answer."
        )
    return prompt.tokens_of(earlier[0], earlier[-1])


KINDS = (
    ScheduleKind(
        "last_token",
        "final",
        "the last prompt token only",
        lambda _, prompt: (prompt.length - 1, prompt.length - 1),
    ),
    ScheduleKind(
        "generation",
        "final_on",
        "from the last prompt token on (as trained)",
        lambda _, prompt: (prompt.length - 1, None),
    ),
    ScheduleKind(
        "span", "span", "a span of prompt tokens", _span, "a-b", "span:3-7", fits="one prompt"
    ),
    ScheduleKind(
        "after_tokens",
        "from_step",
        "once {start} answer tokens are written",
        lambda schedule, prompt: (prompt.length - 1 + schedule.start, None),
        "n",
        "from_step:5",
    ),
    ScheduleKind("all", "all", "every token", lambda _, __: (0, None)),
    ScheduleKind(
        "previous_turns",
        "prior_turn",
        "the turns before the question",
        _previous_turns,
        fits="conversation",
    ),
)
_BY_NAME: dict[str, ScheduleKind] = {kind.name: kind for kind in KINDS}
_BY_STORED: dict[str, ScheduleKind] = {kind.stored: kind for kind in KINDS}

LAST_TOKEN = Schedule("last_token")
GENERATION = Schedule("generation")
ALL = Schedule("all")
PREVIOUS_TURNS = Schedule("previous_turns")


def span(start: int, end: int | None) -> Schedule:
    """Prompt tokens ``start..end``, with None for the end through the answer."""
    return Schedule("span", start, end)


def after_tokens(count: int) -> Schedule:
    """From the position at which ``count`` answer tokens are written."""
    return Schedule("after_tokens", count)


def spellings(*fits: str, number: str = "", default_first: bool = False) -> list[str]:
    """How schedules are spelled in files, messages and help texts, those with parameters last.

    ``fits`` limits the list to kinds that fit one of these; ``number`` stands in place of the example
    of one number; ``default_first`` puts :data:`GENERATION` first.
    """
    chosen = [kind for kind in KINDS if not fits or kind.fits in fits]
    chosen.sort(key=lambda kind: bool(kind.parameters))
    if default_first:
        chosen.sort(key=lambda kind: kind.name != GENERATION.kind)
    examples = {kind: kind.example or kind.stored for kind in chosen}
    numbered = {kind: f"{kind.stored}:{number}" for kind in chosen if kind.parameters == "n"}
    return [*(examples | numbered if number else examples).values()]


def choice(*fits: str, number: str = "", default_first: bool = False) -> str:
    """:func:`spellings` in one phrase: ``final, final_on, ... or from_step:5``."""
    *most, last = spellings(*fits, number=number, default_first=default_first)
    return f"{', '.join(most)} or {last}"


def schedule_value(text: object) -> Schedule:
    """A schedule from any value that JSON, a form or a shell hands over, such as ``final_on`` or
    ``span:3-7``. Raises IntrospectionError, never anything else, for what is none."""
    if not isinstance(text, str):
        raise IntrospectionError(
            f"The schedule must be text, not {type_phrase(text)}: use {choice()}."
        )
    # int() inside the parser would take digits of any script, underscores and spaces.
    if not re.fullmatch(r"[a-z_]{1,14}(?::[0-9]{1,6}(?:-[0-9]{0,6})?)?", text.strip(" ")):
        raise IntrospectionError(f"The schedule {quoted(text)} is not known: use {choice()}.")
    return Schedule.parse(text.strip(" "))
