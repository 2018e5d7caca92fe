"""Whether a model can be used here, as far as its own files say, before one weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted

CONFIG = "config.json"
LONGEST = 250  # characters of a path
ADVICE = "use a decoder-only text model such as Llama, Qwen, Gemma, Mistral or Phi"

# What else a model may be, by transformers' table of such models, in the order of asking.
_OTHERS = {
    "SEQ_TO_SEQ_CAUSAL_LM": "an encoder-decoder model",
    "SPEECH_SEQ_2_SEQ": "a speech model",
    "MULTIMODAL_LM": "a vision-language or audio-language model",
    "MASKED_LM": "an encoder, which reads in both directions and writes no text",
    "SEQUENCE_CLASSIFICATION": "a classifier or reward model, which gives scores and no text",
    "TOKEN_CLASSIFICATION": "a classifier, which gives labels and no text",
    "QUESTION_ANSWERING": "a model that marks answers in a text and writes none",
    "MULTIPLE_CHOICE": "a classifier, which gives scores and no text",
}


def check_folder(folder: Path, name: str) -> None:
    """Raises IntrospectionError unless a folder has the configuration and whole weights."""
    files = sorted(path.name for path in folder.iterdir())
    if CONFIG not in files:
        # Also as a cache of the Hub has them.
        configs = [*folder.glob(f"*/{CONFIG}"), *folder.glob(f"snapshots/*/{CONFIG}")]
        inside = sorted(str(path.parent) for path in configs)
        raise no_model(f"The folder {shown(name)}", files, inside)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise IntrospectionError(
            f"config.json in the model folder {shown(name)} is not JSON "
            f"({type(error).__name__}): download the model again."
        ) from error
    if not isinstance(config, dict):
        raise IntrospectionError(
            f"config.json in the model folder {shown(name)} is not a JSON object: download the "
            "model again."
        )
    if "adapter_config.json" in files:
        # transformers would put that adapter on the model without a word.
        raise IntrospectionError(
            f"The folder {shown(name)} holds a model and an adapter, which would be loaded with it: "
            "move adapter_config.json and adapter_model.safetensors elsewhere."
        )
    _check_weights(folder, files, name)


def no_model(what: str, files: list[str], inside: Sequence[str] = ()) -> IntrospectionError:
    """What ``what``, a folder or a repository without config.json, is instead."""
    if "adapter_config.json" in files:
        return IntrospectionError(
            f"{what} holds an adapter and no model (it has adapter_config.json but no "
            f"{CONFIG}): name its base model with --model and the adapter with --adapter."
        )
    gguf = [file for file in files if file.endswith(".gguf")]
    if gguf:
        return IntrospectionError(
            f"{what} holds GGUF weights ({gguf[0]}) and no {CONFIG}, which cannot be read yet: "
            "name the model that they were made from, as safetensors."
        )
    if "model_index.json" in files:
        return IntrospectionError(
            f"{what} holds an image generator (it has model_index.json): name a text model."
        )
    if inside:
        return IntrospectionError(
            f"{what} has no {CONFIG} but folders that have one: name {inside[0]} instead."
        )
    state = f"has no {CONFIG}" if files else "is empty"
    return IntrospectionError(
        f"{what} {state}, so it is not a model that transformers can read: name a folder as "
        "save_pretrained writes it, or a Hub id."
    )


def shown(name: str) -> str:
    """A folder or a repository as it stands in a sentence: whole, where anybody could read it."""
    return repr(name) if len(name) <= LONGEST else quoted(name)


def _check_weights(folder: Path, files: list[str], name: str) -> None:
    tensors = [file for file in files if file.endswith(".safetensors")]
    for file in tensors:
        try:
            with safe_open(folder / file, "pt"):  # reads the header, checks the length
                pass
        except (SafetensorError, OSError) as error:
            raise IntrospectionError(
                f"The weights of the model {shown(name)} are damaged or cut short ({file}): "
                "download that file again."
            ) from error
    indices = (".safetensors.index.json", ".bin.index.json")
    for index in (file for file in files if file.endswith(indices)):
        try:
            listed = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IntrospectionError(
                f"{index} of the model {shown(name)} cannot be read ({type(error).__name__}): "
                "download that file again."
            ) from error
        lacking = sorted(set(map(str, listed)) - set(files))
        if lacking and (index.startswith("model.") or not tensors):
            raise IntrospectionError(
                f"The model {shown(name)} lacks {len(lacking)} of the files of its weights "
                f"({lacking[0]}): download it again."
            )
    if tensors or any(file.endswith(".bin") for file in files):
        return
    foreign = (".gguf", ".h5", ".msgpack", ".onnx", ".pth")
    others = [file for file in files if file.endswith(foreign)]
    seen = f"only {others[0]}" if others else "none"
    raise IntrospectionError(
        f"The model folder {shown(name)} has no weights that can be read ({seen}): it needs "
        "model.safetensors, or its parts with their index."
    )


def check_kind(config: dict[str, Any], name: str) -> None:
    """Raises IntrospectionError unless ``config``, a config.json, is that of a model that writes text
    from left to right and that this transformers knows."""
    kind = config.get("model_type")
    known = f"this version of transformers ({transformers.__version__})"
    if not isinstance(kind, str) or not kind:
        raise IntrospectionError(
            f"config.json of the model {shown(name)} does not say which kind of model it is "
            "(model_type): download the model again or name another."
        )
    causal = _table("CAUSAL_LM")
    if kind not in CONFIG_MAPPING_NAMES:
        if config.get("auto_map"):
            raise IntrospectionError(
                f"The model {shown(name)} needs program code from its own repository (auto_map "
                f"in config.json), which is never run here: {ADVICE}."
            )
        raise IntrospectionError(
            f"The model {shown(name)} is of the kind {quoted(kind)}, which {known} does not know: "
            "upgrade transformers or name another model."
        )
    other = _other(config, kind, causal)
    if other is not None:
        classes = ", ".join(_classes(config)) or kind
        raise IntrospectionError(f"The model {shown(name)} is {other} ({classes[:80]}): {ADVICE}.")
    if kind not in causal:
        code = " without the program code of its own repository, which is never run here"
        raise IntrospectionError(
            f"The model {shown(name)} ({kind}) cannot write text in {known}"
            f"{code if config.get('auto_map') else ''}: {ADVICE}."
        )


def _other(config: dict[str, Any], kind: str, causal: dict[str, set[str]]) -> str | None:
    """What it is instead of a decoder-only language model; None if it may be one."""
    if config.get("is_encoder_decoder") or (
        kind not in causal and kind in _table("SEQ_TO_SEQ_CAUSAL_LM")
    ):
        return _OTHERS["SEQ_TO_SEQ_CAUSAL_LM"]
    # Encoders can be told to be decoders; few are.
    if kind in _table("MASKED_LM") and kind in causal and not config.get("is_decoder"):
        return _OTHERS["MASKED_LM"]
    names = set(_classes(config))
    if kind in causal and (not names or names & causal[kind]):
        return None
    for task, words in _OTHERS.items():
        table = _table(task)
        if kind in causal and task == "MULTIMODAL_LM":
            continue  # transformers can load the part that writes
        if names & table.get(kind, set()) or (kind in table and kind not in causal):
            return words
    return None


def _table(task: str) -> dict[str, set[str]]:
    """Kinds of models and their classes for a task, as this transformers lists them."""
    names = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {})
    return {k: {v} if isinstance(v, str) else set(v) for k, v in names.items()}


def _classes(config: dict[str, Any]) -> list[str]:
    listed = config.get("architectures")
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: dict[str, Any], name: str) -> None:
    """Raises IntrospectionError for a tokenizer that cannot say where in a text its tokens stand, has
    no tokens, or belongs to another model."""
    if not getattr(tokenizer, "is_fast", False):
        raise IntrospectionError(
            f"The tokenizer of the model {shown(name)} ({type(tokenizer).__name__}) is a slow one, "
            "which does not say where in a text its tokens stand: name a model that has a "
            "tokenizer.json."
        )
    ids = tokenizer("Hello there", add_special_tokens=False)["input_ids"]
    if not ids:
        raise IntrospectionError(
            f"The tokenizer of the model {shown(name)} makes no tokens of a text, so its files are "
            "missing or empty: put its tokenizer.json beside config.json."
        )
    inner = config.get("text_config")
    size = config.get("vocab_size") or (isinstance(inner, dict) and inner.get("vocab_size"))
    if type(size) is int and max(ids) >= size:
        raise IntrospectionError(
            f"The tokenizer of the model {shown(name)} gives token {max(ids)}, but the model knows "
            f"{size}: they do not belong together; put the model's own tokenizer files there."
        )
