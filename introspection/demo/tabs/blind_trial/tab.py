"""The tab "Blind trial": the visitor reads a report and guesses what had been injected.

The secret is in the session's state on the server; nothing that is sent before the guess depends on
it, but for the report.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from introspection.concepts.catalogue import Concept
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import MAX_NEW_TOKENS
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.shared import runs, templates, verdicts, widgets
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, Run, refusing, wire
from introspection.demo.shared.html import status
from introspection.demo.tabs.blind_trial import html
from introspection.demo.tabs.blind_trial import trial as blind
from introspection.demo.tabs.blind_trial.trial import NOTHING, OFFERED, BlindTrial, Score
from introspection.errors import IntrospectionError

ID, LABEL = "blind", "Blind trial"
START = "Inject something, or nothing"
NO_GUESS = "nothing was injected"
IDLE = f"Press “{START}” to begin."
RUNNING = "Something, or nothing, is injected."
READY = "The report is written. What was injected?"
WAITING = "Guess first: the report of this trial is waiting."
NO_REPORT = f"There is no report to judge yet: press “{START}” and wait until it is written."
TWICE = "This trial is judged already: press “Next trial” for another."
STOPPED = f"Stopped. This trial does not count; press “{START}” for another."
REPLACED = f"Another run took this trial’s place; press “{START}” for another."
FAILED = f"The trial did not finish and does not count: press “{START}” for another."
FRESH = f"Score and trial are cleared. {IDLE}"
_TO_START = "(...values) => { document.querySelector('#blind-inject')?.focus(); return values; }"
# The next step is a button that appears with the answer of the server.
_TO_NEXT = "() => { setTimeout(() => document.querySelector('#blind-next')?.focus(), 80); }"


class _Events:
    """Every event returns (trial, score, status, report, table, six guesses, next)."""

    def __init__(self, model: DemoModel, tickets: Tickets, rng: random.Random) -> None:
        self.model, self.tickets, self.rng = model, tickets, rng
        self.unjudged = Tickets()  # a report can be judged once
        self.pools: dict[DemoModel, tuple[Concept, ...]] = {}  # what its adapter never saw

    def _page(self, verdict: Any = None, **new: Any) -> tuple[Any, ...]:
        if verdict is not None:
            new["status"] = verdict
        parts = ("trial", "score", "status", "report", "table")
        guesses = new.get("guesses", (gr.skip(),) * (OFFERED + 1))
        return *(new.get(part, gr.skip()) for part in parts), *guesses, new.get("next", gr.skip())

    def _cleared(self, sentence: str, tone: Any = "plain", **new: Any) -> tuple[Any, ...]:
        """The page without a trial."""
        hidden = gr.update(visible=False)
        new = {"report": html.report(None), "guesses": (hidden,) * (OFFERED + 1), **new}
        return self._page(status(tone, sentence), next=hidden, **new)

    @staticmethod
    def _running(place: str) -> str:
        return status("plain", f"{RUNNING} {place}", running=True)

    @staticmethod
    def _guesses(trial: BlindTrial, open_: bool) -> tuple[Any, ...]:
        """The six buttons; once the guess is made they show which one was right."""

        def label(name: str) -> str:
            shown = name or NO_GUESS
            if trial.guess is None or name not in (trial.secret, trial.guess):
                return shown
            return f"✓ {shown}" if name == trial.secret else f"✗ {shown}"

        return tuple(
            gr.update(value=label(name), visible=True, interactive=open_)
            for name in (*trial.offered, NOTHING)
        )

    def begin_blind(
        self, trial: BlindTrial | None, visitor: gr.Request, adapter: Any = None
    ) -> tuple[Any, ...]:
        """Draw a secret and clear the page; a report that waits for its guess is not thrown away."""
        if trial and trial.report is not None and trial.guess is None:
            return self._page(status("warn", WAITING))
        with refusing("That cannot be run"):
            chosen = self.model.chosen(adapter)
        if chosen not in self.pools:
            self.pools[chosen] = blind.pool(chosen.seen)
        drawn = blind.draw(self.rng, self.pools[chosen])
        ticket = self.tickets.take(runs.session_of(visitor))
        drawn = drawn._replace(ticket=ticket, adapter=adapter or "")
        return self._page(
            self._running(verdicts.in_line(*self.model.lock.place())),
            trial=drawn,
            report=html.report("", running=True),
            guesses=self._guesses(drawn, False),
            next=gr.update(visible=False),
        )

    def run_blind(self, trial: BlindTrial | None, visitor: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Updates of the report while the model writes; with the last the guesses open."""
        if not trial or trial.report is not None:
            yield self._page()
            return
        session = runs.session_of(visitor)
        yield from runs.stream_run(
            self.tickets,
            visitor,
            trial.ticket,
            lambda: self._updates(trial, session),
            lambda started: self._lost(session, started),
            title="The trial did not finish",
        )

    def _updates(self, trial: BlindTrial, session: str) -> runs.Updates:
        answer: TrialResult | None = None
        pace = runs.Pace()
        with closing(self._answers(trial)) as steps:
            for answer in steps:
                early = self._running(verdicts.ANSWERING) if pace.first else gr.skip()
                if pace.due():
                    yield self._page(early, report=html.report(answer.text, running=True))
                else:
                    yield None
        if answer is None or answer.verdict is None:
            raise IntrospectionError(FAILED)
        yield None  # a trial that was stopped by now is not to be judged
        done = blind.answered(trial, answer, self.unjudged.take(session))
        yield self._page(
            status("plain", READY),
            trial=done,
            report=html.report(done.report),
            guesses=self._guesses(done, True),
        )

    def _answers(self, trial: BlindTrial) -> Generator[TrialResult, None, None]:
        """The report after every token. What goes wrong is told without the secret."""
        try:
            chosen = self.model.chosen(trial.adapter)
            with closing(chosen.lines([blind.line(trial)], MAX_NEW_TOKENS)) as steps:  # type: ignore[type-var]
                for (answer,) in steps:
                    yield answer
        except IntrospectionError as error:
            if trial.secret and trial.secret.casefold() in str(error).casefold():
                raise IntrospectionError(FAILED) from None
            raise

    def _lost(self, session: str, started: bool) -> tuple[Any, ...]:
        """The page of a run that no longer counts; of one that waited still, Stop has cleared it."""
        if not self.tickets.stopped(session):
            return self._page(status("plain", REPLACED))
        return self._cleared(STOPPED) if started else self._page()

    def guess(self, number: int) -> Callable[..., tuple[Any, ...]]:
        """What one of the six buttons does."""

        def guess_blind(
            trial: BlindTrial | None, score: Score, visitor: gr.Request
        ) -> tuple[Any, ...]:
            session = runs.session_of(visitor)
            if not trial or trial.report is None:
                running = trial is not None and self.tickets.valid(session, trial.ticket)
                return self._page(status("warn", NO_REPORT, running=running))
            if trial.guess is not None or not self.unjudged.claim(session, trial.turn):
                return self._page(status("plain", TWICE))
            score, judged = blind.judge(score, trial, (*trial.offered, NOTHING)[number])
            return self._page(
                status(*blind.reveal(judged)),
                trial=judged,
                score=score,
                table=html.score_table(score, self.model.has_adapter),
                guesses=self._guesses(judged, False),
                next=gr.update(visible=True),
            )

        return guess_blind

    def stop_blind(self, trial: BlindTrial | None, visitor: gr.Request) -> tuple[Any, ...]:
        self.tickets.void(runs.session_of(visitor))
        if trial and trial.report is not None:
            return self._page()
        return self._cleared(STOPPED, trial=None)

    def restart_blind(self, visitor: gr.Request) -> tuple[Any, ...]:
        self.tickets.void(runs.session_of(visitor))
        table = html.score_table(Score(), self.model.has_adapter)
        return self._cleared(FRESH, trial=None, score=Score(), table=table)

    def failed_blind(self, trial: BlindTrial | None) -> tuple[Any, ...]:
        """After any failure, a full queue included: no half trial stays."""
        if trial and trial.report is not None:
            return self._page()
        return self._cleared(FAILED, "bad", trial=None)


