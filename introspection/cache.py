"""Where downloaded and computed files live, and how a file is written so that it is never half there.

Knows: the cache folder, sha256 of files, atomic replacement. Does not know what is in the files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = [
    "atomic_folder",
    "cache_folder",
    "name_temporary_folder",
    "sha256_file",
    "write_bytes",
    "write_text",
]


def cache_folder() -> Path:
    """``$INTROSPECTION_CACHE``, else ``introspection`` in the user's cache folder."""
    chosen = os.environ.get("INTROSPECTION_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "introspection"


def name_temporary_folder() -> None:
    """On a full disk Python finds no temporary folder, and Gradio, which asks for one when it is
    imported, stops with it. It then gets the name of one; writing there fails as it does anywhere."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = str(cache_folder() / "tmp")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of a text as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file completely or not at all: into a neighbour first, then one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``target`` when the block ends well, and nothing otherwise.

    An older ``target`` is replaced. Two processes may race: the last one to finish wins, both are
    complete.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield scratch
        scratch.chmod(0o755)
        for left in reversed(range(5)):
            try:
                scratch.replace(target)
                break
            except OSError as error:
                if not left or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # An older one, or that of a process that was a moment faster: put it aside.
                old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
                with suppress(FileNotFoundError):  # somebody else did
                    target.replace(old / "was")
                shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
