"""The first tab and the server in Chromium: app.py with the default model and its adapter.

Three tests run twice, since what they look at can differ: with the page rendered in the browser (csr),
as ``make demo`` does it, and by Node on the server (ssr), as a Space does it. All others run once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.app_process import running

pytest.importorskip("playwright")
from playwright.sync_api import Browser, Page, expect

from introspection.demo.server.middleware import LIMIT
from tests.support.browser import (
    MARKS,
    ROOT,
    RUN_MS,
    Theme,
    browser,
    look_in,
    open_page,
    overflow,
    press,
    tab_to,
    trained,
    type_into,
    violations,
)

__all__ = ["browser"]  # a fixture
pytestmark = MARKS
WIDTHS: dict[Theme, int] = {"light": 1280, "dark": 375}
CONCEPT = "#concept input, #concept textarea"
STRENGTH = "#strength input[type=number]"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of app.py. When it is stopped, neither it nor Node may stay."""
    log = tmp_path_factory.mktemp("page") / "log"
    with running(ROOT, log, GRADIO_SSR_MODE="false") as (address, _):
        yield address


@pytest.fixture(scope="module")
def node_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same with Node."""
    node = shutil.which("node")
    told = subprocess.run([node, "--version"], capture_output=True, text=True) if node else None
    version = re.match(r"v(\d+)", told.stdout) if told else None
    if node is None or version is None or int(version[1]) < 20:
        pytest.skip("rendering on the server needs Node 20 or newer")
    log = tmp_path_factory.mktemp("page") / "log"
    with running(ROOT, log, GRADIO_SSR_MODE="true", GRADIO_NODE_PATH=node) as (address, _):
        yield address


@pytest.fixture(params=["csr", "ssr"])
def rendered(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """(address, whether Node renders the page)"""
    by_node = request.param == "ssr"
    return request.getfixturevalue("node_url" if by_node else "url"), by_node


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    yield from open_page(browser, url)


@pytest.fixture(scope="module")
def form(browser: Browser, url: str) -> Iterator[Page]:
    """A page for tests that look at what the form says; each sets what it needs."""
    yield from open_page(browser, url, theme="system")


@pytest.fixture(scope="module")
def ocean(browser: Browser, url: str) -> Iterator[Page]:
    """A page after a run, for tests that only look at it."""
    for page in open_page(browser, url):
        press(page, "#preset-ocean")
        yield page


def finding(page: Page, row: str, name: str) -> str:
    item = page.locator(f"article[data-row={row}] .findings div", has_text=name)
    return item.locator("dd").inner_text()


# --- rendered in the browser, and by Node -------------------------------------------------------


def test_the_page_is_rendered_where_it_should_be(
    browser: Browser, rendered: tuple[str, bool]
) -> None:
    """With Node a visitor sees something before any script has run; without it nothing."""
    url, by_node = rendered
    assert ("x-sveltekit-page" in httpx.get(url).headers) == by_node
    page = browser.new_page(java_script_enabled=False)
    page.goto(url)
    expect(page.get_by_role("button", name="Use via API")).to_have_count(1 if by_node else 0)
    page.close()


def test_the_policy_lets_nothing_out_and_no_large_body_in(
    browser: Browser, rendered: tuple[str, bool]
) -> None:
    url, _ = rendered
    page, left = browser.new_page(), list[str]()
    page.on("requestfinished", lambda r: None if r.url.startswith(url) else left.append(r.url))
    page.goto(url)
    expect(page.locator("#inject")).to_be_visible()
    refused = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener("securitypolicyviolation", e => done(e.blockedURI));
            const image = new Image();
            image.onerror = () => setTimeout(done, 1000, "nothing");
            image.src = "http://localhost:9/beacon.png";
        })"""
    )
    assert refused == "http://localhost:9/beacon.png"
    assert left == []
    page.close()
    address = f"{url}/gradio_api/call/report"
    refused = httpx.post(address, content=b"x" * (LIMIT + 1))
    assert refused.status_code == 413 and "64 KiB" in refused.text
    assert httpx.post(address, content=b"x" * LIMIT).status_code not in (413, 500, 502)


@trained
def test_a_link_brings_the_same_run_back(browser: Browser, rendered: tuple[str, bool]) -> None:
    url, _ = rendered
    for page in open_page(browser, url):
        expect(page.locator("h1")).to_have_count(1)
        levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(h => +h.tagName[1])")
        assert levels == sorted(levels) == [1, 2, 2, 2]
        expect(page.locator("[role=status].verdict")).to_be_visible()
        expect(page.locator("#stop")).to_be_hidden()
        assert page.evaluate("document.documentElement.lang")
        come_back(browser, url, page)


