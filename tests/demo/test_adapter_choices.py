"""The picker: several adapters on one model, and every run is that of one adapter alone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import gradio as gr
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError, ValidationError

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.adapter_choices import adapter_choices
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import RowAnswers, RunRequest
from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.page import build
from introspection.demo.server.launch import launch
from introspection.demo.shared import html
from introspection.demo.tabs.many import sweeps
from introspection.demo.tabs.try_it import export, replay
from introspection.demo.tabs.try_it import html as views
from introspection.demo.tabs.try_it.callbacks import Callbacks
from introspection.errors import IntrospectionError
from introspection.hub import client
from introspection.io.outputs import manifest
from introspection.models import loading
from introspection.models.adapters import adapter_info, multi_adapter
from introspection.models.loaded_model import LoadedModel, adapter_name, bundled_adapter
from introspection.models.presets import DEFAULT
from tests.support.page import SETTINGS, call
from tests.support.tab import Tab, free_port
from tests.support.tiny import hook_count
from tests.support.tiny_folder import (
    edit_json,
    edit_tensors,
    write_adapter,
    write_loud_adapter,
    write_model,
)

NAMES = ("first", "second")
SHA = "0123456789abcdef0123456789abcdef01234567"
BASE = "http://127.0.0.1:7860/"
WISHES = [
    (concept, strength, schedule)
    for concept in ("ocean", "never typed before", "bomb")
    for strength in (0.0, 2.0)
    for schedule in ("final_on", "from_step:5")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("picker") / "model")


@pytest.fixture(scope="module")
def folders(model: Path) -> dict[str, Path]:
    """Two adapters that differ in rank, layer and what they say of themselves."""
    first = write_loud_adapter(model.parent / "first", model, 3, layer=1, rank=4)
    second = write_loud_adapter(model.parent / "second", model, 4, layer=2, rank=2)
    edit_json(second / manifest.INFO, strengths=[3.0, 4.0], trained=["love"])
    return {"first": first, "second": second}


@pytest.fixture(scope="module")
def pair(model: Path, folders: dict[str, Path]) -> list[LoadedModel]:
    loaded = loading.load(str(model), folders["first"], device="cpu")
    return [loaded, multi_adapter.load_adapter(loaded, folders["second"])]


@pytest.fixture(scope="module")
def both(pair: list[LoadedModel]) -> DemoModel:
    return DemoModel(pair[0], pair[1:])


@pytest.fixture(scope="module")
def alone(model: Path, folders: dict[str, Path]) -> dict[str, DemoModel]:
    """The pages that have only the one or only the other."""
    return {
        name: DemoModel(loading.load(str(model), folder, device="cpu"))
        for name, folder in folders.items()
    }


def last(experiment: DemoModel, request: RunRequest) -> RowAnswers:
    *_, answers = experiment.stream(request)
    return answers


def wished(experiment: DemoModel, wish: tuple[str, float, str], name: str) -> RunRequest:
    concept, strength, schedule = wish
    return experiment.request(concept, strength, "Why?", schedule, 12, name)


@pytest.fixture(scope="module")
def expected(alone: dict[str, DemoModel]) -> dict[Any, RowAnswers]:
    return {
        (wish, name): last(alone[name], wished(alone[name], wish, name))
        for wish in WISHES
        for name in NAMES
    }


def lines_of(experiment: DemoModel, kind: str) -> list[dict[str, Any]]:
    plan = sweeps.plan(experiment, kind, experiment.request("ocean", 2.0))
    *_, answers = experiment.lines(plan, 8)
    return sweeps.rows(experiment, answers)


# --- every run is that of one adapter -----------------------------------------------------------


def test_the_two_differ_in_everything(pair: list[LoadedModel], expected: Any) -> None:
    first, second = pair
    assert (first.layer, second.layer) == (1, 2) and first.norm != second.norm
    assert first.model is second.model
    assert first.fingerprint_with_adapter != second.fingerprint_with_adapter
    wish = ("ocean", 2.0, "final_on")
    assert len({expected[wish, name][i].text for name in NAMES for i in range(3)}) >= 4


def test_answers_are_those_of_the_adapter_alone(both: DemoModel, expected: Any) -> None:
    """Texts, verdicts and what the reader finds (floats included), whatever was run before."""
    wishes = list(expected)
    random.Random(1).shuffle(wishes)
    for wish, name in wishes:
        assert last(both, wished(both, wish, name)) == expected[wish, name], (wish, name)
    first, second = (expected[("ocean", 0.0, "final_on"), name] for name in NAMES)
    assert first[1].text == second[1].text != first[0].text, "one untrained model under both"


@pytest.mark.slow
def test_many_threads_never_mix_adapters(
    both: DemoModel, alone: dict[str, DemoModel], expected: Any
) -> None:
    blocks = {name: lines_of(alone[name], "layer") for name in NAMES}
    assert blocks["first"] != blocks["second"]
    wishes = list(expected) * 2
    random.Random(2).shuffle(wishes)

    def visit(i: int) -> None:
        wish, name = wishes[i]
        if i % 12 == 0:  # a sweep moves the hook through the layers while it lasts
            assert lines_of(both.chosen(name), "layer") == blocks[name], name
        assert last(both, wished(both, wish, name)) == expected[wish, name], (wish, name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(len(wishes))))


def test_a_visitor_who_leaves_leaves_nothing_behind(
    both: DemoModel, pair: list[LoadedModel], expected: Any
) -> None:
    wish, hooks = WISHES[1], hook_count(pair[0].model)
    for name in ("second", "first", "second"):
        steps = both.stream(wished(both, wish, name))
        next(steps)
        steps.close()  # type: ignore[attr-defined]
        other = NAMES[name == "first"]
        assert last(both, wished(both, wish, other)) == expected[wish, other]
        assert [one.hooks is not None for one in pair] == [other == n for n in NAMES]
    assert hook_count(pair[0].model) == hooks


def test_vectors_of_typed_words_are_read_under_their_own_adapter(
    both: DemoModel, alone: dict[str, DemoModel]
) -> None:
    for one in both.offered.values():
        one.loaded.baselines.clear()
    last(both, wished(both, WISHES[0], "second"))  # the first one is not active now
    both.warm()
    for name, one in both.offered.items():
        theirs = alone[name].loaded
        theirs.vectors_of(["ocean"])
        ((words, (mean, norms)),) = one.loaded.baselines.items()
        kept_mean, kept_norms = theirs.baselines[words]
        assert torch.equal(mean, kept_mean) and torch.equal(norms, kept_norms), name


# --- a name is checked wherever it comes from ---------------------------------------------------


@pytest.mark.parametrize("name", ["third", "FIRST", f"second@{SHA}", 7])
def test_a_name_off_the_list_is_one_sentence(both: DemoModel, name: Any) -> None:
    visitor = gr.Request(session_hash="a")
    callbacks = Callbacks(both, Tickets(), lambda *_: "")
    begin_preset = callbacks.begin_preset("ocean", DEFAULT_QUESTION, "final_on")
    for ask in (
        lambda: both.request("ocean", 1.0, adapter=name),
        lambda: export.from_query(both.request, {"concept": "ocean", "adapter": name}),
        lambda: callbacks.begin(visitor, "ocean", *SETTINGS, name),
        lambda: begin_preset(visitor, 1.0, 40, name),
    ):
        with pytest.raises((IntrospectionError, gr.Error)) as error:
            ask()
        text = str(getattr(error.value, "message", error.value))
        assert text.endswith("choose one of first, second.") and "\n" not in text, text
    assert "choose one of first, second." in callbacks.describe("ocean", 1.0, name)


def test_without_a_choice_only_the_own_name_is_known(alone: dict[str, DemoModel]) -> None:
    one = alone["first"]
    for name in (None, "", "first"):
        assert one.request("ocean", 1.0, adapter=name) == one.request("ocean", 1.0)
    with pytest.raises(IntrospectionError, match=r"no adapter 'second' here: choose first\.$"):
        one.request("ocean", 1.0, adapter="second")


# --- links, programs, files ---------------------------------------------------------------------


def test_links_and_programs_name_the_adapter(both: DemoModel, alone: dict[str, DemoModel]) -> None:
    for name in NAMES:
        request = both.request("ocean", 1.0, adapter=name)
        query = dict(parse_qsl(urlsplit(export.link(BASE, request)).query))
        assert query["adapter"] == name and export.from_query(both.request, query) == request
        assert f"    adapter='{name}',\n" in export.as_python(BASE, request)
        assert f'"{DEFAULT_QUESTION}", "{name}"]' in export.as_curl(BASE, request)
    assert export.from_query(both.request, {"concept": "ocean"}) == both.request("ocean", 1.0)
    plain = alone["first"].request("ocean", 1.0)
    for text in (f(BASE, plain) for f in (export.link, export.as_python, export.as_curl)):
        assert "adapter" not in text


def test_a_link_fills_the_picker_or_is_refused(both: DemoModel) -> None:
    events = replay._Events(both, Tickets())

    def opened(**query: str) -> tuple[Any, ...]:
        found = events.open_link(SimpleNamespace(query_params=query))  # type: ignore[arg-type]
        assert len(found) == 7  # concept, four settings, adapter, verdict
        return found

    assert opened(concept="love", adapter="second")[:6] == (
        *("love", 1.0, DEFAULT_QUESTION, "final_on", 40, "second"),
    )
    assert opened(concept="love")[5] == "first"
    *form, verdict = opened(concept="love", adapter="third")
    assert form == [gr.skip()] * 6 and "choose one of first, second." in verdict
    assert opened() == (gr.skip(),) * 7


def test_a_file_says_which_adapter_answered(
    both: DemoModel, alone: dict[str, DemoModel], expected: Any
) -> None:
    wish = WISHES[1]
    for name in NAMES:
        request = wished(both, wish, name)
        text = export.as_json(both, request, expected[wish, name])
        theirs = alone[name]
        assert text == export.as_json(theirs, wished(theirs, wish, name), expected[wish, name])
        run = json.loads(text)
        assert (
            run["adapter_id"] == name and run["weights"] == theirs.loaded.fingerprint_with_adapter
        )
        assert run["seen_in_training"] == (name == "first")  # "ocean"
        asked, answers = export.from_json(both.request, text)
        assert asked == request and export.as_json(both, asked, answers) == text
        assert f"<code>{name}</code>" in views.stage(True, asked, answers)


def test_a_run_with_an_adapter_that_is_not_here_is_replayed(both: DemoModel, expected: Any) -> None:
    wish = WISHES[1]
    run = json.loads(export.as_json(both, wished(both, wish, "first"), expected[wish, "first"]))
    run["adapter_id"] = "<b>org</b>/lora@0123456789ab"
    asked, answers = export.from_json(both.request, json.dumps(run))
    assert "&lt;b&gt;org" in views.stage(True, asked, answers)
    with pytest.raises(IntrospectionError, match="choose one of"):
        last(both, asked)  # it is shown, and nothing is run with it
    for odd in (7, ["first"], "a\x00", "x" * 201):
        with pytest.raises(IntrospectionError, match="'adapter_id'"):
            export.from_json(both.request, json.dumps({**run, "adapter_id": odd}))


# --- the page -----------------------------------------------------------------------------------


def test_a_picker_only_where_there_is_a_choice(
    both: DemoModel, alone: dict[str, DemoModel]
) -> None:
    pages = {name: build(model) for name, model in (("both", both), ("one", alone["first"]))}
    pickers = {
        name: [
            c["props"] for c in page.config["components"] if c["props"].get("elem_id") == "adapter"
        ]
        for name, page in pages.items()
    }
    (picker,) = pickers["both"]
    assert picker["label"] == "Adapter" and picker["value"] == "first"
    assert [value for _, value in picker["choices"]] == [*NAMES]
    assert "2 adapters to choose from" in html.header(both)
    assert not pickers["one"]
    assert "injected at layer 1 · adapter first</p>" in html.header(alone["first"])
    assert "adapter" not in views.badges(
        alone["first"], alone["first"].request("ocean", 1.0), "ocean"
    )


def test_the_badges_are_those_of_the_chosen_adapter(both: DemoModel) -> None:
    callbacks = Callbacks(both, Tickets(), lambda *_: "")
    first = callbacks.describe("ocean", 1.0, "first")
    second = callbacks.describe("ocean", 1.0, "second")
    assert "adapter first, layer 1" in first and "adapter second, layer 2" in second
    assert "seen in training" in first and "never seen in training" in second
    assert "below the trained range" in second and "trained range" not in first


# --- the allow-list -----------------------------------------------------------------------------


def bad_folders(tmp: Path, model: Path, good: Path) -> dict[str, str]:
    """Entries of the allow-list that cannot be offered, and a part of what is said of each."""
    other = write_model(tmp / "other model", seed=9)
    write_adapter(tmp / "foreign", other)

    def spoilt(name: str, change: Any) -> str:
        shutil.copytree(good, tmp / name)
        edit_tensors(tmp / name / manifest.WEIGHTS, change)
        adapter_info.refresh_manifest(tmp / name)
        return str(tmp / name)

    short = spoilt("short", lambda state: dict(list(state.items())[:-1]))
    broken = spoilt("broken", lambda state: {k: v / 0 for k, v in state.items()})
    for name in ("unread", "damaged", "elsewhere"):
        shutil.copytree(good, tmp / name)
    (tmp / "unread" / manifest.INFO).unlink()
    with (tmp / "damaged" / manifest.WEIGHTS).open("ab") as file:
        file.write(b"x")
    edit_json(tmp / "elsewhere" / manifest.INFO, layer=0)
    return {
        str(tmp / "foreign"): "was trained for tiny, not for",
        short: "does not fit this model",
        broken: "NaN or infinite",
        str(tmp / "unread"): "was not made by this program",
        str(tmp / "damaged"): "is damaged or was changed",
        str(tmp / "elsewhere"): "belong to layer 2",
        str(tmp / "nowhere"): "neither an adapter folder nor a Hub repository at a commit",
        "org/lora": "40 digits",
        "org/lora@main": "40 digits",
        f"org/lora@{SHA[:12]}": "40 digits",
        str(model.parent / "first"): "offered under the name of",
    }


def test_what_does_not_fit_is_left_out_with_a_sentence(
    tmp_path: Path, model: Path, folders: dict[str, Path], expected: Any
) -> None:
    loaded = loading.load(str(model), folders["first"], device="cpu")
    before = [name for name, _ in loaded.model.named_modules()], hook_count(loaded.model)
    bad = bad_folders(tmp_path, model, folders["second"])
    for entry, told in adapter_choices(list(bad), loaded):
        assert isinstance(told, str) and bad[entry] in told, (entry, told)
        assert told.endswith(".") and "\n" not in told
        after = [name for name, _ in loaded.model.named_modules()], hook_count(loaded.model)
        assert after == before, entry
    wish = WISHES[1]
    one = DemoModel(loaded)
    assert last(one, wished(one, wish, "first")) == expected[wish, "first"]
    # And what fits is offered after all of them.
    ((_, other),) = adapter_choices([str(folders["second"])], loaded)
    assert isinstance(other, LoadedModel)
    two = DemoModel(loaded, [other])
    for name in NAMES:
        assert last(two, wished(two, wish, name)) == expected[wish, name]


def test_nothing_is_offered_beside_the_untrained_model(
    model: Path, folders: dict[str, Path]
) -> None:
    bare = loading.load(str(model), None, layer=1, device="cpu")
    ((_, told),) = adapter_choices([str(folders["second"])], bare)
    assert isinstance(told, str) and "INTROSPECTION_ADAPTER" in told


def test_an_adapter_of_the_hub_is_named_with_its_revision(
    tmp_path: Path, model: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path))
    home = tmp_path / "adapters" / "org" / "lora-1.0" / SHA
    shutil.copytree(folders["second"], home)
    monkeypatch.setattr(client, "connect", lambda _: pytest.fail("it is here already"))
    loaded = loading.load(str(model), folders["first"], device="cpu")
    ((_, other),) = adapter_choices([f"org/lora-1.0@{SHA}"], loaded)
    assert isinstance(other, LoadedModel) and other.adapter_name == f"org/lora-1.0@{SHA[:12]}"
    assert DemoModel(loaded, [other]).names == ("first", other.adapter_name)


def test_the_adapter_that_ships_is_named_so() -> None:
    folder = bundled_adapter(DEFAULT)
    if folder is None:
        pytest.skip("needs adapters/smollm2-135m")
    assert adapter_name(folder, DEFAULT) == "smollm2-135m (shipped)"
    assert adapter_name(folder, "another") == "smollm2-135m"
    assert adapter_name(Path("odd\x07\udc80\u202ename"), "another") == "odd???name"


# --- through the server -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(pair: list[LoadedModel]) -> Iterator[gr.Blocks]:
    page = launch(pair[0], "127.0.0.1", free_port(), block=False, others=pair[1:], quiet=True)
    yield page
    page.close()


@pytest.mark.slow
def test_endpoints_take_an_adapter_and_need_none(
    page: gr.Blocks, alone: dict[str, DemoModel]
) -> None:
    url = page.local_url.rstrip("/")
    client = Client(url, verbose=False, analytics_enabled=False)
    assert client.predict(api_name="/health")["adapters"] == [*NAMES]
    found = {}
    for name in NAMES:
        one = alone[name]
        request = one.request("ocean", 2.0)
        theirs = [row["text"] for row in one.record(request, last(one, request))["rows"]]
        run = client.predict("ocean", 2.0, adapter=name, api_name="/compare")
        assert [row["text"] for row in run["rows"]] == theirs
        report = client.predict("ocean", 2.0, adapter=name, api_name="/report")
        assert report["text"] == theirs[0] and report["adapter_id"] == name
        assert report["block"] == one.loaded.layer
        (swept,) = client.predict("ocean", [2.0], adapter=name, api_name="/sweep")
        assert swept["text"] == theirs[0]
        listed = client.predict(name, api_name="/concepts")
        seen = {c["name"] for c in listed if c["seen_in_training"]}
        assert ("ocean" in seen) == (name == "first")
        found[name] = run
    # Whoever knows nothing of adapters, by HTTP or with the client, gets the first.
    assert call(url, ["ocean", 2.0, DEFAULT_QUESTION]) == ("complete", [found["first"]])
    assert call(url, ["ocean", 2.0]) == ("complete", [found["first"]])
    assert client.predict("ocean", 2.0, api_name="/compare") == found["first"]
    for endpoint in ("/compare", "/report", "/sweep"):
        dose: Any = [2.0] if endpoint == "/sweep" else 2.0
        with pytest.raises(
            ValidationError, match="no adapter 'third' here: choose one of first, second"
        ):
            client.predict("ocean", dose, adapter="third", api_name=endpoint)
    with pytest.raises(AppError, match="choose one of first, second"):
        client.predict("third", api_name="/concepts")
    for odd in (7, True, ["first"], {}):
        event, told = call(url, ["ocean", 2.0, DEFAULT_QUESTION, odd])
        assert event == "refused" and "must be text" in told["adapter"], odd


@pytest.mark.slow
def test_the_other_tabs_ask_the_chosen_adapter(
    page: gr.Blocks, alone: dict[str, DemoModel]
) -> None:
    visitor = Tab(page)
    tables = {}
    for name in NAMES:
        asked = ["controls", "ocean", 2.0, "", name]
        ticket = visitor.call("begin_lines", *asked)[0]
        tables[name] = visitor.call("run_lines", ticket, *asked)[1]
        report = lines_of(alone[name], "controls")[0]["text"]
        assert report and report[:20] in tables[name]
    assert tables["first"] != tables["second"]
    for event, sent in (
        ("begin_lines", ["controls", "ocean", 2.0, "", "third"]),
        ("begin_blind", [None, "third"]),
    ):
        with pytest.raises(AppError, match="choose one of first, second"):
            visitor.call(event, *sent)
    visitor.call("begin_blind", None, "second")
    assert "blind" in str(visitor.call("run_blind", None))
