"""The page as a Hugging Face Space: its variables, and what it shows when nothing can be loaded.

Knows: the environment. Does not know: how weights load (``models``), how a Hub repository is checked
(``hub``), how a GPU is lent (``zerogpu``), what the page says about a run. Off a Space every function
here does what a plain start does.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from introspection.demo.engine import diagnostics
from introspection.demo.engine.adapter_choices import adapter_choices
from introspection.demo.engine.diagnostics import Finding
from introspection.demo.engine.zerogpu import on_gpu, zero_gpu
from introspection.errors import IntrospectionError
from introspection.io.input_checks import quoted
from introspection.models.adapters.front_matter import HUB_ID
from introspection.models.loaded_model import bundled_adapter
from introspection.models.presets import DEFAULT, PRESETS, full_precision

if TYPE_CHECKING:
    import gradio as gr

    from introspection.demo.engine.run_request import RunRequest
    from introspection.models.loaded_model import LoadedModel

__all__ = ["Settings", "findings", "serve", "settings"]

log = logging.getLogger(__name__)


# --- variables ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """What the variables say. ``adapter``: a folder, ``none``, a Hub repository, or None for the
    one that ships; ``more``: what a visitor may choose instead."""

    model: str
    adapter: str | None
    revision: str | None
    more: tuple[str, ...] = ()


def settings() -> Settings:

    def read(name: str) -> str | None:
        value = os.environ.get(f"INTROSPECTION_{name}", "").strip()
        return os.path.expanduser(value) or None  # a service's settings are read by no shell

    listed = (os.path.expanduser(entry.strip()) for entry in (read("ADAPTERS") or "").split(","))
    more = tuple(dict.fromkeys(filter(None, listed)))
    return Settings(read("MODEL") or DEFAULT, read("ADAPTER"), read("REVISION"), more)


def on_space() -> bool:
    return bool(os.environ.get("SPACE_ID"))


def _repository(chosen: Settings) -> str | None:
    """The Hub repository of the adapter, if it is one: ``a/b`` is a path where a folder ``a`` is."""
    name = chosen.adapter or ""
    if not HUB_ID.fullmatch(name) or os.path.isdir(name.partition("/")[0]):
        return None
    return name


def _revision(chosen: Settings) -> str:
    """Which state of the repository is read. A Space restarts by itself: its state is pinned."""
    revision = chosen.revision or "main"
    if on_space() and not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise IntrospectionError(
            f"{quoted(revision)} does not pin the adapter {chosen.adapter}: set "
            "INTROSPECTION_REVISION to the full sha of a commit (40 digits, from the history of "
            "that repository)."
        )
    return revision


def _kind(model: str) -> str | None:
    """Which kind of model a name names, None if none."""

    if model in PRESETS:
        return "a preset"
    if os.path.isdir(model):
        return "a folder"
    return "a Hub id" if re.fullmatch(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?", model, re.ASCII) else None


def _adapter(chosen: Settings) -> str | Path | None:
    """What ``models.load`` wants to be told; pulls it from the Hub if it is there.

    Raises IntrospectionError when there is none, before any weights are loaded.
    """

    if chosen.adapter is None:
        if _kind(chosen.model) and bundled_adapter(chosen.model) is None:
            raise IntrospectionError(
                f"No adapter ships for {chosen.model}: train one with 'python -m introspection "
                f"train --model {chosen.model} --out FOLDER', then set INTROSPECTION_ADAPTER to "
                "that folder or to its Hub repository, or to none for the untrained model."
            )
        return "shipped"
    if chosen.adapter.casefold() == "none":
        return None
    repository = _repository(chosen)
    if repository is not None:
        from introspection.hub.transfer import pull

        return pull(repository, _revision(chosen))
    if not os.path.isdir(chosen.adapter):
        raise IntrospectionError(
            f"INTROSPECTION_ADAPTER names {quoted(chosen.adapter)}, and there is no such folder: "
            "set it to an adapter folder, to a Hub repository such as org/name or to none, or "
            "train an adapter with 'python -m introspection train'."
        )
    return chosen.adapter


def _load(chosen: Settings) -> tuple[LoadedModel, list[LoadedModel]]:
    """The model with its adapter, and with each of the others that loads and fits."""
    from introspection.models import loading

    # On ZeroGPU the hook is proved on the CPU.
    loaded = loading.load(chosen.model, _adapter(chosen), device="cpu" if zero_gpu() else None)
    others = []
    for _, found in adapter_choices(chosen.more, loaded):
        if isinstance(found, str):
            log.warning("Left out of INTROSPECTION_ADAPTERS: %s", found)
        else:
            others.append(found)
    if not zero_gpu():
        return loaded, others
    # From now on "cuda" is a promise that spaces keeps in the fork, for every adapter.
    if not full_precision(chosen.model):  # as models.loading.load does on a GPU
        for parameter in loaded.model.parameters():
            parameter.data = parameter.data.bfloat16()
    loaded.model.to("cuda")
    return loaded, others


# --- the server ---------------------------------------------------------------------------------


def serve() -> NoReturn:
    """Load what the variables name, serve the page until SIGTERM or Ctrl-C, and end the process.

    When that fails a page shows the sentence and plays recorded runs: on a Space, where nobody reads
    a terminal, and wherever no variable asked for something else than what ships. Otherwise it
    raises IntrospectionError.
    """
    from introspection.demo.server.launch import launch, run_until_stopped

    chosen = settings()

    def open_page() -> gr.Blocks:
        try:
            loaded, others = _load(chosen)
            return launch(loaded, block=False, others=others)
        except IntrospectionError as error:
            if not on_space() and chosen != Settings(DEFAULT, None, None):
                raise
            log.error("%s", error)  # unlike a plain write, it survives a log on a full disk
            return _apology(str(error))

    run_until_stopped(open_page)


def _apology(sentence: str) -> gr.Blocks:
    """A page with one sentence, and recorded runs."""
    from introspection.demo.server.launch import launch_without

    def nothing(_request: RunRequest) -> Generator[Any, None, None]:
        yield from ()

    on_gpu(
        nothing, lambda *_asked: 1
    )  # ZeroGPU starts no Space without a function to lend a GPU to
    return launch_without(sentence, block=False)


# --- python app.py --check ----------------------------------------------------------------------


def findings() -> Iterator[Finding]:
    """The variables and the Space, what ``python -m introspection check`` finds, and last, as they
    need a model to fit, the adapters of the allow-list."""
    from introspection.models import loading

    kept: list[LoadedModel] = []
    chosen = settings()
    yield _about_model(chosen)
    revision = _about_revision(chosen)
    yield revision
    adapter = "none" if (chosen.adapter or "").casefold() == "none" else chosen.adapter
    name, there = "INTROSPECTION_ADAPTER", revision.ok
    if not there:
        yield Finding(name, False, "Not tried: mend the revision first.")
    else:
        try:
            found = _adapter(chosen)
        except IntrospectionError as error:
            there = False
            yield Finding(name, False, str(error))
        else:
            told = "not set: the one that ships" if adapter is None else adapter
            if _repository(chosen):
                adapter = str(found)
            yield Finding(name, True, told)
    yield from _space()

    def load(folder: str | None) -> LoadedModel:
        kept.append(loading.load(chosen.model, None if folder == "none" else folder or "shipped"))
        return kept[0]

    for finding in diagnostics.findings(load, chosen.model, adapter if there else "none"):
        if there or finding.name != "adapter":  # it was said already
            yield finding
    yield from _about_more(chosen, kept if there else [])


def _about_more(chosen: Settings, kept: Sequence[LoadedModel]) -> Iterator[Finding]:
    name = "INTROSPECTION_ADAPTERS"
    if not kept:
        for entry in chosen.more:
            yield Finding(f"{name} {entry}", False, "Not tried: mend what is said above first.")
        return
    for entry, found in adapter_choices(chosen.more, kept[0]):
        if isinstance(found, str):
            yield Finding(f"{name} {entry}", False, found)
        else:
            told = f"offered as {found.adapter_name}, layer {found.layer}"
            yield Finding(f"{name} {entry}", True, told)


def _about_model(chosen: Settings) -> Finding:

    name, kind = "INTROSPECTION_MODEL", _kind(chosen.model)
    if kind is None:
        return Finding(
            name,
            False,
            f"{quoted(chosen.model)} is not a model: set it to a preset "
            f"({', '.join(PRESETS)}), a folder or a Hub id such as org/name.",
        )
    unset = "" if os.environ.get(name, "").strip() else "not set: "
    return Finding(name, True, f"{unset}{chosen.model}, {kind}")


def _about_revision(chosen: Settings) -> Finding:
    name = "INTROSPECTION_REVISION"
    if _repository(chosen) is None:
        told = chosen.revision or "not set"
        return Finding(name, True, f"{told}: only read for an adapter on the Hub")
    try:
        return Finding(name, True, _revision(chosen))
    except IntrospectionError as error:
        return Finding(name, False, str(error))


def _space() -> Iterator[Finding]:
    if not on_space():
        yield Finding("SPACE_ID", True, "not set: this is not a Space")
    else:
        host, chip = os.environ.get("SPACE_HOST"), os.environ.get("ACCELERATOR")
        yield Finding("SPACE_ID", True, os.environ["SPACE_ID"])
        yield Finding("SPACE_HOST", True, f"https://{host}" if host else "not set")
        yield Finding("ACCELERATOR", True, chip or "not set: no GPU")
    if zero_gpu():
        there = find_spec("spaces") is not None
        missing = "The package spaces is missing: add it to requirements.txt."
        yield Finding("SPACES_ZERO_GPU", there, "a GPU is lent to each run" if there else missing)
