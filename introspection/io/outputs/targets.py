"""Which places may be written, decided before any work begins: new, empty, or what this program wrote.
Every refusal is one sentence that names the option, the place and the way out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from introspection.errors import IntrospectionError
from introspection.io.outputs import adapter_folder, ownership, places
from introspection.io.outputs.ownership import is_ours
from introspection.io.outputs.places import NEW_FILE, NEW_FOLDER, refusal, resolved, shown


def adapter_target(out: Path, run: Path, model: str | None) -> tuple[Path, Path]:
    """Where the adapter and its run go, links resolved. ``model`` may be the name of a folder."""
    target, steps = places.folder(out, "--out", model), places.folder(run, "--run", model)
    if target.is_relative_to(steps) or steps.is_relative_to(target):
        raise IntrospectionError(
            f"--out {shown(out)} and --run {shown(run)} are one folder, or one is inside the "
            "other: name two that lie apart."
        )
    ownership.check_adapter_folder(target, out)
    ownership.check_run_folder(steps, run)
    places.need_writable(target, out, "--out", NEW_FOLDER)
    # A run that is there may have ended, and then needs no more room.
    if not ownership.entries(steps):
        places.need_writable(steps, run, "--run", NEW_FOLDER)
    return target, steps


def records_target(out: Path, model: str | None = None) -> Path:
    """Where the records of an evaluation go: nowhere near anything that is not such a record."""
    target = places.folder(out, "--out", model)
    there = ownership.entries(target)
    records = sorted(name for name in there if ownership.RECORDS.fullmatch(name))
    if set(there) - {"summary.json"} and not records:
        raise refusal("--out", out, f"holds other files ({shown(min(there))})", NEW_FOLDER)
    for name in records:
        if not is_ours(target / name, ownership.holds_records):
            raise refusal("--out", out, f"has a {name} that evaluate did not write", NEW_FOLDER)
    if "summary.json" in there and not is_ours(target / "summary.json", ownership.holds_summary):
        raise refusal("--out", out, "has a summary.json that evaluate did not write", NEW_FOLDER)
    places.need_writable(target, out, "--out", NEW_FOLDER)
    return target


def vectors_target(out: Path, model: str | None = None) -> Path:
    """Where ``extract`` writes: a new file, or one of concept vectors that belongs to no adapter."""
    target = resolved(out, "--out", NEW_FILE)
    kind = places.kind(target)
    if kind not in ("", "a file"):
        raise refusal("--out", out, f"is {kind}", NEW_FILE)
    if not target.parent.is_dir():
        raise refusal("--out", out, "lies in no folder that exists", "make the folder first")
    places.keep_off(target, out, "--out", model, NEW_FILE)
    if ownership.belongs_to_adapter(target):
        raise refusal("--out", out, "is the name of a file of the adapter there", NEW_FILE)
    if kind and not is_ours(target, ownership.holds_vectors):
        raise refusal("--out", out, "is a file that extract did not write", NEW_FILE)
    places.need_writable(target.parent, out, "--out", NEW_FILE)
    return target


def card_target(folder: Path) -> Path:
    """The adapter folder, already checked, that ``report`` writes into, with no file that others
    changed."""
    target = folder.resolve()
    places.keep_off(target, folder, "--adapter", None, "copy it and name the copy")
    changed = adapter_folder.changed_files(target)
    if changed:
        why = f"has a {changed[0]} that was changed since this program wrote it"
        raise refusal("--adapter", folder, why, "move that file away or name another folder")
    places.need_writable(target, folder, "--adapter", "name another folder")
    return target


def document_target(path: Path, option: str, blocks: Iterable[str]) -> Path:
    """A person's document, of which only the marked ``blocks`` are replaced: a text that has them."""
    advice = "name a UTF-8 text file that exists"
    target = resolved(path, option, advice)
    kind = places.kind(target)
    if kind != "a file":
        raise refusal(option, path, f"is {kind}" if kind else "is not there", advice)
    try:
        text = target.read_bytes().decode()
    except (OSError, ValueError) as error:
        why = f"cannot be read ({type(error).__name__})"
        raise refusal(option, path, why, advice) from error
    for name in blocks:
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if not 0 <= text.find(start) < text.find(end):
            why = f"has no place for '{name}'"
            raise refusal(option, path, why, f"add {start} and {end}")
        if text.count(start) != 1 or text.count(end) != 1:
            why = f"has more than one place for '{name}'"
            raise refusal(option, path, why, f"keep {start} and {end} once each")
    places.need_writable(target.parent, path, option, advice)
    return target


def figure_targets(folder: Path, option: str, files: Iterable[str], mark: str) -> Path:
    """A folder for figures: each file is new, or has ``mark`` in it, as those of the program do."""
    target = resolved(folder, option, NEW_FOLDER)
    if places.kind(target) not in ("", "a folder"):
        raise refusal(option, folder, f"is {places.kind(target)}", NEW_FOLDER)

    def marked(path: Path) -> bool:
        return mark.encode() in path.read_bytes()

    for name in files:
        path = target / name
        if os.path.lexists(path) and not is_ours(path, marked):
            raise refusal(option, folder, f"has a {name} of somebody else", NEW_FOLDER)
    places.need_writable(target, folder, option, NEW_FOLDER)
    return target


@contextmanager
def writing(place: Path, instead: str) -> Iterator[None]:
    """Whatever a disk may answer while a block writes to ``place``, as one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and not places.concerns(error, place):
            raise  # a closed terminal, a program that is not there
        why = places.reason(error)
        raise IntrospectionError(
            f"{shown(place)} could not be written ({why}): {places.remedy(error, instead)}."
        ) from error
