"""ASGI middleware for what Gradio leaves open: body size, bare HTTP 500, admission to the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

log = logging.getLogger(__name__)

LIMIT = 64 * 1024
TOO_LARGE = f"The request is larger than {LIMIT // 1024} KiB: send less."
NO_CALL = "This is not a call that the page answers: /gradio_api/info lists those it does."

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class BodyLimit:
    """413 for a body over LIMIT bytes, declared or streamed; Gradio would read it into memory."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > LIMIT:
            await _answer(send, 413, TOO_LARGE)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client went away before it had sent everything
            body += message.get("body", b"")
            if len(body) > LIMIT:
                await _answer(send, 413, TOO_LARGE)
                return
            if not message.get("more_body", False):
                break
        handed_over = False

        async def replay() -> Message:
            nonlocal handed_over
            if handed_over:
                return await receive()
            handed_over = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)


class NoBareError:
    """400 and one sentence where a posted call would be answered with 500.

    Gradio does not catch the error of an unknown endpoint or of a number in place of a list, and the
    MCP server answers 500 to bytes that are no text. The kind of error is logged, never the body.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        begun = replaced = False
        posted = scope["type"] == "http" and scope["method"] == "POST"

        async def noted(message: Message) -> None:
            nonlocal begun, replaced
            if posted and message.get("status") == 500:
                replaced = True
                log.warning("a call to %s was answered with 500", scope["path"][:80])
                await _answer(send, 400, NO_CALL)
            begun = True
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if begun or not posted:
                raise
            log.warning("a call to %s ended in %s", scope["path"][:80], type(error).__name__)
            await _answer(send, 400, NO_CALL)


class OneByOne:
    """Serialises admission to the queue.

    Gradio checks the queue's size, awaits validation and then enqueues, so concurrent requests could
    exceed ``max_size``. To be placed behind :class:`BodyLimit`, which has the whole body by then, so
    that a slow sender does not hold up the others. Also drops the empty sessions that Gradio keeps.
    """

    def __init__(self, app: App) -> None:
        self.app, self.turn = app, asyncio.Lock()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope.get("method") == "POST" and ("/call/" in path or path.endswith("/queue/join")):
            async with self.turn:
                pending = scope["app"].get_blocks()._queue.pending_event_ids_session
                for session in [session for session, events in pending.items() if not events]:
                    del pending[session]
                await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def _answer(send: Send, status: int, sentence: str) -> None:
    text = f'{{"detail":"{sentence}"}}'.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
