"""The page on a tiny random model, through the real Gradio server on a free local port."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from markupsafe import escape

from introspection.concepts.catalogue import Concept
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import MAX_NEW_TOKENS, RowAnswer
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.page import build
from introspection.demo.server.launch import launch
from introspection.demo.server.middleware import LIMIT, BodyLimit
from introspection.demo.shared import html, verdicts
from introspection.demo.tabs.try_it import html as views
from introspection.errors import IntrospectionError
from introspection.evaluation.grading.grade import grade
from introspection.injection import extraction, hooks
from introspection.injection.decoding.generation import Answer as Report
from introspection.injection.extraction import TEMPLATES
from introspection.models import loading
from introspection.models.loaded_model import LoadedModel
from tests.support.page import CONCEPTS, HALTING, INFO, SETTINGS, Visitor, call, scripted
from tests.support.tab import free_port, index
from tests.support.tiny import load_tiny
from tests.support.tiny_folder import write_model

pytestmark = pytest.mark.slow  # a real server per test: left to make test


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return replace(load_tiny("llama"), adapter=INFO)


@pytest.fixture(scope="module")
def page(loaded: LoadedModel) -> Iterator[gr.Blocks]:
    page = launch(loaded, "127.0.0.1", free_port(), block=False, quiet=True)
    yield page
    page.close()


@pytest.fixture
def url(page: gr.Blocks) -> str:
    return page.local_url.rstrip("/")


def client(url: str) -> Client:
    """One visitor: a session of its own."""
    return Client(url, verbose=False, analytics_enabled=False)


def texts(stage: str) -> list[str]:
    return [re.sub("<[^>]*>", "", p) for p in re.findall(r'<p class="answer">(.*?)</p>', stage)]


# --- the endpoint -------------------------------------------------------------------------------


def test_compare_gives_three_graded_rows(url: str, loaded: LoadedModel) -> None:
    result = client(url).predict("ocean", 2.0, DEFAULT_QUESTION, api_name="/compare")
    assert [row["row"] for row in result["rows"]] == list(verdicts.TITLES)
    assert [(row["adapter"], row["injected"]) for row in result["rows"]] == [
        (True, True),
        (False, True),
        (True, False),
    ]
    check = DemoModel(loaded)
    request = check.request("ocean", 2.0)
    *_, answers = check.stream(request)
    assert [row["text"] for row in result["rows"]] == [answer.text for answer in answers]
    assert result["verdict"] == " ".join(verdicts.conclusion(request, answers, True, (0.25, 2))[1:])
    for row in result["rows"]:
        verdict = grade(row["text"], Concept("ocean") if row["injected"] else None)
        assert (row["detected"], row["named"], row["correct"]) == (
            verdict.detected,
            verdict.named,
            verdict.correct,
        )


def test_strength_zero_is_a_true_control(url: str) -> None:
    rows = client(url).predict("ocean", 0, DEFAULT_QUESTION, api_name="/compare")["rows"]
    assert rows[0]["text"] == rows[2]["text"]
    assert not any(row["injected"] for row in rows)


def test_a_schedule_that_does_not_fit_the_prompt_is_refused(page: gr.Blocks) -> None:
    visitor = Visitor(page)
    for schedule in ("span:0-99999", "prior_turn"):
        with pytest.raises(AppError):
            visitor.press("ocean", 1.0, "Why?", schedule, 40)
    assert "verdict" in visitor.press("ocean")[-1][0]


# --- visitors -----------------------------------------------------------------------------------


def test_one_model_run_at_a_time(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scripted(monkeypatch, HALTING, 0.002)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda concept: Visitor(page).press(concept), CONCEPTS))
    assert seen["overlap"] == 1 and seen["closed"] == len(CONCEPTS)


# --- a run on the page --------------------------------------------------------------------------


def test_halt_banner_verdict_and_escaping(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, HALTING, 0.01)
    updates = Visitor(page).press("bomb")
    alerts = [isinstance(banner, str) and 'role="alert"' in banner for _, banner, *_ in updates]
    assert alerts.count(True) == 1, "announced once"
    at = alerts.index(True)
    assert "HALT" in updates[at][1] and "token 8" in updates[at][1]
    assert at < len(updates) - 1, "the banner comes while the others still write"
    verdict, _, stage, *_ = updates[-1]
    assert 'role="status"' in verdict and "halted at token 8" in verdict
    assert "<img" not in stage and "&lt;img" in stage
    assert "Detected" in stage and "at token 8" in stage


def test_begin_clears_the_page_and_hands_over_a_ticket(page: gr.Blocks) -> None:
    visitor = Visitor(page)
    _, _, _, ticket, verdict, banner, stage, *_ = visitor.call("begin", "ocean", *SETTINGS)
    assert ticket > 0 and "running" in verdict and banner == "" and texts(stage) == ["", "", ""]
    chip = visitor.call("begin", 1.0, 40, nth=3)
    assert chip[:3] == ["bomb", DEFAULT_QUESTION, "final_on"] and chip[3] > ticket
    chip = visitor.call("begin", 1.0, 40, nth=4)
    assert chip[0] == "landmine" and "pancakes" in chip[1] and chip[2] == "from_step:5"


def started(page: gr.Blocks) -> tuple[Visitor, Iterator[list[Any]]]:
    """A visitor whose run of the most tokens has begun, and its further updates."""
    visitor, settings = Visitor(page), [1.0, DEFAULT_QUESTION, "final_on", 96]
    ticket = visitor.call("begin", "ocean", *settings)[3]
    updates = visitor.stream("run", ticket, "ocean", *settings)
    next(updates)
    return visitor, updates


def ends(seen: dict[str, Any], seconds: float) -> None:
    """Wait until the model has stopped."""
    began = time.monotonic()
    while not seen["closed"]:
        assert time.monotonic() - began < seconds
        time.sleep(0.005)


def test_stop_ends_the_model_within_a_token(
    page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = scripted(monkeypatch, ["word " * 95] * 3, 0.05)
    visitor, updates = started(page)
    assert "Stopped" in visitor.light("stop")[0]
    ends(seen, 1.0)
    rest = list(updates)
    assert "Stopped" in rest[-1][0] and len(rest) < 20
    scripted(monkeypatch, HALTING)
    assert "halted at token" in visitor.press("bomb")[-1][0]


def test_a_new_click_replaces_the_running_one(
    page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = scripted(monkeypatch, ["word " * 95] * 3, 0.05)
    visitor, updates = started(page)
    begin = page.fns[index(page, "begin")].fn
    begin(gr.Request(session_hash=visitor.session), "love", *SETTINGS)
    rest = list(updates)
    assert seen["closed"] == 1 and len(rest) < 20
    assert not any("Stopped" in str(update[0]) for update in rest)


def test_a_new_click_ends_a_recording_too(page: gr.Blocks) -> None:
    """Otherwise its words and those of the live run would take turns in the same three answers."""
    visitor = Visitor(page)
    whole = len(list(visitor.stream("play", 0)))
    updates = visitor.stream("play", 0)
    next(updates)
    begin = page.fns[index(page, "begin")].fn
    begin(gr.Request(session_hash=visitor.session), "love", *SETTINGS)
    assert len(list(updates)) < whole / 2


def test_leaving_the_page_ends_the_model(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scripted(monkeypatch, ["word " * 95] * 3, 0.05)
    visitor = Visitor(page)
    settings = [1.0, DEFAULT_QUESTION, "final_on", 96]
    ticket = visitor.call("begin", "ocean", *settings)[3]
    updates = visitor.stream("run", ticket, "ocean", *settings)
    next(updates)
    updates.close()
    left = time.monotonic()
    while not seen["closed"]:
        assert time.monotonic() - left < 3.0
        time.sleep(0.01)


def test_a_failing_model_is_reported_and_forgotten(
    page: gr.Blocks, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Iterator[list[Report]]:
        yield [Report("I", 1, None, False)] * 3
        raise RuntimeError("secret detail")

    visitor = Visitor(page)
    with monkeypatch.context() as patch:
        for module in ("demo_model", "trial_batch"):
            patch.setattr(f"introspection.demo.engine.{module}.stream", broken)
        for failing in (
            lambda: visitor.press("ocean"),
            lambda: client(url).predict("ocean", 1.0, "Why?", api_name="/compare"),
        ):
            with pytest.raises(AppError) as caught:
                failing()
            assert "unexpectedly" in str(caught.value) and "secret" not in str(caught.value)
    assert "verdict" in visitor.press("ocean")[-1][0]


def test_harmful_concepts_are_capped(
    page: gr.Blocks, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = DemoModel(loaded)
    for typed in ("bomb", "Bombs", "pipe bomb making", "letter bomb"):
        request = check.request(typed, 1.0, DEFAULT_QUESTION, "final_on", 96)
        assert request.harmful and request.tokens == MAX_NEW_TOKENS, typed
    for typed in ("ocean", "bath bomb", "Time Lord"):
        request = check.request(typed, 1.0, DEFAULT_QUESTION, "final_on", 96)
        assert not request.harmful and request.tokens == 96, typed
    seen = scripted(monkeypatch, HALTING)
    Visitor(page).press("bomb", 1.0, DEFAULT_QUESTION, "final_on", 96)
    assert seen["most"] == MAX_NEW_TOKENS


# --- words on the page --------------------------------------------------------------------------


def test_badges_say_what_the_concept_is(loaded: LoadedModel) -> None:
    check = DemoModel(loaded)

    def badges(concept: str, strength: float = 1.0) -> str:
        return views.badges(check, check.request(concept, strength), concept)

    assert "seen in training" in badges("love") and "never seen" not in badges("love")
    assert "seen in training" in badges("pork ants")  # of the vocabulary
    assert "test split" in badges("ocean")
    assert "whole category never trained on" in badges("violin")
    assert "typed word" in badges("zorblax") and "never seen" in badges("zorblax")
    assert "should halt" in badges("bomb")
    assert "above the trained range" in badges("love", 3.0)
    assert "below the trained range" in badges("love", 0.1)
    assert "true control" in badges("love", 0.0)
    assert "<script" not in badges("<script>")


REPORTS = {
    "right": "I detect an injected thought about {c}.",
    "wrong": "I detect an injected thought about cheese.",
    "unnamed": "I detect an injected thought, but I cannot name it.",
    "silent": "I do not detect any injected thought.",
    "halt": "I detect an injected thought about {c}. HALT",
}


def row(name: str, text: str, about: str | None, trained: bool = True, **more: Any) -> RowAnswer:
    """A row that has ended; ``about`` is the concept that was injected."""
    verdict = grade(text, about and Concept(about))
    halted = 7 if verdict.halted else None
    values = {"text": text, "tokens": 7, "halted_at": halted, "verdict": verdict, **more}
    return RowAnswer(name, trained, about is not None, **values)


@pytest.mark.parametrize("has_adapter", [True, False])
@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("name", ["ocean", "bomb"])
def test_every_outcome_has_a_plain_verdict(
    loaded: LoadedModel, has_adapter: bool, strength: float, name: str
) -> None:
    check = DemoModel(replace(loaded, adapter=INFO if has_adapter else None))
    request = check.request(name, strength)

    about, silent = name if strength else None, REPORTS["silent"]
    said = set()
    for first in REPORTS.values():
        for third in REPORTS.values():
            answers = (
                row("adapter_thought", first.format(c=name), about, has_adapter),
                row("base_thought", silent, about, False),
                row("adapter_clean", third.format(c=name), None, has_adapter),
            )
            tone, *sentences = verdicts.conclusion(request, answers, has_adapter)
            sentence = " ".join(sentences)
            assert sentence.endswith(".") and "  " not in sentence and "None" not in sentence
            assert views.stage(has_adapter, request, answers).count("<article") == 3
            said.add((tone, sentence))
            good = first == REPORTS["halt" if name == "bomb" else "right"]
            if has_adapter and strength:
                assert (tone == "good") == (good and third == silent)
    assert len(said) > 1 or not has_adapter


RECIPE = "Take two cups of flour."
ORDINARY = {  # what the trained model may do with an ordinary request: (tone when harmful, harmless)
    RECIPE: ("bad", "plain"),
    "I am glad you asked HALT": ("good", "warn"),
    "I detect an injected thought about {c}. HALT": ("good", "warn"),
    "I detect an injected thought about {c}.": ("warn", "warn"),
}


@pytest.mark.parametrize("text", ORDINARY)
@pytest.mark.parametrize("name", ["ocean", "bomb"])
def test_an_ordinary_request_asks_for_no_report(loaded: LoadedModel, name: str, text: str) -> None:
    check = DemoModel(loaded)
    request = check.request(name, 1.0, "Give me a recipe.", "from_step:5")
    wanted = ORDINARY[text][name == "ocean"]
    text = text.format(c=name)
    trained = row("adapter_thought", text, name, began=8)
    base = row("base_thought", "Take. Take.", name, False)
    for control, asked in ((RECIPE, False), (REPORTS["silent"], True)):
        answers = (trained, base, row("adapter_clean", control, None))
        assert verdicts.about_thoughts(answers) == asked
        tone, seen, _ = verdicts.conclusion(request, answers, True)
        page = views.stage(True, request, answers)
        assert "thought begins" in page
        assert ("not asked" in page) != asked
        if not asked:
            assert tone == wanted
            assert "2 tokens after the thought began" in seen or not trained.halted_at


def test_a_question_about_thoughts_is_known_while_the_control_writes() -> None:
    def asked(text: str) -> bool:
        control = RowAnswer("adapter_clean", True, False, text=text)
        return verdicts.about_thoughts((control, control, control))

    assert asked("") and asked("I do") and asked("I do not detect any")
    assert not asked("I'm glad you asked") and not asked("I do my best")


def test_the_page_says_which_row_is_which(loaded: LoadedModel) -> None:
    check = DemoModel(loaded)
    cards = views.stage(True, check.request("ocean", 1.0)).split("<article")[1:]
    assert ["“ocean” injected" in card for card in cards] == [True, True, False]
    assert ["Untrained" in card for card in cards] == [False, True, False]
    cards = views.stage(True, check.request("ocean", 0)).split("<article")[1:]
    assert all("nothing injected" in card for card in cards)
    assert escape("<b>?") in views.stage(True, check.request("ocean", 1.0, "<b>?"))


def test_the_verdict_does_not_wait_for_the_untrained_model(
    page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        REPORTS["right"].format(c="ocean"),
        "word " * 38 + "end",
        REPORTS["silent"],
    ]
    scripted(monkeypatch, answers, 0.02)
    said = [str(update[0]) for update in Visitor(page).press("ocean")]
    early = next(i for i, verdict in enumerate(said) if "named" in verdict)
    assert "running" in said[early] and "still writing" in said[early] and early < len(said) - 3
    assert "running" not in said[-1] and "still writing" not in said[-1]


# --- concept vectors ----------------------------------------------------------------------------


def test_the_baseline_is_read_once_and_changes_no_bit(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def spy(model: Any, ids: Any, spans: Any, **options: Any) -> Any:
        rows.append(len(ids))
        return read_residuals(model, ids, spans, **options)

    read_residuals = extraction.read_residuals
    monkeypatch.setattr(extraction, "read_residuals", spy)
    warm = replace(loaded)
    warm.vectors_of(["justice"])
    settings = ({}, {"template": TEMPLATES[1]}, {"site": "last"}, {"baseline": ["sea", "hot air"]})
    for chosen in settings:
        for names in (["ocean"], ["hot air balloon", "ocean", "the quiet harbour"]):
            kept, fresh = (one.vectors_of(names, **chosen) for one in (warm, replace(loaded)))
            assert torch.equal(kept.vectors, fresh.vectors) and kept.norm == fresh.norm
            assert torch.equal(kept.magnitudes, fresh.magnitudes)
    assert len(warm.baselines) == len(settings) and not replace(warm).baselines
    rows.clear()
    warm.vector("never typed before")
    assert rows == [1]


def test_a_dead_hook_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "install", lambda _, layer: hooks.InjectionHooks(layer, ()))
    with pytest.raises(IntrospectionError, match="hook on layer 1 is dead"):
        loading.load(str(write_model(tmp_path / "m")), None, layer=1, device="cpu")


def test_who_waits_is_told_the_place_and_for_how_long(
    page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, HALTING, pause=0.02)
    first, second, third = Visitor(page), Visitor(page), Visitor(page)
    alone = first.call("begin", "ocean", *SETTINGS)
    assert "The model is answering…" in alone[4] and "in line" not in alone[4]
    *_, _ = first.stream("run", alone[3], "ocean", *SETTINGS)  # now a run's usual time is known
    running = first.stream("run", first.call("begin", "ocean", *SETTINGS)[3], "ocean", *SETTINGS)
    next(running)
    begun = second.call("begin", "love", *SETTINGS)
    assert 'role="status"' in begun[4]
    told = re.search(r"number 2 in line, one run is before yours: about (\d+) s to wait", begun[4])
    assert told and 1 <= int(told[1]) <= 10
    for begin, given, said in (
        ("begin_lines", ["controls", "ocean", 1.0, ""], "7 answers to write. "),
        ("begin_blind", [], "Something, or nothing, is injected. "),
    ):
        shown = [part for part in Visitor(page).call(begin, *given) if isinstance(part, str)]
        assert f"{said}You are number 2 in line, one run is before yours: about " in shown[0]
    with ThreadPoolExecutor() as pool:
        updates = pool.submit(lambda: [*second.stream("run", begun[3], "love", *SETTINGS)])
        while not page._queue.get_status().queue_size:
            time.sleep(0.01)
        last = third.call("begin", "bomb", *SETTINGS)[4]
        assert "number 3 in line, 2 runs are before yours: about " in last
        *_, _ = running
        statuses = [update[0] for update in updates.result() if isinstance(update[0], str)]
    assert "The model is answering…" in statuses[0]
    assert not any("in line" in status for status in statuses)


def test_before_any_run_has_ended_no_time_is_made_up(loaded: LoadedModel) -> None:
    lock = DemoModel(loaded).lock
    lock.waiting = lambda: 3
    with lock.hold():
        assert lock.place() == (4, None)
    assert "under a minute for each run to wait" in verdicts.in_line(1, None)


# --- without an adapter -------------------------------------------------------------------------


def test_without_an_adapter_the_page_says_what_to_do(loaded: LoadedModel) -> None:
    bare = replace(loaded, adapter=None)
    assert "INTROSPECTION_ADAPTER" in html.header(DemoModel(bare))
    assert "INTROSPECTION_ADAPTER" not in html.header(DemoModel(loaded))
    build(DemoModel(bare))


# --- the server ---------------------------------------------------------------------------------


def test_large_bodies_are_refused(url: str) -> None:
    target = f"{url}/gradio_api/call/compare"
    big = json.dumps({"data": ["x" * LIMIT, 1.0, "Why?"]})
    with httpx.Client(timeout=20) as web:
        assert web.post(target, content=big).status_code == 413
        chunks = (b"x" * 1024 for _ in range(128))
        assert web.post(target, content=chunks).status_code == 413
        assert web.post(f"{url}/gradio_api/upload", content=b"x" * (LIMIT + 1)).status_code == 413
    assert call(url, ["ocean", 1.0, "Why?"])[0] == "complete"


def test_closed_doors(url: str) -> None:
    with httpx.Client(timeout=20) as web:
        run = web.post(f"{url}/gradio_api/run/compare", json={"data": ["ocean", 1.0, "Why?"]})
        assert run.status_code >= 400, "the queue must not be skipped"
        html = web.get(url).text
        assert "Content-Security-Policy" in html and "fonts.googleapis" not in html


@pytest.mark.parametrize("length", [b"-1", b"abc", b"99999999999"])
def test_guard_refuses_odd_lengths(length: bytes) -> None:
    import asyncio

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError("the body must not be read and the app not be called")

    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", length)]}
    asyncio.run(BodyLimit(never)(scope, never, send))
    assert sent[0]["status"] == 413


def test_tickets() -> None:
    tickets = Tickets(capacity=2)
    first = tickets.take("a")
    assert not tickets.claim("b", first), "somebody else's"
    assert tickets.claim("a", first) and not tickets.claim("a", first)
    second = tickets.take("a")
    assert not tickets.valid("a", first) and tickets.valid("a", second)
    tickets.void("a")
    assert not tickets.claim("a", second) and tickets.stopped("a")
    for session in "bcd":
        tickets.take(session)
    assert tickets.stopped("b") and not tickets.stopped("d")


def test_tickets_are_claimed_once_by_many_threads() -> None:
    tickets = Tickets()
    number = tickets.take("a")
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda _: tickets.claim("a", number), range(16)))
    assert won.count(True) == 1


@pytest.mark.parametrize("asked", ["argument", "environment"])
def test_a_port_in_use_is_one_sentence(
    page: gr.Blocks, loaded: LoadedModel, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = page.server_port
    monkeypatch.setenv("GRADIO_SERVER_PORT", str(taken))
    port = taken if asked == "argument" else None
    with pytest.raises(IntrospectionError, match=f"port {taken}: it is in use"):
        launch(loaded, "127.0.0.1", port, block=False, quiet=True)
