"""The newest record of every benchmark, one per kind of device, as a Markdown table: printed, or
written between the marks of a document with ``--readme``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDS
from introspection.evaluation.report import replace_block
from introspection.io.files import write_text


def newest() -> list[dict[str, Any]]:
    found = {}
    for path in sorted(RECORDS.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            # How often it was measured, and from which folder, makes no other benchmark of it.
            command = re.sub(r" --(rounds|few-rounds|tokenizer) \S+", "", record["command"])
            options = command.split(" ", 3)[3:]
            found[record["name"], record["model"], record["machine"]["device"], *options] = record
    return list(found.values())


def cells(record: dict[str, Any], check: dict[str, Any]) -> list[str]:
    machine, spread = record["machine"], check["spread"]
    value = f"{spread['median']:.3g} {check['unit']}"
    if spread["n"] > 1:
        value += f" ({spread['low95']:.3g} to {spread['high95']:.3g}, n = {spread['n']})"
    met = {None: "", True: "met", False: "**missed**"}[check["met"]]
    where = machine["device"]
    if where == "cpu":
        where = f"{machine['processor']}, {machine['threads']} threads"
    return [
        f"`{record['command'].removeprefix('python -m benchmarks.')}`",
        check["what"],
        value,
        check["bar"] or "",
        met,
        f"{record['model']}, {where}",
        record["date"][:10],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", type=Path, help="document with a block named benchmarks")
    options = parser.parse_args()
    head = ["benchmark", "what", "median (95 % interval)", "bar", "", "where", "date"]
    rows = [head, ["---"] * len(head)]
    rows += [cells(record, check) for record in newest() for check in record["checks"]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if options.readme is None:
        print(table)
    else:
        text = options.readme.read_text(encoding="utf-8")
        write_text(options.readme, replace_block(text, "benchmarks", table))


if __name__ == "__main__":
    main()
