"""Which run a folder holds, what is left of damaged files, and the day that prompts are told."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file

from introspection.errors import IntrospectionError
from introspection.injection.extraction import extract
from introspection.injection.trials import clock
from introspection.injection.trials.message import Message
from introspection.injection.trials.prompts import (
    end_of_turn,
    prompt_depends_on_date,
    prompt_ids,
    render,
)
from introspection.io.tensor_file import write_tensors
from introspection.training import checkpoints, runs, trainer
from introspection.training.config import TrainingJob
from introspection.training.runs import claim_run, describe_run
from tests.support.small_training import (
    CONFIG,
    DATED,
    contents,
    small_model,
    train_small,
)
from tests.support.tiny import CHATML, make_tokenizer

pytestmark = [pytest.mark.usefixtures("small_catalogue"), pytest.mark.slow]  # small trainings


class _Kill(BaseException):
    """What no handler of errors may catch."""


def kill_at(wanted: str, step: int = 0) -> Callable[[str, int, int], None]:
    def tell(what: str, done: int, _total: int) -> None:
        if what.startswith(wanted) and done >= step:
            raise _Kill

    return tell


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    train_small(folder)
    return folder


@pytest.fixture
def trained(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


# --- whose the folder is ----------------------------------------------------------------------


def test_everything_that_decides_the_result_is_in_the_description() -> None:
    job = TrainingJob("ours", CONFIG, 8, "concept", ("Tell me about {c}",))
    first = describe_run(small_model(), job)
    assert first == describe_run(small_model(), job)
    moved = small_model()
    moved.layer += 1
    coarse = small_model()
    coarse.model.to(torch.bfloat16)
    worded = small_model()
    worded.tokenizer = make_tokenizer()
    worded.tokenizer.add_tokens(["ocean"])
    models = (small_model(1), small_model(template=DATED), moved, coarse, worded)
    jobs: list[dict[str, Any]] = [{"recipe": "paper"}, {"examples": 9}, {"site": "last"}]
    jobs += [{"templates": ("On {c}",)}]
    for change in ({"seed": 1}, {"epochs": 9}, {"strengths": (0.25, 1.0)}, {"kind": "another"}):
        jobs += [{"config": replace(CONFIG, **change)}]
    others = [describe_run(loaded, job) for loaded in models]
    others += [describe_run(small_model(), replace(job, **change)) for change in jobs]
    told = [json.dumps(one, sort_keys=True) for one in (first, *others)]
    assert len(set(told)) == len(told)
    loaded = small_model()
    assert loaded.tokenizer("a", truncation=True, max_length=3)
    assert first == describe_run(loaded, job)


def test_config_is_written_first_and_says_all(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(_Kill):
        train_small(tmp_path, progress=kill_at("answers"))
    run = tmp_path / "run"
    assert set(contents(run)) == {"config.json", runs.LOCK}
    assert contents(run)["config.json"] == contents(trained / "run")["config.json"]
    told = json.loads((run / "config.json").read_text())
    assert told["started"] == date.today().isoformat() and told["config"]["seed"] == 0


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    theirs = dict.fromkeys(("replies.json", "log.jsonl", "checkpoint.safetensors"), b"my diary")
    theirs["config.json"] = b'{"config": {"seed": 0}, "base": "x"}'  # of an older version
    theirs["notes.txt"] = b"thesis"
    for name in theirs:  # one alone is enough
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        (run / name).write_bytes(theirs[name])
        with claim_run(run, {"seed": 1}) as found:
            assert (found.folder == run) is (name == "notes.txt")
        assert (run / name).read_bytes() == theirs[name]
    for name, data in theirs.items():
        (run / name).write_bytes(data)
    (run / runs.LOCK).unlink()
    (run / "config.json").write_bytes(theirs["config.json"])
    own = train_small(tmp_path)
    assert contents(run) == theirs and own.parent == run
    assert contents(tmp_path / "adapter") == contents(whole / "adapter")
    assert train_small(tmp_path) == own  # found again


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    says = "Another process is training the same run"
    with claim_run(tmp_path, {"seed": 1}) as first:
        with pytest.raises(IntrospectionError, match=says), claim_run(tmp_path, {"seed": 1}):
            pytest.fail("it was let in")
        with claim_run(tmp_path, {"seed": 2}) as second:
            assert second.folder.parent == first.folder
    with claim_run(tmp_path, {"seed": 1}) as again:
        assert again == first


# --- damaged files ----------------------------------------------------------------------------


def _edited(data: bytes) -> bytes:
    document = json.loads(data)
    document["answers"][0][0] += " indeed"
    return json.dumps(document).encode()


def _claimed_by_another(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "made_from": "other prompts"}).encode()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "a bad byte": lambda data: data[:40] + b"\xff" + data[41:],
    "a list": lambda _: b"[]",
    "no fields": lambda _: b"{}",
    "deep": lambda _: b"[" * 200_000,
    "other fields": lambda _: b'{"run": [1], "started": 3, "made_from": {}, "answers": 1}',
}


@pytest.mark.parametrize("how", [*DAMAGE, "edited", "of other prompts"])
def test_damaged_answers_are_made_again(how: str, trained: Path, whole: Path) -> None:
    path = trained / "run" / "replies.json"
    damage = {**DAMAGE, "edited": _edited, "of other prompts": _claimed_by_another}[how]
    path.write_bytes(damage(path.read_bytes()))
    (trained / "run" / "checkpoint.safetensors").unlink()
    shutil.rmtree(trained / "adapter")
    assert train_small(trained) == trained / "run"
    assert contents(trained / "adapter") == contents(whole / "adapter")
    assert contents(trained / "run") == contents(whole / "run")


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "log.jsonl"])
def test_damaged_config_and_log_are_written_again(
    name: str, how: str, trained: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained / "run" / name
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    shutil.rmtree(trained / "adapter")
    monkeypatch.setattr(trainer, "micro_batch_losses", None)  # no step is left
    assert train_small(trained) == trained / "run"
    assert contents(trained / "adapter") == contents(whole / "adapter")
    assert contents(trained / "run") == contents(whole / "run")


def test_a_run_that_has_ended_writes_nothing_into_its_folder(
    trained: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_text", full)
    monkeypatch.setattr(checkpoints, "write_text", full)
    train_small(trained)
    assert contents(trained / "run") == contents(whole / "run")


def test_weights_of_another_run_under_its_name(trained: Path, whole: Path, tmp_path: Path) -> None:
    other = train_small(tmp_path / "other", seed=1)
    path = trained / "run" / "checkpoint.safetensors"
    shutil.copy(other / path.name, path)
    train_small(trained)
    assert contents(trained / "adapter") == contents(whole / "adapter")
    (aside,) = (trained / "run").glob("checkpoint-*")
    assert aside.read_bytes() == (other / path.name).read_bytes()


def _link(path: Path) -> None:
    (path.parent.parent / "thesis").write_text("three years")
    path.symlink_to(path.parent.parent / "thesis")


@pytest.mark.parametrize("what", [os.mkdir, os.mkfifo, _link])
@pytest.mark.parametrize("name", runs.FILES)
def test_what_is_no_file_of_ours_is_said(
    name: str, what: Callable[[Path], None], trained: Path
) -> None:
    path = trained / "run" / name
    path.unlink(missing_ok=True)
    what(path)
    with pytest.raises(IntrospectionError, match=f"{name} is not a file that this program") as told:
        train_small(trained)
    assert "\n" not in str(told.value) and os.path.lexists(path)
    assert what is not _link or path.read_text() == "three years"


# --- the day ----------------------------------------------------------------------------------


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``on("2024-02-29")`` is a leap into that day."""

    def leap(day: str) -> None:
        class Calendar(date):
            @classmethod
            def today(cls) -> date:
                return date.fromisoformat(day)

        monkeypatch.setattr(clock, "date", Calendar)

    return leap


