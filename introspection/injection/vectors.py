"""Concept vectors, the control vectors that go with them, and their file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from introspection.errors import IntrospectionError
from introspection.io.tensor_file import write_tensors
from introspection.io.version import __version__

# "noise" is how records spell a random direction, "random" how the page does.
VectorKind = Literal["concept", "negated", "noise", "random"]


@dataclass(frozen=True, slots=True, eq=False)
class ConceptVectors:
    """Concept vectors of ``names``, and how they were extracted.

    ``vectors`` [N, D] of unit length (float32, CPU); ``magnitudes`` [N], the lengths of the differences
    before scaling; ``norm``, the typical residual norm at layer ``layer``; the ``site`` (token
    position), template, base model, baseline words and the base's fingerprint (empty in older files).
    """

    names: tuple[str, ...]
    vectors: Tensor
    magnitudes: Tensor
    norm: float
    layer: int
    site: str
    template: str
    base: str
    baseline: tuple[str, ...] = ()
    fingerprint: str = ""

    def __getitem__(self, name: str) -> Tensor:
        return self.vectors[self.names.index(name)]

    def get(self, name: str) -> Tensor | None:
        """The vector [D] of a name, or None."""
        return self[name] if name in self.names else None


def random_direction(seed: int, width: int) -> Tensor:
    """A random unit vector [D], drawn from a normal distribution with ``seed``: the control for "any
    vector of that length"."""
    drawn = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=0)


def control_vector(kind: VectorKind, vector: Tensor, seed: int) -> Tensor:
    """The vector [D] that is injected in place of a concept vector [D].

    ``noise`` and ``random`` are the random direction of ``seed``.
    """
    if kind == "concept":
        return vector
    return -vector if kind == "negated" else random_direction(seed, len(vector))


def save_vectors(vectors: ConceptVectors, path: Path) -> None:
    """Safetensors: ``vectors`` fp16 [N, D], ``magnitudes`` fp32 [N], everything else as metadata."""
    plain = ("norm", "layer", "site", "template", "base", "fingerprint")
    metadata = {name: str(getattr(vectors, name)) for name in plain} | {"version": __version__}
    for name in ("names", "baseline"):
        metadata[name] = json.dumps(getattr(vectors, name), ensure_ascii=False)
    tensors = {"vectors": vectors.vectors.half(), "magnitudes": vectors.magnitudes.float()}
    write_tensors(path, tensors, metadata)


def load_vectors(path: Path) -> ConceptVectors:
    """Read what :func:`save_vectors` wrote. Raises IntrospectionError for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            vectors = file.get_tensor("vectors").float()
            magnitudes = file.get_tensor("magnitudes").float()
        names = tuple(json.loads(meta["names"]))
        norm = float(meta["norm"])
        if (
            vectors.shape[:-1] != (len(names),)
            or magnitudes.shape != (len(names),)
            or not bool(torch.isfinite(vectors).all())
            or not bool(torch.isfinite(magnitudes).all())
            or not 0 < norm < math.inf
        ):
            raise ValueError
        return ConceptVectors(
            names,
            torch.nn.functional.normalize(vectors, dim=-1),
            magnitudes,
            norm,
            int(meta["layer"]),
            meta["site"],
            meta["template"],
            meta["base"],
            tuple(map(str, json.loads(meta.get("baseline", "[]")))),
            meta.get("fingerprint", ""),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise IntrospectionError(
            f"{Path(path).name} is not a readable file of concept vectors ({type(error).__name__}): "
            "extract them again with 'python -m introspection extract'."
        ) from error
