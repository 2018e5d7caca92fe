"""``report`` and ``regrade``: documents made from records, and records graded anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from introspection.cli.common import PATH, out
from introspection.errors import IntrospectionError
from introspection.io.outputs import targets
from introspection.models import local_paths


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
    from introspection.evaluation.summary import summarise
    from introspection.io.files import write_text
    from introspection.models.adapters.adapter_info import read_info
    from introspection.models.adapters.card import write_card

    # Everything is read and checked before anything is written.
    read_info(adapter)
    targets.card_target(adapter)
    document = targets.document_target(readme, "--readme", ("results", "paper")) if readme else None
    found, source = read(records), local_paths.document_name(records)
    if document:
        of_paper = read(paper)
        if of_paper[0]["suite"] != "paper":
            raise IntrospectionError(
                f"{paper} holds records of the suite {of_paper[0]['suite']}: name those of the paper's "
                "experiment with --paper."
            )
        table = reporting.paper_table(summarise(of_paper))
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


def regrade(
    files: Annotated[list[Path], typer.Argument(help="Records: .jsonl or .jsonl.gz.", **PATH)],
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Adapter that answered, for records of an older version.",
            show_default=False,
            **PATH,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would move and write nothing.")
    ] = False,
) -> None:
    """Judge the texts of records by today's grading and write what moved back into the files."""
    from introspection.evaluation.records import record_files
    from introspection.evaluation.records.upgrade import is_old, upgraded
    from introspection.io.files import write_bytes

    for path in map(Path.resolve, files):
        records = record_files.load(path)
        old = is_old(records)
        if old:
            records = upgraded(records, adapter)
        else:
            record_files.intact(path, records)  # or a text that was edited would be sealed anew
        changes = record_files.moved(records)
        for record, changed in changes:
            fields = "; ".join(f"{name}: {a!r} -> {b!r}" for name, (a, b) in changed.items())
            out.print(f"{record['condition']}, {record['concept']}: {record['text']!r}: {fields}")
        if (changes or old) and not dry_run:
            with targets.writing(path, "copy the records elsewhere"):
                data = record_files.as_bytes(map(record_files.regraded, records), path)
                write_bytes(path, data, path.stat().st_mode & 0o777)
        what = "would move" if dry_run else "moved"
        out.print(f"{path}: {len(changes)} of {len(records)} verdicts {what}.", style="dim")
