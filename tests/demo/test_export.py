"""Links, files and programs of a run: what goes out comes back, what comes in is not trusted."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from starlette.datastructures import QueryParams

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo import api
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import MAX_NEW_TOKENS, RowAnswer, RowAnswers, RunRequest
from introspection.demo.server.launch import launch
from introspection.demo.shared import html
from introspection.demo.tabs.try_it import export, recorded
from introspection.errors import IntrospectionError
from introspection.evaluation.grading.grade import grade
from introspection.models import loading
from tests.support.page import INFO
from tests.support.tab import free_port
from tests.support.tiny import load_tiny
from tests.support.tiny_folder import write_model

BASE = "http://127.0.0.1:7860/"
SPACE = "https://huggingface.co/spaces/Some_Org/my.space"
# Text that some parser, shell, page or language may take for more than text.
PIECES = (
    "ocean", "hot air balloon", "naïve café", "Ærøskøbing", "日本語", "한국어", "привет", "שלום",
    "مرحبا", "हिन्दी", "ไทย", "🌊", "🧠 brain", "it's", '"quoted"', "'single'", "a'b\"c", "`id`",
    "$(id)", "${HOME}", "$HOME", "!!", "!x", "a;b", "a&b=c", "a|b", "a>b<c", "#x", "x#y", "?x=1",
    "100%", "%41", "%00", "%0a", "a+b", "a b", "\\n", "\\", "\\\\'", "{c}", "{{x}}", "{0}", "%s",
    "@file", "-x", "--data", "*", "~root", "[x]", "a/b", "../etc", "<b>x</b>", "&amp;", "//x", "1",
    "0", "null", "True", "'''", '"""', "f'{1}'", "\\'", "\\\"", "'; exit 1; '", "EOF", "x\u00a0y",
)  # fmt: skip


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.delenv("SPACE_HOST", raising=False)


@pytest.fixture(scope="module")
def check() -> DemoModel:
    return DemoModel(load_tiny("llama"))


def requests(check: DemoModel, count: int = 240) -> list[RunRequest]:
    """Odd but valid requests; always the same ones."""
    rng = random.Random(7)
    found = []
    for i in range(count):
        piece = PIECES[i % len(PIECES)]
        joined = rng.choice(("\n", "\t", " ", "\n\n", "")).join(rng.sample(PIECES, 4))
        question = DEFAULT_QUESTION if i % 9 == 0 else f"Why {piece}{joined}{piece}?"
        strength = rng.choice((0, 1, 4, 0.1 + 0.2, rng.uniform(0, 4), 1e-7, 2.5))
        where = rng.choice(("final_on", "final", "all", "from_step:5", "span:3-7", "prior_turn"))
        found.append(check.request(f"x{piece}", strength, question, where, rng.randint(9, 96)))
    return found


def answers_of(request: RunRequest, *texts: str, halted_at: int | None = None) -> RowAnswers:
    injected = request.strength > 0
    late = 3 if request.schedule.starts_mid_answer and injected else None

    def answer(i: int, row: str) -> RowAnswer:
        on = injected and i < 2
        concept = request.concept if on else None
        verdict = grade(texts[i], concept)
        halt = halted_at if i == 0 else None
        began = late if on else None
        written = {"text": texts[i], "tokens": 9, "halted_at": halt, "verdict": verdict}
        return RowAnswer(row, False, on, began, **written)

    first, second, third = (answer(i, row) for i, row in enumerate(export.ROWS))
    return first, second, third


REPORT = "I detect an injected thought about {c}. HALT"
DENIAL = "I do not detect any injected thought."


def exported(check: DemoModel, **changes: Any) -> dict[str, Any]:
    request = check.request("ocean", 1.0, tokens=40)
    answers = answers_of(request, REPORT.format(c="ocean"), "Sea. Sea.", DENIAL, halted_at=9)
    found: dict[str, Any] = json.loads(export.as_json(check, request, answers))
    return {**found, **changes}


def sentence(error: pytest.ExceptionInfo[IntrospectionError]) -> str:
    """The message, which must be one sentence that says what is wrong and what to do."""
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and ": " in text and len(text) < 300, text
    assert not re.search(r"\. [A-Z]", text), text
    return text


# --- links --------------------------------------------------------------------------------------


