"""A tiny Llama as a GGUF file, and as wheels that hold it in parts."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import torch
from gguf import GGUFWriter, TokenType

from introspection.io.files import sha256_file
from introspection.models.weights.sources import Wheel
from tests.support.tiny import CHATML, make_model, make_tokenizer

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(path: Path) -> Path:
    """The weights and the tokenizer of the tiny Llama, in float32."""
    model, tokenizer = make_model("llama"), make_tokenizer()
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.added_tokens_decoder)
    kinds = [TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in core["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(3)
    writer.add_chat_template(CHATML)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        base = name.removesuffix(".weight")
        if base in _OUTER:
            writer.add_tensor(f"{_OUTER[base]}.weight", value.numpy())
            continue
        _, _, layer, part = base.split(".", 3)
        short = _NAMES[part]
        writer.add_tensor(f"blk.{layer}.{short}.weight", _rotated(value, heads.get(short)).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _rotated(weight: torch.Tensor, heads: int | None) -> torch.Tensor:
    """GGUF interleaves the two halves of each head of queries and keys."""
    if heads is None:
        return weight
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()


def split_into_wheels(gguf: Path, folder: Path, parts: int) -> tuple[Wheel, ...]:
    """``parts`` wheels in ``folder``, each with a part of the file."""
    folder.mkdir()
    data, wheels = gguf.read_bytes(), []
    size = -(-len(data) // parts)
    for i in range(parts):
        name, member = f"tiny-part{i}", f"tiny_part{i}/data/part{i:02}.bin"
        path = folder / f"tiny_part{i}-0.1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, data[i * size : (i + 1) * size])
            info = f"tiny_part{i}-0.1.0.dist-info"
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n"
            archive.writestr(f"{info}/METADATA", about)
            about = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            archive.writestr(f"{info}/WHEEL", about)
        wheels.append(Wheel(name, "0.1.0", sha256_file(path), member))
    return tuple(wheels)
