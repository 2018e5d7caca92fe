"""Plotly figures of the page, with plain traces: the plotly.js that Gradio bundles is the older one.

Every figure stands beside a table that says in words what it shows, the map's by the mean of each
layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.shared.charts import GRID, plain_figure, plain_layout
from introspection.demo.tabs.many.sweeps import outcome, rates

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
# Less of the concept than in a clean answer, as much, more; reads on light and on dark.
SIGNED = ((0.0, "#b45309"), (0.5, "#e2e8f0"), (1.0, "#4338ca"))
PANEL, LONGEST = 330, 9  # pixels of height of one map, letters of a token under it


def doses(
    answers: Sequence[TrialResult], axis: str, trained: tuple[float, float] | None
) -> go.Figure:
    """Share of the wordings in which the concept is named, against the label of the lines."""
    counts = rates(answers)
    traces = []
    for adapter, (name, colour) in SERIES.items():
        points = [
            (label, named, n) for (label, on), (named, _, n) in counts.items() if on == adapter
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


def heat_map(answers: Sequence[TrialResult]) -> go.Figure:
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


def layers(answers: Sequence[TrialResult]) -> go.Figure | None:
    """One map per answer: layers upwards, tokens to the right, a frame where the vector is added."""
    maps = [(answer.line.label, answer.map) for answer in answers if answer.map]
    if not maps:
        return None
    figure = plain_layout(
        make_subplots(
            rows=len(maps),
            cols=1,
            subplot_titles=[label for label, _ in maps],
            vertical_spacing=0.13,
        )
    )
    top = max(1.0, *(answer.line.strength for answer in answers))
    for row, (_, one) in enumerate(maps, start=1):
        # A category must be unique; prompt tokens count backwards from the answer.
        names = [
            f"{' '.join(token.split())[:LONGEST] or '·'} {i - one.prompt + (i >= one.prompt)}"
            for i, token in enumerate(one.tokens)
        ]
        heat = go.Heatmap(
            z=[[round(value, 3) for value in line] for line in one.projections],
            x=names,
            text=[[f"{value:.2f}" for value in line] for line in one.cosines],
            hovertemplate="layer %{y}, %{x}: %{z:.2f} norms, cosine %{text}<extra></extra>",
            zmin=-top,
            zmax=top,
            colorscale=[list(stop) for stop in SIGNED],
            showscale=row == 1,
            colorbar={"title": "ρ", "len": 1 / len(maps), "y": 1, "yanchor": "top"},
        )
        figure.add_trace(heat, row=row, col=1)
        if one.injected:
            first, last = one.injected
            figure.add_shape(
                type="rect",
                x0=first - 0.5,
                x1=last + 0.5,
                y0=one.layer - 0.5,
                y1=one.layer + 0.5,
                line={"color": "#dc2626", "width": 2},
                row=row,
                col=1,
            )
    figure.update_layout(height=PANEL * len(maps), showlegend=False)
    figure.update_xaxes(type="category", tickfont={"size": 10}, tickangle=-90)
    figure.update_yaxes(title="layer")
    return figure
