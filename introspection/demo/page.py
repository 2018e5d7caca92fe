"""The page: its tabs, in their order. A new tab is one folder in ``tabs/`` and one line in ``TABS``.

Building it runs nothing.
"""

from __future__ import annotations

import gradio as gr

from introspection.demo import api
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared import events, html, widgets
from introspection.demo.tabs.blind_trial import tab as blind_trial
from introspection.demo.tabs.conversation import tab as conversation
from introspection.demo.tabs.error_rates import tab as error_rates
from introspection.demo.tabs.how_it_works import tab as how_it_works
from introspection.demo.tabs.many import tab as many
from introspection.demo.tabs.try_it import tab as try_it

TITLE = "Introspection: can a language model notice its own thoughts?"
TABS = (try_it, many, conversation, blind_trial, error_rates, how_it_works)


def build(model: DemoModel) -> gr.Blocks:
    """The whole page on one model. Launch it with :func:`introspection.demo.server.launch.launch`."""
    context = widgets.TabContext(model, Tickets(), widgets.adapter_picker(model))
    with api.Page(title=TITLE, analytics_enabled=False, elem_id="page") as page:
        gr.HTML(html.header(model))
        wrong = error_rates.link(model)
        with gr.Tabs(elem_id="tabs") as tabs:
            for tab in TABS:
                with gr.Tab(tab.LABEL, id=tab.ID):
                    tab.add(context)
        if wrong:
            wrong.click(lambda: gr.Tabs(selected=error_rates.ID), None, tabs, **events.NO_QUEUE)
        api.add(model)
    model.lock.waiting = lambda: page._queue.get_status().queue_size
    return page
