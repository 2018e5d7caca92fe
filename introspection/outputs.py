"""Which places may be written, decided before any work begins.

Knows: what a person may not have meant (the current folder, a model's own, somebody else's files),
what may be replaced (what this program wrote), why a place cannot be written. Does not know: how a
file is written (``cache``) or what is in it. Nothing is deleted here, and nothing is left but what
was there: a probe of one byte comes and goes.

Every refusal is one sentence that names the option, the place and the way out.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from safetensors import SafetensorError, safe_open

from introspection.cache import SCRATCH, cache_folder, probe
from introspection.errors import IntrospectionError

__all__ = [
    "adapter_target",
    "card_target",
    "document_target",
    "figure_targets",
    "records_target",
    "vectors_target",
    "writing",
]

LONGEST_SHOWN = 120
NEW_FOLDER, NEW_FILE = "name a new or empty folder", "name a new file"
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
)
# Of each process of a run its records; the first one's hold all of them in the end.
RECORDS = re.compile(r"records(\.\d+)?\.jsonl")


def adapter_target(out: Path, run: Path, model: str | None) -> tuple[Path, Path]:
    """Where the adapter and its run go, links resolved. ``model`` may be the name of a folder."""
    target, steps = _folder(out, "--out", model), _folder(run, "--run", model)
    if _related(target, steps):
        raise IntrospectionError(
            f"--out {_shown(out)} and --run {_shown(run)} are one folder, or one is inside the "
            "other: name two that lie apart."
        )
    _own_adapter(target, out)
    _own_run(steps, run)
    for place, typed, option in ((target, out, "--out"), (steps, run, "--run")):
        _need_writable(place, typed, option, NEW_FOLDER)
    return target, steps


def records_target(out: Path, model: str | None = None) -> Path:
    """Where the records of an evaluation go: nowhere near anything that is not such a record."""
    target = _folder(out, "--out", model)
    there = _entries(target)
    records = sorted(name for name in there if RECORDS.fullmatch(name))
    if there and not records:
        raise _refusal("--out", out, f"holds other files ({_shown(min(there))})", NEW_FOLDER)
    for name in records:
        if not _is_ours(target / name, _holds_records):
            raise _refusal("--out", out, f"has a {name} that evaluate did not write", NEW_FOLDER)
    if "summary.json" in there and not _is_ours(target / "summary.json", _is_summary):
        raise _refusal("--out", out, "has a summary.json that evaluate did not write", NEW_FOLDER)
    _need_writable(target, out, "--out", NEW_FOLDER)
    return target


def vectors_target(out: Path, model: str | None = None) -> Path:
    """Where ``extract`` writes: a new file, or one of concept vectors that belongs to no adapter."""
    target = _resolved(out, "--out", NEW_FILE)
    kind = _kind(target)
    if kind not in ("", "a file"):
        raise _refusal("--out", out, f"is {kind}", NEW_FILE)
    if not target.parent.is_dir():
        raise _refusal("--out", out, "lies in no folder that exists", "make the folder first")
    _keep_off(target, out, "--out", model, NEW_FILE)
    if _belongs_to_adapter(target):
        raise _refusal("--out", out, "is the name of a file of the adapter there", NEW_FILE)
    if kind and not _is_ours(target, _holds_vectors):
        raise _refusal("--out", out, "is a file that extract did not write", NEW_FILE)
    _need_writable(target.parent, out, "--out", NEW_FILE)
    return target


def card_target(folder: Path) -> Path:
    """The adapter folder that ``report`` writes into: whole, and with no file that others changed."""
    from introspection import adapter, adapter_folder  # imports torch

    adapter.read_info(folder)
    target = folder.resolve()
    changed = adapter_folder.changed(target)
    if changed:
        why = f"has a {changed[0]} that was changed since this program wrote it"
        raise _refusal("--adapter", folder, why, "move that file away or name another folder")
    _need_writable(target, folder, "--adapter", "name another folder")
    return target


def document_target(path: Path, option: str) -> Path:
    """A person's document, of which only marked blocks are replaced: a file that is there."""
    advice = "name a text file that exists"
    target = _resolved(path, option, advice)
    kind = _kind(target)
    if kind != "a file":
        raise _refusal(option, path, f"is {kind}" if kind else "is not there", advice)
    _need_writable(target.parent, path, option, advice)
    return target


def figure_targets(folder: Path, option: str, files: Iterable[str], mark: str) -> Path:
    """A folder for figures: each file is new, or has ``mark`` in it, as those of the program do."""
    target = _resolved(folder, option, NEW_FOLDER)
    if _kind(target) not in ("", "a folder"):
        raise _refusal(option, folder, f"is {_kind(target)}", NEW_FOLDER)

    def marked(path: Path) -> bool:
        return mark.encode() in path.read_bytes()

    for name in files:
        path = target / name
        if os.path.lexists(path) and not _is_ours(path, marked):
            raise _refusal(option, folder, f"has a {name} of somebody else", NEW_FOLDER)
    _need_writable(target, folder, option, NEW_FOLDER)
    return target


@contextmanager
def writing(place: Path, instead: str) -> Iterator[None]:
    """Whatever a disk may answer while a block writes to ``place``, as one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise IntrospectionError(
            f"{_shown(place)} could not be written ({reason(error)}): free space there or {instead}."
        ) from error


def reason(error: Exception) -> str:
    """Why a disk refused, in the system's words; safetensors wraps them in its own."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    found = re.search(r"(?:I/O error: )?([^:]+?) \(os error \d+\)", str(error))
    return found[1].strip() if found else type(error).__name__


# --- what a place is ------------------------------------------------------------------------------


def _shown(path: object) -> str:
    text = str(path)
    return repr(text if len(text) <= LONGEST_SHOWN else f"...{text[-LONGEST_SHOWN:]}")


