"""The record of one run: a line of JSON with its figures, bars, machine, versions and command."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import ROUNDS

RECORDS = Path(__file__).resolve().parent / "records"


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


def _machine(device: str) -> dict[str, Any]:
    """The hardware in words; no names of hosts, users or folders."""
    cpu = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
        "processor": cpu,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
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
        "model": Path(model).name if os.path.isabs(model) else model,
        "machine": _machine(device),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "rounds": ROUNDS,
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None
