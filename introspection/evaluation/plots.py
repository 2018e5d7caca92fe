"""Figures from summaries: the same bars as an interactive page (plotly) and as a PNG (matplotlib).

plotly alone cannot write a PNG without a browser, which neither a server nor every laptop has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from introspection.evaluation.conditions import PAPER_CONDITIONS
from introspection.io.files import whole_file, write_text

MARK = "made by introspection_experiment.py"  # in both files, so that only ours are ever replaced
OURS, THEIRS = "#3b4cc0", "#b8bcc6"


@dataclass(frozen=True, slots=True)
class Bar:
    """One rate in percent with its 95 % interval (None where a paper gives none)."""

    label: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    ours: bool


def _bar(label: str, cell: dict[str, Any]) -> Bar:
    value = 100 * cell["successes"] / cell["n"]
    return Bar(label, value, 100 * cell["low"], 100 * cell["high"], cell["n"], True)


def generalization_bars(summary: dict[str, Any], published: dict[str, float]) -> list[Bar]:
    """Seen, unseen and untrained naming: the published figures, then ours from a paper suite."""
    bars = [
        Bar(f"{name}\n(published)", v, None, None, None, False) for name, v in published.items()
    ]
    conditions = summary["conditions"]
    return bars + [
        _bar(f"{label}\n(this run)", conditions[condition]["correct"])
        for label, condition in PAPER_CONDITIONS.items()
    ]


def plotly_bars(bars: Sequence[Bar], title: str, axis: str) -> go.Figure:
    """Plain traces only: the plotly.js that Gradio bundles is older than plotly.py's own."""
    figure = go.Figure(
        go.Bar(
            x=[bar.label.replace("\n", "<br>") for bar in bars],
            y=[bar.value for bar in bars],
            marker_color=[OURS if bar.ours else THEIRS for bar in bars],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [0 if bar.high is None else bar.high - bar.value for bar in bars],
                "arrayminus": [0 if bar.low is None else bar.value - bar.low for bar in bars],
            },
            text=[f"{bar.value:.1f} %" + (f"<br>n = {bar.n}" if bar.n else "") for bar in bars],
            textposition="auto",
        )
    )
    figure.update_layout(
        title=title, yaxis={"title": axis, "range": [0, 105]}, template="plotly_white", height=480
    )
    return figure


def save_bars(bars: Sequence[Bar], title: str, axis: str, path: Path) -> None:
    """Write ``path`` (PNG) and its HTML twin beside it, which needs no network to be read."""
    page = plotly_bars(bars, title, axis).to_html(include_plotlyjs=True)
    write_text(path.with_suffix(".html"), f"{page}\n<!-- {MARK} -->\n")
    figure = Figure(figsize=(9, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(bars))
    values = [bar.value for bar in bars]
    below = [0.0 if bar.low is None else bar.value - bar.low for bar in bars]
    above = [0.0 if bar.high is None else bar.high - bar.value for bar in bars]
    axes.bar(places, values, color=[OURS if bar.ours else THEIRS for bar in bars])
    axes.errorbar(places, values, yerr=[below, above], fmt="none", ecolor="#222222", capsize=4)
    for place, bar, up in zip(places, bars, above, strict=True):
        label = f"{bar.value:.1f} %" + (f"\nn = {bar.n}" if bar.n else "")
        axes.annotate(label, (place, bar.value + up + 1), ha="center", va="bottom", fontsize=9)
    axes.set_xticks(list(places), [bar.label for bar in bars])
    axes.set_ylim(0, 118)
    axes.set_ylabel(axis)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as scratch:
        figure.savefig(scratch, format="png", metadata={"Source": MARK})
