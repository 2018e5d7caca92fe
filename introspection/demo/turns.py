"""Taking turns at the model: one run at a time, and how long the next one has to wait.

Knows: the one lock, how long runs take. Does not know: what a run is, who waits (Gradio's queue does).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from introspection.errors import IntrospectionError

__all__ = ["Turns"]


class Turns:
    """The lock around a model. ``patience`` is how many seconds a run waits for it."""

    def __init__(self, patience: float) -> None:
        self._lock, self._patience = threading.Lock(), patience
        self._began, self._usual = 0.0, 0.0  # the run that goes on, and how long one takes

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    def wait(self, waiting: int) -> float | None:
        """Seconds until a run begins before which so many wait, None while no run has ended."""
        if not self._usual:
            return None
        left = max(self._usual - (time.monotonic() - self._began), 1.0) if self.busy else 0.0
        return left + waiting * self._usual

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the model. Raises IntrospectionError when it does not become free in time."""
        if not self._lock.acquire(timeout=self._patience):
            raise IntrospectionError(
                "The model is busy with another visitor: try again in a minute."
            )
        self._began = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - self._began
            self._usual = (2 * self._usual + took) / 3 if self._usual else took
            self._lock.release()
