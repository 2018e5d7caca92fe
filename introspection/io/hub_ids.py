"""Names of repositories on the Hugging Face Hub: ``org/name``, with ``@revision`` behind it or not."""

from __future__ import annotations

import re

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_REVISION = re.compile(r"[\w./-]+", re.ASCII)
MAX_LENGTH = 200


def is_hub_id(text: str) -> bool:
    """Whether ``text`` has the form ``org/name``."""
    return _NAME.fullmatch(text) is not None


def split_hub_id(text: str) -> tuple[str, str | None] | None:
    """The two parts of ``org/name@revision``; the revision is None if there is none. None for any other
    form and for more than ``MAX_LENGTH`` characters."""
    name, at, revision = text.partition("@")
    if len(text) > MAX_LENGTH or not is_hub_id(name) or (at and not _REVISION.fullmatch(revision)):
        return None
    return name, revision or None
