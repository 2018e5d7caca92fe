"""The last complete checkpoint of a run, whole after a kill at any moment, and the log up to it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from introspection.errors import IntrospectionError
from introspection.io.files import whole_file, write_text
from introspection.training.runs import CHECKPOINT, LOG, Run, checkpoint_header
from introspection.training.tokenization import Tokens

_UNREADABLE = (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError)


def hash_data(run: Run, tokens: Sequence[Tokens], names: Sequence[str]) -> str:
    """A hash of what the weights of a run are trained on."""
    # Spelled as in the first version, so that its checkpoints go on.
    spelled = ", ".join(
        f"Tokens(ids={one.ids}, target={one.target}, first={one.first}, last={one.last}, "
        f"concept={one.concept!r}, replay={one.match_base})"
        for one in tokens
    )
    text = f"({run.digest!r}, {list(names)!r}, [{spelled}])"
    return hashlib.sha256(text.encode()).hexdigest()


def save(
    run: Run,
    data_hash: str,
    step: int,
    log: Sequence[str],
    parameters: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
) -> None:
    """One safetensors file, written aside and renamed; ``log`` holds the lines up to ``step``."""
    tensors = {}
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = parameter.detach().cpu().contiguous()
        # Nothing yet where every gradient so far was skipped.
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
    header = {**run.header, "made_from": data_hash, "step": step}
    header |= {"log": list(log), "crc32": _crc(tensors)}
    # In one entry: safetensors writes several in no order.
    with whole_file(run.folder / CHECKPOINT) as aside:
        save_file(tensors, aside, {"introspection": json.dumps(header, sort_keys=True)})


def set_aside(run: Run, data_hash: str) -> None:
    """Rename a checkpoint that was made from something else: the base model's answers were made again
    and came out otherwise, or another version of the program draws other examples."""
    path = run.folder / CHECKPOINT
    try:
        made_from = str(checkpoint_header(path)["made_from"])
    except _UNREADABLE:  # not there, or for ``restore`` to complain about
        return
    if made_from != data_hash:
        path.replace(run.folder / f"checkpoint-{made_from[:12]}.safetensors")


def restore(
    run: Run, parameters: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> tuple[int, list[str]]:
    """Put the checkpoint into ``parameters`` and ``optimizer``; its step, and the log up to there."""
    path = run.folder / CHECKPOINT
    if not path.exists():
        return 0, []
    try:
        header, tensors = checkpoint_header(path), load_file(path)
        if header["crc32"] != _crc(tensors):
            raise ValueError("another checksum")
        step, log = int(header["step"]), [str(line) for line in header["log"]]
        state = optimizer.state_dict()
        for i, (name, parameter) in enumerate(parameters.items()):
            parameter.data.copy_(tensors[f"weight/{name}"])
            # With the optimizer's own count of steps: it makes none on a gradient of NaN.
            keys = [k for k in ("step", "exp_avg", "exp_avg_sq") if f"{k}/{name}" in tensors]
            state["state"][i] = {key: tensors[f"{key}/{name}"] for key in keys}
        optimizer.load_state_dict(state)
    except _UNREADABLE as error:
        raise IntrospectionError(
            f"The checkpoint {path} is damaged ({type(error).__name__}): delete it to train from the "
            "first step again, or put a copy of it back."
        ) from error
    return step, log


def open_log(run: Run, lines: Sequence[str]) -> TextIO:
    """``log.jsonl``, to go on after ``lines``: what was logged behind the checkpoint goes."""
    path, text = run.folder / LOG, "".join(lines)
    # A run that has ended writes nothing here: its disk may be full.
    if not path.exists() or path.read_bytes() != text.encode():
        write_text(path, text)
    return path.open("a", encoding="utf-8")


def _crc(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(tensors):
        data: Any = tensors[name].reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(data, zlib.crc32(name.encode(), checksum))
    return checksum
