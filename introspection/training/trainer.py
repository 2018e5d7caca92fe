"""The steps of a training: which examples, which thoughts, which gradients.

Knows: batches, what is injected in each, what is read once and replayed, how much memory and time a
step takes. Does not know: the optimizer (``training``), what one example costs (``loss``).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.models import distributed
from introspection.models.adapters.kinds import trainable_parameters
from introspection.models.loaded_model import LoadedModel
from introspection.training.data.activation_cache import ResidualCache, shared_opening
from introspection.training.data.examples import NOISE
from introspection.training.data.teacher import Teacher
from introspection.training.loss import (
    Tokens,
    autocast,
    max_tokens_per_pass,
    micro_batch_losses,
    starts_with,
)

__all__ = ["Forecast", "TrainConfig", "Trainer"]

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides the result, beside the examples and the vectors.

    ``strengths`` (rho, low and high) are drawn log-uniformly for every example and epoch.
    """

    epochs: int = 3
    batch_size: int = 256
    learning_rate: float = 7e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    rank: int = 32
    targets: tuple[str, ...] = TARGETS
    strengths: tuple[float, float] = (0.25, 2.0)
    replay_weight: float = 3.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training will take: its optimizer steps, seconds for all of them, the largest memory on
    the GPU in bytes (0 without one), and how many numbers are trained."""

    steps: int
    seconds: float
    peak: int
    trained: int


def _batches(
    sequences: Sequence[Tokens], config: TrainConfig, opening: tuple[int, ...] = ()
) -> list[tuple[int, ...]]:
    """The indices of every step: shuffled, then cut into batches of similar length.

    The few examples that do not begin with ``opening`` come together: they need passes of their own.
    """
    steps = []
    for epoch in range(config.epochs):
        rng = random.Random(f"{config.seed} epoch {epoch}")
        order = list(range(len(sequences)))
        rng.shuffle(order)
        # Sort within pools of sixteen batches: little padding, and still a fresh mix each epoch.
        pool = config.batch_size * 16
        cut = []
        for start in range(0, len(order), pool):
            part = sorted(
                order[start : start + pool],
                key=lambda i: (starts_with(sequences[i], opening), len(sequences[i].ids)),
            )
            cut += [
                part[at : at + config.batch_size] for at in range(0, len(part), config.batch_size)
            ]
        rng.shuffle(cut)
        steps += [tuple(indices) for indices in cut]
    return steps


def sample_deltas(
    step: int,
    chosen: Sequence[Tokens],
    vectors: Tensor,
    rows: dict[str, int],
    norm: float,
    config: TrainConfig,
) -> Tensor:
    """The deltas [B, D] of a step: vector of a random template x random strength x norm."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    low, high = (math.log(value) for value in config.strengths)
    strength = torch.exp(torch.rand(len(chosen), generator=generator) * (high - low) + low)
    template = torch.randint(len(vectors), (len(chosen),), generator=generator)
    noise = functional.normalize(
        torch.randn(len(chosen), vectors.shape[2], generator=generator), dim=-1
    )
    named = torch.tensor([rows.get(s.concept or "", -1) for s in chosen])
    picked = torch.where((named >= 0)[:, None], vectors[template, named.clamp(min=0)], 0.0)
    random_ = torch.tensor([s.concept == NOISE for s in chosen])
    picked[random_] = noise[random_]
    return picked * (strength * norm)[:, None]


class Trainer:
    """A training that is ready to step: its batches, and what is read once and replayed.

    Several processes (``accelerate launch``) have examples of their own, and keep the residuals of
    those alone; together they go through the steps of one.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        tokens: Sequence[Tokens],
        vectors: Tensor,
        names: Sequence[str],
        config: TrainConfig,
    ) -> None:
        self.loaded, self.tokens, self.vectors, self.config = loaded, tokens, vectors, config
        self.rows = {name: i for i, name in enumerate(names)}
        missing = {s.concept for s in tokens} - set(self.rows) - {None, NOISE}
        if missing:
            raise ValueError(f"no vector for {sorted(map(str, missing))[:3]}")
        self.opening = shared_opening(loaded.tokenizer)
        self.steps = _batches(tokens, config, self.opening)
        self.proven = False  # that this kind of model can be replayed and trained at all
        self.parameters = trainable_parameters(loaded.model)
        self.device = next(iter(self.parameters.values())).device

    def read(self) -> None:
        """Residuals and the base model's answers; the frozen matrices must be cast already."""
        with hooks.readable_model_errors(self.loaded.model, "training"):
            self._read()

    def _read(self) -> None:
        large = self.device.type == "cuda"
        # A pass of its own over the opening saves work, which is what counts on a CPU; on a GPU the
        # number of passes counts.
        self.apart = () if large else self.opening
        self.own = set(distributed.split_between_processes(range(len(self.tokens))))
        mine = [self.tokens[i] for i in sorted(self.own)]
        at_once = 16_384 if large else 2_048
        self.cache = ResidualCache(
            self.loaded.model, [one.ids for one in mine], at_once, opening=self.opening
        )
        replayed = [(one.ids, one.target) for one in mine if one.replay]
        self.teacher = Teacher(self.loaded, self.cache, replayed, at_once, autocast(self.device))
        self.most = max_tokens_per_pass(self.loaded)

    def gradients(self, step: int) -> Tensor:
        """Leave the gradients of a step in the parameters; returns its mean loss."""
        doubt = (
            nullcontext()
            if self.proven
            else hooks.readable_model_errors(self.loaded.model, "training")
        )
        with doubt:
            loss = self._gradients(step)
        self.proven = True
        return loss

    def _gradients(self, step: int) -> Tensor:
        chosen = self.steps[step]
        delta = sample_deltas(
            step,
            [self.tokens[i] for i in chosen],
            self.vectors,
            self.rows,
            self.loaded.norm,
            self.config,
        )
        mine = [k for k, i in enumerate(chosen) if i in self.own]
        for parameter in self.parameters.values():
            parameter.grad = None
        loss = torch.zeros((), device=self.device)
        for share in micro_batch_losses(
            self.loaded,
            self.cache,
            self.teacher,
            [self.tokens[chosen[k]] for k in mine],
            delta[mine],
            self.config.replay_weight,
            self.apart,
            self.most,
            len(chosen),
        ):
            share.backward()
            loss += share.detach().to(self.device)  # a split model ends on its last GPU
        for parameter in self.parameters.values():
            if parameter.grad is None:  # a process that has no example in this step
                parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce_sum(
            [loss, *(p.grad for p in self.parameters.values() if p.grad is not None)]
        )
        return loss

    def forecast(self) -> Forecast:
        """Try the longest batch, where memory is tightest, and time one of middling length.

        Raises IntrospectionError when the GPU's memory does not suffice.
        """
        order = sorted(
            range(len(self.steps)),
            key=lambda s: max(len(self.tokens[i].ids) for i in self.steps[s]),
        )
        large, began = self.device.type == "cuda", 0.0
        try:
            for step in (order[-1], order[len(order) // 2]):
                began = time.monotonic()
                float(self.gradients(step))
        except torch.OutOfMemoryError as error:
            raise IntrospectionError(
                "The memory of the GPU does not suffice for the longest batch: free some, take fewer "
                "--examples, --quantise the model or run it with --device split."
            ) from error
        return Forecast(
            len(self.steps),
            (time.monotonic() - began) * len(self.steps),
            torch.cuda.max_memory_allocated(self.device) if large else 0,
            sum(parameter.numel() for parameter in self.parameters.values()),
        )
