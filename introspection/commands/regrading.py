"""``regrade``: records judged anew, after the rules of grading have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from introspection.commands.common import app, out

__all__ = ["regrade"]


@app.command()
def regrade(
    files: Annotated[list[Path], typer.Argument(help="Records: .jsonl or .jsonl.gz.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would move and write nothing.")
    ] = False,
) -> None:
    """Judge the texts of records by today's grading and write what moved back into the files."""
    from introspection.cache import write_bytes
    from introspection.regrade import GRADED, moved, records_bytes
    from introspection.report import read_records

    for path in files:
        records = read_records(path)
        changed = moved(records)
        for record, new in changed:
            fields = ", ".join(
                f"{field}: {record[field]!r} -> {new[field]!r}"
                for field in GRADED
                if record[field] != new[field]
            )
            out.print(f"{record['condition']}, {record['concept']}: {record['text']!r}: {fields}")
            record |= new
        if changed and not dry_run:
            write_bytes(path, records_bytes(records, path))
        what = "would move" if dry_run else "moved"
        out.print(f"{path}: {len(changed)} of {len(records)} records {what}.", style="dim")
