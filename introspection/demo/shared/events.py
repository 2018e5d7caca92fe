"""How events are wired: what a browser may see of them, and the two steps of every run of the model.

Knows: Gradio's event options. Does not know: what a run is or where components stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

__all__ = ["MODEL_QUEUE", "NOT_IN_API", "NO_QUEUE", "Run", "wire"]

# Values arrive as they were sent: one check, ours, and no message but ours.
NOT_IN_API: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
NO_QUEUE: dict[str, Any] = {**NOT_IN_API, "queue": False, "show_progress": "hidden"}
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


@dataclass(frozen=True, slots=True)
class Run:
    """The generator that needs the model, what it reads and updates, and what is shown when it or
    the step before it fails. ``status`` is the component beside which the queue shows a place."""

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
    """``triggers`` check and clear the page at once (``begin``), then wait for the model."""
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
