"""Peak memory of the demo: app.py with the default model, after twenty calls to its endpoint.

The page runs in a process of its own on a free port of 127.0.0.1. The peak is the sum of VmHWM (the
largest resident set so far, from Linux) over that process and its children: an upper bound, since
they need not peak at the same time.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradio_client import Client  # type: ignore[import-untyped]

from benchmarks.record import Check, record
from benchmarks.timing import spread
from introspection.concepts.catalogue import paper
from introspection.models.presets import DEFAULT

ROOT = Path(__file__).resolve().parent.parent
NAMES = (*paper().dangerous, *paper().test)


def tree(pid: int) -> list[int]:
    """A process and everything it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def memory(pid: int) -> dict[str, float]:
    """Peak and present memory of the tree in GB (1e9 bytes); present file-backed part as well."""
    total = {"VmHWM": 0.0, "VmRSS": 0.0, "RssAnon": 0.0, "RssFile": 0.0}
    for process in tree(pid):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in total:
                total[key] += int(rest.split()[0]) * 1024 / 1e9
    return {key: round(value, 3) for key, value in total.items()}


def wait(url: str, process: subprocess.Popen[bytes], limit: float) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"app.py ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"app.py did not answer within {limit:.0f} s")


@contextmanager
def served(limit: float, **variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of app.py on a free port, on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}/"
        wait(url, process, limit)
        yield url, process
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--wait", type=float, default=300.0, help="seconds for the page to start")
    parser.add_argument(
        "--fresh", action="store_true", help="an empty cache: the model is converted at the start"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        fresh = {"INTROSPECTION_CACHE": cache} if options.fresh else {}
        with served(options.wait, **fresh) as (url, process):
            seen: list[dict[str, float]] = [memory(process.pid)]
            client, times = Client(url, verbose=False), []
            for i in range(options.calls):
                start = time.perf_counter()
                answer: Any = client.predict(NAMES[i % len(NAMES)], 1.0, api_name="/compare")
                times.append(time.perf_counter() - start)
                assert len(answer["rows"]) == 3
                seen.append(memory(process.pid))
                print(f"call {i + 1}: {times[-1]:.2f} s", seen[-1], flush=True)
            processes = len(tree(process.pid))
    record(
        "demo_memory",
        "cpu",
        [Check("peak memory of the demo", spread([seen[-1]["VmHWM"]]), "GB", "< 2.5")],
        {
            "calls": options.calls,
            "fresh_cache": options.fresh,
            "processes": processes,
            "seconds_per_call": spread(times),  # other processes may have been at work
            "gigabytes_after_start": seen[0],
            "gigabytes_after_first_call": seen[1],
            "gigabytes_after_last_call": seen[-1],
        },
        DEFAULT,
    )


if __name__ == "__main__":
    main()
