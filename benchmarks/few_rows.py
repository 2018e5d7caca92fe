"""Whole answers of the default model on a CPU with its products of few rows turned round, and as usual.

The three rows are those of the page: adapter and thought, base and thought, adapter alone. Tokens must
be the same.
"""

from __future__ import annotations

import argparse

from torch import nn

from benchmarks.record import Check, record
from benchmarks.timing import in_turns, ratios, spread
from introspection import few_rows, generation, models
from introspection.prompts import DEFAULT_QUESTION
from introspection.trials import Injection, Trial, ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    loaded = models.load(models.DEFAULT, device="cpu")
    layers = [m for m in loaded.model.modules() if type(m) is few_rows.Linear]
    asked, given = ask(DEFAULT_QUESTION), Injection(loaded.vector("ocean"), 1.0)
    page = [Trial(asked, given), Trial(asked, given, adapter=False), Trial(asked)]
    told: dict[tuple[int, type], set[str]] = {}

    def answers(kind: type, rows: int) -> None:
        for layer in layers:
            layer.__class__ = kind
        reports = generation.generate(loaded, page[-rows:], 40, halt=False)
        told.setdefault((rows, kind), set()).add("\n".join(report.text for report in reports))

    kinds = {"turned round": few_rows.Linear, "as usual": nn.Linear}
    sides = {
        f"{rows} rows {how}": lambda kind=kind, rows=rows: answers(kind, rows)
        for rows in (2, 3)
        for how, kind in kinds.items()
    }
    took = in_turns(sides, options.rounds, "cpu")
    checks, figures = [], {}
    for rows in (2, 3):
        usual, ours = (told[rows, kind] for kind in (nn.Linear, few_rows.Linear))
        assert usual == ours and len(ours) == 1, "other tokens"
        gain = ratios(took[f"{rows} rows as usual"], took[f"{rows} rows turned round"])
        checks.append(
            Check(f"answers of {rows} rows against the usual products", spread(gain), "x")
        )
        for how in kinds:
            figures[f"{rows} rows {how}, s"] = spread(took[f"{rows} rows {how}"])
    record("few_rows", "cpu", checks, figures, models.DEFAULT)


if __name__ == "__main__":
    main()
