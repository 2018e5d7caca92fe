"""What the benchmarks share: timing, medians with their spread, and the record of one run.

A ratio is only worth something if both sides ran under the same conditions, so sides are always
timed in turns within one run and divided round by round.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["RECORDS", "Check", "in_turns", "machine", "ratios", "record", "seconds", "spread"]

RECORDS = Path(__file__).resolve().parent / "records"
LOAD = os.getloadavg()[0]  # of other jobs: read before this one starts to work


@dataclass(frozen=True, slots=True)
class Check:
    """A measured value against its bar; ``bar`` is ``"< 10"`` or ``">= 5"``, None for no bar."""

    what: str
    spread: Mapping[str, float]
    unit: str
    bar: str | None = None

    @property
    def met(self) -> bool | None:
        if self.bar is None:
            return None
        sign, limit = self.bar.split()
        value = self.spread["median"]
        return value < float(limit) if sign == "<" else value >= float(limit)


def seconds(work: Callable[[], object], device: str) -> float:
    """How long one call takes on the wall clock, the device's queue included."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of every side in every round. Sides take turns; who begins changes each round."""
    rng, times = random.Random(0), {name: [0.0] * rounds for name in sides}
    for round_ in range(rounds):
        order = list(sides)
        rng.shuffle(order)
        for name in order:
            times[name][round_] = seconds(sides[name], device)
        print(f"round {round_ + 1}/{rounds}", {k: round(v[round_], 3) for k, v in times.items()})
    return times


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, its 95 % interval (bootstrap), the quartiles and the number of values."""
    rng = random.Random(0)
    again = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(4000))
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    found = {
        "median": statistics.median(values),
        "low95": again[100],
        "high95": again[-101],
        "quartile1": quartiles[0],
        "quartile3": quartiles[2],
    }
    return {**{key: float(f"{value:.5g}") for key, value in found.items()}, "n": len(values)}


def machine(device: str) -> dict[str, Any]:
    """The hardware in words; no names of hosts, users or folders."""
    cpu = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
        "processor": cpu,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(LOAD, 2),
    }


def record(
    name: str, device: str, checks: Sequence[Check], figures: Mapping[str, Any], model: str
) -> None:
    """Append the run to ``records/<name>.jsonl`` and print what it found."""
    arguments = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    packages = ("torch", "transformers", "peft", "gradio")
    document = {
        "name": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m", f"benchmarks.{name}", *arguments]),
        "model": model,
        "machine": machine(device),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "checks": [{**asdict(check), "met": check.met} for check in checks],
        "figures": figures,
    }
    RECORDS.mkdir(exist_ok=True)
    with (RECORDS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(document, ensure_ascii=False) + "\n")
    for check in checks:
        verdict = {None: "", True: f", bar {check.bar}: met", False: f", bar {check.bar}: MISSED"}
        print(
            f"{check.what}: {check.spread['median']:.4g} {check.unit} "
            f"(95 % {check.spread['low95']:.4g} to {check.spread['high95']:.4g}){verdict[check.met]}"
        )
