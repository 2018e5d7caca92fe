"""Extraction of concept vectors: mean-difference directions of the residual stream at layer L.

A one-line request about a word, the residual stream at one token position of it, minus the mean of the
same over baseline words (Lindsey 2025, reused by arXiv 2511.21399 and 2603.21396).
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
from introspection.injection.trials import encoding, prompt_tokens
from introspection.injection.trials.message import Message
from introspection.injection.trials.prompts import PLACEHOLDER, render
from introspection.injection.vectors import ConceptVectors

# The token position that is read: the mean over the tokens of the concept, the earlier words weighted
# a little more; the last of these tokens; or the last token of the prompt, as in arXiv 2511.21399.
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


def _read_words(
    loaded: HookedModel,
    names: Sequence[str],
    words: tuple[str, ...],
    template: str,
    site: Site,
    progress: Callable[[int], None] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The residual stream [N, D] at ``names``; its mean [D] and typical norm at the baseline ``words``,
    which are read once per model, prompt and site."""
    tokenizer = loaded.tokenizer
    # The frame of the chat template is the same for all words, and slow to render: it is rendered once.
    before, _, after = render(tokenizer, (Message("user", PLACEHOLDER),)).partition(PLACEHOLDER)
    key = (before, after, template, site, words)  # the frame may state the date
    baseline = loaded.baselines.get(key)
    unread = words if baseline is None else ()
    wanted = (*unread, *names)
    frame = (before, after)
    texts = [prompt_tokens.framed(tokenizer, frame, [template.format(c=name)]) for name in wanted]
    encoded = prompt_tokens.encode(tokenizer, texts)
    rows = [list(one.ids) for one in encoded]
    word_spans: list[list[tuple[int, int]]] = []
    at = len(before) + template.index("{c}")
    for name, one in zip(wanted, encoded, strict=True):
        if site == "last":
            word_spans.append([(len(one.ids) - 1, len(one.ids) - 1)])
            continue
        found = re.finditer(r"\S+", name)
        spans = [
            encoding.token_span(one.offsets, at + word.start(), at + word.end()) for word in found
        ]
        word_spans.append([(spans[-1][1],) * 2] if site == "concept_end" else spans)
    if baseline is not None and progress:
        progress(len(words))
    residuals, norms = read_residuals(
        loaded.model, rows, word_spans, progress=progress, isolate_first=len(unread)
    )
    if baseline is None:
        count = sum(len(ids) - 1 for ids in rows[: len(words)])  # norms of baseline tokens
        # Of two threads that read it at once, the second overwrites with equal values.
        baseline = (residuals[: len(words)].mean(0), norms[:count].mean())
        loaded.baselines[key] = baseline
    return residuals[len(unread) :], *baseline


def extract(
    loaded: HookedModel,
    names: Sequence[str],
    template: str = TEMPLATES[0],
    site: Site = "concept",
    baseline: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ConceptVectors:
    """Concept vectors of ``names``, read under ``template`` at the token position ``site``.

    ``baseline`` are the words whose mean is subtracted (by default :func:`baseline_words`);
    ``progress`` is called with the number of words that were read, these included. Raises
    IntrospectionError when a vector is not finite or zero, and for words too long for the model.
    """
    words = tuple(baseline) if baseline is not None else baseline_words()
    residuals, mean, norm = _read_words(loaded, names, words, template, site, progress)
    differences = residuals - mean
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
        # The unit of strength: the norm at the adapter's training, else that of the baseline words.
        float(norm) if loaded.adapter_norm is None else loaded.adapter_norm,
        loaded.layer,
        site,
        template,
        loaded.base,
        words,
    )
