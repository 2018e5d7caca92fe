"""app.py as a Hugging Face Space starts it: variables, ZeroGPU, the page without a model, the end."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
import yaml

from introspection.concepts.catalogue import resolve
from introspection.demo.engine import diagnostics, zerogpu
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import RowAnswer, RunRequest
from introspection.demo.server import settings
from introspection.errors import IntrospectionError
from introspection.injection.trials.schedule import GENERATION
from introspection.models import loading
from tests.support.app_process import OURS, SPACE, compare, copy_of_the_project, running
from tests.support.tiny_folder import write_adapter, write_loud_adapter, write_model

ROOT = Path(__file__).resolve().parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"
REQUEST = RunRequest(resolve("ocean"), False, 1.0, "Why?", GENERATION, 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("space") / "model")


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    return write_adapter(model.parent / "adapter", model)


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OURS, *SPACE, "SPACES_ZERO_GPU"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def app() -> ModuleType:
    spec = importlib.util.spec_from_file_location("space_app", ROOT / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- variables ----------------------------------------------------------------------------------


Check = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture
def check(
    app: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Check:
    """What app.py --check prints when these variables are set: its exit code and
    {name: "ok ..." or "problem ..."}. INTROSPECTION_ is left out of their names."""

    def run(**variables: object) -> tuple[int, dict[str, str]]:
        for name, value in variables.items():
            prefix = "" if name in SPACE else "INTROSPECTION_"
            monkeypatch.setenv(prefix + name, str(value))
        code = app.main(["--check"])
        lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
        assert all(len(line) == 2 and line[0] in ("ok", "problem") for line in lines)
        parts = [(line[0], *line[1].partition(": ")) for line in lines]
        named = {name: f"{state} {told}" for state, name, _, told in parts}
        assert len(named) == len(lines), "nothing is said twice"
        return code, named

    return run


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained adapter notices nothing, which the last line would rightly call a problem."""
    found = diagnostics.Finding("model", True, "fine")
    monkeypatch.setattr(diagnostics, "_model", lambda *_: iter([found]))


def problems(named: dict[str, str]) -> list[str]:
    return [name for name, told in named.items() if told.startswith("problem")]


@pytest.mark.usefixtures("fine")
def test_check_all_well(check: Check, model: Path, adapter: Path) -> None:
    code, named = check(MODEL=model, ADAPTER=adapter, **SPACE)
    assert code == 0 and problems(named) == []
    assert [*named][:6] == [
        *("INTROSPECTION_MODEL", "INTROSPECTION_REVISION", "INTROSPECTION_ADAPTER"),
        *("SPACE_ID", "SPACE_HOST", "ACCELERATOR"),
    ]
    assert named["SPACE_HOST"] == "ok https://somebody-introspection.hf.space"
    lines = diagnostics.findings(lambda _: None, str(model), str(adapter))  # type: ignore[arg-type,return-value]
    assert [*named][6:] == [line.name for line in lines]


def test_check_wrong_model_name(check: Check) -> None:
    code, named = check(MODEL="smollm3")
    assert code == 2
    assert "'smollm3' is not a model" in named["INTROSPECTION_MODEL"]
    assert "smollm2-135m" in named["INTROSPECTION_MODEL"]
    assert named["SPACE_ID"] == "ok not set: this is not a Space"
    assert problems(named) == ["INTROSPECTION_MODEL", "adapter", "model"]


def test_check_missing_adapter_folder(check: Check, model: Path) -> None:
    code, named = check(MODEL=model, ADAPTER=model / "nowhere")
    assert code == 2 and problems(named) == ["INTROSPECTION_ADAPTER"]
    assert "no such folder" in named["INTROSPECTION_ADAPTER"]
    assert "python -m introspection train" in named["INTROSPECTION_ADAPTER"]
    assert named["model"].startswith("ok") and named["report"].startswith("ok")


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("revision", ["main", SHA.upper(), None])
def test_check_revision_is_no_sha_on_a_space(
    check: Check, model: Path, revision: str | None
) -> None:
    given = {"REVISION": revision} if revision else {}
    space = {"SPACE_ID": SPACE["SPACE_ID"]}
    code, named = check(MODEL=model, ADAPTER="somebody/lora", **given, **space)
    assert code == 2 and problems(named) == ["INTROSPECTION_REVISION", "INTROSPECTION_ADAPTER"]
    assert "full sha of a commit" in named["INTROSPECTION_REVISION"]


@pytest.fixture(scope="module")
def second(model: Path) -> Path:
    """Another adapter for the same model: of another rank, for another layer."""
    return write_loud_adapter(model.parent / "second", model, 4, layer=2, rank=2)


