"""What ``introspection.json`` says of an adapter, and the check of its folder before a byte is used.

The folder is the contract between training, the demo and the Hub. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted
from introspection.io.files import sha256_file
from introspection.io.outputs import manifest
from introspection.models.adapters import foreign

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """``introspection.json`` without its file list: what the adapter was trained on and for.

    ``trained`` are the catalogue concepts, ``vocabulary`` the further names it has seen.
    """

    base_id: str
    base_fingerprint: str
    layer: int
    norm: float
    site: str
    schedule: str
    strengths: tuple[float, float]
    templates: tuple[str, ...]
    baseline: tuple[str, ...]
    trained: tuple[str, ...]
    vocabulary: tuple[str, ...]
    harmful: tuple[str, ...]
    halts: bool
    seed: int
    command: str
    versions: Mapping[str, str]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """The shape of an adapter for a model of ``depth`` layers: on all layers above ``layer`` (0-based).

    ``rank`` and ``targets`` (names of linear layers) are LoRA's; ``base`` names the base model.
    """

    layer: int
    depth: int
    base: str
    rank: int
    targets: tuple[str, ...]


def refresh_manifest(folder: Path, info: AdapterInfo | None = None) -> None:
    """Write ``introspection.json`` with the sha256 of every other file of the contract."""
    described = manifest.read_json(folder / manifest.INFO) if info is None else asdict(info)
    for key in ("schema", "files", "replaces"):
        described.pop(key, None)
    hashes = {
        name: sha256_file(folder / name)
        for name in manifest.FILES
        if name != manifest.INFO and (folder / name).is_file()
    }
    manifest.write_manifest(folder, {"schema": SCHEMA, **described, "files": hashes})


def read_info(folder: Path) -> AdapterInfo:
    """Check the whole folder against its manifest and return what it says.

    Raises IntrospectionError that names the first thing that does not fit.
    """
    try:
        return _read_info(folder)
    except OSError as error:  # no permission, a name that is too long, a disk that fails
        raise IntrospectionError(
            f"The adapter folder {quoted(str(folder))} cannot be read ({error.strerror}): name "
            "another or mend its permissions."
        ) from error


def _read_info(folder: Path) -> AdapterInfo:
    if not folder.is_dir():
        raise foreign.no_folder(folder, manifest.INFO)
    if not (folder / manifest.INFO).is_file():
        raise foreign.no_adapter(folder, manifest.INFO)
    if not (folder / manifest.WEIGHTS).is_file():
        pickled = [p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
        if pickled:
            raise IntrospectionError(
                f"The adapter folder {folder} has only pickle weights ({min(pickled)}), which can "
                "run code and are never loaded: ask for adapter_model.safetensors."
            )
    for name in (manifest.CONFIG, manifest.WEIGHTS, manifest.VECTORS):
        if not (folder / name).is_file():
            raise IntrospectionError(
                f"The adapter folder {folder} has no {name}: download or train the adapter again."
            )
    document = manifest.read_json(folder / manifest.INFO)
    if document.get("schema") != SCHEMA:
        raise IntrospectionError(
            f"The adapter in {folder} has schema {quoted(str(document.get('schema')))}, this "
            f"program reads {SCHEMA}: install the version of introspection that wrote it."
        )
    written = dict(document)
    hashes = document.pop("files", None)
    document.pop("schema")
    document.pop("replaces", None)  # see io.outputs.adapter_folder
    try:
        low, high = (float(value) for value in document["strengths"])
        document["strengths"] = (low, high)
        document["norm"] = float(document["norm"])
        for key in ("templates", "baseline", "trained", "vocabulary", "harmful"):
            document[key] = tuple(str(value) for value in document[key])
        info = AdapterInfo(**document)
        if type(info.base_fingerprint) is not str or type(info.base_id) is not str:
            raise ValueError("base_id or base_fingerprint is no text")
        if type(info.layer) is not int or not 0 < info.norm < math.inf or not 0 <= low <= high:
            raise ValueError("layer, norm or strengths out of range")
        expected = {str(name): str(value) for name, value in hashes.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntrospectionError(
            f"introspection.json in {folder} lacks or garbles a field ({error}): download or train "
            "the adapter again."
        ) from error
    for name in (manifest.CONFIG, manifest.WEIGHTS, manifest.VECTORS):
        if expected.get(name) != sha256_file(folder / name):
            raise IntrospectionError(
                f"{name} in {folder} is damaged or was changed (its sha256 is not the one in "
                "introspection.json): download or train the adapter again."
            )
    # Earlier versions wrote no hash of the manifest itself.
    if expected.get(manifest.INFO, manifest.own_sha256(written)) != manifest.own_sha256(written):
        raise IntrospectionError(
            f"introspection.json in {folder} was changed since this program wrote it: download or "
            "train the adapter again."
        )
    return info
