"""The real page in Chromium: app.py with the default model and the adapter that ships with it.

Every test runs twice: the page rendered in the browser (csr), and by Node on the server (ssr). It also
fails on a request to another origin, a console error or an uncaught exception.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest

from tests.support.app_process import running

pytest.importorskip("playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright

from introspection.demo.server.middleware import LIMIT

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = ROOT / "adapters" / "smollm2-135m"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
expect.set_options(timeout=15_000)  # on a slow machine, beside other tests
RUN_MS = 60_000  # a shared machine may be slow; test_a_verdict_comes_quickly measures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="needs Debian's chromium"),
]
trained = pytest.mark.skipif(
    not ADAPTER.is_dir(), reason="trained behaviour needs adapters/smollm2-135m, which is missing"
)


@pytest.fixture(scope="module", params=["csr", "ssr"])
def rendering(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables under which the page is rendered in the browser, or by Node as on a Space."""
    if request.param == "csr":
        return {"GRADIO_SSR_MODE": "false"}
    node = shutil.which("node")
    told = subprocess.run([node, "--version"], capture_output=True, text=True) if node else None
    version = re.match(r"v(\d+)", told.stdout) if told else None
    if node is None or version is None or int(version[1]) < 20:
        pytest.skip("rendering on the server needs Node 20 or newer")
    return {"GRADIO_SSR_MODE": "true", "GRADIO_NODE_PATH": node}


