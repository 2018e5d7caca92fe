"""The tab of experiments with many lines: choose one, watch the table and the figure grow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import RunRequest
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.engine.trial_batch import TrialResult, TrialSpec
from introspection.demo.shared import html, runs, templates, verdicts, widgets
from introspection.demo.shared.events import FAILED, NO_QUEUE, STOPPED, Run, refusing, wire
from introspection.demo.tabs.many import figures, sweeps, tables

ID, LABEL = "many", "Many at once"
INTERVAL = 0.25  # seconds between two updates: a table is larger than an answer
ABOUT = {
    "controls": "The same question seven times: with the concept, and with everything that only "
    "looks like it. A model that guesses, reads the text or answers any disturbance is found out.",
    "strength": "Eight strengths, three wordings each, trained and untrained. Shaded: the trained "
    "range.",
    "layer": "The vector is read and written at other layers than the one the adapter was trained "
    "for, and measured there against fewer everyday words.",
    "map": "The residual stream after every layer, along the prompt’s end and the answer: how much of "
    "the concept is in it. The vector is added at one layer (framed); from there on the model carries "
    "it, or does not.",
    "heat map": "Six concepts at five strengths, harmful ones at the end.",
    "concepts": "Your own list, separated by commas or lines.",
}


class _Events:
    def __init__(self, model: DemoModel, tickets: Tickets) -> None:
        self.model, self.tickets = model, tickets

    def choose(self, kind: Any) -> tuple[Any, Any]:
        """The experiment's description, and whether it has a list of concepts."""
        return (
            gr.update(info=ABOUT.get(kind, "") if isinstance(kind, str) else ""),
            gr.update(visible=kind == "concepts"),
        )

    def _asked(
        self, kind: Any, concept: Any, strength: Any, names: Any, adapter: Any = None
    ) -> tuple[DemoModel, RunRequest, list[TrialSpec]]:
        """What is asked, of which adapter. Raises IntrospectionError for what cannot run."""
        request = self.model.request(concept, strength, adapter=adapter)
        chosen = self.model.chosen(request.adapter)
        return chosen, request, sweeps.plan(chosen, kind, request, names)

    def begin_lines(self, visitor: gr.Request, *form: Any) -> tuple[Any, ...]:
        """Refuse what cannot run, end the visitor's earlier run, clear the tab. ``form`` is
        (experiment, concept, strength, list of names, adapter where there is a choice)."""
        with refusing("That cannot be run"):
            _, _, lines = self._asked(*form)
        ticket = self.tickets.take(runs.session_of(visitor))
        place = verdicts.in_line(*self.model.lock.place())
        status = html.status("plain", f"{len(lines)} answers to write. {place}", running=True)
        return ticket, status, "", gr.update(value=None, visible=False), ""

    def run_lines(self, visitor: gr.Request, ticket: Any, *form: Any) -> Iterator[tuple[Any, ...]]:
        """Updates of (status, table, figure, downloads) while the model writes."""

        def updates() -> runs.Updates:
            return self._updates(form[0], *self._asked(*form))

        def lost(started: bool) -> tuple[Any, ...]:
            stopped = started and self.tickets.stopped(runs.session_of(visitor))
            status = html.status("plain", STOPPED) if stopped else gr.skip()
            return status, gr.skip(), gr.skip(), gr.skip()

        yield from runs.stream_run(self.tickets, visitor, ticket, updates, lost)

    def _updates(
        self, kind: str, chosen: DemoModel, request: RunRequest, lines: list[TrialSpec]
    ) -> runs.Updates:
        answers: tuple[TrialResult, ...] = ()
        pace, skip = runs.Pace(INTERVAL), gr.skip()
        with closing(chosen.lines(lines, maps=kind == "map")) as steps:  # type: ignore[type-var]
            for answers in steps:
                if not pace.due():
                    yield None
                    continue
                ended = sum(answer.verdict is not None for answer in answers)
                progress = f"{ended} of {len(lines)} answers are written…"
                status = html.status("plain", progress, running=True)
                yield status, self._table(kind, request, answers), skip, skip
        figure = self._figure(kind, chosen, answers)
        yield (
            self._status(answers),
            self._table(kind, request, answers),
            gr.update(value=figure, visible=True) if figure else skip,
            tables.downloads(chosen, answers),
        )

    def _status(self, answers: tuple[TrialResult, ...]) -> str:
        mine = [a for a in answers if a.line.adapter]
        right = sum(bool((o := sweeps.outcome(a)) and o.right) for a in mine)
        who = "trained" if self.model.has_adapter else "untrained"
        tone: Any = "plain" if right < len(mine) or not self.model.has_adapter else "good"
        return html.status(tone, f"{right} of {len(mine)} answers of the {who} model are right.")

    def _table(self, kind: str, request: RunRequest, answers: tuple[TrialResult, ...]) -> str:
        what = f"“{request.concept.name}”"
        if kind == "strength":
            return tables.rates_table(answers, f"{what} at eight strengths", "Strength ρ")
        if kind == "layer":
            return tables.rates_table(answers, f"{what} at other layers", "Layer")
        written = tables.lines_table(self.model, answers, sweeps.KINDS[kind])
        return written + (tables.layers_table(answers) if kind == "map" else "")

    def _figure(self, kind: str, chosen: DemoModel, answers: tuple[TrialResult, ...]) -> Any:
        trained = chosen.trained_range
        if kind == "strength":
            return figures.doses(answers, "strength ρ", trained)
        if kind == "layer":
            return figures.doses(answers, "layer", None)
        if kind == "map":
            return figures.layers(answers)
        return figures.heat_map(answers) if kind == "heat map" else None

    def stop_lines(self, visitor: gr.Request) -> str:
        """End the visitor's run; returns the status."""
        self.tickets.void(runs.session_of(visitor))
        return html.status("plain", STOPPED)

    def failed_lines(self) -> str:
        """After any failure, a full queue included."""
        return html.status("bad", FAILED)


