"""The loss of a batch on replayed residuals: cross-entropy, or the KL divergence to the base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from introspection.injection import hooks
from introspection.injection.patching import start_at_layer
from introspection.injection.plan import make_plan, use_plan
from introspection.models.loaded_model import LoadedModel
from introspection.training.data.activation_cache import ActivationCache
from introspection.training.data.teacher import Teacher
from introspection.training.tokenization import Tokens, starts_with

# In one forward pass with gradients; more do not make a GPU faster.
MAX_TOKENS, MAX_CPU_TOKENS = 45_000, 8_000


def _fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 have their own instructions there (adapters stay fp32)."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda"


def autocast(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=_fast_bf16(device))


@contextmanager
def _logits_only_at(model: PreTrainedModel, wanted: Tensor) -> Iterator[None]:
    """Run the unembedding, which costs more than a dozen layers, at the tokens of ``wanted``
    [B, T - 1] alone, giving logits [tokens, V]."""

    def choose(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][:, :-1][wanted.to(args[0].device)], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def frozen_weights_in_bf16(model: PreTrainedModel, layer: int) -> Iterator[None]:
    """Hold the frozen matrices above ``layer`` in bf16, which autocast would cast again in each pass,
    and turn off PEFT's cast of inputs to float32. No effect on a device without fast bf16."""
    upper = [p for block in hooks.decoder_layers(model)[layer + 1 :] for p in block.parameters()]
    cast = bool(upper) and _fast_bf16(upper[0].device)
    # Quantised weights are integers and stay so.
    matrices = [p for p in upper if p.ndim == 2 and p.is_floating_point()]
    frozen = [p for p in matrices if cast and not p.requires_grad]
    before = [p.data for p in frozen]
    try:
        for parameter in frozen:
            parameter.data = parameter.data.to(torch.bfloat16)
        with disable_input_dtype_casting(model, active=cast):
            yield
    finally:
        for parameter, data in zip(frozen, before, strict=True):
            parameter.data = data


def micro_batch_losses(
    loaded: LoadedModel,
    cache: ActivationCache,
    teacher: Teacher,
    batch: Sequence[Tokens],
    delta: Tensor,
    kl: float,
    prefix: tuple[int, ...] = (),
    max_tokens: int = MAX_TOKENS,
    total_examples: int | None = None,
) -> Iterator[Tensor]:
    """Micro-batch losses that add up to the mean over the examples of a step.

    The loss of an example is the mean over its trained tokens of the cross-entropy, or ``kl`` times
    the divergence from the base model. ``delta`` [B, D] is added to the residual stream of each.
    A micro-batch has at most ``max_tokens`` tokens, but at least one example. ``total_examples`` counts
    the step's examples over all processes. Examples that begin with ``prefix`` share one pass over it.
    """
    for begins, start in ((True, prefix), (False, ())):
        rows = [i for i, one in enumerate(batch) if starts_with(one, prefix) is begins]
        rows.sort(key=lambda i: len(batch[i].ids))
        while rows:
            # The longest first: what the first micro-batch needs, no later one exceeds.
            fit = max(1, max_tokens // (len(batch[rows[-1]].ids) - len(start)))
            part, rows = rows[-fit:], rows[:-fit]
            examples = [batch[i] for i in part]
            loss = _total_loss(loaded, cache, teacher, examples, delta[part], kl, start)
            yield loss / (total_examples or len(batch))


def max_tokens_per_pass(loaded: LoadedModel) -> int:
    """How many tokens a forward pass with gradients may have in the memory that is free now.

    It keeps about 2 bytes x (20 x hidden + 6 x intermediate) per token and layer above L, and half as
    much again for the logits: 1.5 times what was measured at DeepSeek-7B's shape.
    """
    config, device = loaded.model.config, loaded.model.get_input_embeddings().weight.device
    if device.type != "cuda":
        return MAX_CPU_TOKENS
    layers = len(hooks.decoder_layers(loaded.model)) - loaded.layer - 1
    width = hooks.width(loaded.model)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    per_token = 3 * layers * (20 * width + 6 * inner)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free -= torch.cuda.memory_allocated(device)
    return int(min(MAX_TOKENS, max(0.8 * free / per_token, 1)))


def _total_loss(
    loaded: LoadedModel,
    cache: ActivationCache,
    teacher: Teacher,
    batch: Sequence[Tokens],
    delta: Tensor,
    kl: float,
    prefix: tuple[int, ...],
) -> Tensor:
    """The sum of the losses of examples that all begin with ``prefix`` (which may be empty)."""
    model, start = loaded.model, len(prefix)
    weight = model.get_input_embeddings().weight
    device = weight.device
    # Right padding and no padding mask: under causal attention nothing real ever sees a pad, and no
    # query is left without a key (which some kernels answer with NaN).
    ids = pad_sequence([torch.tensor(one.ids) for one in batch], batch_first=True)
    marks = [torch.arange(len(one.ids)) >= len(one.ids) - one.target for one in batch]
    trained = pad_sequence(marks, batch_first=True)
    row_of = trained.nonzero()[:, 0]
    targets = ids[trained].to(device)
    match_base = torch.tensor([one.match_base for one in batch])
    matched = match_base[row_of].to(device)
    weights = (1 / trained.sum(1))[row_of].to(device)  # an example is the mean over its tokens
    ids, predicted_at = ids.to(device), trained[:, start + 1 :].to(device)
    positions = torch.arange(ids.shape[1], device=device)[None].expand(len(batch), -1)
    hidden = cache.batch([one.ids for one in batch], ids.shape[1])
    spans = [(one.first, one.last) for one in batch]
    plan = make_plan(delta, spans, None, device, weight.dtype)
    past = _prefix_kv(loaded, ids, hidden, start) if start else None
    with (
        autocast(device),
        start_at_layer(model, loaded.layer, hidden[:, start:]),
        use_plan(plan),
        _logits_only_at(model, predicted_at),
    ):
        logits = model(
            input_ids=ids[:, start:],
            position_ids=positions[:, start:],
            past_key_values=past,
            use_cache=past is not None,
        ).logits.float()
    per_token = logits.new_zeros(len(row_of))
    per_token[~matched] = functional.cross_entropy(
        logits[~matched], targets[~matched], reduction="none"
    )
    if bool(match_base.any()):
        with autocast(device):
            base = teacher.logits([(one.ids, one.target) for one in batch if one.match_base])
        base = base.to(logits.device)  # a split model keeps the teacher's states elsewhere
        after, before = (functional.log_softmax(x, -1) for x in (logits[matched], base.float()))
        divergence = functional.kl_div(after, before, reduction="none", log_target=True)
        per_token[matched] = divergence.sum(-1) * kl
    return (per_token * weights).sum()


def _prefix_kv(loaded: LoadedModel, ids: Tensor, hidden: Tensor, length: int) -> Any:
    """Keys and values of the first ``length`` tokens for every row, from one pass over them."""
    model, rows = loaded.model, len(ids)
    past = DynamicCache(config=model.config)
    plan = make_plan(None, [(0, None)], None, ids.device, hidden.dtype)
    with (
        autocast(ids.device),
        start_at_layer(model, loaded.layer, hidden[:1, :length]),
        use_plan(plan),
    ):
        model.get_decoder()(
            input_ids=ids[:1, :length],
            position_ids=torch.arange(length, device=ids.device)[None],
            past_key_values=past,
            use_cache=True,
        )
    past.batch_repeat_interleave(rows)
    for layer in range(loaded.layer + 1):  # did not run, and a cache is as long as its first
        past.update(*hidden.new_zeros(2, rows, 1, length, 1), layer)
    return past
