"""What a path leads to, before anything is written there: links that lead nowhere, folders that nobody
means (the current one, a home, a model's, a cache), disks that refuse a byte."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from huggingface_hub import constants

from introspection.errors import IntrospectionError
from introspection.io.files import cache_folder, probe

LONGEST_SHOWN = 120
NEW_FOLDER, NEW_FILE = "name a new or empty folder", "name a new file"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
)


def home_expanded(text: str) -> str:
    """``~`` and ``~somebody`` at the start of a path: in ``--out=~/x`` no shell replaces them."""
    path = os.path.expanduser(text)
    if path.startswith("~") and os.sep in path:
        raise IntrospectionError(
            f"There is no home folder {shown(text.split(os.sep)[0])}: write the whole "
            "path, or put ./ before a name that begins with ~."
        )
    return path


def own_path(text: str | Path) -> Path:
    """What every option that names a file or a folder goes through."""
    return Path(home_expanded(str(text)))


def concerns(error: OSError, place: Path) -> bool:
    """Whether an error is a disk's refusal to write at ``place``, and not anything else's."""
    if error.filename is None:
        return error.errno in _DISK
    path = Path(os.fsdecode(error.filename)).absolute()
    return path.is_relative_to(place.absolute().parent) or error.errno in _DISK


def reason(error: Exception) -> str:
    """Why a disk refused, in the system's words; safetensors wraps them in its own."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    found = re.search(r"(?:I/O error: )?([^:]+?) \(os error \d+\)", str(error))
    return found[1].strip() if found else type(error).__name__


def remedy(error: Exception, instead: str) -> str:
    """What to do about it: space can be freed where it is space that is missing."""
    full = {os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)}
    return f"free space there or {instead}" if reason(error) in full else instead


def shown(path: object) -> str:
    text = str(path)
    return repr(text if len(text) <= LONGEST_SHOWN else f"...{text[-LONGEST_SHOWN:]}")


def refusal(option: str, path: Path, why: str, instead: str) -> IntrospectionError:
    return IntrospectionError(f"{option} {shown(path)} {why}: {instead}.")


def resolved(path: Path, option: str, instead: str) -> Path:
    """``path`` without links; a link that leads nowhere is no place to write to."""
    try:
        for part in (path, *path.parents):
            if part.is_symlink() and not part.exists():
                raise refusal(option, path, "goes through a link that leads nowhere", instead)
        target = path.resolve()
        os.path.lexists(target)
    except (OSError, RuntimeError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "no valid name"
        raise refusal(option, path, f"cannot be a place to write to ({why})", instead) from error
    return target


def kind(target: Path) -> str:
    """What is at a place, empty for nothing."""
    if not os.path.lexists(target):
        return ""
    mode = target.lstat().st_mode
    return next((name for test, name in _KINDS if test(mode)), "no file")


def folder(path: Path, option: str, model: str | None) -> Path:
    """A folder that may be made, or that is one; not a place that was hardly meant."""
    target = resolved(path, option, NEW_FOLDER)
    if kind(target) not in ("", "a folder"):
        raise refusal(option, path, f"is {kind(target)}", NEW_FOLDER)
    try:
        here = Path.cwd().resolve()
    except OSError as error:
        raise IntrospectionError(
            "The current folder is gone: change to one that exists."
        ) from error
    kept = {"current": here, "home": Path(os.path.expanduser("~")).resolve()}
    if model and os.path.isdir(model):
        kept["model's own"] = Path(model).resolve()
    for name, other in kept.items():
        if other.is_relative_to(target):
            raise refusal(option, path, f"is the {name} folder or holds it", NEW_FOLDER)
    keep_off(target, path, option, model, NEW_FOLDER)
    return target


def keep_off(target: Path, path: Path, option: str, model: str | None, instead: str) -> None:
    """Not into a model, nor into a cache, whose folders are named after what is in them."""
    if model and os.path.isdir(model) and target.is_relative_to(Path(model).resolve()):
        raise refusal(option, path, "is inside the model's own folder", instead)
    for kept in (cache_folder(), Path(constants.HF_HUB_CACHE)):
        if target.is_relative_to(kept.resolve()):
            raise refusal(option, path, f"is inside the cache {shown(kept)}", instead)


def need_writable(target: Path, path: Path, option: str, instead: str) -> None:
    """One byte goes where the work will go: what a disk, a quota or a mount refuses, it refuses now."""
    at = target
    while not os.path.lexists(at):
        at = at.parent
    if not at.is_dir():
        raise refusal(option, path, f"is under {shown(at)}, which is {kind(at)}", instead)
    missing = target.relative_to(at).parts
    longest = os.pathconf(at, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if any(len(os.fsencode(name)) > longest for name in missing):
        raise refusal(option, path, "has a name that is too long", instead)
    try:
        probe(at)
    except OSError as error:
        why = f"cannot be written ({reason(error)})"
        raise refusal(option, path, why, remedy(error, instead)) from error
