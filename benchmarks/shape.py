"""A model of DeepSeek-7B's exact shape with random weights, where the real ones cannot be fetched.

Speed and memory depend on shapes, not on what a model has learnt. The tokenizer is that of the
default model, whose vocabulary is smaller, so every token exists; the chat template has DeepSeek's
form, since a prompt is three times as long under the default model's, which adds a system message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from introspection.injection import hooks as injection
from introspection.injection.extraction import extract
from introspection.injection.self_test import self_test
from introspection.models.loaded_model import LoadedModel
from introspection.models.presets import model_folder
from introspection.models.weights.pretrained import disable_cudnn_attention

# Width, MLP width, blocks, heads, vocabulary, injection layer.
SHAPES = {
    "deepseek-7b": (4096, 11008, 30, 32, 102400, 20),
    "small": (256, 704, 6, 4, 49152, 3),  # to try a script out
}

CHAT = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}<|im_end|>"
    "{% else %}{{ message.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def random_model(shape: str, device: str, tokenizer: Path | None = None) -> LoadedModel:
    """A bare model of a shape of ``SHAPES``, in bf16 on a GPU, with its hook installed and tested."""
    width, inner, blocks, heads, vocabulary, layer = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    disable_cudnn_attention()
    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.eval().requires_grad_(False)
    reader = AutoTokenizer.from_pretrained(tokenizer or model_folder())
    reader.chat_template = CHAT
    ends = reader.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
    model.generation_config.eos_token_id = ends
    model.generation_config.pad_token_id = ends[0]
    hooks = injection.install(model, layer)
    self_test(model, layer)
    loaded = LoadedModel(model, reader, shape, f"random-{shape}", layer, 1.0, hooks=hooks)
    loaded.norm = extract(loaded, ["ocean"]).norm
    return loaded


def save_random_model(shape: str, tokenizer: Path | None, folder: Path) -> None:
    """The same weights and tokenizer as a folder that any library reads."""
    loaded = random_model(shape, "cuda" if torch.cuda.is_available() else "cpu", tokenizer)
    loaded.hooks.remove()
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
