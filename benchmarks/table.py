"""The newest record of every benchmark, one per kind of device, as Markdown tables.

``python -m benchmarks.table`` writes ``RESULTS.md``, which holds every value. With ``--readme FILE`` it
also writes a short table between the marks of the block ``speed`` in a document: the values of
``HIGHLIGHTS``, and every value that missed its bar.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDS
from introspection.evaluation.report import markdown_table, replace_block
from introspection.io.files import write_text

RESULTS = RECORDS.parent / "RESULTS.md"
# The benchmark and the value of each row of the short table, and what a reader is told of it.
HIGHLIGHTS = {
    ("extraction", "gain"): "vectors of 60 concepts, against the paper's script",
    ("injection", "injection adds, 32 rows"): "time that injection adds to a generation of 32 rows",
    ("training", "gain over the script's loop"): "training, against the paper's script",
    ("comparison", "32 tokens, 32 rows, nnsight over ours"): "32 injected rows, against nnsight",
    ("seven_b", "the paper's experiment"): "the paper's whole experiment",
    ("two_gpus", "gain of two in training"): "training on two GPUs, against one",
}
_TITLE = """# Results

The newest record of every benchmark, options, model and device in `records/`, written by
`python -m benchmarks.table`. README.md beside this file says what each benchmark measures and how to
read an interval. A bar is what was promised; a missed one stays here until a newer record meets it.

"""


def _newest() -> dict[tuple[str, ...], dict[str, Any]]:
    """(name, options) of a benchmark, its model and device -> the last record of it."""
    newest = {}
    for path in sorted(RECORDS.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            # How often it was measured, and from which folder, makes no other benchmark of it.
            command = re.sub(r" --(rounds|few-rounds|tokenizer) \S+", "", record["command"])
            options = command.split(" ", 3)[3:]
            device = record["machine"]["device"]
            newest[path.stem, record["model"], device, *options] = record
    return newest


def _checks() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(name of the benchmark, its record, one of the values of that record)."""
    for (name, *_), record in _newest().items():
        for check in record["checks"]:
            yield name, record, check


def _value(check: dict[str, Any]) -> str:
    spread = check["spread"]
    value = f"{spread['median']:.3g} {check['unit']}"
    if spread["n"] > 1:
        value += f" ({spread['low95']:.3g} to {spread['high95']:.3g}, n = {spread['n']})"
    return value


def _verdict(check: dict[str, Any]) -> str:
    return {None: "", True: "met", False: "**missed**"}[check["met"]]


def _where(record: dict[str, Any]) -> str:
    machine = record["machine"]
    if machine["device"] == "cpu":
        return f"{record['model']}, {machine['processor']}, {machine['threads']} threads"
    return f"{record['model']}, {machine['device']}"


def full_table() -> str:
    """Every value of the newest records, with command, bar, machine and date."""
    head = ("benchmark", "what", "median (95 % interval)", "bar", "", "where", "date")
    rows = []
    for name, record, check in _checks():
        command = " ".join([name, *record["command"].split(" ")[3:]])
        cells = (f"`{command}`", check["what"], _value(check), check["bar"] or "")
        rows.append((*cells, _verdict(check), _where(record), record["date"][:10]))
    return markdown_table(head, rows)


def short_table() -> str:
    """The values of ``HIGHLIGHTS`` in its order, then all others that missed their bar."""
    head = ("what", "median (95 % interval)", "bar", "", "where")
    checks = list(_checks())
    last = {(name, check["what"]): i for i, (name, _, check) in enumerate(checks)}
    chosen = [last[key] for key in HIGHLIGHTS]
    missed = [i for i, (*_, check) in enumerate(checks) if check["met"] is False]
    rows = []
    for i in dict.fromkeys((*chosen, *missed)):
        name, record, check = checks[i]
        what = HIGHLIGHTS.get((name, check["what"]), check["what"])
        rows.append((what, _value(check), check["bar"] or "", _verdict(check), _where(record)))
    return markdown_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--readme", type=Path, help="document with a block named speed")
    options = parser.parse_args()
    write_text(RESULTS, f"{_TITLE}{full_table()}\n")
    if options.readme is not None:
        text = options.readme.read_text(encoding="utf-8")
        write_text(options.readme, replace_block(text, "speed", short_table()))


if __name__ == "__main__":
    main()
