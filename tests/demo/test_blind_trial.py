"""The blind trial: draws and scores by themselves, secrecy through the real Gradio server."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client.exceptions import AppError

from introspection.concepts.catalogue import Concept, resolve
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.shared.html import status
from introspection.demo.shared.widgets import TabContext
from introspection.demo.tabs.blind_trial import html, tab
from introspection.demo.tabs.blind_trial import trial as blind
from introspection.demo.tabs.blind_trial.trial import NOTHING, BlindTrial, Score, Tally
from introspection.errors import IntrospectionError
from introspection.evaluation.grading.grade import grade
from tests.demo.stub_model import DENIAL, Server, StubModel, served
from tests.support.tab import Tab, index

WORDS = ("carousel", "inflation", "kaleidoscope", "starfish", "watercolor")


@pytest.fixture(scope="module")
def concepts() -> tuple[Any, ...]:
    return blind.pool(StubModel().seen)


# --- draws --------------------------------------------------------------------------------------


def test_only_unseen_harmless_words_are_drawn(concepts: tuple[Any, ...]) -> None:
    assert len(concepts) > 500
    for concept in concepts:
        assert concept.split == "test" and not concept.trained and not concept.harmful
        assert " " not in concept.name and resolve(concept.name) == concept
    first = concepts[0].name
    fewer = blind.pool(lambda concept: (concept.name == first, "seen"))
    assert len(fewer) == len(concepts) - 1 and first not in {c.name for c in fewer}


def test_draws_have_the_promised_frequencies(concepts: tuple[Any, ...]) -> None:
    rng = random.Random(0)
    trials = [blind.draw(rng, concepts) for _ in range(3_000)]
    category = {concept.name: concept.category for concept in concepts}
    places: Counter[int] = Counter()
    for trial in trials:
        assert len({category[name] for name in trial.offered}) == len(set(trial.offered)) == 5
        assert list(trial.offered) == sorted(trial.offered, key=str.casefold)
        assert trial.report is None and trial.guess is None
        if trial.secret == NOTHING:
            assert trial.strength == 0
        else:
            places[trial.offered.index(trial.secret)] += 1
    nothing = len(trials) - places.total()
    assert abs(nothing / 3_000 - 1 / 3) < 0.03  # three and a half standard errors
    assert len(places) == 5
    assert all(abs(count / places.total() - 1 / 5) < 0.03 for count in places.values())
    doses = Counter(trial.strength for trial in trials if trial.secret)
    assert set(doses) == set(blind.STRENGTHS) and abs(doses[0.5] / doses.total() - 0.5) < 0.04
    assert blind.draw(random.Random(7), concepts) == blind.draw(random.Random(7), concepts)


def test_the_model_gets_what_was_drawn() -> None:
    injected = blind.line(BlindTrial(WORDS, "starfish", 0.5))
    assert injected.concept == resolve("starfish") and injected.strength == 0.5
    assert injected.injected and injected.vector == "concept" and injected.adapter
    nothing = blind.line(BlindTrial(WORDS, NOTHING, 0.0))
    assert nothing.concept is None and not nothing.injected and nothing.vector == "none"
    assert nothing.question == injected.question and nothing.label == injected.label


# --- scores -------------------------------------------------------------------------------------


def finished(secret: str, text: str) -> BlindTrial:
    trial = BlindTrial(WORDS, secret, 1.0 if secret else 0.0)
    verdict = grade(text, Concept(secret) if secret else None)
    result = TrialResult(blind.line(trial), text=text, tokens=8, verdict=verdict)
    return blind.answered(trial, result, 1)


RIGHT = "I detect an injected thought about starfish."
WRONG = "I detect an injected thought about cheese."
UNNAMED = "I detect an injected thought, but I cannot name it."
REPORTS = {  # (secret, report): the model's tally, and the sentence about it
    ("starfish", RIGHT): (Tally(hits=1, named=1), "named it"),
    ("starfish", WRONG): (Tally(hits=1), "noticed something and called it “cheese”"),
    ("starfish", UNNAMED): (Tally(hits=1), "noticed something and did not name it"),
    ("starfish", DENIAL): (Tally(misses=1), "missed it"),
    (NOTHING, DENIAL): (Tally(correct_rejections=1), "rightly reported nothing"),
    (NOTHING, WRONG): (Tally(false_alarms=1), "raised a false alarm and called it “cheese”"),
    (NOTHING, "No. HALT"): (Tally(false_alarms=1), "raised a false alarm"),
}
GUESSES = {  # (secret, guess): the visitor's tally
    ("starfish", "starfish"): Tally(hits=1, named=1),
    ("starfish", "carousel"): Tally(hits=1),
    ("starfish", NOTHING): Tally(misses=1),
    (NOTHING, "carousel"): Tally(false_alarms=1),
    (NOTHING, NOTHING): Tally(correct_rejections=1),
}


@pytest.mark.parametrize(
    ("secret", "text", "guess"),
    [(s, text, guess) for s, text in REPORTS for truth, guess in GUESSES if truth == s],
)
def test_every_outcome_is_counted(secret: str, text: str, guess: str) -> None:
    trial = finished(secret, text)
    score, judged = blind.judge(Score(), trial, guess)
    counted, described = REPORTS[secret, text]
    assert score == (GUESSES[secret, guess], counted)
    assert judged.guess == guess and trial.guess is None
    tone, said, model = blind.reveal(judged)
    assert tone == ("good" if guess == secret else "bad")
    assert (secret or "nothing was injected") in said and said.endswith(".")
    assert model == f"The model {described}."
    twice, _ = blind.judge(score, trial, guess)
    assert twice.visitor == tuple(2 * count for count in score.visitor)


def test_rates_and_their_table() -> None:
    tally = Tally(hits=8, misses=4, false_alarms=1, correct_rejections=5, named=6)
    hits, alarms, named = blind.hits(tally), blind.false_alarms(tally), blind.named(tally)
    assert (hits.successes, hits.n, named.successes, named.n) == (8, 12, 6, 12)
    assert (alarms.successes, alarms.n) == (1, 6)
    assert hits.low == pytest.approx(0.3906, abs=1e-3) and hits.high == pytest.approx(
        0.8619, abs=1e-3
    )
    table = html.score_table(Score(tally, tally))
    assert "8 of 12" in table and "39 to 86&nbsp;%" in table and "same 18 trials" in table
    assert table.count("too few to say much") == 2, "of the false alarms of both"
    empty = html.score_table(Score(), has_adapter=False)
    assert empty.count("–</td>") == 6 and "untrained" in empty and "nan" not in empty
    assert "same 1 trial<" in html.score_table(Score(Tally(hits=1), Tally(misses=1)))


def test_a_report_is_escaped() -> None:
    assert "<img" not in html.report("<img src=x onerror=alert(1)>")
    trial = finished("starfish", WRONG)
    shown = status(*blind.reveal(trial._replace(reported_name="<b>", guess=NOTHING)))
    assert "<b>" not in shown and "&lt;b&gt;" in shown


# --- the tab on a server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with served(StubModel(), lambda context: tab.add(context, random.Random(1))) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.model.__init__()  # type: ignore[misc]
    return running


class Visitor(Tab):
    def __init__(self, server: Server) -> None:
        super().__init__(server.page)

    def press(self) -> list[Any]:
        """Begin and run; the page at the end."""
        self.call("begin_blind")
        return self.call("run_blind")

    def guess(self, number: int, *sent: Any) -> tuple[str, str]:
        """(status, table) after the numbered button."""
        page = self.light("guess_blind", *(sent or (None, None)), nth=number)
        return str(page[2]), str(page[4])


def fixed(monkeypatch: pytest.MonkeyPatch, secret: str, strength: float = 0.5) -> None:
    trial = BlindTrial(WORDS, secret, strength if secret else 0.0)
    monkeypatch.setattr(blind, "draw", lambda *_: trial)


def labels(page: list[Any]) -> list[str]:
    return [str(button.get("value")) for button in page[5:11]]


@pytest.mark.slow
def test_nothing_that_is_sent_before_the_guess_depends_on_the_secret(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = set()
    for secret in (*WORDS, NOTHING):
        for strength in blind.STRENGTHS:
            fixed(monkeypatch, secret, strength)
            visitor = Visitor(server)
            began = visitor.call("begin_blind")
            assert labels(began) == [*WORDS, tab.NO_GUESS]
            updates = [began, *visitor.stream("run_blind")]
            refused = [visitor.call("begin_blind"), visitor.call("run_blind")]
            assert began[0] is None, "a state"
            raw = "\n".join(visitor.raw)
            counts = {name: len(re.findall(name, raw)) for name in WORDS}
            assert len(set(counts.values())) == 1 and counts["starfish"] > 0
            assert "0.5" not in str(updates) and "concept" not in str(updates)
            told.add(json.dumps([updates[0], updates[-1], refused]))
            status, _ = visitor.guess(5)
            assert (secret or "Right: nothing was injected") in status
    assert len(told) == 1, "the six secrets look the same, byte for byte"
    assert {line.concept.name for (line,) in server.model.asked if line.concept} == set(WORDS)
    web = httpx.get(f"{server.page.local_url}config").text
    assert not any(word in web for word in WORDS)


@pytest.mark.slow
def test_a_state_that_the_browser_sends_is_ignored(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed(monkeypatch, "starfish")
    forged = [list(WORDS), "carousel", 1.0, 0, "x", 1, True, True, "", None]
    visitor = Visitor(server)
    assert "no report" in visitor.guess(0, forged, [[99] * 5] * 2)[0]
    visitor.press()
    status, table = visitor.guess(0, forged, [[99] * 5] * 2)
    assert "Wrong: “starfish”" in status and "same 1 trial<" in table and "99" not in table


@pytest.mark.slow
def test_a_trial_counts_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.model.text = "I detect an injected thought about {c}."
    fixed(monkeypatch, "starfish")
    visitor = Visitor(server)
    page = visitor.press()
    assert [button["interactive"] for button in page[5:11]] == [True] * 6
    assert "starfish" in page[3] and "What was injected?" in page[2]
    status, table = visitor.guess(3)
    assert "Right: “starfish” was injected at strength 0.5." in status
    assert 'role="status"' in status and "The model named it." in status
    assert table.count("1 of 1") == 4 and "same 1 trial<" in table
    status, table = visitor.guess(2)
    assert "judged already" in status and "trial" not in table
    fixed(monkeypatch, NOTHING)
    visitor.press()
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(visitor.guess, [0, 1, 2, 3, 4, 5] * 4))
    assert sum("judged already" not in status for status, _ in told) == 1
    fixed(monkeypatch, NOTHING)
    visitor.press()
    assert "same 3 trials" in visitor.guess(5)[1]


@pytest.mark.slow
def test_a_guess_needs_a_report_and_a_report_a_guess(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed(monkeypatch, "starfish")
    visitor = Visitor(server)
    assert visitor.guess(0)[0].count("There is no report to judge yet") == 1
    visitor.call("begin_blind")
    status = visitor.guess(3)[0]
    assert "no report" in status and "running" in status, "Stop stays"
    visitor.call("run_blind")
    assert "Guess first" in visitor.call("begin_blind")[2]
    visitor.call("run_blind")
    assert len(server.model.asked) == 1, "a hard trial cannot be skipped"
    status, table = visitor.guess(3)
    assert "Right" in status and "same 1 trial<" in table


@pytest.mark.slow
def test_two_interleaved_visitors_keep_their_secrets(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Visitor(server), Visitor(server)
    fixed(monkeypatch, "starfish")
    one.call("begin_blind")
    fixed(monkeypatch, NOTHING)
    two.call("begin_blind")
    two.call("run_blind")
    one.call("run_blind")
    assert "Right: nothing" in two.guess(5)[0]
    status, table = one.guess(5)
    assert "Wrong: “starfish”" in status and "same 1 trial<" in table
    assert "starfish" not in str(two.guess(0))


@pytest.mark.slow
def test_stop_leaves_no_half_trial(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.model.text, server.model.pause = "word " * 90, 0.02
    fixed(monkeypatch, "starfish")
    visitor = Visitor(server)
    visitor.call("begin_blind")
    updates = visitor.stream("run_blind")
    next(updates)
    stopped = visitor.light("stop_blind")
    assert "does not count" in stopped[2] and "word" not in stopped[3]
    pressed = time.monotonic()
    while not server.model.closed:
        assert time.monotonic() - pressed < 1.0
        time.sleep(0.005)
    rest = list(updates)
    assert "Stopped" in rest[-1][2] and "word" not in rest[-1][3] and len(rest) < 20
    assert "starfish" not in str(stopped) and "starfish" not in str(rest[-1])
    assert "no report" in visitor.guess(3)[0]
    server.model.text, server.model.pause = DENIAL, 0.0
    visitor.press()
    assert "same 1 trial<" in visitor.guess(3)[1]


@pytest.mark.slow
def test_starting_over(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, "starfish")
    visitor = Visitor(server)
    visitor.press()
    visitor.guess(3)
    visitor.press()
    page = visitor.light("restart_blind")
    assert "No trial is judged yet" in page[4] and "cleared" in page[2]
    assert "no report" in visitor.guess(3)[0]
    visitor.press()
    assert "same 1 trial<" in visitor.guess(3)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IntrospectionError("The vector of Starfish is not finite."), "does not count"),
        (IntrospectionError("The model is busy."), "is busy"),
        (RuntimeError("starfish"), "unexpectedly"),
    ],
)
def test_a_failure_keeps_the_secret_and_leaves_no_trial(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    fixed(monkeypatch, "starfish")
    server.model.error = error
    visitor = Visitor(server)
    visitor.call("begin_blind")
    before = len(visitor.raw)
    with pytest.raises(AppError) as caught:
        visitor.call("run_blind")
    assert said in str(caught.value)
    page = visitor.light("failed_blind")
    assert "starfish" not in "\n".join(visitor.raw[before:]).casefold()
    assert "did not finish" in page[2] and page[5]["visible"] is False
    assert "no report" in visitor.guess(3)[0]


@pytest.mark.slow
def test_a_run_in_another_tab_ends_the_trial(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed(monkeypatch, "starfish")
    visitor = Visitor(server)
    visitor.call("begin_blind")
    server.page.fns[index(server.page, "begin_blind")].fn(
        None, gr.Request(session_hash=visitor.session)
    )
    page = visitor.call("run_blind")
    assert "took this trial’s place" in page[2] and not server.model.asked
    assert "no report" in visitor.guess(3)[0]


@pytest.mark.slow
def test_no_adapter_is_said(server: Server) -> None:
    assert "cannot report" not in httpx.get(f"{server.page.local_url}config").text
    bare = StubModel()
    bare.has_adapter = False  # type: ignore[misc]
    with gr.Blocks(analytics_enabled=False) as page, gr.Tab("Blind trial"):
        tab.add(TabContext(bare, Tickets()))  # type: ignore[arg-type]
    shown = "".join(str(getattr(block, "value", "")) for block in page.blocks.values())
    assert "untrained model cannot report" in shown and "The untrained model</th>" in shown
