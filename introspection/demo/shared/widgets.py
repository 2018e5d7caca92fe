"""Components that several tabs have, and what every tab is built from."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from introspection.demo.engine import demo_model, run_request, run_tickets


@dataclass(frozen=True, slots=True)
class TabContext:
    """What a tab is built from. ``adapter`` is the picker that all tabs share, if there is one; the
    first tab places it."""

    model: demo_model.DemoModel
    tickets: run_tickets.Tickets
    adapter: tuple[gr.Dropdown, ...] = ()


def adapter_picker(model: demo_model.DemoModel) -> tuple[gr.Dropdown, ...]:
    """The choice of the adapter, not placed yet; empty where there is nothing to choose."""
    if not model.offered:
        return ()
    picker = gr.Dropdown(
        list(model.names),
        value=model.names[0],
        label="Adapter",
        info="Which trained adapter answers, here and on the other tabs.",
        filterable=False,
        elem_id="adapter",
        render=False,
    )
    return (picker,)


def strength_slider(model: demo_model.DemoModel, elem_id: str) -> gr.Slider:
    """The strength of an injection, from 0 to MAX_STRENGTH typical residual norms."""
    shaded = ""
    if model.trained_range:
        low, high = model.trained_range
        whose = f" of {model.loaded.adapter_name}" if model.offered else ""
        shaded = f" Shaded: the trained range{whose}, {low:g} to {high:g}."
    return gr.Slider(
        0,
        run_request.MAX_STRENGTH,
        value=1.0,
        step=0.05,
        label="Strength ρ",
        info=f"Length of the added vector in typical residual norms; 0 adds nothing.{shaded}",
        elem_id=elem_id,
        buttons=["reset"],
    )
