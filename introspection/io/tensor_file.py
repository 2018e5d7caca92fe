"""Safetensors files whose bytes depend on nothing but what is in them: ``safetensors`` itself writes
metadata in an order that changes from process to process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from introspection.io.files import whole_file


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """As ``safetensors.torch.save_file``, with the entries of ``metadata`` in order, completely or
    not at all."""
    data = save(dict(tensors), dict(metadata))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors are aligned
    with whole_file(path) as scratch, scratch.open("wb") as file:
        file.writelines((len(text).to_bytes(8, "little"), text, memoryview(data)[start:]))
