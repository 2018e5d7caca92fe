"""The folder of cases: inputs after public complaints, each put to the program as it stands.

One test a row that has an input here (L: nothing lost, N: nothing misread), by the file in ``cases/``.
Rows whose script starts many processes soak; the same in one process: L3 test_kill_points, L4 and
L7 test_runs, L5 and L11 test_outputs, L6 test_out_fuzz. More of every kind, and the rows without a
file, stand in the tests of the part that they belong to: L1 and L2 test_out_fuzz, L8 and L9
test_outputs, L10 test_kill_points, N2 test_catalogue, N8 test_fingerprints, N9 test_foreign, N10
test_hostile, N11 test_other_models, R1, R6 to R10 and R12 test_records, R3 test_conditions, R4
test_names, R5 test_transfer, R11 test_injection_values.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from introspection.concepts.catalogue import Concept
from introspection.concepts.texts import reports
from introspection.evaluation.grading.grade import grade
from introspection.injection.trials.message import conversation
from introspection.injection.trials.prompts import prompt_ids
from tests.support.command import refused, run
from tests.support.tiny import make_tokenizer
from tests.support.tiny_folder import write_adapter, write_model

pytestmark = pytest.mark.slow  # trainings and processes

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).with_name("cases")
SHORT = ("--recipe", "paper", "--examples", "8", "--epochs", "1", "--batch-size", "4")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of ``make_tiny.py`` that the rows here ask for."""
    folder = tmp_path_factory.mktemp("models")
    names = ("llama", "gpt2", "slow", "no_eos", "list_template", "dated")
    script("make_tiny.py", folder, *names).check_returncode()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "good", model)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(model: Path, *args: object) -> tuple[object, ...]:
    return ("train", "--model", model, *SHORT, "--device", "cpu", *args)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def names_read(file: str, model: Path, folder: Path, *options: str) -> list[str]:
    out = folder / "v.safetensors"
    result = run("extract", "--file", CASES / file, "--model", model, "--out", out, *options)
    assert result.exit_code == 0, result.output
    with safe_open(out, "np") as vectors:
        return list(json.loads(vectors.metadata()["names"]))


def script(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """A script of the folder, which gets the checkout first."""
    shell = "bash" if name.endswith(".sh") else sys.executable
    command = list(map(str, (shell, CASES / name, ROOT, *args)))
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


# --- nothing lost -------------------------------------------------------------------------------


@pytest.mark.soak
def test_l3_stale_replies(tiny: Path, model: Path, here: Path) -> None:
    done = script("stale_replies.sh", tiny / "llama", model)
    told = [json.loads(path.read_text()) for path in sorted(here.rglob("replies.json"))]
    assert len(told) == 3, done.stdout + done.stderr
    assert len({answers["made_from"] for answers in told}) == 3
    assert len({answers["run"] for answers in told}) == 3
    for name in ("b", "c"):
        assert (here / name / "introspection.json").is_file(), done.stdout


@pytest.mark.soak
def test_l4_damaged_run_files(model: Path, here: Path) -> None:
    ours = ("train", "--model", model, "--recipe", "ours", "--examples", "8", "--epochs", "1")
    ours += ("--batch-size", "4", "--device", "cpu", "--out", "a", "--run", "r")
    assert run(*ours).exit_code == 0
    whole = contents(here / "a")
    for data in (b"", b"[[", b"\xff\xfe\x00", b"{}", b"[1, 2]"):
        (here / "r" / "replies.json").write_bytes(data)
        (here / "r" / "log.jsonl").write_bytes(data + b"\xc3")
        shutil.rmtree(here / "a")
        result = run(*ours)
        assert result.exit_code == 0 and contents(here / "a") == whole, (data, result.output)


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_l5_l6_a_full_disk_and_a_device(tiny: Path, here: Path) -> None:
    done = script("disk.sh", tiny / "llama", here)
    said = [line for line in done.stdout.splitlines() if line.startswith("[")]
    if "mount" in done.stderr and len(said) < 4:
        pytest.skip("this machine mounts nothing")
    assert len(said) == 4 and all("rc=2 | error: " in line for line in said), done.stdout
    assert (here / "mynull").is_char_device()


@pytest.mark.soak
@pytest.mark.usefixtures("here")
def test_l7_a_date_in_the_template(tiny: Path) -> None:
    done = script("dated.sh", tiny)
    said = [line for line in done.stdout.splitlines() if "log and checkpoint" in line]
    assert len(said) == 2 and said[0] == said[1], done.stdout + done.stderr


@pytest.mark.soak
def test_l11_pushed_paths(model: Path, here: Path) -> None:
    assert run(*train(model, "--out", "a", "--run", "r")).exit_code == 0
    done = script("pushed_paths.py", here / "a", model.parent)
    assert re.search(r"org/trial@[0-9a-f]{40}", done.stdout), done.stdout + done.stderr
    assert "path found" not in done.stdout


# --- nothing misread ----------------------------------------------------------------------------


def test_n1_names_with_dots() -> None:
    for name in (CASES / "names_with_dots.txt").read_text().splitlines():
        for text in (*reports(name, False), *reports(name, True)):
            verdict = grade(text, Concept(name))
            assert verdict.correct and verdict.named == name, (text, verdict.named)


def test_r2_lists_give_what_was_written(model: Path, here: Path) -> None:
    words = ["zeppelin", "airship", "inheritance", "heredity", "US", "us"]
    (here / "words.txt").write_text("\n".join(words))
    assert names_read(str(here / "words.txt"), model, here) == words


@pytest.mark.parametrize("file", ["names.txt", "names_with_dots.txt", "persian.txt", "hindi.txt"])
def test_n3_n7_names_are_kept_as_they_stand(file: str, model: Path, here: Path) -> None:
    lines = (CASES / file).read_text(encoding="utf-8").splitlines()
    assert names_read(file, model, here) == lines


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("comments.txt", ["ocean", "lighthouse", "envy"]),
        ("csv.csv", ["ocean", "hot air balloon"]),
        ("json.json", ["ocean", "lighthouse", "envy"]),
        ("tabs.txt", ["ocean", "envy"]),
        ("trail.tsv", ["ocean"]),
        ("bom_mid.txt", ["ocean", "lighthouse"]),
        ("softhyphen.txt", ["lighthouse", "ocean"]),
    ],
)
def test_n4_n5_lists(file: str, names: list[str], model: Path, here: Path) -> None:
    assert names_read(file, model, here) == names


