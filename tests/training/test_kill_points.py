"""A training that is killed wherever it writes, and what is started after it.

The kill is real: a forked process ends at once, as by SIGKILL, before a file is opened, renamed, made
or removed, or half way through a checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

from tests.support.small_training import contents, train_small
from tests.support.tiny_folder import write_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_catalogue")]

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
KILLED = 9
ROOT = Path(__file__).resolve().parents[2]


def _watched(folder: Path, tell: Callable[[str], None]) -> None:
    """Call ``tell`` before every change of a file below ``folder``, for the rest of this process."""

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            changes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set("wax+") & set(mode)
        else:
            path, changes = (args or ("",))[0], event in CHANGES
        if not changes or not isinstance(path, str | os.PathLike):
            return
        if str(folder) in os.fspath(path) and not (event == "os.mkdir" and Path(path).is_dir()):
            where = Path(args[1]) if event == "os.rename" else Path(path)
            tell(f"{event} {where.name}")

    serialise = safetensors.torch.serialize_file

    def half(tensors: object, path: Path, metadata: object) -> None:
        tell(f"before {path.name}")
        serialise(tensors, path, metadata)
        os.truncate(path, path.stat().st_size // 2)
        tell(f"half {path.name}")
        serialise(tensors, path, metadata)

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


def chosen(events: list[str], every: bool) -> list[int]:
    """Changes to be killed at. A few: before each file of the run appears, after the answers, half way
    through a checkpoint, before the adapter's weights and before its folder appears. Or every one but
    those of most checkpoints: the first two stay, the one after the first line of the log, the last."""
    saves = [i for i, event in enumerate(events) if event == "os.rename checkpoint.safetensors"]
    halves = [i for i, event in enumerate(events) if event.startswith("half")]
    assert len(saves) == len(halves) == 12 and len(events) - saves[11] > 5, events
    if not every:
        names = ("config.json", "log.jsonl", "adapter_model.safetensors", "adapter")
        renamed = [events.index(f"os.rename {name}") for name in names]
        answered = events.index("os.rename replies.json") + 1
        return [i + 1 for i in (*renamed, answered, saves[0], halves[1], saves[11])]
    kept = [*range(saves[1] + 1), *range(saves[8] + 1, saves[9] + 1)]
    return [i + 1 for i in (*kept, *range(saves[10] + 1, len(events)))]


@pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["a few", "every"]
)
def test_killed_at_a_change_and_started_again(
    every: bool, whole: dict[str, dict[str, dict[str, bytes]]], tmp_path: Path
) -> None:
    (tmp_path / "points").mkdir()
    for point in chosen(in_a_fork(tmp_path / "points", None), every):
        folder = tmp_path / str(point)
        folder.mkdir()
        events = in_a_fork(folder, point)
        names = [*COMMANDS] * 2
        for command in names[point % 3 :][:3]:
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


def command(model: Path, folder: Path, *more: object) -> list[str]:
    words = ["train", "--model", model, "--device", "cpu", "--rank", 4, "--batch-size", 4, *more]
    words += ["--out", folder / "adapter", "--run", folder / "run"]
    return [sys.executable, "-m", "introspection", *map(str, words)]


def started(words: list[str], hash_seed: int) -> subprocess.Popen[bytes]:
    """Another process, in which sets of names have another order."""
    variables = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, env=variables, stdout=pipe, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen[bytes]) -> None:
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said[-2000:]


def test_a_process_that_is_killed_ends_with_the_bytes_of_one_that_is_not(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    recipe = ("--recipe", "paper", "--examples", 160, "--epochs", 2)
    folder = tmp_path / "killed"
    whole = started(command(model, tmp_path / "whole", *recipe), 1)
    log = folder / "run" / "log.jsonl"
    process = started(command(model, folder, *recipe), 2)
    while not (log.exists() and log.stat().st_size > 9):
        assert process.poll() is None, process.communicate()[0][-2000:]
        time.sleep(0.02)
    process.kill()
    process.communicate()
    ended(started(command(model, folder, *recipe), 3))
    ended(whole)
    assert contents(folder / "adapter") == contents(tmp_path / "whole" / "adapter")
    assert contents(folder / "run") == contents(tmp_path / "whole" / "run")
