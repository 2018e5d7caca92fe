"""Below the answers: share the last run, paste somebody else's, play recorded ones.

Nothing here runs a model, and :func:`add_player` needs none at all.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from markupsafe import Markup

from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import RowAnswer, RowAnswers, RunRequest
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared import verdicts
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, error_toast, refusing
from introspection.demo.shared.html import halt, status
from introspection.demo.shared.runs import session_of
from introspection.demo.shared.templates import render
from introspection.demo.tabs.try_it import export, html, recorded
from introspection.errors import IntrospectionError

COPY = (
    "() => { const link = document.querySelector('#share a.link');"
    " if (link) navigator.clipboard.writeText(link.href); }"
)
PAUSE = 0.1  # seconds between two words of a recorded run: slow enough to be watched
HOW = "Press Inject to run it here."


def address(visitor: gr.Request) -> str:
    """Where the visitor found the page, for links to it."""
    parts = urlsplit(str(visitor.url))
    return export.page_address(f"{parts.scheme}://{parts.netloc}")


def share(model: DemoModel, request: RunRequest, answers: RowAnswers, base: str) -> Markup:
    """The last run as a link, a file and two programs. ``base`` is the page's own address."""
    return render(
        "try_it/share.html",
        link=export.link(base, request),
        data=b64encode(export.as_json(model, request, answers).encode()).decode(),
        programs=(
            ("Python", export.as_python(base, request)),
            ("curl", export.as_curl(base, request)),
        ),
    )


class _Events:
    def __init__(self, model: DemoModel, tickets: Tickets) -> None:
        self.model, self.tickets = model, tickets

    def open_link(self, visitor: gr.Request) -> tuple[Any, ...]:
        """(concept, strength, question, schedule, tokens, adapter where there is a choice, verdict)
        of a link somebody followed."""
        skip, several = gr.skip(), bool(self.model.offered)
        try:
            request = export.from_query(self.model.request, dict(visitor.query_params))
        except IntrospectionError as error:
            return *[skip] * (5 + several), status("bad", f"This link cannot be used. {error}")
        if request is None:
            return (skip,) * (6 + several)
        return (
            request.concept.name,
            request.strength,
            request.question,
            str(request.schedule),
            request.tokens,
            *([request.adapter] if several else []),
            status("plain", f"The link’s settings are in the form. {HOW}"),
        )

    def import_run(self, text: Any, visitor: gr.Request) -> tuple[Any, ...]:
        """The page of a run that the visitor pasted; ends the visitor's own run."""
        with refusing("That is not a run"):
            request, answers = export.from_json(self.model.request, text)
        self.tickets.take(session_of(visitor))
        strengths = self.model.trained_range
        return finished(request, answers, "Replayed from a file, not run here", strengths)


def _banner(request: RunRequest, answer: RowAnswer) -> str:
    return halt(verdicts.halt_notice(request, answer)) if answer.halted_at else ""


def finished(
    request: RunRequest,
    answers: RowAnswers,
    note: str,
    strengths: tuple[float, float] | None = None,
) -> tuple[Any, ...]:
    """(verdict, banner, three answers, strip, no links) of a run that was not made here."""
    tone, seen, more = verdicts.conclusion(request, answers, answers[0].adapter, strengths)
    return (
        status(tone, f"{note}: {seen}", more),
        _banner(request, answers[0]),
        html.stage(answers[0].adapter, request, answers),
        html.strip(answers, request.concept.name),
        "",
    )


def add_player(tickets: Tickets, shown: list[Any]) -> None:
    """Choose a recorded run and play it into ``shown`` (verdict, banner, stage, strip, share)."""

    def play(number: Any, visitor: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Updates of the page; the visitor's next run, or Stop, ends it as it ends a live one."""
        runs = recorded.runs()
        if type(number) is not int or number not in range(len(runs)):
            raise error_toast("Nothing to play", "Choose one of the recorded runs first.")
        run, session = runs[number], session_of(visitor)
        ticket = tickets.take(session)
        note, skip = f"Recorded run of {run.model}", gr.skip()
        for answers in recorded.play(run, PAUSE):
            if not tickets.valid(session, ticket):
                return
            yield (
                status("plain", f"{note}, playing…", running=True),
                _banner(run.request, answers[0]),
                html.stage(answers[0].adapter, run.request, answers),
                "",
                skip,
            )
        yield finished(run.request, run.answers, note)

    names = [f"{r.request.concept.name}, strength {r.request.strength:g}" for r in recorded.runs()]
    chosen = gr.Dropdown(
        [(name, i) for i, name in enumerate(names)],
        value=0,
        label="Recorded run",
        info="Played back word by word; no model is asked.",
        elem_id="recorded",
    )
    start = gr.Button("Play", elem_id="play")
    start.click(play, chosen, shown, show_progress="hidden", concurrency_limit=8, **NOT_IN_API)


def add(model: DemoModel, tickets: Tickets, form: list[Any], shown: list[Any]) -> None:
    """The panel; ``form`` is (concept, strength, question, schedule, tokens, adapter where there is
    a choice), ``shown`` (verdict, banner, stage, strip, share). Call it inside ``gr.Blocks``."""
    events = _Events(model, tickets)
    copy = gr.Button("Copy link", size="sm", elem_id="copy-link")
    with gr.Accordion("Recorded runs and runs of others", open=False, elem_id="replay"):
        add_player(tickets, shown)
        text = gr.Textbox(
            label="A run as JSON",
            info="Paste a downloaded run. Its verdicts are worked out anew from its texts.",
            lines=4,
            elem_id="import",
        )
        replay = gr.Button("Replay", elem_id="import-run")
    copy.click(None, js=COPY, **NOT_IN_API)
    replay.click(
        events.import_run, text, shown, show_progress="hidden", concurrency_limit=8, **NOT_IN_API
    )
    gr.on(None, events.open_link, None, [*form, shown[0]], **NO_QUEUE)  # when the page is opened
