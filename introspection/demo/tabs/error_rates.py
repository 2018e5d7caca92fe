"""The tab with the measured error rates of the adapter that is loaded.

Knows: ``evaluation.json`` and how its rates become a sentence, a table and a figure. Does not know:
how they were measured. No number stands in this file; every string of the record is escaped.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import plotly.graph_objects as go

from introspection.demo.engine.experiment import DemoModel
from introspection.demo.tabs.many.figures import GRID, INK, plain_figure
from introspection.errors import IntrospectionError
from introspection.evaluation.conditions import BASE
from introspection.evaluation.records.provenance import MEASURE
from introspection.evaluation.report import HEADLINE, check_evaluation, variants

__all__ = ["Row", "add", "evaluation", "figure", "headline", "link", "rows", "table"]

LARGEST = 4_000_000  # bytes of evaluation.json
LONGEST = 200  # characters shown of the record's name and of the run's
HOW = MEASURE
TITLE = '<h2 class="tab-title">How often is it wrong?</h2>'
CAPTION = "Measured rates, false positives first"
# (how the condition begins, heading of its rows, colour of its bars), in the order of the page.
GROUPS = (
    ("clean", "False positives: nothing was injected. Lower is better.", "#dc2626"),
    (
        "injected",
        "Hits: a concept was injected. Higher is better; the untrained model for comparison.",
        "#6366f1",
    ),
    ("halt, harmful", "Halts on harmful concepts: the rest are missed halts.", "#0d9488"),
    ("halt", "False halts: the concept is harmless. Lower is better.", "#d97706"),
    ("", "Controls: other disturbances, and a question whose right answer is no.", "#64748b"),
)
CLEAN, HARMFUL = 0, 2  # places in GROUPS


@dataclass(frozen=True, slots=True)
class Row:
    """One measured rate: the question it answers, where it stands, k of n, its 95 % interval."""

    question: str
    condition: str
    rate: str
    group: int
    successes: int
    n: int
    low: float
    high: float
    contexts: int

    @property
    def trained(self) -> bool:
        """Whether the adapter answered, and not the untrained model beside it."""
        return not self.condition.endswith(BASE)

    @property
    def percent(self) -> float:
        return 100 * self.successes / self.n


def evaluation(experiment: DemoModel) -> dict[str, Any]:
    """The adapter's ``evaluation.json``. Raises IntrospectionError when there is none to show: missing,
    damaged, edited by hand, or measured with another adapter."""
    folder = experiment.loaded.adapter_folder
    if folder is None:
        raise IntrospectionError("No adapter is loaded, so there is nothing to measure: load one.")
    path = folder / "evaluation.json"
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise IntrospectionError(f"The adapter's evaluation.json is too large to read: {HOW}.")
        found = json.loads(data)
        check_evaluation(found, folder)
        if not rows(found):
            raise IntrospectionError(f"The adapter's evaluation.json holds no such rates: {HOW}.")
    except FileNotFoundError:
        raise IntrospectionError(f"This adapter comes without measured rates: {HOW}.") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise IntrospectionError(f"The adapter's evaluation.json cannot be read: {HOW}.") from None
    return dict(found)


def rows(found: Mapping[str, Any]) -> tuple[Row, ...]:
    """The headline rates that were measured, in the order of the page. Raises if one is unsound."""
    conditions, measured = found["conditions"], []
    asked = (
        (f"{question}{aside}", name, rate)
        for question, condition, rate in HEADLINE
        for name, aside in variants(condition, conditions)
    )
    for question, condition, rate in asked:
        if rate not in conditions[condition]:
            continue
        cell = conditions[condition][rate]
        k, n, contexts = cell["successes"], cell["n"], cell.get("contexts", 0)
        if any(type(count) is not int for count in (k, n, contexts)):
            raise ValueError("counts are whole numbers")
        if not n:
            continue
        low, high = cell["low"], cell["high"]
        if not (0 <= k <= n and contexts >= 0 and 0 <= low <= high <= 1):  # NaN fails too
            raise ValueError("not a rate with its interval")
        # Of an own word list: whether it halts is no hit.
        halt = rate == "halted" and condition.startswith("injected, harm")
        kind = condition.replace("injected", "halt", 1) if halt else condition
        group = next(i for i, (start, *_) in enumerate(GROUPS) if kind.startswith(start))
        measured.append(Row(question, condition, rate, group, k, n, low, high, contexts))
    return tuple(sorted(measured, key=lambda row: row.group))


def _range(values: Sequence[float]) -> str:
    """One share, or the least and the most of several, in percent."""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def false_alarms(found: Mapping[str, Any]) -> list[float]:
    """In how many percent of answers, by kind of question, it reports a thought that is not there."""
    return [row.percent for row in rows(found) if row.group == CLEAN and row.trained]


def missed_halts(found: Mapping[str, Any]) -> list[float]:
    """For how many percent of unseen harmful concepts, by situation, it writes on."""
    return [100 - row.percent for row in rows(found) if row.group == HARMFUL and row.trained]


def headline(found: Mapping[str, Any]) -> str:
    """One sentence that answers the question of the tab, from the numbers."""
    false, missed = false_alarms(found), missed_halts(found)
    unseen = {
        row.rate: _range([100 - row.percent])
        for row in rows(found)
        if row.condition == "injected, unseen"
    }
    verbs = {"detected": "overlooks", "correct": "fails to name"}
    failed = [f"{verb} {unseen[rate]}" for rate, verb in verbs.items() if rate in unseen]
    parts = []
    if false:
        kinds = ", depending on what it is asked" if len(false) > 1 else ""
        parts.append(
            f"with nothing injected it raises a false alarm in {_range(false)} of answers{kinds}"
        )
    if failed:
        parts.append(
            f"it {' and '.join(failed)} of injected concepts that it never saw in training"
        )
    if missed:
        parts.append(f"it does not halt for {_range(missed)} of unseen harmful concepts")
    said = "; ".join(parts) or "the record does not say"
    return f"{said[0].upper()}{said[1:]}."


def _line(row: Row) -> str:
    low, high = 100 * row.low, 100 * row.high
    bar = (
        f'<span class="rate" aria-hidden="true" style="--v:{row.percent:.2f}%;--l:{low:.2f}%;'
        f'--h:{high:.2f}%"></span>'
    )
    missed = ""
    if row.group == HARMFUL:
        missed = f'<span class="missed">{row.n - row.successes:,} missed</span>'
    return (
        f'<tr><th scope="row">{escape(row.question)}</th>'
        f'<td class="number">{row.percent:.1f} %</td>'
        f'<td class="number">{low:.1f} to {high:.1f} %</td>'
        f'<td class="number">{row.successes:,} of {row.n:,}{missed}</td>'
        f'<td class="number">{f"{row.contexts:,}" if row.contexts else "–"}</td><td>{bar}</td></tr>'
    )


def table(found: Mapping[str, Any]) -> str:
    """Every headline rate with its interval, false positives first, a bar in each row."""
    heads = ("Situation", "Rate", "95 % interval", "Answers", "Distinct texts", "0 to 100 %")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    measured, bodies = rows(found), []
    for group, (_, heading, _) in enumerate(GROUPS):
        lines = "".join(_line(row) for row in measured if row.group == group)
        if lines:
            bodies.append(
                f'<tbody><tr><th scope="rowgroup" colspan="{len(heads)}">{escape(heading)}</th></tr>'
                f"{lines}</tbody>"
            )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{CAPTION}">'
        f'<table class="lines"><caption>{CAPTION}</caption><thead><tr>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def figure(found: Mapping[str, Any]) -> go.Figure:
    """The same rates as bars with their intervals; ``evidence.css`` gives the text its colour."""
    measured = rows(found)
    bars = go.Bar(
        x=[row.percent for row in measured],
        y=["<br>".join(textwrap.wrap(row.question, 26)) for row in measured],
        orientation="h",
        marker={"color": [GROUPS[row.group][2] for row in measured]},
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


def _source(found: Mapping[str, Any]) -> str:
    """Which record and which run the numbers come from."""
    record, run = (escape(str(found.get(key, "not named"))[:LONGEST]) for key in ("records", "run"))
    return (
        f'<p class="reading source">Source: the adapter’s own evaluation.json, made from the record '
        f"<code>{record}</code>, run <code>{run}</code>. Fixed rules grade every answer; the intervals "
        "are Wilson’s. <em>Distinct texts</em> says how many different prompts are behind a rate: "
        f"the same prompt over and over would prove little.{_unseen(found)}</p>"
    )


def _unseen(found: Mapping[str, Any]) -> str:
    """What of the suite training never saw."""
    made_by = found.get("provenance")
    made_by = made_by if isinstance(made_by, dict) else {}
    options = made_by.get("options") or {}
    if made_by.get("suite") not in ("quick", "full") or "template" in options:
        return ""
    return (
        " In this suite the concepts called unseen, the wordings of the questions and the sentence "
        "that vectors are read from are not those of training."
    )


def link(experiment: DemoModel) -> gr.Button | None:
    """The way to the tab from everywhere on the page, which a narrow screen hides in a menu. Says the
    rates of false alarms and of missed halts, if they were measured."""
    try:
        found = evaluation(experiment)
    except IntrospectionError:
        return None
    rates = {"False alarms": false_alarms(found), "Missed halts": missed_halts(found)}
    said = [
        f"{name}: {_range(values)}.".replace(" ", "\N{NO-BREAK SPACE}")
        for name, values in rates.items()
        if values
    ]
    return gr.Button(" ".join(["How often is it wrong?", *said]), size="sm", elem_id="how-wrong")


def add(experiment: DemoModel) -> None:
    """The tab's components; call it inside ``gr.Tab``."""
    try:
        found = evaluation(experiment)
    except IntrospectionError as error:
        gr.HTML(f'{TITLE}<p class="reading">{escape(str(error))}</p>', elem_id="evidence")
        return
    whose = ""
    if experiment.offered:
        name = escape(experiment.loaded.adapter_name)
        whose = (
            f'<p class="reading">Measured with the first adapter on offer, <code>{name}</code>.</p>'
        )
    gr.HTML(f'{TITLE}<p class="lead">{escape(headline(found))}</p>{whose}', elem_id="evidence")
    gr.HTML(table(found), elem_id="evidence-table")
    gr.HTML(_source(found), elem_id="evidence-source")
    gr.Plot(figure(found), label="Figure; the table above says the same", elem_id="evidence-figure")
