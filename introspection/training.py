"""Trains the adapter: LoRA above block L, on residuals that are computed once and replayed.

Knows: tokens, the residual cache, the loss, the only optimizer, resumable checkpoints. Does not
know: which examples are worth training on (``recipe``), how good the result is (``evaluation``).

An adapter above block L cannot change the residual stream at L, and neither does the injection
before it is added there: so ``h_L`` depends on the tokens alone. It is read once per distinct
sequence and every epoch, strength and vector is replayed from it (``injection.resume_from``).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from introspection import adapter, injection
from introspection.cache import write_text
from introspection.errors import IntrospectionError
from introspection.models import LoadedModel, fingerprint
from introspection.recipe import NOISE, Example
from introspection.trials import end_of_turn, prompt_ids

__all__ = ["ResidualCache", "Tokens", "TrainConfig", "add_lora", "stacked", "tokenize", "train"]

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
class Tokens:
    """An example as tokens: ``ids`` = prompt + written + answer, of which the last ``target`` are
    trained; the thought is added at positions ``first..last``."""

    ids: tuple[int, ...]
    target: int
    first: int
    last: int | None
    concept: str | None
    replay: bool


def tokenize(tokenizer: Any, example: Example) -> Tokens:
    """Prompt, what is already written, and the answer, closed by the end of the turn."""
    prompt = prompt_ids(tokenizer, example.messages)
    written = _ids(tokenizer, example.written)
    answer = _ids(tokenizer, (" " if written else "") + example.answer)
    if example.whole:
        answer = (*answer, end_of_turn(tokenizer))
    if not answer:
        raise ValueError(f"nothing to train on after {example.written!r}")
    first = len(prompt) - 1 + len(written)
    last = first if example.schedule.kind == "final" else None
    ids = (*prompt, *written, *answer)
    return Tokens(ids, len(answer), first, last, example.concept, example.replay)


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()


def add_lora(loaded: LoadedModel, config: TrainConfig) -> None:
    """A fresh, seeded adapter on the blocks above the layer; hooks and gate are put back on."""
    depth = len(injection.blocks(loaded.model))
    lora = adapter.lora_config(loaded.layer, depth, config.targets, config.rank, loaded.base)
    torch.manual_seed(config.seed)
    inject_adapter_in_model(lora, loaded.model)
    for module in loaded.model.modules():
        if isinstance(module, LoraLayer):
            for part in (*module.lora_A.values(), *module.lora_B.values()):
                part.to(device=loaded.model.device, dtype=torch.float32)
    if loaded.hooks is not None:
        loaded.hooks.remove()
    loaded.hooks = injection.install(loaded.model, loaded.layer)


class ResidualCache:
    """``h_L`` of every distinct token sequence, read once, kept end to end in one tensor."""

    def __init__(
        self,
        model: Any,
        sequences: Sequence[tuple[int, ...]],
        batch_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        distinct = sorted(set(sequences), key=len)
        self.start: dict[tuple[int, ...], int] = {}
        device = next(model.parameters()).device
        parts = []
        total = at = 0
        while at < len(distinct):
            count = max(1, batch_tokens // len(distinct[at]))
            chunk = distinct[at : at + count]
            at += count
            ids, mask = _right(chunk)
            with torch.no_grad(), injection.capture() as hidden:
                model.get_decoder()(
                    input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
                )
            parts.append(hidden[0][mask.bool().to(device)])
            for sequence in chunk:
                self.start[sequence] = total
                total += len(sequence)
            if progress:
                progress(len(chunk))
        self.states = torch.cat(parts)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what reading and generating left behind in odd sizes

    def batch(self, sequences: Sequence[tuple[int, ...]], width: int) -> Tensor:
        """Residuals [B, width, D], zeros after the end of each sequence."""
        states = self.states.new_zeros(len(sequences), width, self.states.shape[1])
        for row, sequence in enumerate(sequences):
            start = self.start[sequence]
            states[row, : len(sequence)] = self.states[start : start + len(sequence)]
        return states


def _right(sequences: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    width = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids, mask


def _batches(sequences: Sequence[Tokens], config: TrainConfig) -> list[tuple[int, ...]]:
    """The indices of every step: shuffled, then cut into batches of similar length."""
    steps = []
    for epoch in range(config.epochs):
        rng = random.Random(f"{config.seed} epoch {epoch}")
        order = list(range(len(sequences)))
        rng.shuffle(order)
        # Sort within pools of sixteen batches: little padding, and still a fresh mix each epoch.
        pool = config.batch_size * 16
        cut = []
        for start in range(0, len(order), pool):
            part = sorted(order[start : start + pool], key=lambda i: len(sequences[i].ids))
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
    picked = []
    for i, sequence in enumerate(chosen):
        if sequence.concept is None:
            picked.append(torch.zeros_like(noise[i]))
        elif sequence.concept == NOISE:
            picked.append(noise[i])
        else:
            picked.append(vectors[template[i], rows[sequence.concept]])
    return torch.stack(picked) * (strength * norm)[:, None]


def _fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 have their own instructions there (adapters stay fp32)."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda"


def _loss(
    loaded: LoadedModel, cache: ResidualCache, chosen: Sequence[Tokens], delta: Tensor, kl: float
) -> Tensor:
    """Mean over examples of: cross-entropy on the answer, or KL to the base model's answer."""
    model = loaded.model
    weight = model.get_input_embeddings().weight
    device = weight.device
    # Right padding and no mask: under causal attention nothing real ever sees a pad, no query is
    # left without a key (which some kernels answer with NaN), and the fast kernels apply.
    ids = torch.zeros(len(chosen), max(len(s.ids) for s in chosen), dtype=torch.long)
    trained = torch.zeros_like(ids, dtype=torch.bool)
    for row, s in enumerate(chosen):
        ids[row, : len(s.ids)] = torch.tensor(s.ids)
        trained[row, len(s.ids) - s.target : len(s.ids)] = True
    width = ids.shape[1]
    # The logits of position t predict token t + 1: the unembedding is only run on the tail that
    # some row needs. Batches are cut by length, so that tail is short.
    keep = width - min(len(s.ids) - s.target for s in chosen) + 1
    ids, trained = ids.to(device), trained.to(device)
    wanted = trained[:, width - keep + 1 :]
    targets = ids[:, width - keep + 1 :][wanted]
    hidden = cache.batch([s.ids for s in chosen], width)

    def logits(rows: Tensor | slice, plan: injection.Plan) -> Tensor:
        """[tokens, V] at the positions that predict the trained tokens of these rows."""
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=_fast_bf16(device)),
            injection.resume_from(model, loaded.layer, hidden[rows]),
            injection.apply(plan),
        ):
            out = model(input_ids=ids[rows], use_cache=False, logits_to_keep=keep)
        return out.logits[:, :-1][wanted[rows]].float()

    spans = [(s.first, s.last) for s in chosen]
    plan = injection.make_plan(delta, spans, None, device, weight.dtype)
    predicted = logits(slice(None), plan)
    row_of = wanted.nonzero()[:, 0]
    replay = torch.tensor([s.replay for s in chosen], device=device)
    is_replay = replay[row_of]
    per_token = predicted.new_zeros(len(row_of))
    per_token[~is_replay] = functional.cross_entropy(
        predicted[~is_replay], targets[~is_replay], reduction="none"
    )
    if bool(replay.any()):
        rows = replay.nonzero().squeeze(1)
        nothing = injection.make_plan(
            None, [(0, None)] * len(rows), [False] * len(rows), device, weight.dtype
        )
        with torch.no_grad():
            teacher = functional.log_softmax(logits(rows, nothing), -1)
        student = functional.log_softmax(predicted[is_replay], -1)
        divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
        per_token[is_replay] = divergence * kl
    per_example = torch.zeros(len(chosen), device=device).index_add(0, row_of, per_token)
    return (per_example / wanted.sum(1)).mean()


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
    folder of another run is refused. ``progress`` is told (step, steps, loss).
    """
    tokens = [tokenize(loaded.tokenizer, example) for example in examples]
    rows = {name: i for i, name in enumerate(names)}
    missing = {s.concept for s in tokens} - set(rows) - {None, NOISE}
    if missing:
        raise ValueError(f"no vector for {sorted(map(str, missing))[:3]}")
    _claim(run, loaded, config, tokens, vectors)
    parameters = {n: p for n, p in loaded.model.named_parameters() if "lora_" in n}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    device = next(iter(parameters.values())).device
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )
    steps = _batches(tokens, config)
    warm = max(1, round(len(steps) * config.warmup))
    done = _restore(run, parameters, optimizer)
    if done < len(steps):
        batch_tokens = 16_384 if device.type == "cuda" else 2_048
        cache = ResidualCache(loaded.model, [s.ids for s in tokens], batch_tokens)
        saved = time.monotonic()
        with (run / "log.jsonl").open("a", encoding="utf-8") as log:
            for step in range(done, len(steps)):
                chosen = [tokens[i] for i in steps[step]]
                scale = min(1.0, (step + 1) / warm)
                scale *= 0.5 * (1 + math.cos(math.pi * step / len(steps)))
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * scale
                delta = _draw(step, chosen, vectors, rows, loaded.norm, config)
                loss = _loss(loaded, cache, chosen, delta, config.replay_weight)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                length = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
                if bool(torch.isfinite(length)):
                    optimizer.step()
                if (step + 1) % 10 == 0 or step + 1 == len(steps):
                    value = float(loss.detach())
                    if not math.isfinite(value):
                        raise IntrospectionError(
                            f"Training diverged at step {step + 1} (the loss is {value}): start again "
                            "with a lower --learning-rate in a new run folder."
                        )
                    log.write(json.dumps({"step": step + 1, "loss": round(value, 5)}) + "\n")
                    log.flush()
                    if progress:
                        progress(step + 1, len(steps), value)
                if time.monotonic() - saved > checkpoint_seconds or step + 1 == len(steps):
                    _save(run, step + 1, parameters, optimizer)
                    saved = time.monotonic()
    for parameter in parameters.values():
        parameter.requires_grad_(False)


def _claim(
    run: Path, loaded: LoadedModel, config: TrainConfig, tokens: Sequence[Tokens], vectors: Tensor
) -> None:
    """Write the run's config, or make sure that the folder holds this very run."""
    described = json.loads(json.dumps(asdict(config)))
    digest = hashlib.sha256(repr(list(tokens)).encode()).hexdigest()
    document = {
        "config": described,
        "base": fingerprint(loaded.model),
        "layer": loaded.layer,
        # Another site or template shows in the first figures; the last bits may differ.
        "vectors": [round(value, 2) for value in vectors[:, 0, :8].flatten().tolist()],
        "examples": len(tokens),
        "examples_sha256": digest,
    }
    path = run / "config.json"
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = None
        if known != document:
            raise IntrospectionError(
                f"The run folder {run} holds another run (its model, settings or examples differ): "
                "choose a new folder with --run, or delete it to start over."
            )
        return
    write_text(path, json.dumps(document, indent=1) + "\n")


def _save(
    run: Path, step: int, parameters: dict[str, Any], optimizer: torch.optim.Optimizer
) -> None:
    """One safetensors file, written aside and renamed: a kill at any moment leaves the last one."""
    tensors = {}
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = parameter.detach().cpu().contiguous()
        # Nothing yet where every gradient so far was skipped.
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
    aside = run / "checkpoint.tmp"
    save_file(tensors, aside, {"step": str(step)})
    aside.replace(run / "checkpoint.safetensors")


def _restore(run: Path, parameters: dict[str, Any], optimizer: torch.optim.Optimizer) -> int:
    path = run / "checkpoint.safetensors"
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            step = int((file.metadata() or {})["step"])
            kept, state = set(file.keys()), optimizer.state_dict()
            for i, (name, parameter) in enumerate(parameters.items()):
                parameter.data.copy_(file.get_tensor(f"weight/{name}"))
                # With the optimizer's own count of steps: it makes none on a gradient of NaN.
                state["state"][i] = {
                    key: file.get_tensor(f"{key}/{name}")
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}/{name}" in kept
                }
            optimizer.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise IntrospectionError(
            f"The checkpoint in {run} cannot be read ({type(error).__name__}): delete the folder to "
            "start over."
        ) from error
    return step


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
