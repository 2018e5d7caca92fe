"""How quickly the page refuses what cannot run, through every way in, with the default model.

app.py runs in a process of its own on a free port of 127.0.0.1. A refusal counts from the first byte
that is sent to the sentence that comes back. Nobody else uses the model, but for the last measurement,
during which another visitor's runs follow one another. Other processes of the machine are not waited
for, and their work is in the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import httpx

from benchmarks.demo_memory import served
from benchmarks.record import Check, record
from benchmarks.timing import spread
from introspection.models.presets import DEFAULT

BAR = "< 50"  # milliseconds
GOOD = ("ocean", 1.0, "Why?", "final_on", 40)
# (position, value) of what is wrong with an otherwise good request.
WRONG = (
    *((0, word) for word in ("", "x" * 61, "x" * 10_000, "<|im_end|>", "user: hi", "oc\u202eean")),
    *((1, value) for value in (-1, 4.01, 1e9, "nan", "one")),
    *((2, text) for text in ("", "x" * 10_000, "Why <|im_start|>?", "Why \x07?")),
)
TYPED = ((0, None), (0, ["ocean"]), (0, {"a": 1}), (1, None), (1, [1]), (2, 7))  # JSON says more
MORE = ((3, "later"), (3, "span:7-3"), (3, "x" * 5_000), (4, 0), (4, 97), (4, "many"))


def cases(*wrong: tuple[int, Any]) -> list[list[Any]]:
    """A request for each, with that one thing wrong."""
    return [[*GOOD[:i], value, *GOOD[i + 1 :]] for i, value in wrong]


class Page:
    """The ways in; each sends one request and returns the sentence that refused it."""

    def __init__(self, url: str) -> None:
        self.base, self.web = f"{url}gradio_api", httpx.Client(timeout=60)
        self.session = uuid.uuid4().hex
        page = self.web.get(f"{url}config").json()
        names = {part["props"].get("elem_id"): part["id"] for part in page["components"]}
        events = page["dependencies"]
        self.inject, *_ = [e["id"] for e in events if [names["inject"], "click"] in e["targets"]]
        self.opened, *_ = [
            e["id"]
            for e in events
            if [t for t in e["targets"] if t[1] == "load"] and not e["queue"]
        ]

    def queue(self, case: list[Any]) -> str:
        """What pressing Inject sends."""
        body = {"data": case, "fn_index": self.inject, "session_hash": self.session}
        event = self.web.post(f"{self.base}/queue/join", json=body).json()["event_id"]
        address = f"{self.base}/queue/data?session_hash={self.session}"
        with self.web.stream("GET", address) as answer:
            for line in answer.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("event_id") == event and message["msg"] == "process_completed":
                    return str(message["output"]["error"])
        raise RuntimeError("the page ended the stream")

    def call(self, case: list[Any]) -> str:
        """The endpoint /compare, which lets nothing into the queue that cannot run."""
        told = self.web.post(f"{self.base}/call/compare", json={"data": case[:3]})
        assert told.status_code == 422, told.text
        return told.text

    def run(self, case: list[Any]) -> str:
        """The way around the queue, which is closed to good requests as well."""
        told = self.web.post(f"{self.base}/run/compare", json={"data": case[:3]})
        assert 400 <= told.status_code < 500, told.text
        return told.text

    def link(self, case: list[Any]) -> str:
        """What a page asks that was opened by a link."""
        names = ("concept", "strength", "question", "schedule", "tokens")
        query = {name: str(value)[:8_000] for name, value in zip(names, case, strict=True)}
        body = {"data": [], "fn_index": self.opened, "session_hash": self.session}
        told = self.web.post(f"{self.base}/run/predict", params=query, json=body).text
        assert "cannot be used" in told, told
        return told


@contextmanager
def busy(url: str) -> Iterator[None]:
    """Another visitor, who asks for one run after the other."""
    ended, told = threading.Event(), list[str]()

    def visit() -> None:
        with httpx.Client(timeout=60) as web:
            while not ended.is_set():
                event = web.post(f"{url}gradio_api/call/compare", json={"data": GOOD[:3]}).json()
                told.append(web.get(f"{url}gradio_api/call/compare/{event['event_id']}").text)

    visitor = threading.Thread(target=visit)
    visitor.start()
    time.sleep(1)
    try:
        yield
    finally:
        ended.set()
        visitor.join()
    assert told and all(text.startswith("event: complete") for text in told)


def timed(way: Callable[[list[Any]], str], asked: list[list[Any]], rounds: int) -> list[float]:
    """Milliseconds of every request, after one round that does not count."""
    found = []
    for turn in range(rounds + 1):
        for case in asked:
            start = time.perf_counter()
            sentence = way(case)
            if turn:
                found.append(1000 * (time.perf_counter() - start))
            assert "Traceback" not in sentence and len(sentence) > 20, sentence
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--wait", type=float, default=300.0, help="seconds for the page to start")
    options = parser.parse_args()
    checks, figures = [], {}
    with served(options.wait) as (url, _):
        page = Page(url)
        ways = {
            "refusal in the queue of the page": (page.queue, cases(*WRONG, *TYPED, *MORE)),
            "refusal at /call/compare": (page.call, cases(*WRONG, *TYPED)),
            "refusal at /run": (page.run, cases(*WRONG, *TYPED)),
            "refusal of a link": (page.link, cases(*WRONG, *MORE)),
        }
        behind = "refusal at /call/compare behind another visitor's runs"
        ways[behind] = ways["refusal at /call/compare"]
        for name, (way, asked) in ways.items():
            with busy(url) if name == behind else nullcontext():
                took = timed(way, asked, options.rounds)
            last = statistics.quantiles(took, n=20)[-1]
            checks.append(Check(name, spread(took), "ms", BAR))
            checks.append(Check(f"{name}, 95th percentile", spread([last]), "ms", BAR))
            figures[name] = {"requests": len(took), "slowest_ms": round(max(took), 1)}
    record("refusals", "cpu", checks, figures, DEFAULT)


if __name__ == "__main__":
    main()
