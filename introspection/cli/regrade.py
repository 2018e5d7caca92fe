"""``regrade``: records judged anew, after the rules of grading have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from introspection.cli.common import PATH, app, out
from introspection.io.outputs import targets

__all__ = ["regrade"]


@app.command()
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
    from introspection.evaluation.records.record_files import (
        as_bytes,
        intact,
        load,
        moved,
        regraded,
    )
    from introspection.evaluation.records.upgrade import is_old, upgraded
    from introspection.io.files import write_bytes

    for path in map(Path.resolve, files):
        records = load(path)
        old = is_old(records)
        if old:
            records = upgraded(records, adapter)
        else:
            intact(path, records)  # or a text that was edited would be sealed anew
        changes = moved(records)
        for record, changed in changes:
            fields = "; ".join(f"{name}: {a!r} -> {b!r}" for name, (a, b) in changed.items())
            out.print(f"{record['condition']}, {record['concept']}: {record['text']!r}: {fields}")
        if (changes or old) and not dry_run:
            with targets.writing(path, "copy the records elsewhere"):
                data = as_bytes([regraded(record) for record in records], path)
                write_bytes(path, data, path.stat().st_mode & 0o777)
        what = "would move" if dry_run else "moved"
        out.print(f"{path}: {len(changes)} of {len(records)} verdicts {what}.", style="dim")
