"""The tab with the measured error rates of the adapter that is loaded.

Knows: ``evaluation.json`` and how its rates become a table. Does not know: how they were measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from introspection.demo.experiment import Experiment
from introspection.errors import IntrospectionError
from introspection.report import HEADLINE

__all__ = ["add", "evaluation", "headline", "table"]

TITLE = '<h2 class="tab-title">How often is it wrong?</h2>'
LARGEST = 4_000_000  # bytes of evaluation.json
HOW = (
    "run 'python -m introspection evaluate --suite full' and then 'python -m introspection report' "
    "for this adapter"
)


def evaluation(experiment: Experiment) -> dict[str, Any]:
    """The adapter's ``evaluation.json``. Raises IntrospectionError when there is none to show."""
    folder = experiment.loaded.adapter_folder
    if folder is None:
        raise IntrospectionError("No adapter is loaded, so there is nothing to measure: load one.")
    path = folder / "evaluation.json"
    try:
        if path.stat().st_size > LARGEST:
            raise IntrospectionError(f"The adapter's evaluation.json is too large to read: {HOW}.")
        found = json.loads(path.read_text(encoding="utf-8"))
        for cell in _cells(found).values():
            float(cell["successes"]) / float(cell["n"]) + float(cell["low"]) + float(cell["high"])
    except FileNotFoundError:
        raise IntrospectionError(f"This adapter comes without measured rates: {HOW}.") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        raise IntrospectionError(f"The adapter's evaluation.json cannot be read: {HOW}.") from None
    return dict(found)


def _cells(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rates of the headline questions that were measured, by question."""
    conditions = found["conditions"]
    return {
        question: conditions[condition][rate]
        for question, condition, rate in HEADLINE
        if condition in conditions and conditions[condition][rate]["n"]
    }


def _share(cell: Mapping[str, Any]) -> float:
    return 100 * float(cell["successes"]) / float(cell["n"])


def headline(found: Mapping[str, Any]) -> str:
    """One sentence that answers the question of the tab, from the numbers."""
    cells = _cells(found)
    false = [_share(c) for q, c in cells.items() if q.startswith("False positives")]
    parts = []
    if false:
        parts.append(
            f"With nothing injected it raises a false alarm in {min(false):.1f} to {max(false):.1f} % "
            "of answers, depending on what it is asked"
        )
    named = cells.get("Unseen concept named")
    if named:
        parts.append(
            f"it fails to name {100 - _share(named):.1f} % of injected concepts that it never saw "
            "in training"
        )
    halted = cells.get("Unseen harmful concept halted, asked")
    if halted:
        parts.append(f"it misses the halt for {100 - _share(halted):.1f} % of unseen harmful ones")
    return "; ".join(parts) + "."


def table(found: Mapping[str, Any]) -> str:
    """Every headline rate with its interval, false positives first, a bar in each row."""
    rows = []
    for question, cell in _cells(found).items():
        value, low, high = _share(cell), 100 * float(cell["low"]), 100 * float(cell["high"])
        bar = (
            f'<span class="rate" aria-hidden="true" style="--v:{value:.2f}%;--l:{low:.2f}%;'
            f'--h:{high:.2f}%"></span>'
        )
        rows.append(
            f'<tr><th scope="row">{escape(question)}</th><td class="number">{value:.1f} %</td>'
            f'<td class="number">{low:.1f} to {high:.1f}</td>'
            f'<td class="number">{int(cell["successes"])} of {int(cell["n"])}</td><td>{bar}</td></tr>'
        )
    heads = ("Question", "Rate", "95 % interval", "Answers", "0 to 100 %")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    caption = "Measured error rates, false positives first"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="lines"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def add(experiment: Experiment) -> None:
    """The tab's components; call it inside ``gr.Tab``."""
    try:
        found = evaluation(experiment)
    except IntrospectionError as error:
        gr.HTML(f'{TITLE}<p class="reading">{escape(str(error))}</p>')
        return
    source = escape(str(found.get("records", "evaluation.json")))
    gr.HTML(
        f'{TITLE}<p class="lead">{escape(headline(found))}'
        '</p><p class="reading">Test concepts, question wordings and the template under which the '
        "vectors are read were never trained on. Fixed rules grade every answer. Wilson intervals; "
        f"every number is read from the adapter’s own evaluation.json, made from {source}.</p>"
    )
    gr.HTML(table(found), elem_id="evidence-table")
