"""A model with its injection hook: what extraction, generation and the readout work on.

Knows: the parts of it. Does not know: presets, files, adapters (``models``), which fill them in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from introspection.injection.hooks import InjectionHooks
from introspection.injection.vectors import ConceptVectors

__all__ = ["HookedModel"]


@dataclass(slots=True, eq=False)
class HookedModel:
    """A causal language model whose residual stream is read and written at layer ``layer``.

    ``norm`` is the typical residual norm there, the unit of strength; ``name`` is what was asked for
    and ``base`` names the weights, both without the path of a local folder; ``vectors`` are the
    concept vectors that are known, ``hooks`` the installed injection.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    base: str
    layer: int
    norm: float
    vectors: ConceptVectors | None = None
    hooks: InjectionHooks | None = None
    # What extraction has read of baseline words, by the prompt, site and words: their mean and their
    # typical norm.
    baselines: dict[Any, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def adapter_norm(self) -> float | None:
        """The typical norm that the adapter was trained with, None for a bare model."""
        return None
