"""A model that is ready for trials, and what it and its adapter are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from introspection.injection.extraction import extract
from introspection.injection.hooked_model import HookedModel
from introspection.injection.vectors import ConceptVectors
from introspection.io.files import cache_folder, sha256_file
from introspection.io.outputs.manifest import WEIGHTS
from introspection.models import local_paths
from introspection.models.adapters.adapter_info import AdapterInfo
from introspection.models.fingerprints import fingerprint
from introspection.models.presets import bundled_adapter


@dataclass(slots=True, eq=False)
class LoadedModel(HookedModel):
    """A model that is ready for trials: hook and gate installed and self-tested.

    ``adapter`` and its folder are None for a bare model, as ``vectors`` are.
    """

    adapter: AdapterInfo | None = None
    adapter_folder: Path | None = None
    peft_name: str = "default"  # of its adapter, where ``multi_adapter`` has put several there

    @property
    def adapter_norm(self) -> float | None:
        """The typical norm that the adapter was trained with at this layer, None for a bare model."""
        info = self.adapter
        return info.norm if info is not None and info.layer == self.layer else None

    @property
    def fingerprint_with_adapter(self) -> str:
        """Which weights answer: the base's fingerprint and the adapter's sha256, shortened."""
        if self.adapter_folder is None:
            return fingerprint(self.model)
        weights = sha256_file(self.adapter_folder / WEIGHTS)
        return f"{fingerprint(self.model)}+{weights[:12]}"

    @property
    def adapter_name(self) -> str:
        """:func:`adapter_name` of its adapter, empty without one."""
        return adapter_name(self.adapter_folder, self.name) if self.adapter_folder else ""

    def vector(self, name: str) -> Tensor:
        """The unit vector [D] of a concept: from the adapter's file, else read from the model."""
        stored = self.vectors.get(name) if self.vectors is not None else None
        return self.vectors_of([name]).vectors[0] if stored is None else stored

    def vectors_of(self, names: Sequence[str], **options: Any) -> ConceptVectors:
        """Vectors read from the model now, at the adapter's site and against its baseline words."""
        if self.adapter is not None:
            options = {"site": self.adapter.site, "baseline": self.adapter.baseline, **options}
        return extract(self, names, **options)


def adapter_name(folder: Path, model: str) -> str:
    """An adapter as people know it: the one that ships, ``org/name@revision``, a folder's name."""
    path = folder.resolve()
    if path == bundled_adapter(model):
        return f"{model} (shipped)"
    pulled = (cache_folder() / "adapters").resolve()  # org/name/sha: see hub.transfer.pull
    name = path.name
    if path.parent.parent.parent == pulled:
        name = f"{path.parent.parent.name}/{path.parent.name}@{name[:12]}"
    return local_paths.printable(name)
