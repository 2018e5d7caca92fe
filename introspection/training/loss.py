"""What an example costs: its tokens, and the loss of a batch on replayed residuals.

Knows: which tokens are trained, cross-entropy and the KL term to the base model (``teacher``). Does
not know: the optimizer, the order of the examples (``training``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from introspection.injection import hooks
from introspection.injection.trials import prompt_tokens
from introspection.injection.trials.trial import end_of_turn, prompt_text
from introspection.models.loaded_model import LoadedModel
from introspection.training.data.activation_cache import ResidualCache
from introspection.training.data.examples import Example
from introspection.training.data.teacher import Teacher

__all__ = [
    "Tokens",
    "autocast",
    "frozen_weights_in_bf16",
    "max_tokens_per_pass",
    "micro_batch_losses",
    "starts_with",
    "tokenize",
]

MOST_TOKENS = 45_000  # in one forward pass with gradients; more do not make a GPU faster
CPU_TOKENS = 8_000


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


def tokenize(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[Tokens]:
    """Prompt, what is already written, and the answer, closed by the end of the turn."""
    conversations = list(dict.fromkeys(example.messages for example in examples))
    answers = [(" " if one.written else "") + one.answer for one in examples]
    texts = list(dict.fromkeys([*answers, *(one.written for one in examples)]))
    encoded = prompt_tokens.encode(
        tokenizer,
        [
            *(prompt_text(tokenizer, messages) for messages in conversations),
            *(prompt_tokens.by_people(tokenizer, text) for text in texts),
        ],
        offsets=False,
    )
    ids = [one.ids for one in encoded]
    prompts = dict(zip(conversations, ids, strict=False))
    ids_of = dict(zip(texts, ids[len(conversations) :], strict=True))
    closing = (end_of_turn(tokenizer),)
    found = []
    for example, said in zip(examples, answers, strict=True):
        prompt, begun = prompts[example.messages], ids_of[example.written]
        answer = (*ids_of[said], *(closing if example.whole else ()))
        if not answer:
            raise ValueError(f"nothing to train on after {example.written!r}")
        first = len(prompt) - 1 + len(begun)
        last = first if example.schedule.kind == "final" else None
        whole = (*prompt, *begun, *answer)
        found.append(Tokens(whole, len(answer), first, last, example.concept, example.replay))
    return found


def _fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 have their own instructions there (adapters stay fp32)."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda"


def autocast(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=_fast_bf16(device))


@contextmanager
def _logits_only_at(model: PreTrainedModel, wanted: Tensor) -> Iterator[None]:
    """Run the unembedding at the tokens of ``wanted`` [B, T - 1] alone, giving logits [tokens, V].

    The vocabulary is so wide that the logits of a whole batch cost more than a dozen layers.
    """

    def choose(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][:, :-1][wanted.to(args[0].device)], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def frozen_weights_in_bf16(model: PreTrainedModel, layer: int) -> Iterator[None]:
    """Keep the frozen matrices above the layer in bf16: autocast would cast them anew, to the same
    values, in every pass. Those below stay as they are, and so does the residual cache. Nor is the
    input of an adapter's matrices cast to their fp32, only for autocast to cast it back."""
    upper = [p for block in hooks.decoder_layers(model)[layer + 1 :] for p in block.parameters()]
    cast = upper[:1] and _fast_bf16(upper[0].device)
    # Quantised weights are integers and stay so.
    frozen = [
        p for p in upper if cast and p.ndim == 2 and p.is_floating_point() and not p.requires_grad
    ]
    before = [p.data for p in frozen]
    try:
        for parameter in frozen:
            parameter.data = parameter.data.to(torch.bfloat16)
        with disable_input_dtype_casting(model, active=bool(cast)):
            yield
    finally:
        for parameter, data in zip(frozen, before, strict=True):
            parameter.data = data


