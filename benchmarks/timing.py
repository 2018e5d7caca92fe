"""Sides of a comparison timed in turns on a machine that others use too, and medians with spread.

A ratio is only worth something if both sides ran under the same conditions: sides take turns within
one run and are divided round by round.
"""

from __future__ import annotations

import gc
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats

QUIET = 0.05  # the share of the machine that other processes may use during a round
ROUNDS: list[dict[str, float]] = []  # what in_turns saw of them, for the record


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of every side in every round. Sides take turns; who begins changes each round.

    A call during which other processes used the processor is thrown away and made again, whatever
    its time: two jobs on the same cores slow each other down tenfold. After ``6 * rounds`` such
    calls it ends with the rounds there are.
    """
    rng = random.Random(0)
    kept: dict[str, list[float]] = {name: [] for name in sides}
    thrown, done, most = 0, 0, 0.0
    while done < rounds:
        order, taken = list(sides), {}
        rng.shuffle(order)
        while order and thrown <= 6 * rounds:
            _wait_for_quiet(device)
            took, others = _watched(sides[order[0]], device)
            if others > QUIET:
                thrown += 1
                continue
            most = max(most, others)
            taken[order.pop(0)] = took
        if order:
            break
        done += 1
        for name, took in taken.items():
            kept[name].append(took)
        print(f"round {done}, {thrown} calls thrown away:", rounded(taken), flush=True)
    if not done:
        sys.exit("Every round was disturbed by other processes: try again on a quiet machine.")
    ROUNDS.append({"rounds": done, "thrown_away": thrown, "others": round(most, 3)})
    return kept


def _watched(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds of a call on the wall clock, and the share of the processors that others used."""
    if device != "cpu":
        torch.cuda.synchronize()
    gc.collect()
    gc.disable()  # as timeit does: a collection takes longer than some differences measured here
    before, own, start = _busy(), time.process_time(), time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    taken = time.perf_counter() - start
    gc.enable()
    others = _busy() - before - (time.process_time() - own)
    # A rented GPU's container sees the processors of its whole host: nothing to learn there.
    return taken, max(others, 0.0) / taken / (os.cpu_count() or 1) if device == "cpu" else 0.0


def _wait_for_quiet(device: str, limit: float = 600) -> None:
    """Until other processes have left the processor alone for two seconds, or the limit."""
    end, calm = time.monotonic() + limit, 0
    while device == "cpu" and calm < 2 and time.monotonic() < end:
        calm = calm + 1 if _watched(lambda: time.sleep(1), device)[1] <= QUIET else 0


def _busy() -> float:
    """Seconds that all processors of this machine have worked since it started (Linux; else 0)."""
    if not Path("/proc/stat").exists():
        return 0.0
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.5g}") for key, value in values.items()}


def excess(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """By how many percent one side takes longer than the other when nothing disturbs them: the
    fastest fifth of its rounds against that of the other, with the 95 % interval (bootstrap).

    What disturbs a round on a shared machine only ever makes it longer, by ten times as much as the
    differences of one percent that this is for.
    """

    def percent(a: Sequence[float], b: Sequence[float]) -> float:
        kept = math.ceil(len(a) / 5)
        return 100 * (sum(sorted(a)[:kept]) / sum(sorted(b)[:kept]) - 1)

    rng, n = random.Random(0), len(above)
    drawn = (rng.choices(range(n), k=n) for _ in range(4000))
    again = sorted(percent([above[i] for i in d], [below[i] for i in d]) for d in drawn)
    cut = {"low95": 100, "quartile1": 1000, "quartile3": -1001, "high95": -101}
    found = {"median": percent(above, below), **{name: again[i] for name, i in cut.items()}}
    return {**rounded(found), "n": n}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, its 95 % interval (bootstrap), the quartiles and the number of values."""
    low, high = values[0], values[0]
    if len(values) > 1:
        low, high = stats.bootstrap(
            (values,), np.median, n_resamples=4000, method="percentile", random_state=0
        ).confidence_interval
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    found = {
        "median": statistics.median(values),
        "low95": low,
        "high95": high,
        "quartile1": quartiles[0],
        "quartile3": quartiles[2],
    }
    return {**rounded(found), "n": len(values)}
