"""The tab "Conversation": several turns with one thought, kept or silent, beside their controls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine import demo_model, run_request, run_tickets, trial_batch
from introspection.demo.shared import runs, templates, verdicts, widgets
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, Run, refusing, wire
from introspection.demo.shared.html import halt, status
from introspection.demo.tabs.conversation import conversation, html
from introspection.demo.tabs.conversation.conversation import MODES, MOST_TURNS, Dialogue

ID, LABEL = "talk", "Conversation"
FIRST = "What is the capital of France?"
IDLE = "Ask something ordinary first; then ask about the thought."
STOPPED = (
    "Stopped. The question was not answered; the turns before it stay. Press Send to ask again."
)
REPLACED = "Another run took this question’s place; press Send to ask again."
FAILED = "The question was not answered; the turns before it stay. Press Send to ask again."
OVER = "The conversation is cleared. Choose a thought and ask."
_FOCUS = (
    "() => { document.querySelector('#talk-question textarea, #talk-question input')?.focus(); }"
)


class _Events:
    """Every event returns (talk, question, status, banner, log, concept, strength, mode)."""

    def __init__(self, model: demo_model.DemoModel, tickets: run_tickets.Tickets) -> None:
        self.model, self.tickets = model, tickets
        self.asked = run_tickets.Tickets()  # of this tab alone: which question its page waits for

    @staticmethod
    def _page(**new: Any) -> tuple[Any, ...]:
        parts = ("talk", "question", "status", "banner", "log", "concept", "strength", "mode")
        return tuple(new.get(part, gr.skip()) for part in parts)

    @staticmethod
    def _open(open_: bool) -> dict[str, Any]:
        """What is injected can only be chosen before the first question."""
        return {part: gr.update(interactive=open_) for part in ("concept", "strength", "mode")}

    def _harmful(self, talk: Dialogue) -> bool:
        return run_request.is_harmful(self.model.request(talk.concept, 1.0).concept)

    def begin_talk(self, visitor: gr.Request, talk: Dialogue | None, *form: Any) -> tuple[Any, ...]:
        """Refuse what cannot be asked, end the visitor's earlier run, show the question. ``form`` is
        (concept, strength, mode, question, adapter where there is a choice)."""
        with refusing("That cannot be asked"):
            talk = conversation.begin(self.model, talk, *form)
        session = runs.session_of(visitor)
        talk = talk._replace(ticket=self.tickets.take(session), asking=self.asked.take(session))
        place = verdicts.in_line(*self.model.lock.place())
        return self._page(
            talk=talk,
            question="",
            status=status("plain", place, running=True),
            banner="",
            log=html.log(talk),
            **self._open(False),
        )

    def run_talk(self, talk: Dialogue | None, visitor: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Updates of the answers while the model writes; with the last the turn is part of the talk."""
        if not talk or not talk.asked:
            yield self._page()
            return
        yield from runs.stream_run(
            self.tickets,
            visitor,
            talk.ticket,
            lambda: self._updates(talk),
            lambda _started: self._lost(talk, runs.session_of(visitor)),
            title="The question was not answered",
        )

    def _updates(self, talk: Dialogue) -> runs.Updates:
        chosen, harmful = self.model.chosen(talk.adapter), self._harmful(talk)
        answers: tuple[trial_batch.TrialResult, ...] = ()
        pace = runs.Pace()
        with closing(chosen.lines(conversation.lines(chosen, talk))) as steps:  # type: ignore[type-var]
            for answers in steps:
                first = pace.first
                if not pace.due():
                    yield None
                    continue
                early = status("plain", verdicts.ANSWERING, running=True)
                log = html.log(talk, answers, harmful)
                yield self._page(status=early if first else gr.skip(), log=log)
        done = conversation.added(talk, answers, harmful)
        yield self._page(
            talk=done,
            status=status(*conversation.conclusion(done)),
            banner=halt(conversation.halt_notice(done)) if done.over else "",
            log=html.log(done),
        )

    def _lost(self, talk: Dialogue, session: str) -> tuple[Any, ...]:
        """The page of a run that no longer counts. Stop, Start over and a newer question have drawn
        it already; a run in another tab has not."""
        if not self.asked.valid(session, talk.asking):
            return self._page()
        return self._without(talk, "plain", STOPPED if self.tickets.stopped(session) else REPLACED)

    def _without(
        self, talk: Dialogue | None, tone: verdicts.Tone, sentence: str, box: Any = ""
    ) -> tuple[Any, ...]:
        """The page without the unanswered question, which goes back into the question box if that is
        empty (``box`` is its text).

        The state is left alone: it may hold a newer question by now, and this one's ticket is void.
        """
        left = talk._replace(asked="") if talk and talk.turns else None
        asked = talk.asked if talk else ""
        return self._page(
            question=gr.skip() if box or not asked else asked,
            status=status(tone, sentence),
            log=html.log(left),
            **self._open(left is None),
        )

    def _running(self, talk: Dialogue | None, session: str) -> bool:
        return bool(talk and talk.asked and self.tickets.valid(session, talk.ticket))

    def stop_talk(self, talk: Dialogue | None, box: Any, visitor: gr.Request) -> tuple[Any, ...]:
        """End the question that is being answered; ``box`` is the text of the question box."""
        session = runs.session_of(visitor)
        if not self._running(talk, session):
            return self._page()
        self.tickets.void(session)
        self.asked.void(session)
        return self._without(talk, "plain", STOPPED, box)

    def restart_talk(self, talk: Dialogue | None, visitor: gr.Request) -> tuple[Any, ...]:
        """An empty conversation."""
        session = runs.session_of(visitor)
        if self._running(talk, session):
            self.tickets.void(session)
        self.asked.void(session)
        return self._page(
            talk=None,
            question=FIRST,
            status=status("plain", OVER),
            banner="",
            log=html.log(None),
            **self._open(True),
        )

    def failed_talk(self, talk: Dialogue | None, box: Any) -> tuple[Any, ...]:
        """After any failure, a full queue included: what was answered before stays."""
        return self._without(talk, "bad", FAILED, box)


