"""The kinds of adapter that can be trained and loaded, in one table.

A kind is a module with the functions of :class:`AdapterKind`. To add one, write the module and put it
into ``KINDS`` under the ``peft_type`` of its ``adapter_config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import nn
from transformers import PreTrainedModel

from introspection.injection.row_gate import gated_modules
from introspection.io.outputs.manifest import CONFIG, read_json
from introspection.models.adapters import lora
from introspection.models.adapters.adapter_info import AdapterSpec


class AdapterKind(Protocol):
    """What a kind of adapter must be able to do.

    Its modules multiply their update [B, T, D] by ``scaling[name]``, a ``dict[str, float]`` by the
    name of the adapter. The row gate finds them by that attribute (``injection.row_gate``).
    """

    TITLE: str  # what the card calls it
    TAGS: tuple[str, ...]  # further tags of the card
    STOCK_PEFT: bool  # whether ``PeftModel.from_pretrained`` reads its folder

    def add(self, model: PreTrainedModel, spec: AdapterSpec) -> None:
        """Put a fresh adapter, which changes nothing yet, on the model; parameters in float32."""

    def save(self, model: PreTrainedModel, spec: AdapterSpec, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` (bf16)."""

    def load(self, model: PreTrainedModel, folder: Path, layer: int, peft_name: str) -> None:
        """Check the files of ``folder`` and put the adapter on the model, above ``layer``, active.

        Raises IntrospectionError for whatever does not fit the model or the row gate.
        """

    def activate(self, model: PreTrainedModel, peft_name: str) -> None:
        """Let the adapter of that name answer, and no other of this kind."""

    def unload(self, model: PreTrainedModel, peft_name: str) -> None:
        """Take an adapter off the model, also if only a part of it is there."""

    def base_name(self, parameter: str) -> str | None:
        """The name that a parameter has on the bare model; None for the adapter's own parameters."""


KINDS: Mapping[str, AdapterKind] = {"LORA": lora}


def kind_of(folder: Path) -> AdapterKind:
    """The kind of the adapter in ``folder``; one that nobody knows is refused by LoRA's loader."""
    return KINDS.get(str(read_json(folder / CONFIG).get("peft_type")), lora)


def activate(model: PreTrainedModel, peft_name: str) -> None:
    """Let the adapter ``peft_name`` answer, of whichever kind it is, and no other."""
    for kind in KINDS.values():
        kind.activate(model, peft_name)


def adapter_names(model: nn.Module) -> set[str]:
    """The names of the adapters that are on the model."""
    return {name for module in gated_modules(model) for name in module.scaling}


def base_name(parameter: str) -> str | None:
    """:meth:`AdapterKind.base_name`, whatever kinds of adapter are on the model."""
    for kind in KINDS.values():
        bare = kind.base_name(parameter)
        if bare is None:
            return None
        parameter = bare
    return parameter


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapters on the model, by name."""
    return {n: p for n, p in model.named_parameters() if base_name(n) is None}
