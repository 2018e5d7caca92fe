"""Records -> rates per condition, each with n, distinct contexts and a 95 % interval, and comparisons.
The unit of analysis is the concept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from introspection.concepts.catalogue import resolve
from introspection.evaluation import conditions
from introspection.evaluation.conditions import CLEAN, misfiled
from introspection.evaluation.grading.grade import grade
from introspection.evaluation.statistics import auroc, difference, rate

Record = Mapping[str, Any]


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Rates per condition, and the comparisons that the README quotes. Pure: records in, rates out."""
    groups: dict[str, list[Record]] = {}
    excluded: Counter[str] = Counter()
    for record in records:
        group = groups.setdefault(record["condition"], [])
        if misfiled(record):
            excluded[record["condition"]] += 1
        else:
            group.append(record)
    measured = {}
    for condition, group in groups.items():
        contexts = [record["question"] for record in group]
        rates = {
            field: asdict(rate([r[field] for r in group], contexts))
            for field in ("detected", "correct", "halted", "coherent")
        }
        rates["named"] = asdict(rate(map(_names_it, group), contexts))
        delays = sorted(
            r["halted_at"] - int(r["schedule"].split(":")[1])
            for r in group
            if r["halted_at"] and r["schedule"].startswith("from_step")
        )
        measured[condition] = {
            "n": len(group),
            "concepts": len({r["concept"] for r in group} - {None}),
            "contexts": len(set(contexts)),
            "excluded": excluded[condition],
            **rates,
            "flagged": asdict(rate(map(_is_flagged, group), contexts)),
            "median_tokens_to_halt": delays[len(delays) // 2] if delays else None,
        }
    return {"conditions": measured, "comparisons": _comparisons(groups)}


def _is_flagged(record: Record) -> bool:
    return bool(record["detected"] or record["halted"])


def _names_it(record: Record) -> bool:
    """Whether the report names the concept whose vector, or its negative, was used, even if it is not
    the right answer."""
    if record["concept"] is None or record["named"] is None:
        return False
    return grade(record["text"], resolve(record["concept"])).correct


def _comparisons(groups: dict[str, list[Record]]) -> dict[str, Any]:
    comparisons: dict[str, Any] = {}
    seen, unseen = groups.get("injected, seen"), groups.get("injected, unseen")
    if seen and unseen:
        for field in ("detected", "correct"):
            pair = [rate([r[field] for r in group]) for group in (seen, unseen)]
            comparisons[f"seen minus unseen, {field}"] = asdict(difference(*pair))
    clean = [
        r
        for condition, group in groups.items()
        if (variant := conditions.parse(condition))
        and variant.condition.group is CLEAN
        and variant.adapter
        for r in group
    ]
    if clean:
        false_positives = rate(map(_is_flagged, clean), [r["question"] for r in clean])
        comparisons["false positives, all clean contexts"] = asdict(false_positives)
    asked = groups.get("clean, asked")
    if unseen and asked:
        scores = ([r["p_detect"] for r in g if r["p_detect"] is not None] for g in (unseen, asked))
        comparisons["auroc of p_detect, unseen against clean asked"] = auroc(*scores)
    return comparisons


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """A row of the headline table as it was measured: ``name`` is the condition's in the summary;
    ``variant``, another schedule or the base model, is empty for the condition itself."""

    question: str
    name: str
    variant: str
    metric: str
    group: conditions.Group


def measured_rows(measured: Mapping[str, Any]) -> Iterator[MeasuredRow]:
    """The rows of the headline table that the conditions of a summary answer, in their order: of every
    condition itself, then of its variants."""
    variants = {name: conditions.parse(name) for name in measured}
    for condition in conditions.CONDITIONS:
        names = [n for n, v in variants.items() if v and v.condition is condition]
        for row in condition.rows:
            group = row.group or condition.group
            for name in sorted(names, key=lambda name: name != condition.name):
                variant = name.removeprefix(condition.name).removeprefix(", ")
                question = f"{row.question} ({variant})" if variant else row.question
                yield MeasuredRow(question, name, variant, row.metric, group)


def table(summary: dict[str, Any]) -> list[str]:
    """The summary as lines of text: one per condition, percent with the 95 % interval."""

    def percent(cell: dict[str, Any]) -> str:
        if not cell["n"]:
            return "-"
        value = 100 * cell["successes"] / cell["n"]
        return f"{value:5.1f} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"

    width = max([42, *(len(condition) + 2 for condition in summary["conditions"])])
    head = f"{'condition':{width}}{'n':>6}{'contexts':>10}  "
    lines = [f"{head}{'detected %':22}{'correct %':22}halted %"]
    for condition, measured in summary["conditions"].items():
        cells = [f"{percent(measured[field]):20}" for field in ("detected", "correct", "halted")]
        counts = f"{measured['n']:>6}{measured['contexts']:>10}"
        lines.append(f"{condition:{width}}{counts}  {'  '.join(cells)}")
    for name, value in summary["comparisons"].items():
        if isinstance(value, float):
            lines.append(f"{name}: {value:.4f}")
        elif "n" in value:
            lines.append(f"{name}: {percent(value).strip()} % of {value['n']}")
        else:
            low, high = 100 * value["low"], 100 * value["high"]
            lines.append(f"{name}: {100 * value['value']:.1f} points [{low:.1f}, {high:.1f}]")
    return lines