def micro_batch_losses(
    loaded: LoadedModel,
    cache: ResidualCache,
    teacher: Teacher,
    chosen: Sequence[Tokens],
    delta: Tensor,
    kl: float,
    opening: tuple[int, ...] = (),
    most: int = MOST_TOKENS,
    count: int | None = None,
) -> Iterator[Tensor]:
    """Mean over examples of: cross-entropy on the answer, or KL to the base model's answer.

    ``count`` is that of all examples of the step where others have the rest of them. The mean comes
    in shares that add up to it, each from a forward pass of at most ``most`` tokens (of one
    example at least): the gradient of one share at a time is what memory must hold. Examples that
    begin with ``opening`` share one pass over it.
    """
    for begins, start in ((True, opening), (False, ())):
        rows = [i for i, one in enumerate(chosen) if starts_with(one, opening) is begins]
        rows.sort(key=lambda i: len(chosen[i].ids))
        while rows:
            # The longest first: what the first share needs, no later one exceeds.
            fit = max(1, most // (len(chosen[rows[-1]].ids) - len(start)))
            part, rows = rows[-fit:], rows[:-fit]
            examples = [chosen[i] for i in part]
            loss = _total_loss(loaded, cache, teacher, examples, delta[part], kl, start)
            yield loss / (count or len(chosen))


def max_tokens_per_pass(loaded: LoadedModel) -> int:
    """How many tokens a forward pass with gradients may have in the memory that is free now.

    What is kept for the backward pass, per token and layer above the layer: some twenty vectors of the
    width of the stream and half a dozen of the MLP's, in bf16; half as much again for the unembedding.
    That is half as much again as was measured at DeepSeek-7B's shape, where one pass more per step
    costs a quarter of the speed.
    """
    config, device = loaded.model.config, loaded.model.get_input_embeddings().weight.device
    if device.type != "cuda":
        return CPU_TOKENS
    layers = len(hooks.decoder_layers(loaded.model)) - loaded.layer - 1
    width = hooks.width(loaded.model)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    per_token = 3 * layers * (20 * width + 6 * inner)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free -= torch.cuda.memory_allocated(device)
    return int(min(MOST_TOKENS, max(0.8 * free / per_token, 1)))


def starts_with(one: Tokens, opening: tuple[int, ...]) -> bool:
    """Whether an example begins with ``opening`` and is left alone up to there."""
    return one.ids[: len(opening)] == opening and one.first >= len(opening)


def _total_loss(
    loaded: LoadedModel,
    cache: ResidualCache,
    teacher: Teacher,
    chosen: Sequence[Tokens],
    delta: Tensor,
    kl: float,
    opening: tuple[int, ...],
) -> Tensor:
    """The sum of the losses of examples that all begin with ``opening`` (which may be empty)."""
    model, at = loaded.model, len(opening)
    weight = model.get_input_embeddings().weight
    device = weight.device
    # Right padding and no padding mask: under causal attention nothing real ever sees a pad, and no
    # query is left without a key (which some kernels answer with NaN).
    ids = torch.zeros(len(chosen), max(len(s.ids) for s in chosen), dtype=torch.long)
    trained = torch.zeros_like(ids, dtype=torch.bool)
    for row, s in enumerate(chosen):
        ids[row, : len(s.ids)] = torch.tensor(s.ids)
        trained[row, len(s.ids) - s.target : len(s.ids)] = True
    row_of = trained.nonzero()[:, 0]
    targets = ids[trained].to(device)
    replay = torch.tensor([s.replay for s in chosen])
    is_replay = replay[row_of].to(device)
    weights = (1 / trained.sum(1))[row_of].to(device)  # an example is the mean over its tokens
    ids, wanted = ids.to(device), trained[:, at + 1 :].to(device)
    positions = torch.arange(ids.shape[1], device=device)[None].expand(len(chosen), -1)
    hidden = cache.batch([s.ids for s in chosen], ids.shape[1])
    spans = [(s.first, s.last) for s in chosen]
    plan = hooks.make_plan(delta, spans, None, device, weight.dtype)
    kept = _prefix_kv(loaded, ids, hidden, at) if at else None
    with (
        autocast(device),
        hooks.start_at_layer(model, loaded.layer, hidden[:, at:]),
        hooks.use_plan(plan),
        _logits_only_at(model, wanted),
    ):
        predicted = model(
            input_ids=ids[:, at:],
            position_ids=positions[:, at:],
            past_key_values=kept,
            use_cache=kept is not None,
        ).logits.float()
    per_token = predicted.new_zeros(len(row_of))
    per_token[~is_replay] = functional.cross_entropy(
        predicted[~is_replay], targets[~is_replay], reduction="none"
    )
    if bool(replay.any()):
        with autocast(device):
            said = teacher.logits([(s.ids, s.target) for s in chosen if s.replay])
        said = said.to(predicted.device)  # a split model keeps the teacher's states elsewhere
        student = functional.log_softmax(predicted[is_replay], -1)
        divergence = functional.kl_div(
            student, functional.log_softmax(said.float(), -1), reduction="none", log_target=True
        )
        per_token[is_replay] = divergence.sum(-1) * kl
    return (per_token * weights).sum()


def _prefix_kv(loaded: LoadedModel, ids: Tensor, hidden: Tensor, at: int) -> Any:
    """Keys and values of the first ``at`` tokens for every row, from one pass over them."""
    model, rows = loaded.model, len(ids)
    kept = DynamicCache(config=model.config)
    plan = hooks.make_plan(None, [(0, None)], None, ids.device, hidden.dtype)
    with (
        autocast(ids.device),
        hooks.start_at_layer(model, loaded.layer, hidden[:1, :at]),
        hooks.use_plan(plan),
    ):
        model.get_decoder()(
            input_ids=ids[:1, :at],
            position_ids=torch.arange(at, device=ids.device)[None],
            past_key_values=kept,
            use_cache=True,
        )
    kept.batch_repeat_interleave(rows)
    for block in range(loaded.layer + 1):  # did not run, and a cache is as long as its first
        kept.update(*hidden.new_zeros(2, rows, 1, at, 1), block)
    return kept