HELLO = (Message("user", "Hello"),)


def test_a_template_is_told_the_day(on: Any) -> None:
    dated, plain = make_tokenizer(template=DATED), make_tokenizer(template=CHATML)
    assert prompt_depends_on_date(dated) and not prompt_depends_on_date(plain)
    on("2024-02-29")
    assert render(dated, HELLO).startswith("Today is 29 February 2024, 00:00.")
    first = prompt_ids(dated, HELLO)
    assert dated.decode(first) == render(dated, HELLO)
    on("2024-12-01")
    assert render(dated, HELLO).startswith("Today is 01 December 2024")
    assert dated.decode(prompt_ids(dated, HELLO)) == render(dated, HELLO)  # not that of February
    with clock.fixed(date(2024, 2, 29)):
        assert prompt_ids(dated, HELLO) == first
        on("2024-12-02")
        assert prompt_ids(dated, HELLO) == first
    assert render(dated, HELLO).startswith("Today is 02 December 2024")
    assert end_of_turn(dated) == end_of_turn(plain)


@pytest.mark.parametrize(
    "template",
    [
        "{% macro head() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}{{ head() }}",
        "{%- if strftime_now is defined %}{% set d = strftime_now('%Y-%m-%d') %}{% endif %}{{ d }}",
        "{% if not date_string is defined %}{% set date_string = strftime_now('%Y-%m-%d') %}"
        "{% endif %}{{ date_string }}",
    ],
    ids=["macro", "asked for", "or given"],
)
def test_however_a_template_asks(template: str) -> None:
    tokenizer = make_tokenizer(template=template + CHATML)
    with clock.fixed(date(2020, 1, 2)):
        assert render(tokenizer, HELLO).startswith("2020-01-02<|im_start|>")