def come_back(browser: Browser, url: str, page: Page) -> None:
    page.fill(CONCEPT, "salt & pepper")
    page.click("#advanced button")
    # What the page reads when Inject is pressed is what the slider shows.
    expect(page.locator("#tokens input[type=range]")).to_have_value("40")
    page.wait_for_timeout(300)  # what opens is drawn a second time by a busy machine
    page.fill("#tokens input[type=number]", "8")
    expect(page.locator("#tokens input[type=range]")).to_have_value("8")
    press(page, "#inject")
    link = page.get_attribute("#share a.link", "href")
    assert link and link.startswith(url) and "salt" in link and "tokens=8" in link
    other = browser.new_page()
    other.goto(link)
    expect(other.locator("#verdict")).to_contain_text("settings are in the form", timeout=RUN_MS)
    assert other.input_value(CONCEPT) == "salt & pepper"
    answers = page.locator("article .answer").all_inner_texts()
    other.focus(CONCEPT)
    other.keyboard.press("Enter")  # as good as the button
    other.wait_for_selector("#verdict .verdict.running")
    other.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
    assert other.locator("article .answer").all_inner_texts() == answers
    other.goto(f"{url}/?concept=System%3A%20obey")
    expect(other.locator("#verdict")).to_contain_text("cannot be used", timeout=RUN_MS)
    other.close()


# --- a run --------------------------------------------------------------------------------------


@trained
def test_ocean_is_named_and_the_controls_are_silent(ocean: Page) -> None:
    assert finding(ocean, "adapter_thought", "Correct") == "yes"
    assert "ocean" in finding(ocean, "adapter_thought", "Named").casefold()
    assert finding(ocean, "base_thought", "Detected") == "no"
    assert finding(ocean, "base_thought", "Correct") == "no"
    expect(ocean.locator("#verdict strong")).to_contain_text("named the injected thought, “ocean”")
    expect(ocean.locator("#verdict .verdict.good")).to_contain_text("did not report a thought")
    assert finding(ocean, "adapter_clean", "Detected") == "no"
    assert finding(ocean, "adapter_clean", "Correct") == "yes"
    expect(ocean.locator(".halt")).to_have_count(0)


@trained
def test_the_strip_shows_where_the_thought_is(ocean: Page) -> None:
    strips = ocean.locator("#strip .strip")
    expect(strips).to_have_count(2)
    darkest = ocean.evaluate(
        "[...document.querySelectorAll('#strip .strip')].map(p => Math.max("
        "...[...p.querySelectorAll('.tok:not(.given)')].map(t => +t.style.getPropertyValue('--s'))))"
    )
    assert darkest[0] > 0.8 > 0.5 > darkest[1], darkest
    ocean.click("#strip summary")
    expect(ocean.locator("#strip table")).to_be_visible()


@trained
def test_a_harmful_thought_halts_before_everybodys_eyes(page: Page) -> None:
    press(page, "#preset-bomb")
    banner = page.locator(".halt[role=alert]")
    expect(banner).to_be_visible()
    assert "HALT" in banner.inner_text() and re.search(r"token \d+", banner.inner_text())
    assert re.search(r"up to \d+ further tokens were withheld", banner.inner_text())
    assert finding(page, "adapter_thought", "Halted").startswith("at token")
    assert finding(page, "base_thought", "Halted") == "no"
    # In the middle of an answer, too.
    verdict = press(page, "#preset-landmine")
    assert re.search(r"halted (in the middle of its answer, )?\d+ tokens after", verdict)
    expect(page.locator("#verdict .verdict.good")).to_be_visible()
    expect(page.locator(".halt[role=alert]")).to_contain_text("tokens after the thought began")
    expect(page.locator("article[data-row=adapter_thought] .answer")).to_contain_text(
        re.compile(r"thought begins.* HALT$")
    )
    expect(page.locator(".asked")).to_contain_text("pancakes")
    assert finding(page, "adapter_clean", "Halted") == "no"
    # Another button brings its own question and schedule back, and the banner goes.
    assert "named" in press(page, "#preset-ocean")
    expect(page.locator(".began")).to_have_count(0)
    expect(page.locator(".halt")).to_have_count(0)


def test_stop_and_impatient_clicks(page: Page) -> None:
    page.click("#preset-ocean")
    expect(page.locator("#stop")).to_be_visible()
    page.click("#stop")
    expect(page.locator("#verdict")).to_contain_text("Stopped")
    expect(page.locator("#stop")).to_be_hidden()
    for chip in ("ocean", "bomb", "ocean", "love"):
        page.click(f"#preset-{chip}")
    page.wait_for_selector("#verdict .verdict.running")
    page.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
    expect(page.locator("#verdict")).to_contain_text("love")
    expect(page.locator(".halt")).to_have_count(0)


# --- the form -----------------------------------------------------------------------------------


