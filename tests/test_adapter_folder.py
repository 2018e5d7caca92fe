"""The adapter folder beyond what the command line shows: stock PEFT reads it as we do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import DEPTH, LAYER
from peft import PeftModel
from safetensors.torch import load_file
from tiny_folder import edit_tensors, write_adapter, write_model
from transformers import AutoModelForCausalLM

from introspection import adapter, models
from introspection.cache import sha256_file

IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its adapter, with an effect: both halves of every update are random."""
    folder = tmp_path_factory.mktemp("stock")
    model = write_model(folder / "model")
    made = write_adapter(folder / "adapter", model)
    source = torch.Generator().manual_seed(5)
    edit_tensors(
        made / adapter.WEIGHTS,
        lambda state: {
            k: (0.3 * torch.randn(v.shape, generator=source)).to(v.dtype) for k, v in state.items()
        },
    )
    adapter.refresh_manifest(made)
    return model, made


@torch.no_grad()
def test_stock_peft_gives_the_same_logits(folders: tuple[Path, Path]) -> None:
    model, made = folders
    ours = models.load(str(model), made, device="cpu").model(IDS).logits
    base = AutoModelForCausalLM.from_pretrained(model)
    plain = base(IDS).logits
    theirs = PeftModel.from_pretrained(base, str(made)).eval()(IDS).logits
    assert torch.equal(ours, theirs)
    assert (ours - plain).abs().max() > 0.01


def test_what_is_in_the_files(folders: tuple[Path, Path]) -> None:
    _, made = folders
    document = json.loads((made / adapter.INFO).read_text(encoding="utf-8"))
    assert set(document["files"]) == {adapter.CONFIG, adapter.WEIGHTS, adapter.VECTORS}
    for name, digest in document["files"].items():
        assert sha256_file(made / name) == digest
    config = json.loads((made / adapter.CONFIG).read_text(encoding="utf-8"))
    assert config["layers_to_transform"] == list(range(LAYER + 1, DEPTH))
    assert config["lora_dropout"] == 0 and config["bias"] == "none" and config["inference_mode"]


def test_weights_go_out_and_come_back_in_bf16(folders: tuple[Path, Path]) -> None:
    model, made = folders
    loaded = models.load(str(model), made, device="cpu")
    stored, again = load_file(made / adapter.WEIGHTS), adapter.weights(loaded.model)
    assert stored.keys() == again.keys()
    for name, tensor in stored.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, again[name])


def test_the_manifest_keeps_what_it_says_and_hashes_what_is_new(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _, made = folders
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in made.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    before = adapter.read_info(copy)
    (copy / "evaluation.json").write_text("{}")
    (copy / "notes.txt").write_text("not of the contract")
    adapter.refresh_manifest(copy)
    assert adapter.read_info(copy) == before
    files = json.loads((copy / adapter.INFO).read_text(encoding="utf-8"))["files"]
    assert files["evaluation.json"] == sha256_file(copy / "evaluation.json")
    assert "notes.txt" not in files
