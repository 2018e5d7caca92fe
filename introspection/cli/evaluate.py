"""``evaluate``: the records of a suite, and their summary."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from introspection.cli import common
from introspection.cli.common import PATH, LoadOptions, SkipOption, out
from introspection.injection.trials.schedule import spellings
from introspection.io import input_checks
from introspection.io.outputs import targets


def evaluate(
    suite: Annotated[Literal["quick", "full", "paper"], typer.Option()] = "quick",
    concepts: Annotated[
        Path | None,
        typer.Option(
            help="Own word list: one concept per line, CSV with a header, or JSON.",
            show_default=False,
            **PATH,
        ),
    ] = None,
    contexts: Annotated[
        Path | None,
        typer.Option(help="Own clean contexts, one per line.", show_default=False, **PATH),
    ] = None,
    skip_bad_lines: SkipOption = False,
    split: Annotated[
        Literal["test", "validation"], typer.Option(help="Unseen concepts and texts of this split.")
    ] = "test",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Reports of each condition at most.", show_default="all"),
    ] = None,
    strengths: Annotated[
        str,
        typer.Option(
            help="With commas. In quick and full they take turns over the concepts of a condition; "
            "own and the paper's concepts get every one."
        ),
    ] = "0.5,1",
    schedules: Annotated[
        str,
        typer.Option(
            help=f"With commas: {', '.join(spellings('any prompt', number='N'))}. "
            "Every injected report once per schedule, but those that begin mid-answer."
        ),
    ] = "final_on",
    conditions: Annotated[
        str | None, typer.Option(help="Names with ';' between, * for anything.", show_default="all")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Ask the untrained model everything as well.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            help="Sentence with {c} that vectors are read under.",
            show_default="one that no training saw",
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--out", help="Folder.", show_default="runs/evaluate-<suite>", **PATH),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: Annotated[int, typer.Option(min=1, max=4096)] = 32,
    *,
    load: LoadOptions,
) -> None:
    """Measure hits, false positives and halts; write records.jsonl and summary.json."""
    from introspection.evaluation import runner as evaluation
    from introspection.evaluation import suites
    from introspection.evaluation.records.provenance import checksum
    from introspection.evaluation.selection import chosen_schedules, chosen_strengths, select
    from introspection.evaluation.summary import table
    from introspection.injection.extraction import UNSEEN_TEMPLATE

    chosen, times = chosen_strengths(strengths), chosen_schedules(schedules)
    sentence = input_checks.template_text(template or UNSEEN_TEMPLATE)
    own = concepts is not None or contexts is not None
    words = common.own_concepts(concepts, skip_bad_lines) if concepts else []
    lines = common.own_contexts(contexts, skip_bad_lines) if contexts else []
    name = "own" if own else suite
    folder = target or Path("runs") / f"evaluate-{name}"
    targets.records_target(folder, load.model)
    if own:
        cases = suites.custom_cases(words, lines, seed, split, chosen)
    elif suite == "paper":
        cases = suites.paper_cases(seed, chosen)
    else:
        cases = suites.suite_cases(suites.SIZES[suite], split, seed, chosen)
    kinds = list(map(str, times))
    names = [part.strip() for part in (conditions or "").split(";") if part.strip()]
    cases = select(cases, names, limit, times, base)
    loaded = load.load(needs_adapter=True)
    # What decides the result beside the suite, as far as it is not the usual; it is in every record.
    options = {
        "split": split if split != "test" else None,
        "limit": limit,
        "strengths": list(chosen) if chosen != suites.STRENGTHS else None,
        "schedules": kinds if kinds != ["final_on"] else None,
        "conditions": names or None,
        "base": base or None,
        "template": sentence if sentence != UNSEEN_TEMPLATE else None,
        "quantise": load.quantise,
        "concepts": checksum({"concepts": list(map(asdict, words))}) if words else None,
        "contexts": checksum({"contexts": lines}) if lines else None,
    }
    stopped = targets.writing(folder, "choose another --out")
    with common.progress_bar() as bar, _terminated_as_interrupted(), stopped:
        task = bar.add_task("Reports", total=len(cases))
        summary = evaluation.run(
            loaded,
            cases,
            folder,
            f"{name} {split} {seed}",
            seed,
            batch_size,
            sentence,
            progress=lambda done, _total: bar.update(task, completed=done),
            options={key: value for key, value in options.items() if value is not None},
        )
    for line in table(summary):
        out.print(line)
    out.print(f"Records and summary are in {folder}.", style="dim")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A polite kill ends as Ctrl-C does, so that the summary of what is done is written."""
    from introspection.models import distributed

    # Of several processes each may wait for the others in a call that no handler interrupts.
    if threading.current_thread() is not threading.main_thread() or distributed.world_size() > 1:
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
