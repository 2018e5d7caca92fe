"""Several adapters on one base model in memory, one of them active at a time.

Knows: PEFT's named adapters, which of them counts, where the injection hook stands. Does not know:
who chooses, or the lock that whoever runs the model has to hold.

Every adapter has a :class:`LoadedModel` of its own (layer, norm, vectors, what was read of baseline
words), so nothing that belongs to one is ever seen under another; all of them share the weights. The
one that is active is the one that has the hooks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from introspection.injection import hooks as injection
from introspection.injection.self_test import self_test
from introspection.models.adapters import adapter_info
from introspection.models.loading import LoadedModel, check_base, load_adapter_vectors

__all__ = ["load_adapter", "set_adapter"]


def load_adapter(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The model of ``loaded``, which is active and stays so, with the adapter in ``folder`` as well.

    Adapters may differ in rank, modules and layer. Raises IntrospectionError for everything that
    does not load or fit, as ``models.load`` does, and leaves nothing of it on the model.
    """
    model, slot = loaded.model, f"adapter-{len(getattr(loaded.model, 'peft_config', ())):03d}"
    info = adapter_info.read_info(folder)
    check_base(model, folder, info, loaded.name)
    other = replace(
        loaded,
        layer=info.layer,
        norm=info.norm,
        adapter=info,
        adapter_folder=folder,
        hooks=None,
        slot=slot,
    )
    assert loaded.hooks is not None
    loaded.hooks.remove()
    try:
        adapter_info.load_lora(model, folder, info.layer, slot)
        model.eval().requires_grad_(False)
        other.vectors = load_adapter_vectors(model, folder, info.layer, info.norm)
        hooks = injection.install(model, info.layer)
        try:
            self_test(model, info.layer)
        finally:
            hooks.remove()
    except BaseException:
        _unload(model, slot)
        raise
    finally:
        loaded.hooks = injection.install(model, loaded.layer)  # and the gate on what was added
        set_adapter(loaded, [loaded])
    return other


def set_adapter(chosen: LoadedModel, among: Iterable[LoadedModel]) -> None:
    """Make the adapter of ``chosen`` the one that answers. Nobody else may be using the model."""
    for module in chosen.model.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([chosen.slot], inference_mode=True)
    if chosen.hooks is None:
        before = next(other for other in among if other.hooks is not None)
        assert before.hooks is not None
        moved = injection.move_hook(chosen.model, before.hooks, chosen.layer)
        before.hooks, chosen.hooks = None, moved


def _unload(model: PreTrainedModel, slot: str) -> None:
    """Remove an adapter that may be there in part."""
    for path, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.set_adapter([], inference_mode=True)
            module.delete_adapter(slot)
            if not module.lora_A:  # it was wrapped for this adapter alone
                model.set_submodule(path, module.get_base_layer())
    getattr(model, "peft_config", {}).pop(slot, None)
