"""Loading a model, its tokenizer, its adapter and its vectors so that they fit each other."""

from __future__ import annotations

import math
import os
from pathlib import Path

from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.injection import hooks as injection
from introspection.injection.extraction import extract
from introspection.injection.self_test import self_test
from introspection.injection.speedups import small_batch_linear
from introspection.injection.vectors import ConceptVectors, load_vectors
from introspection.io.characters import quoted
from introspection.io.hub_ids import split_hub_id
from introspection.io.outputs.manifest import VECTORS
from introspection.models import local_paths, presets
from introspection.models.adapters import kinds
from introspection.models.adapters.adapter_info import AdapterInfo, read_info
from introspection.models.fingerprints import fingerprint, same_base
from introspection.models.loaded_model import LoadedModel
from introspection.models.weights import pretrained
from introspection.models.weights.model_files import shown
from introspection.models.weights.sources import HubRepo


def check_base(model: PreTrainedModel, folder: Path, info: AdapterInfo, name: str) -> None:
    """Raises IntrospectionError unless the adapter was trained for this base model."""
    mark = fingerprint(model)
    if same_base(mark, info.base_fingerprint):
        return
    if same_base(mark.partition(".")[0], info.base_fingerprint):
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
    vectors = load_vectors(folder / VECTORS)
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
    preset = presets.PRESETS.get(model)
    if preset is not None and isinstance(preset.weights, HubRepo):
        return preset.weights.id, preset.base_id, preset.weights.revision, preset.layer
    if preset is not None:
        return str(presets.model_folder(model)), preset.base_id, None, preset.layer
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
    if hub_id := split_hub_id(model):
        name, revision = hub_id
        return name, name, revision, None
    raise IntrospectionError(
        f"{quoted(model)} is not a model: use a preset ({', '.join(presets.PRESETS)}), a local folder "
        "or a Hub id such as org/name."
    )


def check_source(model: str) -> None:
    """Raises IntrospectionError for what :func:`load` would refuse without asking anybody."""
    if model not in presets.PRESETS:
        source = _source(model)[0]
        if os.path.isdir(source):
            pretrained.check_folder(model, source)


def load(
    model: str = presets.DEFAULT,
    adapter: str | Path | None = "shipped",
    layer: int | None = None,
    device: str | None = None,
    quantisation: pretrained.Quantisation | None = None,
) -> LoadedModel:
    """Load a model with its adapter, install hook and gate, and prove that the hook is alive.

    ``model``: a preset, a local folder or a Hub id (``org/name@revision``). ``adapter``: a folder,
    ``"shipped"`` for the one in ``adapters/`` if there is one, None for the bare model. ``layer``: None
    for the preset's or two thirds of the depth. ``device``: a torch device, ``split`` over every GPU,
    None for the best there is. Raises IntrospectionError for what does not exist, load or fit.
    """
    source, base_id, revision, preset_layer = _source(model)
    where = pretrained.placement(device, presets.full_precision(model), quantisation)
    folder = presets.bundled_adapter(model) if adapter == "shipped" else adapter and Path(adapter)
    info = read_info(folder) if folder else None
    base, tokenizer = pretrained.load_pretrained(model, source, revision, where)
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
        kinds.kind_of(folder).load(base, folder, chosen, "default")
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
