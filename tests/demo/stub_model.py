"""A tab on a server of its own, over a model that writes what the test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from introspection.demo.engine.model_lock import ModelLock
from introspection.demo.engine.run_request import checked
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.engine.trial_batch import TrialResult, TrialSpec
from introspection.demo.shared.widgets import TabContext
from introspection.evaluation.grading.grade import grade
from introspection.models.loaded_model import LoadedModel

DENIAL = "I do not detect any injected thought."


class StubModel:
    """Writes ``text`` (``{c}`` is the concept), or that of the trial's label in ``texts``, one word
    every ``pause`` seconds; then raises ``error``, if there is one."""

    has_adapter, offered, trained_range, names = True, dict[str, Any](), (0.25, 2.0), ()
    request = staticmethod(checked)

    def __init__(self, loaded: LoadedModel | None = None) -> None:
        self.loaded, self.lock = loaded, ModelLock(1.0)
        self.text, self.texts, self.pause = DENIAL, dict[str, str](), 0.0
        self.error: Exception | None = None
        self.asked, self.closed = list[Sequence[TrialSpec]](), 0

    def chosen(self, _adapter: object) -> StubModel:
        return self

    def seen(self, _concept: object) -> tuple[bool, str]:
        return False, "never seen in training"

    def lines(
        self, asked: Sequence[TrialSpec], _most: int = 0
    ) -> Iterator[tuple[TrialResult, ...]]:
        self.asked.append(asked)
        texts = [
            self.texts.get(line.label, self.text).replace(
                "{c}", str(line.concept and line.concept.name)
            )
            for line in asked
        ]
        words = [text.split() for text in texts]
        try:
            for step in range(1, max(map(len, words)) + 1):
                time.sleep(self.pause)
                yield tuple(
                    TrialResult(line, text=" ".join(row[:step]), tokens=step)
                    for line, row in zip(asked, words, strict=True)
                )
            if self.error:
                raise self.error
            yield tuple(
                TrialResult(
                    line,
                    text=text,
                    tokens=len(row),
                    halted_at=len(row) if row[-1] == "HALT" else None,
                    verdict=grade(text, line.concept),
                )
                for line, text, row in zip(asked, texts, words, strict=True)
            )
        finally:
            self.closed += 1


@dataclass(frozen=True)
class Server:
    model: StubModel
    page: gr.Blocks


@contextmanager
def served(model: StubModel, add: Callable[[TabContext], None]) -> Iterator[Server]:
    """The tab that ``add`` makes, on a free port."""
    with gr.Blocks(analytics_enabled=False) as page, gr.Tabs(), gr.Tab("The tab"):
        add(TabContext(model, Tickets()))  # type: ignore[arg-type]
    page.queue(max_size=32, api_open=False, default_concurrency_limit=1)
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, show_error=False)
    yield Server(model, page)
    page.close()
