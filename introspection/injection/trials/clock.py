"""The date that chat templates see.

Some templates state the date in every prompt. A training or an evaluation, which may be interrupted
and continued on another day, fixes the date when it begins; otherwise its prompts would change. The
time of day is always midnight, so that the prompts of one batch do not differ in it.
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


# ``strftime_now``, which transformers gives to templates, reads the clock here. It cannot be handed
# over as an argument: newer versions make plain data of all arguments.
chat_template_utils.datetime = _Midnight