def _refusal(option: str, path: Path, why: str, instead: str) -> IntrospectionError:
    return IntrospectionError(f"{option} {_shown(path)} {why}: {instead}.")


def _resolved(path: Path, option: str, instead: str) -> Path:
    """``path`` without links; a link that leads nowhere is no place to write to."""
    try:
        for part in (path, *path.parents):
            if part.is_symlink() and not part.exists():
                raise _refusal(option, path, "goes through a link that leads nowhere", instead)
        target = path.resolve()
        os.path.lexists(target)
    except (OSError, RuntimeError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "no valid name"
        raise _refusal(option, path, f"cannot be a place to write to ({why})", instead) from error
    return target


def _kind(target: Path) -> str:
    """What is at a place, empty for nothing."""
    if not os.path.lexists(target):
        return ""
    mode = target.lstat().st_mode
    return next((name for test, name in _KINDS if test(mode)), "no file")


def _related(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _folder(path: Path, option: str, model: str | None) -> Path:
    """A folder that may be made, or that is one; not a place that was hardly meant."""
    target = _resolved(path, option, NEW_FOLDER)
    if _kind(target) not in ("", "a folder"):
        raise _refusal(option, path, f"is {_kind(target)}", NEW_FOLDER)
    try:
        here = Path.cwd().resolve()
    except OSError as error:
        raise IntrospectionError(
            "The current folder is gone: change to one that exists."
        ) from error
    if here.is_relative_to(target):
        raise _refusal(option, path, "is the current folder or holds it", NEW_FOLDER)
    if Path(os.path.expanduser("~")).resolve().is_relative_to(target):
        raise _refusal(option, path, "is the home folder or holds it", NEW_FOLDER)
    if model and os.path.isdir(model) and Path(model).resolve().is_relative_to(target):
        raise _refusal(option, path, "is the model's own folder or holds it", NEW_FOLDER)
    _keep_off(target, path, option, model, NEW_FOLDER)
    return target


def _keep_off(target: Path, path: Path, option: str, model: str | None, instead: str) -> None:
    """Not into a model, nor into a cache, whose folders are named after what is in them."""
    if model and os.path.isdir(model) and target.is_relative_to(Path(model).resolve()):
        raise _refusal(option, path, "is inside the model's own folder", instead)
    for kept in (cache_folder(), Path(constants.HF_HUB_CACHE)):
        if target.is_relative_to(kept.resolve()):
            raise _refusal(option, path, f"is inside the cache {_shown(kept)}", instead)


def _need_writable(target: Path, path: Path, option: str, instead: str) -> None:
    """One byte goes where the work will go: what a disk, a quota or a mount refuses, it refuses now."""
    at = target
    while not os.path.lexists(at):
        at = at.parent
    if not at.is_dir():
        raise _refusal(option, path, f"is under {_shown(at)}, which is {_kind(at)}", instead)
    try:
        probe(at)
    except OSError as error:
        why = f"cannot be written ({reason(error)})"
        raise _refusal(option, path, why, f"free space there or {instead}") from error


# --- what is ours ---------------------------------------------------------------------------------


def _entries(folder: Path) -> list[str]:
    """What a folder holds beside what a kill of this program left there while it was writing."""
    if not folder.exists():
        return []
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(SCRATCH))
    except OSError as error:
        raise IntrospectionError(
            f"The folder {_shown(folder)} cannot be read ({reason(error)}): name another."
        ) from error


def _is_ours(path: Path, test: Callable[[Path], bool]) -> bool:
    """Whether a file is plain (no link, no pipe to wait for) and passes ``test``."""
    try:
        return _kind(path) == "a file" and test(path)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError):
        return False


def _own_adapter(target: Path, typed: Path) -> None:
    there = _entries(target)
    if not there:
        return
    from introspection import adapter_folder  # imports torch

    if not adapter_folder.is_ours(target):
        why = f"holds files that this program did not write ({_shown(there[0])})"
        raise _refusal("--out", typed, why, NEW_FOLDER)
    changed = adapter_folder.changed(target)
    if changed:
        why = f"has a {changed[0]} that was changed since this program wrote it"
        raise _refusal("--out", typed, why, f"move that file away or {NEW_FOLDER}")


def _own_run(target: Path, typed: Path) -> None:
    """Each run lies in a folder named by a hash, or (of older versions) beside its config."""
    there = _entries(target)
    hashed = [name for name in there if re.fullmatch(r"[0-9a-f]{8,64}", name)]
    ours = any(_kind(target / name) == "a folder" for name in hashed)
    if there and not ours and not _is_ours(target / "config.json", _is_run):
        why = f"holds files that no training wrote ({_shown(there[0])})"
        raise _refusal("--run", typed, why, NEW_FOLDER)


def _is_run(path: Path) -> bool:
    return {"config", "base", "examples_sha256"} <= set(_json(path))


def _is_summary(path: Path) -> bool:
    return "conditions" in _json(path)


def _json(path: Path) -> dict[str, object]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _holds_records(path: Path) -> bool:
    """Records line by line; of the last one a kill may have left a part."""
    *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if last and not last.startswith('{"'):
        return False
    for line in filter(None, lines):
        record = json.loads(line)
        if not isinstance(record, dict) or not {"run", "key", "condition"} <= set(record):
            return False
    return True


def _holds_vectors(path: Path) -> bool:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        return {"vectors", "magnitudes"} == set(file.keys()) and {"names", "norm"} <= set(metadata)


def _belongs_to_adapter(target: Path) -> bool:
    if not os.path.lexists(target.parent / "introspection.json"):
        return False
    from introspection import adapter  # imports torch

    return target.name in adapter.FILES
