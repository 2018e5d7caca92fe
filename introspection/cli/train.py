"""``extract`` and ``train``: from a model to vectors, and to an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from introspection.cli.common import (
    PATH,
    AdapterOption,
    DeviceOption,
    LayerOption,
    ModelOption,
    QuantiseOption,
    SkipOption,
    app,
    load_model,
    out,
    own_concepts,
    progress_bar,
)
from introspection.io import input_checks
from introspection.io.outputs import targets
from introspection.models import local_paths
from introspection.models.presets import DEFAULT

__all__ = ["extract", "train"]


@app.command()
def extract(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Words or phrases.", show_default="the paper's concepts"),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Word list: one concept per line, CSV with a header, or JSON.",
            show_default=False,
            **PATH,
        ),
    ] = None,
    skip_bad_lines: SkipOption = False,
    target: Annotated[Path, typer.Option("--out", help="File to write.", **PATH)] = Path(
        "vectors.safetensors"
    ),
    site: Annotated[
        Literal["concept", "concept_end", "last"],
        typer.Option(help="Mean of the concept's tokens, its last one, or the prompt's last one."),
    ] = "concept",
    template: Annotated[
        str | None, typer.Option(help="Sentence with {c} in it.", show_default="Tell me about {c}")
    ] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
    quantise: QuantiseOption = None,
) -> None:
    """Read concept vectors out of a model and save them."""
    sentence = None if template is None else input_checks.template_text(template)
    place = targets.vectors_target(target, model)
    names = _names(words or [], file, skip_bad_lines)
    loaded = load_model(model, adapter, layer, device, quantise=quantise)

    from dataclasses import replace

    from introspection.injection import extraction
    from introspection.injection.vectors import save_vectors
    from introspection.models.fingerprints import fingerprint

    sentence = sentence or extraction.TEMPLATES[0]
    baseline = extraction.baseline_words()
    with progress_bar() as bar:
        task = bar.add_task("Reading vectors", total=len(names) + len(baseline))
        vectors = extraction.extract(
            loaded, names, sentence, site, baseline, lambda rows: bar.advance(task, rows)
        )
    vectors = replace(vectors, fingerprint=fingerprint(loaded.model))
    with targets.writing(target, "choose another --out"):
        # As at the start: another program may have written there since.
        save_vectors(vectors, targets.vectors_target(place, model))
    out.print(", ".join(vectors.names))
    out.print(
        f"{len(names)} vectors of {loaded.name}: layer {vectors.layer}, site {vectors.site}, "
        f"typical residual norm {vectors.norm:.4g}, saved to {target}",
        style="dim",
    )


def _names(words: list[str], file: Path | None, skip_bad: bool) -> list[str]:
    """The words and the file's concepts, checked and without repeats; else the paper's."""
    from introspection.concepts.catalogue import paper

    names = [input_checks.concept_text(word) for word in words]
    if file is not None:
        names += [concept.name for concept in own_concepts(file, skip_bad)]
    if not words and file is None:
        names = [*paper().train, *paper().test]
    return list(dict.fromkeys(names))


@app.command()
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
    model: ModelOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
    quantise: QuantiseOption = None,
) -> None:
    """Train an adapter. Killed at any moment, the same command continues where it stopped."""

    name = Path(local_paths.name_of(DEFAULT if model is None else model)).name
    folder = target or Path("adapters") / name
    steps = run or Path("runs") / f"{name}-{recipe}"
    if not dry_run:
        targets.adapter_target(folder, steps, model)
    loaded = load_model(model, "none", layer, device, quantise=quantise)

    from dataclasses import replace

    from introspection.training import pipeline
    from introspection.training.config import TrainingJob

    config, examples = pipeline.RECIPES[recipe]
    chosen = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    chosen |= {"rank": rank, "seed": seed}
    config = replace(config, **{k: v for k, v in chosen.items() if v is not None})  # type: ignore[arg-type]
    with progress_bar() as bar, targets.writing(steps, "choose another --run"):
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
