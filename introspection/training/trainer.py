"""The training of an adapter above layer L, on residuals that are computed once and replayed.

The only place with an optimizer. Several processes (``accelerate launch``) share every step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from introspection.errors import IntrospectionError
from introspection.injection.self_test import readable_model_errors
from introspection.models import distributed
from introspection.models.adapters.kinds import trainable_parameters
from introspection.models.loaded_model import LoadedModel
from introspection.training import checkpoints
from introspection.training.batches import make_batches, sample_deltas
from introspection.training.config import TrainConfig
from introspection.training.data.activation_cache import ActivationCache, shared_prefix
from introspection.training.data.examples import NOISE, Example
from introspection.training.data.teacher import Teacher
from introspection.training.loss import (
    autocast,
    frozen_weights_in_bf16,
    max_tokens_per_pass,
    micro_batch_losses,
)
from introspection.training.runs import Run
from introspection.training.tokenization import Tokens, tokenize

CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 2_048, 16_384  # of a pass without gradients


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training will take: its optimizer steps, seconds for all of them, the largest memory on
    the GPU in bytes (0 without one), and how many numbers are trained."""

    steps: int
    seconds: float
    peak: int
    num_trainable: int


class Trainer:
    """A training that is ready to step: its batches, and what is computed once and replayed.

    ``vectors`` [templates, N, D] belong to ``names``. Each process keeps the residuals of its own part
    of the examples; together the processes go through the steps of one.
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
        missing = {one.concept for one in tokens} - set(self.rows) - {None, NOISE}
        if missing:
            raise ValueError(f"no vector for {sorted(map(str, missing))[:3]}")
        self.prefix = shared_prefix(loaded.tokenizer)
        self.steps = make_batches(tokens, config, self.prefix)
        self.proven = False  # that this kind of model can be replayed and trained at all
        self.parameters = trainable_parameters(loaded.model)
        self.device = next(iter(self.parameters.values())).device

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def precompute(self) -> None:
        """Read the residuals and the base model's answers; the frozen matrices must be cast already.

        Raises IntrospectionError for a model that is built in an unknown way.
        """
        with readable_model_errors(self.loaded.model, "training"):
            # A pass of its own over the prefix saves work; on a GPU the number of passes counts.
            self.pass_prefix = () if self.on_gpu else self.prefix
            self.local = set(distributed.split_between_processes(range(len(self.tokens))))
            tokens = [self.tokens[i] for i in sorted(self.local)]
            batch_tokens = GPU_BATCH_TOKENS if self.on_gpu else CPU_BATCH_TOKENS
            self.cache = ActivationCache(
                self.loaded.model, [one.ids for one in tokens], batch_tokens, prefix=self.prefix
            )
            matched = [(one.ids, one.target) for one in tokens if one.match_base]
            mixed = autocast(self.device)
            self.teacher = Teacher(self.loaded, self.cache, matched, batch_tokens, mixed)
            self.max_tokens = max_tokens_per_pass(self.loaded)

    def backward(self, step: int) -> Tensor:
        """Leave the gradients of a step in the parameters; returns its mean loss, a scalar."""
        unproven = readable_model_errors(self.loaded.model, "training")
        with nullcontext() if self.proven else unproven:
            loss = self._backward(step)
        self.proven = True
        return loss

    def _backward(self, step: int) -> Tensor:
        batch = [self.tokens[i] for i in self.steps[step]]
        delta = sample_deltas(step, batch, self.vectors, self.rows, self.loaded.norm, self.config)
        local = [row for row, i in enumerate(self.steps[step]) if i in self.local]
        for parameter in self.parameters.values():
            parameter.grad = None
        loss = torch.zeros((), device=self.device)
        for micro_batch_loss in micro_batch_losses(
            self.loaded,
            self.cache,
            self.teacher,
            [batch[row] for row in local],
            delta[local],
            self.config.replay_weight,
            self.pass_prefix,
            self.max_tokens,
            len(batch),
        ):
            micro_batch_loss.backward()
            loss += micro_batch_loss.detach().to(self.device)  # a split model ends on its last GPU
        for parameter in self.parameters.values():
            if parameter.grad is None:  # a process that has no example in this step
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        distributed.all_reduce_sum([loss, *gradients])
        return loss

    def dry_run(self) -> Forecast:
        """Try the longest batch, where memory is tightest, and time one of middling length.

        Raises IntrospectionError when the GPU's memory does not suffice.
        """
        longest = [max(len(self.tokens[i].ids) for i in step) for step in self.steps]
        order = sorted(range(len(self.steps)), key=longest.__getitem__)
        began = 0.0
        try:
            for step in (order[-1], order[len(order) // 2]):
                began = time.monotonic()
                float(self.backward(step))
        except torch.OutOfMemoryError as error:
            raise IntrospectionError(
                "The memory of the GPU does not suffice for the longest batch: free some, take fewer "
                "--examples, --quantise the model or run it with --device split."
            ) from error
        return Forecast(
            len(self.steps),
            (time.monotonic() - began) * len(self.steps),
            torch.cuda.max_memory_allocated(self.device) if self.on_gpu else 0,
            sum(parameter.numel() for parameter in self.parameters.values()),
        )


def train(
    loaded: LoadedModel,
    examples: Sequence[Example],
    vectors: Tensor,
    names: Sequence[str],
    config: TrainConfig,
    run: Run,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Train the adapter of ``loaded`` in place. ``vectors`` [templates, N, D] belong to ``names``.

    A start on the same ``run`` continues from its last checkpoint and, on the same machine, ends with
    the same adapter. ``progress`` is called with (step, steps, loss). Raises IntrospectionError for a
    damaged checkpoint and for a loss that is not finite.
    """
    tokens = tokenize(loaded.tokenizer, examples)
    trainer = Trainer(loaded, tokens, vectors, names, config)
    main = distributed.rank() == 0
    data_hash = checkpoints.hash_data(run, tokens, names)
    if main:
        checkpoints.set_aside(run, data_hash)
    distributed.barrier()
    parameters, steps = trainer.parameters, len(trainer.steps)
    rate, decay = config.learning_rate, config.weight_decay
    optimizer = torch.optim.AdamW(
        parameters.values(), rate, weight_decay=decay, fused=trainer.on_gpu
    )
    warm = max(1, round(steps * config.warmup))
    done, lines = checkpoints.restore(run, parameters, optimizer)
    open_log = checkpoints.open_log(run, lines) if main else nullcontext()
    with _trainable(trainer), open_log as log:
        if done < steps:
            trainer.precompute()
            if trainer.on_gpu:
                trainer.dry_run()
        saved = time.monotonic()
        for step in range(done, steps):
            scale = min(1.0, (step + 1) / warm)
            scale *= 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            loss = trainer.backward(step)
            length = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            if bool(torch.isfinite(length)):
                optimizer.step()
            last = step + 1 == steps
            if (step + 1) % 10 == 0 or last:
                value = float(loss)
                if not math.isfinite(value):
                    raise IntrospectionError(
                        f"Training diverged at step {step + 1} (the loss is {value}): start again "
                        "with a lower --learning-rate."
                    )
                lines.append(json.dumps({"step": step + 1, "loss": round(value, 5)}) + "\n")
                if log is not None:
                    log.write(lines[-1])
                    log.flush()
                if progress:
                    progress(step + 1, steps, value)
            if main and (last or time.monotonic() - saved > checkpoint_seconds):
                checkpoints.save(run, data_hash, step + 1, lines, parameters, optimizer)
                saved = time.monotonic()


def dry_run(
    loaded: LoadedModel,
    examples: Sequence[Example],
    vectors: Tensor,
    names: Sequence[str],
    config: TrainConfig,
    count: int,
) -> Forecast:
    """What :func:`train` will take with ``count`` examples like these; nothing is written."""
    trainer = Trainer(loaded, tokenize(loaded.tokenizer, examples), vectors, names, config)
    with _trainable(trainer):
        trainer.precompute()
        tried = trainer.dry_run()
    steps = config.epochs * math.ceil(count / config.batch_size)
    states = trainer.cache.states
    more = len(states) * (count / len(examples) - 1) / distributed.world_size()
    return replace(
        tried,
        steps=steps,
        seconds=tried.seconds / tried.steps * steps,
        peak=tried.peak and tried.peak + round(more * states[0].nbytes),
    )


@contextmanager
def _trainable(trainer: Trainer) -> Iterator[None]:
    """The adapter's parameters ask for gradients meanwhile; frozen weights are in bf16."""
    try:
        for parameter in trainer.parameters.values():
            parameter.requires_grad_(True)
        with frozen_weights_in_bf16(trainer.loaded.model, trainer.loaded.layer):
            yield
    finally:
        for parameter in trainer.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
