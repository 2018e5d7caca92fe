"""The tab "Conversation": several turns with one thought, kept or silent, beside their controls.

Knows: components and events of this tab. Does not know: which answers a question asks for and what
they mean (``conversation``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.experiment import DemoModel, is_harmful
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.shared import html, verdicts
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, Run, wire
from introspection.demo.shared.widgets import strength_slider
from introspection.demo.tabs.conversation import conversation
from introspection.demo.tabs.conversation.conversation import MODES, MOST_TURNS, Dialogue
from introspection.demo.tabs.try_it.callbacks import BROKEN, error_toast
from introspection.errors import IntrospectionError

__all__ = ["add"]

log = logging.getLogger(__name__)
INTERVAL = 0.08  # seconds between two updates of the page
FIRST = "What is the capital of France?"
IDLE = "Ask something ordinary first; then ask about the thought."
STOPPED = (
    "Stopped. The question was not answered; the turns before it stay. Press Send to ask again."
)
REPLACED = "Another run took this question’s place; press Send to ask again."
FAILED = "The question was not answered; the turns before it stay. Press Send to ask again."
OVER = "The conversation is cleared. Choose a thought and ask."
ABOUT = (
    '<h2 class="tab-title">Conversation</h2><p class="reading">One thought, several turns. '
    "<strong>Kept</strong>: the vector stays in everything from the first answer on. "
    "<strong>Silent</strong>: it is there only while the first answer is written, and later questions "
    "find it in what the model remembers of that answer, its keys and values. Beside it the same words "
    "with no thought behind them, and a conversation that never had one.</p>"
)
_FOCUS = (
    "() => { document.querySelector('#talk-question textarea, #talk-question input')?.focus(); }"
)


class _Events:
    """Every event returns (talk, question, status, banner, log, concept, strength, mode)."""

    def __init__(self, experiment: DemoModel, tickets: Tickets) -> None:
        self.experiment, self.tickets = experiment, tickets
        self.asked = Tickets()  # of this tab alone: which question its page waits for

    @staticmethod
    def _page(**new: Any) -> tuple[Any, ...]:
        parts = ("talk", "question", "status", "banner", "log", "concept", "strength", "mode")
        return tuple(new.get(part, gr.skip()) for part in parts)

    @staticmethod
    def _open(open_: bool) -> dict[str, Any]:
        """What is injected can only be chosen before the first question."""
        return {part: gr.update(interactive=open_) for part in ("concept", "strength", "mode")}

    def _harmful(self, talk: Dialogue) -> bool:
        return is_harmful(self.experiment.request(talk.concept, 1.0).concept)

    def begin_talk(
        self,
        talk: Dialogue | None,
        concept: Any,
        strength: Any,
        mode: Any,
        question: Any,
        visitor: gr.Request,
        adapter: Any = None,
    ) -> tuple[Any, ...]:
        """Refuse what cannot be asked, end the visitor's earlier run, show the question."""
        try:
            talk = conversation.begin(
                self.experiment, talk, concept, strength, mode, question, adapter
            )
        except IntrospectionError as error:
            raise error_toast("That cannot be asked", error) from None
        session = visitor.session_hash or ""
        talk = talk._replace(ticket=self.tickets.take(session), asking=self.asked.take(session))
        place = verdicts.in_line(*self.experiment.turns.place())
        return self._page(
            talk=talk,
            question="",
            status=html.status("plain", place, running=True),
            banner="",
            log=conversation.log(talk),
            **self._open(False),
        )

    def run_talk(self, talk: Dialogue | None, visitor: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Updates of the answers while the model writes; with the last the turn is part of the talk."""
        session = visitor.session_hash or ""
        if not talk or not talk.asked or not self.tickets.claim(session, talk.ticket):
            yield self._lost(talk, session)
            return
        answers: tuple[TrialResult, ...] = ()
        shown = 0.0
        try:
            chosen, harmful = self.experiment.chosen(talk.adapter), self._harmful(talk)
            asked = conversation.lines(chosen, talk)
            with closing(chosen.lines(asked)) as steps:  # type: ignore[type-var]
                for answers in steps:
                    if not self.tickets.valid(session, talk.ticket):
                        break
                    if time.monotonic() - shown >= INTERVAL:
                        early = html.status("plain", verdicts.ANSWERING, running=True)
                        status = gr.skip() if shown else early
                        shown = time.monotonic()
                        yield self._page(
                            status=status, log=conversation.log(talk, answers, harmful)
                        )
        except IntrospectionError as error:
            raise error_toast("The question was not answered", error) from None
        except Exception:
            log.exception("a run failed")
            raise error_toast("Something went wrong", BROKEN) from None
        if not self.tickets.valid(session, talk.ticket):
            yield self._lost(talk, session)
            return
        done = conversation.added(talk, answers, harmful)
        yield self._page(
            talk=done,
            status=html.status(*conversation.conclusion(done)),
            banner=html.halt(conversation.halt_notice(done)) if done.over else "",
            log=conversation.log(done),
        )

    def _lost(self, talk: Dialogue | None, session: str) -> tuple[Any, ...]:
        """The page of a run that no longer counts. Stop, Start over and a newer question have drawn
        it already; a run in another tab has not."""
        if not talk or not talk.asked or not self.asked.valid(session, talk.asking):
            return self._page()
        said = STOPPED if self.tickets.stopped(session) else REPLACED
        return self._without(talk, "plain", said)

    def _without(
        self, talk: Dialogue | None, tone: verdicts.Tone, said: str, box: Any = ""
    ) -> tuple[Any, ...]:
        """The page without the question that has no answers, which goes back into an empty ``box``.

        The state stays as it is: a newer question may be in it by now, and what is left there of
        this one is never asked again.
        """
        left = talk._replace(asked="") if talk and talk.turns else None
        asked = talk.asked if talk else ""
        return self._page(
            question=gr.skip() if box or not asked else asked,
            status=html.status(tone, said),
            log=conversation.log(left),
            **self._open(left is None),
        )

    def _running(self, talk: Dialogue | None, session: str) -> bool:
        return bool(talk and talk.asked and self.tickets.valid(session, talk.ticket))

    def stop_talk(self, talk: Dialogue | None, box: Any, visitor: gr.Request) -> tuple[Any, ...]:
        session = visitor.session_hash or ""
        if not self._running(talk, session):
            return self._page()
        self.tickets.void(session)
        self.asked.void(session)
        return self._without(talk, "plain", STOPPED, box)

    def restart_talk(self, talk: Dialogue | None, visitor: gr.Request) -> tuple[Any, ...]:
        session = visitor.session_hash or ""
        if self._running(talk, session):
            self.tickets.void(session)
        self.asked.void(session)
        return self._page(
            talk=None,
            question=FIRST,
            status=html.status("plain", OVER),
            banner="",
            log=conversation.log(None),
            **self._open(True),
        )

    def failed_talk(self, talk: Dialogue | None, box: Any) -> tuple[Any, ...]:
        """After any failure, a full queue included: what was answered before stays."""
        return self._without(talk, "bad", FAILED, box)


def add(experiment: DemoModel, tickets: Tickets, adapter: Sequence[gr.Dropdown] = ()) -> None:
    """The tab's components and events; call it inside ``gr.Tab``. ``adapter``: the picker, if any."""
    events = _Events(experiment, tickets)
    gr.HTML(ABOUT)
    with gr.Row():
        concept = gr.Textbox(
            "ocean",
            label="Thought",
            info="Any word or short phrase.",
            max_lines=1,
            elem_id="talk-concept",
        )
        strength = strength_slider(experiment, "talk-strength")
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
    status = gr.HTML(html.status("plain", IDLE), elem_id="talk")
    banner = gr.HTML("", elem_id="talk-banner")
    shown = gr.HTML(conversation.log(None), elem_id="talk-log")
    restart = gr.Button("Start over", size="sm", elem_id="talk-restart")
    talk = gr.State(None)  # a browser is never sent a state

    page = [talk, question, status, banner, shown, concept, strength, mode]
    box = [talk, question]
    run = Run(events.run_talk, talk, page, events.failed_talk, box, page, status)
    asked = [talk, concept, strength, mode, question, *adapter]
    wire([send.click, question.submit], events.begin_talk, asked, page, run, None)
    about.click(None, outputs=question, js=f"() => {DEFAULT_QUESTION!r}", **NOT_IN_API).then(
        None, js=_FOCUS, **NOT_IN_API
    )
    stop.click(events.stop_talk, box, page, **NO_QUEUE).then(None, js=_FOCUS, **NOT_IN_API)
    restart.click(events.restart_talk, talk, page, **NO_QUEUE).then(None, js=_FOCUS, **NOT_IN_API)
