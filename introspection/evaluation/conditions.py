"""What a condition of an evaluation is, and whether a case is one of it.

Knows: how a planned report looks, the rule that each condition's name stands for. Does not know:
which conditions a claim needs (``suites``), how a case is answered or counted.

A condition is a name. ``..., final`` says another schedule than the trained one, ``..., base model``
that the untrained model answers; the rule of the bare name holds for both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from introspection.concepts.catalogue import Concept
from introspection.concepts.morphology import find_word
from introspection.concepts.texts import DEFAULT_QUESTION, Texts, texts
from introspection.injection.trials.message import Message
from introspection.injection.trials.schedule import GENERATION, Schedule

__all__ = [
    "AMID",
    "BASE",
    "CONDITIONS",
    "Sample",
    "asks_about_state",
    "checked",
    "holds",
    "is_bare",
    "key",
    "messages_of",
    "misfiled",
    "names_it",
]

BASE = ", base model"
AMID = "injected, unseen, amid other text"


@dataclass(frozen=True, slots=True)
class Sample:
    """One planned report. ``context`` is what makes it distinct (the conversation)."""

    condition: str
    messages: tuple[Message, ...]
    concept: Concept | None = None
    strength: float = 0.0
    schedule: Schedule = GENERATION
    adapter: bool = True
    vector: str = "concept"  # or "noise", "negated"

    @property
    def context(self) -> str:
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)

    @property
    def key(self) -> str:
        name = self.concept.name if self.concept else None
        return key(
            *(self.condition, self.context, name, self.strength),
            *(str(self.schedule), self.adapter, self.vector),
        )

    @property
    def asked(self) -> bool:
        """Whether its last user message asks the model about its state."""
        return asks_about_state(self.messages)


def key(*parts: str | float | bool | None) -> str:
    """A short name for what makes a report distinct: condition, context, concept, strength, schedule,
    adapter, vector."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _questions() -> frozenset[str]:
    """Every question about the model's state that this program ever asks."""
    splits = [texts(split) for split in ("train", "validation", "test")]
    return frozenset({DEFAULT_QUESTION}.union(*(each.questions for each in splits)))


@lru_cache(maxsize=1)
def _beside_text() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How a message begins, and how it ends, that has such a question before or after other text."""
    return (
        tuple(question + gap for question in _questions() for gap in "\n "),
        tuple(gap + question for question in _questions() for gap in "\n "),
    )


@lru_cache(maxsize=16384)
def asks_about_state(messages: tuple[Message, ...]) -> bool:
    """Whether the last user message asks the model about its state, alone or beside other text."""
    said = [message.content.strip() for message in messages if message.role == "user"][-1:]
    begins, ends = _beside_text()
    return any(
        text in _questions() or text.startswith(begins) or text.endswith(ends) for text in said
    )


def other_text(messages: tuple[Message, ...]) -> str:
    """What a conversation says beside the question about the model's state."""
    *before, last = messages
    begins, ends = _beside_text()
    said = last.content.strip()
    if said in _questions():
        said = ""
    elif found := next((end for end in ends if said.endswith(end)), ""):
        said = said.removesuffix(found)
    else:
        said = said.removeprefix(next((begin for begin in begins if said.startswith(begin)), ""))
    return "\n".join([*(message.content for message in before), said]).strip()


def is_bare(messages: tuple[Message, ...]) -> bool:
    """Whether a conversation is a question about the model's state and nothing else."""
    return len(messages) == 1 and messages[0].content.strip() in _questions()


def names_it(messages: tuple[Message, ...], concept: Concept) -> bool:
    """Whether the text beside the question names the concept, which a report could then repeat."""
    return find_word(other_text(messages), concept.name, concept.aliases) is not None


def _texts() -> list[Texts]:
    return [texts("test"), texts("validation"), texts("train")]


@lru_cache(maxsize=4)
def _pattern(field: str) -> re.Pattern[str]:
    """Any text of one kind, with anything in its slot, at the start of a message."""
    lines = sorted({line for each in _texts() for line in getattr(each, field)})
    return re.compile(
        "|".join(re.escape(line).replace(r"\{c\}", ".+?") for line in lines), re.DOTALL
    )


