"""Records judged anew by today's grading: what a report says is kept, what it is worth may move.

Knows: which fields of a record grading decides, how a file of records is written. Does not know: the
grading itself (``grading``), or what the rates of records are (``evaluation``).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from introspection.concepts import resolve
from introspection.grading import grade

__all__ = ["GRADED", "graded", "moved", "records_bytes"]

# The rest of a record is what happened: the text, its length, where the halt marker stood.
GRADED = ("detected", "named", "correct", "coherent")


def graded(record: Mapping[str, Any]) -> dict[str, Any]:
    """The :data:`GRADED` fields of a record, from its text. A random or negated vector has no name
    that could be right."""
    expected = record["concept"] is not None and record["vector"] == "concept"
    concept = resolve(record["concept"]) if expected else None
    verdict = grade(
        record["text"],
        concept.name if concept else None,
        concept.aliases if concept else (),
    )
    return {field: getattr(verdict, field) for field in GRADED}


def moved(records: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(record, its fields of today) of every record whose fields would change."""
    pairs = ((record, graded(record)) for record in records)
    return [(r, new) for r, new in pairs if any(r[field] != new[field] for field in GRADED)]


def records_bytes(records: Sequence[Mapping[str, Any]], path: Path) -> bytes:
    """A file of records; a compressed one is the same bytes whenever it is written."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    data = lines.encode()
    return gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data
