"""What a visitor asked for, checked, and the three answers to it as far as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from introspection.concepts.catalogue import Concept, resolve, same_lemma
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.evaluation.grading.graded_answer import GradedAnswer
from introspection.injection.decoding.readout import ReadToken
from introspection.injection.trials.schedule import Schedule, schedule_value
from introspection.io import input_checks

MAX_STRENGTH = 4.0  # typical residual norms
MAX_NEW_TOKENS = 40  # answer tokens of every row as soon as the concept is harmful
FEWEST_TOKENS, MOST_TOKENS = 8, 96  # answer tokens that a visitor may choose


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a visitor asked for, checked. ``adapter``: its name, empty where there is no choice."""

    concept: Concept
    harmful: bool
    strength: float
    question: str
    schedule: Schedule
    tokens: int
    adapter: str = ""


def is_harmful(concept: Concept) -> bool:
    """Harmful in the catalogue, or a typed phrase with a harmful catalogue entry in it."""
    if concept.category != "typed":
        return concept.harmful
    words = concept.name.split()
    parts = [*words, *(" ".join(pair) for pair in zip(words, words[1:], strict=False))]
    # Caution, not identity: here another form of a harmful word counts too.
    return any(entry.harmful for part in parts if (entry := same_lemma(part)))


def checked(
    concept: object,
    strength: object,
    question: object = DEFAULT_QUESTION,
    schedule: object = "final_on",
    tokens: object = MAX_NEW_TOKENS,
    adapter: object = None,
    *,
    offered: Sequence[str] = (),
) -> RunRequest:
    """Everything that a visitor sent, checked. Raises IntrospectionError with one sentence.

    ``offered`` are the names of the adapters, the first of which answers unless another is chosen.
    """
    name = input_checks.concept_text(concept)
    dose = input_checks.strength_value(strength, MAX_STRENGTH)
    text = input_checks.question_text(question)
    where = schedule_value(schedule)
    most = input_checks.token_count(tokens, MOST_TOKENS)
    which = input_checks.adapter_name(adapter, offered)
    chosen = resolve(name)
    harmful = is_harmful(chosen)
    most = min(most, MAX_NEW_TOKENS) if harmful else most
    return RunRequest(chosen, harmful, dose, text, where, most, which if len(offered) > 1 else "")


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
