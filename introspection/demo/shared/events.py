"""How events are wired, what a browser may see of them, and how an error reaches a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from introspection.errors import IntrospectionError

# Values arrive as they were sent: one check, ours, and no message but ours.
NOT_IN_API: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
NO_QUEUE: dict[str, Any] = {**NOT_IN_API, "queue": False, "show_progress": "hidden"}
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}

STOPPED = "Stopped. What was written so far stays; press Inject to run it again."
FAILED = "The run did not finish: press Inject to try again."
BROKEN = "The model stopped unexpectedly: press Inject again; if it recurs, restart the server."


def error_toast(title: str, sentence: object) -> gr.Error:
    """A toast with one sentence under a title.

    Toasts render HTML and the sentence may quote what a visitor typed, so it is escaped. Gradio 6.31
    shows the kind of a toast in place of its title, so the title is part of the message too.
    """
    text = f"<strong>{title}</strong><br>{escape(str(sentence), quote=False)}"
    return gr.Error(text, title=title, print_exception=False)


@contextmanager
def refusing(title: str) -> Iterator[None]:
    """Show an IntrospectionError of the body as a toast under ``title``."""
    try:
        yield
    except IntrospectionError as error:
        raise error_toast(title, error) from None


@dataclass(frozen=True, slots=True)
class Run:
    """The second step of a run: the generator that needs the model, and what happens on failure.

    ``work`` reads ``inputs`` and updates ``outputs``. ``failed`` is called when it or the step before
    it fails. ``status`` is the component beside which Gradio shows the place in the queue.
    """

    work: Callable[..., Any]
    inputs: Any
    outputs: Any
    failed: Callable[..., Any]
    failed_inputs: Any
    failed_outputs: Any
    status: Any


def wire(
    triggers: Any, begin: Callable[..., Any], inputs: Any, outputs: Any, run: Run, js: str | None
) -> None:
    """Connect ``triggers`` to ``begin``, which checks and clears the page at once, then to ``run``,
    which waits for the model."""
    gr.on(
        triggers,
        begin,
        inputs,
        outputs,
        trigger_mode="multiple",
        js=js,
        # Through the queue, without a limit: an error outside it would be a bare HTTP 500.
        show_progress="hidden",
        concurrency_limit=None,
        **NOT_IN_API,
    ).success(
        run.work,
        run.inputs,
        run.outputs,
        trigger_mode="multiple",
        show_progress="minimal",
        show_progress_on=run.status,
        **MODEL_QUEUE,
        **NOT_IN_API,
    ).failure(run.failed, run.failed_inputs, run.failed_outputs, **NO_QUEUE)
