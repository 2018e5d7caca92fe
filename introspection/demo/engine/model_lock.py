"""The lock around the model: one run at a time, and how long the next one has to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from introspection.errors import IntrospectionError


class ModelLock:
    """The lock around a model. ``patience`` is how many seconds a run waits for it. ``waiting()`` gives
    how many runs wait; whoever has the queue sets it."""

    def __init__(self, patience: float) -> None:
        self._lock, self._patience = threading.Lock(), patience
        self.waiting: Callable[[], int] = lambda: 0
        self._began, self._usual = 0.0, 0.0  # the run that goes on, and how long one takes

    @property
    def busy(self) -> bool:
        """Whether a run holds the model now."""
        return self._lock.locked()

    def place(self) -> tuple[int, float | None]:
        """(runs, seconds) before one that joins the line now; no seconds while no run has ended."""
        waiting, busy = self.waiting(), self.busy
        if not self._usual:
            return waiting + busy, None
        left = max(self._usual - (time.monotonic() - self._began), 1.0) if busy else 0.0
        return waiting + busy, left + max(waiting - (not busy), 0) * self._usual

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the model. Raises IntrospectionError when it does not become free in time."""
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
