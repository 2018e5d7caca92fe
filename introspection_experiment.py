"""The paper's experiment as one script: extract, train, evaluate, safety test, figure.

"Introspection is a Learnable Skill" (Fonseca 2025, arXiv 2511.21399 v1): 40 concepts are injected
into the residual stream, a LoRA adapter is trained for three epochs to report them, and 20 concepts
that it never saw tell whether the skill generalises.

    python introspection_experiment.py                       # default model, CPU, minutes
    python introspection_experiment.py --model deepseek-7b   # the paper's own model, on a GPU

HF_TOKEN is honoured by the Hub client where a model needs it. Killed at any moment, the same command
continues.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.errors import IntrospectionError
from introspection.evaluation import plots, runner, suites, summary
from introspection.evaluation.report import PUBLISHED
from introspection.injection.decoding.generation import generate
from introspection.injection.trials.message import conversation
from introspection.injection.trials.trial import Injection, Trial
from introspection.io import input_checks
from introspection.io.outputs import targets
from introspection.io.outputs.places import home_expanded, own_path
from introspection.models import loading, local_paths
from introspection.models.loaded_model import LoadedModel
from introspection.models.presets import DEFAULT
from introspection.training.config import TrainingJob
from introspection.training.pipeline import RECIPES, build_adapter

os.environ.setdefault("MKL_CBWR", "AUTO")  # as in introspection/__main__.py

FIGURES = ("generalization_gap.png", "generalization_gap.html")


def settings(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line, or of a notebook that hands them over as a list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default=DEFAULT, type=home_expanded, help="preset, Hub id or folder"
    )
    parser.add_argument("--layer", type=int, help="block that is read and written")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--examples", type=int, default=RECIPES["paper"][1])
    parser.add_argument("--epochs", type=int, default=RECIPES["paper"][0].epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--site", choices=("concept", "concept_end", "last"), default="concept")
    parser.add_argument("--out", type=own_path, help="folder (default runs/paper-<model>)")
    parser.add_argument("--figures", type=own_path, default=Path("figures"))
    return parser.parse_args(arguments)


def main() -> None:
    options = settings()
    try:
        run(options)
    except IntrospectionError as error:
        Console(stderr=True, markup=False, soft_wrap=True).print(f"error: {error}", style="red")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("Interrupted: run the same command again to continue.")


def run(options: argparse.Namespace) -> Path:
    """The whole experiment; returns where the figure is."""
    console = Console(soft_wrap=True)
    began = time.monotonic()
    name = f"paper-{Path(local_paths.name_of(options.model)).name}"
    out = options.out or Path("runs") / f"{name}-{options.site}-{options.seed}"
    targets.adapter_target(out / "adapter", out / "training", options.model)
    targets.records_target(out / "evaluation", options.model)
    figures = targets.figure_targets(options.figures, "--figures", FIGURES, plots.MARK)
    loaded = loading.load(
        options.model, None, options.layer, input_checks.device_name(options.device)
    )
    config = replace(RECIPES["paper"][0], epochs=options.epochs, seed=options.seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("Reading concept vectors", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what.capitalize(), completed=done, total=total)

        with targets.writing(out, "choose another --out"):
            build_adapter(
                loaded,
                out / "adapter",
                out / "training",
                TrainingJob("paper", config, options.examples, options.site),
                show,
            )
            found = runner.run(
                loaded,
                suites.paper_cases(options.seed),
                out / "evaluation",
                f"paper test {options.seed}",
                options.seed,
                progress=lambda done, total: show("evaluating", done, total),
            )
    for line in summary.table(found):
        console.print(line, markup=False, highlight=False)
    console.print(_beside(found))
    _safety(console, loaded)
    figure = figures / FIGURES[0]
    bars = plots.generalization_bars(found, PUBLISHED)
    with targets.writing(figures, "choose another --figures"):
        plots.save_bars(bars, f"Concepts named, {loaded.name}", "named, %", figure)
    console.print(f"Figure: {figure} and {figure.with_suffix('.html')}. Everything else: {out}.")
    console.print(f"Done in {time.monotonic() - began:.0f} s.")
    return figure


def _beside(found: dict) -> Table:
    table = Table(title="Concepts named, in percent")
    for heading in ("", "paper (DeepSeek-7B)", "this run", "95 % interval", "n"):
        table.add_column(heading)
    for bar in plots.generalization_bars(found, {}):
        kind = bar.label.split("\n")[0]
        interval = f"{bar.low:.1f} to {bar.high:.1f}"
        table.add_row(kind, f"{PUBLISHED[kind]:.1f}", f"{bar.value:.1f}", interval, str(bar.n))
    return table


def _safety(console: Console, loaded: LoadedModel) -> None:
    """The paper's safety test: the same question under a harmful and a harmless thought."""
    trials = [
        Trial(conversation(DEFAULT_QUESTION), Injection(loaded.vector(name), 1.0))
        for name in ("bomb", "love")
    ]
    for name, report in zip(("bomb", "love"), generate(loaded, trials), strict=True):
        halted = "halted" if report.halted_at else "did not halt"
        console.print(f"Safety test, {name}: {halted}: {report.text}", markup=False)


if __name__ == "__main__":
    main()
