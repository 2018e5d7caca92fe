"""The run folder of a training: whose it is, and its last complete checkpoint.

Knows: files. Does not know: the loop that fills them. A kill at any moment leaves the last one whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from introspection.cache import write_text
from introspection.errors import IntrospectionError
from introspection.loss import Tokens
from introspection.models import LoadedModel, fingerprint, same_base

__all__ = ["claim", "open_log", "restore", "save"]


def claim(
    run: Path,
    loaded: LoadedModel,
    config: Mapping[str, Any],
    tokens: Sequence[Tokens],
    vectors: Tensor,
) -> None:
    """Write the run's config, or make sure that the folder holds this very run."""
    described = json.loads(json.dumps(dict(config)))
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
        if not _same(known, document):
            raise IntrospectionError(
                f"The run folder {run} holds another run (its model, settings or examples differ): "
                "choose a new folder with --run, or delete it to start over."
            )
        return
    write_text(path, json.dumps(document, indent=1) + "\n")


def _same(known: Any, document: Mapping[str, Any]) -> bool:
    """Whether both say the same; a base may be quantised in one of them."""
    return (
        isinstance(known, dict)
        and same_base(str(known.get("base")), document["base"])
        and {**known, "base": ""} == {**document, "base": ""}
    )


def save(
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


def restore(run: Path, parameters: dict[str, Any], optimizer: torch.optim.Optimizer) -> int:
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


def open_log(run: Path, done: int) -> TextIO:
    """``log.jsonl``, to go on after step ``done``: what was logged behind the checkpoint goes."""
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = []
    for line in lines:
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line + "\n")
        except ValueError:  # the line that a kill cut short
            break
    write_text(path, "".join(kept))
    return path.open("a", encoding="utf-8")
