"""Components that several tabs have.

Knows: what they look like. Does not know: where they stand, what happens when they are used.
"""

from __future__ import annotations

import gradio as gr

from introspection.demo.engine.experiment import MAX_STRENGTH, DemoModel
from introspection.demo.shared import html

__all__ = ["strength_slider"]


def strength_slider(experiment: DemoModel, elem_id: str) -> gr.Slider:
    return gr.Slider(
        0,
        MAX_STRENGTH,
        value=1.0,
        step=0.05,
        label="Strength ρ",
        info=html.strength_info(experiment),
        elem_id=elem_id,
        buttons=["reset"],
    )
