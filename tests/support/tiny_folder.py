"""A tiny random Llama as a folder, and a valid adapter folder for it, as a user would have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from introspection.injection.vectors import save_vectors
from introspection.io.outputs import manifest
from introspection.models import loading
from introspection.models.adapters import adapter_info, lora
from introspection.models.fingerprints import fingerprint
from tests.support.tiny import DEPTH, LAYER, make_model, make_tokenizer

TARGETS = ("q_proj", "v_proj")


def write_model(folder: Path, seed: int = 0) -> Path:
    """Config, safetensors, tokenizer with a ChatML template; another seed is another model."""
    model = make_model("llama")
    if seed:
        source = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=source)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def write_adapter(
    folder: Path,
    model: Path,
    layer: int = LAYER,
    depth: int = DEPTH,
    base_id: str = "tiny",
    rank: int = 4,
) -> Path:
    """An untrained but complete adapter folder for ``model``, written as training writes it."""
    loaded = loading.load(str(model), adapter=None, layer=layer)
    vectors = loaded.vectors_of(["ocean", "bomb"])
    spec = adapter_info.AdapterSpec(layer, depth, base_id, rank, TARGETS)
    torch.manual_seed(1)
    lora.add(loaded.model, spec)
    folder.mkdir()
    lora.save(loaded.model, spec, folder)
    save_vectors(vectors, folder / manifest.VECTORS)
    info = adapter_info.AdapterInfo(
        base_id=base_id,
        base_fingerprint=fingerprint(loaded.model),
        layer=layer,
        norm=loaded.norm,
        site=vectors.site,
        schedule="final_on",
        strengths=(0.25, 2.0),
        templates=(vectors.template,),
        baseline=("house", "tree"),
        trained=("ocean",),
        vocabulary=(),
        harmful=("bomb",),
        halts=True,
        seed=1,
        command="test",
        versions={"torch": torch.__version__},
        config={},
    )
    adapter_info.refresh_manifest(folder, info)
    return folder


def write_loud_adapter(folder: Path, model: Path, seed: int, **options: Any) -> Path:
    """An adapter folder whose random weights change most answers."""
    write_adapter(folder, model, **options)
    source = torch.Generator().manual_seed(seed)

    def drawn(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name: (0.3 * torch.randn(value.shape, generator=source)).to(value.dtype)
            for name, value in state.items()
        }

    edit_tensors(folder / manifest.WEIGHTS, drawn)
    adapter_info.refresh_manifest(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change fields; of a manifest the hash of itself goes, as an earlier version wrote none."""
    document = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    if path.name == manifest.INFO and isinstance(document.get("files"), dict):
        document["files"] = {n: v for n, v in document["files"].items() if n != manifest.INFO}
    path.write_text(json.dumps(document), encoding="utf-8")


def edit_tensors(path: Path, change: Any) -> None:
    """Replace the tensors of a safetensors file by ``change(tensors)``."""
    save_file(change(load_file(path)), path, {"format": "pt"})
