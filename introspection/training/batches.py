"""Which examples and which vectors a training step has. All of it follows from the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from introspection.models.loaded_model import LoadedModel
from introspection.training.config import TrainConfig
from introspection.training.data.examples import NOISE
from introspection.training.tokenization import Tokens, starts_with

POOL = 16  # batches that are sorted by length together


def make_batches(
    sequences: Sequence[Tokens], config: TrainConfig, prefix: tuple[int, ...] = ()
) -> list[tuple[int, ...]]:
    """The indices of every step of all epochs: shuffled, then cut into batches of similar length.

    The few examples that do not begin with ``prefix`` come together: they need passes of their own.
    """
    steps = []
    for epoch in range(config.epochs):
        rng = random.Random(f"{config.seed} epoch {epoch}")
        order = list(range(len(sequences)))
        rng.shuffle(order)
        # Sorting within a pool gives little padding, and still a fresh mix each epoch.
        pool = config.batch_size * POOL
        batches = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part.sort(key=lambda i: (starts_with(sequences[i], prefix), len(sequences[i].ids)))
            cuts = range(0, len(part), config.batch_size)
            batches += [part[at : at + config.batch_size] for at in cuts]
        rng.shuffle(batches)
        steps += [tuple(indices) for indices in batches]
    return steps


def sample_deltas(
    step: int,
    batch: Sequence[Tokens],
    vectors: Tensor,
    rows: Mapping[str, int],
    norm: float,
    config: TrainConfig,
) -> Tensor:
    """The deltas [B, D] of a step: vector of a random template x random strength x norm.

    ``vectors`` is [templates, N, D], ``rows`` says which of the N belongs to a concept. ``NOISE`` gets
    a random direction, an example without a concept zeros.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    low, high = (math.log(value) for value in config.strengths)
    strength = torch.exp(torch.rand(len(batch), generator=generator) * (high - low) + low)
    template = torch.randint(len(vectors), (len(batch),), generator=generator)
    noise = torch.randn(len(batch), vectors.shape[2], generator=generator)
    noise = functional.normalize(noise, dim=-1)
    row = torch.tensor([rows.get(tokens.concept or "", -1) for tokens in batch])
    delta = torch.where((row >= 0)[:, None], vectors[template, row.clamp(min=0)], 0.0)
    is_noise = torch.tensor([tokens.concept == NOISE for tokens in batch])
    delta[is_noise] = noise[is_noise]
    return delta * (strength * norm)[:, None]


def stack_vectors(
    loaded: LoadedModel,
    names: Sequence[str],
    templates: Sequence[str],
    site: str,
    baseline: Sequence[str] | None,
) -> Tensor:
    """Unit vectors [templates, N, D] of ``names``, read at ``site`` under each template."""
    options = {"site": site, "baseline": baseline}
    read = (loaded.vectors_of(names, template=template, **options) for template in templates)
    return torch.stack([one.vectors for one in read])
