"""Where is written, how, with which rights, and what is said when a disk refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from introspection.cli import train as making
from introspection.errors import IntrospectionError
from introspection.evaluation import plots, report
from introspection.hub import transfer
from introspection.injection.vectors import load_vectors, save_vectors
from introspection.io.files import SCRATCH, sha256_file, write_text
from introspection.io.outputs import adapter_folder, manifest, targets
from introspection.io.outputs.ownership import RUN_LOCK
from introspection.io.tensor_file import write_tensors
from introspection.models import local_paths
from introspection.models.adapters import adapter_info
from tests.support.command import one_sentence, refused, run
from tests.support.fake_hub import FakeHub
from tests.support.tiny_folder import edit_json, write_adapter, write_model

pytestmark = pytest.mark.slow  # many small trainings

TRAINING = ("--recipe", "paper", "--examples", 8, "--epochs", 1, "--batch-size", 4)
TRAINING += ("--device", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("private") / "llama")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return write_adapter(tmp_path_factory.mktemp("made") / "adapter", model)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The run folder of a training that has ended: the same command with another --out is quick."""
    folder = tmp_path_factory.mktemp("finished")
    assert train(model, folder / "adapter", folder / "run").exit_code == 0
    return folder / "run"


@pytest.fixture
def ours(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "ours"))


def train(model: Path, out: object, steps: object, *more: object) -> Any:
    return run("train", "--model", model, *TRAINING, "--out", out, "--run", steps, *more)


def untrained(model: Path, out: object, steps: object, says: str) -> str:
    return refused(*("train", "--model", model, *TRAINING, "--out", out, "--run", steps), says=says)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- an adapter folder in which something is already ----------------------------------------------


def test_neighbours_stay_and_an_evaluation_of_other_weights_goes(
    model: Path, ours: Path, finished: Path
) -> None:
    (ours / "deep").mkdir()
    kept = {"thesis.txt": b"years\n", "deep/README.md": b"mine\n", ".hidden": b"\0"}
    for name, data in kept.items():
        (ours / name).write_bytes(data)
    adapter_folder.write_file(ours, "evaluation.json", '{"of": "the older weights"}')
    before = sha256_file(ours / manifest.WEIGHTS)
    assert train(model, ours, finished).exit_code == 0
    after = contents(ours)
    assert {name: after[name] for name in kept} == kept
    assert sha256_file(ours / manifest.WEIGHTS) != before and "evaluation.json" not in after
    assert adapter_info.read_info(ours).seed == 0 and not adapter_folder.changed_files(ours)


def test_a_card_that_is_edited_while_the_training_runs_stays(ours: Path, made: Path) -> None:
    before = contents(ours)
    with (
        pytest.raises(IntrospectionError, match=r"README.md .* choose another --out"),
        adapter_folder.rewrite_folder(ours) as scratch,
    ):
        shutil.copytree(made, scratch, dirs_exist_ok=True)
        (ours / "README.md").write_text("by hand")
    assert contents(ours) == before | {"README.md": b"by hand"}


class Kill(BaseException):
    pass