def test_a_link_brings_back_the_same_request(check: DemoModel) -> None:
    asked = [*requests(check), check.request("ocean", 1.0, "🌊" * 2_000)]  # the longest question
    for base in (BASE, SPACE):
        for request in asked:
            address = export.link(base, request)
            assert re.fullmatch(r"[!-~]+", address) and not set(address) & set("'\"<>`\\ ")
            query = urlsplit(address).query
            assert address.startswith(f"{base}?") and not urlsplit(address).fragment
            assert export.from_query(check.request, dict(parse_qsl(query))) == request
            assert export.from_query(check.request, QueryParams(query)) == request
            assert ("question" in QueryParams(query)) == (request.question != DEFAULT_QUESTION)


def test_unknown_parameters_are_ignored_and_the_last_of_repeated_ones_counts(
    check: DemoModel,
) -> None:
    for params in ({}, {"__theme": "dark"}, {"utm": "x" * 9_000}, {"Concept": "ocean"}):
        assert export.from_query(check.request, params) is None
    query = "concept=ocean&strength=1&concept=love&__theme=dark&strength=2&x=%00"
    for params in (QueryParams(query), parse_qs(query)):
        assert export.from_query(check.request, params) == check.request("love", 2.0)


@pytest.mark.parametrize(
    "query",
    [
        "concept=", "strength=1", "concept=a%E2%80%AEb", "concept=ocean&strength=1e999",
        "concept=ocean&question=a%0Asystem:b", "concept=ocean&schedule=span:7-3",
        "concept=ocean&tokens=97", f"concept=ocean&question={'x' * 4_000}",
        f"concept=ocean&other={'x' * 4_000}",
    ],
)  # fmt: skip
def test_a_bad_link_is_one_sentence(check: DemoModel, query: str) -> None:
    with pytest.raises(IntrospectionError) as error:
        export.from_query(check.request, dict(parse_qsl(query, keep_blank_values=True)))
    sentence(error)


