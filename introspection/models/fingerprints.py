"""Which base model this is, whatever file it was loaded from and whatever adapter it carries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from introspection.injection import hooks
from introspection.models.adapters.kinds import base_name

ROWS, COLUMNS = 16, 64  # of every tensor of a layer, evenly spread


def fingerprint(model: PreTrainedModel) -> str:
    """A short text that tells one base model from another: two hashes with a dot between them.

    The first covers the norm weights and sixteen embedding rows, which neither an adapter nor
    quantisation changes. The second covers a sample of everything in the layers and of the
    unembedding, so that a base into which an adapter was merged is another one; it is left out
    where weights are quantised. Both see values as bf16, and nothing of an adapter.
    """
    embedding = model.get_input_embeddings().weight
    named = [(n, p) for n, p in sorted(model.named_parameters()) if base_name(n) is not None]
    norms = [p for name, p in named if "norm" in name and p.ndim == 1]
    parts = [_hash([embedding[:: max(len(embedding) // 16, 1)], *norms])]
    inner = _inner(model)
    # Some keep the packed numbers in buffers; the configuration says so.
    whole = getattr(model.config, "quantization_config", None) is None
    if whole and all(tensor.is_floating_point() and tensor.itemsize > 1 for tensor in inner):
        parts.append(_hash(map(_sample, inner)))
    return ".".join(parts)


def same_base(one: str, other: str) -> bool:
    """Whether two fingerprints are of one base model, as far as both say: those of quantised models,
    and those made by earlier versions, have the first part alone."""
    return all(a == b for a, b in zip(one.split("."), other.split("."), strict=False))


def _inner(model: PreTrainedModel) -> list[Tensor]:
    """The tensors of the layers, in the order of their names on the bare model, and the unembedding."""
    tensors: list[Tensor] = []
    for block in hooks.decoder_layers(model):
        named = {base_name(name): parameter for name, parameter in block.named_parameters()}
        tensors += [named[name] for name in sorted(name for name in named if name is not None)]
    head = model.get_output_embeddings()
    return tensors if head is None else [*tensors, head.weight]


def _sample(tensor: Tensor) -> Tensor:
    for axis, size in enumerate(tensor.shape):
        most = COLUMNS if axis == tensor.ndim - 1 else ROWS
        tensor = tensor[(slice(None),) * axis + (slice(None, None, -(-size // most) or 1),)]
    return tensor


def _hash(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        values = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
