"""Trains the adapter: LoRA above block L, on residuals that are computed once and replayed.

Knows: the only optimizer, the order of the steps, what is injected in each. Does not know: which
examples are worth training on (``recipe``), what one costs (``loss``), how good the result is
(``evaluation``).
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional

from introspection import adapter, injection, parallel
from introspection.checkpoints import claim, open_log, restore, save
from introspection.errors import IntrospectionError
from introspection.loss import (
    Tokens,
    autocast,
    batch_loss,
    cast_once,
    most_tokens,
    starts_with,
    tokenize,
)
from introspection.models import LoadedModel
from introspection.recipe import NOISE, Example
from introspection.residuals import ResidualCache, shared_opening
from introspection.teacher import Teacher

__all__ = ["TrainConfig", "add_lora", "stacked", "train"]

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


def add_lora(loaded: LoadedModel, config: TrainConfig) -> None:
    """A fresh, seeded adapter on the blocks above the layer; hooks and gate are put back on."""
    depth = len(injection.blocks(loaded.model))
    if loaded.layer >= depth - 1:
        raise IntrospectionError(
            f"Block {loaded.layer} is the last one, and an adapter works in the blocks above: choose "
            f"a --layer from 0 to {depth - 2}."
        )
    lora = adapter.lora_config(loaded.layer, depth, config.targets, config.rank, loaded.base)
    torch.manual_seed(config.seed)
    inject_adapter_in_model(lora, loaded.model)
    for module in loaded.model.modules():
        if isinstance(module, LoraLayer):
            where = module.get_base_layer().weight.device
            for part in (*module.lora_A.values(), *module.lora_B.values()):
                part.to(device=where, dtype=torch.float32)
    if loaded.hooks is not None:
        loaded.hooks.remove()
    loaded.hooks = injection.install(loaded.model, loaded.layer)


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


def _draw(
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


def train(
    loaded: LoadedModel,
    examples: Sequence[Example],
    vectors: Tensor,
    names: Sequence[str],
    config: TrainConfig,
    run: Path,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Train the adapter of ``loaded`` in place. ``vectors`` [templates, N, D] belong to ``names``.

    ``run`` is a folder with ``config.json``, ``log.jsonl`` and the last complete checkpoint; a start
    on the same folder continues there and, on the same machine, ends with the same adapter. A
    folder of another run is refused. Under ``accelerate launch`` the processes share every step.
    ``progress`` is told (step, steps, loss).
    """
    tokens = tokenize(loaded.tokenizer, examples)
    rows = {name: i for i, name in enumerate(names)}
    missing = {s.concept for s in tokens} - set(rows) - {None, NOISE}
    if missing:
        raise ValueError(f"no vector for {sorted(map(str, missing))[:3]}")
    main = parallel.rank() == 0
    if main:
        claim(run, loaded, asdict(config), tokens, vectors)
    parallel.wait()
    parameters = {n: p for n, p in loaded.model.named_parameters() if "lora_" in n}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
        parameter.grad = torch.zeros_like(parameter)  # several processes add theirs together
    device = next(iter(parameters.values())).device
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )
    opening = shared_opening(loaded.tokenizer)
    steps = _batches(tokens, config, opening)
    warm = max(1, round(len(steps) * config.warmup))
    done = restore(run, parameters, optimizer)
    if done < len(steps):
        batch_tokens = 16_384 if device.type == "cuda" else 2_048
        # Each of several processes has examples of its own, and keeps the residuals of those alone.
        own = set(parallel.share(range(len(tokens))))
        sequences = [tokens[i].ids for i in own]
        cache = ResidualCache(loaded.model, sequences, batch_tokens, opening=opening)
        # A pass of its own over the opening saves work, which is what counts on a CPU; on a GPU the
        # number of passes counts.
        apart = opening if device.type == "cpu" else ()
        saved = time.monotonic()
        most = most_tokens(loaded)
        with (
            cast_once(loaded.model, loaded.layer),
            open_log(run, done) if main else nullcontext() as log,
        ):
            replayed = [(tokens[i].ids, tokens[i].target) for i in own if tokens[i].replay]
            teacher = Teacher(loaded, cache, replayed, batch_tokens, autocast(device))
            for step in range(done, len(steps)):
                chosen = [tokens[i] for i in steps[step]]
                scale = min(1.0, (step + 1) / warm)
                scale *= 0.5 * (1 + math.cos(math.pi * step / len(steps)))
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * scale
                delta = _draw(step, chosen, vectors, rows, loaded.norm, config)
                mine = [k for k, i in enumerate(steps[step]) if i in own]
                part = [chosen[k] for k in mine]
                optimizer.zero_grad(set_to_none=False)
                loss = torch.zeros((), device=device)
                weight, count = config.replay_weight, len(chosen)
                for share in batch_loss(
                    *(loaded, cache, teacher, part, delta[mine], weight, apart, most, count)
                ):
                    share.backward()
                    loss += share.detach()
                gradients = [p.grad for p in parameters.values() if p.grad is not None]
                parallel.together([loss, *gradients])
                length = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
                if bool(torch.isfinite(length)):
                    optimizer.step()
                if (step + 1) % 10 == 0 or step + 1 == len(steps):
                    value = float(loss)
                    if not math.isfinite(value):
                        raise IntrospectionError(
                            f"Training diverged at step {step + 1} (the loss is {value}): start again "
                            "with a lower --learning-rate in a new run folder."
                        )
                    if log is not None:
                        log.write(json.dumps({"step": step + 1, "loss": round(value, 5)}) + "\n")
                        log.flush()
                    if progress:
                        progress(step + 1, len(steps), value)
                late = time.monotonic() - saved > checkpoint_seconds
                if main and (late or step + 1 == len(steps)):
                    save(run, step + 1, parameters, optimizer)
                    saved = time.monotonic()
    for parameter in parameters.values():
        parameter.requires_grad_(False)
        parameter.grad = None


def stacked(
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
