"""One run of the model for a visitor: claim its ticket, stream its updates, end it when it is stopped.

A run has two steps (:func:`introspection.demo.shared.events.wire`). The first checks what was asked and
takes a ticket; the second waits in the queue and then calls :func:`stream_run`. A newer run of the
same visitor, on whatever tab, and the Stop button make the ticket void.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

import gradio as gr

from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared.events import BROKEN, error_toast
from introspection.errors import IntrospectionError

log = logging.getLogger(__name__)
Update = TypeVar("Update")
Updates = Generator[tuple[Any, ...] | None, None, None]  # of the outputs of a tab's run


class Pace:
    """Limits how often a tab is updated: once in ``seconds``, and at the first chance."""

    def __init__(self, seconds: float = 0.08) -> None:
        self._seconds, self._last = seconds, 0.0

    @property
    def first(self) -> bool:
        """Whether no update was due yet."""
        return not self._last

    def due(self, urgent: bool = False) -> bool:
        """Whether the tab is to be updated now; an ``urgent`` update does not wait."""
        now = time.monotonic()
        if not urgent and now - self._last < self._seconds:
            return False
        self._last = now
        return True


def session_of(visitor: gr.Request) -> str:
    """The name under which a visitor's tickets are kept."""
    return visitor.session_hash or ""


def stream_run(
    tickets: Tickets,
    visitor: gr.Request,
    ticket: Any,
    updates: Callable[[], Generator[Update | None, None, None]],
    lost: Callable[[bool], Update],
    title: str = "The run did not finish",
) -> Generator[Update, None, None]:
    """The updates of one run; ``lost(started)`` is the last of a run whose ticket is void, with whether
    it had started by then.

    ``updates()`` yields once after every token, so that a stopped run is noticed there: an update, or
    None where there is nothing new to show. It is closed as soon as the run has ended. What it raises
    becomes a toast: an IntrospectionError its own sentence under ``title``, anything else BROKEN.
    """
    session = session_of(visitor)
    if not tickets.claim(session, ticket):
        yield lost(False)
        return
    try:
        with closing(updates()) as steps:
            for update in steps:
                if not tickets.valid(session, ticket):
                    yield lost(True)
                    return
                if update is not None:
                    yield update
    except IntrospectionError as error:
        raise error_toast(title, error) from None
    except Exception:
        log.exception("a run failed")
        raise error_toast("Something went wrong", BROKEN) from None
