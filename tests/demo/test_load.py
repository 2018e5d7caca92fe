"""Crowds: many visitors at once, visitors who leave, and what is left behind by them.

The model is tiny but real, so that a mixed-up row would show: every answer is compared with the one
that a lone visitor gets.
"""

from __future__ import annotations

import gc
import json
import random
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any
from unittest import mock

import gradio as gr
import psutil
import pytest

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.server import launch as server
from introspection.demo.tabs.blind_trial import html, trial
from introspection.models.loaded_model import LoadedModel
from tests.support.page import CONCEPTS, INFO, SETTINGS
from tests.support.tab import WEB, Tab, free_port
from tests.support.tiny import hook_count, load_tiny

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
    page = server.launch(loaded, "127.0.0.1", free_port(), block=False, quiet=True)
    yield page
    page.close()


def call(url: str, name: str, concept: str) -> tuple[int, Any]:
    """(status, answer) of one visitor who comes by HTTP."""
    return asked(url, name, *ENDPOINTS[name](concept))


def asked(url: str, name: str, *data: Any) -> tuple[int, Any]:
    begun = WEB.post(f"{url}/gradio_api/call/{name}", json={"data": data}, timeout=300)
    if begun.status_code != 200:
        return begun.status_code, begun.text
    event = begun.json()["event_id"]
    told = WEB.get(f"{url}/gradio_api/call/{name}/{event}", timeout=300).text
    *_, state, rest = told.strip().split("\n")  # heartbeats come before, if it takes long
    assert state == "event: complete", told
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


