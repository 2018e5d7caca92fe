"""Trains the adapter: LoRA above layer L, on residuals that are computed once and replayed.

Knows: the only optimizer, checkpoints, when to stop. Does not know: what a step is (``steps``), which
examples are worth training on (``recipe``), how good the result is (``evaluation``).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.models import distributed
from introspection.models.adapters import lora
from introspection.models.adapters.adapter_info import AdapterSpec
from introspection.models.loaded_model import LoadedModel
from introspection.training import checkpoints
from introspection.training.data.examples import Example
from introspection.training.loss import frozen_weights_in_bf16, tokenize
from introspection.training.runs import Run
from introspection.training.trainer import Forecast, TrainConfig, Trainer

__all__ = ["add_lora", "forecast", "stack_vectors", "train"]


def add_lora(loaded: LoadedModel, config: TrainConfig) -> None:
    """A fresh, seeded adapter on the layers above the layer; hooks and gate are put back on."""
    depth = len(hooks.decoder_layers(loaded.model))
    if loaded.layer >= depth - 1:
        raise IntrospectionError(
            f"Layer {loaded.layer} is the last one, and an adapter works in the layers above: choose "
            f"a --layer from 0 to {depth - 2}."
        )
    spec = AdapterSpec(loaded.layer, depth, loaded.base, config.rank, config.targets)
    torch.manual_seed(config.seed)
    with hooks.readable_model_errors(loaded.model, "training"):
        lora.add(loaded.model, spec)
    if loaded.hooks is not None:
        loaded.hooks.remove()
    loaded.hooks = hooks.install(loaded.model, loaded.layer)
    hooks.self_test(loaded.model, loaded.layer)  # base rows beside the adapter's


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

    The folder of ``run`` keeps ``log.jsonl`` and the last complete checkpoint; a start on the same
    folder continues there and, on the same machine, ends with the same adapter. A checkpoint that
    was made from other examples is put aside. Under ``accelerate launch`` the processes share every
    step.
    ``progress`` is told (step, steps, loss).
    """
    tokens = tokenize(loaded.tokenizer, examples)
    prepared = Trainer(loaded, tokens, vectors, names, config)
    main = distributed.rank() == 0
    made = checkpoints.made_from(run, tokens, names)
    if main:
        checkpoints.set_aside(run, made)
    distributed.barrier()
    parameters, steps = prepared.parameters, prepared.steps
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=prepared.device.type == "cuda",
    )
    warm = max(1, round(len(steps) * config.warmup))
    done, lines = checkpoints.restore(run, parameters, optimizer)
    opened = checkpoints.open_log(run, lines) if main else nullcontext()
    with _trainable(loaded, prepared), opened as log:
        if done < len(steps):
            prepared.read()
            if prepared.device.type == "cuda":
                prepared.forecast()
        saved = time.monotonic()
        for step in range(done, len(steps)):
            scale = min(1.0, (step + 1) / warm)
            scale *= 0.5 * (1 + math.cos(math.pi * step / len(steps)))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * scale
            loss = prepared.gradients(step)
            length = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            if bool(torch.isfinite(length)):
                optimizer.step()
            if (step + 1) % 10 == 0 or step + 1 == len(steps):
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
                    progress(step + 1, len(steps), value)
            late = time.monotonic() - saved > checkpoint_seconds
            if main and (late or step + 1 == len(steps)):
                checkpoints.save(run, made, step + 1, lines, parameters, optimizer)
                saved = time.monotonic()


def forecast(
    loaded: LoadedModel,
    examples: Sequence[Example],
    vectors: Tensor,
    names: Sequence[str],
    config: TrainConfig,
    count: int,
) -> Forecast:
    """What :func:`train` will take with ``count`` examples like these; nothing is written."""
    prepared = Trainer(loaded, tokenize(loaded.tokenizer, examples), vectors, names, config)
    with _trainable(loaded, prepared):
        prepared.read()
        found = prepared.forecast()
    steps = config.epochs * math.ceil(count / config.batch_size)
    kept = len(prepared.cache.states) * (count / len(examples) - 1) / distributed.world_size()
    row = prepared.cache.states[0].nbytes
    return replace(
        found,
        steps=steps,
        seconds=found.seconds / found.steps * steps,
        peak=found.peak and found.peak + round(kept * row),
    )


@contextmanager
def _trainable(loaded: LoadedModel, prepared: Trainer) -> Iterator[None]:
    try:
        for parameter in prepared.parameters.values():
            parameter.requires_grad_(True)
        with frozen_weights_in_bf16(loaded.model, loaded.layer):
            yield
    finally:
        for parameter in prepared.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None


def stack_vectors(
    loaded: LoadedModel,
    names: Sequence[str],
    templates: Sequence[str],
    site: str,
    baseline: Sequence[str] | None,
) -> Tensor:
    """Unit vectors [templates, N, D] of ``names``, for :func:`train`."""
    read = [
        loaded.vectors_of(names, template=template, site=site, baseline=baseline).vectors
        for template in templates
    ]
    return torch.stack(read)
