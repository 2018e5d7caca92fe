"""Tiny random models of eleven families, each with a random LoRA adapter above layer L and hooks.

Everything is built from seeds, offline. What ``load_*`` gives is cached for the session: a test that
leaves something behind on a model is a test that found a bug.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from introspection.injection import hooks as injection
from introspection.injection import row_gate
from introspection.injection.extraction import extract
from introspection.models.loaded_model import LoadedModel

torch.set_num_threads(1)

LAYER, DEPTH, WIDTH = 1, 4, 32

_ROTARY: dict[str, Any] = {"num_key_value_heads": 2, "intermediate_size": 48}
_TARGETS = ("q_proj", "v_proj", "down_proj")
_TYPES = ["sliding_attention", "full_attention"] * 2
# Options beyond the common ones, and where the adapter sits. Sliding windows are shorter than the
# prompts, so that local and global layers differ.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "llama": (_ROTARY, _TARGETS),
    "qwen2": (_ROTARY, _TARGETS),
    "qwen3": (_ROTARY | {"head_dim": 8}, _TARGETS),
    "gemma2": (_ROTARY | {"head_dim": 8, "sliding_window": 16}, _TARGETS),
    "gemma3_text": (
        _ROTARY | {"head_dim": 8, "sliding_window": 16, "layer_types": _TYPES},
        _TARGETS,
    ),
    "mistral": (_ROTARY | {"sliding_window": 16}, _TARGETS),
    "phi3": (_ROTARY, ("qkv_proj", "down_proj")),
    "olmo2": (_ROTARY, _TARGETS),
    "gpt2": ({}, ("c_attn", "c_fc")),
    "gpt_neox": ({"intermediate_size": 48}, ("query_key_value", "dense_h_to_4h")),
    "falcon": ({"new_decoder_architecture": False}, ("query_key_value", "dense_4h_to_h")),
}

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TEXT = [
    "Do you detect an injected thought? If so, what is it about?",
    "Tell me about the ocean, a bomb, or the quiet volcano near the harbour. HALT",
    "system user assistant I do not detect any injected thought about justice.",
]
PAD, EOS = "<|pad|>", "<|im_end|>"


def make_tokenizer(
    *, readable: bool = True, template: str | None = CHATML, pad: str | None = PAD
) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 330 tokens. Without ``readable`` its text spells out the tokens' names, so
    two texts are equal only if all their tokens are."""
    core = Tokenizer(token_models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if readable:
        core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", EOS, PAD]
    core.train_from_iterator(
        _TEXT,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|endoftext|>",
        eos_token=EOS,
        pad_token=pad,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def make_model(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The bare model: the same weights at every call, and nobody else has it."""
    return copy.deepcopy(_drawn(family, dtype))  # half the time of drawing it again


def make_adapted(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same with its adapter, and nobody else has it."""
    return copy.deepcopy(_adapted(family, dtype))


@cache
def _adapted(family: str, dtype: torch.dtype) -> PreTrainedModel:
    model = make_model(family, dtype)
    add_adapter(model, family)
    return model


@cache
def _drawn(family: str, dtype: torch.dtype) -> PreTrainedModel:
    options, _ = FAMILIES[family]
    config = AutoConfig.for_model(
        family,
        vocab_size=len(make_tokenizer()),
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=3,
        attn_implementation="eager",
        **options,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    return model.to(dtype).eval().requires_grad_(False)


def add_adapter(model: PreTrainedModel, family: str) -> None:
    """A random LoRA on every layer above LAYER that is loud enough to change most answers."""
    inject_adapter_in_model(
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=list(FAMILIES[family][1]),
            layers_to_transform=list(range(LAYER + 1, DEPTH)),
            fan_in_fan_out=family == "gpt2",
        ),
        model,
    )
    source = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            drawn = 0.3 * torch.randn(parameter.shape, generator=source)
            parameter.data = drawn.to(parameter.dtype)
    model.eval().requires_grad_(False)


load_bare, load_adapted = cache(make_model), cache(make_adapted)


@cache
def load_tiny(family: str) -> LoadedModel:
    model = make_adapted(family)
    hooks = injection.install(model, LAYER)
    tokenizer = make_tokenizer(readable=False)
    loaded = LoadedModel(model, tokenizer, family, family, LAYER, 1.0, hooks=hooks)
    loaded.norm = extract(loaded, ["ocean"], baseline=["bomb", "justice"]).norm
    return loaded


def vector(seed: int) -> torch.Tensor:
    """A random unit concept vector [D]."""
    return torch.nn.functional.normalize(
        torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)), dim=0
    )


def hook_count(model: torch.nn.Module) -> int:
    """Hooks and gates on the model."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    updates = [m for m in model.modules() if isinstance(m, LoraLayer)]
    gates = [type(s) is row_gate.GatedScaling for m in updates for s in m.scaling.values()]
    return hooks + sum(gates)


def overrides(model: torch.nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if "forward" in vars(m)]
