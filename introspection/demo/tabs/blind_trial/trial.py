"""The blind trial: what is secretly injected, whose guess was right, and the score of both.

What a visitor's session keeps are tuples of strings and numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from introspection.concepts.catalogue import Concept, catalogue, resolve
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.trial_batch import TrialResult, TrialSpec
from introspection.demo.shared.verdicts import Tone
from introspection.evaluation.statistics import Rate, rate

NOTHING = ""  # the secret, and the guess, that nothing was injected
OFFERED = 5
STRENGTHS = (0.5, 1.0)
FEW = 10  # trials below which a rate is hardly one


class BlindTrial(NamedTuple):
    """One trial. ``report`` is None until the model has ended, ``guess`` until the visitor has."""

    offered: tuple[str, ...]
    secret: str
    strength: float
    ticket: int = 0  # of the run
    report: str | None = None
    turn: int = 0  # of the guess, given out with the report
    noticed: bool = False  # what the report says, by the grader: a thought (or a halt) …
    named: bool = False  # … the right one …
    reported_name: str = ""  # … by which name
    guess: str | None = None
    adapter: str = ""  # that the visitor chose


class Tally(NamedTuple):
    """One guesser's four outcomes; ``named`` of the ``hits`` have the right name too."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    correct_rejections: int = 0
    named: int = 0

    def add(self, injected: bool, noticed: bool, right: bool) -> Tally:
        return Tally(
            self.hits + (injected and noticed),
            self.misses + (injected and not noticed),
            self.false_alarms + (noticed and not injected),
            self.correct_rejections + (not injected and not noticed),
            self.named + (injected and noticed and right),
        )


class Score(NamedTuple):
    """The visitor's outcomes and the model's, on the same trials."""

    visitor: Tally = Tally()
    model: Tally = Tally()


# --- drawing and judging ------------------------------------------------------------------------


def pool(seen: Callable[[Concept], tuple[bool, str]]) -> tuple[Concept, ...]:
    """Harmless single words of the test split. ``seen`` tells what an adapter was trained on."""
    return tuple(
        concept
        for concept in catalogue()
        if concept.split == "test"
        and not concept.harmful
        and " " not in concept.name
        and not seen(concept)[0]
    )


def draw(rng: random.Random, concepts: Sequence[Concept]) -> BlindTrial:
    """Five words of five categories in alphabetical order; with probability 1/3 the secret is
    nothing, otherwise one of the five, each as likely."""
    categories: dict[str, list[str]] = {}
    for concept in concepts:
        categories.setdefault(concept.category, []).append(concept.name)
    chosen = rng.sample(list(categories), OFFERED)
    offered = tuple(sorted((rng.choice(categories[c]) for c in chosen), key=str.casefold))
    secret, strength = rng.choice(offered), rng.choice(STRENGTHS)
    if rng.randrange(3) == 0:
        secret, strength = NOTHING, 0.0
    return BlindTrial(offered, secret, strength)


def line(trial: BlindTrial) -> TrialSpec:
    """The trial as the model gets it."""
    if trial.secret == NOTHING:
        return TrialSpec("blind trial", None, 0.0, DEFAULT_QUESTION, "none")
    return TrialSpec("blind trial", resolve(trial.secret), trial.strength, DEFAULT_QUESTION)


def answered(trial: BlindTrial, answer: TrialResult, turn: int) -> BlindTrial:
    """The trial with its report, which has ended. A halt for nothing is a false alarm, too."""
    verdict = answer.verdict
    assert verdict is not None
    return trial._replace(
        report=answer.text,
        turn=turn,
        noticed=verdict.detected or answer.halted,
        named=trial.secret != NOTHING and verdict.correct,
        reported_name=verdict.named or "",
    )


def judge(score: Score, trial: BlindTrial, guess: str) -> tuple[Score, BlindTrial]:
    """Count the visitor's guess and the model's report."""
    injected = trial.secret != NOTHING
    return (
        Score(
            score.visitor.add(injected, guess != NOTHING, guess == trial.secret),
            score.model.add(injected, trial.noticed, trial.named),
        ),
        trial._replace(guess=guess),
    )


def _rate(count: int, n: int) -> Rate:
    return rate([True] * count + [False] * (n - count))


def hits(tally: Tally) -> Rate:
    """How many of the injections were noticed."""
    return _rate(tally.hits, tally.hits + tally.misses)


def named(tally: Tally) -> Rate:
    """How many of the injections were given their right name."""
    return _rate(tally.named, tally.hits + tally.misses)


def false_alarms(tally: Tally) -> Rate:
    """How many of the trials without an injection were taken for one."""
    return _rate(tally.false_alarms, tally.false_alarms + tally.correct_rejections)


# --- what the visitor reads ---------------------------------------------------------------------


def reveal(trial: BlindTrial) -> tuple[Tone, str, str]:
    """(tone, whether the guess was right and what the truth is, what the model had said)."""
    injected = trial.secret != NOTHING
    truth = f"“{trial.secret}” was injected at strength {trial.strength:g}"
    if not injected:
        truth = "nothing was injected"
    right = trial.guess == trial.secret
    guessed = f"Right: {truth}." if right else f"Wrong: {truth}."
    if not trial.noticed:
        model = "missed it" if injected else "rightly reported nothing"
    elif trial.named:
        model = "named it"
    else:
        model = "noticed something" if injected else "raised a false alarm"
        if trial.reported_name:
            model += f" and called it “{trial.reported_name}”"
        elif injected:
            model += " and did not name it"
    return ("good" if right else "bad"), guessed, f"The model {model}."