def test_a_day_is_fixed_in_its_own_thread() -> None:
    tokenizer = make_tokenizer(template=DATED)
    with clock.fixed(date(2020, 1, 2)), ThreadPoolExecutor() as pool:
        other = pool.submit(render, tokenizer, HELLO).result()
        assert "2020" in render(tokenizer, HELLO) and "2020" not in other


def test_vectors_are_read_against_the_baseline_of_the_same_day() -> None:
    loaded, alone = small_model(template=DATED), small_model(template=DATED)
    with clock.fixed(date(2020, 1, 2)):
        extract(loaded, ["ocean"])
    with clock.fixed(date(2024, 12, 31)):
        found, expected = (extract(one, ["ocean"]) for one in (loaded, alone))
    assert torch.equal(found.vectors, expected.vectors) and found.norm == expected.norm


def test_a_run_goes_on_the_next_day_as_it_began(tmp_path: Path, on: Any) -> None:
    on("2024-02-28")
    train_small(tmp_path / "whole", template=DATED)
    moments = ("answers",), ("concept vectors",), ("training", 10), ("training", 12)
    for place, moment in enumerate(moments):
        folder = tmp_path / str(place)
        on("2024-02-28")
        with pytest.raises(_Kill):
            train_small(folder, template=DATED, progress=kill_at(*moment))
        on("2024-02-29")
        assert train_small(folder, template=DATED) == folder / "run"
        assert contents(folder / "adapter") == contents(tmp_path / "whole" / "adapter")
        assert contents(folder / "run") == contents(tmp_path / "whole" / "run")
    assert json.loads((tmp_path / "0/run/config.json").read_text())["started"] == "2024-02-28"
    # It is not that the day makes no difference.
    train_small(tmp_path / "late", template=DATED)
    assert contents(tmp_path / "late" / "adapter") != contents(tmp_path / "whole" / "adapter")


def test_the_day_of_a_run_outlives_its_config(tmp_path: Path, on: Any) -> None:
    on("2024-02-28")
    run = train_small(tmp_path, template=DATED)
    before, adapter = contents(run), contents(tmp_path / "adapter")
    on("2024-02-29")
    (run / "config.json").write_bytes(b"{")
    train_small(tmp_path, template=DATED)
    assert contents(run) == before and contents(tmp_path / "adapter") == adapter


def test_a_run_under_a_plain_template_has_the_same_adapter_on_any_day(
    whole: Path, tmp_path: Path, on: Any
) -> None:
    on("2031-05-06")
    train_small(tmp_path)
    assert contents(tmp_path / "adapter") == contents(whole / "adapter")


# --- equal bytes ------------------------------------------------------------------------------


def test_tensors_with_metadata_have_one_order(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3).half(), "a": torch.arange(5.0)[:, None], "ä": torch.tensor(1)}
    told = {f"key {n}": f'"é\n{n}' for n in range(8)}
    path = tmp_path / "x.safetensors"
    written = set()
    for order in (1, -1) * 6:
        write_tensors(path, tensors, dict([*told.items()][::order]))
        written.add(path.read_bytes())
    with safe_open(path, framework="pt") as file:
        assert len(written) == 1 and file.metadata() == told
    torch.testing.assert_close(load_file(path), tensors, rtol=0, atol=0)


def test_the_config_of_the_adapter_is_what_peft_writes(whole: Path, tmp_path: Path) -> None:
    found = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    LoraConfig.from_pretrained(str(whole / "adapter")).save_pretrained(str(tmp_path))
    theirs = json.loads((tmp_path / "adapter_config.json").read_text())
    theirs["target_modules"].sort()
    assert found == theirs and found["target_modules"] == sorted(CONFIG.targets)


def test_two_runs_that_start_together_do_not_share_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looked before the first had written anything."""
    plain, looked = runs._place, []

    def first_look_is_stale(folder: Path, digest: str) -> tuple[Path, date | None]:
        looked.append(folder)
        return (folder, None) if len(looked) == 1 else plain(folder, digest)

    with claim_run(tmp_path, {"seed": 1}) as first:
        before = (first.folder / "config.json").read_bytes()
    monkeypatch.setattr(runs, "_place", first_look_is_stale)
    with claim_run(tmp_path, {"seed": 2}) as second:
        assert second.folder.parent == first.folder == tmp_path
    assert (first.folder / "config.json").read_bytes() == before
    looked.clear()
    with claim_run(tmp_path, {"seed": 1}), claim_run(tmp_path, {"seed": 2}) as beside:
        assert beside == second
