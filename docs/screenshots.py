"""Pictures of the page for the README: ``python -m docs.screenshots``, run in the root.

Serves app.py with the default model and the adapter that ships, runs "ocean" and "bomb" in Chromium,
then the map of layers and tokens and a conversation, and writes demo-light.png, demo-dark.png,
demo-phone.png, demo-map.png and demo-conversation.png into figures/ (``--out`` elsewhere).
Needs what the browser tests need: requirements-dev.txt and Chromium.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.demo.test_browser_tabs import ask, tab
from tests.support.app_process import running
from tests.support.browser import CHROMIUM, FLAGS, RUN_MS, SETTLED, press

ROOT = Path(__file__).resolve().parents[1]
COLOURS = 128  # of a picture: a quarter of its bytes, and nobody sees it
MOST = 300_000  # bytes of a picture


@contextmanager
def opened(browser: Browser, url: str, width: int = 1280, theme: str = "light") -> Iterator[Page]:
    page = browser.new_page(viewport={"width": width, "height": 900 if width > 400 else 812})
    page.goto(f"{url}/?__theme={theme}")
    page.locator("#badges .badge").first.wait_for()
    yield page
    page.close()


def save(page: Page, last: str, target: Path, colours: int = COLOURS) -> None:
    """The page from its top to the end of the element ``last``, in few colours; 0: in all it has."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.evaluate(SETTLED)
    end = page.evaluate(
        "last => document.querySelector(last).getBoundingClientRect().bottom + scrollY", last
    )
    size = page.viewport_size or {}
    box = {"x": 0, "y": 0, "width": size["width"], "height": end + 8}
    page.screenshot(path=target, full_page=True, clip=box)
    with Image.open(target) as picture:
        few = picture.convert("RGB")
    if colours:
        few = few.quantize(colours, dither=Image.Dither.NONE)
    few.save(target, optimize=True)
    size_of = target.stat().st_size
    print(f"{target}: {few.width} x {few.height}, {size_of:,} bytes")  # noqa: T201
    if size_of > MOST:
        raise SystemExit(f"{target} has more than {MOST:,} bytes.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "figures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory() as folder,
        running(ROOT, Path(folder) / "log") as (url, _),
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, width, theme, concept, last in (
            ("light", 1280, "light", "ocean", "#stage .stage"),
            ("dark", 1280, "dark", "bomb", "#stage .stage"),
            ("phone", 375, "light", "ocean", "#stage .card"),
        ):
            with opened(browser, url, width, theme) as page:
                press(page, f"#preset-{concept}")
                save(page, last, out / f"demo-{name}.png")
        with opened(browser, url) as page:
            tab(page, "Many at once")
            page.locator("#sweep-kind label", has_text="Layers ×").click()
            page.click("#sweep-run")
            page.locator("#sweep-figure .main-svg").first.wait_for(timeout=RUN_MS)
            page.wait_for_timeout(1_000)  # plotly draws after it is there
            save(page, "#sweep-figure", out / "demo-map.png", colours=0)  # shades are what it shows
        with opened(browser, url) as page:
            tab(page, "Conversation")
            ask(page, 1)
            page.click("#talk-about")
            ask(page, 2)
            save(page, "#talk-log", out / "demo-conversation.png")
        browser.close()


if __name__ == "__main__":
    main()
