"""The files of an adapter folder, and the manifest that lists them with their hashes.

``introspection.json`` carries the sha256 of every other file and one of all the rest of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from introspection.errors import IntrospectionError
from introspection.io.files import write_text

WEIGHTS, CONFIG, VECTORS, INFO = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "vectors.safetensors",
    "introspection.json",
)
# Everything an adapter folder may contain; other files are never read and never uploaded.
FILES = (WEIGHTS, CONFIG, VECTORS, INFO, "evaluation.json", "README.md")
LARGEST_JSON = 8_000_000  # bytes


def write_manifest(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``introspection.json``: ``document`` with its own hash among those of its ``files``."""
    sealed = {**document, "files": {**document["files"], INFO: own_sha256(document)}}
    write_text(folder / INFO, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")


def own_sha256(document: Mapping[str, Any]) -> str:
    """The sha256 of a manifest without the entry that holds it."""
    others = {name: value for name, value in document["files"].items() if name != INFO}
    text = json.dumps({**document, "files": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of an adapter folder. Raises IntrospectionError if there is none."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("too large")
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise IntrospectionError(
            f"{path.name} in the adapter folder {path.parent} cannot be read "
            f"({error.__class__.__name__}): download or train the adapter again."
        ) from error
    return document
