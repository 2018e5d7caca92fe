"""The first tab: one concept, three answers."""

from __future__ import annotations

import gradio as gr

from introspection.concepts.catalogue import catalogue
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine import run_request
from introspection.demo.engine.run_request import MAX_NEW_TOKENS, RowAnswers, RunRequest
from introspection.demo.shared.events import NO_QUEUE, NOT_IN_API, Run, wire
from introspection.demo.shared.widgets import TabContext, strength_slider
from introspection.demo.tabs.try_it import html, replay
from introspection.demo.tabs.try_it.callbacks import Callbacks
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
    "(...values) => { if (window.innerWidth < 760) document.querySelector('#verdict')"
    ".scrollIntoView({behavior: 'smooth', block: 'start'}); return values; }"
)
_FOCUS_INJECT = "() => { document.querySelector('#inject').focus(); }"


def _catalogue(callbacks: Callbacks, concept: gr.Textbox) -> None:
    """The concepts that may be chosen instead of typed: the category, then one of its concepts."""
    label = f"Choose from {len(catalogue()):,} concepts"
    with gr.Accordion(label, open=False, elem_id="catalogue"):
        category = gr.Dropdown(
            sorted({entry.category for entry in catalogue()}),
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
    category.input(callbacks.choose, category, listed, **NO_QUEUE)
    listed.input(lambda name: name or gr.skip(), listed, concept, **NO_QUEUE)


def _advanced(tab: TabContext, callbacks: Callbacks) -> tuple[gr.Textbox, gr.Radio, gr.Slider]:
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
            run_request.FEWEST_TOKENS,
            run_request.MOST_TOKENS,
            value=MAX_NEW_TOKENS,
            step=1,
            label="Answer tokens at most",
            info=f"A harmful concept is capped at {MAX_NEW_TOKENS}.",
            elem_id="tokens",
            buttons=["reset"],
        )
    where = gr.HTML(callbacks.where(DEFAULT_QUESTION, "final_on"), elem_id="where")
    gr.on(
        [question.change, schedule.change],
        callbacks.where,
        [question, schedule],
        where,
        trigger_mode="always_last",
        **NO_QUEUE,
    )
    return question, schedule, tokens


def add(tab: TabContext) -> None:
    """The tab's components and events; call it inside ``gr.Tab``."""

    def shared(request: RunRequest, answers: RowAnswers, visitor: gr.Request) -> str:
        return replay.share(tab.model, request, answers, replay.address(visitor))

    callbacks = Callbacks(tab.model, tab.tickets, shared)
    with gr.Column():
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
                _catalogue(callbacks, concept)
            with gr.Column(scale=2, min_width=280):
                strength = strength_slider(tab.model, "strength")
                with gr.Row(elem_id="strengths"):
                    for value, name in NAMED:
                        gr.Button(
                            f"{value:g} {name}",
                            size="sm",
                            elem_id=f"strength-{name}",
                            elem_classes=["chip"],
                        ).click(None, outputs=strength, js=f"() => {value}", **NOT_IN_API)
                with gr.Row(elem_id="buttons"):
                    inject = gr.Button("Inject", variant="primary", elem_id="inject", scale=3)
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", scale=1, min_width=90)
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            question, schedule, tokens = _advanced(tab, callbacks)
        stage = html.stage(tab.model.has_adapter)
        parts = {"verdict": html.idle(), "banner": "", "stage": stage, "strip": "", "share": ""}
        shown = [gr.HTML(part, elem_id=name) for name, part in parts.items()]
        verdict = shown[0]
        # In the page, not in the session: it must travel with the concept it was taken for.
        ticket = gr.Number(0, visible=False, precision=0)
        form = [concept, strength, question, schedule, tokens, *tab.adapter]
        cleared = [concept, question, schedule, ticket, *shown]
        run = Run(
            *(callbacks.run, [ticket, *form], shown, callbacks.failed, None, verdict, verdict)
        )
        wire([inject.click, concept.submit], callbacks.begin, form, cleared, run, _SHOW)
        for button, (_, _, *preset) in zip(presets, PRESETS, strict=True):
            begin, given = callbacks.begin_preset(*preset), [strength, tokens, *tab.adapter]
            wire([button.click], begin, given, cleared, run, _SHOW)
        clear.click(None, js=_FOCUS_CONCEPT, **NOT_IN_API)
        stop.click(callbacks.stop, outputs=verdict, js=_FOCUS_INJECT, **NO_QUEUE)
        gr.on(
            [concept.change, strength.change, *(picker.change for picker in tab.adapter)],
            callbacks.describe,
            [concept, strength, *tab.adapter],
            badges,
            trigger_mode="always_last",
            **NO_QUEUE,
        )
        replay.add(tab.model, tab.tickets, form, shown)
