"""The adapter that a training begins with."""

from __future__ import annotations

import torch

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.injection.self_test import readable_model_errors, self_test
from introspection.models.adapters.adapter_info import AdapterSpec
from introspection.models.adapters.kinds import KINDS
from introspection.models.loaded_model import LoadedModel
from introspection.training.config import TrainConfig


def adapter_spec(loaded: LoadedModel, config: TrainConfig) -> AdapterSpec:
    """The shape of the adapter that ``config`` asks for on this model."""
    depth = len(hooks.decoder_layers(loaded.model))
    return AdapterSpec(loaded.layer, depth, loaded.base, config.rank, config.targets)


def add_adapter(loaded: LoadedModel, config: TrainConfig) -> None:
    """Put a fresh, seeded adapter on the layers above L; hooks and gate are installed anew.

    Raises IntrospectionError if no layer is above L or the model cannot be trained.
    """
    spec = adapter_spec(loaded, config)
    if spec.layer >= spec.depth - 1:
        raise IntrospectionError(
            f"Layer {spec.layer} is the last one, and an adapter works in the layers above: choose "
            f"a --layer from 0 to {spec.depth - 2}."
        )
    torch.manual_seed(config.seed)
    with readable_model_errors(loaded.model, "training"):
        KINDS[config.kind].add(loaded.model, spec)
    if loaded.hooks is not None:
        loaded.hooks.remove()
    loaded.hooks = hooks.install(loaded.model, loaded.layer)
    self_test(loaded.model, loaded.layer)  # base rows beside the adapter's