@pytest.mark.parametrize(
    ("count", "places"), [(24, 64), (24, 6), pytest.param(200, 64, marks=pytest.mark.soak)]
)
def test_a_crowd_gets_what_each_gets_alone_or_a_clean_no(
    count: int,
    places: int,
    loaded: LoadedModel,
    alone: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``places``: how many may wait in the queue."""
    monkeypatch.setattr(server, "QUEUE", places)
    page, served = server.launch(loaded, "127.0.0.1", free_port(), block=False, quiet=True), 0
    try:
        for wish, (status, answer) in crowd(page, count):
            if status == 200:
                served += 1
                assert (200, answer) == alone[wish], wish
            else:
                assert status == 503 and "queue" in answer.casefold(), (status, answer)
        assert served == count if count < places else places <= served + 4 < 0.75 * count
        assert call(page.local_url.rstrip("/"), "report", "ocean") == alone["report", "ocean"]
    finally:
        page.close()


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_who_leaves_does_not_block_the_next(count: int, page: gr.Blocks) -> None:
    """The next visitor's first token comes soon, whatever was started and dropped before."""
    for i in range(count):
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


# --- runs of every kind, a few and a thousand ---------------------------------------------------

# Of every kind that reaches the model, (how many of the thousand, wishes). A visitor, with a session of
# its own, makes four runs.
SCHEDULES = ("final_on", "final", "all", "span:3-7", "from_step:5")  # prior_turn has no turn here
DOSES = (0.0, 0.5, 1.0, 2.0)
SECRETS = ("burrito", "starfish", "inflation", "")
Kinds = dict[str, tuple[int, list[tuple[Any, ...]]]]
TALKS = (("kept", DEFAULT_QUESTION), ("silent", "Why is it cold?"))
PAIRS = list(zip((0.25, 1.0, 4.0), SCHEDULES[::2], strict=True))
DOSED = list(zip(CONCEPTS, DOSES[1:3], strict=False))
LISTS = [
    *(("controls", "ocean", 1.0, ""), ("controls", "bomb", 2.0, "")),
    *(("layer", "ocean", 1.0, ""), ("strength", "bomb", 1.0, ""), ("heat map", "love", 1.0, "")),
    *(("concepts", "ocean", 0.5, "bomb, love, glacier"), ("map", "ocean", 1.0, "")),
]
KINDS: Kinds = {
    "report": (30, [(c, d, DEFAULT_QUESTION, s) for c, d in DOSED for s in SCHEDULES]),
    "compare": (10, [(c, d, DEFAULT_QUESTION) for c in CONCEPTS[1:3] for d in DOSES]),
    "sweep": (10, [(c, DOSES, DEFAULT_QUESTION) for c in CONCEPTS[:3]]),
    "run": (900, [(c, d, DEFAULT_QUESTION, s, 4) for c in CONCEPTS[:4] for d, s in PAIRS]),
    "run_lines": (10, LISTS),
    "run_talk": (20, [(c, d, *t) for c in CONCEPTS[:2] for d in DOSES[1:3] for t in TALKS]),
    "run_blind": (20, [(secret, d) for secret in SECRETS for d in trial.STRENGTHS]),
}
PER_VISITOR = ("pending_messages_per_session", "_latest")  # both forget the oldest
RUNS, EACH = 1_000, 4
THREADS = 12
SESSIONS = 40  # that Gradio remembers in this test, instead of 500
Wish = tuple[str, tuple[Any, ...]]


@contextmanager
def forgetful(loaded: LoadedModel, kinds: Kinds) -> Iterator[gr.Blocks]:
    """A page that soon remembers as many sessions as it ever will, and draws few blind trials."""
    rng = random.Random(0)

    def draw(*_: Any) -> trial.BlindTrial:
        secret, dose = rng.choice(kinds["run_blind"][1])
        return trial.BlindTrial(
            (*SECRETS[:-1], "carousel", "justice"), secret, dose if secret else 0.0
        )

    options = {"block": False, "quiet": True, "state_session_capacity": SESSIONS}
    with mock.patch.object(trial, "draw", draw):
        page = server.launch(loaded, "127.0.0.1", free_port(), **options)
        try:
            yield page
        finally:
            page.close()


def answer(tab: Tab, wish: Wish) -> tuple[Wish, str]:
    """What the visitor in fact asked for (the page draws the blind trials) and what came back."""
    (name, given), came = wish, None
    if name in ENDPOINTS:
        status, came = asked(tab.page.local_url.rstrip("/"), name, *given)
        assert status == 200, came
    elif name == "run":
        came = tab.call("run", tab.call("begin", *given)[3], *given)
    elif name == "run_talk":  # two turns, from the start
        tab.light("restart_talk")
        for _ in range(2):
            tab.call("begin_talk", None, *given)
            came = tab.call("run_talk")[4]
    elif name == "run_lines":
        came = tab.call("run_lines", tab.call("begin_lines", *given)[0], *given)
    else:
        tab.call("begin_blind")
        came = tab.call("run_blind")[3]
        told = tab.light("guess_blind", None, None)[2]
        truth = re.search(r"“(\w+)” was injected at strength ([\d.]*\d)", told)
        assert truth or "nothing was injected" in told, told
        wish = name, (truth[1], float(truth[2])) if truth else ("", 0.0)
    return wish, json.dumps(came)


def containers(page: gr.Blocks, loaded: LoadedModel) -> dict[str, int]:
    """How much is in every dict, list, set and queue of Gradio's long-lived objects and of ours, and
    in our caches of functions."""
    kinds = (dict, list, set, deque)
    roots: list[Any] = [page, page._queue, page.server_app, page.state_holder, page.default_config]
    roots += [loaded, loaded.model, loaded.hooks]
    ours = [thing for thing in gc.get_objects() if isinstance(thing, DemoModel | Tickets)]
    roots += sorted(ours, key=id)
    found = {
        f"{type(root).__name__} {i} {name}": len(value)
        for i, root in enumerate(roots)
        for name in (getattr(root, "__dict__", None) or getattr(root, "__slots__", ()))
        if isinstance(value := getattr(root, name, None), kinds)
    }
    for module in [m for name, m in sys.modules.items() if name.startswith("introspection")]:
        for name, value in vars(module).items():
            if callable(getattr(value, "cache_info", None)):
                found[f"{module.__name__}.{name}"] = value.cache_info().currsize
    return found


def answers_alone(page: gr.Blocks, kinds: Kinds) -> dict[Wish, str]:
    alone: dict[Wish, str] = {}
    for name, (_, wishes) in kinds.items():
        for given in wishes:
            wish, came = answer(Tab(page), (name, given))
            assert alone.setdefault(wish, came) == came, wish
    for secret, dose in kinds["run_blind"][1]:
        # The blind trial asks the usual question, as the endpoint for one report does.
        said = ["ocean", 0.0] if not secret else [secret, dose]
        _, (row,) = asked(page.local_url.rstrip("/"), "report", *said, DEFAULT_QUESTION, "final_on")
        alone["run_blind", (secret, dose if secret else 0.0)] = json.dumps(html.report(row["text"]))
    assert len(set(alone.values())) > 0.6 * len(alone), "a mixed-up answer would hardly show"
    return alone


def drawn(kinds: Kinds) -> list[Wish]:
    names = [name for name, (weight, _) in kinds.items() for _ in range(weight)]
    rng = random.Random(1)
    rng.shuffle(names)
    return [(name, rng.choice(kinds[name][1])) for name in names]


def mixed_up(page: gr.Blocks, wishes: list[Wish], alone: dict[Wish, str]) -> list[list[str]]:
    """What differs from the answer alone when visitors with EACH wishes come, THREADS at once."""

    def one(visitor: list[Wish]) -> list[str]:
        tab = Tab(page)
        told = [answer(tab, wish) for wish in visitor]
        return [f"{asked}: {came[:200]}" for asked, came in told if alone[asked] != came]

    with ThreadPoolExecutor(THREADS) as pool:
        visitors = [wishes[i : i + EACH] for i in range(0, len(wishes), EACH)]
        return [mixed for mixed in pool.map(one, visitors) if mixed]


def test_runs_of_every_kind_at_once_mix_nothing(loaded: LoadedModel) -> None:
    hooks = hook_count(loaded.model)
    few: Kinds = {name: (4, wishes[:: len(wishes) - 1]) for name, (_, wishes) in KINDS.items()}
    with forgetful(loaded, few) as page:
        assert mixed_up(page, drawn(few), answers_alone(page, few)) == []
    assert hook_count(loaded.model) == hooks


@pytest.mark.soak
def test_a_thousand_runs_mix_nothing_and_leave_nothing_behind() -> None:
    """Many visitors at once get, byte for byte, what each of them gets alone; meanwhile no container
    grows once the remembered sessions are full, and no memory, hook or thread stays.

    All in a process of its own, like a server's: one that ran other tests has their heaps too.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as own:
        own.submit(thousand_runs).result()


def thousand_runs() -> None:
    loaded = replace(load_tiny("llama"), adapter=INFO)
    with forgetful(loaded, KINDS) as page:
        see_a_thousand_runs(page, loaded)


def see_a_thousand_runs(page: gr.Blocks, loaded: LoadedModel) -> None:
    hooks, process = hook_count(loaded.model), psutil.Process()
    assert hooks >= 1
    alone, wishes = answers_alone(page, KINDS), drawn(KINDS)
    assert len(wishes) == RUNS

    def batch(part: list[Wish]) -> tuple[dict[str, int], int, int]:
        """(containers by owner, containers of the process, bytes in memory) after these runs"""
        assert mixed_up(page, part, alone) == []
        gc.collect()
        all_of_them = sum(isinstance(thing, dict | list | set) for thing in gc.get_objects())
        return containers(page, loaded), all_of_them, process.memory_info().rss

    first, second, third = (batch(wishes[i:j]) for i, j in ((0, 200), (200, 600), (600, RUNS)))
    # Struck off when the next one comes, so that those who came last are still there.
    (waiting,) = (n for k, n in third[0].items() if k.endswith("pending_event_ids_session"))
    assert waiting <= 2 * THREADS
    grown = {k: third[0][k] - n for k, n in second[0].items() if third[0][k] > n}
    grown = {k: n for k, n in grown.items() if not k.endswith("pending_event_ids_session")}
    # Who comes to an endpoint by HTTP has a session for every call.
    sessions = (RUNS - 600) // EACH + sum(name in ENDPOINTS for name, _ in wishes[600:])
    per_visitor = [n for k, n in grown.items() if k.endswith(PER_VISITOR)]
    assert len(per_visitor) == len(grown) and max(per_visitor) <= sessions, grown
    # What a remembered session holds would be hundreds for each.
    assert third[1] - second[1] < 8 * sessions
    assert third[2] < 1.05 * first[2], (first[1:], second[1:], third[1:])
    assert page._queue.cached_event_analytics_summary == {"functions": {}}, "a summary each run"
    assert hook_count(loaded.model) == hooks
    names = [t.name for t in threading.enumerate()]
    assert "introspection-generate" not in names
