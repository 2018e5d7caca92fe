"""Word lists with a format: CSV with a header, a JSON list, JSON lines. Each is read into rows of a
name, its category and its harmfulness, with the number of the line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from introspection.errors import IntrospectionError
from introspection.io.text_files import at_line

ADVICE = "write the names one per line, or as a JSON list"
NAMES = ("concept", "name", "word")
_KEYS = (*NAMES, "category", "harmful")
_COMMENT = re.compile(r"#(?:\W|$)|;|//")  # at the start of a line; "#metoo" is a name


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is in the file, "" where it states nothing. ``harmful`` is None in a table
    without that column."""

    name: str
    category: str = ""
    harmful: str | None = ""


Rows = list[tuple[int, Row | IntrospectionError]]


def is_comment(line: str) -> bool:
    """Whether a line is a comment: it begins with ``#``, ``;`` or ``//``."""
    return _COMMENT.match(line.strip()) is not None


def is_json(text: str, kind: type) -> bool:
    """Whether a text is JSON of that type."""
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def json_list(name: str, text: str) -> Rows:
    """The rows of a JSON list of the file ``name``; an IntrospectionError in place of a bad member.

    Raises IntrospectionError for a text that is no whole list.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        number = getattr(error, "lineno", 1)
        raise at_line(name, number, f"This is no whole JSON list: {ADVICE}.") from error
    rows: Rows = []
    decoder, between, number = json.JSONDecoder(), re.compile(r"[\s,]*"), 1
    at, counted = text.index("[") + 1, 0
    while True:
        gap = between.match(text, at)
        at = gap.end() if gap else at
        if text[at] == "]":
            return rows
        number, counted = number + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        rows.append((number, _json_row(value)))


def json_line(line: str) -> Row | IntrospectionError:
    """The row of a line of JSON, or the error of a bad one."""
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
    """A row of a table with named columns; columns with other names are ignored."""
    stated = {key: cells[key].strip() for key in _KEYS if key in cells}
    name = next((stated[key] for key in NAMES if key in stated), "")
    if not name:
        return IntrospectionError("There is no name in this line: write one as 'concept'.")
    return Row(name, stated.get("category", ""), stated.get("harmful"))


def csv_rows(name: str, text: str, first: int, delimiter: str) -> Rows:
    """The rows below the header in line ``first`` of the file ``name``; an IntrospectionError in place
    of a bad row. Raises IntrospectionError for a text that is no CSV."""
    lines = text.split("\n")

    def without_comments() -> Iterator[str]:
        for line in lines[first - 1 :]:
            empty_cell = line.startswith(delimiter)
            yield "\n" if is_comment(line) and not empty_cell else line + "\n"

    table = csv.reader(without_comments(), delimiter=delimiter, skipinitialspace=True, strict=True)
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
