"""A model with its injection hook: what extraction, generation and the readout work on."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from introspection.injection.hooks import InjectionHooks
from introspection.injection.vectors import ConceptVectors

# Text of the prompt before and after the message, template, site, baseline words.
BaselineKey = tuple[str, str, str, str, tuple[str, ...]]


@dataclass(slots=True, eq=False)
class HookedModel:
    """A causal language model whose residual stream is read and written at layer ``layer``.

    ``norm`` is the typical residual norm there, the unit of strength; ``name`` the model as it was
    asked for, ``base`` the name of its weights; ``vectors`` the concept vectors so far extracted.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    base: str
    layer: int
    norm: float
    vectors: ConceptVectors | None = None
    hooks: InjectionHooks | None = None
    # The mean [D] and the typical norm of baseline words that extraction has read.
    baselines: dict[BaselineKey, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def adapter_norm(self) -> float | None:
        """The typical residual norm that the adapter was trained with, None without an adapter."""
        return None
