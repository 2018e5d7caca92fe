"""Whatever --out, --run, --model and the current folder are: nothing that is somebody's ever changes.

Every combination gets a world of its own. The whole of it is hashed before and after: contents,
modes, targets of links, kinds of files.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from introspection.io.outputs import manifest
from introspection.models.adapters import adapter_info
from tests.support.command import run as invoke
from tests.support.tiny_folder import write_adapter, write_model

pytestmark = pytest.mark.slow

TRAINING = ("--recipe", "paper", "--examples", "8", "--epochs", "1", "--batch-size", "4")
TRAINING += ("--device", "cpu")
RUN_FILES = ("config.json", "log.jsonl", "checkpoint.safetensors", "replies.json")
LONG = "n" * 300

# Places, from the current folder on, by what has to become of them as --out of a training.
NEW = (
    "new", "new/a/b", "empty", "to_empty", "to_empty/inside", "adapters/three", "notes/new",
    "na\u00efve \u65e5\u672c", "new\nline", "./new/", "empty/../fresh", "~/fresh", "-dash", "n" * 250,
)  # fmt: skip
OURS = ("adapters/one", "mine", "to_mine", "adapters/../mine")
REFUSED = (
    "notes", "adapters", "models", "models/llama", "models/llama/new", "to_model", "to_model/new",
    "to_notes", "to_adapters", "to_file", "to_pipe", "dangling", "dangling/new", "loop", "file.txt",
    "file.txt/new", "pipe", "socket", "device", "to_device", ".", "..", "../..", "", "/", "~", "~/",
    "~nobody_of_that_name/x", "edited", "extended", "linked", "foreign", "hidden", LONG,
    f"new/{LONG}", "\0", "records", "run", "/proc/new", "/dev/null", "../cwd", "../home",
)  # fmt: skip
RUNS = (
    *("run", "new_run", "empty_run", "~/run", "new_run/deeper"),
    *("notes", "models/llama", "mine", ".", "", "pipe", "dangling", "to_file", "adapters/one"),
    *("mine/run", "new/run", "adapters", "foreign", "records", "empty"),
)
GOOD_RUNS = RUNS[:5]
FOLDERS = ("cwd", "cwd/models/llama", "cwd/mine", "home")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What there is besides: other people's files, and some of ours."""
    root = tmp_path_factory.mktemp("template")
    home, cwd = root / "home", root / "cwd"
    for folder in ("notes/deep", "adapters", "empty", "empty_run", "foreign", "hidden", "models"):
        (cwd / folder).mkdir(parents=True)
    home.mkdir()
    for path in (home / ".profile", cwd / "file.txt", cwd / "notes/thesis.txt", cwd / "hidden/.x"):
        path.write_text(f"years of work on {path.name}\n")
    (cwd / "notes/deep/data.jsonl").write_text('{"step": 1}\n')
    for name in ("introspection.json", "config.json", "README.md", "records.jsonl", "log.jsonl"):
        (cwd / "foreign" / name).write_text('{"schema": 1, "files": {}}\n')
    model = write_model(cwd / "models/llama")
    one = write_adapter(cwd / "adapters/one", model)
    for name in ("adapters/two", "mine", "edited", "extended", "linked"):
        shutil.copytree(one, cwd / name)
    (cwd / "mine/letter.txt").write_text("dear\n")
    (cwd / "mine/deep").mkdir()
    (cwd / "mine/deep/adapter_config.json").write_text("{}")
    shutil.copy(cwd / "file.txt", cwd / "extended/README.md")  # written by hand, never by us
    with (cwd / "edited" / manifest.CONFIG).open("a") as file:
        file.write("\n")
    (cwd / "linked" / manifest.VECTORS).rename(cwd / "vectors")
    (cwd / "linked" / manifest.VECTORS).symlink_to("../vectors")
    (cwd / "records").mkdir()
    (cwd / "records/records.jsonl").write_text('{"run": "x", "key": "y", "condition": "z"}\n')
    done = invoke("train", "--model", model, *TRAINING, "--out", root / "x", "--run", cwd / "run")
    assert done.exit_code == 0, done.output
    shutil.rmtree(root / "x")
    return root


