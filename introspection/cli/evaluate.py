"""``evaluate``, ``report`` and ``benchmark``: records, the documents made from them, and speed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
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
    own_contexts,
    progress_bar,
)
from introspection.errors import IntrospectionError
from introspection.injection.trials.schedule import spellings
from introspection.io import input_checks
from introspection.io.characters import quoted
from introspection.io.outputs import targets
from introspection.models import local_paths

__all__ = ["benchmark", "evaluate", "report"]


@app.command()
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
            "Every injected report once per "
            "schedule, but those that begin mid-answer."
        ),
    ] = "final_on",
    conditions: Annotated[
        str | None,
        typer.Option(help="Names with ';' between, * for anything.", show_default="all"),
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
    model: ModelOption = None,
    adapter: AdapterOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
    quantise: QuantiseOption = None,
) -> None:
    """Measure hits, false positives and halts; write records.jsonl and summary.json."""
    from introspection.evaluation import runner as evaluation
    from introspection.evaluation import suites
    from introspection.evaluation.records.provenance import checksum
    from introspection.evaluation.selection import chosen_schedules, chosen_strengths, select
    from introspection.evaluation.summary import table
    from introspection.injection.extraction import UNSEEN_TEMPLATE

    doses, times = chosen_strengths(strengths), chosen_schedules(schedules)
    sentence = input_checks.template_text(template or UNSEEN_TEMPLATE)
    own = concepts is not None or contexts is not None
    words = own_concepts(concepts, skip_bad_lines) if concepts else []
    lines = own_contexts(contexts, skip_bad_lines) if contexts else []
    name = "own" if own else suite
    folder = target or Path("runs") / f"evaluate-{name}"
    targets.records_target(folder, model)
    if own:
        cases = suites.custom_cases(words, lines, seed, split, doses)
    elif suite == "paper":
        cases = suites.paper_cases(seed, doses)
    else:
        cases = suites.suite_cases(suites.SIZES[suite], split, seed, doses)
    kinds = list(map(str, times))
    names = [part.strip() for part in (conditions or "").split(";") if part.strip()]
    cases = select(cases, names, limit, times, base)
    loaded = load_model(model, adapter, layer, device, True, quantise)
    # What decides the result beside the suite, as far as it is not the usual; it is in every record.
    options = {
        "split": split if split != "test" else None,
        "limit": limit,
        "strengths": list(doses) if doses != suites.STRENGTHS else None,
        "schedules": kinds if kinds != ["final_on"] else None,
        "conditions": names or None,
        "base": base or None,
        "template": sentence if sentence != UNSEEN_TEMPLATE else None,
        "quantise": quantise,
        "concepts": checksum({"concepts": list(map(asdict, words))}) if words else None,
        "contexts": checksum({"contexts": lines}) if lines else None,
    }
    stopped = targets.writing(folder, "choose another --out")
    with progress_bar() as bar, _terminated_as_interrupted(), stopped:
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


def _paper_table(path: Path) -> str:
    from introspection.evaluation.records.record_files import read
    from introspection.evaluation.report import paper_table
    from introspection.evaluation.summary import summarise

    records = read(path)
    if records[0]["suite"] != "paper":
        raise IntrospectionError(
            f"{path} holds records of the suite {records[0]['suite']}: name those of the paper's "
            "experiment with --paper."
        )
    return paper_table(summarise(records))


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


@app.command()
def report(
    records: Annotated[
        Path, typer.Option(help="Records of an evaluation of the adapter.", **PATH)
    ] = Path("records/smollm2-135m/full.jsonl.gz"),
    adapter: Annotated[
        Path, typer.Option(help="Adapter folder that gets the numbers.", **PATH)
    ] = Path("adapters/smollm2-135m"),
    paper: Annotated[Path, typer.Option(help="Records of the paper's experiment.", **PATH)] = Path(
        "records/paper/smollm2-135m.jsonl.gz"
    ),
    readme: Annotated[
        Path | None, typer.Option(help="Document with generated tables.", **PATH)
    ] = None,
) -> None:
    """Write evaluation.json, the adapter's card and the tables of a document from records."""
    from introspection.evaluation import report as reporting
    from introspection.evaluation.records.record_files import read
    from introspection.io.files import write_text
    from introspection.models.adapters.adapter_info import read_info
    from introspection.models.adapters.card import write_card

    # Everything is read and checked before anything is written.
    read_info(adapter)
    targets.card_target(adapter)
    document = targets.document_target(readme, "--readme", ("results", "paper")) if readme else None
    found, source = read(records), local_paths.document_name(records)
    table = _paper_table(paper) if document else ""
    with targets.writing(adapter, "name another --adapter"):
        evaluation = reporting.write_evaluation(found, records, adapter)
        write_card(adapter, reporting.card_rates(evaluation))
    if document is not None and readme is not None:
        results = (
            f"{reporting.headline(evaluation)}\n\n(`python -m introspection report --records "
            f"{source} --readme {readme.name}` writes this table.)"
        )
        text = reporting.replace_block(document.read_bytes().decode(), "results", results)
        text = reporting.replace_block(text, "paper", table)
        with targets.writing(document, "name another --readme"):
            # A person's document keeps its rights.
            write_text(document, text, document.stat().st_mode & 0o777)
    out.print(reporting.headline(evaluation))


@app.command()
def benchmark(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="extraction, injection or training.", show_default="all three"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, show_default="each one's own")
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Time extraction, injection and training on this machine; append to benchmarks/records."""
    import subprocess
    import sys
    from importlib.util import find_spec

    if find_spec("benchmarks") is None:
        raise IntrospectionError(
            "The benchmarks come with a checkout of the project: run this command in its folder."
        )
    known = ("extraction", "injection", "training")
    unknown = sorted(set(what or ()) - set(known))
    if unknown:
        raise IntrospectionError(
            f"There is no benchmark {quoted(unknown[0])}: choose from {', '.join(known)}."
        )
    where = input_checks.device_name(device)
    arguments = ["--device", where] if where else []
    arguments += ["--model", model] if model else []
    arguments += ["--rounds", str(rounds)] if rounds else []
    for each in what or known:
        # Each in a process of its own: fresh memory, and the record tells how to run it again.
        command = [sys.executable, "-m", f"benchmarks.{each}", *arguments]
        if subprocess.run(command, check=False).returncode:
            raise IntrospectionError(f"The benchmark {each} did not end: see what it said above.")
