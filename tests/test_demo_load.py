"""Crowds: many visitors at once, visitors who leave, and what is left behind by them.

The model is tiny but real, so that a mixed-up row would show: every answer is compared with the one
that a lone visitor gets.
"""

from __future__ import annotations

import gc
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from tab import Tab, free_port
from test_demo import CONCEPTS, INFO, SETTINGS
from tiny import LAYER, load_tiny

from introspection import demo
from introspection.models import LoadedModel
from introspection.prompts import DEFAULT_QUESTION

pytestmark = pytest.mark.slow

ENDPOINTS = {
    "compare": lambda c: [c, 2.0, DEFAULT_QUESTION],
    "report": lambda c: [c, 1.5, DEFAULT_QUESTION, "final_on"],
    "sweep": lambda c: [c, [0, 1.0, 2.0], DEFAULT_QUESTION],
}


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return replace(load_tiny("llama"), adapter=INFO)


@pytest.fixture(scope="module")
def page(loaded: LoadedModel) -> Iterator[gr.Blocks]:
    page = demo.launch(loaded, "127.0.0.1", free_port(), block=False, quiet=True)
    yield page
    page.close()


def call(url: str, name: str, concept: str) -> tuple[int, Any]:
    """(status, answer) of one visitor who comes by HTTP."""
    body = {"data": ENDPOINTS[name](concept)}
    with httpx.Client(timeout=300) as web:
        asked = web.post(f"{url}/gradio_api/call/{name}", json=body)
        if asked.status_code != 200:
            return asked.status_code, asked.text
        told = web.get(f"{url}/gradio_api/call/{name}/{asked.json()['event_id']}").text
    *_, event, rest = told.strip().split("\n")  # heartbeats come before, if it takes long
    assert event == "event: complete", told
    return 200, json.loads(rest.removeprefix("data: "))


@pytest.fixture(scope="module")
def alone(page: gr.Blocks) -> dict[tuple[str, str], Any]:
    url = page.local_url.rstrip("/")
    return {(n, c): call(url, n, c) for n in ENDPOINTS for c in CONCEPTS}


def crowd(page: gr.Blocks, count: int) -> list[tuple[tuple[str, str], tuple[int, Any]]]:
    """That many visitors who all press at the same moment."""
    url, gate = page.local_url.rstrip("/"), threading.Barrier(count)
    rng = random.Random(count)
    wishes = [(rng.choice(list(ENDPOINTS)), rng.choice(CONCEPTS)) for _ in range(count)]

    def one(wish: tuple[str, str]) -> tuple[tuple[str, str], tuple[int, Any]]:
        gate.wait(60)
        return wish, call(url, *wish)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, wishes))


def test_sixty_at_once_are_all_served_as_if_alone(page: gr.Blocks, alone: Any) -> None:
    for wish, answer in crowd(page, 60):
        assert answer == alone[wish], wish


def test_two_hundred_at_once_get_an_answer_or_a_clean_no(page: gr.Blocks, alone: Any) -> None:
    served = 0
    for wish, (status, answer) in crowd(page, 200):
        if status == 200:
            served += 1
            assert (200, answer) == alone[wish], wish
        else:
            assert status == 503 and "queue" in answer.casefold(), (status, answer)
    assert served >= 60
    url = page.local_url.rstrip("/")
    assert call(url, "report", "ocean") == alone["report", "ocean"]


def test_two_hundred_who_leave_do_not_block_the_next(page: gr.Blocks) -> None:
    """The next visitor's first token comes soon, whatever was started and dropped before."""
    for i in range(200):
        visitor = Tab(page)
        ticket = visitor.call("begin", CONCEPTS[i % 6], *SETTINGS)[3]
        updates = visitor.stream("run", ticket, CONCEPTS[i % 6], *SETTINGS)
        next(updates)
        updates.close()  # type: ignore[attr-defined]
    visitor = Tab(page)
    ticket = visitor.call("begin", "ocean", *SETTINGS)[3]
    began = time.monotonic()
    next(visitor.stream("run", ticket, "ocean", *SETTINGS))
    assert time.monotonic() - began < 5


def resident() -> int:
    """Resident memory of this process in bytes (the server runs in it)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


SESSIONS = 30  # that Gradio remembers in the next test, instead of 500


@pytest.fixture
def forgetful(loaded: LoadedModel) -> Iterator[gr.Blocks]:
    """A page that soon remembers as many sessions as it ever will."""
    options = {"block": False, "quiet": True, "state_session_capacity": SESSIONS}
    page = demo.launch(loaded, "127.0.0.1", free_port(), **options)
    yield page
    page.close()


def test_nothing_is_left_behind_by_many_runs(forgetful: gr.Blocks, loaded: LoadedModel) -> None:
    """No container grows once the remembered sessions are full, no hook or thread stays."""
    url, blocks = forgetful.local_url.rstrip("/"), loaded.model.get_decoder().layers
    # Not simply one: transformers leaves its own where hidden states were ever asked for.
    hooked = [len(block._forward_hooks) for block in blocks]
    assert hooked[LAYER] >= 1

    def batch(count: int) -> tuple[int, int]:
        """(containers of the process, bytes in memory) after so many runs."""
        for i in range(count):
            name = list(ENDPOINTS)[i % 3]
            assert call(url, name, CONCEPTS[i % 6])[0] == 200
        gc.collect()
        kinds = (dict, list, set)
        return sum(isinstance(thing, kinds) for thing in gc.get_objects()), resident()

    batch(3 * SESSIONS)  # more events, too, than Gradio remembers
    first, memory = batch(SESSIONS)
    second, more = batch(2 * SESSIONS)
    # A remembered session is hundreds of containers, and one may be on its way out.
    assert second - first < 4 * SESSIONS, "two for each run"
    assert more - memory < 0.05 * memory
    assert [len(block._forward_hooks) for block in blocks] == hooked
    names = [t.name for t in threading.enumerate()]
    assert "introspection-generate" not in names
