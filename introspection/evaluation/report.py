"""Records -> every number that is shown: evaluation.json and the generated tables of a document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from introspection.errors import IntrospectionError
from introspection.evaluation.conditions import PAPER_CONDITIONS
from introspection.evaluation.records import provenance
from introspection.evaluation.records.record_files import run_of
from introspection.evaluation.summary import measured_rows, summarise
from introspection.io.outputs import adapter_folder
from introspection.models.adapters import adapter_info

# Concepts named, in percent, as the paper's authors report them in the README of their code
# (DeepSeek-LLM-7B-chat).
PUBLISHED = {"seen": 88.5, "unseen": 71.0, "untrained": 16.0}
# Which concepts a suite calls unseen, by suite and split.
_BUCKETS = {"test": "buckets 0 and 1", "validation": "bucket 2"}


def write_evaluation(
    records: Sequence[dict[str, Any]], source: Path, folder: Path
) -> dict[str, Any]:
    """Write ``evaluation.json`` of an adapter folder: the summary, and which records it comes from.
    Raises IntrospectionError, and writes nothing, unless this adapter gave those answers."""
    adapter_info.read_info(folder)
    of_run = run_of(records)
    remedy = "name the adapter that they belong to with --adapter, or " + provenance.MEASURE
    provenance.check(of_run, folder, f"What {source} holds", remedy)
    document = provenance.seal(
        {
            "schema": provenance.SCHEMA,
            "records": source.name,
            "run": of_run["run"],
            "provenance": of_run,
            **summarise(records),
        }
    )
    adapter_folder.write_file(folder, "evaluation.json", json.dumps(document, indent=1) + "\n")
    return document


def check_evaluation(document: Mapping[str, Any], folder: Path) -> None:
    """Raise IntrospectionError unless an ``evaluation.json`` is whole and of this folder's adapter."""
    what = "The adapter's evaluation.json"
    if not isinstance(document.get("provenance"), dict):
        raise IntrospectionError(
            f"{what} does not say which adapter it measured (an earlier version wrote it): "
            f"{provenance.MEASURE}."
        )
    if not provenance.sealed(document):
        raise IntrospectionError(
            f"{what} was edited or damaged (its checksum does not fit): {provenance.MEASURE}."
        )
    provenance.check(document["provenance"], folder, what)


def _percent(cell: dict[str, Any]) -> str:
    value = 100 * cell["successes"] / cell["n"]
    return f"{value:.1f} % [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, without a line break at its end. Cells are printed as they are."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def headline(evaluation: Mapping[str, Any]) -> str:
    """The table that answers "how often is it wrong?" before "how often is it right?"."""
    conditions, rows = evaluation["conditions"], []
    for row in measured_rows(conditions):
        measured = conditions[row.name]
        if row.metric in measured and measured["n"]:
            rate = _percent(measured[row.metric])
            rows.append((row.question, rate, measured["n"], measured["contexts"]))
    table = markdown_table(
        ("question", "rate [95 % interval]", "reports", "distinct contexts"), rows
    )
    gap = evaluation["comparisons"].get("seen minus unseen, correct")
    if gap is None:
        return table
    interval = f"[{100 * gap['low']:.1f}, {100 * gap['high']:.1f}]"
    return f"{table}\n| Seen minus unseen, named | {100 * gap['value']:.1f} points {interval} | | |"


def paper_table(summary: dict[str, Any]) -> str:
    """The paper's three figures beside those of a run of the paper suite."""
    conditions = summary["conditions"]
    lacking = [name for name in PAPER_CONDITIONS.values() if not conditions.get(name, {}).get("n")]
    if lacking:
        raise IntrospectionError(
            f"The records of the paper's experiment have no report of '{lacking[0]}': name those of "
            "'python -m introspection evaluate --suite paper' with --paper."
        )
    rows = []
    for kind, published in PUBLISHED.items():
        cell = conditions[PAPER_CONDITIONS[kind]]["correct"]
        rows.append((kind, f"{published:.1f} %", _percent(cell), cell["n"]))
    return markdown_table(("concepts named", "paper", "this run [95 % interval]", "reports"), rows)


def card_rates(evaluation: Mapping[str, Any]) -> str:
    """What the card of an adapter says of its rates: the headline table and where it comes from."""
    run = evaluation["provenance"]
    split = run["options"].get("split", "test")
    unseen = {
        "paper": "Seen and unseen concepts are the paper's own 40 and 20",
        "own": "The concepts and contexts are those of an own list",
    }.get(
        run["suite"],
        f"Unseen concepts are those whose name hashes into {_BUCKETS[split]}; of unseen categories "
        "training saw no concept",
    )
    return (
        f"{headline(evaluation)}\n\nEvery rate comes from the records `{evaluation['records']}` "
        f"(suite {run['suite']}, greedy decoding, vectors read under the sentence "
        f"`{run['template']}`). {unseen}."
    )


def replace_block(text: str, name: str, content: str) -> str:
    """Put ``content`` between ``<!-- name:start -->`` and ``<!-- name:end -->``."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise IntrospectionError(f"There is no place for '{name}': add {start} and {end}.")
    block = f"{start}\n{content}\n{end}"
    if "\r\n" in text:  # as its other lines end
        block = block.replace("\n", "\r\n")
    return pattern.sub(lambda _: block, text)
