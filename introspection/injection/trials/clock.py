"""The date that chat templates see.

Some templates state the date. A training or an evaluation, which may be continued on another day, fixes
the date when it begins, so that its prompts stay. The time of day is always midnight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, tzinfo

from transformers.utils import chat_template_utils

_FIXED: ContextVar[date | None] = ContextVar("fixed day", default=None)


def today() -> date:
    """The date that :func:`fixed` sets in this context, else today's."""
    return _FIXED.get() or date.today()


@contextmanager
def fixed(day: date) -> Iterator[None]:
    """Let every prompt that is rendered in this block (and thread) have the date ``day``."""
    token = _FIXED.set(day)
    try:
        yield
    finally:
        _FIXED.reset(token)


class _Midnight:
    @staticmethod
    def now(tz: tzinfo | None = None) -> datetime:
        return datetime.combine(today(), time(), tz)


# ``strftime_now``, which transformers gives to templates, reads the clock here; it takes no argument.
chat_template_utils.datetime = _Midnight