def add(tab: widgets.TabContext) -> None:
    """The tab's components and events; call it inside ``gr.Tab``."""
    events = _Events(tab.model, tab.tickets)
    gr.HTML(templates.render("many/about.html"))
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            kind = gr.Radio(
                [(label, key) for key, label in sweeps.KINDS.items()],
                value="controls",
                label="Experiment",
                info=ABOUT["controls"],
                elem_id="sweep-kind",
            )
        with gr.Column(scale=2, min_width=280):
            concept = gr.Textbox(
                "ocean", label="Concept", info="Any word or short phrase.", elem_id="sweep-concept"
            )
            strength = widgets.strength_slider(tab.model, "sweep-strength")
            names = gr.Textbox(
                "glacier, saxophone, honesty, penguin, bakery",
                label="Concepts",
                info=f"1 to {sweeps.MOST_CONCEPTS}, separated by commas or one per line.",
                visible=False,
                elem_id="sweep-names",
            )
            with gr.Row(elem_classes=["buttons"]):
                go = gr.Button("Run", variant="primary", elem_id="sweep-run", scale=3)
                stop = gr.Button(
                    "Stop", variant="stop", elem_id="sweep-stop", scale=1, min_width=90
                )
    status = gr.HTML(html.status("plain", "Choose an experiment and press Run."), elem_id="sweep")
    table = gr.HTML("", elem_id="sweep-table")
    figure = gr.Plot(
        label="Figure; in words in the table above", visible=False, elem_id="sweep-figure"
    )
    files = gr.HTML("", elem_id="sweep-files")
    ticket = gr.Number(0, visible=False, precision=0)

    asked = [kind, concept, strength, names, *tab.adapter]
    shown = [status, table, figure, files]
    run = Run(events.run_lines, [ticket, *asked], shown, events.failed_lines, None, status, status)
    wire([go.click, concept.submit], events.begin_lines, asked, [ticket, *shown], run, None)
    stop.click(events.stop_lines, outputs=status, **NO_QUEUE)
    kind.input(events.choose, kind, [kind, names], **NO_QUEUE)
