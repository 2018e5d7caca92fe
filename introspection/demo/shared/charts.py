"""What the figures of the page have in common."""

from __future__ import annotations

import plotly.graph_objects as go

INK, GRID = "#64748b", "rgba(100,116,139,.25)"


def plain_figure(*traces: object) -> go.Figure:
    """Traces on the page's own ground."""
    return plain_layout(go.Figure(list(traces)))


def plain_layout(figure: go.Figure) -> go.Figure:
    """The figure itself, on the page's own ground, in a colour that reads on light and dark."""
    figure.update_layout(
        height=340,
        margin={"l": 55, "r": 15, "t": 50, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    return figure
