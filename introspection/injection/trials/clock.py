"""The day that chat templates are told.

Knows: the calendar, a day that is fixed for a while. Does not know: templates, or why a day is fixed.

Some templates say the date in every prompt. Whatever may be interrupted and go on later (a training,
an evaluation) fixes the day when it begins, or its second half would be another experiment than its
first. The time of the day is always midnight: two prompts of one batch must not differ in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, tzinfo

from transformers.utils import chat_template_utils

__all__ = ["fixed", "today"]

_FIXED: ContextVar[date | None] = ContextVar("fixed day", default=None)


def today() -> date:
    """The day that is fixed here, else that of the calendar."""
    return _FIXED.get() or date.today()


@contextmanager
def fixed(day: date) -> Iterator[None]:
    """Every prompt that is rendered in this block (and thread) is told ``day``."""
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
