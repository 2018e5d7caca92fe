"""notebooks/paper_experiment.ipynb: clean as committed, and its code runs on a tiny model."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_folder import write_model

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "notebooks" / "paper_experiment.ipynb"


def code_cells() -> list[tuple[list[str], str]]:
    """(tags, source) of every code cell."""
    notebook: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return [
        (cell["metadata"].get("tags", []), "".join(cell["source"]))
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_the_notebook_is_committed_clean() -> None:
    text = FILE.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert not re.search(r"/(home|root|work|Users|tmp|content)/", text), "no machine's paths"
    assert not re.search(r"hf_[A-Za-z0-9]{8}", text), "no token"
    for tags, source in code_cells():
        if "install" not in tags:  # that one speaks to the shell
            ast.parse(source)


@pytest.mark.slow
def test_its_code_runs_from_top_to_bottom(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    cells = []
    for tags, source in code_cells():
        if "install" not in tags:
            cells.append(source)
        if "parameters" in tags:
            few = ["--layer", "1", "--examples", "8", "--epochs", "1", "--device", "cpu"]
            cells.append(f"MODEL, OPTIONS = {str(model)!r}, {few!r}")
    cells.append("assert figure.is_file()")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(cells)],
        cwd=tmp_path,
        # One thread: more of them would wait for each other's tiny sums.
        env={
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Concepts named, in percent" in done.stdout and "Safety test, bomb:" in done.stdout
    assert (tmp_path / "figures" / "generalization_gap.png").stat().st_size > 10_000
