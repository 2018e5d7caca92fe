"""No number of a document is typed: the commands that write them change nothing that is committed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import table
from introspection.__main__ import app

pytestmark = pytest.mark.slow  # reads every committed record

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = "adapters/smollm2-135m"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the documents are made from and the documents, with every rate in them blanked."""
    shutil.copytree(ROOT / "records", tmp_path / "records")
    shutil.copytree(ROOT / ADAPTER, tmp_path / ADAPTER)
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blanked(path: Path, *blocks: str) -> None:
    text = path.read_text(encoding="utf-8")
    for name in blocks:
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        text = text[: text.index(start)] + start + "\n" + text[text.index(end) :]
    path.write_text(text, encoding="utf-8")


def test_rates_come_from_the_committed_records(copy: Path) -> None:
    blanked(copy / "README.md", "results", "paper")
    assert (copy / "README.md").read_bytes() != (ROOT / "README.md").read_bytes()
    result = CliRunner().invoke(app, ["report", "--readme", "README.md"])
    assert result.exit_code == 0, result.output
    for name in ("README.md", *(f"{ADAPTER}/{p.name}" for p in (ROOT / ADAPTER).iterdir())):
        assert (copy / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_speeds_come_from_the_committed_records(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blanked(copy / "README.md", "speed")
    monkeypatch.setattr("sys.argv", ["table", "--readme", str(copy / "README.md")])
    monkeypatch.setattr(table, "RESULTS", copy / "RESULTS.md")
    table.main()
    assert (copy / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
    assert (copy / "RESULTS.md").read_bytes() == (ROOT / "benchmarks/RESULTS.md").read_bytes()


def test_short_table_shows_every_missed_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a highlight that another device, measured later, met."""
    line = (
        (ROOT / "benchmarks/records/injection.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    )
    for path in (ROOT / "benchmarks/records").glob("*.jsonl"):
        shutil.copy(path, tmp_path / path.name)
    slow, fast = json.loads(line), json.loads(line)
    slow["machine"]["device"], fast["machine"]["device"] = "slow", "fast"
    for check in slow["checks"]:
        check["met"] = False
    with (tmp_path / "injection.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(slow)}\n{json.dumps(fast)}\n")
    before = table.short_table().count("**missed**")
    monkeypatch.setattr(table, "RECORDS", tmp_path)
    after = table.short_table()
    assert after.count("**missed**") == before + len(slow["checks"])
    assert len(after.splitlines()) == 2 + len(table.HIGHLIGHTS) + before + len(slow["checks"])
