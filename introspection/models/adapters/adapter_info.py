"""The adapter folder: the contract between training, the demo and the Hub.

Knows: which files it holds, what ``introspection.json`` says, how all of it is checked before one
byte is used. Does not know: how an adapter is trained or what it is good for.

Files: ``adapter_config.json``, ``adapter_model.safetensors`` (bf16, loads with stock PEFT),
``vectors.safetensors``, ``introspection.json``, ``evaluation.json``, ``README.md``. Nothing is ever
unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted
from introspection.io.files import sha256_file, write_text
from introspection.io.tensor_file import write_tensors
from introspection.models.adapters import foreign

__all__ = [
    "SCHEMA",
    "AdapterInfo",
    "load_lora",
    "lora_config",
    "lora_state_dict",
    "read_info",
    "refresh_manifest",
    "save_config",
    "save_weights",
    "write_manifest",
]

SCHEMA = 1
WEIGHTS, CONFIG, VECTORS, INFO = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "vectors.safetensors",
    "introspection.json",
)
# Everything an adapter folder may contain; other files are never read and never uploaded.
FILES = (WEIGHTS, CONFIG, VECTORS, INFO, "evaluation.json", "README.md")


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """``introspection.json`` without its file list: what the adapter was trained on and for.

    ``trained`` are the catalogue concepts, ``vocabulary`` the further names it has seen.
    """

    base_id: str
    base_fingerprint: str
    layer: int
    norm: float
    site: str
    schedule: str
    strengths: tuple[float, float]
    templates: tuple[str, ...]
    baseline: tuple[str, ...]
    trained: tuple[str, ...]
    vocabulary: tuple[str, ...]
    harmful: tuple[str, ...]
    halts: bool
    seed: int
    command: str
    versions: Mapping[str, str]
    config: Mapping[str, Any]


def lora_config(
    layer: int, depth: int, targets: tuple[str, ...], rank: int, base: str
) -> LoraConfig:
    """Plain LoRA on the layers above ``layer``: vectors read at ``layer`` from the base model stay
    valid under the adapter, and the per-row gate stays exact (no bias, no DoRA)."""
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=list(targets),
        layers_to_transform=list(range(layer + 1, depth)),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )


def lora_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapter's tensors (CPU, bf16) under the names that stock PEFT reads."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        f"base_model.model.{key}": value.detach().to("cpu", torch.bfloat16).contiguous()
        for key, value in state.items()
    }


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """``adapter_model.safetensors`` in bf16."""
    write_tensors(folder / WEIGHTS, lora_state_dict(model), {"format": "pt"})


def save_config(config: LoraConfig, folder: Path) -> None:
    """``adapter_config.json`` as PEFT writes it, but for the order of its sets, which is by chance."""
    described = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    write_text(folder / CONFIG, json.dumps(described, indent=2, sort_keys=True))


def refresh_manifest(folder: Path, info: AdapterInfo | None = None) -> None:
    """Write ``introspection.json`` with the sha256 of every other file of the contract."""
    described = read_json(folder / INFO) if info is None else asdict(info)
    described.pop("schema", None)
    described.pop("files", None)
    described.pop("replaces", None)
    hashes = {
        name: sha256_file(folder / name)
        for name in FILES
        if name != INFO and (folder / name).is_file()
    }
    write_manifest(folder, {"schema": SCHEMA, **described, "files": hashes})


def write_manifest(folder: Path, document: Mapping[str, Any]) -> None:
    """``introspection.json``; among its hashes is its own, of all the rest."""
    sealed = {**document, "files": {**document["files"], INFO: _manifest_sha256(document)}}
    write_text(folder / INFO, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")


def _manifest_sha256(document: Mapping[str, Any]) -> str:
    others = {name: value for name, value in document["files"].items() if name != INFO}
    text = json.dumps({**document, "files": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > 8_000_000:
            raise ValueError("too large")
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise IntrospectionError(
            f"{path.name} in the adapter folder {path.parent} cannot be read "
            f"({error.__class__.__name__}): download or train the adapter again."
        ) from error
    return document


def read_info(folder: Path) -> AdapterInfo:
    """Check the whole folder against its manifest and return what it says.

    Raises IntrospectionError that names the first thing that does not fit.
    """
    try:
        return _read_info(folder)
    except OSError as error:  # no permission, a name that is too long, a disk that fails
        raise IntrospectionError(
            f"The adapter folder {quoted(str(folder))} cannot be read ({error.strerror}): name "
            "another or mend its permissions."
        ) from error


def _read_info(folder: Path) -> AdapterInfo:
    if not folder.is_dir():
        raise foreign.no_folder(folder, INFO)
    if not (folder / INFO).is_file():
        raise foreign.no_adapter(folder, INFO)
    if not (folder / WEIGHTS).is_file():
        pickled = [p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
        if pickled:
            raise IntrospectionError(
                f"The adapter folder {folder} has only pickle weights ({min(pickled)}), which can "
                "run code and are never loaded: ask for adapter_model.safetensors."
            )
    for name in (CONFIG, WEIGHTS, VECTORS):
        if not (folder / name).is_file():
            raise IntrospectionError(
                f"The adapter folder {folder} has no {name}: download or train the adapter again."
            )
    document = read_json(folder / INFO)
    if document.get("schema") != SCHEMA:
        raise IntrospectionError(
            f"The adapter in {folder} has schema {quoted(str(document.get('schema')))}, this "
            f"program reads {SCHEMA}: install the version of introspection that wrote it."
        )
    written = dict(document)
    hashes = document.pop("files", None)
    document.pop("schema")
    document.pop("replaces", None)  # see adapter_folder
    try:
        low, high = (float(value) for value in document["strengths"])
        document["strengths"] = (low, high)
        document["norm"] = float(document["norm"])
        for key in ("templates", "baseline", "trained", "vocabulary", "harmful"):
            document[key] = tuple(str(value) for value in document[key])
        info = AdapterInfo(**document)
        if type(info.base_fingerprint) is not str or type(info.base_id) is not str:
            raise ValueError("base_id or base_fingerprint is no text")
        if type(info.layer) is not int or not 0 < info.norm < math.inf or not 0 <= low <= high:
            raise ValueError("layer, norm or strengths out of range")
        expected = {str(name): str(value) for name, value in hashes.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntrospectionError(
            f"introspection.json in {folder} lacks or garbles a field ({error}): download or train "
            "the adapter again."
        ) from error
    for name in (CONFIG, WEIGHTS, VECTORS):
        if expected.get(name) != sha256_file(folder / name):
            raise IntrospectionError(
                f"{name} in {folder} is damaged or was changed (its sha256 is not the one in "
                "introspection.json): download or train the adapter again."
            )
    # Earlier versions wrote no hash of the manifest itself.
    if expected.get(INFO, _manifest_sha256(written)) != _manifest_sha256(written):
        raise IntrospectionError(
            f"introspection.json in {folder} was changed since this program wrote it: download or "
            "train the adapter again."
        )
    return info


# What may differ from PEFT's defaults. All else could change base weights (init_lora_weights), slip
# past the gate (target_parameters, DoRA) or run somebody's pattern over our module names.
_ALLOWED_KEYS = ("r", "lora_alpha", "target_modules", "layers_to_transform")
_IGNORED_KEYS = (
    *("task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version"),
    *("lora_dropout", "fan_in_fan_out", "use_rslora", "auto_mapping"),
)


def _plain_lora(folder: Path, layer: int) -> LoraConfig:
    """The LoRA that ``adapter_config.json`` describes, if it is of the kind we train."""
    config = read_json(folder / CONFIG)
    usual = LoraConfig().to_dict()
    unsupported = [
        key
        for key, value in config.items()
        if key not in (*_ALLOWED_KEYS, *_IGNORED_KEYS) and value and value != usual.get(key)
    ]
    modules, blocks = config.get("target_modules"), config.get("layers_to_transform")
    plain = (
        not unsupported
        and config.get("peft_type") == "LORA"
        and type(config.get("r")) is int
        and isinstance(config.get("lora_alpha"), int | float)
        and isinstance(modules, list)
        and all(isinstance(name, str) for name in modules)
        and isinstance(blocks, list)
        and all(type(block) is int for block in blocks)
    )
    if not plain or config["r"] < 1:
        raise IntrospectionError(
            f"The adapter in {folder} is not plain LoRA "
            f"({', '.join(unsupported)[:80] or 'type, rank or modules'}): base and adapter rows "
            "could not share a batch; train it with this program."
        )
    if not blocks or min(blocks) <= layer:
        raise IntrospectionError(
            f"The adapter in {folder} changes layers at or below the injection layer {layer}, "
            "where concept vectors are read: train it with this program."
        )
    chosen = (*_ALLOWED_KEYS, "fan_in_fan_out", "use_rslora")
    return LoraConfig(**{key: config[key] for key in chosen if key in config})


def _misfit(folder: Path, what: str) -> IntrospectionError:
    return IntrospectionError(
        f"The adapter in {folder} does not fit this model (first difference: {what}): choose the "
        "model it was trained for or another adapter."
    )


def load_lora(model: PreTrainedModel, folder: Path, layer: int, slot: str = "default") -> None:
    """Put the checked adapter of ``folder`` on ``model``: exact keys, finite values, plain LoRA.

    ``slot`` is what PEFT calls it; a model may have several, of which the last one is active.

    Raises IntrospectionError where stock PEFT would warn and go on with random weights.
    """
    lora = _plain_lora(folder, layer)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError) as error:
        raise IntrospectionError(
            f"{WEIGHTS} in {folder} is truncated or not a safetensors file: download or train the "
            "adapter again."
        ) from error
    if any(not bool(torch.isfinite(value).all()) for value in state.values()):
        raise IntrospectionError(
            f"The adapter in {folder} contains NaN or infinite weights: train it again."
        )
    state = {key.removeprefix("base_model.model."): value for key, value in state.items()}
    # Before PEFT sets aside memory for whatever rank the file claims.
    ranks = [value.shape[0] for key, value in state.items() if "lora_A" in key and value.ndim == 2]
    if set(ranks) != {lora.r}:
        raise _misfit(folder, f"rank {lora.r}")
    try:
        with warnings.catch_warnings():
            # A second adapter is meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            inject_adapter_in_model(lora, model, slot)
    except ValueError as error:  # none of its modules is there
        raise _misfit(folder, "its target modules") from error
    expected = {
        key: tuple(v.shape)
        for key, v in get_peft_model_state_dict(
            model, adapter_name=slot, save_embedding_layers=False
        ).items()
    }
    given = {key: tuple(value.shape) for key, value in state.items()}
    if expected != given:
        wrong = sorted(set(expected.items()) ^ set(given.items()))[0][0]
        raise _misfit(folder, wrong)
    set_peft_model_state_dict(model, state, slot)
