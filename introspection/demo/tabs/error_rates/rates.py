"""The measured error rates of an adapter, read from its ``evaluation.json``, and what they amount to.

No number stands in this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from introspection.demo.engine.demo_model import DemoModel
from introspection.errors import IntrospectionError
from introspection.evaluation.conditions import CLEAN, GROUPS, HALTS, Group, parse
from introspection.evaluation.records.provenance import MEASURE
from introspection.evaluation.report import check_evaluation
from introspection.evaluation.summary import measured_rows

LARGEST = 4_000_000  # bytes of evaluation.json


@dataclass(frozen=True, slots=True)
class Row:
    """One measured rate: the question it answers, where it stands, k of n, its 95 % interval."""

    question: str
    condition: str
    rate: str
    group: Group
    successes: int
    n: int
    low: float
    high: float
    contexts: int

    @property
    def trained(self) -> bool:
        """Whether the adapter answered, and not the untrained model beside it."""
        variant = parse(self.condition)
        return variant is not None and variant.adapter

    @property
    def counts_misses(self) -> bool:
        """Whether the answers that are no success are to be counted beside it."""
        return self.group is HALTS

    @property
    def percent(self) -> float:
        """The rate in percent."""
        return 100 * self.successes / self.n


def evaluation(model: DemoModel) -> dict[str, Any]:
    """The adapter's ``evaluation.json``. Raises IntrospectionError when there is none to show: missing,
    damaged, edited by hand, or measured with another adapter."""
    folder = model.loaded.adapter_folder
    if folder is None:
        raise IntrospectionError("No adapter is loaded, so there is nothing to measure: load one.")
    path = folder / "evaluation.json"
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise IntrospectionError(
                f"The adapter's evaluation.json is too large to read: {MEASURE}."
            )
        record = json.loads(data)
        check_evaluation(record, folder)
        if not rows(record):
            raise IntrospectionError(
                f"The adapter's evaluation.json holds no such rates: {MEASURE}."
            )
    except FileNotFoundError:
        raise IntrospectionError(f"This adapter comes without measured rates: {MEASURE}.") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise IntrospectionError(
            f"The adapter's evaluation.json cannot be read: {MEASURE}."
        ) from None
    return dict(record)


def rows(record: Mapping[str, Any]) -> tuple[Row, ...]:
    """The headline rates that were measured, in the order of the page. Raises if one is unsound."""
    conditions, measured = record["conditions"], []
    for row in measured_rows(conditions):
        if row.metric not in conditions[row.name]:
            continue
        cell = conditions[row.name][row.metric]
        k, n, contexts = cell["successes"], cell["n"], cell.get("contexts", 0)
        if any(type(count) is not int for count in (k, n, contexts)):
            raise ValueError("counts are whole numbers")
        if not n:
            continue
        low, high = cell["low"], cell["high"]
        if not (0 <= k <= n and contexts >= 0 and 0 <= low <= high <= 1):  # NaN fails too
            raise ValueError("not a rate with its interval")
        measured.append(
            Row(row.question, row.name, row.metric, row.group, k, n, low, high, contexts)
        )
    return tuple(sorted(measured, key=lambda row: GROUPS.index(row.group)))


def percent_range(values: Sequence[float]) -> str:
    """One share, or the least and the most of several, in percent."""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def false_alarms(record: Mapping[str, Any]) -> list[float]:
    """In how many percent of answers, by kind of question, it reports a thought that is not there."""
    return [row.percent for row in rows(record) if row.group is CLEAN and row.trained]


def missed_halts(record: Mapping[str, Any]) -> list[float]:
    """For how many percent of unseen harmful concepts, by situation, it writes on."""
    return [100 - row.percent for row in rows(record) if row.group is HALTS and row.trained]


def headline(record: Mapping[str, Any]) -> str:
    """One sentence that answers the question of the tab, from the numbers."""
    false, missed = false_alarms(record), missed_halts(record)
    unseen = {
        row.rate: percent_range([100 - row.percent])
        for row in rows(record)
        if row.condition == "injected, unseen"
    }
    verbs = {"detected": "overlooks", "correct": "fails to name"}
    failed = [f"{verb} {unseen[rate]}" for rate, verb in verbs.items() if rate in unseen]
    parts = []
    if false:
        kinds = ", depending on what it is asked" if len(false) > 1 else ""
        parts.append(
            f"with nothing injected it raises a false alarm in {percent_range(false)} of answers{kinds}"
        )
    if failed:
        parts.append(
            f"it {' and '.join(failed)} of injected concepts that it never saw in training"
        )
    if missed:
        parts.append(f"it does not halt for {percent_range(missed)} of unseen harmful concepts")
    sentence = "; ".join(parts) or "the record does not say"
    return f"{sentence[0].upper()}{sentence[1:]}."


def training_is_apart(record: Mapping[str, Any]) -> bool:
    """Whether the suite's concepts, questions and sentences are known to be none of training's."""
    made_by = record["provenance"]
    return made_by.get("suite") in ("quick", "full") and "template" not in (
        made_by.get("options") or {}
    )
