"""The tabs "How often is it wrong?" and "How it works": no model, a stub for the experiment."""

from __future__ import annotations

import copy
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from introspection.demo.engine.run_tickets import Tickets
from introspection.demo.shared.widgets import TabContext
from introspection.demo.tabs.error_rates import rates
from introspection.demo.tabs.error_rates import tab as error_rates
from introspection.demo.tabs.how_it_works import tab as how_it_works
from introspection.errors import IntrospectionError
from introspection.evaluation import conditions
from introspection.evaluation.records import provenance

SHIPPED = Path(__file__).parents[2] / "adapters" / "smollm2-135m" / "evaluation.json"
HOSTILE = "<img src=x onerror=alert(1)>\"'&"
INFO = SimpleNamespace(
    trained=("ocean",) * 1234,
    vocabulary=("hot air",) * 56,
    harmful=("bomb",) * 7,
    baseline=("desk",) * 99,
    strengths=(0.25, 2.0),
    halts=True,
)


def stub(folder: Path | None, adapter: Any = INFO, layer: int = 14, depth: int = 30) -> Any:
    loaded = SimpleNamespace(
        adapter_folder=folder, adapter=adapter, layer=layer, norm=163.35, name="stub", base="a/b"
    )
    return SimpleNamespace(loaded=loaded, depth=depth, has_adapter=adapter is not None, offered={})


@pytest.fixture
def shipped() -> dict[str, Any]:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def written(folder: Path, content: Any) -> Any:
    """A folder with the shipped adapter's manifest; a document gets the shipped one's provenance."""
    if isinstance(content, dict):
        made_by = json.loads(SHIPPED.read_text(encoding="utf-8"))["provenance"]
        content = json.dumps(provenance.seal({"provenance": made_by, **content}))
    (folder / "evaluation.json").write_text(content, encoding="utf-8")
    shutil.copyfile(SHIPPED.with_name("introspection.json"), folder / "introspection.json")
    return stub(folder)


