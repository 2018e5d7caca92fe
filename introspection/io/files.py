"""Where downloaded and computed files live, and how a file is written so that it is never half
there."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Begins the name of what is being written; a kill may leave one.
SCRATCH = ".introspection-scratch-"


def cache_folder() -> Path:
    """``$INTROSPECTION_CACHE``, else ``introspection`` in the user's cache folder."""
    chosen = os.environ.get("INTROSPECTION_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))  # a file of settings is read by no shell
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "introspection"


def ensure_tempdir() -> None:
    """On a full disk Python finds no temporary folder and Gradio cannot be imported: give it the
    name of one; writing there fails as it does anywhere."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = str(cache_folder() / "tmp")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _scratch_name() -> str:
    # Of a fixed length: a name as long as a folder allows must stay writable.
    return f"{SCRATCH}{secrets.token_hex(6)}"


def scratch_folder(parent: Path) -> Path:
    """A new folder in ``parent`` with the rights that the user's umask leaves (mkdtemp gives 0700)."""
    scratch = parent / _scratch_name()
    scratch.mkdir()
    return scratch


def probe(folder: Path) -> None:
    """Raises OSError where not even a byte can be written; a quota is no property of the disk."""
    scratch = folder / _scratch_name()
    try:
        scratch.write_bytes(b"0")
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A scratch file beside ``path`` that becomes ``path`` when the block ends well, and nothing
    otherwise. Its rights are ``mode``, else 0666 less the user's umask, whatever wrote it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(_scratch_name())
    handle = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        usual = os.fstat(handle).st_mode & 0o777  # the kernel knows the umask; asking would set it
        os.close(handle)
        yield scratch
        scratch.chmod(usual if mode is None else mode)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a file completely or not at all: into a neighbour first, then one rename."""
    with whole_file(path, mode) as scratch:
        scratch.write_bytes(data)


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """:func:`write_bytes` of a text as UTF-8."""
    write_bytes(path, text.encode(), mode)


def usual_rights(scratch: Path) -> None:
    """Give what a library wrote into a :func:`scratch_folder` the rights that the umask leaves."""
    usual = scratch.stat().st_mode & 0o666
    for path in scratch.rglob("*"):
        if path.is_file():
            path.chmod(usual)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``target`` when the block ends well, and nothing otherwise. An
    older ``target`` is replaced whole; of two processes the last to finish wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_folder(target.parent)
    try:
        yield scratch
        usual_rights(scratch)
        for left in reversed(range(5)):
            try:
                scratch.replace(target)
                break
            except OSError as error:
                if not left or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # An older one, or that of a process that was a moment faster: put it aside.
                old = scratch_folder(target.parent)
                with suppress(FileNotFoundError):  # somebody else did
                    target.replace(old / "was")
                shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
