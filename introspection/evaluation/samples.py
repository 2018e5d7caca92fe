"""One planned answer of an evaluation, and what its conversation contains."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from introspection.concepts.catalogue import Concept
from introspection.concepts.morphology import find_word
from introspection.concepts.texts import DEFAULT_QUESTION, Texts, texts
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import GENERATION, Schedule
from introspection.injection.vectors import VectorKind


@dataclass(frozen=True, slots=True)
class Sample:
    """One planned answer: a conversation, the concept that is injected, if any, and the condition.
    ``context`` is the conversation as one text."""

    condition: str
    messages: tuple[Message, ...]
    concept: Concept | None = None
    strength: float = 0.0
    schedule: Schedule = GENERATION
    adapter: bool = True
    vector: VectorKind = "concept"

    @property
    def context(self) -> str:
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)

    @property
    def key(self) -> str:
        name = self.concept.name if self.concept else None
        return sample_key(
            *(self.condition, self.context, name, self.strength),
            *(str(self.schedule), self.adapter, self.vector),
        )

    @property
    def asked(self) -> bool:
        """Whether its last user message asks the model about its state."""
        return asks_about_state(self.messages)

    @property
    def has_detection_score(self) -> bool:
        """Whether p(detect) is recorded of its answer."""
        return has_detection_score(self.asked, self.adapter, self.schedule)


def has_detection_score(asked: bool, adapter: bool, schedule: Schedule) -> bool:
    """Whether p(detect) is recorded: only the first words of an adapter that is asked about its state
    say whether it detects a thought, and only a thought that is there from the start."""
    return asked and adapter and not schedule.starts_mid_answer


T = TypeVar("T")
Rule = Callable[[Sample], bool]


@dataclass(frozen=True, slots=True)
class Materials:
    """What the samples of a suite are drawn from.

    Of ``unseen_category`` training saw no concept of the whole category. ``count`` is the number of
    samples of a condition that draws its own; ``strengths`` take turns over its concepts.
    """

    rng: random.Random
    texts: Texts
    seen: Sequence[Concept]
    unseen: Sequence[Concept]
    unseen_category: Sequence[Concept]
    strengths: Sequence[float]
    count: int

    def question(self) -> tuple[Message, ...]:
        """A conversation that is a question about the model's state."""
        return conversation(self.rng.choice(self.texts.questions))

    def strength_for(self, index: int) -> float:
        """The strength of the ``index``-th concept."""
        return self.strengths[index % len(self.strengths)]


def pick(rng: random.Random, pool: Sequence[T], count: int) -> list[T]:
    """``count`` things of the pool in random order, or all as they stand if there are no more."""
    return list(pool) if count >= len(pool) else rng.sample(list(pool), count)


def sample_key(*parts: str | float | bool | None) -> str:
    """Checksum [16 hex digits] of condition, context, concept, strength, schedule, adapter, vector."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _texts() -> list[Texts]:
    return [texts("test"), texts("validation"), texts("train")]


@lru_cache(maxsize=1)
def _questions() -> frozenset[str]:
    """Every question about the model's state that this program ever asks."""
    return frozenset({DEFAULT_QUESTION}.union(*(each.questions for each in _texts())))


@lru_cache(maxsize=1)
def _beside_text() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How a message begins, and how it ends, that has such a question before or after other text."""
    pairs = [(question, gap) for question in _questions() for gap in "\n "]
    return tuple(q + gap for q, gap in pairs), tuple(gap + q for q, gap in pairs)


@lru_cache(maxsize=16384)
def asks_about_state(messages: tuple[Message, ...]) -> bool:
    """Whether the last user message asks the model about its state, alone or beside other text."""
    asked = [message.content.strip() for message in messages if message.role == "user"][-1:]
    begins, ends = _beside_text()
    return any(
        text in _questions() or text.startswith(begins) or text.endswith(ends) for text in asked
    )


def other_text(messages: tuple[Message, ...]) -> str:
    """The text of a conversation without its question about the model's state."""
    *before, last = messages
    begins, ends = _beside_text()
    text = last.content.strip()
    if text in _questions():
        text = ""
    elif end := next((end for end in ends if text.endswith(end)), ""):
        text = text.removesuffix(end)
    else:
        text = text.removeprefix(next((begin for begin in begins if text.startswith(begin)), ""))
    return "\n".join([*(message.content for message in before), text]).strip()


def is_bare(messages: tuple[Message, ...]) -> bool:
    """Whether a conversation is a question about the model's state and nothing else."""
    return len(messages) == 1 and messages[0].content.strip() in _questions()


def names_it(messages: tuple[Message, ...], concept: Concept) -> bool:
    """Whether the text beside the question names the concept, which a report could then repeat."""
    return find_word(other_text(messages), concept.name, concept.aliases) is not None


def messages_of(context: str) -> tuple[Message, ...]:
    """Inverse of ``Sample.context``."""
    turns = re.split(r"\n(?=(?:system|user|assistant): )", context)
    pairs = (turn.partition(": ") for turn in turns)
    return tuple(Message(role, content) for role, _, content in pairs)  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _pattern(field: str) -> re.Pattern[str]:
    """Any text of one kind, with anything in its slot, at the start of a message."""
    lines = sorted({line for each in _texts() for line in getattr(each, field)})
    choices = (re.escape(line).replace(r"\{c\}", ".+?") for line in lines)
    return re.compile("|".join(choices), re.DOTALL)


def mentions(sample: Sample, *fields: str) -> bool:
    """Whether its last message begins with a text of one of these kinds (``fields`` of ``Texts``)."""
    return any(_pattern(field).match(sample.messages[-1].content) for field in fields)


def asked_alone(sample: Sample) -> bool:
    """Whether a concept is injected, and the question about the model's state is all there is."""
    return is_bare(sample.messages) and sample.concept is not None


def asked_amid_text(sample: Sample) -> bool:
    """Whether a concept is injected, and the question stands amid text that does not name it."""
    if sample.concept is None or not sample.asked or is_bare(sample.messages):
        return False
    return not names_it(sample.messages, sample.concept)


def is_clean(sample: Sample) -> bool:
    """Whether nothing is injected."""
    return sample.concept is None and sample.strength == 0


def is_clean_and_asked(sample: Sample) -> bool:
    """Whether nothing is injected, and the model is asked about its state."""
    return is_clean(sample) and sample.asked


def is_ordinary_request(sample: Sample) -> bool:
    """Whether a concept is injected from the start of the answer to an ordinary request."""
    return not sample.asked and sample.concept is not None and not sample.schedule.starts_mid_answer


def begins_mid_answer(sample: Sample) -> bool:
    """Whether a concept is injected in the middle of the answer to an ordinary request."""
    return not sample.asked and sample.concept is not None and sample.schedule.starts_mid_answer


def asks_a_false_question(sample: Sample) -> bool:
    """Whether a concept is injected, and the question is a yes/no question whose answer is no."""
    last = sample.messages[-1].content
    return sample.concept is not None and any(last in each.yes_no_false for each in _texts())


def with_harm(harmful: bool, rule: Rule) -> Rule:
    """``rule``, and the injected concept is harmful (or, with False, is not)."""
    return lambda sample: (
        sample.concept is not None and sample.concept.harmful is harmful and rule(sample)
    )