def add(tab: widgets.TabContext) -> None:
    """The tab's components and events; call it inside ``gr.Tab``."""
    events = _Events(tab.model, tab.tickets)
    gr.HTML(templates.render("conversation/about.html"))
    with gr.Row():
        concept = gr.Textbox(
            "ocean",
            label="Thought",
            info="Any word or short phrase.",
            max_lines=1,
            elem_id="talk-concept",
        )
        strength = widgets.strength_slider(tab.model, "talk-strength")
        mode = gr.Radio(
            [(label, key) for key, label in MODES.items()],
            value="kept",
            label="The thought is",
            info="It can be chosen before the first question.",
            elem_id="talk-mode",
        )
    question = gr.Textbox(
        FIRST,
        label="Question",
        info=f"Up to {MOST_TURNS} questions of {conversation.LONGEST} letters. Enter sends.",
        lines=1,
        max_lines=1,
        elem_id="talk-question",
    )
    with gr.Row(elem_classes=["buttons"]):
        about = gr.Button("Ask about the thought", elem_id="talk-about", scale=2)
        send = gr.Button("Send", variant="primary", elem_id="talk-send", scale=3)
        stop = gr.Button("Stop", variant="stop", elem_id="talk-stop", scale=1, min_width=90)
    verdict = gr.HTML(status("plain", IDLE), elem_id="talk")
    banner = gr.HTML("", elem_id="talk-banner")
    shown = gr.HTML(html.log(None), elem_id="talk-log")
    restart = gr.Button("Start over", size="sm", elem_id="talk-restart")
    talk = gr.State(None)  # a browser is never sent a state

    page = [talk, question, verdict, banner, shown, concept, strength, mode]
    box = [talk, question]
    run = Run(events.run_talk, talk, page, events.failed_talk, box, page, verdict)
    asked = [talk, concept, strength, mode, question, *tab.adapter]
    wire([send.click, question.submit], events.begin_talk, asked, page, run, None)
    about.click(None, outputs=question, js=f"() => {DEFAULT_QUESTION!r}", **NOT_IN_API).then(
        None, js=_FOCUS, **NOT_IN_API
    )
    stop.click(events.stop_talk, box, page, **NO_QUEUE).then(None, js=_FOCUS, **NOT_IN_API)
    restart.click(events.restart_talk, talk, page, **NO_QUEUE).then(None, js=_FOCUS, **NOT_IN_API)
