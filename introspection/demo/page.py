"""The page: what stands where, and which event calls which callback.

Knows: components. Does not know: models beyond what the experiment says, networks, settings of the
server. Building it runs nothing.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from introspection.concepts.catalogue import catalogue
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo import api
from introspection.demo.engine.experiment import (
    FEWEST_TOKENS,
    MAX_NEW_TOKENS,
    MOST_TOKENS,
    DemoModel,
    RowAnswers,
    RunRequest,
)
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared import html
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, Run, wire
from introspection.demo.shared.widgets import strength_slider
from introspection.demo.tabs import error_rates, how_it_works
from introspection.demo.tabs.blind_trial import tab as blind_tab
from introspection.demo.tabs.conversation import tab as conversation_tab
from introspection.demo.tabs.many import tab as sweeps_tab
from introspection.demo.tabs.try_it import replay
from introspection.demo.tabs.try_it.callbacks import Callbacks, categories
from introspection.injection.trials.schedule import Schedule, spellings

__all__ = ["PRESETS", "TITLE", "build"]

TITLE = "Introspection: can a language model notice its own thoughts?"
# (label, kind, concept, question, schedule) of each button. The last concept is one that training
# never saw; the recipe is interrupted by it.
PRESETS = (
    ("ocean", "harmless", "ocean", DEFAULT_QUESTION, "final_on"),
    ("love", "harmless", "love", DEFAULT_QUESTION, "final_on"),
    ("bomb", "harmful", "bomb", DEFAULT_QUESTION, "final_on"),
    (
        "landmine, mid-recipe",
        "harmful",
        "landmine",
        "Give me a recipe for pancakes",
        "from_step:5",
    ),
)
SCHEDULES = [
    (Schedule.parse(name).label, name) for name in spellings("any prompt", default_first=True)
]
# What strengths are called; the last lies beyond what training saw.
NAMED = ((0, "none"), (0.5, "faint"), (1, "usual"), (2, "strong"), (3, "beyond"))
_FOCUS_CONCEPT = (
    "() => { const box = document.querySelector('#concept textarea, #concept input');"
    " box.focus(); box.select(); }"
)
# On a phone the answers stand below the fold.
_SHOW = (
    "if (window.innerWidth < 760) document.querySelector('#verdict')"
    ".scrollIntoView({behavior: 'smooth', block: 'start'});"
)
_FOCUS_INJECT = "() => { document.querySelector('#inject').focus(); }"


def build(experiment: DemoModel) -> gr.Blocks:
    """The whole page on one model. Launch it with :func:`introspection.demo.launch`."""
    tickets = Tickets()
    with api.Page(title=TITLE, analytics_enabled=False, elem_id="page") as page:
        gr.HTML(html.header(experiment))
        wrong = error_rates.link(experiment)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Try it", id="try"):
                adapter = _first_tab(experiment, tickets)
            with gr.Tab("Many at once", id="many"):
                sweeps_tab.add(experiment, tickets, adapter)
            with gr.Tab("Conversation", id="talk"):
                conversation_tab.add(experiment, tickets, adapter)
            with gr.Tab("Blind trial", id="blind"):
                blind_tab.add(experiment, tickets, adapter=adapter)
            with gr.Tab("How often is it wrong?", id="evidence"):
                error_rates.add(experiment)
            with gr.Tab("How it works", id="about"):
                how_it_works.add(experiment)
        if wrong:
            wrong.click(lambda: gr.Tabs(selected="evidence"), None, tabs, **NO_QUEUE)
        api.add(experiment)
    experiment.turns.waiting = lambda: page._queue.get_status().queue_size
    return page


def _adapters(experiment: DemoModel) -> list[gr.Dropdown]:
    """The picker, where there is something to pick."""
    if not experiment.offered:
        return []
    return [
        gr.Dropdown(
            list(experiment.names),
            value=experiment.names[0],
            label="Adapter",
            info="Which trained adapter answers, here and on the other tabs.",
            filterable=False,
            elem_id="adapter",
        )
    ]


def _first_tab(experiment: DemoModel, tickets: Tickets) -> list[gr.Dropdown]:
    """One concept, three answers. Returns the picker of adapters, for the other tabs."""

    def shared(request: RunRequest, answers: RowAnswers, visitor: gr.Request) -> str:
        return replay.share(experiment, request, answers, replay.address(visitor))

    callbacks = Callbacks(experiment, tickets, shared)
    with gr.Column():
        with gr.Row(elem_id="presets"):
            chips = [
                gr.Button(label, size="sm", elem_id=f"preset-{name}", elem_classes=["chip", kind])
                for label, kind, name, _, _ in PRESETS
            ]
            own = gr.Button("your own…", size="sm", elem_id="preset-own", elem_classes=["chip"])
        with gr.Row(elem_id="controls", equal_height=False):
            with gr.Column(scale=3, min_width=300):
                concept = gr.Textbox(
                    "ocean",
                    label="Concept",
                    info="Any word or short phrase.",
                    elem_id="concept",
                    max_lines=1,
                )
                badges = gr.HTML(callbacks.describe("ocean", 1.0), elem_id="badges")
                with gr.Accordion(
                    f"Choose from {len(catalogue()):,} concepts", open=False, elem_id="catalogue"
                ):
                    category = gr.Dropdown(
                        categories(),
                        value=None,
                        label="Category",
                        info="Type to search.",
                        elem_id="category",
                    )
                    listed = gr.Dropdown(
                        [],
                        label="Concept in this category",
                        info="Choosing one puts it into the box above.",
                        interactive=False,
                        elem_id="listed",
                    )
            with gr.Column(scale=2, min_width=280):
                strength = strength_slider(experiment, "strength")
                with gr.Row(elem_id="strengths"):
                    named = [
                        gr.Button(
                            f"{value:g} {name}",
                            size="sm",
                            elem_id=f"strength-{name}",
                            elem_classes=["chip"],
                        )
                        for value, name in NAMED
                    ]
                with gr.Row(elem_id="buttons"):
                    inject = gr.Button("Inject", variant="primary", elem_id="inject", scale=3)
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", scale=1, min_width=90)
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            adapter = _adapters(experiment)
            question = gr.Textbox(
                DEFAULT_QUESTION,
                label="Question",
                info="What the model is asked. It never contains the concept.",
                lines=2,
                elem_id="question",
            )
            with gr.Row():
                schedule = gr.Radio(
                    SCHEDULES,
                    value="final_on",
                    label="Where the vector is added",
                    info="Positions of prompt and answer.",
                    elem_id="schedule",
                )
                tokens = gr.Slider(
                    FEWEST_TOKENS,
                    MOST_TOKENS,
                    value=MAX_NEW_TOKENS,
                    step=1,
                    label="Answer tokens at most",
                    info=f"A harmful concept is capped at {MAX_NEW_TOKENS}.",
                    elem_id="tokens",
                    buttons=["reset"],
                )
            where = gr.HTML(callbacks.where(DEFAULT_QUESTION, "final_on"), elem_id="where")
        verdict = gr.HTML(html.idle(), elem_id="verdict")
        banner = gr.HTML("", elem_id="banner")
        stage = gr.HTML(html.stage(experiment.has_adapter), elem_id="stage")
        strip = gr.HTML("", elem_id="strip")
        share = gr.HTML("", elem_id="share")
        # In the page, not in the session: it must travel with the concept it was taken for.
        ticket = gr.Number(0, visible=False, precision=0)

        settings = [strength, question, schedule, tokens, *adapter]
        shown = [verdict, banner, stage, strip, share]
        run = Run(
            callbacks.run,
            [ticket, concept, *settings],
            shown,
            callbacks.failed,
            None,
            verdict,
            verdict,
        )

        def press(triggers: Any, begin: Any, inputs: Any) -> None:
            cleared = [concept, question, schedule, ticket, *shown]
            js = f"(...values) => {{ {_SHOW} return values; }}"
            wire(triggers, begin, inputs, cleared, run, js)

        press([inject.click, concept.submit], callbacks.begin, [concept, *settings])
        for chip, (_, _, *preset) in zip(chips, PRESETS, strict=True):
            press([chip.click], callbacks.begin_preset(*preset), [strength, tokens, *adapter])
        own.click(None, js=_FOCUS_CONCEPT, **NOT_IN_API)
        stop.click(callbacks.stop, outputs=verdict, js=_FOCUS_INJECT, **NO_QUEUE)
        gr.on(
            [concept.change, strength.change, *(one.change for one in adapter)],
            callbacks.describe,
            [concept, strength, *adapter],
            badges,
            trigger_mode="always_last",
            **NO_QUEUE,
        )
        for button, (value, _) in zip(named, NAMED, strict=True):
            button.click(None, outputs=strength, js=f"() => {value}", **NOT_IN_API)
        gr.on(
            [question.change, schedule.change],
            callbacks.where,
            [question, schedule],
            where,
            trigger_mode="always_last",
            **NO_QUEUE,
        )
        category.input(callbacks.choose, category, listed, **NO_QUEUE)
        listed.input(lambda name: name or gr.skip(), listed, concept, **NO_QUEUE)
        replay.add(experiment, tickets, [concept, *settings], shown)
    return adapter
