"""``python app.py --check``: what works of what the variables ask for, line by line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from introspection.demo.engine import diagnostics
from introspection.demo.engine.adapter_choices import adapter_choices
from introspection.demo.engine.diagnostics import Finding, tried
from introspection.demo.engine.zerogpu import zero_gpu
from introspection.demo.server import settings
from introspection.demo.server.settings import Settings
from introspection.errors import IntrospectionError
from introspection.io.characters import quoted
from introspection.models.presets import PRESETS

if TYPE_CHECKING:
    from introspection.models.loaded_model import LoadedModel


def findings() -> Iterator[Finding]:
    """The variables and the Space, what ``python -m introspection check`` finds, and last, as they
    need a model to fit, the adapters of the allow-list."""
    from introspection.models import loading

    models: list[LoadedModel] = []
    chosen = settings.read_settings()
    yield _about_model(chosen)
    revision = _about_revision(chosen)
    yield revision
    adapter = "none" if (chosen.adapter or "").casefold() == "none" else chosen.adapter
    there, detail = revision.ok, "Not tried: mend the revision first."
    if there:
        detail = adapter or "not set: the one that ships"
        try:
            source = settings.adapter_source(chosen)
        except IntrospectionError as error:
            there, detail = False, str(error)
        else:
            adapter = str(source) if settings.hub_repository(chosen) else adapter
    yield Finding("INTROSPECTION_ADAPTER", there, detail)
    yield from _space()

    def load(folder: str | None) -> LoadedModel:
        models.append(loading.load(chosen.model, None if folder == "none" else folder or "shipped"))
        return models[0]

    for finding in diagnostics.findings(load, chosen.model, adapter if there else "none"):
        if there or finding.name != "adapter":  # the first finding about it is enough
            yield finding
    yield from _about_more(chosen, models if there else [])


def _about_more(chosen: Settings, models: Sequence[LoadedModel]) -> Iterator[Finding]:
    name = "INTROSPECTION_ADAPTERS"
    if not models:
        for entry in chosen.more:
            yield Finding(f"{name} {entry}", False, "Not tried: mend what is said above first.")
        return
    for entry, choice in adapter_choices(chosen.more, models[0]):
        if isinstance(choice, str):
            yield Finding(f"{name} {entry}", False, choice)
        else:
            detail = f"offered as {choice.adapter_name}, layer {choice.layer}"
            yield Finding(f"{name} {entry}", True, detail)


def _about_model(chosen: Settings) -> Finding:
    name, kind = "INTROSPECTION_MODEL", settings.model_kind(chosen.model)
    if kind is None:
        presets = ", ".join(PRESETS)
        return Finding(
            name,
            False,
            f"{quoted(chosen.model)} is not a model: set it to a preset ({presets}), a folder or a "
            "Hub id such as org/name.",
        )
    unset = "" if os.environ.get(name, "").strip() else "not set: "
    return Finding(name, True, f"{unset}{chosen.model}, {kind}")


def _about_revision(chosen: Settings) -> Finding:
    name = "INTROSPECTION_REVISION"
    if settings.hub_repository(chosen) is None:
        revision = chosen.revision or "not set"
        return Finding(name, True, f"{revision}: only read for an adapter on the Hub")
    return tried(name, lambda: settings.pinned_revision(chosen))


def _space() -> Iterator[Finding]:
    if not settings.on_space():
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
