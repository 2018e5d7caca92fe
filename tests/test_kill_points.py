"""A training that is killed wherever it writes, and what is started after it.

The kill is real: a forked process ends at once, as by SIGKILL, before a file is opened, renamed, made
or removed, or half way through a checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from small_training import contents, small_catalogue, train_small

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_catalogue")]

__all__ = ["small_catalogue"]  # a fixture

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
KILLED = 9


def _watched(folder: Path, tell: Callable[[str], None]) -> None:
    """Call ``tell`` before every change of a file below ``folder``, for the rest of this process."""

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            changes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set("wax+") & set(mode)
        else:
            path, changes = (args or ("",))[0], event in CHANGES
        if changes and isinstance(path, str | os.PathLike) and str(folder) in os.fspath(path):
            where = Path(args[1]) if event == "os.rename" else Path(path)
            tell(f"{event} {where.name}")

    serialise = safetensors.torch.serialize_file

    def half(tensors: object, path: Path, metadata: object) -> None:
        tell(f"before {path.name}")
        serialise(tensors, path, metadata)
        data = path.read_bytes()
        os.truncate(path, len(data) // 2)  # told of by the hook, before it is done
        tell(f"half {path.name}")
        with open(os.open(path, os.O_WRONLY), "wb") as file:
            file.write(data)

    safetensors.torch.serialize_file = half
    sys.addaudithook(hook)


def in_a_fork(folder: Path, point: int | None) -> list[str]:
    """Train in a process of its own, which ends at the given change; all changes up to there."""
    said = folder.parent / f"{folder.name}.events"
    child = os.fork()
    if child == 0:
        try:
            with said.open("w") as events:
                counted = 0

                def tell(what: str) -> None:
                    nonlocal counted
                    events.write(what + "\n")
                    events.flush()
                    counted += 1
                    if counted == point:
                        os._exit(KILLED)

                _watched(folder, tell)
                train_small(folder)
                os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (0 if point is None else KILLED)
    return said.read_text().splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, bytes]]]:
    """Adapter and run folder of each command when nobody interrupts it."""
    found = {}
    for name, options in COMMANDS.items():
        folder = tmp_path_factory.mktemp("whole")
        run = train_small(folder, **options)
        assert run == folder / "run"
        found[name] = {"adapter": contents(folder / "adapter"), "run": contents(run)}
    adapters = [tuple(sorted(parts["adapter"].items())) for parts in found.values()]
    assert len(set(adapters)) == 3
    return found


COMMANDS = {"same": {}, "another seed": {"seed": 1}, "another model": {"model": 1}}
ORDERS = (
    ("same", "another seed", "another model"),
    ("another seed", "another model", "same"),
    ("another model", "same", "another seed"),
)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Every change but those of checkpoints in the middle of the run."""
    events = in_a_fork(tmp_path_factory.mktemp("points"), None)
    saves = [i for i, event in enumerate(events) if event == "os.rename checkpoint.safetensors"]
    assert len(saves) == 12
    first, last = saves[1], saves[-2]
    chosen = [*range(first + 1), *range(last + 1, len(events))]
    told = [events[i] for i in chosen]
    for name in ("config.json", "replies.json", "log.jsonl", "checkpoint.safetensors"):
        assert f"os.rename {name}" in told, told
    assert sum(event.startswith("half") for event in told) >= 3 and len(told) >= 25, told
    assert len(events) - last > 10, "the adapter's own files"
    return [i + 1 for i in chosen]


def test_killed_at_every_change_and_started_again(
    points: list[int],
    whole: dict[str, dict[str, dict[str, bytes]]],
    tmp_path: Path,
) -> None:
    for point in points:
        folder = tmp_path / str(point)
        folder.mkdir()
        events = in_a_fork(folder, point)
        for command in ORDERS[point % 3]:
            run = train_small(folder, **COMMANDS[command])
            where = (point, events[-1], command)
            assert contents(folder / "adapter") == whole[command]["adapter"], where
            kept = contents(run)
            for name, data in whole[command]["run"].items():
                assert kept[name] == data, (*where, name)
        # All three runs are there, each whole, and none has a file of another.
        runs = {path.parent for path in (folder / "run").rglob("config.json")}
        digests = {json.loads((run / "config.json").read_text())["run"] for run in runs}
        assert len(runs) == len(digests) == 3
