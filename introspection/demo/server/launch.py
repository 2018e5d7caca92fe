"""Serves the page: queue, limits, and everything Gradio would otherwise open to anybody."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, NoReturn

import gradio as gr
from starlette.middleware import Middleware

from introspection.demo.engine import demo_model, run_request, zerogpu
from introspection.demo.page import TITLE, build
from introspection.demo.server import no_model_page, theme
from introspection.demo.server.middleware import LIMIT, BodyLimit, NoBareError, OneByOne
from introspection.errors import IntrospectionError
from introspection.models.loaded_model import LoadedModel

QUEUE = 64  # visitors who may wait; further ones are told that the page is full
ARENAS = 2  # heaps of the C library
M_ARENA_MAX = -8  # what glibc's <malloc.h> calls their number
GRACE = 4.0  # seconds that a stopped server may take to close what is open


def launch(
    loaded: LoadedModel,
    host: str | None = None,
    port: int | None = None,
    block: bool = True,
    others: Sequence[LoadedModel] = (),
    **settings: Any,
) -> gr.Blocks:
    """Build the page and serve it, on 127.0.0.1:7860 or the next free port unless told otherwise.

    ``host`` and ``port`` default to ``GRADIO_SERVER_NAME`` and ``GRADIO_SERVER_PORT``; a port that
    was asked for and is not free is an IntrospectionError. With ``block`` the call returns when the
    server is stopped; without it the caller closes the page. ``others`` are the same model with
    further adapters (``multi_adapter.load_adapter``). Further ``settings`` go to Gradio's ``launch``.
    """
    _keep_memory_together()
    experiment = demo_model.DemoModel(loaded, others)
    page = build(experiment)
    low, high = loaded.adapter.strengths if loaded.adapter else (0.0, 0.0)
    own = {
        "css": theme.range_css(low, high, run_request.MAX_STRENGTH),
        # The endpoints as tools; every call goes through the queue like any other.
        "mcp_server": find_spec("mcp") is not None,
    }
    _open(page, host, port, {**own, **settings})
    # Read the baseline words, which every typed concept needs, while the first visitor reads the
    # page. On ZeroGPU only a run has a model.
    try:
        if not zerogpu.zero_gpu():
            experiment.warm()
    except BaseException:
        page.close(verbose=False)
        raise
    if block:
        page.block_thread()
    return page


def _keep_memory_together() -> None:
    """Let all threads share two heaps. Every run has its own thread, and glibc gives up to eight per
    core a heap that keeps freed memory: a tenth more after a thousand runs."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def launch_without(
    sentence: str, host: str | None = None, port: int | None = None, block: bool = True
) -> gr.Blocks:
    """Serve, in the same way, a page that says why there is no model and plays recorded runs."""
    page = no_model_page.build(TITLE, sentence)
    _open(page, host, port, {})
    if block:
        page.block_thread()
    return page


def _open(page: gr.Blocks, host: str | None, port: int | None, settings: dict[str, Any]) -> None:
    if port is None and "GRADIO_SERVER_PORT" in os.environ:
        port = int(os.environ["GRADIO_SERVER_PORT"])  # Gradio would go on to the next free one
    # Gradio keeps this many finished events and aggregates them with pandas for a statistics page,
    # which is closed here.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", str(QUEUE))
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    # The queue is the only way to the model: api_open would let a POST to /run skip it.
    page.queue(max_size=QUEUE, api_open=False, default_concurrency_limit=1)
    options: dict[str, Any] = {
        "server_name": host,
        "server_port": port,
        "prevent_thread_lock": True,
        "theme": theme.theme(),
        "css_paths": theme.STYLES,
        "head": theme.HEAD,
        "show_error": False,
        "enable_monitoring": False,
        "run_history": False,
        "mcp_server": False,
        "strict_cors": True,
        "allowed_paths": [],
        "max_file_size": LIMIT,
        "state_session_capacity": 500,
        "footer_links": ["api", "gradio", "settings"],
        "share": False,
        "app_kwargs": {
            "middleware": [Middleware(kind) for kind in (NoBareError, BodyLimit, OneByOne)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
    }
    try:
        page.launch(**{**options, **settings})
    except OSError as error:
        raise IntrospectionError(
            f"The page could not be opened on port {port or 'any of 7860 to 7959'}: it is in use or "
            "not allowed; choose another with --port or GRADIO_SERVER_PORT."
        ) from error


def run_until_stopped(open_page: Callable[[], gr.Blocks]) -> NoReturn:
    """Open a page, serve it until Ctrl-C or SIGTERM, and end this process with exit code 0.

    What ``open_page`` raises is passed on. The process ends with ``os._exit``: a normal shutdown kills
    daemon threads inside torch, which aborts. A run that is still going does not delay it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    page = None
    with suppress(SystemExit):
        page = open_page()
        page.block_thread()
    watch = threading.Timer(GRACE, os._exit, (0,))
    watch.daemon = True
    watch.start()
    if page is not None:
        page.close(verbose=False)
    with suppress(OSError):  # a log on a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
