"""The other tabs in Chromium, the whole page by WCAG 2.2 AA, and a choice of two adapters."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.support.app_process import running

pytest.importorskip("playwright")
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import (
    ADAPTER,
    MARKS,
    ROOT,
    RUN_MS,
    THEMES,
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


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of app.py, which offers the shipped adapter twice."""
    place = tmp_path_factory.mktemp("page")
    variables = {"GRADIO_SSR_MODE": "false"}
    if ADAPTER.is_dir():
        variables["INTROSPECTION_ADAPTERS"] = str(shutil.copytree(ADAPTER, place / "mine"))
    with running(ROOT, place / "log", **variables) as (address, _):
        yield address


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    yield from open_page(browser, url)


@pytest.fixture(scope="module")
def many(browser: Browser, url: str) -> Iterator[Page]:
    """The tab of many trials, for one test after the other."""
    for page in open_page(browser, url):
        tab(page, "Many at once")
        yield page


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


# --- many at once -------------------------------------------------------------------------------


@trained
def test_the_controls_fool_nobody(many: Page) -> None:
    many.click("#sweep-run")
    expect(many.locator("#sweep .verdict")).to_contain_text("are right", timeout=RUN_MS)
    rows = many.locator("#sweep-table tbody tr")
    expect(rows).to_have_count(7)
    for name in ("nothing", "concept only in the text", "text claims an injection"):
        expect(
            rows.filter(has=many.get_by_role("rowheader", name=name, exact=True))
        ).to_contain_text("✓ reports nothing")
    expect(rows.first).to_contain_text("✓ named")
    assert (many.get_attribute("#sweep-files a", "href") or "").startswith("data:text/csv;base64,")


@trained
@pytest.mark.parametrize("kind", ["Layers ×", "Concepts ×"])
def test_sweeps_draw_a_figure(many: Page, kind: str) -> None:
    many.locator("#sweep-kind label", has_text=kind).click()
    many.click("#sweep-run")
    expect(many.locator("#sweep .verdict")).to_contain_text("are right", timeout=3 * RUN_MS)
    # The first figure of a browser waits for a library of megabytes.
    expect(many.locator("#sweep-figure .main-svg").first).to_be_visible(timeout=RUN_MS)
    assert many.locator("#sweep-table tbody tr").count() >= 6


def test_a_sweep_can_be_stopped(many: Page) -> None:
    many.locator("#sweep-kind label", has_text="Strength:").click()
    many.click("#sweep-run")
    expect(many.locator("#sweep .verdict")).to_contain_text("answers are written", timeout=RUN_MS)
    many.click("#sweep-stop")
    expect(many.locator("#sweep .verdict")).to_contain_text("Stopped", timeout=5_000)


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


# --- the others ---------------------------------------------------------------------------------


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


WRONG = r"How often is it wrong\? False\salarms:\s[\d.]+\s.*Missed\shalts:\s[\d.]+\s"


@trained
def test_on_a_phone_one_press_leads_to_how_often_it_is_wrong(browser: Browser, url: str) -> None:
    """There the tab is hidden in a menu; the button says the rate itself."""
    for phone in open_page(browser, url, width=375):
        link = phone.locator("#how-wrong")
        expect(link).to_contain_text(re.compile(WRONG))
        link.focus()
        phone.keyboard.press("Enter")
        expect(phone.locator("#evidence")).to_be_visible()
        rows = phone.locator("#evidence-table tbody tr:visible")
        expect(rows.first).to_contain_text("False positives")  # the head of the first group
        expect(rows.nth(1)).to_contain_text("%")
        assert overflow(phone) <= 0

    # What fades in has no contrast to measure until it is there.


BOTH = [(1280, "light"), (375, "dark")]


@pytest.mark.parametrize(
    "looks",
    [
        *([looks] for looks in BOTH),
        pytest.param(
            [(width, theme) for width in (1280, 375) for theme in THEMES], marks=pytest.mark.soak
        ),
    ],
    ids=["wide and light", "a phone and dark", "every width in every theme"],
)
def test_axe_finds_nothing(browser: Browser, url: str, looks: list[tuple[int, Theme]]) -> None:
    """WCAG 2.2 AA before a run, and after it in every tab."""
    for page in open_page(browser, url, looks[0][0], "system"):
        look_in(page, looks[0][1])
        found = [("before a run", *violation) for violation in violations(page)]
        press(page, "#preset-bomb")
        expect(page.locator("#verdict")).to_be_in_viewport()
        for width, theme in looks:
            page.set_viewport_size({"width": width, "height": 900})
            look_in(page, theme)
            page.wait_for_timeout(200)  # the tabs move into a menu or out of it
            for name in TABS:
                tab(page, name)
                if name == "How often is it wrong?" and ADAPTER.is_dir():
                    page.wait_for_selector("#evidence-figure .main-svg")
                page.wait_for_timeout(300)
                found += [(name, width, theme, *violation) for violation in violations(page)]
                assert overflow(page) <= 0, (name, width, theme)
        assert found == []


@trained
def test_another_adapter_is_picked_by_keyboard(page: Page, browser: Browser, url: str) -> None:
    expect(page.locator(".facts")).to_contain_text("2 adapters to choose from")
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
    other.goto(url)  # the choice is the visitor's, not the page's; one click needs no look at it
    press(other, "#preset-ocean")
    expect(other.locator(".asked code")).to_have_text("smollm2-135m (shipped)")
    other.close()