def world(template: Path, root: Path) -> Path:
    shutil.copytree(template, root, symlinks=True)
    cwd = root / "cwd"
    links = {"to_notes": "notes", "to_mine": "mine", "to_empty": "empty", "to_file": "file.txt"}
    links |= {"to_model": "models/llama", "to_pipe": "pipe", "to_adapters": "adapters"}
    links |= {"dangling": "nothing/there", "loop": "loop", "to_device": "device"}
    for name, target in links.items():
        (cwd / name).symlink_to(target)
    os.mkfifo(cwd / "pipe")
    with socket.socket(socket.AF_UNIX) as there:
        before = Path.cwd()
        os.chdir(cwd)  # such a name may not be long
        there.bind("socket")
        os.chdir(before)
    try:
        os.mknod(cwd / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        (cwd / "device").symlink_to("/dev/null")
    return cwd


def snapshot(root: Path) -> dict[str, str]:
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        told = oct(status.st_mode)
        if stat.S_ISREG(status.st_mode):
            told += hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            told += str(path.readlink())
        found[str(path.relative_to(root))] = told
    return found


def check(root: Path, before: dict[str, str], result: Any, owned: tuple[Path, ...]) -> None:
    """``owned``: the files of ours that a command which ended well may have replaced."""
    after = snapshot(root)
    changed = {name for name, told in before.items() if after.get(name) != told}
    if result.exit_code == 0:
        changed -= {str(path.resolve().relative_to(root.resolve())) for path in owned}
    else:
        lines = result.stderr.splitlines()
        assert result.exit_code == 2, (result.output, result.exception)
        assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith(".")
        assert lines[0].isprintable() and "Traceback" not in lines[0] and len(lines[0]) < 800
        assert after.keys() == before.keys(), "a refusal left something"
    assert not changed
    assert not [name for name in after if ".introspection-scratch" in name]


def combinations(count: int) -> Iterator[tuple[str, str, str, str, int]]:
    """(out, run, model, current folder, number); the first ones go through all the places."""
    rng = random.Random(19)
    outs = [*NEW, *OURS, *REFUSED]
    for number in range(count):
        out = outs[number % len(outs)]
        # Once with all else in order, so that it is the place alone which decides.
        plain = number < len(outs)
        run = "run" if plain else rng.choice((*RUNS, *GOOD_RUNS))
        model = "absolute" if plain else rng.choice(("absolute", "relative", "link", "dot"))
        folder = "cwd" if plain else rng.choice((*FOLDERS, "cwd", "cwd"))
        yield out, run, model, folder, number


def spelled(place: str, cwd: Path, number: int) -> str:
    """Absolute or relative to wherever the command runs; ``~`` and names of no place as they are."""
    if place.startswith(("~", "/")) or not place or place == "\0":
        return place
    if number % 2 and not place.startswith("."):
        return str(cwd / place)
    return os.path.relpath(cwd) + "/" + place if Path.cwd() != cwd and number % 3 else place


@pytest.mark.parametrize("count", [100, pytest.param(600, marks=pytest.mark.soak)])
def test_train(count: int, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = {0: 0, 2: 0}
    for out, run, model, folder, number in combinations(count):
        root = tmp_path / str(number)
        cwd = world(template, root)
        monkeypatch.setenv("HOME", str(root / "home"))
        monkeypatch.chdir(root / folder)
        llama = cwd / "models/llama"
        models = {
            "absolute": str(llama),
            "relative": os.path.relpath(llama),
            "link": str(cwd / "to_model"),
            "dot": "." if folder.endswith("llama") else os.path.relpath(llama) + "/.",
        }
        typed = spelled(out, cwd, number), spelled(run, cwd, number // 2)
        before = snapshot(root)
        # In one word, as no shell replaces a ~ there.
        places = (f"--out={typed[0]}", f"--run={typed[1]}")
        result = invoke("train", "--model", models[model], *TRAINING, *places)
        target, steps = (Path(os.path.expanduser(path)) for path in typed)
        owned = ()
        if result.exit_code == 0:
            owned = tuple(target / name for name in manifest.FILES)
            owned += tuple(steps / name for name in RUN_FILES)
            adapter_info.read_info(target)
        check(root, before, result, owned)
        if number < len((*NEW, *OURS, *REFUSED)):
            assert (result.exit_code == 2) == (out in REFUSED), (out, result.output)
        ended[result.exit_code] += 1
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(root)
    assert ended[0] > 20 and ended[2] > 40, ended


def test_extract(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = ("v.safetensors", "notes/v", "to_notes/v", "~/v", "-v", "n" * 250, "ours", "to_ours")
    bad = (
        *("no/v", "mine/vectors.safetensors", "mine/README.md", "adapters/one/evaluation.json"),
        *("models/llama/v", "models/llama/model.safetensors", "vectors.txt", "weights"),
        "file.txt/v",
        *(name for name in (*REFUSED, "empty", "mine") if name not in ("\0", "new/" + LONG)),
    )
    for number, out in enumerate((*good, *bad, *good)):
        root = tmp_path / str(number)
        cwd = world(template, root)
        shutil.copy(cwd / "vectors", cwd / "ours")
        (cwd / "to_ours").symlink_to("ours")
        shutil.copy(cwd / "mine" / manifest.WEIGHTS, cwd / "weights")
        (cwd / "vectors.txt").write_text("ocean 1 2 3\n")
        monkeypatch.setenv("HOME", str(root / "home"))
        monkeypatch.chdir(cwd)
        before = snapshot(root)
        typed = spelled(out, cwd, number)
        model = ("--model", cwd / "models/llama", "--device", "cpu")
        result = invoke("extract", "ocean", *model, f"--out={typed}")
        check(root, before, result, (cwd / "ours",) if out in ("ours", "to_ours") else ())
        assert (result.exit_code == 0) == (out in good), (out, result.output)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(root)


def test_evaluate(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = ("new", "empty", "to_empty", "~/new", "notes/new", "new/a", "earlier")
    bad = (
        *("records", "broken", "summary", "piped", "mine", "adapters/one", "run"),
        *(name for name in REFUSED if name != "\0"),
    )
    (tmp_path / "contexts").write_text("Good morning to you all.\n")
    common = ("evaluate", "--contexts", tmp_path / "contexts", "--device", "cpu")
    for number, out in enumerate((*good, *bad)):
        root = tmp_path / str(number)
        cwd = world(template, root)
        own = (*common, "--model", cwd / "models/llama", "--adapter", cwd / "adapters/one")
        monkeypatch.setenv("HOME", str(root / "home"))
        monkeypatch.chdir(cwd)
        if out == "earlier":
            assert invoke(*own, "--out", "earlier").exit_code == 0
            (cwd / "earlier/records.old.jsonl").write_text("kept by hand\n")
        for name, file, text in (
            ("broken", "records.jsonl", "ideas, not JSON\n"),
            ("summary", "summary.json", '{"my": "summary"}'),
            ("piped", "records.0.jsonl", ""),
        ):
            (cwd / name).mkdir()
            (cwd / name / file).write_text(text)
        shutil.copy(cwd / "records/records.jsonl", cwd / "summary")
        (cwd / "piped/records.0.jsonl").unlink()
        os.mkfifo(cwd / "piped/records.0.jsonl")
        before = snapshot(root)
        result = invoke(*own, f"--out={spelled(out, cwd, number)}")
        owned = tuple(cwd / "earlier" / name for name in ("records.jsonl", "summary.json"))
        check(root, before, result, owned)
        assert (result.exit_code == 0) == (out in good), (out, result.output)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(root)