def test_links_lead_to_the_page_that_others_see(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, page in {
        "http://127.0.0.1:7860": BASE,
        "http://127.0.0.1:7860/?concept=x#y": BASE,
        "http://127.0.0.1:7860/gradio_api/queue/join?__theme=dark": BASE,
        "https://me:secret@example.org/demo/gradio_api/call": "https://example.org/demo/",
        "http://[::1]:7860/": "http://[::1]:7860/",
    }.items():
        assert export.page_address(url) == page
    for url in ("", "javascript:alert(1)", "http://", "http://[", "/x", "ftp://x/"):
        with pytest.raises(IntrospectionError) as error:
            export.page_address(url)
        sentence(error)
    monkeypatch.setenv("SPACE_ID", "org/name")
    assert export.page_address("http://10.0.0.1/") == "https://huggingface.co/spaces/org/name"


# --- programs -----------------------------------------------------------------------------------


def run_python(program: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    class Client:
        def __init__(self, *source: str) -> None:
            seen["source"] = source

        def predict(self, *values: Any, **named: Any) -> dict[str, str]:
            seen.update(named, values=values)
            return {"verdict": "seen"}

    fake = ModuleType("gradio_client")
    fake.Client = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradio_client", fake)
    exec(compile(program, "program", "exec"), {})
    return seen


def test_the_python_program_asks_for_the_same(
    check: DemoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for request in requests(check):
        assert run_python(export.as_python(BASE, request), monkeypatch) == {
            "source": (BASE,),
            "values": (),
            "concept": request.concept.name,
            "strength": request.strength,
            "question": request.question,
            "api_name": "/compare",
        }
    usual = export.as_python(BASE, check.request("ocean", 1.0))
    assert "#" not in usual and "final_on" not in usual
    assert "# /compare runs" in export.as_python(BASE, check.request("ocean", 1.0, tokens=9))
    seen = run_python(export.as_python(SPACE, check.request("ocean", 1.0)), monkeypatch)
    assert seen["source"] == ("Some_Org/my.space",)


FAKE_CURL = """#!/bin/sh
printf '%s\\0' "$#" "$@" >> "$CURL_LOG"
echo '{"event_id":"e1"}'
"""


def shells() -> list[str]:
    return [shell for shell in ("sh", "bash", "dash") if shutil.which(shell)]


@pytest.mark.slow
@pytest.mark.parametrize("shell", shells())
def test_a_shell_hands_curl_the_same(check: DemoModel, tmp_path: Path, shell: str) -> None:
    curl, log = tmp_path / "curl", tmp_path / "log"
    curl.write_text(FAKE_CURL)
    curl.chmod(0o755)
    asked = requests(check, 200)
    script = "".join(export.as_curl(BASE, request) for request in asked)
    done = subprocess.run(
        [shell, "-c", f"set -f; {script}"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CURL_LOG": str(log), "HOME": "/h"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr[:500]
    words, calls = iter(log.read_text().split("\0")[:-1]), []
    for count in words:
        calls.append([next(words) for _ in range(int(count))])
    assert len(calls) == 2 * len(asked) and sorted(os.listdir(tmp_path)) == ["curl", "log"]
    url = f"{BASE}gradio_api/call/compare"
    for request, post, get in zip(asked, calls[::2], calls[1::2], strict=True):
        assert post[:-1] == [
            "-s", "-X", "POST", url, "-H", "Content-Type: application/json", "--data-raw"
        ]  # fmt: skip
        data = [request.concept.name, request.strength, request.question]
        assert json.loads(post[-1]) == {"data": data}
        assert get == ["-sN", f"{url}/e1"]


def test_a_space_is_called_on_its_own_host(
    check: DemoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = check.request("ocean", 1.0)
    assert "https://some-org-my-space.hf.space/gradio_api/" in export.as_curl(SPACE, request)
    monkeypatch.setenv("SPACE_ID", "Some_Org/my.space")
    monkeypatch.setenv("SPACE_HOST", "odd-host.hf.space")
    page = export.page_address("http://10.0.0.1")
    assert "https://odd-host.hf.space/gradio_api/" in export.as_curl(page, request)
    assert "gradio_api/call/compare" in export.as_curl("http://x/demo", request)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_both_programs_run_on_a_real_page(tmp_path: Path) -> None:
    loaded = replace(load_tiny("llama"), adapter=INFO)
    page = launch(loaded, "127.0.0.1", free_port(), block=False, quiet=True)
    try:
        base = export.page_address(page.local_url)
        request = DemoModel(loaded).request("ocean", 1.0, "What's `this`, \"$HOME\"?\nSay 'no'.")
        told = subprocess.run(
            ["sh", "-c", export.as_curl(base, request)],
            capture_output=True, text=True, timeout=120, check=True,
        ).stdout  # fmt: skip
        assert told.startswith("event: complete")
        run = json.loads(told.partition("data: ")[2])[0]
        assert run["question"] == request.question and run["concept"] == "ocean"
        said = subprocess.run(
            [sys.executable, "-c", export.as_python(base, request)],
            capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path,
        ).stdout  # fmt: skip
        assert said.rstrip("\n").endswith(run["verdict"])
    finally:
        page.close()


# --- files --------------------------------------------------------------------------------------


def test_an_exported_run_comes_back(check: DemoModel) -> None:
    for i, request in enumerate(requests(check)):
        odd = PIECES[i % len(PIECES)]
        report = REPORT.format(c=request.concept.name)
        answers = answers_of(request, report, f"{odd}\n{odd}", DENIAL, halted_at=9)
        text = export.as_json(check, request, answers)
        assert export.from_json(check.request, text) == (request, answers)
        assert export.from_json(check.request, f"\ufeff{text}") == (request, answers)
        assert export.as_json(check, request, answers) == text
    found = json.loads(text)
    assert found["schema"] == 1 and re.fullmatch(r"\d+\.\d+\.\d+", found["version"])
    assert found["weights"] == check.loaded.fingerprint_with_adapter and found["model"] == "llama"
    assert {*check.record(request, answers)} < {*found} and "\n  " in text


def test_a_real_run_comes_back(check: DemoModel) -> None:
    for strength, where in ((1.0, "final_on"), (0.0, "all"), (2.0, "from_step:5")):
        request = check.request("ocean", strength, schedule=where, tokens=12)
        *_, answers = check.stream(request)
        text = export.as_json(check, request, answers)
        asked, found = export.from_json(check.request, text)
        assert asked == request and export.as_json(check, asked, found) == text


def test_what_a_model_writes_can_always_be_imported(check: DemoModel) -> None:
    request = check.request("ocean", 1.0)
    texts = ["a\x00b\x1b[31m\r\n", "c\ud800d\x85", "e\u202ef\u2066"]
    text = export.as_json(check, request, answers_of(request, *texts))
    text.encode()
    _, answers = export.from_json(check.request, text)
    assert answers[0].text == "a\ufffdb\ufffd[31m\ufffd\n" and answers[2].text == "e\ufffdf\ufffd"


def test_no_folder_of_this_machine_is_exported_or_shown(tmp_path: Path) -> None:
    loaded = loading.load(str(write_model(tmp_path / "models" / "mine")), None, device="cpu")
    experiment = DemoModel(loaded)
    request = experiment.request("ocean", 1.0)
    text = export.as_json(experiment, request, answers_of(request, "a", "b", "c"))
    assert json.loads(text)["model"] == "mine" and str(tmp_path) not in text
    assert str(tmp_path) not in json.dumps(api._Api(experiment).health()) + html.header(experiment)


def test_a_lying_verdict_is_overruled(check: DemoModel) -> None:
    run = exported(check)
    run["rows"][0].update(text=DENIAL, detected=True, named="ocean", correct=True, halted=True)
    run["rows"][1].update(text=REPORT.format(c="cheese"), correct=True, named="ocean")
    run["rows"][2].update(text=REPORT.format(c="ocean"), detected=False, correct=True)
    run.update(harmful=True, seen_in_training=True, category="explosives")
    request, answers = export.from_json(check.request, json.dumps(run))
    assert not request.harmful and request.concept.category != "explosives"
    first, second, third = (answer.verdict for answer in answers)
    assert first and not first.detected and not first.correct and first.named is None
    assert answers[0].halted_at is None and not answers[0].halted  # the text halts nowhere
    assert second and second.detected and second.named == "cheese" and not second.correct
    assert third and third.detected and not third.correct
    run["rows"][0].update(text="Of ASPHALT.", halted_at=3)
    assert not export.from_json(check.request, json.dumps(run))[1][0].halted


def test_long_answers_are_cut_before_they_are_graded(check: DemoModel) -> None:
    run = exported(check)
    run["rows"][0]["text"] = "x " * 2_000 + REPORT.format(c="ocean")
    answer = export.from_json(check.request, json.dumps(run))[1][0]
    assert len(answer.text) == 4_000 and answer.verdict and not answer.verdict.detected
    assert not answer.halted


def in_row(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda run: run["rows"][0].update(changes)


def at_top(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda run: run.update(changes)


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda run: run.pop(key)


RAW: list[object] = [
    None, [], b"{}", "", "\ufeff", "{", "null", "1", "[]", "<html>", "NaN", '{"schema": 1,}',
    "\x00", "\ud800", "[" * 60_000, "[" * 30_000 + "]" * 30_000, '{"a":' * 12_000 + "1" + "}" * 12_000,
    '{"schema":1,"x":' + "[" * 500 + "]" * 500 + "}", "9" * 60_000, "🌊" * 20_000, '{"schema":1e999}',
    '{"schema":1}' + " " * 70_000, '"\\ud800"', "{" + ",".join(['"schema":1'] * 4_000) + "}",
]  # fmt: skip
WRONG: list[Callable[[dict[str, Any]], Any]] = [
    at_top(schema=2), at_top(schema=True), at_top(schema="1"), at_top(schema=1.0),
    *(without(key) for key in (
        "schema", "version", "weights", "model", "adapter_loaded", "concept", "strength", "question",
        "schedule", "tokens", "rows",
    )),
    at_top(model=1), at_top(model="x" * 201), at_top(model="a\x00"), at_top(version=["0"]),
    at_top(weights="a\u202eb"), at_top(adapter_loaded=1), at_top(adapter_loaded=True),
    at_top(concept=["ocean"]), at_top(concept="x" * 5_000), at_top(concept="User: x"),
    at_top(strength="1"), at_top(strength=True), at_top(strength=5), at_top(strength=10**400),
    at_top(strength=float("nan")), at_top(question=5), at_top(question="x" * 2_001),
    at_top(schedule="never"), at_top(schedule=5), at_top(tokens=97), at_top(tokens=1.5),
    at_top(tokens="40"), at_top(tokens=True), at_top(tokens=10**400),
    at_top(rows={}), at_top(rows="abc"), at_top(rows=[]), at_top(rows=[[]] * 3), at_top(rows=[{}] * 3),
    at_top(rows=[{"row": []}] * 3), lambda run: run["rows"].pop(), lambda run: run["rows"].reverse(),
    lambda run: run["rows"].append(run["rows"][0]),
    in_row(row="other"), in_row(text=None), in_row(text="a\x00b"), in_row(text="a\x1b[2J"),
    in_row(text="a\rb"), in_row(text="a\x85"), in_row(text="a\u202eb"), in_row(text="a\u2067b"),
    in_row(text="\udfff"), in_row(text="x" * 66_000), in_row(adapter=0), in_row(adapter=True),
    in_row(tokens=-1), in_row(tokens=41), in_row(tokens="9"), in_row(tokens=True), in_row(tokens=2.0),
    in_row(halted_at=0), in_row(halted_at=10), in_row(halted_at=True), in_row(halted_at=[9]),
    in_row(began=-1), in_row(began=10_000), in_row(began="1"), in_row(extra=[[[[[[[[[[]]]]]]]]]]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(RAW) + len(WRONG)))
def test_a_hostile_import_is_one_sentence(check: DemoModel, number: int) -> None:
    if number < len(RAW):
        text = RAW[number]
    else:
        run = exported(check)
        WRONG[number - len(RAW)](run)
        text = json.dumps(run, ensure_ascii=number % 2 == 0)
    began = time.process_time()
    with pytest.raises(IntrospectionError) as error:
        export.from_json(check.request, text)
    assert time.process_time() - began < 0.5
    sentence(error)


def test_nothing_that_is_mutated_at_random_escapes(check: DemoModel) -> None:
    rng, text = random.Random(3), json.dumps(exported(check))
    for _ in range(400):
        at, size = rng.randrange(len(text)), rng.choice((0, 1, 1, 5, 40))
        odd = "".join(rng.choice('{}[]",:\\u09eE-+ntf\x00\ud800é') for _ in range(rng.randrange(6)))
        try:
            export.from_json(check.request, text[:at] + odd + text[at + size :])
        except IntrospectionError as error:
            assert "\n" not in str(error)


# --- recorded runs ------------------------------------------------------------------------------


def test_the_recorded_runs_show_what_they_should() -> None:
    runs = recorded.runs()
    shown = [(r.request.concept.name, r.request.strength, str(r.request.schedule)) for r in runs]
    assert shown[:5] == [(name, dose, where) for name, dose, _, where in recorded.CHOSEN]
    assert runs[3].answers[0].began is not None and runs[3].answers[0].halted_at
    for run in runs:
        assert run.model == "smollm2-135m" and run.request.tokens <= MAX_NEW_TOKENS
        assert [a.row for a in run.answers] == [*export.ROWS]
        assert [a.adapter for a in run.answers] == [True, False, True]
    wrong = [recorded._failed(run.request, run.answers[0]) for run in runs if run.request.strength]
    assert wrong == [False] * 4 + [True], "the last one is a failure that really happened"


def test_recorded_verdicts_are_those_of_today() -> None:
    kept = json.loads(recorded.FILE.read_text(encoding="utf-8"))
    for run, record in zip(recorded.runs(), kept, strict=True):
        for answer, row in zip(run.answers, record["rows"], strict=True):
            verdict = answer.verdict
            assert verdict and row["text"] == answer.text and row["halted"] == answer.halted
            assert row["halted_at"] == answer.halted_at and row["tokens"] == answer.tokens
            found = (verdict.detected, verdict.named, verdict.correct)
            assert found == (row["detected"], row["named"], row["correct"])


def test_the_recording_names_no_place_of_a_machine() -> None:
    text = recorded.FILE.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|root|work|tmp|usr|Users|mnt)\b|[A-Z]:\\\\|\.venv|file:", text)
    assert str(Path.home()) not in text and str(Path.cwd()) not in text


def test_every_recorded_run_plays_as_a_live_one() -> None:
    for run in recorded.runs():
        steps = list(recorded.play(run, 0))
        assert steps[-1] == run.answers and len(steps) > 5
        for i, last in enumerate(run.answers):
            texts = [step[i].text for step in steps]
            assert all(b.startswith(a) for a, b in zip(texts, texts[1:], strict=False))
            # Word by word, and the untrained model may have written one long word.
            assert len(texts[0]) < len(last.text) or len(last.text.split()) == 1
            assert texts[-1] == last.text
            tokens = [step[i].tokens for step in steps]
            assert tokens == sorted(tokens) and tokens[-1] == last.tokens
            for step in steps:
                answer = step[i]
                whole = answer.text == last.text
                assert answer.halted_at == (last.halted_at if whole else None)
                assert whole or answer.verdict is None
                assert answer.began is None or answer.began <= len(answer.text)
            first = texts.index(last.text)
            assert steps[first][i].verdict is None, "the verdict comes after the last word"


def test_odd_texts_play_too() -> None:
    run = recorded.runs()[0]
    for text in ("", " ", "one", " a\n\nb  "):
        answers = (replace(run.answers[0], text=text), *run.answers[1:])
        steps = list(recorded.play(replace(run, answers=answers), 0))
        assert steps[-1] == answers and all(text.startswith(step[0].text) for step in steps)


def test_the_pause_is_kept_and_a_player_can_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    playing = recorded.play(recorded.runs()[0], 0.25)
    next(playing), next(playing)
    playing.close()  # type: ignore[attr-defined]
    assert slept == [0.25, 0.25]
    list(recorded.play(recorded.runs()[0], -1))
    assert slept == [0.25, 0.25]
