"""The tab with the measured error rates of the adapter that is loaded.

No number stands in this file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from markupsafe import Markup

from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.shared.charts import GRID, INK, plain_figure
from introspection.demo.shared.templates import render
from introspection.demo.shared.widgets import TabContext
from introspection.demo.tabs.error_rates import rates
from introspection.errors import IntrospectionError
from introspection.evaluation.conditions import GROUPS

ID, LABEL = "evidence", "How often is it wrong?"
LONGEST = 200  # characters shown of the record's name and of the run's


def table(record: Mapping[str, Any]) -> Markup:
    """Every headline rate with its interval, false positives first, a bar in each row."""
    measured = rates.rows(record)
    groups = [(group.heading, [row for row in measured if row.group is group]) for group in GROUPS]
    return render("error_rates/table.html", groups=[one for one in groups if one[1]])


def figure(record: Mapping[str, Any]) -> go.Figure:
    """The same rates as bars with their intervals; ``style.css`` gives the text its colour."""
    measured = rates.rows(record)
    bars = go.Bar(
        x=[row.percent for row in measured],
        y=["<br>".join(textwrap.wrap(row.question, 26)) for row in measured],
        orientation="h",
        marker={"color": [row.group.colour for row in measured]},
        error_x={
            "type": "data",
            "symmetric": False,
            # A whole rate may differ from its interval's end by the last bit.
            "array": [max(100 * row.high - row.percent, 0) for row in measured],
            "arrayminus": [max(row.percent - 100 * row.low, 0) for row in measured],
            "color": INK,
            "thickness": 1.5,
            "width": 4,
        },
        customdata=[f"{row.successes:,} of {row.n:,}" for row in measured],
        hovertemplate="%{x:.1f} % (%{customdata})<extra></extra>",
    )
    drawn = plain_figure(bars)
    drawn.update_layout(
        height=80 + 42 * len(measured),
        margin={"l": 10},
        font={"size": 11},
        showlegend=False,
        dragmode=False,
    )
    # Fixed axes: a finger on the figure scrolls the page.
    drawn.update_xaxes(title="%", range=[0, 104], gridcolor=GRID, zeroline=False, fixedrange=True)
    drawn.update_yaxes(autorange="reversed", automargin=True, type="category", fixedrange=True)
    return drawn


def source(record: Mapping[str, Any]) -> Markup:
    """Which record and which run the numbers come from."""
    name, run = (str(record.get(key, "not named"))[:LONGEST] for key in ("records", "run"))
    return render(
        "error_rates/source.html", record=name, run=run, unseen=rates.training_is_apart(record)
    )


def link(model: DemoModel) -> gr.Button | None:
    """The way to the tab from everywhere on the page, which a narrow screen hides in a menu. Says the
    rates of false alarms and of missed halts, if they were measured."""
    try:
        record = rates.evaluation(model)
    except IntrospectionError:
        return None
    shares = {
        "False alarms": rates.false_alarms(record),
        "Missed halts": rates.missed_halts(record),
    }
    parts = [
        f"{name}: {rates.percent_range(values)}.".replace(" ", "\N{NO-BREAK SPACE}")
        for name, values in shares.items()
        if values
    ]
    return gr.Button(" ".join([LABEL, *parts]), size="sm", elem_id="how-wrong")


def add(tab: TabContext) -> None:
    """The tab's components; call it inside ``gr.Tab``."""
    try:
        record = rates.evaluation(tab.model)
    except IntrospectionError as error:
        gr.HTML(render("error_rates/about.html", problem=str(error)), elem_id="evidence")
        return
    name = tab.model.loaded.adapter_name if tab.model.offered else ""
    about = render(
        "error_rates/about.html", problem="", headline=rates.headline(record), adapter=name
    )
    gr.HTML(about, elem_id="evidence")
    gr.HTML(table(record), elem_id="evidence-table")
    gr.HTML(source(record), elem_id="evidence-source")
    gr.Plot(
        figure(record), label="Figure; the table above says the same", elem_id="evidence-figure"
    )
