"""Several adapters on one base model in memory, one of them active at a time.

Every adapter has a :class:`LoadedModel` of its own; all share the weights, and the active one has the
hooks. Whoever runs or switches the model must hold a lock: there is none here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from introspection.injection import hooks as injection
from introspection.injection.self_test import self_test
from introspection.models.adapters import adapter_info, kinds
from introspection.models.loaded_model import LoadedModel
from introspection.models.loading import check_base, load_adapter_vectors


def load_adapter(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The model of ``loaded``, which is active and stays so, with the adapter in ``folder`` as well.

    Raises IntrospectionError as ``loading.load`` does, and leaves nothing of the adapter on the model.
    """
    model = loaded.model
    peft_name = f"adapter-{len(kinds.adapter_names(model)):03d}"
    info = adapter_info.read_info(folder)
    check_base(model, folder, info, loaded.name)
    kind = kinds.kind_of(folder)
    other = replace(loaded, layer=info.layer, norm=info.norm, hooks=None, peft_name=peft_name)
    other.adapter, other.adapter_folder = info, folder
    assert loaded.hooks is not None
    loaded.hooks.remove()
    try:
        kind.load(model, folder, info.layer, peft_name)
        model.eval().requires_grad_(False)
        other.vectors = load_adapter_vectors(model, folder, info.layer, info.norm)
        hooks = injection.install(model, info.layer)
        try:
            self_test(model, info.layer)
        finally:
            hooks.remove()
    except BaseException:
        kind.unload(model, peft_name)
        raise
    finally:
        loaded.hooks = injection.install(model, loaded.layer)  # and the gate on what was added
        set_adapter(loaded, [loaded])
    return other


def set_adapter(chosen: LoadedModel, among: Iterable[LoadedModel]) -> None:
    """Make the adapter of ``chosen`` the one that answers. Nobody else may be using the model."""
    kinds.activate(chosen.model, chosen.peft_name)
    if chosen.hooks is None:
        before = next(other for other in among if other.hooks is not None)
        assert before.hooks is not None
        moved = injection.move_hook(chosen.model, before.hooks, chosen.layer)
        before.hooks, chosen.hooks = None, moved
