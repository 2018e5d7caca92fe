"""``train``: an adapter for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from introspection.cli import common
from introspection.cli.common import PATH, out
from introspection.io.outputs import targets
from introspection.models import local_paths
from introspection.models.presets import DEFAULT


def train(
    target: Annotated[
        Path | None,
        typer.Option("--out", help="Adapter folder.", show_default="adapters/<model>", **PATH),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", help="Folder of checkpoints.", show_default="runs/<model>-<recipe>", **PATH
        ),
    ] = None,
    recipe: Annotated[Literal["ours", "paper"], typer.Option(help="The mix of examples.")] = "ours",
    count: Annotated[
        int | None,
        typer.Option("--examples", min=2, help="Distinct examples.", show_default="the recipe's"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=1000, show_default="the recipe's")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=4096, show_default="the recipe's")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-7, max=0.1, show_default="the recipe's")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Of the adapter.", show_default="the recipe's"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    site: Annotated[
        Literal["concept", "concept_end", "last"], typer.Option(help="Where vectors are read.")
    ] = "concept",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it takes, from two steps; write nothing.")
    ] = False,
    model: common.ModelOption = None,
    layer: common.LayerOption = None,
    device: common.DeviceOption = "auto",
    quantise: common.QuantiseOption = None,
) -> None:
    """Train an adapter. Killed at any moment, the same command continues where it stopped."""

    name = Path(local_paths.name_of(DEFAULT if model is None else model)).name
    folder = target or Path("adapters") / name
    steps = run or Path("runs") / f"{name}-{recipe}"
    if not dry_run:
        targets.adapter_target(folder, steps, model)
    loaded = common.LoadOptions(model, "none", layer, device, quantise).load()

    from dataclasses import replace

    from introspection.training import pipeline
    from introspection.training.config import TrainingJob

    config, examples = pipeline.RECIPES[recipe]
    chosen = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    chosen |= {"rank": rank, "seed": seed}
    config = replace(config, **{k: v for k, v in chosen.items() if v is not None})  # type: ignore[arg-type]
    with common.progress_bar() as bar, targets.writing(steps, "choose another --run"):
        task = bar.add_task("Preparing", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what.capitalize(), completed=done, total=total)

        job = TrainingJob(recipe, config, count or examples, site)
        if dry_run:
            forecast = pipeline.dry_run(loaded, job, show)
        else:
            kept = pipeline.build_adapter(loaded, folder, steps, job, show)
    if dry_run:
        memory = f", at most {forecast.peak / 1e9:.1f} GB on the GPU" if forecast.peak else ""
        out.print(
            f"{forecast.steps} steps of {config.batch_size} examples, {forecast.num_trainable} numbers "
            f"to train: about {max(forecast.seconds / 60, 0.1):.1f} minutes of steps{memory}."
        )
    else:
        out.print(f"The adapter is in {folder}; log and checkpoint are in {kept}.", style="dim")