def add(tab: widgets.TabContext, rng: random.Random | None = None) -> None:
    """The tab's components and events; call it inside ``gr.Tab``. ``rng`` draws the secrets."""
    events = _Events(tab.model, tab.tickets, rng or random.SystemRandom())
    gr.HTML(templates.render("blind_trial/about.html", has_adapter=tab.model.has_adapter))
    with gr.Row(elem_classes=["buttons"]):
        begin = gr.Button(START, variant="primary", elem_id="blind-inject", scale=3)
        stop = gr.Button("Stop", variant="stop", elem_id="blind-stop", scale=1, min_width=90)
    verdict = gr.HTML(status("plain", IDLE), elem_id="blind")
    report = gr.HTML(html.report(None), elem_id="blind-report")
    gr.HTML(templates.render("blind_trial/guess.html"))
    with gr.Row(elem_id="blind-guesses"):
        guesses = [
            gr.Button(
                NO_GUESS if i == OFFERED else f"Word {i + 1}",
                visible=False,
                interactive=False,
                elem_id=f"blind-guess-{i + 1}",
                min_width=150,
            )
            for i in range(OFFERED + 1)
        ]
    following = gr.Button("Next trial", variant="primary", visible=False, elem_id="blind-next")
    gr.HTML('<h3 class="blind-head">Score</h3>')
    table = gr.HTML(html.score_table(Score(), tab.model.has_adapter), elem_id="blind-score")
    restart = gr.Button("Start over", size="sm", elem_id="blind-restart")
    trial, score = gr.State(None), gr.State(Score())  # a browser is never sent a state

    page = [trial, score, verdict, report, table, *guesses, following]
    run = Run(events.run_blind, trial, page, events.failed_blind, trial, page, verdict)
    start = [trial, *tab.adapter]
    wire([begin.click, following.click], events.begin_blind, start, page, run, _TO_START)
    for number, button in enumerate(guesses):
        button.click(events.guess(number), [trial, score], page, **NO_QUEUE).then(
            None, js=_TO_NEXT, **NOT_IN_API
        )
    stop.click(events.stop_blind, trial, page, js=_TO_START, **NO_QUEUE)
    restart.click(events.restart_blind, None, page, **NO_QUEUE)