def test_check_has_one_line_per_adapter_on_offer(
    check: Check, model: Path, adapter: Path, second: Path
) -> None:
    offered = f" {second},, org/lora@main,{second} "
    code, named = check(MODEL=model, ADAPTER=adapter, ADAPTERS=offered)
    lines = {
        name: told for name, told in named.items() if name.startswith("INTROSPECTION_ADAPTERS")
    }
    first, other = (f"INTROSPECTION_ADAPTERS {entry}" for entry in (second, "org/lora@main"))
    assert [*lines] == [first, other] == [*named][-2:]
    assert lines[first] == "ok offered as second, layer 2"
    assert lines[other].startswith("problem 'org/lora@main' is neither") and code == 2
    code, named = check(ADAPTER=model / "nowhere")
    told = "problem Not tried: mend what is said above first."
    assert code == 2 and [named[first], named[other]] == [told, told]


def test_check_says_which_package_is_missing(
    app: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = diagnostics.Finding("gradio", False, "It is missing: run 'make venv'.")
    monkeypatch.setattr(diagnostics, "packages", lambda: iter([gone]))
    monkeypatch.setitem(sys.modules, "introspection.demo.server", None)
    assert app.main(["--check"]) == 2
    told = capsys.readouterr()
    assert told.out == "problem gradio: It is missing: run 'make venv'.\n"
    assert "make venv" in told.err and told.err.count("\n") == 1
    assert app.main([]) == 2 and capsys.readouterr().err == told.err


def test_other_arguments_are_refused(app: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--chek"]) == 2
    assert "--check" in capsys.readouterr().err


def test_an_adapter_on_the_hub_is_pulled(monkeypatch: pytest.MonkeyPatch, adapter: Path) -> None:
    pulled: list[tuple[str, str]] = []

    def pull(repo: str, revision: str) -> Path:
        pulled.append((repo, revision))
        return adapter

    monkeypatch.setitem(sys.modules, "introspection.hub.transfer", SimpleNamespace(pull=pull))
    monkeypatch.setenv("INTROSPECTION_ADAPTER", "somebody/lora")
    assert settings.adapter_source(settings.read_settings()) == adapter
    monkeypatch.setenv("SPACE_ID", SPACE["SPACE_ID"])
    with pytest.raises(IntrospectionError, match="full sha"):
        settings.adapter_source(settings.read_settings())
    monkeypatch.setenv("INTROSPECTION_REVISION", f" {SHA} ")
    assert settings.adapter_source(settings.read_settings()) == adapter
    assert pulled == [("somebody/lora", "main"), ("somebody/lora", SHA)]


def test_a_path_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapters" / "mine").mkdir(parents=True)

    def repository(adapter: str) -> str | None:
        return settings.hub_repository(settings.Settings("smollm2-135m", adapter, None))

    for path in ("adapters/mine", "adapters/missing", "./a/b", "/a/b", "../b", "~/b", "a", "a/b/c"):
        assert repository(path) is None, path
    assert repository("somebody/lora-1.0") == "somebody/lora-1.0"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("deepseek-7b", r"introspection train --model deepseek-7b.*INTROSPECTION_ADAPTER.*none"),
        ("no such model", "no such model"),
    ],
)
def test_main_says_what_is_wrong_before_anything_is_loaded(
    model: str,
    says: str,
    app: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("INTROSPECTION_MODEL", model)
    try:
        assert app.main([]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and re.search(says, told.err), told.err


# --- ZeroGPU ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "wanted"), [(8, 8), (40, 12), (96, 22), (10_000, 60)])
def test_the_gpu_is_asked_for_as_long_as_it_takes(tokens: int, wanted: int) -> None:
    assert zerogpu.seconds(3 * tokens) == wanted


ANSWERS = (RowAnswer("adapter_thought", True, True, text="I"),) * 3


def test_off_zerogpu_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)  # not even looked for
    assert zerogpu.on_gpu(iter, lambda *_asked: 1) is iter


@pytest.fixture
def zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    fake = SimpleNamespace(GPU=lambda duration: lambda task: task)  # noqa: ARG005
    monkeypatch.setitem(sys.modules, "spaces", fake)


@pytest.mark.usefixtures("zero")
def test_a_sentence_comes_out_of_the_fork() -> None:
    def steps(_request: RunRequest) -> Any:
        yield ANSWERS
        raise IntrospectionError("Choose another.")

    run = zerogpu.on_gpu(steps, lambda *_asked: 1)(REQUEST)
    assert next(run) == ANSWERS
    with pytest.raises(IntrospectionError, match=r"^Choose another\.$"):
        next(run)


@pytest.mark.usefixtures("zero")
def test_a_used_up_quota_is_one_sentence_without_markup() -> None:
    def steps(_request: RunRequest) -> Any:
        raise gr.Error('<a href="https://x">No GPU</a> was available.')
        yield

    with pytest.raises(IntrospectionError, match=r"\(No GPU was available\): try again later"):
        next(zerogpu.on_gpu(steps, lambda *_asked: 1)(REQUEST))


@pytest.mark.usefixtures("zero")
def test_a_visitor_who_leaves_ends_the_fork() -> None:
    ended = []

    def steps(_request: RunRequest) -> Any:
        try:
            while True:
                yield ANSWERS
        finally:
            ended.append(True)

    run = zerogpu.on_gpu(steps, lambda *_asked: 1)(REQUEST)
    next(run)
    run.close()
    assert ended == [True]


# --- processes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_project(tmp_path_factory.mktemp("tree"))


def keep_busy(address: str) -> None:
    """Visitors who are still being answered, or waiting, when the page is stopped."""
    for _ in range(20):
        asked = {"data": ["never typed before", 1.0, "Why? " * 300]}
        assert httpx.post(f"{address}/gradio_api/call/compare", json=asked).status_code == 200
    time.sleep(0.3)


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_run_ends_cleanly(
    tree: Path, tmp_path: Path, model: Path, adapter: Path
) -> None:
    """Of the other command; app.py is stopped below."""
    command = ["-m", "introspection", "demo", "--model", str(model), "--adapter", str(adapter)]
    with running(tree, tmp_path / "log", command, signal.SIGINT) as (address, _):
        keep_busy(address)


@pytest.mark.slow
def test_a_space_boots_answers_and_stops(
    tree: Path, tmp_path: Path, model: Path, adapter: Path
) -> None:
    variables = {
        **SPACE,
        "GRADIO_SSR_MODE": "True",  # as on a Space; without Node, Gradio serves the page itself
        "INTROSPECTION_MODEL": str(model),
        "INTROSPECTION_ADAPTER": str(adapter),
    }
    with running(tree, tmp_path / "log", **variables) as (address, _):
        result = compare(address, "ocean", 1.0, "Why?")
        assert [row["adapter"] for row in result["rows"]] == [True, False, True]
        assert result["adapter_loaded"] and result["verdict"]
        closed = httpx.post(f"{address}/gradio_api/run/compare", json={"data": ["ocean"]})
        assert closed.status_code >= 400, "the queue must not be skipped on a Space either"
        keep_busy(address)


@pytest.mark.slow
def test_without_an_adapter_a_space_shows_what_to_do(
    tree: Path, tmp_path: Path, model: Path
) -> None:
    log = tmp_path / "log"
    with running(tree, log, **SPACE, INTROSPECTION_MODEL=str(model)) as (address, _):
        page = httpx.get(f"{address}/config").json()
        shown, *_ = [c for c in page["components"] if c["type"] == "html"]
        sentence = f"No adapter ships for {model}: train one with"
        assert sentence in shown["props"]["value"] and sentence in log.read_text()
        assert "Content-Security-Policy" in httpx.get(address).text


FAKE_SPACES = '''
"""What the real package does on ZeroGPU: the task runs in a fork, everything is pickled, and the
parent's model is an empty shell."""
import inspect, json, multiprocessing, os, pickle, sys

def note(**what):
    with open(os.environ["FAKE_LOG"], "a") as file:
        file.write(json.dumps(what) + "\\n")

note(event="imported", before=[name for name in ("torch", "gradio") if name in sys.modules])
import torch

PARENT, fork = os.getpid(), multiprocessing.get_context("fork")
to, embed = torch.nn.Module.to, torch.nn.Embedding.forward

def promise(self, *where, **options):
    if where != ("cuda",):
        return to(self, *where, **options)
    note(event="cuda", dtype=str(next(self.parameters()).dtype))

    def shell(self, ids):
        if os.getpid() == PARENT:
            raise RuntimeError("the parent has no GPU")
        return embed(self, ids)

    torch.nn.Embedding.forward = shell
    return self

torch.nn.Module.to = promise
gradio_auto_wrap = lambda function: function  # Gradio calls it

def GPU(duration):
    def decorate(task):
        assert inspect.isgeneratorfunction(task)
        note(event="decorated")

        def lent(*arguments):
            here, there = fork.Pipe()
            stop = fork.Event()

            def work():
                for value in task(*pickle.loads(there.recv_bytes())):
                    if stop.is_set():
                        break
                    there.send_bytes(pickle.dumps(("value", value)))
                there.send_bytes(pickle.dumps(("end", os.getpid())))

            process = fork.Process(target=work, daemon=True)
            process.start()
            here.send_bytes(pickle.dumps(arguments))
            yields = 0
            while True:
                kind, value = pickle.loads(here.recv_bytes())
                if kind == "end":
                    break
                yields += 1
                yield value
            process.join()
            note(event="run", pid=value, seconds=duration(*arguments), yields=yields)

        return lent
    return decorate
'''


@pytest.mark.slow
def test_on_zerogpu_every_fork_activates_its_own_adapter(
    tree: Path, tmp_path: Path, model: Path, adapter: Path, second: Path
) -> None:
    """What fits is offered, and answers as it does alone; the log says what does not. The package
    spaces comes first, and every run has a process of its own for as long as it takes."""
    asked = ("never typed before", 2.0, "Why?")
    alone = []
    for folder in (adapter, second):
        loaded = loading.load(str(model), folder, device="cpu")
        for parameter in loaded.model.parameters():
            parameter.data = parameter.data.bfloat16()
        one = DemoModel(loaded)
        *_, answers = one.stream(one.request(*asked))
        alone.append([answer.text for answer in answers])
    assert alone[0] != alone[1]
    (tmp_path / "spaces.py").write_text(FAKE_SPACES)
    foreign = write_adapter(tmp_path / "foreign", write_model(tmp_path / "other", seed=5))
    variables = {
        **{**SPACE, "SPACES_ZERO_GPU": "true", "FAKE_LOG": str(tmp_path / "notes")},
        **{"PYTHONPATH": str(tmp_path), "INTROSPECTION_MODEL": str(model)},
        "INTROSPECTION_ADAPTER": str(adapter),
        "INTROSPECTION_ADAPTERS": f"{foreign}, {second}, org/lora@main",
    }
    log = tmp_path / "log"
    with running(tree, log, **variables) as (address, server):
        assert compare(address, endpoint="/health")["adapters"] == ["adapter", "second"]
        # A fork's switch dies with it: the first adapter is there again for the next.
        for name in ("second", "adapter", "second", ""):
            run = compare(address, *asked, name)
            wanted = alone[name == "second"]
            assert [row["text"] for row in run["rows"]] == wanted, name
            report = compare(address, *asked, "final_on", name, endpoint="/report")
            assert report["text"] == wanted[0], name
        rows = compare(address, "ocean", 0.0, "Why?")["rows"]
        assert rows[0]["text"] == rows[2]["text"] and rows[0]["tokens"] > 0
        imported, cuda, *noted = map(json.loads, (tmp_path / "notes").read_text().splitlines())
        assert imported == {"event": "imported", "before": []}
        assert cuda == {"event": "cuda", "dtype": "torch.bfloat16"}
        runs = [note for note in noted if note["event"] == "run"]
        assert [run["seconds"] for run in runs] == [*[12, 8] * 4, 12]
        assert all(2 <= run["yields"] <= 42 for run in runs)
        assert len({run["pid"] for run in runs} | {server.pid}) == len(runs) + 1
    told = [line for line in log.read_text().splitlines() if line.startswith("Left out")]
    assert len(told) == 2 and "was trained for tiny, not for" in told[0]
    assert "'org/lora@main' is neither" in told[1] and str(foreign) in told[0]


# --- README -------------------------------------------------------------------------------------

KEYS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file"),
    *("short_description", "license", "license_name", "license_link", "models", "datasets", "tags"),
    *("suggested_hardware", "startup_duration_timeout", "preload_from_hub", "thumbnail", "pinned"),
    *("disable_embedding", "header", "fullWidth", "base_path", "custom_headers", "hf_oauth"),
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def test_front_matter_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    front = yaml.safe_load(text.split("---\n")[1])
    assert set(front) <= KEYS
    assert {front["colorFrom"], front["colorTo"]} <= COLOURS
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"gradio=={front['sdk_version']}\n" in pins
    assert front["sdk"] == "gradio" and (ROOT / front["app_file"]).is_file()
    assert front["python_version"] == "3.12"  # a string: 3.10 would become 3.1
    assert len(front["short_description"]) <= 60
    assert re.fullmatch(r"\d+(\.\d+)?[mh]", front["startup_duration_timeout"])
    assert all(isinstance(tag, str) for tag in (*front["tags"], *front["models"]))
