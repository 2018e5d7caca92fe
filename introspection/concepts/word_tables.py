"""Word lists that have a form of their own: CSV with a header, a JSON list, lines of JSON.

Knows: where a name, its category and its harmfulness stand in each, and in which line. Does not know:
plain lists, concepts.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from introspection.errors import IntrospectionError
from introspection.io.text_files import at_line

__all__ = [
    "ADVICE",
    "NAMES",
    "Row",
    "Rows",
    "csv_rows",
    "is_comment",
    "is_json",
    "json_line",
    "json_list",
]

ADVICE = "write the names one per line, or as a JSON list"
NAMES = ("concept", "name", "word")
_KEYS = (*NAMES, "category", "harmful")
_COMMENT = re.compile(r"#(?:\W|$)|;|//")  # at the start of a line; "#metoo" is a name


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as the file has it; "" is what it does not state. ``harmful`` is None in a table that
    has no such column."""

    name: str
    category: str = ""
    harmful: str | None = ""


Rows = list[tuple[int, Row | IntrospectionError]]


def is_comment(line: str) -> bool:
    return _COMMENT.match(line.strip()) is not None


def is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def json_list(name: str, text: str) -> Rows:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        number = getattr(error, "lineno", 1)
        raise at_line(name, number, f"This is no whole JSON list: {ADVICE}.") from error
    rows: Rows = []
    decoder, between, number = json.JSONDecoder(), re.compile(r"[\s,]*"), 1
    at, counted = text.index("[") + 1, 0
    while True:
        found = between.match(text, at)
        at = found.end() if found else at
        if text[at] == "]":
            return rows
        number, counted = number + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        rows.append((number, _json_row(value)))


def json_line(line: str) -> Row | IntrospectionError:
    try:
        return _json_row(json.loads(line))
    except (ValueError, RecursionError):
        return IntrospectionError("This line is no JSON, unlike the first: correct it.")


def _json_row(value: object) -> Row | IntrospectionError:
    if isinstance(value, str):
        return Row(value)
    if isinstance(value, Mapping):
        cells = {str(k).casefold(): "" if v is None else v for k, v in value.items()}
        if all(isinstance(cells.get(key, ""), str) for key in (*NAMES, "category")):
            return _from_cells({key: str(value) for key, value in cells.items()})
    return IntrospectionError(
        "A member of a JSON list must be a name, or an object such as "
        '{"concept": "ocean", "category": "places"}: correct it.'
    )


def _from_cells(cells: Mapping[str, str]) -> Row | IntrospectionError:
    """A row of a table with named columns, of which others are left alone."""
    stated = {key: cells[key].strip() for key in _KEYS if key in cells}
    name = next((stated[key] for key in NAMES if key in stated), "")
    if not name:
        return IntrospectionError("There is no name in this line: write one as 'concept'.")
    return Row(name, stated.get("category", ""), stated.get("harmful"))


def csv_rows(name: str, text: str, first: int, delimiter: str) -> Rows:
    """The rows under the header in line ``first``."""
    lines = text.split("\n")

    def given() -> Iterator[str]:
        for line in lines[first - 1 :]:
            empty_cell = line.startswith(delimiter)
            yield "\n" if is_comment(line) and not empty_cell else line + "\n"

    table = csv.reader(given(), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: Rows = []
    try:
        heads = [head.strip().casefold() for head in next(table)]
        for cells in table:
            while cells and not cells[-1].strip():
                cells.pop()
            number = first - 1 + table.line_num
            if len(cells) > len(heads):
                more = f"This line has {len(cells)} columns, the header {len(heads)}: put quotes "
                rows.append((number, IntrospectionError(f"{more}around a name with commas.")))
            elif cells:
                rows.append((number, _from_cells(dict(zip(heads, cells, strict=False)))))
    except csv.Error as error:
        number = first - 1 + table.line_num
        raise at_line(name, number, f"This is no CSV ({error}): {ADVICE}.") from error
    return rows
