"""Record the answers of the safety net.

    python -m tests.safety_net.record trials|api|commands [--again]

Answers the cases of the file that have no answer yet; ``--again`` replaces those that have one. A case
whose text hangs on two nearly equal logits may read otherwise on another processor: it is dropped. A
case may say with ``close`` what it calls nearly equal: 0 where the text is no part of the answer.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.safety_net import api, entry
from tests.safety_net.commands import Commands
from tests.safety_net.data import load, masked, rounded, save
from tests.support.tab import free_port

CLOSE = 0.02  # in logits
Found = Iterator[tuple[dict[str, Any], Any, float]]  # case, answer, smallest gap


def trials(cases: list[dict[str, Any]], _tmp: Path) -> Found:
    loaded = entry.default_model()
    for batch in dict.fromkeys(case["batch"] for case in cases):
        rows = [case for case in cases if case["batch"] == batch]
        way, tokens = batch.split()[0], rows[0]["tokens"]
        answers = entry.answered(loaded, way, rows, tokens)
        yield from zip(rows, answers, entry.gaps(loaded, way, rows, tokens), strict=True)


def calls(cases: list[dict[str, Any]], tmp: Path) -> Found:
    page = entry.page(tmp, free_port())
    try:
        for case in cases:
            with entry.watched() as gaps:
                answer = masked(api.called(page.local_url.rstrip("/"), case), tmp)
            yield case, answer, min(gaps, default=float("inf"))
    finally:
        page.close(verbose=False)


def commands(cases: list[dict[str, Any]], tmp: Path) -> Found:
    run = Commands(tmp)
    for case in cases:
        with entry.watched() as gaps:
            answer = run.answer(case["id"])
        yield case, answer, min(gaps, default=float("inf"))


def main(name: str, again: bool) -> str:
    file = f"{name}.json"
    cases = load(file)
    wanted = [case for case in cases if again or "answer" not in case]
    if not wanted:
        return f"Every case of {file} has its answer: add --again to record them anew."
    work = {"trials": trials, "api": calls, "commands": commands}[name]
    close = []
    with tempfile.TemporaryDirectory() as tmp:
        for case, answer, gap in work(wanted, Path(tmp)):
            case["answer"] = rounded(answer)
            if gap <= case.get("close", CLOSE):
                close.append(case["id"])
    save(file, [case for case in cases if case["id"] not in close])
    return f"{len(wanted)} cases of {file} answered, {len(close)} dropped as too close: {close}"


if __name__ == "__main__":
    arguments = [arg for arg in sys.argv[1:] if arg != "--again"]
    if len(arguments) != 1 or arguments[0] not in ("trials", "api", "commands"):
        sys.exit(str(__doc__))
    sys.stdout.write(main(arguments[0], "--again" in sys.argv) + "\n")
