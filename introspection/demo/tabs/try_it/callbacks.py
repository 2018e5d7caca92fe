"""What happens when something on the first tab is pressed.

Functions take and return plain values; of a visitor only the number of the latest run is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from introspection.concepts.catalogue import catalogue
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import RowAnswers, RunRequest
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared import events, runs, verdicts
from introspection.demo.shared.html import halt, problem, status
from introspection.demo.tabs.try_it import html
from introspection.errors import IntrospectionError

Shared = Callable[[RunRequest, RowAnswers, gr.Request], str]


class Callbacks:
    """The events of the first tab. ``shared`` gives the links to a finished run."""

    def __init__(self, model: DemoModel, tickets: Tickets, shared: Shared) -> None:
        self.model, self.tickets, self.shared = model, tickets, shared

    def _running(self, request: RunRequest, place: str) -> str:
        """The status of a run that has this place in the line."""
        what = f"“{request.concept.name}” is injected at strength {request.strength:g}"
        if request.strength == 0:
            what = "Strength 0: nothing is injected"
        return status("plain", f"{what}. {place}", running=True)

    def _stage(self, request: RunRequest, answers: RowAnswers | None = None) -> str:
        return html.stage(self.model.has_adapter, request, answers)

    def _conclusion(
        self, request: RunRequest, answers: RowAnswers
    ) -> tuple[verdicts.Tone, str, str]:
        chosen = self.model.chosen(request.adapter)
        return verdicts.conclusion(request, answers, chosen.has_adapter, chosen.trained_range)

    def describe(self, concept: Any, strength: Any, adapter: Any = None) -> str:
        """The badge line; a concept that cannot be used is explained there, not in a toast."""
        if not isinstance(concept, str) or not concept.strip():
            return problem("Type a concept or choose one from the catalogue.")
        try:
            request = self.model.request(concept, strength, adapter=adapter)
        except IntrospectionError as error:
            return problem(str(error))
        chosen = self.model.chosen(request.adapter)
        return html.badges(chosen, request, " ".join(concept.split()))

    def where(self, question: Any, schedule: Any) -> str:
        """Where the vector will be added, shown before the run; refusals are explained there."""
        try:
            # Any concept will do; a span may lie outside the prompt, which only the tokens tell.
            request = self.model.request("ocean", 1.0, question, schedule)
            return html.where(self.model, request)
        except IntrospectionError as error:
            return problem(str(error))

    def choose(self, category: Any) -> Any:
        """The concepts of the category that was chosen."""
        listed = (concept.name for concept in catalogue() if concept.category == category)
        names = sorted(listed, key=str.casefold)
        return gr.Dropdown(choices=names, value=None, interactive=bool(names))

    def begin(self, visitor: gr.Request, *form: Any) -> tuple[Any, ...]:
        """Before the queue: refuse what cannot run, end the visitor's earlier run, clear the page.

        ``form`` is (concept, strength, question, schedule, tokens, adapter where there is a choice).
        Returns (concept, question, schedule, ticket, verdict, banner, three answers, strip, links).
        """
        with events.refusing("That cannot be injected"):
            request = self.model.request(*form)
        ticket = self.tickets.take(runs.session_of(visitor))
        verdict = self._running(request, verdicts.in_line(*self.model.lock.place()))
        skip = gr.skip()
        return skip, skip, skip, ticket, verdict, "", self._stage(request), "", ""

    def begin_preset(self, name: str, question: str, schedule: str) -> Any:
        """:meth:`begin` for a whole experiment that a button puts into the form."""

        def begin(
            visitor: gr.Request, strength: Any, tokens: Any, *adapter: Any
        ) -> tuple[Any, ...]:
            begun = self.begin(visitor, name, strength, question, schedule, tokens, *adapter)
            return name, question, schedule, *begun[3:]

        return begin

    def stop(self, visitor: gr.Request) -> str:
        """End the visitor's run; returns the verdict."""
        self.tickets.void(runs.session_of(visitor))
        return status("plain", events.STOPPED)

    def run(self, visitor: gr.Request, ticket: Any, *form: Any) -> Iterator[tuple[Any, ...]]:
        """Updates of (verdict, banner, three answers, strip, links) while the model writes."""

        def updates() -> runs.Updates:
            return self._updates(self.model.request(*form), visitor)

        def lost(started: bool) -> tuple[Any, ...]:
            stopped = started and self.tickets.stopped(runs.session_of(visitor))
            return (status("plain", events.STOPPED) if stopped else gr.skip(), *[gr.skip()] * 4)

        yield from runs.stream_run(self.tickets, visitor, ticket, updates, lost)

    def _updates(self, request: RunRequest, visitor: gr.Request) -> runs.Updates:
        answers: RowAnswers | None = None
        pace, skip = runs.Pace(), gr.skip()
        halted = concluded = False
        with closing(self.model.stream(request)) as steps:  # type: ignore[type-var]
            for answers in steps:
                verdict: Any = self._running(request, verdicts.ANSWERING) if pace.first else skip
                banner: Any = skip
                urgent = False
                if answers[0].halted_at and not halted:
                    halted = urgent = True
                    banner = halt(verdicts.halt_notice(request, answers[0]))
                elif answers[0].verdict and answers[2].verdict and not concluded:
                    # What matters is known; the untrained model may ramble on for long.
                    concluded = urgent = True
                    verdict = status(*self._conclusion(request, answers), running=True)
                if pace.due(urgent):
                    yield verdict, banner, self._stage(request, answers), skip, skip
                else:
                    yield None
        assert answers is not None
        yield (
            status(*self._conclusion(request, answers)),
            skip,
            self._stage(request, answers),
            html.strip(answers, request.concept.name),
            self.shared(request, answers, visitor),
        )

    def failed(self) -> str:
        """After any failure, a full queue included: the page no longer looks as if it ran."""
        return status("bad", events.FAILED)
