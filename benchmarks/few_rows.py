"""Whole answers of the default model on a CPU with its products of few rows turned round, and as usual.

The three rows are those of the page: adapter and thought, base and thought, adapter alone. Tokens must
be the same. Then single products of the model's shapes, by the number of rows: that is where the limits
in ``introspection/injection/speedups/small_batch_linear.py`` come from.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.record import Check, record
from benchmarks.timing import in_turns, ratios, spread
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.injection.decoding import generation
from introspection.injection.speedups import small_batch_linear
from introspection.injection.trials.message import conversation
from introspection.injection.trials.trial import Injection, Trial
from introspection.models import loading
from introspection.models.presets import DEFAULT

SHAPES = ((576, 576), (1536, 576), (49152, 576), (576, 1536))  # outputs, inputs
ROWS = (2, 3, 4, 5, 6, 8, 12, 16, 32)
BYTES = 60e6  # of weights per shape: more than a cache holds, as in a model


def gains(outputs: int, inputs: int) -> dict[str, float]:
    """How many times as fast the product turned round is, by rows: the best of five turns each."""
    count = max(2, int(BYTES / (4 * outputs * inputs)))
    weights = [torch.randn(outputs, inputs) for _ in range(count)]

    def usual(x: Tensor) -> None:
        for weight in weights:
            functional.linear(x, weight)

    def turned(x: Tensor) -> None:
        for weight in weights:
            (weight @ x.t()).t().contiguous()

    def best(work: Callable[[Tensor], None], x: Tensor) -> float:
        found = []
        for _ in range(5):
            start = time.perf_counter()
            work(x)
            found.append(time.perf_counter() - start)
        return min(found)

    rows = {n: torch.randn(n, inputs) for n in ROWS}
    with torch.inference_mode():
        return {str(n): round(best(usual, x) / best(turned, x), 2) for n, x in rows.items()}


def products(shapes: Sequence[tuple[int, int]]) -> dict[str, dict[str, float]]:
    return {f"{o} x {i}, gain by rows": gains(o, i) for o, i in shapes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    loaded = loading.load(DEFAULT, device="cpu")
    layers = [m for m in loaded.model.modules() if type(m) is small_batch_linear.SmallBatchLinear]
    asked, given = conversation(DEFAULT_QUESTION), Injection(loaded.vector("ocean"), 1.0)
    page = [Trial(asked, given), Trial(asked, given, adapter=False), Trial(asked)]
    told: dict[tuple[int, type], set[str]] = {}

    def answers(kind: type, rows: int) -> None:
        for layer in layers:
            layer.__class__ = kind
        reports = generation.generate(loaded, page[-rows:], 40, halt=False)
        told.setdefault((rows, kind), set()).add("\n".join(report.text for report in reports))

    kinds = {"turned round": small_batch_linear.SmallBatchLinear, "as usual": nn.Linear}
    sides = {
        f"{rows} rows {how}": lambda kind=kind, rows=rows: answers(kind, rows)
        for rows in (2, 3)
        for how, kind in kinds.items()
    }
    took = in_turns(sides, options.rounds, "cpu")
    checks, figures = [], {}
    for rows in (2, 3):
        usual, ours = (
            told[rows, kind] for kind in (nn.Linear, small_batch_linear.SmallBatchLinear)
        )
        assert usual == ours and len(ours) == 1, "other tokens"
        gain = ratios(took[f"{rows} rows as usual"], took[f"{rows} rows turned round"])
        checks.append(
            Check(f"answers of {rows} rows against the usual products", spread(gain), "x")
        )
        for how in kinds:
            figures[f"{rows} rows {how}, s"] = spread(took[f"{rows} rows {how}"])
    figures |= products(SHAPES)
    print(figures)
    record("few_rows", "cpu", checks, figures, DEFAULT)


if __name__ == "__main__":
    main()
