"""The protocol of a run: its ticket, its updates, its end. No server, no model."""

from __future__ import annotations

from collections.abc import Generator

import gradio as gr
import pytest

from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared.events import BROKEN
from introspection.demo.shared.runs import Pace, stream_run
from introspection.errors import IntrospectionError

VISITOR = gr.Request(session_hash="a")


class Run:
    """Three steps, of which the second shows nothing new; ``closed`` once it was ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.closed = error, False

    def __call__(self) -> Generator[str | None, None, None]:
        try:
            yield "first"
            yield None
            if self.error:
                raise self.error
            yield "last"
        finally:
            self.closed = True


def lost(started: bool) -> str:
    return "lost, started" if started else "lost"


def test_stream_run_gives_the_updates_of_a_claimed_ticket() -> None:
    tickets, run = Tickets(), Run()
    ticket = tickets.take("a")
    assert list(stream_run(tickets, VISITOR, ticket, run, lost)) == ["first", "last"]
    assert run.closed
    assert list(stream_run(tickets, VISITOR, ticket, run, lost)) == ["lost"], "used once"


@pytest.mark.parametrize("newer", [True, False], ids=["newer run", "stop"])
def test_stream_run_ends_when_its_ticket_is_void(newer: bool) -> None:
    tickets, run = Tickets(), Run()
    updates = stream_run(tickets, VISITOR, tickets.take("a"), run, lost)
    assert next(updates) == "first"
    if newer:
        tickets.take("a")
    else:
        tickets.void("a")
    assert list(updates) == ["lost, started"] and run.closed


def test_stream_run_never_starts_a_run_that_was_stopped_in_the_queue() -> None:
    tickets = Tickets()
    ticket = tickets.take("a")
    tickets.void("a")

    def never() -> Generator[str, None, None]:
        raise AssertionError("started")

    assert list(stream_run(tickets, VISITOR, ticket, never, lost)) == ["lost"]


def test_stream_run_closes_the_run_of_a_visitor_who_left() -> None:
    tickets, run = Tickets(), Run()
    updates = stream_run(tickets, VISITOR, tickets.take("a"), run, lost)
    next(updates)
    updates.close()
    assert run.closed


@pytest.mark.parametrize(
    ("error", "title", "sentence"),
    [
        (IntrospectionError("Choose <b>."), "No answer", "Choose &lt;b&gt;."),
        (RuntimeError("secret"), "Something went wrong", BROKEN),
    ],
)
def test_stream_run_turns_an_error_into_a_toast(
    error: Exception, title: str, sentence: str
) -> None:
    tickets, run = Tickets(), Run(error)
    updates = stream_run(tickets, VISITOR, tickets.take("a"), run, lost, title="No answer")
    with pytest.raises(gr.Error) as toast:
        list(updates)
    assert toast.value.message == f"<strong>{title}</strong><br>{sentence}" and run.closed


def test_pace_is_due_at_once_then_after_its_seconds() -> None:
    pace = Pace(60)
    assert pace.first and pace.due()
    assert not pace.first and not pace.due()
    assert pace.due(urgent=True)
