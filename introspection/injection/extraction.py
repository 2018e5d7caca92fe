"""Concept vectors: mean-difference directions of the residual stream at the output of layer L.

Knows: extraction templates, the three sites. Does not know: files of vectors (``vectors``), adapters,
reports.

Method: a one-line request about a word, the residual stream at one site of it, minus the mean of
the same reading over baseline words (mean difference; Lindsey 2025, reused by arXiv 2511.21399 and
2603.21396). ``site="concept"`` averages over the concept's own tokens, the earlier words a little
louder; ``"concept_end"`` reads the last of them (the same for a one-token word), ``"last"`` the last
prompt token, as the paper does. Reading stops at layer L; the same layer is written to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from introspection.concepts.catalogue import lindsey_lists
from introspection.errors import IntrospectionError
from introspection.injection.activations import read_residuals
from introspection.injection.hooked_model import HookedModel
from introspection.injection.trials import prompt_tokens
from introspection.injection.trials.trial import PLACEHOLDER, Message, render, token_span
from introspection.injection.vectors import ConceptVectors

__all__ = [
    "TEMPLATES",
    "UNSEEN_TEMPLATE",
    "baseline_words",
    "extract",
]

Site = Literal["concept", "concept_end", "last"]

# Training reads every template; the evaluation reads UNSEEN_TEMPLATE, which no training ever saw.
TEMPLATES = (
    "Tell me about {c}",
    "Write a short text on the subject of {c}",
    "What comes to mind when you hear the word {c}",
    "Today we talk about {c}",
    "I would like to know more about {c}",
    "Let us think for a moment about {c}",
)
UNSEEN_TEMPLATE = "My favourite topic this week is {c}"


def baseline_words() -> tuple[str, ...]:
    """The 99 baseline words of Lindsey 2025, lower case."""
    return tuple(word.lower() for word in lindsey_lists()[1])


def _readings(
    loaded: HookedModel,
    names: Sequence[str],
    words: tuple[str, ...],
    template: str,
    site: Site,
    progress: Callable[[int], None] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The readings [N, D] of ``names``, and of the baseline ``words`` the mean [D] and the typical
    residual norm.

    The baseline is read once per model, prompt and site, and then kept: the result is the same, bit
    for bit, whether it was kept or read.
    """
    tokenizer = loaded.tokenizer
    # The frame of the chat template is the same for all: rendering it costs more than all else.
    before, _, after = render(tokenizer, (Message("user", PLACEHOLDER),)).partition(PLACEHOLDER)
    key = (before, after, template, site, words)  # the frame may say the day
    kept = loaded.baselines.get(key)
    unread = words if kept is None else ()
    wanted = (*unread, *names)
    frame = (before, after)
    texts = [prompt_tokens.framed(tokenizer, frame, [template.format(c=name)]) for name in wanted]
    encoded = prompt_tokens.encode(tokenizer, texts)
    rows = [list(one.ids) for one in encoded]
    places: list[list[tuple[int, int]]] = []
    at = len(before) + template.index("{c}")
    for name, one in zip(wanted, encoded, strict=True):
        if site == "last":
            places.append([(len(one.ids) - 1, len(one.ids) - 1)])
            continue
        spans = [
            token_span(one.offsets, at + word.start(), at + word.end())
            for word in re.finditer(r"\S+", name)
        ]
        places.append([(spans[-1][1],) * 2] if site == "concept_end" else spans)
    if kept is not None and progress:
        progress(len(words))
    read, norms = read_residuals(loaded.model, rows, places, progress=progress, apart=len(unread))
    own = read[len(unread) :]
    if kept is None:
        theirs = sum(len(ids) - 1 for ids in rows[: len(words)])
        # Of two threads that read it at once, the second overwrites with equal values.
        kept = loaded.baselines[key] = (read[: len(words)].mean(0), norms[:theirs].mean())
    return own, *kept


def extract(
    loaded: HookedModel,
    names: Sequence[str],
    template: str = TEMPLATES[0],
    site: Site = "concept",
    baseline: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ConceptVectors:
    """Concept vectors of ``names`` under one template, for a model from :func:`models.load`.

    Raises IntrospectionError when a vector is not finite or has no length.
    """
    words = tuple(baseline) if baseline is not None else baseline_words()
    read, mean, norm = _readings(loaded, names, words, template, site, progress)
    differences = read - mean
    magnitudes = differences.norm(dim=-1)
    if not bool(torch.isfinite(magnitudes).all()) or bool((magnitudes == 0).any()):
        raise IntrospectionError(
            "The model gave no usable concept vector (not finite or of length zero): its weights "
            "are broken or the concept equals the baseline; choose another word or model."
        )
    return ConceptVectors(
        tuple(names),
        differences / magnitudes[:, None],
        magnitudes,
        # The unit of strength: what an adapter was trained with, else what the baseline words measure,
        # which is the same for every list of names.
        float(norm) if loaded.adapter_norm is None else loaded.adapter_norm,
        loaded.layer,
        site,
        template,
        loaded.base,
        words,
    )
