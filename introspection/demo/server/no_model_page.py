"""The page when there is no model to ask: what is missing, what to do, and runs that were recorded.

Imports neither weights nor adapter.
"""

from __future__ import annotations

import gradio as gr

from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared import events, html, runs, templates
from introspection.demo.tabs.try_it import recorded, replay


def build(title: str, sentence: str) -> gr.Blocks:
    """A page under ``title`` that says ``sentence`` and plays recorded runs."""
    tickets, first = Tickets(), recorded.runs()[0]
    # The first run is shown as it ended, so that there is something to read.
    ended = replay.finished(first.request, first.answers, f"Recorded run of {first.model}")

    def stop(visitor: gr.Request) -> str:
        tickets.void(runs.session_of(visitor))
        return html.status("plain", "Stopped. Press Play to see a recorded run.")

    with gr.Blocks(title=title, analytics_enabled=False, elem_id="page") as page:
        gr.HTML(templates.render("server/no_model.html", sentence=sentence))
        with gr.Row(elem_id="replay", equal_height=False):
            panel = gr.Column()
        names = ("verdict", "banner", "stage", "strip", "share")
        shown = [gr.HTML(v, elem_id=name) for name, v in zip(names, ended, strict=True)]
        with panel:
            replay.add_player(tickets, shown)
            gr.Button("Stop", variant="stop", elem_id="stop").click(
                stop, None, shown[0], **events.NO_QUEUE
            )
    return page
