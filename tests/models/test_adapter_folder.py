"""The adapter folder beyond what the command line shows: stock PEFT reads it as we do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from introspection.errors import IntrospectionError
from introspection.io.files import sha256_file
from introspection.io.outputs import manifest
from introspection.models import loading
from introspection.models.adapters import adapter_info, lora
from tests.support.tiny import DEPTH, LAYER
from tests.support.tiny_folder import edit_json, write_adapter, write_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its adapter, with an effect: both halves of every update are random."""
    folder = tmp_path_factory.mktemp("stock")
    model = write_model(folder / "model")
    made = write_adapter(folder / "adapter", model)
    source = torch.Generator().manual_seed(5)
    state = load_file(made / manifest.WEIGHTS)
    loud = {k: 0.3 * torch.randn(v.shape, generator=source) for k, v in state.items()}
    save_file({k: v.bfloat16() for k, v in loud.items()}, made / manifest.WEIGHTS)
    adapter_info.refresh_manifest(made)
    return model, made


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"lora_alpha": 3}, {"use_rslora": True}])
def test_stock_peft_gives_the_same_logits(
    changes: dict[str, Any], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model, made = folders
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    edit_json(copy / manifest.CONFIG, **changes)
    adapter_info.refresh_manifest(copy)
    ours = loading.load(str(model), copy, device="cpu").model(IDS).logits
    base = AutoModelForCausalLM.from_pretrained(model)
    plain = base(IDS).logits
    theirs = PeftModel.from_pretrained(base, str(copy)).eval()(IDS).logits
    assert torch.equal(ours, theirs)
    assert (ours - plain).abs().max() > 0.01


def test_what_is_in_the_files(folders: tuple[Path, Path]) -> None:
    model, made = folders
    config = manifest.read_json(made / manifest.CONFIG)
    assert config["layers_to_transform"] == list(range(LAYER + 1, DEPTH))
    assert config["lora_alpha"] == 2 * config["r"] and not config["use_rslora"]
    assert config["lora_dropout"] == 0 and config["bias"] == "none" and config["inference_mode"]
    stored = load_file(made / manifest.WEIGHTS)
    again = lora.state_dict(loading.load(str(model), made, device="cpu").model)
    assert stored.keys() == again.keys()
    for name, tensor in stored.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, again[name])


def test_the_manifest_keeps_what_it_says_and_hashes_what_is_new(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _, made = folders
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    before = adapter_info.read_info(copy)
    (copy / "evaluation.json").write_text("{}")
    (copy / "notes.txt").write_text("not of the contract")
    adapter_info.refresh_manifest(copy)
    assert adapter_info.read_info(copy) == before
    files = manifest.read_json(copy / manifest.INFO)["files"]
    assert files.pop(manifest.INFO)  # its own, of all the rest
    contract = (manifest.CONFIG, manifest.WEIGHTS, manifest.VECTORS, "evaluation.json")
    assert files == {name: sha256_file(copy / name) for name in contract}


def test_a_manifest_that_was_edited_by_hand(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", write_model(tmp_path / "m"))
    path, info = folder / manifest.INFO, adapter_info.read_info(folder)
    for changes in ({"trained": ["mine"]}, {"harmful": []}, {"seed": 7}, {"norm": info.norm + 1}):
        whole = path.read_text(encoding="utf-8")
        path.write_text(json.dumps({**json.loads(whole), **changes}), encoding="utf-8")
        with pytest.raises(IntrospectionError, match="introspection.json in .* was changed"):
            adapter_info.read_info(folder)
        path.write_text(json.dumps(json.loads(whole)), encoding="utf-8")  # other spacing is no edit
        assert adapter_info.read_info(folder) == info