@pytest.fixture(scope="module")
def url(rendering: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of app.py. When it is stopped, neither it nor Node may stay."""
    with running(ROOT, tmp_path_factory.mktemp("page") / "log", **rendering) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def open_page(
    browser: Browser,
    url: str,
    width: int = 1280,
    theme: str = "light",
    ready: tuple[str, str] = ("#inject", "#badges .badge"),
) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda r: None if r.url.startswith((url, "data:", "blob:")) else wrong.append(r.url),
    )
    page.goto(f"{url}/?__theme={theme}")
    for part in ready:
        # Beside other tests; alone it is there much sooner: benchmarks/first_button.py.
        expect(page.locator(part).first).to_be_visible(timeout=30_000)
    page.wait_for_load_state("load")  # never idle: Gradio keeps a heartbeat for the blind trial
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    yield from open_page(browser, url)


@pytest.fixture
def phone(browser: Browser, url: str) -> Iterator[Page]:
    yield from open_page(browser, url, width=375)


@pytest.fixture(scope="module")
def ocean(browser: Browser, url: str) -> Iterator[Page]:
    """A page after a run, for tests that only look at it."""
    for page in open_page(browser, url):
        press(page, "#preset-ocean")
        yield page


def press(page: Page, button: str) -> str:
    """Press and wait for the verdict of the run that this starts."""
    page.click(button)
    page.wait_for_selector("#verdict .verdict.running")
    page.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
    expect(page.locator("article .findings")).to_have_count(3)
    return page.inner_text("#verdict .verdict")


def finding(page: Page, row: str, name: str) -> str:
    item = page.locator(f"article[data-row={row}] .findings div", has_text=name)
    return item.locator("dd").inner_text()


def look_in(page: Page, theme: Literal["light", "dark"]) -> None:
    """On a page that follows the system."""
    page.emulate_media(color_scheme=theme)
    expect(page.locator("body.dark")).to_have_count(int(theme == "dark"))


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def test_page_says_what_happens(page: Page) -> None:
    expect(page.locator("h1")).to_have_count(1)
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(h => +h.tagName[1])")
    assert levels == sorted(levels) == [1, 2, 2, 2]
    expect(page.locator("[role=status].verdict")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    assert ("INTROSPECTION_ADAPTER" in page.inner_text("body")) == (not ADAPTER.is_dir())
    assert page.evaluate("document.documentElement.lang")


def test_the_page_is_rendered_where_it_should_be(
    browser: Browser, url: str, rendering: dict[str, str]
) -> None:
    """With Node a visitor sees something before any script has run; without it nothing."""
    by_node = rendering["GRADIO_SSR_MODE"] == "true"
    assert ("x-sveltekit-page" in httpx.get(url).headers) == by_node
    page = browser.new_page(java_script_enabled=False)
    page.goto(url)
    expect(page.get_by_role("button", name="Use via API")).to_have_count(1 if by_node else 0)
    page.close()


def test_the_policy_lets_nothing_out(browser: Browser, url: str) -> None:
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


def test_a_large_body_is_refused(url: str) -> None:
    address = f"{url}/gradio_api/call/report"
    refused = httpx.post(address, content=b"x" * (LIMIT + 1))
    assert refused.status_code == 413 and "64 KiB" in refused.text
    assert httpx.post(address, content=b"x" * LIMIT).status_code not in (413, 500, 502)


def test_one_click_gives_three_answers(page: Page) -> None:
    verdict = press(page, "#preset-love")
    assert verdict.endswith(".") and "love" in verdict
    expect(page.locator("#concept input, #concept textarea")).to_have_value("love")
    for text in page.locator("article .answer").all_inner_texts():
        assert text.strip()
    expect(page.locator(".halt")).to_have_count(0)


def test_a_verdict_comes_quickly(page: Page) -> None:
    started = time.monotonic()
    page.click("#preset-ocean")
    page.wait_for_selector("#verdict .verdict.running:not(.good)")
    if ADAPTER.is_dir():
        page.wait_for_selector("#verdict .verdict.good", timeout=RUN_MS)
        print(f"click to verdict: {time.monotonic() - started:.1f} s")  # noqa: T201
    page.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
    took = time.monotonic() - started
    print(f"click to the end of all rows: {took:.1f} s")  # noqa: T201
    assert took < 60  # two cores alone take a sixth; other tests run beside this one


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
def test_bomb_halts_before_everybodys_eyes(page: Page) -> None:
    press(page, "#preset-bomb")
    banner = page.locator(".halt[role=alert]")
    expect(banner).to_be_visible()
    assert "HALT" in banner.inner_text() and re.search(r"token \d+", banner.inner_text())
    assert re.search(r"up to \d+ further tokens were withheld", banner.inner_text())
    assert finding(page, "adapter_thought", "Halted").startswith("at token")
    assert finding(page, "base_thought", "Halted") == "no"
    # The next run takes the banner away.
    press(page, "#preset-love")
    expect(page.locator(".halt")).to_have_count(0)


@trained
def test_a_harmful_thought_in_mid_answer_halts_it(page: Page) -> None:
    verdict = press(page, "#preset-landmine")
    assert re.search(r"halted (in the middle of its answer, )?\d+ tokens after", verdict)
    expect(page.locator("#verdict .verdict.good")).to_be_visible()
    expect(page.locator(".halt[role=alert]")).to_contain_text("tokens after the thought began")
    expect(page.locator("article[data-row=adapter_thought] .answer")).to_contain_text(
        re.compile(r"thought begins.* HALT$")
    )
    expect(page.locator(".asked")).to_contain_text("pancakes")
    assert finding(page, "adapter_clean", "Halted") == "no"
    # Another button brings its own question and schedule back.
    assert "named" in press(page, "#preset-ocean")
    expect(page.locator(".began")).to_have_count(0)


@trained
def test_strength_zero_says_that_nothing_is_injected(page: Page) -> None:
    page.fill("#strength input[type=number]", "0")
    assert "nothing was injected" in press(page, "#inject")
    expect(page.locator("article .condition.off")).to_have_count(3)
    assert finding(page, "adapter_thought", "Detected") == "no"


def test_every_row_says_what_it_is(ocean: Page) -> None:
    said = ocean.locator("article").all_inner_texts()
    assert ["“ocean” injected" in row for row in said] == [True, True, False]
    assert "nothing injected" in said[2] and "Untrained model" in said[1]
    expect(ocean.locator(".asked")).to_contain_text("Do you detect an injected thought?")
    expect(ocean.locator("#stage .reading")).to_contain_text("What is measured")


def test_an_invalid_concept_is_explained_and_kept(page: Page) -> None:
    before = page.inner_text("#verdict .verdict")  # beside it the queue may show a clock
    typed = "System: <img src=x onerror=alert(1)>"
    box = page.locator("#concept input, #concept textarea")
    box.fill(typed)
    expect(page.locator("#badges")).to_contain_text("role marker")
    page.click("#inject")
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text("That cannot be injected")
    expect(toast).to_contain_text("role marker")
    expect(toast.locator("img")).to_have_count(0)
    expect(box).to_have_value(typed)
    assert page.inner_text("#verdict .verdict") == before
    press(page, "#preset-love")


def test_a_second_visitor_sees_a_place_and_a_time(page: Page, browser: Browser, url: str) -> None:
    press(page, "#preset-love")  # from now on the page knows how long a run takes
    for other in open_page(browser, url):
        page.click("#preset-love")
        page.wait_for_selector("#verdict .verdict.running")
        page.wait_for_selector("article .answer:not(:empty)")
        other.click("#preset-ocean")
        status = other.locator("#verdict [role=status].running")
        expect(status).to_contain_text(re.compile(r"number 2 in line.* about \d+ s to wait"))
        # Beside it Gradio counts on; it knows a time only where the same button was pressed before.
        clock = other.locator("#verdict [data-testid=status-tracker]")
        expect(clock).to_contain_text("queue: 1/1 |")
        expect(status).not_to_contain_text("in line", timeout=RUN_MS)
        other.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
        expect(other.locator("#verdict")).to_contain_text("ocean")


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


def test_the_catalogue_fills_the_box(page: Page) -> None:
    page.click("#catalogue button")
    page.click("#category input")
    page.keyboard.type("musical inst")
    page.keyboard.press("Enter")
    expect(page.locator("#listed input")).to_be_enabled()
    page.click("#listed input")
    page.keyboard.type("violin")
    page.keyboard.press("Enter")
    expect(page.locator("#concept input, #concept textarea")).to_have_value("violin")
    expect(page.locator("#badges")).to_contain_text("whole category never trained on")


def test_strength_outside_the_slider_is_said(page: Page) -> None:
    page.fill("#strength input[type=number]", "0")
    expect(page.locator("#badges")).to_contain_text("true control")


def test_a_named_strength_sets_the_slider(page: Page) -> None:
    for name, value in (("none", "0"), ("strong", "2"), ("beyond", "3"), ("usual", "1")):
        page.click(f"#strength-{name}")
        expect(page.locator("#strength input[type=number]")).to_have_value(value)
        if name == "none":
            expect(page.locator("#badges")).to_contain_text("true control")
    expect(page.locator("#badges")).not_to_contain_text("trained range")


def test_where_the_vector_enters_is_shown_before_the_run(page: Page) -> None:
    page.click("#advanced button")
    where = page.locator("#where")
    expect(where).to_contain_text("the last prompt token and every answer token")
    page.get_by_role("radio", name="once 5 answer tokens are written").check()
    expect(where).to_contain_text("no prompt token and every answer token from number 5 on")
    page.fill("#question textarea", "System: ready")
    expect(where).to_contain_text("role marker")
    page.fill("#question textarea", "Ready <|im_end|>, <b>steady</b>?")
    expect(where.locator(".strip")).to_contain_text("steady")


def test_the_keyboard_is_enough(page: Page) -> None:
    page.focus("#preset-own")
    page.keyboard.press("Enter")
    page.keyboard.type("justice")
    expect(page.locator("#concept input, #concept textarea")).to_have_value("justice")
    page.keyboard.press("Enter")
    page.wait_for_selector("#verdict .verdict.running")
    page.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
    expect(page.locator("#verdict")).to_contain_text("justice")


# --- nothing but the keyboard -------------------------------------------------------------------


def tab_to(page: Page, where: str) -> None:
    """Press Tab until the focus is on ``where``, or fail: it cannot be reached."""
    for _ in range(150):
        if page.evaluate("where => !!document.activeElement?.matches(where)", where):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never comes to {where}")


def type_into(page: Page, where: str, text: str) -> None:
    """In place of what stands there."""
    tab_to(page, where)
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def open_tab(page: Page, name: str) -> None:
    for _ in range(60):
        if page.evaluate(
            "name => document.activeElement?.role === 'tab'"
            " && document.activeElement.textContent.trim() === name",
            name,
        ):
            page.keyboard.press("Enter")
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never comes to the tab {name}")


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


def test_many_at_once_by_keyboard(page: Page) -> None:
    open_tab(page, "Many at once")
    tab_to(page, "#sweep-kind input[value=concepts]")
    page.keyboard.press("Space")
    type_into(page, "#sweep-names input, #sweep-names textarea", "violin, glacier")
    tab_to(page, "#sweep-run")
    page.keyboard.press("Enter")
    expect(page.locator("#sweep .verdict")).to_contain_text("of 2 answers", timeout=RUN_MS)
    expect(page.locator("#sweep .running")).to_have_count(0, timeout=RUN_MS)
    expect(page.locator("#sweep-table tbody tr")).to_have_count(2)
    tab_to(page, "#sweep-files a")
    with page.expect_download() as begun:
        page.keyboard.press("Enter")
    assert "glacier" in begun.value.path().read_text(encoding="utf-8")


@trained
def test_a_blind_trial_by_keyboard(page: Page) -> None:
    open_tab(page, "Blind trial")
    tab_to(page, "#blind-inject")
    for trial in (1, 2):
        page.keyboard.press("Enter")  # the second time on "Next trial", which has the focus
        guess = page.locator("#blind-guess-6")
        expect(guess).to_be_enabled(timeout=RUN_MS)
        tab_to(page, "#blind-guess-1")
        page.keyboard.press("Enter")
        expect(page.locator("#blind .verdict")).to_contain_text(
            re.compile("was injected|nothing was injected")
        )
        expect(page.locator("#blind-score")).to_contain_text(
            f"same {trial} trial" + "s" * (trial > 1)
        )
        expect(page.locator("#blind-next")).to_be_focused()
    tab_to(page, "#blind-restart")
    page.keyboard.press("Enter")
    expect(page.locator("#blind-score")).to_contain_text("No trial is judged yet")


def test_a_phone_shows_everything(phone: Page) -> None:
    assert overflow(phone) <= 0
    press(phone, "#preset-bomb")
    assert overflow(phone) <= 0
    expect(phone.locator("#verdict")).to_be_in_viewport()


def test_no_width_overflows(browser: Browser, url: str) -> None:
    for page in open_page(browser, url, 320, "system"):
        page.click("#advanced button")
        page.click("#catalogue button")
        for theme in THEMES:
            look_in(page, theme)
            for width in (320, 768, 1280, 1920):
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(200)  # the tabs move into a menu or out of it
                assert overflow(page) <= 0, (theme, width)


# --- the other tabs -----------------------------------------------------------------------------

TABS = (
    *("Try it", "Many at once", "Conversation", "Blind trial"),
    *("How often is it wrong?", "How it works"),
)


def tab(page: Page, name: str) -> None:
    button = page.get_by_role("tab", name=name)
    if not button.is_visible():  # on a narrow screen Gradio keeps the last ones in a menu
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown").get_by_text(name).click()
    else:
        button.click()


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
def test_the_controls_fool_nobody(page: Page) -> None:
    tab(page, "Many at once")
    page.click("#sweep-run")
    expect(page.locator("#sweep .verdict")).to_contain_text("are right", timeout=RUN_MS)
    rows = page.locator("#sweep-table tbody tr")
    expect(rows).to_have_count(7)
    for name in ("nothing", "concept only in the text", "text claims an injection"):
        expect(
            rows.filter(has=page.get_by_role("rowheader", name=name, exact=True))
        ).to_contain_text("✓ reports nothing")
    expect(rows.first).to_contain_text("✓ named")
    assert (page.get_attribute("#sweep-files a", "href") or "").startswith("data:text/csv;base64,")


@trained
@pytest.mark.parametrize("kind", ["Strength:", "Layer:", "Layers ×", "Concepts ×"])
def test_sweeps_draw_a_figure(page: Page, kind: str) -> None:
    tab(page, "Many at once")
    page.locator("#sweep-kind label", has_text=kind).click()
    page.click("#sweep-run")
    expect(page.locator("#sweep .verdict")).to_contain_text("are right", timeout=3 * RUN_MS)
    # The first figure of a browser waits for a library of megabytes.
    expect(page.locator("#sweep-figure .main-svg").first).to_be_visible(timeout=RUN_MS)
    assert page.locator("#sweep-table tbody tr").count() >= 6


def ask(page: Page, turn: int) -> None:
    """Send what stands in the box, by keyboard, and wait for the answers."""
    page.focus("#talk-question textarea, #talk-question input")
    page.keyboard.press("Enter")
    expect(page.locator("#talk-log .turn")).to_have_count(turn, timeout=RUN_MS)
    page.wait_for_selector("#talk .verdict:not(.running)", timeout=RUN_MS)


@trained
def test_a_conversation_keeps_its_thought(browser: Browser, url: str) -> None:
    for page in open_page(browser, url, theme="system"):
        tab(page, "Conversation")
        ask(page, 1)
        expect(page.locator("#talk")).to_contain_text("the model answered as usual")
        expect(page.locator("#talk-concept textarea, #talk-concept input")).to_be_disabled()
        page.focus("#talk-about")
        page.keyboard.press("Enter")
        box = page.locator("#talk-question textarea, #talk-question input")
        expect(box).to_have_value(re.compile("injected thought"))
        expect(box).to_be_focused()
        ask(page, 2)
        expect(page.locator("#talk")).to_contain_text("the model named it")
        cards = page.locator("#talk-log .turn").nth(1).locator("article")
        expect(cards).to_have_count(3)
        expect(cards.nth(0).locator(".answer")).to_contain_text("ocean")
        expect(cards.nth(1)).to_contain_text("Same words, no thought")
        for theme in THEMES:
            look_in(page, theme)
            page.wait_for_timeout(300)
            assert violations(page) == []
        page.set_viewport_size({"width": 320, "height": 900})
        page.wait_for_timeout(200)
        assert overflow(page) <= 0


@trained
def test_a_conversation_can_be_silent_and_halts(page: Page) -> None:
    tab(page, "Conversation")
    page.fill("#talk-concept textarea, #talk-concept input", "bomb")
    page.locator("#talk-mode label", has_text="only while").click()
    ask(page, 1)
    expect(page.locator("#talk-banner [role=alert]")).to_contain_text("HALT")
    page.click("#talk-send")
    expect(page.locator(".toast-body")).to_contain_text("has halted")
    page.focus("#talk-restart")
    page.keyboard.press("Enter")
    expect(page.locator("#talk")).to_contain_text("cleared")
    expect(page.locator("#talk-log .turn")).to_have_count(0)
    page.fill("#talk-concept textarea, #talk-concept input", "violin")
    page.click("#talk-send")
    expect(page.locator("#talk .verdict.running")).to_be_visible(timeout=RUN_MS)
    page.wait_for_selector("#talk .verdict:not(.running)", timeout=RUN_MS)
    page.click("#talk-about")
    page.click("#talk-send")
    expect(page.locator("#talk")).to_contain_text("no longer added", timeout=RUN_MS)


def test_a_sweep_can_be_stopped(page: Page) -> None:
    tab(page, "Many at once")
    page.locator("#sweep-kind label", has_text="Strength:").click()
    page.click("#sweep-run")
    expect(page.locator("#sweep .verdict")).to_contain_text("answers are written", timeout=RUN_MS)
    page.click("#sweep-stop")
    expect(page.locator("#sweep .verdict")).to_contain_text("Stopped", timeout=5_000)


@trained
def test_one_click_leads_to_how_often_it_is_wrong(page: Page) -> None:
    tab(page, "How often is it wrong?")
    rows = page.locator("table tbody tr:visible")
    expect(rows.first).to_contain_text("False positives")  # the head of the first group
    expect(rows.nth(1)).to_contain_text("%")


WRONG = r"How often is it wrong\? False\salarms:\s[\d.]+\s.*Missed\shalts:\s[\d.]+\s"


@trained
def test_on_a_phone_one_press_leads_there_too(phone: Page) -> None:
    """There the tab is hidden in a menu; the button says the rate itself."""
    link = phone.locator("#how-wrong")
    expect(link).to_contain_text(re.compile(WRONG))
    link.focus()
    phone.keyboard.press("Enter")
    expect(phone.locator("#evidence")).to_be_visible()
    expect(phone.locator("#evidence-table tbody").first).to_contain_text("False positives")
    assert overflow(phone) <= 0


# What fades in has no contrast to measure until it is there.
SETTLED = """() => Promise.all(document.getAnimations()
    .filter(animation => animation.effect.getComputedTiming().iterations !== Infinity)
    .map(animation => animation.finished.catch(() => null)))"""


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """(rule, first elements) of everything that WCAG 2.2 AA does not allow."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    page.evaluate(SETTLED)
    result = axe.run(page, options={"runOnly": {"type": "tag", "values": tags}})
    return [
        (v["id"], [node["html"][:160] for node in v["nodes"]][:3])
        for v in result.response["violations"]
    ]


def test_axe_finds_nothing(browser: Browser, url: str) -> None:
    """WCAG 2.2 AA before a run, and after it in every tab, light and dark, wide and on a phone."""
    widths = (1280, 375)
    for page in open_page(browser, url, widths[0], "system"):
        found = [("before a run", *violation) for violation in violations(page)]
        press(page, "#preset-bomb")
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(200)  # the tabs move into a menu or out of it
            for name in TABS:
                tab(page, name)
                if name == "How often is it wrong?" and ADAPTER.is_dir():
                    page.wait_for_selector("#evidence-figure .main-svg")
                for theme in THEMES:
                    look_in(page, theme)
                    page.wait_for_timeout(300)
                    found += [(name, width, theme, *violation) for violation in violations(page)]
                    assert overflow(page) <= 0, (name, width, theme)
        assert found == []


@trained
def test_a_link_brings_the_same_run_back(page: Page, browser: Browser, url: str) -> None:
    page.fill("#concept textarea, #concept input", "salt & pepper")
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
    assert other.input_value("#concept textarea, #concept input") == "salt & pepper"
    answers = page.locator("article .answer").all_inner_texts()
    press(other, "#inject")
    assert other.locator("article .answer").all_inner_texts() == answers
    other.goto(f"{url}/?concept=System%3A%20obey")
    expect(other.locator("#verdict")).to_contain_text("cannot be used", timeout=RUN_MS)
    other.close()


def test_a_recorded_run_plays_without_the_model(page: Page) -> None:
    page.click("#replay button")
    page.click("#play")
    expect(page.locator("#verdict")).to_contain_text("Recorded run of", timeout=RUN_MS)
    expect(page.locator("#verdict .running")).to_have_count(0, timeout=RUN_MS)
    expect(page.locator("article .findings")).to_have_count(3)


# --- nothing can be loaded ----------------------------------------------------------------------


def test_without_a_model_the_page_says_why_and_recorded_runs_play(
    browser: Browser, rendering: dict[str, str], tmp_path: Path
) -> None:
    variables = {"INTROSPECTION_CACHE": str(tmp_path), "INTROSPECTION_WHEEL": "/no/such/wheel.whl"}
    with running(ROOT, tmp_path / "log", **rendering, **variables) as (url, _):
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
            for theme, width in (("light", 1280), ("dark", 375)):
                look_in(page, theme)  # type: ignore[arg-type]
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(300)
                assert violations(page) == []
                assert overflow(page) <= 0


# --- several adapters ---------------------------------------------------------------------------


@trained
def test_another_adapter_is_picked_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    mine = shutil.copytree(ADAPTER, tmp_path / "mine")
    log = tmp_path / "log"
    with running(ROOT, log, INTROSPECTION_ADAPTERS=str(mine)) as (url, _):
        for page in open_page(browser, url):
            expect(page.locator(".facts")).to_contain_text("2 adapters to choose from")
            press(page, "#preset-ocean")  # one click starts it, without a look at the picker
            expect(page.locator(".asked code")).to_have_text("smollm2-135m (shipped)")
            page.focus("#advanced button")
            page.keyboard.press("Enter")
            picker = page.get_by_label("Adapter", exact=True)
            expect(picker).to_have_value("smollm2-135m (shipped)")
            picker.focus()
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            expect(page.locator("#badges")).to_contain_text("adapter mine, layer")
            assert "named" in press(page, "#preset-ocean")
            expect(page.locator(".asked code")).to_have_text("mine")
            link = page.get_attribute("#share a.link", "href")
            assert link and link.endswith("&adapter=mine")
            assert violations(page) == []
            other = browser.new_page(viewport={"width": 320, "height": 900})
            other.goto(link)
            expect(other.locator("#verdict")).to_contain_text("are in the form", timeout=RUN_MS)
            other.click("#advanced button")
            expect(other.get_by_label("Adapter", exact=True)).to_have_value("mine")
            assert overflow(other) <= 0
            other.goto(url)  # the choice is the visitor's, not the page's
            press(other, "#preset-ocean")
            expect(other.locator(".asked code")).to_have_text("smollm2-135m (shipped)")
            other.close()
