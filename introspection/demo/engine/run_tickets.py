"""Which run of a visitor counts: the latest click wins, and Stop ends it.

Gradio's own ``cancels`` is keyed by session and event, so a cancellation that arrives late ends the
*next* run of the same button; a ticket that is taken before a run is queued cannot be mistaken for
another.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import count


class Tickets:
    """The newest ticket of each session; the oldest sessions are forgotten beyond ``capacity``."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity, self._numbers, self._lock = capacity, count(1), threading.Lock()
        self._latest: OrderedDict[str, tuple[int, bool]] = OrderedDict()

    def take(self, session: str) -> int:
        """A new ticket; every earlier one of the session is void."""
        with self._lock:
            ticket = next(self._numbers)
            self._latest[session] = ticket, False
            self._latest.move_to_end(session)
            while len(self._latest) > self._capacity:
                self._latest.popitem(last=False)
            return ticket

    def claim(self, session: str, ticket: int) -> bool:
        """Whether this ticket is the latest and was not used before; it is used now."""
        with self._lock:
            fresh = self._latest.get(session) == (ticket, False)
            if fresh:
                self._latest[session] = ticket, True
            return fresh

    def valid(self, session: str, ticket: int) -> bool:
        with self._lock:
            return self._latest.get(session, (0, False))[0] == ticket

    def void(self, session: str) -> None:
        """Stop: no ticket of the session is valid until the next is taken."""
        with self._lock:
            self._latest.pop(session, None)

    def stopped(self, session: str) -> bool:
        """Whether the session ended its latest run itself, instead of starting another."""
        with self._lock:
            return session not in self._latest
