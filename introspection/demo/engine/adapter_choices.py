"""The adapters that visitors may choose from beside the first one: the allow-list, entry by entry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted
from introspection.io.hub_ids import is_hub_id
from introspection.models.loaded_model import adapter_name

if TYPE_CHECKING:
    from introspection.models.loaded_model import LoadedModel


def _listed(entry: str) -> Path:
    """The folder of an entry of the allow-list; pulls it if it is on the Hub."""
    if os.path.isdir(entry):
        return Path(entry)
    repository, _, revision = entry.partition("@")
    if not is_hub_id(repository) or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise IntrospectionError(
            f"{quoted(entry)} is neither an adapter folder nor a Hub repository at a commit: write "
            "org/name@ and the full sha of a commit (40 digits, from its history)."
        )
    from introspection.hub.transfer import pull

    return pull(repository, revision)


def adapter_choices(
    entries: Sequence[str], loaded: LoadedModel
) -> Iterator[tuple[str, LoadedModel | str]]:
    """For every entry, the model of ``loaded`` with that adapter, or one sentence that says why not.

    An entry is an adapter folder or a Hub repository at a commit (``org/name@<40 hex digits>``).
    """
    from introspection.models.adapters import multi_adapter

    names = {loaded.adapter_name}
    for entry in entries:
        try:
            if loaded.adapter is None:
                raise IntrospectionError(
                    "The page shows the untrained model alone: name one adapter in "
                    "INTROSPECTION_ADAPTER before others are offered beside it."
                )
            folder = _listed(entry)
            if adapter_name(folder, loaded.name) in names:
                raise IntrospectionError(
                    f"An adapter is offered under the name of {quoted(entry)} already: list each "
                    "one once and give folders different names."
                )
            other = multi_adapter.load_adapter(loaded, folder)
        except IntrospectionError as error:
            yield entry, str(error)
        else:
            names.add(other.adapter_name)
            yield entry, other
