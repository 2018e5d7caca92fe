"""Which files this program wrote, known by what is in them: only those may ever be replaced."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from introspection.errors import IntrospectionError
from introspection.io.files import SCRATCH
from introspection.io.outputs import adapter_folder
from introspection.io.outputs.manifest import FILES, INFO
from introspection.io.outputs.places import NEW_FOLDER, kind, reason, refusal, shown

# What systems leave in a folder that a person calls empty; it stays where it is.
NOBODYS = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".directory")
RUN_LOCK = ".introspection.lock"
# Of each process of a run its records; the first one's hold all of them in the end.
RECORDS = re.compile(r"records(\.\d+)?\.jsonl")


def entries(folder: Path) -> list[str]:
    """What a folder holds beside what a kill of this program left there while it was writing."""
    if not folder.exists():
        return []
    try:
        return sorted(
            name
            for name in os.listdir(folder)
            if not name.startswith(SCRATCH) and name not in NOBODYS
        )
    except OSError as error:
        raise IntrospectionError(
            f"The folder {shown(folder)} cannot be read ({reason(error)}): name another."
        ) from error


def is_ours(path: Path, test: Callable[[Path], bool]) -> bool:
    """Whether a file is plain (no link, no pipe to wait for) and passes ``test``."""
    try:
        return kind(path) == "a file" and test(path)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError):
        return False


def check_adapter_folder(target: Path, typed: Path) -> None:
    names = entries(target)
    if not names:
        return
    if not adapter_folder.is_ours(target):
        why = f"holds files that this program did not write ({shown(names[0])})"
        raise refusal("--out", typed, why, NEW_FOLDER)
    changed = adapter_folder.changed_files(target)
    if changed:
        why = f"has a {changed[0]} that was changed since this program wrote it"
        raise refusal("--out", typed, why, f"move that file away or {NEW_FOLDER}")


def check_run_folder(target: Path, typed: Path) -> None:
    """A run is known by any of its files; other runs lie beside it, named by a hash."""
    names = [name for name in entries(target) if name != RUN_LOCK]
    tests = {
        "config.json": lambda path: {"config", "base"} <= set(_json(path)),
        "replies.json": lambda path: "made_from" in _json(path),
        "checkpoint.safetensors": _holds_checkpoint,
    }
    ours = any(is_ours(target / name, test) for name, test in tests.items())
    hashed = [name for name in names if re.fullmatch(r"[0-9a-f]{8,64}", name)]
    if names and not ours and not any(kind(target / name) == "a folder" for name in hashed):
        why = f"holds files that no training wrote ({shown(names[0])})"
        raise refusal("--run", typed, why, NEW_FOLDER)


def _holds_checkpoint(path: Path) -> bool:
    with safe_open(path, framework="numpy") as file:
        return not {"introspection", "step"}.isdisjoint(file.metadata() or {})


def holds_summary(path: Path) -> bool:
    return "conditions" in _json(path)


def _json(path: Path) -> dict[str, object]:
    document = json.loads(path.read_text(encoding="utf-8"))
    return document if isinstance(document, dict) else {}


def holds_records(path: Path) -> bool:
    """Records line by line; of the last one a kill may have left a part."""
    *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    begins = ('{"schema": ', '{"run": "')  # of today's records, and of an older version's
    if not any(start[: len(last)] == last[: len(start)] for start in begins):
        return False
    for line in filter(None, lines):
        record = json.loads(line)
        if not isinstance(record, dict) or not {"run", "key", "condition"} <= set(record):
            return False
    return True


def holds_vectors(path: Path) -> bool:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        return {"vectors", "magnitudes"} == set(file.keys()) and {"names", "norm"} <= set(metadata)


def belongs_to_adapter(target: Path) -> bool:
    return os.path.lexists(target.parent / INFO) and target.name in FILES
