"""What happens when something on the first tab is pressed.

Knows: events' inputs and outputs, how errors reach a visitor. Does not know: where components
stand. Functions take and return plain values; of a visitor only the number of the latest run is
kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from introspection.concepts.catalogue import catalogue
from introspection.demo.engine.experiment import DemoModel, RowAnswers, RunRequest
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared import html, verdicts
from introspection.demo.tabs.many import tables
from introspection.errors import IntrospectionError

__all__ = [
    "BROKEN",
    "FAILED",
    "STOPPED",
    "Callbacks",
    "categories",
    "concepts_of",
    "error_toast",
]

log = logging.getLogger(__name__)
INTERVAL = 0.08  # seconds between two updates of the page
STOPPED = "Stopped. What was written so far stays; press Inject to run it again."
FAILED = "The run did not finish: press Inject to try again."
BROKEN = "The model stopped unexpectedly: press Inject again; if it recurs, restart the server."


def categories() -> list[str]:
    return sorted({concept.category for concept in catalogue()})


def concepts_of(category: str) -> list[str]:
    return sorted(
        (concept.name for concept in catalogue() if concept.category == category),
        key=str.casefold,
    )


def error_toast(title: str, sentence: object) -> gr.Error:
    """One sentence under a title, for a toast. Toasts render HTML, and the sentence may quote what
    a visitor typed. Gradio 6.31 shows the kind of a toast in place of its title, so the title is
    part of the message.
    """
    text = f"<strong>{title}</strong><br>{escape(str(sentence), quote=False)}"
    return gr.Error(text, title=title, print_exception=False)


Shared = Callable[[RunRequest, RowAnswers, gr.Request], str]


class Callbacks:
    """``shared`` turns a finished run into its links."""

    def __init__(self, experiment: DemoModel, tickets: Tickets, shared: Shared) -> None:
        self.experiment, self.tickets, self.shared = experiment, tickets, shared

    def _running(self, request: RunRequest, place: str) -> str:
        """The status of a run that has this place in the line."""
        what = f"“{request.concept.name}” is injected at strength {request.strength:g}"
        if request.strength == 0:
            what = "Strength 0: nothing is injected"
        return html.status("plain", f"{what}. {place}", running=True)

    def _stage(self, request: RunRequest, answers: RowAnswers | None = None) -> str:
        return html.stage(self.experiment.has_adapter, request, answers)

    def _conclusion(
        self, request: RunRequest, answers: RowAnswers
    ) -> tuple[verdicts.Tone, str, str]:
        check = self.experiment.chosen(request.adapter)
        return verdicts.conclusion(request, answers, check.has_adapter, check.trained_range)

    def describe(self, concept: Any, strength: Any, adapter: Any = None) -> str:
        """The badge line; a concept that cannot be used is explained there, not in a toast."""
        if not isinstance(concept, str) or not concept.strip():
            return html.problem("Type a concept or choose one from the catalogue.")
        try:
            request = self.experiment.request(concept, strength, adapter=adapter)
        except IntrospectionError as error:
            return html.problem(str(error))
        chosen = self.experiment.chosen(request.adapter)
        return html.badges(chosen, request, " ".join(concept.split()))

    def where(self, question: Any, schedule: Any) -> str:
        """Where the vector will be added, shown before the run; refusals are explained there."""
        try:
            # Any concept will do; a span may lie outside the prompt, which only the tokens tell.
            request = self.experiment.request("ocean", 1.0, question, schedule)
            return tables.where(self.experiment, request)
        except IntrospectionError as error:
            return html.problem(str(error))

    def choose(self, category: Any) -> Any:
        names = concepts_of(category) if isinstance(category, str) else []
        return gr.Dropdown(choices=names, value=None, interactive=bool(names))

    def begin(
        self,
        concept: Any,
        strength: Any,
        question: Any,
        schedule: Any,
        tokens: Any,
        visitor: gr.Request,
        adapter: Any = None,
    ) -> tuple[Any, ...]:
        """Before the queue: refuse what cannot run, end the visitor's earlier run, clear the page.

        Returns (concept, question, schedule, ticket, verdict, banner, three answers, strip, links).
        """
        try:
            request = self.experiment.request(
                concept, strength, question, schedule, tokens, adapter
            )
        except IntrospectionError as error:
            raise error_toast("That cannot be injected", error) from None
        ticket = self.tickets.take(visitor.session_hash or "")
        status = self._running(request, verdicts.in_line(*self.experiment.turns.place()))
        skip = gr.skip()
        return skip, skip, skip, ticket, status, "", self._stage(request), "", ""

    def begin_preset(self, name: str, question: str, schedule: str) -> Any:
        """:meth:`begin` for a whole experiment that a button puts into the form."""

        def begin(
            strength: Any, tokens: Any, visitor: gr.Request, adapter: Any = None
        ) -> tuple[Any, ...]:
            begun = self.begin(name, strength, question, schedule, tokens, visitor, adapter)
            return name, question, schedule, *begun[3:]

        return begin

    def stop(self, visitor: gr.Request) -> str:
        self.tickets.void(visitor.session_hash or "")
        return html.status("plain", STOPPED)

    def run(
        self,
        ticket: Any,
        concept: Any,
        strength: Any,
        question: Any,
        schedule: Any,
        tokens: Any,
        visitor: gr.Request,
        adapter: Any = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Updates of (verdict, banner, three answers, strip, links) while the model writes."""
        session, skip = visitor.session_hash or "", gr.skip()
        if not self.tickets.claim(session, ticket):
            yield (skip,) * 5
            return
        try:
            request = self.experiment.request(
                concept, strength, question, schedule, tokens, adapter
            )
            answers: RowAnswers | None = None
            shown, halted, concluded = 0.0, False, False
            with closing(self.experiment.stream(request)) as steps:  # type: ignore[type-var]
                for answers in steps:
                    if not self.tickets.valid(session, ticket):
                        said = html.status("plain", STOPPED)
                        yield said if self.tickets.stopped(session) else skip, *[skip] * 4
                        return
                    early: Any = skip if shown else self._running(request, verdicts.ANSWERING)
                    banner: Any = skip
                    now = time.monotonic()
                    if answers[0].halted_at and not halted:
                        halted, banner = True, html.halt(verdicts.halt_notice(request, answers[0]))
                    elif answers[0].verdict and answers[2].verdict and not concluded:
                        # What matters is known; the untrained model may ramble on for long.
                        concluded = True
                        early = html.status(*self._conclusion(request, answers), running=True)
                    elif now - shown < INTERVAL:
                        continue
                    shown = now
                    yield early, banner, self._stage(request, answers), skip, skip
        except IntrospectionError as error:
            raise error_toast("The run did not finish", error) from None
        except Exception:
            log.exception("a run failed")
            raise error_toast("Something went wrong", BROKEN) from None
        assert answers is not None
        yield (
            html.status(*self._conclusion(request, answers)),
            skip,
            self._stage(request, answers),
            tables.strip(answers, request.concept.name),
            self.shared(request, answers, visitor),
        )

    def failed(self) -> str:
        """After any failure, a full queue included: the page no longer looks as if it ran."""
        return html.status("bad", FAILED)
