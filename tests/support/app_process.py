"""app.py (or any command) in a process of its own, as a Space or a shell starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from gradio_client import Client

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(f"INTROSPECTION_{name}" for name in ("MODEL", "ADAPTER", "REVISION", "ADAPTERS"))
SPACE = {
    "SYSTEM": "spaces",
    "SPACE_ID": "somebody/introspection",
    "SPACE_HOST": "somebody-introspection.hf.space",
    "SPACE_AUTHOR_NAME": "somebody",
    "SPACE_REPO_NAME": "introspection",
    "ACCELERATOR": "none",
    "CPU_CORES": "2",
    "MEMORY": "16Gi",
}
HOT_RELOAD = "\nRuntimeError: `spaces` package is required to run hot-reloading in Spaces"


def copy_of_the_project(target: Path) -> Path:
    """What a Space gets: a copy of what git knows or will know."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("records/", "benchmarks/", "tests/")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
    return target


@contextmanager
def running(
    tree: Path,
    log: Path,
    command: Sequence[str] = ("app.py",),
    end: int = signal.SIGTERM,
    **variables: str,
) -> Iterator[tuple[str, subprocess.Popen]]:
    """app.py in its own process: (address, process). It must leave within 10 s of ``end``, alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    inherited = {k: v for k, v in os.environ.items() if k not in (*OURS, "PYTHONPATH")}
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, *command],
            cwd=tree,
            env={
                **inherited,
                **{"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)},
                **{"OMP_NUM_THREADS": "1", **variables},
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            # Tests that a shell runs in the background ignore Ctrl-C and would pass that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        deadline = time.monotonic() + 180  # a new machine fetches the model first
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(address, timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield address, server
        family = psutil.Process(server.pid).children(recursive=True)
        asked = time.monotonic()
        server.send_signal(end)
        assert server.wait(10) == 0, log.read_text()
        assert time.monotonic() - asked < 10
        assert not [child for child in family if child.is_running()]
        # Gradio's own: on a Space it looks for the package that Spaces brings along.
        told = log.read_text()
        assert told.count("Traceback") == told.count(HOT_RELOAD), told
    finally:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(server.pid).children(recursive=True):
                process.kill()
        server.kill()
        server.wait()


def compare(address: str, *data: Any, endpoint: str = "/compare") -> dict[str, Any]:
    client = Client(address, verbose=False, analytics_enabled=False)
    result: dict[str, Any] = client.predict(*data, api_name=endpoint)
    return result
