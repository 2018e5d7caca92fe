"""Two processes under ``accelerate launch`` give what one gives: the same adapter, the same records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.command import run
from tests.support.tiny_folder import write_model

pytestmark = pytest.mark.slow  # starts processes that import torch anew

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
LAUNCH += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")


def start(processes: int, *args: object) -> str:
    """What the command says: alone in this process, with another in two of their own."""
    words = list(map(str, args))
    if processes == 1:
        told = run(*words)
        assert told.exit_code == 0, told.output
        return told.stdout
    done = subprocess.run(
        [sys.executable, "-m", *LAUNCH, "--module", "introspection", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[int, Path]:
    """Adapter folders of our recipe (with replayed answers of the base model)."""
    folder = tmp_path_factory.mktemp("trained")
    common = ["--model", model, "--device", "auto", "--examples", 64, "--epochs", 2]
    common += ["--batch-size", 7, "--rank", 4, "--learning-rate", 0.01]
    for processes in (1, 2):
        out, run = folder / f"adapter-{processes}", folder / f"run-{processes}"
        start(processes, "train", *common, "--out", out, "--run", run)
    return {processes: folder / f"adapter-{processes}" for processes in (1, 2)}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_adapter_is_the_same(trained: dict[int, Path]) -> None:
    one, two = (load_file(trained[n] / "adapter_model.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    assert any(float(tensor.float().abs().max()) > 0.01 for n, tensor in one.items() if "_B" in n)
    for name, tensor in one.items():
        assert torch.allclose(tensor.float(), two[name].float(), atol=2e-3), name
    logs = [lines(trained[n].parent / f"run-{n}" / "log.jsonl") for n in (1, 2)]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    for a, b in zip(*logs, strict=True):
        assert abs(a["loss"] - b["loss"]) < 1e-3 * a["loss"]


def test_the_records_are_the_same(tmp_path: Path, model: Path, trained: dict[int, Path]) -> None:
    words, texts = tmp_path / "words.txt", tmp_path / "texts.txt"
    words.write_text("ocean\nbomb\tweapons\tharmful\nsalt\nwinter\nhammer\n")
    texts.write_text("One.\nTwo.\nThree.\n")
    shared = ["evaluate", "--model", model, "--adapter", trained[1], "--batch-size", 3]
    shared += ["--concepts", words, "--contexts", texts]
    for processes in (1, 2):
        said = start(processes, *shared, "--out", tmp_path / str(processes))
        assert said.count("Records and summary are in") == 1  # one process speaks
    one, two = ({r["key"]: r for r in lines(tmp_path / str(n) / "records.jsonl")} for n in (1, 2))
    assert len(one) == 19 and one.keys() == two.keys()
    for key, record in one.items():
        other = two[key]
        score, again = record.pop("p_detect"), other.pop("p_detect")
        assert score == again or abs(score - again) < 1e-5
        for field in ("time", "check"):
            assert record.pop(field) and other.pop(field)
        assert record == other
    assert not list((tmp_path / "2").glob("records.*.jsonl"))
    summaries = [json.loads((tmp_path / str(n) / "summary.json").read_text()) for n in (1, 2)]
    for summary in summaries:
        assert summary.pop("check") and summary["provenance"].pop("records_check")
        assert summary["provenance"].pop("started") <= summary["provenance"].pop("ended")
    assert summaries[0] == summaries[1]

    # What a kill left of one process is kept by the next start, whatever its number of processes.
    whole = (tmp_path / "2" / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "2" / "records.jsonl").write_text("".join(whole[:4]))
    (tmp_path / "2" / "records.1.jsonl").write_text("".join(whole[4:9]) + whole[9][:20])
    start(1, *shared, "--out", tmp_path / "2")
    kept = (tmp_path / "2" / "records.jsonl").read_text().splitlines(keepends=True)
    assert set(whole[:9]) <= set(kept) and len(kept) == 19
    assert not list((tmp_path / "2").glob("records.*.jsonl"))
