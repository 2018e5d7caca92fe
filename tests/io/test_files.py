"""Folders and files that are whole or not there, whoever else writes them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from introspection.io.files import atomic_folder
from introspection.models.presets import model_folder
from introspection.models.weights import gguf


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for text in ("old", "new"):
        with atomic_folder(target) as folder:
            (folder / "file").write_text(text)
    with pytest.raises(KeyError), atomic_folder(target) as folder:
        (folder / "file").write_text("broken")
        raise KeyError
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_two_that_write_one_folder_both_end(tmp_path: Path) -> None:
    def write(name: str, target: Path, gate: threading.Barrier) -> None:
        with atomic_folder(target) as folder:
            (folder / "file").write_text(name)
            gate.wait(10)  # both rename at the same moment

    with ThreadPoolExecutor(2) as pool:
        for number in range(60):
            target, gate = tmp_path / f"target{number}", threading.Barrier(2)
            for job in [pool.submit(write, name, target, gate) for name in ("one", "two")]:
                job.result()
            assert (target / "file").read_text() in ("one", "two")
    assert len(list(tmp_path.iterdir())) == 60


def test_of_two_that_need_the_model_one_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were both to fetch it, the second would put the first's aside while that is being read."""
    fetched: list[Path] = []

    def fetch(target: Path, *_: object) -> None:
        fetched.append(target)
        time.sleep(0.3)
        with atomic_folder(target) as folder:
            (folder / "complete.json").write_text("{}")

    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path))
    monkeypatch.setattr(gguf, "_fetch", fetch)
    with ThreadPoolExecutor(2) as pool:
        found = [job.result() for job in [pool.submit(model_folder) for _ in range(2)]]
    assert len(fetched) == 1 and found == fetched * 2
