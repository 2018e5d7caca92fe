"""Trains the adapter: LoRA above block L, on residuals that are computed once and replayed.

Knows: tokens, the residual cache, the loss, the only optimizer, resumable checkpoints. Does not
know: which examples are worth training on (``recipe``), how good the result is (``evaluation``).

An adapter above block L cannot change the residual stream at L, and neither does the injection
before it is added there: so ``h_L`` depends on the tokens alone. It is read once per distinct
sequence and every epoch, strength and vector is replayed from it (``injection.resume_from``).
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from transformers import DynamicCache

from introspection import adapter, injection
from introspection.cache import write_text
from introspection.errors import IntrospectionError
from introspection.models import LoadedModel, fingerprint
from introspection.recipe import NOISE, Example
from introspection.trials import ask, end_of_turn, prompt_ids

__all__ = ["ResidualCache", "Tokens", "TrainConfig", "add_lora", "stacked", "tokenize", "train"]

WORTH_SHARING = 8  # tokens: below that a pass of its own costs more than it saves
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
    """``h_L`` of every distinct token sequence, read once, kept end to end in one tensor.

    Sequences that begin with ``opening`` share one pass over it.
    """

    def __init__(
        self,
        model: Any,
        sequences: Sequence[tuple[int, ...]],
        batch_tokens: int,
        progress: Callable[[int], None] | None = None,
        opening: tuple[int, ...] = (),
    ) -> None:
        distinct = sorted(set(sequences), key=len)
        fits = [len(s) > len(opening) and s[: len(opening)] == opening for s in distinct]
        weight = model.get_input_embeddings().weight
        # One row of zeros at the end: where a shorter sequence of a batch has no more tokens.
        total = sum(map(len, distinct)) + 1
        self.states = weight.new_zeros(total, weight.shape[1])
        self.start: dict[tuple[int, ...], int] = {}
        at = 0
        for begins, start in ((True, opening), (False, ())):
            chosen = [s for s, fit in zip(distinct, fits, strict=True) if fit is begins]
            for states, chunk in _read(model, chosen, batch_tokens, start):
                for sequence, row in zip(chunk, states, strict=True):
                    self.start[sequence] = at
                    self.states[at : at + len(sequence)] = row[: len(sequence)]
                    at += len(sequence)
                if progress:
                    progress(len(chunk))
        if weight.is_cuda:
            torch.cuda.empty_cache()  # what reading and generating left behind in odd sizes

    def batch(self, sequences: Sequence[tuple[int, ...]], width: int) -> Tensor:
        """Residuals [B, width, D], zeros after the end of each sequence."""
        start = torch.tensor([self.start[sequence] for sequence in sequences])[:, None]
        length = torch.tensor([len(sequence) for sequence in sequences])[:, None]
        at = torch.arange(width)
        index = torch.where(at < length, start + at, len(self.states) - 1)
        return self.states[index.to(self.states.device)]


@torch.no_grad()
def _read(
    model: Any, sequences: Sequence[tuple[int, ...]], batch_tokens: int, opening: tuple[int, ...]
) -> Iterator[tuple[Tensor, Sequence[tuple[int, ...]]]]:
    """Residuals [B, T, D] of chunks of sequences (shortest first) that all begin with ``opening``.

    No mask: under causal attention no token of a sequence sees the padding behind it.
    """
    device, at = next(model.parameters()).device, len(opening)
    decoder = model.get_decoder()
    kept, first = DynamicCache(config=model.config), None
    if at and sequences:
        with injection.capture() as hidden:
            ids = torch.tensor([opening], device=device)
            decoder(input_ids=ids, past_key_values=kept, use_cache=True)
        first = hidden[0]
    done = 0
    while done < len(sequences):
        chunk = sequences[done : done + max(1, batch_tokens // len(sequences[done]))]
        done += len(chunk)
        ids = torch.zeros(len(chunk), len(chunk[-1]), dtype=torch.long)
        for row, sequence in enumerate(chunk):
            ids[row, : len(sequence)] = torch.tensor(sequence)
        past = copy.deepcopy(kept)
        past.batch_repeat_interleave(len(chunk))
        places = torch.arange(at, ids.shape[1], device=device).expand(len(chunk), -1)
        with injection.capture() as hidden:
            decoder(
                input_ids=ids[:, at:].to(device),
                position_ids=places,
                past_key_values=past if at else None,
                use_cache=bool(at),
            )
        states = hidden[0]
        if first is not None:
            states = torch.cat([first.expand(len(chunk), -1, -1), states], 1)
        yield states, chunk


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


@contextmanager
def _unembedded_at(model: Any, wanted: Tensor) -> Iterator[None]:
    """Run the unembedding at the tokens of ``wanted`` [B, T - 1] alone, giving logits [tokens, V].

    The vocabulary is so wide that the logits of a whole batch cost more than a dozen blocks.
    """

    def choose(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][:, :-1][wanted], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _cast_once(model: Any, layer: int) -> Iterator[None]:
    """Keep the frozen matrices above the layer in bf16: autocast would cast them anew, to the same
    values, in every pass. Those below stay as they are, and so does the residual cache."""
    upper = [p for block in injection.blocks(model)[layer + 1 :] for p in block.parameters()]
    cast = upper[:1] and _fast_bf16(upper[0].device)
    frozen = [p for p in upper if cast and p.ndim == 2 and not p.requires_grad]
    before = [p.data for p in frozen]
    try:
        for parameter in frozen:
            parameter.data = parameter.data.to(torch.bfloat16)
        yield
    finally:
        for parameter, data in zip(frozen, before, strict=True):
            parameter.data = data


def _loss(
    loaded: LoadedModel,
    cache: ResidualCache,
    chosen: Sequence[Tokens],
    delta: Tensor,
    kl: float,
    opening: tuple[int, ...] = (),
) -> Tensor:
    """Mean over examples of: cross-entropy on the answer, or KL to the base model's answer.

    Examples that begin with ``opening`` share one pass over it.
    """
    shared = [s.ids[: len(opening)] == opening and s.first >= len(opening) for s in chosen]
    total = delta.new_zeros(()).to(cache.states.device)
    for begins, start in ((True, opening), (False, ())):
        rows = [i for i, share in enumerate(shared) if share is begins]
        if rows:
            part = [chosen[i] for i in rows]
            total = total + _total_loss(loaded, cache, part, delta[rows], kl, start)
    return total / len(chosen)


def _total_loss(
    loaded: LoadedModel,
    cache: ResidualCache,
    chosen: Sequence[Tokens],
    delta: Tensor,
    kl: float,
    opening: tuple[int, ...],
) -> Tensor:
    """The sum of the losses of examples that all begin with ``opening`` (which may be empty)."""
    model, at = loaded.model, len(opening)
    weight = model.get_input_embeddings().weight
    device = weight.device
    # Right padding and no mask: under causal attention nothing real ever sees a pad, no query is
    # left without a key (which some kernels answer with NaN), and the fast kernels apply.
    ids = torch.zeros(len(chosen), max(len(s.ids) for s in chosen), dtype=torch.long)
    trained = torch.zeros_like(ids, dtype=torch.bool)
    for row, s in enumerate(chosen):
        ids[row, : len(s.ids)] = torch.tensor(s.ids)
        trained[row, len(s.ids) - s.target : len(s.ids)] = True
    ids, wanted = ids.to(device), trained[:, at + 1 :].to(device)
    targets = ids[:, at + 1 :][wanted]
    positions = torch.arange(ids.shape[1], device=device)[None]
    hidden = cache.batch([s.ids for s in chosen], ids.shape[1])
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=_fast_bf16(device))

    def keys(rows: int, plan: injection.Plan) -> Any:
        """Keys and values of the opening for that many rows, from one pass over it."""
        kept = DynamicCache(config=model.config)
        start = injection.resume_from(model, loaded.layer, hidden[:1, :at])
        with mixed, start, injection.apply(plan):
            model.get_decoder()(
                input_ids=ids[:1, :at],
                position_ids=positions[:, :at],
                past_key_values=kept,
                use_cache=True,
            )
        kept.batch_repeat_interleave(rows)
        for block in range(loaded.layer + 1):  # did not run, and a cache is as long as its first
            kept.update(*hidden.new_zeros(2, rows, 1, at, 1), block)
        return kept

    def logits(rows: Tensor | slice, plan: injection.Plan, before: injection.Plan) -> Tensor:
        """[tokens, V]: what these rows predict for their trained tokens."""
        count = len(ids[rows])
        kept = {"past_key_values": keys(count, before), "use_cache": True} if at else {}
        with (
            mixed,
            injection.resume_from(model, loaded.layer, hidden[rows, at:]),
            injection.apply(plan),
            _unembedded_at(model, wanted[rows]),
        ):
            out = model(
                input_ids=ids[rows, at:],
                position_ids=positions[:, at:].expand(count, -1),
                **(kept or {"use_cache": False}),
            )
        return out.logits.float()

    def planned(rows: Tensor | None, spans: Sequence[Any], gates: bool | None) -> injection.Plan:
        gate = None if gates is None else [gates] * len(spans)
        return injection.make_plan(rows, spans, gate, device, weight.dtype)

    spans = [(s.first, s.last) for s in chosen]
    predicted = logits(slice(None), planned(delta, spans, None), planned(None, [(0, None)], None))
    row_of = wanted.nonzero()[:, 0]
    replay = torch.tensor([s.replay for s in chosen], device=device)
    is_replay = replay[row_of]
    per_token = predicted.new_zeros(len(row_of))
    per_token[~is_replay] = functional.cross_entropy(
        predicted[~is_replay], targets[~is_replay], reduction="none"
    )
    if bool(replay.any()):
        rows = replay.nonzero().squeeze(1)
        nothing = planned(None, [(0, None)] * len(rows), False)
        with torch.no_grad():
            said = logits(rows, nothing, planned(None, [(0, None)], False))
            teacher = functional.log_softmax(said, -1)
        student = functional.log_softmax(predicted[is_replay], -1)
        divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
        per_token[is_replay] = divergence * kl
    per_example = torch.zeros(len(chosen), device=device).index_add(0, row_of, per_token)
    return (per_example / wanted.sum(1)).sum()


def _opening(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that stand before any first message of a user: most examples begin with them."""
    one, other = (prompt_ids(tokenizer, ask(text)) for text in ("One", "two"))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    shared = tuple(token for token, _ in same)
    return shared if len(shared) >= WORTH_SHARING else ()


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
    steps, opening = _batches(tokens, config), _opening(loaded.tokenizer)
    warm = max(1, round(len(steps) * config.warmup))
    done = _restore(run, parameters, optimizer)
    if done < len(steps):
        batch_tokens = 16_384 if device.type == "cuda" else 2_048
        sequences = [s.ids for s in tokens]
        cache = ResidualCache(loaded.model, sequences, batch_tokens, opening=opening)
        saved = time.monotonic()
        log_path = run / "log.jsonl"
        with _cast_once(loaded.model, loaded.layer), log_path.open("a", encoding="utf-8") as log:
            for step in range(done, len(steps)):
                chosen = [tokens[i] for i in steps[step]]
                scale = min(1.0, (step + 1) / warm)
                scale *= 0.5 * (1 + math.cos(math.pi * step / len(steps)))
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * scale
                delta = _draw(step, chosen, vectors, rows, loaded.norm, config)
                loss = _loss(loaded, cache, chosen, delta, config.replay_weight, opening)
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
