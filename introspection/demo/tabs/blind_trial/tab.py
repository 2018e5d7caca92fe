"""The tab "Blind trial": the visitor reads a report and guesses what had been injected.

Knows: components, events, what a visitor may learn when. Does not know: what is drawn and how it is
scored (``blind``). The secret is in the session's state on the server; nothing that is sent before
the guess depends on it, but for the report.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from introspection.concepts.catalogue import Concept
from introspection.demo.engine.experiment import MAX_NEW_TOKENS, DemoModel
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.shared import html, verdicts
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, Run, wire
from introspection.demo.tabs.blind_trial import trial as blind
from introspection.demo.tabs.blind_trial.trial import NOTHING, OFFERED, BlindTrial, Score
from introspection.demo.tabs.try_it.callbacks import BROKEN, error_toast
from introspection.errors import IntrospectionError

__all__ = ["add"]

log = logging.getLogger(__name__)
INTERVAL = 0.08  # seconds between two updates of the page
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
ABOUT = (
    '<h2 class="tab-title">Blind trial</h2><p class="reading">In two trials of three, on average, '
    "one of the five words below is injected; in the others, nothing is. You are not told which: "
    "read the model’s report and guess. It may be silent, and the name it gives may be wrong. None "
    "of the words was seen in training.</p>"
)
NO_ADAPTER = (
    '<p class="blind-notice">No adapter is loaded: the untrained model cannot report injected '
    "thoughts, so its reports tell you nothing here.</p>"
)
GUESS = (
    '<h3 class="blind-head">What was injected?</h3><p class="blind-hint">Five words of five '
    "categories, each as likely, or nothing; they appear when a trial begins.</p>"
)
_TO_START = "(...values) => { document.querySelector('#blind-inject')?.focus(); return values; }"
# The next step is a button that appears with the answer of the server.
_TO_NEXT = "() => { setTimeout(() => document.querySelector('#blind-next')?.focus(), 80); }"


class _Events:
    """Every event returns (trial, score, status, report, table, six guesses, next)."""

    def __init__(self, experiment: DemoModel, tickets: Tickets, rng: random.Random) -> None:
        self.experiment, self.tickets, self.rng = experiment, tickets, rng
        self.unjudged = Tickets()  # a report can be judged once
        self.pools: dict[DemoModel, tuple[Concept, ...]] = {}  # what its adapter never saw

    def _page(self, said: Any = None, **new: Any) -> tuple[Any, ...]:
        if said is not None:
            new["status"] = said
        parts = ("trial", "score", "status", "report", "table")
        guesses = new.get("guesses", (gr.skip(),) * (OFFERED + 1))
        return *(new.get(part, gr.skip()) for part in parts), *guesses, new.get("next", gr.skip())

    def _cleared(self, said: str, tone: Any = "plain", **new: Any) -> tuple[Any, ...]:
        """The page without a trial."""
        hidden = gr.update(visible=False)
        new = {"report": blind.report(None), "guesses": (hidden,) * (OFFERED + 1), **new}
        return self._page(html.status(tone, said), next=hidden, **new)

    @staticmethod
    def _running(place: str) -> str:
        return html.status("plain", f"{RUNNING} {place}", running=True)

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
            return self._page(html.status("warn", WAITING))
        try:
            chosen = self.experiment.chosen(adapter)
        except IntrospectionError as error:
            raise error_toast("That cannot be run", error) from None
        if chosen not in self.pools:
            self.pools[chosen] = blind.pool(chosen.seen)
        drawn = blind.draw(self.rng, self.pools[chosen])
        ticket = self.tickets.take(visitor.session_hash or "")
        drawn = drawn._replace(ticket=ticket, adapter=adapter or "")
        return self._page(
            self._running(verdicts.in_line(*self.experiment.turns.place())),
            trial=drawn,
            report=blind.report("", running=True),
            guesses=self._guesses(drawn, False),
            next=gr.update(visible=False),
        )

    def run_blind(self, trial: BlindTrial | None, visitor: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Updates of the report while the model writes; with the last the guesses open."""
        session = visitor.session_hash or ""
        if not trial or not self.tickets.claim(session, trial.ticket):
            lost = trial and trial.report is None and not self.tickets.stopped(session)
            yield self._page(html.status("plain", REPLACED) if lost else None)
            return
        answer: TrialResult | None = None
        shown = 0.0
        try:
            chosen = self.experiment.chosen(trial.adapter)
            with closing(chosen.lines([blind.line(trial)], MAX_NEW_TOKENS)) as steps:  # type: ignore[type-var]
                for (answer,) in steps:
                    if not self.tickets.valid(session, trial.ticket):
                        break
                    if time.monotonic() - shown >= INTERVAL:
                        status = gr.skip() if shown else self._running(verdicts.ANSWERING)
                        shown = time.monotonic()
                        yield self._page(status, report=blind.report(answer.text, running=True))
        except IntrospectionError as error:
            told = str(error)
            secret = trial.secret and trial.secret.casefold() in told.casefold()
            raise error_toast("The trial did not finish", FAILED if secret else told) from None
        except Exception:
            log.exception("a blind trial failed")
            raise error_toast("Something went wrong", BROKEN) from None
        if not self.tickets.valid(session, trial.ticket):
            stopped = self.tickets.stopped(session)
            status = html.status("plain", REPLACED)
            yield self._cleared(STOPPED) if stopped else self._page(status)
            return
        if answer is None or answer.verdict is None:
            raise error_toast("The trial did not finish", FAILED)
        done = blind.answered(trial, answer, self.unjudged.take(session))
        yield self._page(
            html.status("plain", READY),
            trial=done,
            report=blind.report(done.report),
            guesses=self._guesses(done, True),
        )

    def guess(self, number: int) -> Callable[..., tuple[Any, ...]]:
        """What one of the six buttons does."""

        def guess_blind(
            trial: BlindTrial | None, score: Score, visitor: gr.Request
        ) -> tuple[Any, ...]:
            session = visitor.session_hash or ""
            if not trial or trial.report is None:
                running = trial is not None and self.tickets.valid(session, trial.ticket)
                return self._page(html.status("warn", NO_REPORT, running=running))
            if trial.guess is not None or not self.unjudged.claim(session, trial.turn):
                return self._page(html.status("plain", TWICE))
            score, judged = blind.judge(score, trial, (*trial.offered, NOTHING)[number])
            return self._page(
                html.status(*blind.reveal(judged)),
                trial=judged,
                score=score,
                table=blind.table(score, self.experiment.has_adapter),
                guesses=self._guesses(judged, False),
                next=gr.update(visible=True),
            )

        return guess_blind

    def stop_blind(self, trial: BlindTrial | None, visitor: gr.Request) -> tuple[Any, ...]:
        self.tickets.void(visitor.session_hash or "")
        if trial and trial.report is not None:
            return self._page()
        return self._cleared(STOPPED, trial=None)

    def restart_blind(self, visitor: gr.Request) -> tuple[Any, ...]:
        self.tickets.void(visitor.session_hash or "")
        table = blind.table(Score(), self.experiment.has_adapter)
        return self._cleared(FRESH, trial=None, score=Score(), table=table)

    def failed_blind(self, trial: BlindTrial | None) -> tuple[Any, ...]:
        """After any failure, a full queue included: no half trial stays."""
        if trial and trial.report is not None:
            return self._page()
        return self._cleared(FAILED, "bad", trial=None)


