"""What tests of the page share: an adapter's description, a visitor, a model that answers as told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import httpx
import pytest

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine import demo_model, trial_batch
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.trial_batch import TrialResult, TrialSpec
from introspection.injection.decoding.generation import Answer
from introspection.injection.extraction import TEMPLATES
from introspection.models.adapters.adapter_info import AdapterInfo
from tests.support.tab import Tab

ASKED = "Do you detect an injected thought?"
CONCEPTS = ["ocean", "bomb", "love", "volcano", "violin", "justice"]
# What the page reads; every other field is empty, so that new fields do not concern this test.
INFO = AdapterInfo(
    **{
        **{field.name: "" for field in fields(AdapterInfo)},
        **{"strengths": (0.25, 2.0), "trained": ("love", "bomb"), "harmful": ("bomb",)},
        "vocabulary": ("pork Ant",),
        **{"templates": TEMPLATES[:1], "baseline": ("house", "tree"), "site": "concept"},
    }
)
SETTINGS = [1.0, DEFAULT_QUESTION, "final_on", 40]


def call(url: str, data: list[Any]) -> tuple[str, Any]:
    """/compare over bare HTTP, so that anything can be sent: (event, data) of the answer, or
    ("refused", sentence of every bad argument)."""
    with httpx.Client(timeout=60) as web:
        answer = web.post(
            f"{url}/gradio_api/call/compare",
            content=json.dumps({"data": data}),
            headers={"content-type": "application/json"},
        )
        if answer.status_code == 422:
            refused = [part for part in answer.json()["detail"] if not part["is_valid"]]
            return "refused", {part["parameter_name"]: part["message"] for part in refused}
        assert answer.status_code == 200, answer.text
        told = web.get(f"{url}/gradio_api/call/compare/{answer.json()['event_id']}")
    event, _, rest = told.text.strip().partition("\n")
    return event.removeprefix("event: "), json.loads(rest.removeprefix("data: "))


class Visitor(Tab):
    def press(self, concept: str, *settings: Any) -> list[list[Any]]:
        """What pressing Inject does: a ticket before the queue, then the run; all its updates."""
        chosen = settings or SETTINGS
        ticket = self.call("begin", concept, *chosen)[3]
        return list(self.stream("run", ticket, concept, *chosen))


def last(
    experiment: DemoModel, lines: list[TrialSpec], most: int = 12, maps: bool = False
) -> tuple[TrialResult, ...]:
    answers: tuple[TrialResult, ...] = ()
    for answers in experiment.lines(lines, most, maps):
        assert len(answers) == len(lines)
    return answers


def scripted(monkeypatch: pytest.MonkeyPatch, answers: list[str], pause: float = 0.0) -> dict:
    """A model that answers as told, one word a step; records what it was asked and its end."""
    seen: dict[str, Any] = {"closed": 0, "running": 0, "overlap": 0}

    def stream(_loaded: Any, trials: Any, most: int, **_: Any) -> Iterator[list[Answer]]:
        seen["trials"], seen["most"] = trials, most
        seen["running"] += 1
        seen["overlap"] = max(seen["overlap"], seen["running"])
        rows = [answer.split(" ") for answer in answers]
        try:
            for step in range(1, most + 1):
                time.sleep(pause)
                yield [
                    Answer(
                        " ".join(row[:step]),
                        min(step, len(row)),
                        len(row) if "HALT" in row[:step] else None,
                        step > len(row),
                    )
                    for row in rows
                ]
        finally:
            seen["closed"] += 1
            seen["running"] -= 1

    for engine in (demo_model, trial_batch):
        monkeypatch.setattr(engine, "stream", stream)
    return seen


HALTING = [
    "I detect an injected thought about bomb. HALT",
    "<img src=x onerror=alert(1)> &amp; **bold**",
    "I do not detect any injected thought.",
]