def test_n4_a_line_of_several_names(model: Path, here: Path) -> None:
    said = refused("extract", "--file", CASES / "short_commas.txt", "--model", model)
    assert "short_commas.txt, line 1" in said and "one" in said and "per line" in said
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "file", ["softhyphen.txt", "strike.txt", "template_code.txt", "unk.txt", "zwsp.txt"]
)
def test_n5_n6_contexts(file: str, model: Path, adapter: Path, here: Path) -> None:
    lines = (CASES / "contexts" / file).read_text(encoding="utf-8").splitlines()
    asked = ("evaluate", "--contexts", CASES / "contexts" / file, "--out", "e")
    result = run(*asked, "--model", model, "--adapter", adapter, "--device", "cpu")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (here / "e" / "records.jsonl").open(encoding="utf-8")]
    plain = {r["question"] for r in records if r["condition"] == "clean, as it stands"}
    assert plain == {f"user: {line}" for line in lines}
    tokenizer = make_tokenizer()  # and with the very tokens that these texts hold
    own = {"additional_special_tokens": ["<s>", "</s>", "<unk>", "[INST]"]}
    assert tokenizer.add_special_tokens(own) and tokenizer("<s>")["input_ids"][0] > 300
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}

    def controls(text: str) -> int:
        return sum(i in special for i in prompt_ids(tokenizer, conversation(text)))

    assert {controls(line) for line in lines} == {controls("Hello")}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["slow", "no_eos", "gpt2"])
@pytest.mark.parametrize("command", ["ask", "extract", "train"])
def test_n11_one_sentence_or_it_works(name: str, command: str, tiny: Path) -> None:
    own = (
        ("--out", "v.safetensors") if command == "extract" else SHORT if command == "train" else ()
    )
    words = () if command == "train" else ("ocean",)
    base = ("--base",) if command == "ask" else ()
    result = run(command, *words, "--model", tiny / name, *own, *base, "--device", "cpu")
    assert result.exit_code in (0, 2) and isinstance(result.exception, SystemExit | None)
    if result.exit_code == 2:
        assert len(result.stderr.splitlines()) == 1, result.stderr
        for blame in ("network", "HF_TOKEN", "offset_mapping", "substring", "int()"):
            assert blame not in result.stderr, result.stderr
    assert (result.exit_code == 2) == (name == "slow" or (name, command) == ("gpt2", "train"))
