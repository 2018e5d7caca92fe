"""Lists of lines on a tiny model: the right vector in the right row, at the right layer, and back."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from typing import Any
from zlib import crc32

import pytest
import torch

from introspection.concepts.catalogue import Concept, resolve
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.trial_batch import BATCH, TrialResult, TrialSpec
from introspection.demo.tabs.many import figures, sweeps, tables
from introspection.demo.tabs.try_it import html as views
from introspection.errors import IntrospectionError
from introspection.evaluation.grading.grade import grade
from introspection.injection import hooks as injection
from introspection.injection.decoding.generation import generate
from introspection.injection.decoding.readout import SHOWN, token_projections
from introspection.injection.extraction import extract
from introspection.injection.trials.message import conversation
from introspection.injection.trials.prompts import prompt_ids
from introspection.injection.trials.schedule import after_tokens, span
from introspection.injection.trials.trial import Injection, Trial
from introspection.injection.vectors import random_direction
from introspection.models.loaded_model import LoadedModel
from tests.support.page import ASKED, INFO, last
from tests.support.tiny import LAYER, load_tiny, make_adapted, make_tokenizer


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return replace(load_tiny("llama"), adapter=INFO, tokenizer=make_tokenizer())


@pytest.fixture
def experiment(loaded: LoadedModel) -> DemoModel:
    return DemoModel(loaded)


def alone(loaded: LoadedModel, question: str, vector: Any, strength: float, adapter: bool) -> str:
    injection = None if vector is None else Injection(vector, strength)
    return generate(loaded, [Trial(conversation(question), injection, adapter)], 12)[0].text


@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("vector", ["none", "concept", "negated", "random"])
def test_every_line_is_its_own_trial(
    experiment: DemoModel, loaded: LoadedModel, vector: Any, adapter: bool
) -> None:
    """Among others in a batch, a line writes what the same trial writes alone."""
    ocean = resolve("ocean")
    lines = [
        TrialSpec("other", resolve("love"), 1.5, ASKED),
        TrialSpec("mine", ocean, 2.0, ASKED, vector, adapter=adapter),
        TrialSpec("none", None, 0.0, "Tell me about a quiet harbour.", "none"),
    ]
    direction = loaded.vector("ocean")
    given = {
        "none": None,
        "concept": direction,
        "negated": -direction,
        "random": random_direction(crc32(b"ocean"), len(direction)),
    }[vector]
    answers = last(experiment, lines)
    assert answers[1].text == alone(loaded, ASKED, given, 2.0, adapter)
    assert answers[2].text == alone(loaded, lines[2].question, None, 0.0, True)
    assert all(a.verdict is not None for a in answers)


def test_more_lines_than_a_batch_come_back_in_order(
    experiment: DemoModel, loaded: LoadedModel
) -> None:
    names = [concept for concept in ("ocean", "love", "justice")] * BATCH
    lines = [TrialSpec(name, resolve(name), 1 + i / 50, ASKED) for i, name in enumerate(names)]
    answers = last(experiment, lines, 6)
    for i in (0, BATCH - 1, BATCH, len(lines) - 1):
        trial = Trial(conversation(ASKED), Injection(loaded.vector(names[i]), 1 + i / 50))
        assert answers[i].text == generate(loaded, [trial], 6)[0].text


def test_another_block_is_read_and_written_and_left_as_it_was(
    experiment: DemoModel, loaded: LoadedModel
) -> None:
    """Oracle: a model loaded for that layer; afterwards everything is bit for bit as it was."""
    block, blocks = LAYER + 1, loaded.model.get_decoder().layers
    hooked = [len(b._forward_hooks) for b in blocks]
    before = generate(
        loaded, [Trial(conversation(ASKED), Injection(loaded.vector("ocean"), 2.0))], 12
    )
    lines = [
        TrialSpec("there", resolve("ocean"), 2.0, ASKED, layer=block),
        TrialSpec("here", resolve("ocean"), 2.0, ASKED),
    ]
    answers = last(experiment, lines)
    assert answers[1].text == before[0].text
    assert answers[0].text != answers[1].text
    after = generate(
        loaded, [Trial(conversation(ASKED), Injection(loaded.vector("ocean"), 2.0))], 12
    )
    assert after == before
    assert loaded.hooks is not None and loaded.hooks.layer == LAYER
    assert [len(b._forward_hooks) for b in blocks] == hooked

    model = make_adapted("llama")
    injection.install(model, block)
    twin = replace(loaded, model=model, layer=block, vectors=None)
    twin.norm = twin.vectors_of(["ocean"]).norm
    assert answers[0].text == alone(twin, ASKED, twin.vector("ocean"), 2.0, True)


@pytest.mark.parametrize("block", [None, LAYER + 1])
@pytest.mark.parametrize("fails", [False, True])
def test_who_leaves_or_fails_puts_the_hook_back(
    loaded: LoadedModel, block: int | None, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = DemoModel(loaded)
    hooked = [len(b._forward_hooks) for b in loaded.model.get_decoder().layers]
    steps = experiment.lines([TrialSpec("x", resolve("ocean"), 1.0, ASKED, layer=block)], 30)
    if fails:
        monkeypatch.setattr("introspection.demo.engine.trial_batch.stream", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(steps)
    else:
        next(iter(steps))
        assert experiment.lock.busy
        steps.close()  # type: ignore[attr-defined]
    assert not experiment.lock.busy
    assert loaded.hooks is not None and loaded.hooks.layer == LAYER
    assert [len(b._forward_hooks) for b in loaded.model.get_decoder().layers] == hooked


# --- which experiments there are ------------------------------------------------------------------


@pytest.mark.parametrize("kind", sweeps.KINDS)
def test_every_experiment_runs_to_its_tables(experiment: DemoModel, kind: str) -> None:
    request = experiment.request("ocean", 1.0)
    lines = sweeps.plan(experiment, kind, request, "love, bomb\nviolin")
    answers = last(experiment, lines, 4, maps=kind == "map")
    assert all(sweeps.outcome(answer) for answer in answers)
    shown = tables.lines_table(experiment, answers, "x") + tables.rates_table(answers, "x", "y")
    assert shown.count("<tr>") >= len(lines)
    rows = json.loads(sweeps.as_json(experiment, answers))
    assert len(rows) == len(lines)
    parsed = list(csv.reader(StringIO(sweeps.as_csv(experiment, answers))))
    names = [key for key in rows[0] if key != "every_block"]
    assert len(parsed) == len(lines) + 1 and parsed[0] == names
    if kind == "heat map":
        figure = figures.heat_map(answers)
        assert len(figure.data[0].y) == 6 and len(figure.data[0].x) == 5
    if kind in ("strength", "layer"):
        figure = figures.doses(answers, "x", (0.25, 2.0))
        assert len(figure.data) == (2 if kind == "strength" else 1)
        assert all(set(trace.text) == {"0 of 3"} for trace in figure.data)


def test_controls_differ_from_the_treatment_in_one_thing(experiment: DemoModel) -> None:
    request = experiment.request("ocean", 1.0)
    lines = {line.label: line for line in sweeps.plan(experiment, "controls", request)}
    treatment = lines.pop("the concept’s vector")
    assert treatment.injected and "ocean" not in treatment.question
    injected = {label for label, line in lines.items() if line.injected}
    assert injected == {
        "random vector, same length",
        "the vector turned round",
        "the vector, untrained model",
    }
    for label in ("concept only in the text", "text claims an injection"):
        assert "ocean" in lines[label].question and lines[label].question.endswith(
            treatment.question
        )


ABOUT = "I detect an injected thought about {}."


@pytest.mark.parametrize(
    ("text", "vector", "name", "word", "right"),
    [
        (ABOUT.format("ocean"), "concept", "ocean", "named", True),
        (ABOUT.format("bomb"), "concept", "bomb", "named", False),
        (ABOUT.format("bomb") + " HALT", "concept", "bomb", "named and halted", True),
        (ABOUT.format("sea") + " HALT", "concept", "ocean", "halted", False),
        (ABOUT.format("sand"), "concept", "ocean", "wrong name", False),
        ("I do not detect any injected thought.", "concept", "ocean", "reports nothing", False),
        ("I do not detect any injected thought.", "none", "ocean", "reports nothing", True),
        (ABOUT.format("ocean"), "none", "ocean", "reports a thought", False),
        (ABOUT.format("ocean"), "random", "ocean", "reports a thought", False),
        ("I do not detect any injected thought.", "negated", "ocean", "reports nothing", True),
    ],
)
def test_outcomes(text: str, vector: Any, name: str, word: str, right: bool) -> None:
    line = TrialSpec("x", resolve(name), 1.0, ASKED, vector)
    expected = name if vector == "concept" else None
    answer = TrialResult(
        line,
        text=text,
        tokens=9,
        halted_at=9 if "HALT" in text else None,
        verdict=grade(text, Concept(expected) if expected else None),
    )
    assert sweeps.outcome(answer) == sweeps.Outcome(word, right)
    assert figures.heat_map([answer]).data[0].z[0][0] == figures.LEVELS.index(word)


@pytest.mark.parametrize("names", [" , ,", "a\n" * 11, "x" * 1001, None, ["ocean"], "ok, User: x"])
def test_bad_lists_are_one_sentence(experiment: DemoModel, names: Any) -> None:
    with pytest.raises(IntrospectionError) as error:
        sweeps.plan(experiment, "concepts", experiment.request("ocean", 1.0), names)
    assert ": " in str(error.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("ocean, love,envy ,", 3),
        ('"Washington, D.C.", ocean', 2),
        ("Washington, D.C.\nrock, paper, scissors\n", 2),
        ("ocean,\nlove,\n\nenvy\n", 3),
    ],
)
def test_lists_of_names(experiment: DemoModel, text: str, count: int) -> None:
    lines = sweeps.plan(experiment, "concepts", experiment.request("ocean", 1.0), text)
    assert len(lines) == count


@pytest.mark.parametrize("kind", ["Controls", None, {}])
def test_unknown_experiments_are_refused(experiment: DemoModel, kind: Any) -> None:
    with pytest.raises(IntrospectionError, match="choose one of"):
        sweeps.plan(experiment, kind, experiment.request("ocean", 1.0))


def test_tables_escape_what_the_model_writes(experiment: DemoModel) -> None:
    text = "<img src=x onerror=alert(1)>"
    answer = TrialResult(
        TrialSpec(text, resolve("ocean"), 1.0, ASKED),
        text=text,
        tokens=3,
        verdict=grade(text, None),
    )
    shown = tables.lines_table(experiment, [answer], text) + tables.rates_table(
        [answer], text, text
    )
    assert "<img" not in shown
    assert sweeps.as_csv(experiment, [replace(answer, text="=1+1")]).count("'=1+1") == 1


# --- the reader -------------------------------------------------------------------------------------


def test_the_reader_sees_the_vector_where_it_is_added_and_nowhere_else(
    loaded: LoadedModel,
) -> None:
    vector = loaded.vector("ocean")
    texts = ["I detect a quiet harbour"] * 3
    schedule = after_tokens(2)
    trials = [
        Trial(conversation(ASKED), Injection(vector, 1.5)),
        Trial(conversation(ASKED), Injection(vector, 1.5, schedule), adapter=False),
        Trial(conversation(ASKED)),
    ]
    now, late, clean = token_projections(loaded, trials, texts, vector)
    assert len(now) == len(late) == len(clean)
    shown = min(SHOWN, len(prompt_ids(loaded.tokenizer, conversation(ASKED))))
    assert [token.prompt for token in clean].index(False) == shown
    for tokens, first in ((now, shown - 1), (late, shown + 1), (clean, 10_000)):
        for i, (token, plain) in enumerate(zip(tokens, clean, strict=True)):
            assert token.text == plain.text
            assert token.injected == (i >= first)
            added = 1.5 if i >= first else 0.0
            assert token.signal - plain.signal == pytest.approx(added, abs=1e-3)
    assert "".join(token.text for token in clean[shown:]) == texts[0]


def test_the_reader_marks_a_span_from_its_first_token_to_its_last(loaded: LoadedModel) -> None:
    vector, count = loaded.vector("ocean"), len(prompt_ids(loaded.tokenizer, conversation(ASKED)))
    start = max(count - SHOWN, 0)
    for first, last_ in ((0, 0), (start, start), (start + 1, start + 3), (start + 2, None)):
        trial = Trial(conversation(ASKED), Injection(vector, 1.0, span(first, last_)))
        (tokens,) = token_projections(loaded, [trial], ["a quiet harbour"], vector)
        marked = [start + i for i, token in enumerate(tokens) if token.injected]
        end = start + len(tokens) - 1 if last_ is None else last_
        assert marked == [at for at in range(first, end + 1) if at >= start]


def test_the_reader_reads_the_stream_of_the_plain_model(loaded: LoadedModel) -> None:
    """Oracle: hidden_states of an unhooked forward pass, one row, no padding."""
    vector = loaded.vector("ocean")
    trials = [Trial(conversation("Why?")), Trial(conversation(ASKED))]
    found = token_projections(loaded, trials, ["a bomb", "the ocean, or a bomb"], vector)
    hidden = []
    for trial, text in zip(trials, ["a bomb", "the ocean, or a bomb"], strict=True):
        prompt = list(prompt_ids(loaded.tokenizer, trial.messages))
        ids = prompt + loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            states = loaded.model(
                input_ids=torch.tensor([ids]), output_hidden_states=True
            ).hidden_states
        hidden.append((len(prompt), states[LAYER + 1][0]))
    center = torch.cat([h[n - 1 :] for n, h in hidden]).mean(0)
    for tokens, (n, h) in zip(found, hidden, strict=True):
        wanted = ((h[max(n - SHOWN, 0) :] - center) / loaded.norm) @ vector
        got = torch.tensor([token.signal for token in tokens])
        assert torch.allclose(got, wanted, atol=1e-4)


def test_nearest_concepts_are_those_with_the_largest_projection(loaded: LoadedModel) -> None:
    known = extract(loaded, ["ocean", "love", "bomb", "violin"], baseline=("house", "tree"))
    with_vectors = replace(loaded, vectors=known)
    vector = known["love"]
    trials = [Trial(conversation(ASKED), Injection(vector, 40.0)), Trial(conversation(ASKED))]
    tokens = token_projections(with_vectors, trials, ["a b c", "a b c"], vector)[0]
    assert all(token.nearest[0][0] == "love" for token in tokens if token.injected)
    assert all(len(token.nearest) == 3 for token in tokens)
    assert all(t.nearest[0][1] >= t.nearest[1][1] >= t.nearest[2][1] for t in tokens)


# --- where the vector enters, before the run ------------------------------------------------------


EVERY = "every answer token"


@pytest.mark.parametrize(
    ("schedule", "before", "after", "enters"),
    [
        ("final_on", "the last prompt token", EVERY, lambda at, n: at >= n - 1),
        ("final", "the last prompt token", "no answer token", lambda at, n: at == n - 1),
        ("all", "all {n} prompt tokens", EVERY, lambda at, _: at >= 0),
        ("from_step:5", "no prompt token", f"{EVERY} from number 5 on", lambda at, n: at >= n + 4),
        ("span:3-6", "4 prompt tokens", "no answer token", lambda at, _: 3 <= at <= 6),
        ("span:3-3", "one prompt token", "no answer token", lambda at, _: at == 3),
    ],
)
def test_the_page_shows_where_the_vector_enters(
    experiment: DemoModel, schedule: str, before: str, after: str, enters: Any
) -> None:
    count = len(prompt_ids(experiment.loaded.tokenizer, conversation(ASKED)))
    html = views.where(experiment, experiment.request("ocean", 1.0, ASKED, schedule))
    assert f"added at {before.format(n=count)} and {after} (" in html
    cells = [cell.split('"')[0].split() for cell in html.split('<span class="tok ')[1:]]
    shown = min(count, views.PROMPT_END) + views.SLOTS
    places = range(count + views.SLOTS)[-shown:]
    assert [("given" in cell, "in" in cell) for cell in cells[-shown:]] == [
        (at < count, bool(enters(at, count))) for at in places
    ]
    assert len(cells) == shown + (count > views.PROMPT_END)


def test_a_question_is_shown_as_text_where_the_vector_enters(experiment: DemoModel) -> None:
    html = views.where(experiment, experiment.request("ocean", 1.0, "Is <b>this</b> it?"))
    assert "<b>" not in html and "</b>" not in html
