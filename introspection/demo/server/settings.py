"""The variables that ``app.py`` reads: which model and adapters the page is to show."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted
from introspection.io.hub_ids import is_hub_id, split_hub_id
from introspection.models.presets import DEFAULT, PRESETS, bundled_adapter


@dataclass(frozen=True, slots=True)
class Settings:
    """What the variables say. ``adapter`` is a folder, "none", a Hub repository, or None for the one
    that ships; ``more`` are the adapters that a visitor may choose instead."""

    model: str
    adapter: str | None
    revision: str | None
    more: tuple[str, ...] = ()


def read_settings() -> Settings:
    """The variables of this process; the default model where none is named."""

    def read(name: str) -> str | None:
        value = os.environ.get(f"INTROSPECTION_{name}", "").strip()
        return os.path.expanduser(value) or None  # a service's settings are read by no shell

    listed = (os.path.expanduser(entry.strip()) for entry in (read("ADAPTERS") or "").split(","))
    more = tuple(dict.fromkeys(filter(None, listed)))
    return Settings(read("MODEL") or DEFAULT, read("ADAPTER"), read("REVISION"), more)


def on_space() -> bool:
    """Whether this process is a Hugging Face Space."""
    return bool(os.environ.get("SPACE_ID"))


def hub_repository(chosen: Settings) -> str | None:
    """The Hub repository of the adapter, if it is one: ``a/b`` is a path where a folder ``a`` is."""
    name = chosen.adapter or ""
    if not is_hub_id(name) or os.path.isdir(name.partition("/")[0]):
        return None
    return name


def pinned_revision(chosen: Settings) -> str:
    """Which state of the repository is read. On a Space it must be a commit, or IntrospectionError is
    raised: a Space restarts by itself and must come back with the same adapter."""
    revision = chosen.revision or "main"
    if on_space() and not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise IntrospectionError(
            f"{quoted(revision)} does not pin the adapter {chosen.adapter}: set "
            "INTROSPECTION_REVISION to the full sha of a commit (40 digits, from the history of "
            "that repository)."
        )
    return revision


def model_kind(model: str) -> str | None:
    """Which kind of model a name names, None if none."""
    if model in PRESETS:
        return "a preset"
    if os.path.isdir(model):
        return "a folder"
    return "a Hub id" if split_hub_id(model) else None


def adapter_source(chosen: Settings) -> str | Path | None:
    """The adapter as ``models.loading.load`` takes it; pulled first if it is on the Hub.

    Raises IntrospectionError when there is none, before any weights are loaded.
    """
    if chosen.adapter is None:
        if model_kind(chosen.model) and bundled_adapter(chosen.model) is None:
            raise IntrospectionError(
                f"No adapter ships for {chosen.model}: train one with 'python -m introspection "
                f"train --model {chosen.model} --out FOLDER', then set INTROSPECTION_ADAPTER to "
                "that folder or to its Hub repository, or to none for the untrained model."
            )
        return "shipped"
    if chosen.adapter.casefold() == "none":
        return None
    repository = hub_repository(chosen)
    if repository is not None:
        from introspection.hub.transfer import pull

        return pull(repository, pinned_revision(chosen))
    if not os.path.isdir(chosen.adapter):
        raise IntrospectionError(
            f"INTROSPECTION_ADAPTER names {quoted(chosen.adapter)}, and there is no such folder: "
            "set it to an adapter folder, to a Hub repository such as org/name or to none, or "
            "train an adapter with 'python -m introspection train'."
        )
    return chosen.adapter
