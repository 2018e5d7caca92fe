"""``extract``: concept vectors of a model, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from introspection.cli.common import PATH, LoadOptions, SkipOption, out, own_concepts, progress_bar
from introspection.io import input_checks
from introspection.io.outputs import targets


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
    *,
    load: LoadOptions,
) -> None:
    """Read concept vectors out of a model and save them."""
    sentence = None if template is None else input_checks.template_text(template)
    place = targets.vectors_target(target, load.model)
    names = _names(words or [], file, skip_bad_lines)
    loaded = load.load()

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
        save_vectors(vectors, targets.vectors_target(place, load.model))
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
