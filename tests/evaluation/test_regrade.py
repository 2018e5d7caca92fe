"""Records that are judged anew: what moves, what stays, and that it is the same bytes each time."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from introspection.__main__ import app
from introspection.errors import IntrospectionError
from introspection.evaluation.records.provenance import seal, sealed
from introspection.evaluation.records.record_files import as_bytes, key_of, load, moved, regraded
from introspection.evaluation.records.upgrade import upgraded

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "records").glob("*/*.jsonl.gz"))


@pytest.fixture(scope="module")
def some() -> list[dict[str, Any]]:
    records = load(ROOT / "records" / "paper" / "smollm2-135m.jsonl.gz")
    return [record for record in records if record["concept"]][:40]


@pytest.mark.slow  # grades 11,000 reports
def test_committed_records_say_what_todays_grading_says() -> None:
    assert len(COMMITTED) >= 3
    for path in COMMITTED:
        assert moved(load(path)) == [], path


def test_only_the_verdict_is_made_anew(some: list[dict[str, Any]], tmp_path: Path) -> None:
    """As a grader that cut names at their full stop would have left it."""
    text = "I detect an injected thought about St. Louis."
    fields = {"concept": "St. Louis", "vector": "concept", "text": text, "detected": True}
    old = {**some[0], **fields, "named": "St", "correct": False, "coherent": True}
    old = seal({**old, "key": key_of(old)})
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(as_bytes([old, *some[1:]], path))
    before = path.read_bytes()
    dry = CliRunner().invoke(app, ["regrade", "--dry-run", str(path)])
    assert dry.exit_code == 0 and "1 of 40 verdicts would move" in dry.output
    assert path.read_bytes() == before
    done = CliRunner().invoke(app, ["regrade", str(path)])
    assert done.exit_code == 0 and "1 of 40 verdicts moved" in done.output
    found = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert found == [seal({**old, "named": "St. Louis", "correct": True}), *some[1:]]
    again = path.read_bytes()
    CliRunner().invoke(app, ["regrade", str(path)])
    assert path.read_bytes() == again == as_bytes(found, path)


def test_what_was_edited_is_not_made_valid(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl.gz"
    records = load(ROOT / "records" / "paper" / "smollm2-135m.jsonl.gz")
    text = f"I detect an injected thought about {records[0]['concept']}."
    path.write_bytes(as_bytes([{**records[0], "text": text}, *records[1:]], path))
    before = path.read_bytes()
    result = CliRunner().invoke(app, ["regrade", str(path)])
    assert result.exit_code == 2 and "was edited or damaged" in result.stderr
    assert path.read_bytes() == before


def test_other_vectors_have_no_right_name(some: list[dict[str, Any]]) -> None:
    named = {**some[0], "concept": "ocean", "text": "I detect an injected thought about ocean."}
    assert regraded({**named, "vector": "concept"})["correct"]
    for vector in ("noise", "negated"):
        assert not regraded({**named, "vector": vector})["correct"]


def test_what_is_no_file_of_records_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "diary.jsonl"
    five = dict.fromkeys(("run", "concept", "text", "vector", "p_detect"), "x")
    for text in ('{"today": "rain"}\n', "dear diary\n", "", '{"schema": 1}', json.dumps(five)):
        path.write_text(text)
        result = CliRunner().invoke(app, ["regrade", str(path)])
        assert result.exit_code == 2 and path.read_text() == text, result.output


def test_records_of_an_older_version_get_todays_fields(tmp_path: Path) -> None:
    whole = load(ROOT / "records" / "smollm2-135m" / "quick-cpu.jsonl.gz")
    plain = ("run", "key", "condition", "concept", "category", "split", "harmful", "strength")
    plain += ("schedule", "question", "seed", "adapter", "vector", "text", "detected", "named")
    plain += ("correct", "halted", "halted_at", "tokens", "coherent", "p_detect")
    path, other = tmp_path / "old.jsonl", tmp_path / "other"
    old = [{k: r[k] for k in plain} for r in whole]
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    shutil.copytree(ROOT / "adapters" / "smollm2-135m", other)
    result = CliRunner().invoke(app, ["regrade", str(path), "--adapter", str(other)])
    assert result.exit_code == 0, result.output
    assert [r | {"check": ""} for r in load(path)] == [r | {"check": ""} for r in whole]
    alone = upgraded(old, None)
    assert all(map(sealed, alone)) and {r["time"] for r in alone} == {None}
    assert {r["weights"] for r in alone} == {r["trained"] for r in alone} == {None}
    with pytest.raises(IntrospectionError, match=r"not of the adapter in .*\.$"):
        upgraded([{**r, "run": "quick test 0 aaaa+bbbb"} for r in old], other)
