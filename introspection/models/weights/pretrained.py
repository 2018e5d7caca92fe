"""Weights and tokenizer of a base model, from a folder or the Hub, on one device or several.

Weights that come as pickles are read with ``weights_only``: tensors, never code. A public model is
asked for without a token; only a refusal sends ``HF_TOKEN``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from huggingface_hub import constants, list_repo_files

from introspection.errors import IntrospectionError
from introspection.injection.trials.message import Message
from introspection.injection.trials.prompts import render
from introspection.io.characters import quoted
from introspection.models import distributed
from introspection.models.weights import load_errors, model_files
from introspection.models.weights.model_files import shown

# Without it, loading pickle weights from the Hub starts a background request to a conversion service.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

Quantisation = Literal["8bit", "4bit"]
SPLIT = "split"  # over every GPU there is


@dataclass(frozen=True, slots=True)
class Placement:
    """Where weights go and how precise they are. ``device`` is a torch device or ``split``."""

    device: str
    dtype: torch.dtype
    quantisation: Quantisation | None = None


def placement(
    device: str | None, full_precision: bool, quantisation: Quantisation | None = None
) -> Placement:
    """The device asked for (None: the best there is) in bf16, or float32 on a CPU or if asked.

    Raises IntrospectionError for a device that is not there and for quantisation without its
    package or a GPU.
    """
    gpus = torch.cuda.device_count()
    if device is None:
        device = distributed.device()
    elif device == SPLIT:
        if not gpus:
            raise IntrospectionError("There is no GPU to split the model over: leave --device out.")
    else:
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise IntrospectionError(
                f"The device {quoted(device)} is not there or not free: use cpu or leave --device "
                "out."
            ) from error
    if quantisation is not None:
        if find_spec("bitsandbytes") is None:
            raise IntrospectionError(
                "Quantisation needs the package bitsandbytes: run 'pip install bitsandbytes' or "
                "leave --quantise out."
            )
        if not gpus:
            raise IntrospectionError("Quantisation needs a GPU: leave --quantise out on a CPU.")
    precise = full_precision or device == "cpu"
    return Placement(device, torch.float32 if precise else torch.bfloat16, quantisation)


def disable_cudnn_attention() -> None:
    """Disable cuDNN attention: it tunes itself for every new shape of a batch, which takes long."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def load_pretrained(
    name: str, source: str, revision: str | None, where: Placement
) -> tuple[Any, Any]:
    """Model and tokenizer of ``source`` (a folder or a Hub id), frozen, in evaluation mode.

    ``name`` is what the user called it. Raises IntrospectionError whatever is wrong with it.
    """
    local = os.path.isdir(source)
    with load_errors.readable_load_errors(name, source):
        if local:
            model_files.check_folder(Path(source), name)
        try:
            with no_implicit_token():
                return _read(name, source, revision, where, token=False)
        except OSError:
            # Private and gated models look as if they did not exist.
            if local or not os.environ.get("HF_TOKEN"):
                raise
            return _read(name, source, revision, where, token=None)


@contextmanager
def no_implicit_token() -> Iterator[None]:
    """No token of huggingface_hub's own: transformers ignores ``token=False`` when it lists files."""
    before = constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
    constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = before


def _read(
    name: str, source: str, revision: str | None, where: Placement, token: bool | None
) -> tuple[Any, Any]:
    disable_cudnn_attention()
    common = {"revision": revision, "trust_remote_code": False, "token": token}
    with load_errors.part("configuration"):
        config = _configuration(name, source, revision, token)
    with load_errors.part("tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
        model_files.check_tokenizer(tokenizer, config, name)
    render(tokenizer, (Message("user", "Hello"),))  # a broken chat template shows here
    with load_errors.part("weights"):
        model = _weights(name, source, where, common)
    _name_the_end(tokenizer, model, name)
    return model, tokenizer


def _configuration(name: str, source: str, revision: str | None, token: Any) -> dict[str, Any]:
    """config.json, checked: a decoder-only language model with possible values."""
    config: dict[str, Any]
    access = {"revision": revision, "token": token}
    config, _ = transformers.PreTrainedConfig.get_config_dict(source, **access)
    if not config and not os.path.isdir(source):
        files = list_repo_files(source, **access)
        raise model_files.no_model(f"The repository {shown(source)}", files)
    model_files.check_kind(config, name)
    # Impossible values show here.
    transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config)
    return config


def check_folder(name: str, folder: str) -> None:
    """What :func:`load_pretrained` would refuse in a folder before it loads anything."""
    with load_errors.readable_load_errors(name, folder), load_errors.part("configuration"):
        model_files.check_folder(Path(folder), name)
        _configuration(name, folder, None, False)


def _name_the_end(tokenizer: Any, model: Any, name: str) -> None:
    """Give a tokenizer without an end token the one of the model's own settings."""
    if tokenizer.eos_token_id is not None:
        return
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = getattr(model.config.get_text_config(), "eos_token_id", None)
    end_ids = [end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int]
    end = tokenizer.convert_ids_to_tokens(end_ids[0]) if end_ids else None
    if not end:
        raise IntrospectionError(
            f"The model {shown(name)} has no end token, so no answer of it would end: name it in "
            "tokenizer_config.json (eos_token) or use another model."
        )
    tokenizer.eos_token = end


def _weights(name: str, source: str, where: Placement, common: dict[str, Any]) -> Any:
    options: dict[str, Any] = {}
    if where.device == SPLIT:
        options["device_map"] = "auto"
    elif where.quantisation is not None:
        options["device_map"] = {"": where.device}
    if where.quantisation is not None:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_8bit=where.quantisation == "8bit",
            load_in_4bit=where.quantisation == "4bit",
            bnb_4bit_compute_dtype=where.dtype,
            bnb_4bit_quant_type="nf4",
        )
    given = {"dtype": where.dtype, "weights_only": True, **common, **options}
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        source, output_loading_info=True, **given
    )
    if getattr(model, "peft_config", None):
        raise IntrospectionError(
            f"The model {shown(name)} comes with an adapter of its own, which was loaded with it: name "
            "one without adapter_config.json."
        )
    if loading["missing_keys"]:
        # transformers would fill them with random numbers and only warn.
        lacking = sorted(loading["missing_keys"])
        raise IntrospectionError(
            f"The model {shown(name)} lacks {len(lacking)} of the weights that its config.json calls "
            f"for, such as {lacking[0]}: its files are cut short or made for another purpose; "
            "download them again or name another model."
        )
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise MemoryError("it does not fit into the memory of the GPUs")
    # The special tokens alone: a ban on repeated words, say, would change what a report says.
    usual = model.generation_config
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    kept = {name: getattr(usual, name) for name in special}
    model.generation_config = transformers.GenerationConfig(**kept)
    if not options:
        model.to(where.device)
    return model.eval().requires_grad_(False)