def add(
    experiment: DemoModel,
    tickets: Tickets,
    rng: random.Random | None = None,
    adapter: Sequence[gr.Dropdown] = (),
) -> None:
    """The tab's components and events; call it inside ``gr.Tab``. ``adapter``: the picker, if any."""
    events = _Events(experiment, tickets, rng or random.SystemRandom())
    gr.HTML(ABOUT if experiment.has_adapter else ABOUT + NO_ADAPTER)
    with gr.Row(elem_classes=["buttons"]):
        begin = gr.Button(START, variant="primary", elem_id="blind-inject", scale=3)
        stop = gr.Button("Stop", variant="stop", elem_id="blind-stop", scale=1, min_width=90)
    status = gr.HTML(html.status("plain", IDLE), elem_id="blind")
    report = gr.HTML(blind.report(None), elem_id="blind-report")
    gr.HTML(GUESS)
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
    table = gr.HTML(blind.table(Score(), experiment.has_adapter), elem_id="blind-score")
    restart = gr.Button("Start over", size="sm", elem_id="blind-restart")
    trial, score = gr.State(None), gr.State(Score())  # a browser is never sent a state

    page = [trial, score, status, report, table, *guesses, following]
    run = Run(events.run_blind, trial, page, events.failed_blind, trial, page, status)
    start = [trial, *adapter]
    wire([begin.click, following.click], events.begin_blind, start, page, run, _TO_START)
    for number, button in enumerate(guesses):
        button.click(events.guess(number), [trial, score], page, **NO_QUEUE).then(
            None, js=_TO_NEXT, **NOT_IN_API
        )
    stop.click(events.stop_blind, trial, page, js=_TO_START, **NO_QUEUE)
    restart.click(events.restart_blind, None, page, **NO_QUEUE)
