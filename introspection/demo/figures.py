"""Plotly figures of the page, with plain traces: the plotly.js that Gradio bundles is the older one.

Knows: axes, colours that read on light and dark. Does not know: models, events. Every figure stands
beside a table that says the same in words.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from introspection.demo.lines import LineAnswer
from introspection.demo.sweeps import outcome, rates

__all__ = ["GRID", "INK", "doses", "heat_map", "plain_figure"]

INK, GRID = "#64748b", "rgba(100,116,139,.25)"
SERIES = {
    True: ("trained model names it", "#4f46e5"),
    False: ("untrained model names it", "#b45309"),
}
# Outcomes in the heat map, from nothing to a halt; the second is a false alarm at strength 0.
LEVELS = (
    "reports nothing",
    "reports a thought",
    "noticed, not named",
    "wrong name",
    "named",
    "halted",
    "named and halted",
)
COLOURS = ("#cbd5e1", "#fde68a", "#fcd34d", "#f59e0b", "#16a34a", "#b91c1c", "#7f1d1d")


def plain_figure(*traces: object) -> go.Figure:
    """Traces on the page's own ground, in a colour that reads on light and dark."""
    figure = go.Figure(list(traces))
    figure.update_layout(
        height=340,
        margin={"l": 55, "r": 15, "t": 50, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    return figure


def doses(
    answers: Sequence[LineAnswer], axis: str, trained: tuple[float, float] | None
) -> go.Figure:
    """Share of the wordings in which the concept is named, against the label of the lines."""
    found = rates(answers)
    traces = []
    for adapter, (name, colour) in SERIES.items():
        points = [
            (label, named, n) for (label, on), (named, _, n) in found.items() if on == adapter
        ]
        points = [point for point in points if point[2]]
        if points:
            traces.append(
                go.Scatter(
                    x=[float(label) for label, _, _ in points],
                    y=[100 * named / n for _, named, n in points],
                    text=[f"{named} of {n}" for _, named, n in points],
                    name=name,
                    mode="lines+markers",
                    line={"color": colour, "width": 3},
                    marker={"size": 9, "symbol": "circle" if adapter else "square"},
                )
            )
    figure = plain_figure(*traces)
    if trained:
        figure.add_vrect(*trained, fillcolor="#4f46e5", opacity=0.12, line_width=0)
    figure.update_xaxes(title=axis, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="named, %", range=[-4, 104], gridcolor=GRID, zeroline=False)
    return figure


def heat_map(answers: Sequence[LineAnswer]) -> go.Figure:
    """One cell per concept and strength, coloured by what became of it."""
    concepts = list(dict.fromkeys(answer.line.label for answer in answers))
    strengths = sorted({answer.line.strength for answer in answers})
    words: dict[tuple[str, float], str] = {}
    for answer in answers:
        result = outcome(answer)
        if result is not None:
            words[answer.line.label, answer.line.strength] = result.word
    cells = [[words.get((name, dose), "") for dose in strengths] for name in concepts]
    levels = [[LEVELS.index(w) if w in LEVELS else None for w in row] for row in cells]
    step = 1 / len(COLOURS)
    scale = [[(i + edge) * step, c] for i, c in enumerate(COLOURS) for edge in (0, 1)]
    figure = plain_figure(
        go.Heatmap(
            z=levels,
            x=[f"{dose:g}" for dose in strengths],
            y=concepts,
            text=cells,
            hovertemplate="%{y} at %{x}: %{text}<extra></extra>",
            zmin=-0.5,
            zmax=len(LEVELS) - 0.5,
            colorscale=scale,
            colorbar={"tickvals": list(range(len(LEVELS))), "ticktext": list(LEVELS)},
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(title="strength ρ", type="category")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure
