"""Folders that are given as an adapter and were not made by this program: what they are instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from introspection.errors import IntrospectionError
from introspection.io.outputs import manifest
from introspection.models.adapters import adapter_info
from tests.support.command import run
from tests.support.tiny import make_model
from tests.support.tiny_folder import write_adapter, write_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("made")
    return write_model(folder / "model"), write_adapter(folder / "adapter", folder / "model")


def stock(folder: Path) -> None:
    """As PEFT itself writes it."""
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], r=2)
    get_peft_model(make_model("llama"), lora).save_pretrained(folder)


def files(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"{}")

    return write


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "stock PEFT": (stock, "made by this program: it has adapter_config.json but no introspection"),
    "empty": (files(), "has no introspection.json but nothing at all"),
    "something else": (files("thesis.txt"), "has no introspection.json but such files as thesis"),
    "GGUF": (files("lora.gguf"), r"has no introspection.json but GGUF weights \(lora\.gguf\)"),
    "pickle": (files("weights.pt"), r"but pickle weights \(weights\.pt\)"),
    "a model": (files("config.json", "model.safetensors"), "holds a model and no adapter.*--model"),
    "adapters inside": (
        files("a/readme", *(f"{i}/introspection.json" for i in range(9))),
        r"folders that have one \(0, 1, 2 and others\): name one of them",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_not_ours(name: str, tmp_path: Path) -> None:
    write, says = FOLDERS[name]
    folder = tmp_path / "a"
    folder.mkdir()
    write(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(IntrospectionError, match=says) as told:
        adapter_info.read_info(folder)
    assert str(told.value).endswith(".") and "download" not in str(told.value)
    assert sorted(folder.rglob("*")) == before


def test_what_is_no_folder() -> None:
    for name, says in (
        ("org/name", "run 'python -m introspection pull org/name' and point --adapter to"),
        ("org/name@v1", "introspection pull org/name --revision v1'"),
        ("/no/such/folder", "There is no adapter folder /no/such/folder: train one"),
    ):
        with pytest.raises(IntrospectionError, match=says):
            adapter_info.read_info(Path(name))


def test_a_file(made: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = made
    with pytest.raises(IntrospectionError, match=f"is a file .*: name the folder {folder}, or"):
        adapter_info.read_info(folder / manifest.WEIGHTS)
    (tmp_path / "lora.gguf").write_bytes(b"GGUF")
    with pytest.raises(IntrospectionError, match="is a GGUF file and no adapter folder"):
        adapter_info.read_info(tmp_path / "lora.gguf")


def test_every_command_says_the_same(made: tuple[Path, Path], tmp_path: Path) -> None:
    model, _ = made
    stock(tmp_path)

    common = ("--model", model, "--adapter", tmp_path)
    for command in (("ask", "ocean"), ("evaluate", "--out", tmp_path / "e"), ("demo",)):
        done = run(*command, *common)
        assert done.exit_code == 2 and not done.stdout, (done.output, done.exception)
        assert done.stderr.startswith(f"error: The adapter in {tmp_path} was not made by this pro")
    checked = run("check", *common)
    assert checked.exit_code == 2
    assert f"problem adapter: The adapter in {tmp_path} was not made by" in checked.stdout
    pushed = run("push", "me/x", "--adapter", tmp_path)
    assert pushed.exit_code == 2 and "was not made by this program" in pushed.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    try:
        with pytest.raises(IntrospectionError, match="cannot be read"):
            adapter_info.read_info(tmp_path)
    finally:
        tmp_path.chmod(0o700)