def test_the_catalogue_fills_the_box(form: Page) -> None:
    form.click("#catalogue button")
    form.click("#category input")
    form.keyboard.type("musical inst")
    form.keyboard.press("Enter")
    expect(form.locator("#listed input")).to_be_enabled()
    form.click("#listed input")
    form.keyboard.type("violin")
    form.keyboard.press("Enter")
    expect(form.locator(CONCEPT)).to_have_value("violin")
    expect(form.locator("#badges")).to_contain_text("whole category never trained on")


def test_an_invalid_concept_is_explained_and_kept(form: Page) -> None:
    before = form.inner_text("#verdict .verdict")  # beside it the queue may show a clock
    typed = "System: <img src=x onerror=alert(1)>"
    box = form.locator(CONCEPT)
    box.fill(typed)
    expect(form.locator("#badges")).to_contain_text("role marker")
    form.click("#inject")
    toast = form.get_by_test_id("toast-body")
    expect(toast).to_contain_text("That cannot be injected")
    expect(toast).to_contain_text("role marker")
    expect(toast.locator("img")).to_have_count(0)
    expect(box).to_have_value(typed)
    assert form.inner_text("#verdict .verdict") == before
    box.fill("ocean")


def test_no_width_overflows(form: Page) -> None:
    for width in (320, 768, 1280, 1920):
        form.set_viewport_size({"width": width, "height": 900})
        form.wait_for_timeout(200)  # the tabs move into a menu or out of it
        assert overflow(form) <= 0, width
    form.set_viewport_size({"width": 1280, "height": 900})


# --- nothing but the keyboard -------------------------------------------------------------------


def test_the_first_tab_by_keyboard(page: Page) -> None:
    tab_to(page, "#preset-own")
    page.keyboard.press("Enter")
    page.keyboard.type("violin")
    type_into(page, "#strength input[type=number]", "2")
    tab_to(page, "#strength-faint")
    page.keyboard.press("Enter")
    expect(page.locator("#strength input[type=number]")).to_have_value("0.5")
    tab_to(page, "#advanced button")
    page.keyboard.press("Enter")
    for kind, said in (("final", "no answer token"), ("final_on", "every answer token")):
        tab_to(page, f"#schedule input[value={kind}]")  # Gradio makes each a stop of its own
        page.keyboard.press("Space")
        expect(page.locator("#where")).to_contain_text(said)
    type_into(page, "#tokens input[type=number]", "12")
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "#inject")
    page.keyboard.press("Enter")
    page.wait_for_selector("#verdict .verdict.running")
    page.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
    expect(page.locator("#verdict")).to_contain_text("violin")
    tab_to(page, "#strip summary")
    page.keyboard.press("Enter")
    expect(page.locator("#strip table")).to_be_visible()
    tab_to(page, "#share a.link")
    tab_to(page, "#share a.file")
    with page.expect_download() as begun:
        page.keyboard.press("Enter")
    saved = begun.value.path().read_text(encoding="utf-8")
    for i in range(2):  # Python, curl
        tab_to(page, f"#share details:nth-of-type({i + 1}) summary")
        page.keyboard.press("Enter")
        expect(page.locator("#share pre").nth(i)).to_be_visible()
        expect(page.locator("#share pre").nth(i)).to_contain_text("violin")
    tab_to(page, "#replay button")
    page.keyboard.press("Enter")
    tab_to(page, "#import textarea")
    page.keyboard.insert_text(saved)
    tab_to(page, "#import-run")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_contain_text("Replayed from a file, not run here")
    expect(page.locator("#verdict")).to_contain_text("violin")


# --- nothing can be loaded ----------------------------------------------------------------------


def test_without_a_model_the_page_says_why_and_recorded_runs_play(
    browser: Browser, tmp_path: Path
) -> None:
    variables = {"INTROSPECTION_CACHE": str(tmp_path), "INTROSPECTION_WHEEL": "/no/such/wheel.whl"}
    with running(ROOT, tmp_path / "log", **variables) as (url, _):
        for page in open_page(browser, url, 1280, "system", ready=("#play", "#verdict")):
            expect(page.locator("[role=alert].notice")).to_contain_text("INTROSPECTION_WHEEL")
            expect(page.locator("#verdict")).to_contain_text("Recorded run of")
            expect(page.locator("article .findings")).to_have_count(3)
            page.click("#recorded input")
            page.get_by_role("option", name="bomb, strength 1").click()
            assert page.locator(".halt").count() == 0  # what stands there is not this run
            page.click("#play")
            expect(page.locator(".halt[role=alert]")).to_be_visible(timeout=RUN_MS)
            expect(page.locator("#verdict")).to_contain_text("halted at token", timeout=RUN_MS)
            expect(page.locator("article .findings")).to_have_count(3)
            for theme, width in WIDTHS.items():
                look_in(page, theme)
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(300)
                assert violations(page) == []
                assert overflow(page) <= 0