def test_a_kill_while_the_files_move_leaves_what_the_next_start_knows(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each call that changes the folder, until none of them is left to be killed at."""
    with safe_open(made / manifest.WEIGHTS, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def rewrite(ours: Path, left: int) -> None:
        def dying(path: Path, *args: Any, real: Callable[..., Any], **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Kill
            return real(path, *args, **options)

        with adapter_folder.rewrite_folder(ours) as scratch:
            shutil.copytree(made, scratch, dirs_exist_ok=True)
            write_tensors(scratch / manifest.WEIGHTS, tensors, {"format": "another"})
            adapter_info.refresh_manifest(scratch)
            for name in ("replace", "unlink"):
                real = partialmethod(dying, real=getattr(Path, name))
                monkeypatch.setattr(Path, name, real)

    for number in range(30):
        ours = Path(shutil.copytree(made, tmp_path / str(number)))
        adapter_folder.write_file(ours, "evaluation.json", "{}")
        (ours / "letter").write_text("dear")
        killed = True
        try:
            rewrite(ours, number)
            killed = False
        except Kill:
            pass
        finally:
            monkeypatch.undo()
        # Whatever is there: it is known as ours, nothing in it counts as changed, it is completed.
        targets.adapter_target(ours, tmp_path / "run", None)
        with adapter_folder.rewrite_folder(ours) as scratch:
            shutil.copytree(made, scratch, dirs_exist_ok=True)
        left = {n: d for n, d in contents(ours).items() if not n.startswith(SCRATCH)}
        assert left == contents(made) | {"letter": b"dear"}, number
        if not killed:
            break
    assert 6 < number < 29


def test_a_number_of_a_card_is_written_whole_or_not_at_all(
    ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_text
    for dies in (1, 2, 3):
        calls = 0

        def dying(path: Path, text: str) -> None:
            nonlocal calls
            calls += 1
            if calls == dies:  # noqa: B023
                raise KeyboardInterrupt
            real(path, text)

        for module in (adapter_folder, manifest):
            monkeypatch.setattr(module, "write_text", dying)
        with pytest.raises(KeyboardInterrupt):
            adapter_folder.write_file(ours, "evaluation.json", json.dumps({"n": dies}))
        monkeypatch.undo()
        assert not adapter_folder.changed_files(ours)
        adapter_info.read_info(ours)
        adapter_folder.write_file(ours, "evaluation.json", json.dumps({"n": 10 + dies}))
        assert not adapter_folder.changed_files(ours)


# --- the others -----------------------------------------------------------------------------------


def test_a_run_folder_is_a_run_folder(model: Path, finished: Path, tmp_path: Path) -> None:
    """A model's config.json is not a run's, nor is anybody's log."""
    for name, text in (("config.json", '{"model_type": "llama"}'), ("log.jsonl", "mine\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(text)
        untrained(model, tmp_path / "a", tmp_path / name, "no training wrote")
        assert (tmp_path / name / name).read_text() == text
    assert train(model, tmp_path / "a", finished).exit_code == 0


@pytest.mark.parametrize(
    ("out", "steps"), [("x", "x"), ("x", "x/run"), ("x/run/out", "x/run"), ("link/a", "real")]
)
def test_out_and_run_lie_apart(out: str, steps: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    untrained(model, tmp_path / out, tmp_path / steps, "lie apart")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_nothing_is_loaded_for_a_place_that_is_refused(
    model: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from introspection.models import loading

    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("it was loaded"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("x")
    for command in (
        ("train", *TRAINING, "--model", model, "--out", tmp_path / "notes"),
        ("train", *TRAINING, "--model", model, "--run", tmp_path / "notes"),
        ("extract", "ocean", "--model", model, "--out", tmp_path / "notes" / "thesis.txt"),
        ("evaluate", "--model", model, "--adapter", made, "--out", tmp_path / "notes"),
    ):
        refused(*command, says="name a new")
    monkeypatch.chdir(model)
    refused("train", *TRAINING, "--model", ".", says="inside the model's own folder")


def test_caches_are_no_place(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for out in ("cache", "cache/adapters/me/x/0123"):
        untrained(model, tmp_path / out, tmp_path / "run", "inside the cache")


def records_of(tmp_path: Path, model: Path, made: Path) -> Path:
    (tmp_path / "contexts").write_text("Good morning to you all.\n")
    done = run(
        *("evaluate", "--contexts", tmp_path / "contexts", "--model", model, "--adapter", made),
        *("--device", "cpu", "--out", tmp_path / "measured"),
    )
    assert done.exit_code == 0, done.output
    return tmp_path / "measured" / "records.jsonl"


class TestReport:
    def test_nothing_is_written_unless_all_can_be(
        self, ours: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = records_of(tmp_path, model, ours)
        (tmp_path / "none.md").write_text("no marks\n")
        (tmp_path / "half.md").write_text("<!-- results:end --><!-- results:start -->\n")
        (tmp_path / "bad").write_bytes(b"\xff")
        os.mkfifo(tmp_path / "pipe")
        common = ("report", "--records", records, "--paper", records, "--adapter")
        before = contents(ours)
        for name in ("none.md", "half.md", "bad", "pipe", "nowhere.md", "."):
            refused(*common, ours, "--readme", tmp_path / name, says="--readme")
        refused("report", "--records", tmp_path / "no", "--adapter", ours, says="cannot be read")
        refused(*common, tmp_path / "nowhere", says="no adapter folder")
        assert contents(ours) == before
        monkeypatch.setenv("INTROSPECTION_CACHE", str(ours.parent))  # pulled: named by its commit
        refused(*common, ours, says="inside the cache")
        monkeypatch.undo()
        (ours / "README.md").write_text("my own card")
        refused(*common, ours, says="README.md that was changed")
        assert contents(ours) == before | {"README.md": b"my own card"}

    def test_a_card_is_written_again_and_again(
        self, ours: Path, model: Path, tmp_path: Path
    ) -> None:
        records = records_of(tmp_path, model, ours)
        (ours / "letter").write_text("dear")
        for _ in range(2):
            done = run("report", "--records", records, "--adapter", ours)
            assert done.exit_code == 0, done.output
        assert not adapter_folder.changed_files(ours) and (ours / "letter").read_text() == "dear"
        written = json.loads((ours / "evaluation.json").read_text())
        assert str(tmp_path) not in json.dumps(written)
        assert str(tmp_path) not in (ours / "README.md").read_text()


def test_a_figure_of_somebody_else_stays(tmp_path: Path) -> None:
    names = ("gap.png", "gap.html")
    bar = plots.Bar("a", 1.0, None, None, None, True)
    plots.save_bars([bar], "title", "axis", tmp_path / "gap.png")
    assert targets.figure_targets(tmp_path, "--figures", names, plots.MARK) == tmp_path
    for name in names:
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"another program's")
        with pytest.raises(IntrospectionError, match=name):
            targets.figure_targets(tmp_path, "--figures", names, plots.MARK)
        (tmp_path / name).write_bytes(kept)
    committed = Path(__file__).resolve().parents[2] / "figures"
    assert targets.figure_targets(committed, "--figures", ["generalization_gap.png"], plots.MARK)


# --- disks ----------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``disk("60k")``: a small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            pytest.skip("a disk can only be mounted by root on Linux")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


def fill(place: Path, free: int) -> None:
    """Leave so many bytes, in whole pages."""
    with pytest.raises(OSError, match="No space"), (place / "fill").open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    with (place / "fill").open("r+b") as file:
        file.truncate((place / "fill").stat().st_size - free)


SAYS = "No space left on device"


@pytest.mark.parametrize("free", [0, 4096])
def test_a_full_disk_at_extract(
    free: int, disk: Callable[[str], Path], model: Path, made: Path
) -> None:
    place = disk("60k")
    older = place / "v.safetensors"
    save_vectors(load_vectors(made / manifest.VECTORS), older)
    fill(place, free)
    before = contents(place)
    refused("extract", "--model", model, "--device", "cpu", "--out", older, says=SAYS)
    assert contents(place) == before


@pytest.mark.parametrize("free", [0, 20480])
def test_a_full_disk_at_the_run_folder(
    free: int, disk: Callable[[str], Path], model: Path, tmp_path: Path
) -> None:
    place = disk("60k")
    fill(place, free)
    untrained(model, tmp_path / "a", place / "run", SAYS)
    assert not (tmp_path / "a").exists()
    assert not [p for p in place.rglob("*") if "scratch" in p.name or "checkpoint" in p.name]


@pytest.mark.parametrize("older", [False, True], ids=["new", "over an older one"])
@pytest.mark.parametrize("free", [0, 12288, 36864])
def test_a_full_disk_at_the_adapter(
    older: bool, free: int, disk: Callable[[str], Path], model: Path, made: Path, finished: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    place = disk("128k")
    if older:
        shutil.copytree(made, place / "a")
        (place / "a" / "letter").write_text("dear")
    fill(place, free)
    before = contents(place)
    end = untrained(model, place / "a", finished, SAYS)
    assert contents(place) == before and older == (place / "a").exists()
    assert free < 36864 or f"kept in {finished}" in end
    assert train(model, tmp_path / "elsewhere", finished).exit_code == 0


def test_what_was_trained_on_a_disk_that_is_full_now_is_not_lost(
    disk: Callable[[str], Path], model: Path, finished: Path, tmp_path: Path
) -> None:
    place = disk("400k")
    shutil.copytree(finished, place / "run")
    fill(place, 0)
    untrained(model, place / "a", place / "run", SAYS)
    assert train(model, tmp_path / "a", place / "run").exit_code == 0
    adapter_info.read_info(tmp_path / "a")


@pytest.mark.parametrize("free", [0, 4096])
def test_a_full_disk_at_evaluate(
    free: int, disk: Callable[[str], Path], model: Path, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "contexts").write_text("".join(f"Good morning, {n}.\n" for n in range(20)))
    place = disk("60k")
    fill(place, free)
    common = ("evaluate", "--contexts", tmp_path / "contexts", "--model", model, "--adapter", made)
    common += ("--device", "cpu", "--batch-size", 4, "--out", place / "e")
    refused(*common, says=SAYS)
    (place / "fill").unlink()
    assert run(*common).exit_code == 0
    lines = (place / "e" / "records.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 40


def test_a_full_disk_at_report(
    disk: Callable[[str], Path], model: Path, made: Path, tmp_path: Path
) -> None:
    records = records_of(tmp_path, model, made)
    place = disk("60k")
    shutil.copytree(made, place / "a")
    fill(place, 4096)
    before = contents(place)
    refused("report", "--records", records, "--adapter", place / "a", says=SAYS)
    kept, info = contents(place), f"a/{manifest.INFO}"
    assert {name: kept[name] for name in before} == before | {info: kept[info]}
    adapter_info.read_info(place / "a")
    (place / "fill").unlink()
    assert run("report", "--records", records, "--adapter", place / "a").exit_code == 0


def test_a_read_only_disk(
    disk: Callable[[str], Path], model: Path, made: Path, tmp_path: Path
) -> None:
    place = disk("60k,ro")
    says, a = "Read-only file system", tmp_path / "a"
    for out, steps in ((place / "a", a), (a, place / "deep" / "run")):
        untrained(model, out, steps, says)
    refused("extract", "ocean", "--model", model, "--out", place / "v", says=says)
    evaluate = ("evaluate", "--model", model, "--adapter", made)
    refused(*evaluate, "--out", place / "new" / "e", says=says)
    assert not a.exists()


def test_a_folder_that_vanishes(
    model: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it works: --out is made again, and --run in one sentence."""
    from introspection.training import pipeline

    real, parent = pipeline.train, tmp_path / "parent"
    parent.mkdir()

    def gone(*arguments: Any) -> None:
        real(*arguments)
        parent.rmdir()

    monkeypatch.setattr(pipeline, "train", gone)
    assert train(model, parent / "a", finished).exit_code == 0
    # A run folder is made again, too, unless something else took its place.
    monkeypatch.setattr(pipeline, "train", lambda *a: (shutil.rmtree(tmp_path / "r"), real(*a)))
    assert train(model, tmp_path / "b", tmp_path / "r").exit_code == 0

    def replaced(*arguments: Any) -> None:
        shutil.rmtree(tmp_path / "r")
        (tmp_path / "r").write_text("a file")
        real(*arguments)

    monkeypatch.setattr(pipeline, "train", replaced)
    end = train(model, tmp_path / "c", tmp_path / "r")
    assert end.exit_code == 2 and "could not be written" in one_sentence(end.stderr)
    assert (tmp_path / "r").read_text() == "a file"


def test_every_word_of_a_disk_is_one_sentence_and_no_other_is(tmp_path: Path) -> None:
    full, free = f"I/O error: {SAYS} (os error 28)", "free space there or "
    missing = FileNotFoundError(2, "No such file", str(tmp_path / "x"))
    for error, says, advice in (
        (OSError(28, SAYS), SAYS, free),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded", free),
        (OSError(30, "Read-only file system"), "Read-only file system", ""),
        (SafetensorError(f"Error while serializing: {full}"), SAYS, free),
        (SafetensorError("odd"), "SafetensorError", ""),
        (missing, "No such file", ""),
    ):
        with pytest.raises(IntrospectionError) as told, targets.writing(tmp_path / "a", "go away"):
            raise error
        assert f"could not be written ({says}): {advice}go away." in str(told.value)
    elsewhere = FileNotFoundError(2, "No such file", "/elsewhere/gcc")
    for other in (
        elsewhere,
        BrokenPipeError(32, "Broken pipe"),
        ConnectionResetError(104, "reset"),
    ):
        with pytest.raises(type(other)), targets.writing(tmp_path / "a", "go away"):
            raise other


def test_a_log_on_a_full_disk(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, SAYS)

    monkeypatch.setattr(making.out, "print", full)
    vectors = tmp_path / "v.safetensors"
    refused("extract", "ocean", "--model", model, "--device", "cpu", "--out", vectors, says=SAYS)
    assert load_vectors(vectors).names == ("ocean",)


# --- rights, home, and what says where something lay ----------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_new_files_have_the_rights_of_the_umask(umask: int, model: Path, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        assert train(model, tmp_path / "new" / "a", tmp_path / "run").exit_code == 0
        vectors = tmp_path / "v.safetensors"
        assert run("extract", "ocean", "--model", model, "--out", vectors).exit_code == 0
        records = records_of(tmp_path, model, tmp_path / "new" / "a")
        report = ("report", "--records", records, "--adapter", tmp_path / "new" / "a")
        assert run(*report).exit_code == 0
    finally:
        os.umask(before)
    found = [p for p in tmp_path.rglob("*") if p.name != RUN_LOCK]  # a library's own, and empty
    assert {p.name for p in found} >= {*manifest.FILES, "checkpoint.safetensors", "summary.json"}
    for path in found:
        usual = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == usual, path


def test_a_home_is_found_in_every_path(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In ``--out=~/x`` no shell puts it in."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    shutil.copytree(model, home / "llama")
    (home / "words").write_text("ocean\n")
    (home / "contexts").write_text("Good morning.\n")
    own = ("--model=~/llama", "--device=cpu")
    done = [
        run("train", *own, *TRAINING, "--out=~/a", "--run=~/r"),
        run("extract", "--file=~/words", *own, "--out=~/v.safetensors"),
        run("ask", "ocean", *own, "--adapter=~/a"),
        run("evaluate", *own, "--adapter=~/a", "--contexts=~/contexts", "--out=~/e"),
        run("report", "--records=~/e/records.jsonl", "--adapter=~/a"),
    ]
    assert [result.exit_code for result in done] == [0] * 5, [r.output for r in done]
    words = ("--concepts=~/words", "--contexts=~/contexts", "--out=~/e2")
    assert run("evaluate", *own, "--adapter=~/a", *words).exit_code == 0
    refused(
        "report", "--adapter=~/a", "--records=~/e/records.jsonl", "--readme=~/no", says="--readme"
    )
    refused("report", "--adapter=~/a", "--records=~/none", says=str(home / "none"))
    refused("push", "me/x", "--adapter=~/none", says=str(home / "none"))
    refused("train", *own, *TRAINING, "--out=~nobody_of_that_name/x", says="no home folder")
    assert not list((tmp_path / "cwd").iterdir())


SECRET = "private"  # a folder on the way to the model


class TestLocalPaths:
    def test_training_writes_none(
        self, model: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "a"
        words = ["train", "--model", str(model), f"--out={folder}", "--run", str(finished)]
        monkeypatch.setattr("sys.argv", [f"{model.parent}/__main__.py", *words])
        assert train(model, folder, finished).exit_code == 0
        for text in (SECRET, str(tmp_path), str(model.parent)):
            assert not [name for name, data in contents(folder).items() if text.encode() in data]
        info = adapter_info.read_info(folder)
        assert info.base_id == "llama"
        assert info.command == "python -m introspection train --model llama"
        assert load_vectors(folder / manifest.VECTORS).base == "llama"

    def test_an_older_adapter_loses_them_on_its_way(
        self, ours: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        edit_json(
            ours / manifest.INFO,
            base_id=str(model),
            command=f"python -m introspection train --model {model} --file={model}/x --seed 1",
        )
        edit_json(ours / manifest.CONFIG, base_model_name_or_path=str(model))
        vectors = ours / manifest.VECTORS
        with safe_open(vectors, framework="pt") as file:
            metadata = {**file.metadata(), "base": str(model)}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        write_tensors(vectors, tensors, metadata)
        (ours / "README.md").write_text(f"---\nbase_model: {model}\n---\nTrained on {model}.\n")
        adapter_info.refresh_manifest(ours)
        before = contents(ours)
        with FakeHub() as there:
            monkeypatch.setenv("HF_ENDPOINT", there.url)
            transfer.push(ours, "org/trial", token="hf_owner_0123456789")
            (files,) = [repo.files() for repo in there.repos.values()]
        assert set(files) >= {*manifest.FILES} - {"evaluation.json"}
        assert not [name for name, data in files.items() if SECRET.encode() in data]
        assert b"Trained on llama." in files["README.md"]
        assert contents(ours) == before
        told = json.loads(files[manifest.INFO])
        assert told["command"] == "python -m introspection train --model llama --file=x --seed 1"

    @pytest.mark.parametrize(
        ("arguments", "kept"),
        [
            (["--model", "/a/b c/m", "--out", "/x", "--run", "y"], "--model m"),
            (["--model=/a/m/", "--out=/x", "--run=y"], "--model=m"),
            (["--model", "~/m", "--adapter=~/x/y"], "--model m --adapter=y"),
            (["--model", "../m"], "--model m"),
            (["--model", "org/name@abc"], "--model org/name@abc"),
            (["--model", "a/b/c"], "--model c"),
            (["--model", "C:\\Users\\me\\m"], "--model m"),
            (["--model", "/"], "--model model"),
            (["--learning-rate", "5e-4", "--seed", "1"], "--learning-rate 5e-4 --seed 1"),
            (["-f/srv/kernel.json"], "-f"),
        ],
    )
    def test_the_command_line(self, arguments: list[str], kept: str) -> None:
        told = local_paths.command_line("/usr/x/__main__.py", ["train", *arguments])
        assert told == f"python -m introspection train {kept}"
        assert local_paths.command_line("/opt/run.py", []) == "run.py"

    def test_a_folder_by_its_own_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "org" / "name").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "org" / "name")
        assert local_paths.name_of(".") == "name" and local_paths.name_of("..") == "org"
        monkeypatch.chdir(tmp_path)
        assert local_paths.name_of("org/name") == "name" == local_paths.name_of("org/name/")
        assert local_paths.name_of("other/name") == "other/name"
        assert local_paths.name_of("smollm2-135m") == "smollm2-135m"
        assert local_paths.name_of("/x/b\udcff\n") == "b??"


def test_a_document_with_two_places_or_other_line_ends(tmp_path: Path) -> None:
    start, end = "<!-- results:start -->", "<!-- results:end -->"
    path = tmp_path / "README.md"
    path.write_text(f"Text about `{start}` marks.\nprecious\n{start}a{end}\n")
    with pytest.raises(IntrospectionError, match="more than one place"):
        targets.document_target(path, "--readme", ("results",))
    text = report.replace_block(f"one\r\n{start}\r\nold\r\n{end}\r\ntwo\r\n", "results", "a\nb")
    assert text.count("\r\n") == text.count("\n") == 6 and "old" not in text


def test_records_of_somebody_else_are_not_ours(tmp_path: Path) -> None:
    for text in ('{"aaaa', '{"patient": 1}', '{"patient": 1}\n', "x"):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        (folder / "records.jsonl").write_text(text)
        with pytest.raises(IntrospectionError, match="that evaluate did not write"):
            targets.records_target(folder)
        assert (folder / "records.jsonl").read_text() == text
    (folder / "records.jsonl").write_text('{"schema": 2, "ru')  # cut by a kill
    assert targets.records_target(folder)


def test_what_a_system_leaves_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".DS_Store").write_text("x")
    out, _ = targets.adapter_target(tmp_path / "new", tmp_path / "run", None)
    assert out == tmp_path / "new"
