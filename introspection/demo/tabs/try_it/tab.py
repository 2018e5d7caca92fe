"""The first tab: one concept, three answers.

Knows: components and events of this tab. Does not know: what the events do (``callbacks``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from introspection.concepts.catalogue import catalogue
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.row_answers import RowAnswers
from introspection.demo.engine.run_request import (
    FEWEST_TOKENS,
    MAX_NEW_TOKENS,
    MOST_TOKENS,
    RunRequest,
)
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, Run, wire
from introspection.demo.shared.widgets import TabContext, strength_slider
from introspection.demo.tabs.try_it import html, replay
from introspection.demo.tabs.try_it.callbacks import Callbacks, categories
from introspection.injection.trials.schedule import Schedule, spellings

ID, LABEL = "try", "Try it"
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


class _Form(NamedTuple):
    """Everything above the answers that has events."""

    presets: list[gr.Button]
    clear: gr.Button
    concept: gr.Textbox
    badges: gr.HTML
    category: gr.Dropdown
    listed: gr.Dropdown
    strength: gr.Slider
    strengths: list[gr.Button]
    inject: gr.Button
    stop: gr.Button
    question: gr.Textbox
    schedule: gr.Radio
    tokens: gr.Slider
    where: gr.HTML


def _form(tab: TabContext, callbacks: Callbacks) -> _Form:
    with gr.Row(elem_id="presets"):
        presets = [
            gr.Button(label, size="sm", elem_id=f"preset-{name}", elem_classes=["chip", kind])
            for label, kind, name, _, _ in PRESETS
        ]
        clear = gr.Button("your own…", size="sm", elem_id="preset-own", elem_classes=["chip"])
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
            category, listed = _catalogue()
        with gr.Column(scale=2, min_width=280):
            strength = strength_slider(tab.model, "strength")
            with gr.Row(elem_id="strengths"):
                strengths = [
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
        question, schedule, tokens = _advanced(tab)
        where = gr.HTML(callbacks.where(DEFAULT_QUESTION, "final_on"), elem_id="where")
    return _Form(
        *(presets, clear, concept, badges, category, listed, strength, strengths, inject, stop),
        *(question, schedule, tokens, where),
    )


def _catalogue() -> tuple[gr.Dropdown, gr.Dropdown]:
    """The concepts that may be chosen instead of typed: the category, then one of its concepts."""
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
    return category, listed


def _advanced(tab: TabContext) -> tuple[gr.Textbox, gr.Radio, gr.Slider]:
    """The adapter, where there is a choice; the question, the schedule and the answer's length."""
    for picker in tab.adapter:
        picker.render()
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
    return question, schedule, tokens


def add(tab: TabContext) -> None:
    """The tab's components and events; call it inside ``gr.Tab``."""

    def shared(request: RunRequest, answers: RowAnswers, visitor: gr.Request) -> str:
        return replay.share(tab.model, request, answers, replay.address(visitor))

    callbacks = Callbacks(tab.model, tab.tickets, shared)
    with gr.Column():
        form = _form(tab, callbacks)
        verdict = gr.HTML(html.idle(), elem_id="verdict")
        banner = gr.HTML("", elem_id="banner")
        stage = gr.HTML(html.stage(tab.model.has_adapter), elem_id="stage")
        strip = gr.HTML("", elem_id="strip")
        share = gr.HTML("", elem_id="share")
        # In the page, not in the session: it must travel with the concept it was taken for.
        ticket = gr.Number(0, visible=False, precision=0)
        shown = [verdict, banner, stage, strip, share]
        _wire(tab, callbacks, form, ticket, shown)
        settings = [form.strength, form.question, form.schedule, form.tokens, *tab.adapter]
        replay.add(tab.model, tab.tickets, [form.concept, *settings], shown)


def _wire(
    tab: TabContext, callbacks: Callbacks, form: _Form, ticket: gr.Number, shown: list[gr.HTML]
) -> None:
    concept, strength, question, schedule = (
        *(form.concept, form.strength),
        *(form.question, form.schedule),
    )
    settings = [strength, question, schedule, form.tokens, *tab.adapter]
    verdict = shown[0]
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

    press([form.inject.click, concept.submit], callbacks.begin, [concept, *settings])
    for button, (_, _, *preset) in zip(form.presets, PRESETS, strict=True):
        begin = callbacks.begin_preset(*preset)
        press([button.click], begin, [strength, form.tokens, *tab.adapter])
    form.clear.click(None, js=_FOCUS_CONCEPT, **NOT_IN_API)
    form.stop.click(callbacks.stop, outputs=verdict, js=_FOCUS_INJECT, **NO_QUEUE)
    gr.on(
        [concept.change, strength.change, *(picker.change for picker in tab.adapter)],
        callbacks.describe,
        [concept, strength, *tab.adapter],
        form.badges,
        trigger_mode="always_last",
        **NO_QUEUE,
    )
    for button, (value, _) in zip(form.strengths, NAMED, strict=True):
        button.click(None, outputs=strength, js=f"() => {value}", **NOT_IN_API)
    gr.on(
        [question.change, schedule.change],
        callbacks.where,
        [question, schedule],
        form.where,
        trigger_mode="always_last",
        **NO_QUEUE,
    )
    form.category.input(callbacks.choose, form.category, form.listed, **NO_QUEUE)
    form.listed.input(lambda name: name or gr.skip(), form.listed, concept, **NO_QUEUE)
