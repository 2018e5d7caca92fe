"""Which files of an adapter folder this program wrote, and how new ones take their place.

Before the first file moves, the manifest lists both the new hashes and, under ``replaces``, those of
what is there. A kill between leaves a mixture that the loader refuses and the next start knows as
its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from introspection.errors import IntrospectionError
from introspection.io.files import scratch_folder, sha256_file, usual_rights, write_text
from introspection.io.outputs.manifest import FILES, INFO, read_json, write_manifest


def is_ours(folder: Path) -> bool:
    """Whether this program wrote the folder: its manifest says so."""
    path = folder / INFO
    if path.is_symlink() or not path.is_file():
        return False
    try:
        document = read_json(path)
    except IntrospectionError:
        return False
    known = {"schema", "base_fingerprint", "layer", "files"} <= set(document)
    return known and isinstance(document["files"], dict)


def changed_files(folder: Path) -> list[str]:
    """The files of the contract that are no longer what this program wrote: not to be replaced."""
    document = read_json(folder / INFO)
    before = document.get("replaces")
    known = [document["files"], before if isinstance(before, dict) else {}]
    found = []
    for name in FILES:
        path = folder / name
        if name == INFO or not os.path.lexists(path):
            continue
        plain = path.is_file() and not path.is_symlink()
        if not plain or sha256_file(path) not in [files.get(name) for files in known]:
            found.append(name)
    return found


@contextmanager
def rewrite_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that is filled and then becomes ``target``, or the new files in it.

    ``target`` is new, empty or ours. Only our own files are replaced, and removed if they have no
    successor. Until the block has ended well nothing is touched.
    """
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        there = target.exists()
        scratch = scratch_folder(target if there else target.parent)
        try:
            yield scratch
            usual_rights(scratch)
            if there:
                _move(scratch, target)
            else:
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except BaseException:
        for parent in new_parents:
            with suppress(OSError):  # no longer empty
                parent.rmdir()
        raise


def write_file(folder: Path, name: str, text: str) -> None:
    """Write one more file of the contract, ``name``, and the manifest that covers it."""
    document = read_json(folder / INFO)
    document.pop("replaces", None)
    path = folder / name
    files = {**document["files"], name: hashlib.sha256(text.encode()).hexdigest()}
    before = {name: sha256_file(path)} if path.exists() else {}
    write_manifest(folder, {**document, "files": files, "replaces": before})
    write_text(path, text)
    write_manifest(folder, {**document, "files": files})


def _move(scratch: Path, target: Path) -> None:
    there = {name for name in FILES if name != INFO and os.path.lexists(target / name)}
    if os.path.lexists(target / INFO):
        # Hours may have gone by since somebody looked.
        wrong = changed_files(target) if is_ours(target) else [INFO]
    else:
        wrong = sorted(there)
    if wrong:
        raise IntrospectionError(
            f"{wrong[0]} in {target} was changed since this program wrote it: move that file away "
            "or choose another --out."
        )
    before = {name: sha256_file(target / name) for name in sorted(there)}
    write_manifest(target, {**read_json(scratch / INFO), "replaces": before})
    new = [name for name in FILES if name != INFO and (scratch / name).exists()]
    for name in new:
        (scratch / name).replace(target / name)
    for name in there.difference(new):
        (target / name).unlink()
    (scratch / INFO).replace(target / INFO)
