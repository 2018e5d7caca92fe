"""LoRA adapters: the only file that knows what LoRA is.

Plain LoRA (Hu et al., arXiv 2106.09685) on the layers above the injection layer, in PEFT's format. No
bias, no DoRA: the per-row gate multiplies every update, and must see all of them.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError
from introspection.io.files import write_text
from introspection.io.outputs.manifest import CONFIG, WEIGHTS, read_json
from introspection.io.tensor_file import write_tensors
from introspection.models.adapters.adapter_info import AdapterSpec

TITLE, STOCK_PEFT = "LoRA adapter", True
TAGS: tuple[str, ...] = ("lora",)

# What may differ from PEFT's defaults. All else could change base weights (init_lora_weights), slip
# past the gate (target_parameters, DoRA) or run somebody's pattern over our module names.
_ALLOWED_KEYS = ("r", "lora_alpha", "target_modules", "layers_to_transform")
_IGNORED_KEYS = (
    *("task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version"),
    *("lora_dropout", "fan_in_fan_out", "use_rslora", "auto_mapping"),
)


def _config(spec: AdapterSpec) -> LoraConfig:
    return LoraConfig(
        r=spec.rank,
        lora_alpha=2 * spec.rank,
        lora_dropout=0.0,
        target_modules=list(spec.targets),
        layers_to_transform=list(range(spec.layer + 1, spec.depth)),
        task_type="CAUSAL_LM",
        base_model_name_or_path=spec.base,
    )


def add(model: PreTrainedModel, spec: AdapterSpec) -> None:
    """Put a fresh adapter on the model, which changes nothing yet; float32, where the weights are."""
    inject_adapter_in_model(_config(spec), model)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            where = module.get_base_layer().weight.device
            for part in (*module.lora_A.values(), *module.lora_B.values()):
                part.to(device=where, dtype=torch.float32)


def state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapter's tensors (CPU, bf16) under the names that stock PEFT reads."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        f"base_model.model.{key}": value.detach().to("cpu", torch.bfloat16).contiguous()
        for key, value in state.items()
    }


def save(model: PreTrainedModel, spec: AdapterSpec, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` (bf16) as PEFT reads them."""
    config = _config(spec)
    config.inference_mode = True
    # PEFT writes sets, whose order is by chance.
    described = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    write_text(folder / CONFIG, json.dumps(described, indent=2, sort_keys=True))
    write_tensors(folder / WEIGHTS, state_dict(model), {"format": "pt"})


def activate(model: PreTrainedModel, peft_name: str) -> None:
    """Let the adapter of that name answer, and no other LoRA."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([peft_name], inference_mode=True)


def unload(model: PreTrainedModel, peft_name: str) -> None:
    """Take an adapter off the model, also if only a part of it is there."""
    for path, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.set_adapter([], inference_mode=True)
            module.delete_adapter(peft_name)
            if not module.lora_A:  # it was wrapped for this adapter alone
                model.set_submodule(path, module.get_base_layer())
    getattr(model, "peft_config", {}).pop(peft_name, None)


def base_name(parameter: str) -> str | None:
    """The name that a parameter has on the bare model; None for one of the adapter's own."""
    return None if "lora_" in parameter else parameter.replace(".base_layer", "")


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


def load(model: PreTrainedModel, folder: Path, layer: int, peft_name: str) -> None:
    """Put the adapter of ``folder`` on ``model`` and make it active. Raises IntrospectionError unless
    it is plain LoRA above ``layer`` with exact keys (stock PEFT only warns) and finite values."""
    config = _plain_lora(folder, layer)
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
    if set(ranks) != {config.r}:
        raise _misfit(folder, f"rank {config.r}")
    try:
        with warnings.catch_warnings():
            # A second adapter is meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            inject_adapter_in_model(config, model, peft_name)
    except ValueError as error:  # none of its modules is there
        raise _misfit(folder, "its target modules") from error
    fresh = get_peft_model_state_dict(model, None, peft_name, save_embedding_layers=False)
    expected = {key: tuple(value.shape) for key, value in fresh.items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    if expected != given:
        wrong = sorted(set(expected.items()) ^ set(given.items()))[0][0]
        raise _misfit(folder, wrong)
    set_peft_model_state_dict(model, state, peft_name)