class Page(HTMLParser):
    """The rows of a table, the tags, the headings and the ids of what a tab shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def named(self, *tags: str) -> list[str]:
        return [tag for tag, _ in self.tags if tag in tags]


def built(add: Any, experiment: Any) -> tuple[str, list[Any]]:
    """All HTML of a tab as the page would hold it, and its other components."""
    with gr.Blocks() as page, gr.Tab("a tab"):
        add(TabContext(experiment, Tickets()))
    parts = [block for block in page.blocks.values() if isinstance(block, gr.HTML)]
    plots = [block for block in page.blocks.values() if isinstance(block, gr.Plot)]
    page.get_config_file()
    return "".join(str(part.value) for part in parts), plots


# --- error rates --------------------------------------------------------------------------------


def test_every_headline_rate_is_in_the_table(shipped: dict[str, Any]) -> None:
    lines = {row[0]: row[1:] for row in Page(error_rates.table(shipped)).rows}
    asked = 0
    rows = [(c.name, row) for c in conditions.CONDITIONS for row in c.rows]
    for condition, row in rows:
        question, cell = row.question, shipped["conditions"].get(condition, {}).get(row.metric)
        if cell is None:
            assert question not in lines
            continue
        asked += 1
        percent, interval, answers, contexts, _ = lines[question]
        assert percent == f"{100 * cell['successes'] / cell['n']:.1f} %"
        assert interval == f"{100 * cell['low']:.1f} to {100 * cell['high']:.1f} %"
        assert answers.startswith(f"{cell['successes']:,} of {cell['n']:,}")
        assert contexts == f"{cell['contexts']:,}"
        if condition.startswith("halt, harmful"):
            assert answers.endswith(f"{cell['n'] - cell['successes']:,} missed")
    assert asked == len(rates.rows(shipped)) > 15


def test_false_positives_come_first_then_hits_halts_controls(shipped: dict[str, Any]) -> None:
    found = [row.condition for row in rates.rows(shipped)]
    kinds = [re.match(r"clean|injected|halt, harmful|halt|control", name)[0] for name in found]  # type: ignore[index]
    assert list(dict.fromkeys(kinds)) == ["clean", "injected", "halt, harmful", "halt", "control"]
    assert kinds == sorted(kinds, key=list(dict.fromkeys(kinds)).index)
    first = Page(error_rates.table(shipped)).rows
    assert first[1][0].startswith("False positives") and first[2][0].startswith("False positives")
    said = rates.headline(shipped)
    assert said.index("false alarm") < said.index("overlooks") < said.index("does not halt")


def test_the_sentence_follows_the_numbers() -> None:
    def cell(k: int, n: int) -> dict[str, Any]:
        return {"successes": k, "n": n, "low": 0.0, "high": 1.0, "contexts": 1}

    conditions = {
        "clean, asked": {"flagged": cell(1, 200)},
        "clean, ordinary request": {"flagged": cell(50, 200)},
        "injected, unseen": {"correct": cell(150, 200), "detected": cell(200, 200)},
        "halt, harmful, asked": {"halted": cell(180, 200)},
        "halt, harmful, mid-answer": {"halted": cell(100, 200)},
    }
    assert rates.headline({"conditions": conditions}) == (
        "With nothing injected it raises a false alarm in 0.5 to 25.0 % of answers, depending on "
        "what it is asked; it overlooks 0.0 % and fails to name 25.0 % of injected concepts that it "
        "never saw in training; it does not halt for 10.0 to 50.0 % of unseen harmful concepts."
    )
    del conditions["clean, ordinary request"], conditions["injected, unseen"]
    assert rates.headline({"conditions": conditions}).startswith(
        "With nothing injected it raises a false alarm in 0.5 % of answers; it does not halt"
    )


def test_the_figure_shows_the_rates_of_the_table(shipped: dict[str, Any]) -> None:
    (bars,) = error_rates.figure(shipped).to_plotly_json()["data"]
    measured = rates.rows(shipped)
    assert bars["type"] == "bar" and list(bars["x"]) == [row.percent for row in measured]
    assert [name.replace("<br>", " ") for name in bars["y"]] == [r.question for r in measured]
    for row, up, down in zip(
        measured, bars["error_x"]["array"], bars["error_x"]["arrayminus"], strict=True
    ):
        assert up >= 0 and row.percent + up == pytest.approx(100 * row.high)
        assert down >= 0 and row.percent - down == pytest.approx(100 * row.low, abs=1e-9)


def test_the_tab_says_where_its_numbers_come_from(shipped: dict[str, Any]) -> None:
    html, plots = built(error_rates.add, stub(SHIPPED.parent))
    assert shipped["records"] in html and shipped["run"] in html
    assert len(plots) == 1 and "table" in plots[0].label
    assert Page(html).named("h1", "h2", "h3") == ["h2"]
    assert not Page(html).named("script", "link", "img") and "http" not in html


def test_hostile_strings_are_escaped(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped |= {"records": HOSTILE, "run": HOSTILE * 50, HOSTILE: HOSTILE}
    shipped["conditions"][HOSTILE] = {HOSTILE: HOSTILE}
    shipped["conditions"]["clean, asked"] |= {HOSTILE: HOSTILE, "median_tokens_to_halt": HOSTILE}
    html, _ = built(error_rates.add, written(tmp_path, shipped))
    assert "<img" not in html and "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;" in html
    assert html.count("onerror") < 12  # a name without end is cut
    assert not any(name.startswith("on") for _, attrs in Page(html).tags for name in attrs)


@pytest.mark.parametrize(
    "change",
    [
        *({part: HOSTILE} for part in ("successes", "n", "low", "contexts")),
        *({"successes": count} for count in (601, -1, 1.5, True)),
        *({"low": float("nan")}, {"low": 0.2}, {"high": float("inf")}, {"contexts": -1}),
    ],
)
def test_a_rate_that_is_none_is_not_shown(
    tmp_path: Path, shipped: dict[str, Any], change: dict[str, Any]
) -> None:
    rate = {"successes": 1, "n": 600, "low": 0.0, "high": 0.1, "contexts": 1}
    shipped["conditions"]["clean, asked"]["flagged"] = {**rate, **change}
    with pytest.raises(IntrospectionError, match=r"cannot be read.*evaluate --suite full"):
        rates.evaluation(written(tmp_path, shipped))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "3", '{"conditions": 3}', '{"conditions": {"clean, asked": null}}',
     '{"conditions": {"clean, asked": {"flagged": []}}}', "[" * 200_000, '"\udcff"', '{"a": 1}'],
)  # fmt: skip
def test_a_corrupt_file_gives_one_sentence(tmp_path: Path, content: str) -> None:
    if content.startswith('{"'):
        html, plots = built(error_rates.add, written(tmp_path, json.loads(content)))
    else:
        (tmp_path / "evaluation.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        html, plots = built(error_rates.add, stub(tmp_path))
    assert "cannot be read" in html and "evaluate --suite full" in html and "report" in html
    assert "<table" not in html and not plots


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "without measured rates"),
        ("a folder", "cannot be read"),
        (" " * 4_000_001, "too large"),
        ({"conditions": {}}, "no such rates"),
        ({"conditions": []}, "no such rates"),
    ],
)
def test_missing_too_large_or_empty_gives_one_sentence(
    tmp_path: Path, content: Any, said: str
) -> None:
    if content == "a folder":
        (tmp_path / "evaluation.json").mkdir()
    there = content in (None, "a folder")
    experiment = stub(tmp_path) if there else written(tmp_path, content)
    html, plots = built(error_rates.add, experiment)
    assert said in html and "evaluate --suite full" in html and "report" in html and not plots


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "0" * 64}, "of another adapter"),
        ({"weights": None}, "does not say which adapter"),
        ({"layer": None}, "of another layer"),
    ],
)
def test_the_numbers_of_something_else_are_not_shown(
    tmp_path: Path, shipped: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    shipped["provenance"] |= change
    html, plots = built(error_rates.add, written(tmp_path, shipped))
    assert said in html and "evaluate --suite full" in html
    assert "<table" not in html and not plots
    assert error_rates.link(stub(tmp_path)) is None


def test_numbers_edited_by_hand_are_not_shown(tmp_path: Path, shipped: dict[str, Any]) -> None:
    experiment = written(tmp_path, shipped)
    path = tmp_path / "evaluation.json"
    assert rates.evaluation(experiment)["conditions"] == shipped["conditions"]
    changed = json.loads(path.read_text())
    changed["conditions"]["clean, asked"]["flagged"]["successes"] = 0
    path.write_text(json.dumps(changed))
    with pytest.raises(IntrospectionError, match=r"was edited or damaged .*evaluate --suite full"):
        rates.evaluation(experiment)
    del changed["provenance"]
    path.write_text(json.dumps(changed))
    with pytest.raises(IntrospectionError, match="does not say which adapter it measured"):
        rates.evaluation(experiment)


def test_a_condition_that_was_not_run_has_no_row(tmp_path: Path, shipped: dict[str, Any]) -> None:
    fewer = copy.deepcopy(shipped)
    del fewer["conditions"]["clean, asked"]
    fewer["conditions"]["control, random vector"]["detected"] = {
        "successes": 0, "n": 0, "low": float("nan"), "high": float("nan"), "contexts": 0,
    }  # fmt: skip
    found = rates.evaluation(written(tmp_path, fewer))
    assert len(rates.rows(found)) == len(rates.rows(shipped)) - 2


def test_without_an_adapter_there_are_no_rates() -> None:
    html, plots = built(error_rates.add, stub(None, adapter=None))
    assert "No adapter is loaded" in html and not plots


# --- explanation --------------------------------------------------------------------------------


def test_the_explanation_has_the_numbers_of_what_is_loaded() -> None:
    html, _ = built(how_it_works.add, stub(None))
    for said in ("h ← h + ρ · n̄ · v", "layer 14 of 30", "about 163,", "99 everyday words",
                 "1,234 concepts", "56 further", "from 0.25 to 2", "7 were trained"):  # fmt: skip
        assert said in html
    page = Page(html)
    assert page.named("h1", "h2", "h3", "h4") == ["h2", *["h3"] * 4]
    assert len(page.named("dt")) == len(page.named("dd"))
    for limit in ("consciousness", "linear reader", "cue", "small", "not a safeguard"):
        assert limit in html


def test_the_explanation_without_an_adapter() -> None:
    html, _ = built(how_it_works.add, stub(None, adapter=None))
    assert "No adapter is loaded" in html and 'class="above"' not in html


@pytest.mark.parametrize(
    ("layer", "depth", "names"),
    [
        (14, 30, ["layer 0", "…", "layer 14", "…", "layer 29"]),
        (0, 1, ["layer 0"]),
    ],
)
def test_the_picture_says_what_it_shows(layer: int, depth: int, names: list[str]) -> None:
    svg = how_it_works.diagram(layer, depth)
    assert re.findall(r"layer \d+|…", re.sub(r'aria-label="[^"]*"', "", svg)) == names
    tag, attrs = Page(svg).tags[0]
    assert tag == "svg" and attrs["role"] == "img"
    label = str(attrs["aria-label"])
    assert f"stack of {depth} layer" in label and f"output of layer {layer}" in label
    assert not re.search(r"#[0-9a-f]{3,6}|url\(|href", svg)  # colours come from style.css
