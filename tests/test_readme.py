"""README.md: short enough, its Python runs as it stands, and so does every command in it.

Commands run as written, with a tiny model in place of the default one where the default would take
minutes, and with an imitation of the Hub behind ``push``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from introspection.__main__ import app
from tests.support.fake_hub import FakeHub
from tests.support.tiny_folder import write_adapter, write_model

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TOKEN = "hf_owner_0123456789"


def fenced(language: str) -> list[str]:
    """The code between fences of a language; "" for those of the shell."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
    return [code for name, code in found if name == language]


def commands() -> list[str]:
    """Every line of a shell block and every inline code that starts a program of ours."""
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    lines = [line for code in fenced("") for line in code.splitlines()]
    return sorted({line for line in [*lines, *inline] if re.match(r"(python|make) ", line)})


def test_it_is_short() -> None:
    assert len(TEXT) <= 12_000


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for path in re.findall(r"`(introspection/[\w./]+)`", TEXT):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_its_python_prints_three_strengths() -> None:
    (code,) = fenced("python")
    assert len([line for line in code.splitlines() if line.strip() and line[0] != "#"]) <= 12
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(code, "README.md", "exec"), {})
    lines = told.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["0.0", "0.5", "1.0"]
    assert "do not detect" in lines[0] and "ocean" in lines[2]


def test_there_are_commands_to_run() -> None:
    assert len(commands()) >= 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("readme")
    model = write_model(folder / "model")
    return model, write_adapter(folder / "adapter", model)


@pytest.fixture
def folder(tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout as far as a command looks: records, the adapter that ships, the documents."""
    shutil.copytree(ROOT / "adapters", tmp_path / "adapters")
    shutil.copytree(tiny[1], tmp_path / "runs" / "tiny")
    (tmp_path / "records").symlink_to(ROOT / "records")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_a_command_does_what_it_says(command: str, tiny: tuple[Path, Path], folder: Path) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and ".venv/bin/python -m" in done.stdout, done.stderr
        return
    model, adapter = map(str, tiny)
    few: dict[str, tuple[str, ...]] = {
        "train": ("--model", model, "--layer", "1", "--device", "cpu", "--examples", "8"),
        "evaluate": ("--model", model, "--adapter", adapter, "--device", "cpu"),
        "introspection_experiment.py": (
            *("--model", model, "--layer", "1", "--examples", "8", "--epochs", "1"),
            *("--device", "cpu"),
        ),
    }
    if "--adapter" in words and "ask" in words:
        few["ask"] = ("--model", model, "--device", "cpu")
    words += [word for name, more in few.items() if name in words[:3] for word in more]
    if words[:2] == ["-m", "introspection"] and "push" not in words:
        if "train" in words:
            shutil.rmtree(folder / "runs" / "tiny")
        result = CliRunner().invoke(app, words[2:])
        assert result.exit_code == 0, result.output
        assert result.output.strip()
        return
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with FakeHub() as hub:
        ours = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        environment |= ours if "push" in words else {}
        done = subprocess.run(
            [sys.executable, *(str(ROOT / w) if w.endswith(".py") else w for w in words)],
            cwd=ROOT if "--space" in words else folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
