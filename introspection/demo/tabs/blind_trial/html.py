"""The report and the score of the blind trial as HTML."""

from __future__ import annotations

from markupsafe import Markup

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.shared.templates import render
from introspection.demo.tabs.blind_trial.trial import FEW, Score, false_alarms, hits, named

RATES = (
    ("Hits: something was injected, and noticed", hits),
    ("Of those trials, the right name", named),
    ("False alarms: nothing was injected, something “noticed”", false_alarms),
)


def report(text: str | None, running: bool = False) -> Markup:
    """The card with the model's report, as far as it is written; None before any trial."""
    return render("blind_trial/report.html", question=DEFAULT_QUESTION, text=text, running=running)


def score_table(score: Score, has_adapter: bool = True) -> Markup:
    """Hit rate and false-alarm rate of the visitor and the model, with Wilson intervals."""
    count = sum(score.visitor[:4])
    caption = f"You and the model on the same {count} trial{'s' if count != 1 else ''}"
    return render(
        "blind_trial/score.html",
        caption=caption if count else "No trial is judged yet",
        who="The trained model" if has_adapter else "The untrained model",
        rows=[(head, (rate(score.visitor), rate(score.model))) for head, rate in RATES],
        few=FEW,
    )
