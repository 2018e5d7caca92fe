"""The blind trial: what is secretly injected, whose guess was right, and the score of both.

Knows: draws, verdicts, tallies, the tab's own HTML. Does not know: Gradio, visitors, the model. What
a visitor's session keeps are tuples of strings and numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from introspection.concepts.catalogue import Concept, catalogue, resolve
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.trial_batch import TrialResult, TrialSpec
from introspection.demo.shared.verdicts import Tone
from introspection.evaluation.statistics import Rate, rate

__all__ = [
    "FEW",
    "NOTHING",
    "OFFERED",
    "STRENGTHS",
    "BlindTrial",
    "Score",
    "Tally",
    "answered",
    "draw",
    "false_alarms",
    "hits",
    "judge",
    "line",
    "named",
    "pool",
    "report",
    "reveal",
    "table",
]

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
    called: str = ""  # … by which name
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
        called=verdict.named or "",
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
    return _rate(tally.hits, tally.hits + tally.misses)


def named(tally: Tally) -> Rate:
    return _rate(tally.named, tally.hits + tally.misses)


def false_alarms(tally: Tally) -> Rate:
    return _rate(tally.false_alarms, tally.false_alarms + tally.correct_rejections)


# --- what the visitor reads ---------------------------------------------------------------------


def reveal(trial: BlindTrial) -> tuple[Tone, str, str]:
    """(tone, whether the guess was right and what the truth is, what the model had said)."""
    injected = trial.secret != NOTHING
    truth = f"“{trial.secret}” was injected at strength {trial.strength:g}"
    if not injected:
        truth = "nothing was injected"
    right = trial.guess == trial.secret
    said = f"Right: {truth}." if right else f"Wrong: {truth}."
    if not trial.noticed:
        model = "missed it" if injected else "rightly reported nothing"
    elif trial.named:
        model = "named it"
    else:
        model = "noticed something" if injected else "raised a false alarm"
        if trial.called:
            model += f" and called it “{trial.called}”"
        elif injected:
            model += " and did not name it"
    return ("good" if right else "bad"), said, f"The model {model}."


def report(text: str | None, running: bool = False) -> str:
    """The card with the model's report, as far as it is written; None before any trial."""
    caret = '<span class="caret" aria-hidden="true"></span>' if running else ""
    shown = escape(text or "")
    if not shown and not running:
        absent = "(no text)" if text is not None else "Nothing has been asked yet."
        shown = f'<span class="quiet">{absent}</span>'
    return (
        f'<p class="asked">The model is asked: <q>{escape(DEFAULT_QUESTION)}</q></p>'
        '<article class="card" aria-labelledby="blind-report-title">'
        '<h3 id="blind-report-title">The model’s report</h3>'
        f'<p class="answer">{shown}{caret}</p></article>'
    )


def _cell(found: Rate) -> str:
    if not found.n:
        return "<td>–</td>"
    few = '<span class="note">too few to say much</span>' if found.n < FEW else ""
    return (
        f"<td><strong>{found.successes} of {found.n}</strong> = {100 * found.value:.0f}&nbsp;%"
        f'<span class="note">95&nbsp;% interval {100 * found.low:.0f} to '
        f"{100 * found.high:.0f}&nbsp;%</span>{few}</td>"
    )


def table(score: Score, has_adapter: bool = True) -> str:
    """Hit rate and false-alarm rate of both, with Wilson intervals."""
    count = sum(score.visitor[:4])
    caption = f"You and the model on the same {count} trial{'s' if count != 1 else ''}"
    if not count:
        caption = "No trial is judged yet"
    rows = "".join(
        f'<tr><th scope="row">{escape(head)}</th>{_cell(of(score.visitor))}{_cell(of(score.model))}'
        "</tr>"
        for head, of in (
            ("Hits: something was injected, and noticed", hits),
            ("Of those trials, the right name", named),
            ("False alarms: nothing was injected, something “noticed”", false_alarms),
        )
    )
    who = "The trained model" if has_adapter else "The untrained model"
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Score of the blind trials">'
        f'<table class="lines"><caption>{caption}</caption><thead><tr><th scope="col">Rate</th>'
        f'<th scope="col">You</th><th scope="col">{who}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
