"""Records that are judged anew: what moves, what stays, and that it is the same bytes each time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from introspection.__main__ import app
from introspection.regrade import GRADED, graded, moved, records_bytes
from introspection.report import read_records

COMMITTED = sorted((Path(__file__).parent.parent / "records").glob("*/*.jsonl.gz"))


def record(
    text: str, concept: str | None, vector: str = "concept", **fields: Any
) -> dict[str, Any]:
    found = {"condition": "x", "concept": concept, "vector": vector, "text": text, "tokens": 9}
    return found | dict.fromkeys(GRADED) | fields


def test_committed_records_say_what_todays_grading_says() -> None:
    assert COMMITTED
    for path in COMMITTED:
        assert moved(read_records(path)) == [], path


def test_only_the_verdict_is_made_anew(tmp_path: Path) -> None:
    report = "I detect an injected thought about St. Louis."
    old = record(report, "St. Louis", detected=True, named="St", correct=False, coherent=True)
    same = record("Hello there.", None) | graded(record("Hello there.", None))
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(records_bytes([old, same], path))
    before = path.read_bytes()
    dry = CliRunner().invoke(app, ["regrade", "--dry-run", str(path)])
    assert dry.exit_code == 0 and "1 of 2 records would move" in dry.output
    assert path.read_bytes() == before
    done = CliRunner().invoke(app, ["regrade", str(path)])
    assert done.exit_code == 0 and "1 of 2 records moved" in done.output
    found = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert found == [old | {"named": "St. Louis", "correct": True}, same]
    again = path.read_bytes()
    CliRunner().invoke(app, ["regrade", str(path)])
    assert path.read_bytes() == again


def test_other_vectors_have_no_right_name() -> None:
    text = "I detect an injected thought about ocean."
    assert graded(record(text, "ocean"))["correct"]
    for vector in ("noise", "negated"):
        assert not graded(record(text, "ocean", vector))["correct"]
