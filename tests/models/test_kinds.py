"""A second kind of adapter: what LoRA does through the table of kinds, another can do."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.injection.plan import make_plan, use_plan
from introspection.io.outputs.manifest import CONFIG, WEIGHTS
from introspection.models import loading
from introspection.models.adapters import kinds, lora, multi_adapter
from introspection.models.adapters.adapter_info import refresh_manifest
from introspection.models.fingerprints import fingerprint
from tests.support.tiny import LAYER, WIDTH
from tests.support.tiny_folder import edit_json, write_adapter, write_loud_adapter, write_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41]] * 2)


class _Shift(nn.Module):
    """Adds a vector [D] behind the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.ParameterDict()
        self.scaling: dict[str, float] = {}
        self.active = ""

    def forward(self, hidden: Tensor) -> Tensor:
        if self.active not in self.shift:
            return hidden
        update = self.shift[self.active].to(hidden).expand(len(hidden), 1, -1)
        return hidden + update * self.scaling[self.active]


def _shift(model: Any) -> Any:
    last = hooks.decoder_layers(model)[-1]
    if not hasattr(last, "toy"):
        last.add_module("toy", _Shift())
        last.register_forward_hook(lambda layer, _, output: layer.toy(output))
    return last.toy


def _load(model: Any, folder: Path, _layer: int, peft_name: str) -> None:
    toy = _shift(model)
    toy.shift[peft_name] = nn.Parameter(load_file(folder / WEIGHTS)["shift"])
    toy.scaling[peft_name], toy.active = 1.0, peft_name


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = ModuleType("toy")
    kind.TITLE, kind.TAGS, kind.STOCK_PEFT = "toy adapter", ("toy",), False
    kind.load = _load
    kind.activate = lambda model, name: setattr(_shift(model), "active", name)
    kind.base_name = lambda name: None if "toy.shift" in name else name
    monkeypatch.setattr(kinds, "KINDS", {**kinds.KINDS, "TOY": kind})


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, an adapter of the other kind and a LoRA for it."""
    model = write_model(tmp_path / "model")
    other = write_adapter(tmp_path / "toy", model)
    (other / CONFIG).write_text(json.dumps({"peft_type": "TOY"}))
    save_file({"shift": torch.linspace(-2, 2, WIDTH)}, other / WEIGHTS, {"format": "pt"})
    refresh_manifest(other)
    return model, other, write_loud_adapter(tmp_path / "lora", model, 3)


@torch.no_grad()
def rows(loaded: Any) -> Tensor:
    """Logits of an adapter row and of a base row, in one batch."""
    plan = make_plan(None, [(0, None)] * 2, [True, False], "cpu", torch.float32)
    with use_plan(plan):
        return loaded.model(IDS).logits


@pytest.mark.usefixtures("toy")
def test_another_kind_is_loaded_gated_by_row_and_switched(
    folders: tuple[Path, Path, Path],
) -> None:
    model, other, with_lora = folders
    bare = loading.load(str(model), adapter=None, layer=LAYER, device="cpu")
    plain, mark = bare.model(IDS).logits, fingerprint(bare.model)
    loaded = loading.load(str(model), other, device="cpu")
    assert fingerprint(loaded.model) == mark
    assert list(kinds.trainable_parameters(loaded.model)) == ["model.layers.3.toy.shift.default"]
    adapter, base = first = rows(loaded)
    assert torch.equal(base, plain[1]) and (adapter - base).abs().max() > 0.01
    # A LoRA beside it: each answers alone, as if the other were not there.
    second = multi_adapter.load_adapter(loaded, with_lora)
    assert kinds.adapter_names(loaded.model) == {"default", "adapter-001"}
    assert torch.equal(rows(loaded), first)
    multi_adapter.set_adapter(second, [loaded, second])
    assert torch.equal(rows(second), rows(loading.load(str(model), with_lora, device="cpu")))
    multi_adapter.set_adapter(loaded, [loaded, second])
    assert torch.equal(rows(loaded), first)


@pytest.mark.parametrize("kind", ["TOY", None, ["LORA"], {"a": 1}])
def test_a_kind_that_nobody_knows(kind: Any, folders: tuple[Path, Path, Path]) -> None:
    model, _, with_lora = folders
    edit_json(with_lora / CONFIG, peft_type=kind)
    refresh_manifest(with_lora)
    assert kinds.kind_of(with_lora) is lora
    with pytest.raises(IntrospectionError, match="is not plain LoRA"):
        loading.load(str(model), with_lora, device="cpu")
