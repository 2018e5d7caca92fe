"""A browser tab without a browser: a session that speaks the queue's own protocol."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import gradio as gr
import httpx
from gradio_client.exceptions import AppError
from gradio_client.utils import apply_diff

# One for all: making a client costs more than most of its calls.
WEB = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def index(page: gr.Blocks, name: str, nth: int = 0) -> int:
    """The number of the ``nth`` event whose function is called ``name``."""
    return [i for i, fn in page.fns.items() if fn.fn is not None and fn.fn.__name__ == name][nth]


class Tab:
    """Private events included. ``raw`` is every byte that it was sent."""

    def __init__(self, page: gr.Blocks) -> None:
        self.page, self.session, self.raw = page, uuid.uuid4().hex, list[str]()
        self.base = page.local_url.rstrip("/") + "/gradio_api"

    def body(self, name: str, nth: int, sent: tuple[Any, ...]) -> dict[str, Any]:
        number = index(self.page, name, nth)
        return {"data": list(sent) or [None], "fn_index": number, "session_hash": self.session}

    def join(self, name: str, *sent: Any, nth: int = 0) -> str:
        """The event that is begun by this; a stream that is open already hears of it too."""
        joined = WEB.post(f"{self.base}/queue/join", json=self.body(name, nth, sent))
        assert joined.status_code == 200, joined.text
        return str(joined.json()["event_id"])

    def stream(self, name: str, *sent: Any, nth: int = 0) -> Iterator[list[Any]]:
        """Every update of one event; a failing event raises the error that the page shows."""
        event = self.join(name, *sent, nth=nth)
        values: list[Any] = []
        address = f"{self.base}/queue/data?session_hash={self.session}"
        with WEB.stream("GET", address) as answer:
            for line in answer.iter_lines():
                self.raw.append(line)
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("event_id") != event:
                    continue
                if message["msg"] == "process_generating":
                    data = message["output"]["data"]
                    values = (
                        [apply_diff(v, d) for v, d in zip(values, data, strict=True)]
                        if values
                        else data
                    )
                    yield values
                elif message["msg"] == "process_completed":
                    if not message["success"]:
                        raise AppError(message["output"]["error"])
                    if not values:
                        yield message["output"]["data"]
                    return

    def call(self, name: str, *sent: Any, nth: int = 0) -> list[Any]:
        return list(self.stream(name, *sent, nth=nth))[-1]

    def light(self, name: str, *sent: Any, nth: int = 0) -> list[Any]:
        """An event outside the queue."""
        told = WEB.post(f"{self.base}/run/predict", json=self.body(name, nth, sent))
        self.raw.append(told.text)
        assert told.status_code == 200, told.text
        data: list[Any] = told.json()["data"]
        return data
