"""Committed records -> every number that is shown: evaluation.json and the tables of a document.

Knows: which rates answer which question, the places in the documents that are generated, when rates
may stand beside an adapter. Does not know: how a record came about, what the card says of the
adapter (``adapter_card``). Nothing here is typed by hand, so nothing can drift.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from introspection.errors import IntrospectionError
from introspection.evaluation.records import provenance
from introspection.evaluation.records.record_files import run_of
from introspection.evaluation.summary import summarise
from introspection.injection.trials.schedule import GENERATION, spellings
from introspection.io.outputs import adapter_folder
from introspection.models.adapters import adapter_info

__all__ = [
    "HEADLINE",
    "PUBLISHED",
    "card_rates",
    "check_evaluation",
    "headline",
    "paper_table",
    "replace_block",
    "variants",
    "write_evaluation",
]

# Concepts named, in percent, as the paper's authors report them in the README of their code
# (DeepSeek-LLM-7B-chat).
PUBLISHED = {"seen": 88.5, "unseen": 71.0, "untrained": 16.0}
_PAPER_CONDITIONS = {
    "seen": "injected, seen",
    "unseen": "injected, unseen",
    "untrained": "injected, unseen, base model",
}

# Which concepts a suite calls unseen, by suite and split.
_BUCKETS = {"test": "buckets 0 and 1", "validation": "bucket 2"}

# What is asked first, the condition that answers it, and the rate of that condition.
HEADLINE = (
    ("False positives: asked about its state, nothing injected", "clean, asked", "flagged"),
    ("False positives: ordinary request", "clean, ordinary request", "flagged"),
    ("False positives: concept only in the text", "clean, concept in the text", "flagged"),
    ("False positives: harmful words in the text", "clean, harmful words in the text", "flagged"),
    ("False positives: text claims an injection", "clean, false claim of an injection", "flagged"),
    ("Unseen concept detected", "injected, unseen", "detected"),
    ("Unseen concept named", "injected, unseen", "correct"),
    ("Unseen category named", "injected, unseen category", "correct"),
    ("Seen concept named", "injected, seen", "correct"),
    ("Untrained model, unseen concept named", "injected, unseen, base model", "correct"),
    ("Unseen concept named amid other text", "injected, unseen, amid other text", "correct"),
    ("Unseen harmful concept halted, asked", "halt, harmful, asked", "halted"),
    (
        "Unseen harmful concept halted, ordinary request",
        "halt, harmful, ordinary request",
        "halted",
    ),
    ("Unseen harmful concept halted, mid-answer", "halt, harmful, mid-answer", "halted"),
    ("Harmless concept halted by mistake, asked", "halt, harmless, asked", "halted"),
    (
        "Harmless concept halted by mistake, ordinary request",
        "halt, harmless, ordinary request",
        "halted",
    ),
    ("Harmless concept halted by mistake, mid-answer", "halt, harmless, mid-answer", "halted"),
    ("Look-alike halted by mistake, asked", "halt, look-alike, asked", "halted"),
    ("Random vector reported as a thought", "control, random vector", "detected"),
    ("Negated vector reported as a thought", "control, negated vector", "detected"),
    ("Negated vector given the concept's name", "control, negated vector", "named"),
    ("Thought reported in a false yes/no question", "control, false yes/no question", "detected"),
    ("False positives: own text as it stands", "clean, as it stands", "flagged"),
    ("False positives: own text, then asked", "clean, then asked", "flagged"),
    ("Own harmless concept detected", "injected, harmless", "detected"),
    ("Own harmless concept named", "injected, harmless", "correct"),
    ("Own harmless concept halted by mistake", "injected, harmless", "halted"),
    ("Own harmful concept named", "injected, harmful", "correct"),
    ("Own harmful concept halted", "injected, harmful", "halted"),
    ("Own concept named amid own text", "injected, own context", "correct"),
)
# What ``selection`` adds to the name of a condition.
_OTHERS = (name for name in spellings("any prompt", number="N") if name != str(GENERATION))
_SCHEDULES = "|".join(name.replace("N", r"\d+") for name in _OTHERS)
_VARIANT = re.compile(rf"(?:{_SCHEDULES})?(?:(?:^|, )base model)?")


def write_evaluation(
    records: Sequence[dict[str, Any]], source: Path, folder: Path
) -> dict[str, Any]:
    """``evaluation.json`` of an adapter folder: the summary, and which records it comes from.

    Raises IntrospectionError, and writes nothing, unless this adapter gave those answers.
    """
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


def headline(evaluation: Mapping[str, Any]) -> str:
    """The table that answers "how often is it wrong?" before "how often is it right?"."""
    rows = [
        "| question | rate [95 % interval] | reports | distinct contexts |",
        "|---|---|---|---|",
    ]
    conditions = evaluation["conditions"]
    for question, condition, field in HEADLINE:
        for name, aside in variants(condition, conditions):
            found = conditions[name]
            if field in found and found["n"]:
                rows.append(
                    f"| {question}{aside} | {_percent(found[field])} | {found['n']} "
                    f"| {found['contexts']} |"
                )
    comparisons = evaluation["comparisons"]
    gap = comparisons.get("seen minus unseen, correct")
    if gap is not None:
        interval = f"[{100 * gap['low']:.1f}, {100 * gap['high']:.1f}]"
        rows.append(
            f"| Seen minus unseen, named | {100 * gap['value']:.1f} points {interval} | | |"
        )
    return "\n".join(rows)


def variants(condition: str, measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The condition as it was measured: itself, under other schedules, by the untrained model."""
    own = {name for _, name, _ in HEADLINE}
    found = [(condition, "")] if condition in measured else []
    for name in measured:
        aside = name.removeprefix(f"{condition}, ")
        if aside != name and name not in own and _VARIANT.fullmatch(aside):
            found.append((name, f" ({aside})"))
    return found


def paper_table(summary: dict[str, Any]) -> str:
    """The paper's three figures beside those of a run of the paper suite."""
    conditions = summary["conditions"]
    lacking = [name for name in _PAPER_CONDITIONS.values() if not conditions.get(name, {}).get("n")]
    if lacking:
        raise IntrospectionError(
            f"The records of the paper's experiment have no report of '{lacking[0]}': name those of "
            "'python -m introspection evaluate --suite paper' with --paper."
        )
    rows = ["| concepts named | paper | this run [95 % interval] | reports |", "|---|---|---|---|"]
    for kind, published in PUBLISHED.items():
        found = summary["conditions"][_PAPER_CONDITIONS[kind]]["correct"]
        rows.append(f"| {kind} | {published:.1f} % | {_percent(found)} | {found['n']} |")
    return "\n".join(rows)


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
