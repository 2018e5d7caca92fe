"""The conversation as HTML: its turns, and the answers that are being written now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.shared.templates import render
from introspection.demo.tabs.conversation.conversation import (
    Dialogue,
    DialogueAnswer,
    Turn,
    dialogue_answer,
)

TITLES = {
    "thought": "With the thought",
    "words": "Same words, no thought",
    "clean": "Never a thought",
}


def _condition(talk: Dialogue, row: str, number: int) -> str:
    if row != "thought" or not talk.strength:
        return "nothing injected"
    if talk.mode == "silent" and number:
        return f"“{talk.concept}” in the first answer only"
    return f"“{talk.concept}” injected"


def _card(talk: Dialogue, row: str, number: int, answer: DialogueAnswer) -> dict[str, Any]:
    return {
        "row": row,
        "title": TITLES[row],
        "tone": answer.tone,
        "condition": _condition(talk, row, number),
        "injected": row == "thought" and talk.strength > 0,
        "text": answer.text,
        "means": answer.means + (", did not halt" if answer.missed else ""),
    }


def log(
    talk: Dialogue | None, answers: Sequence[TrialResult] = (), harmful: bool = False
) -> Markup:
    """The conversation, and the answers that are being written now."""
    if talk is None:
        return render("conversation/log.html", turns=())
    turns = list(talk.turns)
    if talk.asked:
        written = {answer.line.label: dialogue_answer(answer, harmful) for answer in answers}
        blank = DialogueAnswer("")
        words = written.get("words", blank) if talk.turns else None
        thought, clean = written.get("thought", blank), written.get("clean", blank)
        turns.append(Turn(talk.asked, thought, words, clean))
    shown = []
    for number, turn in enumerate(turns):
        rows = (("thought", turn.thought), ("words", turn.words), ("clean", turn.clean))
        cards = [_card(talk, row, number, answer) for row, answer in rows if answer is not None]
        running = number >= len(talk.turns)
        shown.append({"question": turn.question, "running": running, "cards": cards})
    return render("conversation/log.html", turns=shown)
