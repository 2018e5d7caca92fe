"""The page in Chromium: what the tests of the browser share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = ROOT / "adapters" / "smollm2-135m"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
expect.set_options(timeout=15_000)  # on a slow machine, beside other tests
RUN_MS = 60_000  # the same

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="needs Debian's chromium"),
]
trained = pytest.mark.skipif(
    not ADAPTER.is_dir(), reason="trained behaviour needs adapters/smollm2-135m, which is missing"
)


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
    """A page that fails on a request elsewhere, an error on its console or an uncaught exception."""
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


def press(page: Page, button: str) -> str:
    """Press and wait for the verdict of the run that this starts."""
    page.click(button)
    page.wait_for_selector("#verdict .verdict.running")
    page.wait_for_selector("#verdict .verdict:not(.running)", timeout=RUN_MS)
    expect(page.locator("article .findings")).to_have_count(3)
    return page.inner_text("#verdict .verdict")


def look_in(page: Page, theme: Theme) -> None:
    """On a page that follows the system."""
    page.emulate_media(color_scheme=theme)
    expect(page.locator("body.dark")).to_have_count(int(theme == "dark"))


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


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