def _mentions(case: Sample, *fields: str) -> bool:
    return any(_pattern(field).match(case.messages[-1].content) for field in fields)


def _bare(case: Sample) -> bool:
    return is_bare(case.messages) and case.concept is not None


def _amid(case: Sample) -> bool:
    """Amid other text, which must not give the name away."""
    return (
        case.asked
        and not is_bare(case.messages)
        and case.concept is not None
        and not names_it(case.messages, case.concept)
    )


def _clean(case: Sample) -> bool:
    return case.concept is None and case.strength == 0


def _ordinary(case: Sample) -> bool:
    return not case.asked and case.concept is not None and not case.schedule.starts_mid_answer


def _mid_answer(case: Sample) -> bool:
    return not case.asked and case.concept is not None and case.schedule.starts_mid_answer


def _false_question(case: Sample) -> bool:
    last = case.messages[-1].content
    return case.concept is not None and any(last in each.yes_no_false for each in _texts())


def _thought(harmful: bool, rule: Callable[[Sample], bool]) -> Callable[[Sample], bool]:
    return lambda case: case.concept is not None and case.concept.harmful is harmful and rule(case)


CONDITIONS: Mapping[str, Callable[[Sample], bool]] = {
    "injected, seen": _bare,
    "injected, unseen": _bare,
    "injected, unseen category": _bare,
    AMID: _amid,
    "injected, harmful": _thought(True, _bare),
    "injected, harmless": _thought(False, _bare),
    "injected, own context": _amid,
    "clean, asked": lambda case: _clean(case) and case.asked,
    "clean, ordinary request": lambda case: _clean(case) and not case.asked,
    "clean, concept in the text": lambda case: _clean(case) and _mentions(case, "mentions"),
    "clean, harmful words in the text": lambda case: (
        _clean(case) and _mentions(case, "mentions", "harmful_mentions")
    ),
    "clean, false claim of an injection": lambda case: (
        _clean(case) and case.asked and _mentions(case, "claims")
    ),
    "clean, as it stands": _clean,
    "clean, then asked": lambda case: _clean(case) and case.asked and not is_bare(case.messages),
    **{
        f"halt, {label}, {place}": _thought(label == "harmful", rule)
        for label in ("harmful", "harmless", "look-alike")
        for place, rule in (
            ("asked", _bare),
            ("ordinary request", _ordinary),
            ("mid-answer", _mid_answer),
        )
    },
    "control, random vector": lambda case: _bare(case) and case.vector == "noise",
    "control, negated vector": lambda case: _bare(case) and case.vector == "negated",
    "control, false yes/no question": _false_question,
}


def holds(case: Sample) -> bool:
    """Whether a case is what its condition says."""
    name = case.condition.removesuffix(BASE)
    if name == case.condition and not case.adapter:
        return False
    if name != case.condition and case.adapter:
        return False
    if case.concept is not None and name not in CONDITIONS:
        name = name.removesuffix(f", {case.schedule}")
    # The controls say which vector they have; everywhere else it is the concept's own.
    usual = case.vector == "concept" or name.startswith("control, ")
    return usual and name in CONDITIONS and CONDITIONS[name](case)


def checked(cases: Iterable[Sample]) -> list[Sample]:
    """The distinct ones of ``cases``. Raises ValueError for one that is not what its name says."""
    found = list({case.key: case for case in cases}.values())
    for case in found:
        if not holds(case):
            raise ValueError(f"not a case of {case.condition!r}: {case}")
    return found


def messages_of(context: str) -> tuple[Message, ...]:
    """Inverse of ``Case.context``."""
    turns = re.split(r"\n(?=(?:system|user|assistant): )", context)
    pairs = (turn.partition(": ") for turn in turns)
    return tuple(Message(role, content) for role, _, content in pairs)  # type: ignore[arg-type]


def misfiled(record: Mapping[str, Any]) -> bool:
    """Whether a record "amid other text" has none.

    Before version 2 of the records two in five of that condition were a bare question. They stay in
    the file and out of the rate.
    """
    return record["condition"].startswith(AMID) and is_bare(messages_of(record["question"]))
