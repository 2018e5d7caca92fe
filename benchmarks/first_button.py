"""How soon the page can be used: from the request to the first button that answers a click.

app.py runs with the default model, warm, in a process of its own on 127.0.0.1; Chromium opens the page
anew each time, without a cache. The clock stops when "Inject" is enabled and the badge line, which the
server fills for the concept in the form, is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time

from playwright.sync_api import sync_playwright

from benchmarks.demo_memory import served
from benchmarks.record import Check, record
from benchmarks.timing import spread
from introspection.models.presets import DEFAULT

BAR = "< 2.5"  # seconds
FLAGS = ("--no-sandbox", "--disable-gpu")
USABLE = (
    "document.querySelector('#inject:not([disabled])') && document.querySelector('#badges .badge')"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--wait", type=float, default=300.0, help="seconds for the page to start")
    options = parser.parse_args()
    rendered = {"in the browser": "false"}
    node = shutil.which("node")
    if node:
        rendered["by Node"] = "true"
        os.environ["GRADIO_NODE_PATH"] = node
    checks = []
    for where, ssr in rendered.items():
        os.environ["GRADIO_SSR_MODE"] = ssr
        with served(options.wait) as (url, _), sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            took = []
            for turn in range(options.rounds + 1):
                page = browser.new_context().new_page()
                start = time.perf_counter()
                page.goto(url, wait_until="commit")
                page.wait_for_function(USABLE)
                if turn:  # the first one starts the browser too
                    took.append(time.perf_counter() - start)
                page.context.close()
            browser.close()
        checks.append(Check(f"page to first button, rendered {where}", spread(took), "s", BAR))
        checks.append(Check(f"the same, slowest of {len(took)}", spread([max(took)]), "s", BAR))
    record("first_button", "cpu", checks, {}, DEFAULT)


if __name__ == "__main__":
    main()
