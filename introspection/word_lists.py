"""Word lists as people keep them: plain lines, lines with tabs, CSV with a header, JSON, JSON lines.

Knows: the forms, comments, bullets and numbers, what a file may state about a concept. Does not know:
vectors, models (no torch here), what is done with the concepts.

What was written is what is read. Where a file could mean two things it is refused with its line, and
the advice is one name per line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from introspection import validation
from introspection.concepts import Concept, resolve
from introspection.errors import IntrospectionError
from introspection.text_files import FromFile, at_line, read_each, read_text

__all__ = ["read"]

ADVICE = "write the names one per line, or as a JSON list"
_NAME = ("concept", "name", "word")
_TRUE, _FALSE = ("harmful", "true", "yes", "1"), ("harmless", "false", "no", "0")

_COMMENT = re.compile(r"#(?:\W|$)|;|//")  # at the start of a line; "#metoo" is a name
_COMMENT_AFTER = re.compile(r"\s+#+(?:\s.*)?$")
_MAYBE_COMMENT = re.compile(r"#[^\W\d]\w*\W*\s|.*\s(?:#[^\W\d]|//(?:\s|$))")
_BULLET = re.compile(r"(?:[-*+•·‣▪◦–—]\s+(?:\[[ xX]\]\s+)?|\(?[A-Za-z]\)\s+)(?=\S)")
_NUMBERED = re.compile(r"\(?(\d{1,5})[.)]\s+(?=\S)")
_COUNTED = re.compile(r"\(?(\d{1,5})(?:[.)]\s*|:\s+|\t\s*)(?=\S)")
_JSON_LIST = re.compile(r"""\[\s*(?:["'{\[\]]|$)""")
_SEVERAL = re.compile(r"[^,;|]*(?:[,;|][^,;|]*){2,}")
_CELLS = re.compile(r"""[^,;|]{2,}(?:[,;|][^\s,;|][^,;|]*)+|"[^"]*"\s*[,;].*""")


@dataclass(frozen=True, slots=True)
class _Row:
    """One entry as the file has it; "" is what it does not state."""

    name: str
    category: str = ""
    harmful: str = ""


Rows = list[tuple[int, _Row | IntrospectionError]]
Lines = Sequence[tuple[int, str]]


def read(path: Path, skip_bad: bool = False) -> FromFile[Concept]:
    """The concepts of a word list, without exact repeats.

    A file that states a category or harmfulness speaks for itself (both are taken from it); a bare
    name takes both from the catalogue where it is known there.
    """
    rows = _rows(path.name, read_text(path, "word list"))
    if not rows:
        raise IntrospectionError(f"The word list {path} is empty: {ADVICE}.")
    found = read_each(path.name, rows, _concept, skip_bad)
    unique: dict[str, Concept] = {}
    for concept in found.found:
        unique.setdefault(concept.name, concept)
    return FromFile(found.name, tuple(unique.values()), found.lines, found.bad)


def _concept(row: _Row | IntrospectionError) -> Concept:
    if isinstance(row, IntrospectionError):
        raise row
    if len(row.name) > validation.CONCEPT_LENGTH and re.search("[,;|]", row.name):
        raise IntrospectionError(f"This is more than one name or a long one: {ADVICE}.")
    known = resolve(validation.concept_text(row.name))
    stated = row.harmful.casefold()
    if stated and stated not in (*_TRUE, *_FALSE):
        raise IntrospectionError(
            f"Whether it is harmful reads {validation.quoted(row.harmful)}: write harmful, or nothing."
        )
    if not row.category and not stated:
        return known
    return replace(known, category=row.category or known.category, harmful=stated in _TRUE)


def _rows(name: str, text: str) -> Rows:
    numbered = enumerate(text.split("\n"), 1)
    lines = [(n, line) for n, line in numbered if line.strip() and not _comment(line)]
    if not lines:
        return []
    first, start = lines[0]
    if _JSON_LIST.match(start.strip()) or _is_json(text, list):
        return _json_list(name, text)
    if _is_json(start, dict) or all(_is_json(line, str) for _, line in lines):
        return [(n, _json_line(line)) for n, line in lines]
    if re.match(r'\{\s*("|$)', start.strip()):
        raise at_line(name, first, f"This is JSON, but neither a list nor lines of JSON: {ADVICE}.")
    sheet = name.casefold().endswith((".csv", ".tsv"))
    for delimiter in ("\t", ",", ";"):
        heads = [cell.strip(' "').casefold() for cell in start.split(delimiter)]
        known = {"category", "harmful"}.intersection(heads)
        if set(_NAME).intersection(heads) and (known or sheet):
            return _csv(name, text, first, delimiter)
    commas = sheet and any("," in line for _, line in lines)
    if commas or all(_SEVERAL.fullmatch(line.strip()) for _, line in lines):
        raise at_line(name, first, _several(sheet))
    if len(lines) > 1 and all(_CELLS.fullmatch(line.strip()) for _, line in lines):
        raise at_line(name, first, _several(True))
    return _plain(name, lines)


def _several(sheet: bool) -> str:
    head = ", or begin with a header such as concept,category,harmful" if sheet else ""
    return f"There are several names or columns in one line: {ADVICE}{head}."


def _comment(line: str) -> bool:
    return _COMMENT.match(line.strip()) is not None


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def _json_list(name: str, text: str) -> Rows:
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


def _json_line(line: str) -> _Row | IntrospectionError:
    try:
        return _json_row(json.loads(line))
    except (ValueError, RecursionError):
        return IntrospectionError("This line is no JSON, unlike the first: correct it.")


def _json_row(value: object) -> _Row | IntrospectionError:
    if isinstance(value, str):
        return _Row(value)
    if isinstance(value, Mapping):
        cells = {str(k).casefold(): "" if v is None else v for k, v in value.items()}
        if all(isinstance(cells.get(key, ""), str) for key in (*_NAME, "category")):
            return _from_cells({key: str(value) for key, value in cells.items()})
    return IntrospectionError(
        "A member of a JSON list must be a name, or an object such as "
        '{"concept": "ocean", "category": "places"}: correct it.'
    )


_KEYS = (*_NAME, "category", "harmful")


def _from_cells(cells: Mapping[str, str]) -> _Row | IntrospectionError:
    """A row of a table with named columns, of which others are left alone."""
    stated = {key: cells[key].strip() for key in _KEYS if key in cells}
    name = next((stated[key] for key in _NAME if key in stated), "")
    if not name:
        return IntrospectionError("There is no name in this line: write one as 'concept'.")
    return _Row(name, stated.get("category", ""), stated.get("harmful", ""))


def _csv(name: str, text: str, first: int, delimiter: str) -> Rows:
    """The rows under the header in line ``first``."""
    lines = text.split("\n")

    def given() -> Iterator[str]:
        for line in lines[first - 1 :]:
            empty_cell = line.startswith(delimiter)
            yield "\n" if _comment(line) and not empty_cell else line + "\n"

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


def _plain(name: str, lines: Lines) -> Rows:
    bare = [(number, _COMMENT_AFTER.sub("", line).strip(" \r")) for number, line in lines]
    rows: Rows = []
    marked = [bool(_BULLET.match(line)) for _, line in bare]
    listed = 2 * sum(marked) >= len(marked)
    counts = _is_counted(name, bare)
    for (number, line), bullet in zip(bare, marked, strict=True):
        if bullet != listed:
            wanted = "Only some lines begin with a bullet"
            rows.append(
                (number, IntrospectionError(f"{wanted}, and this may be no name: {ADVICE}."))
            )
            continue
        mark = _BULLET if listed else _COUNTED if counts else None
        rows.append((number, _plain_row(mark.sub("", line, count=1) if mark else line)))
    return rows


def _is_counted(name: str, lines: Lines) -> bool:
    """Whether the lines are numbered, which is no part of the names."""
    found = [_COUNTED.match(line) for _, line in lines]
    numbers = [int(match[1]) for match in found if match]
    if len(lines) < 2 or len(numbers) < len(lines):
        return False
    strict = all(_NUMBERED.match(line) for _, line in lines)
    if numbers == [*range(numbers[0], numbers[0] + len(numbers))]:
        return strict or numbers[0] in (0, 1)
    if strict:
        raise at_line(
            name,
            lines[0][0],
            "Every line begins with a number, but they do not count up: number the lines 1, 2, 3, "
            f"or {ADVICE}.",
        )
    return False


def _plain_row(line: str) -> _Row | IntrospectionError:
    """A name, and behind tabs its category and ``harmful``."""
    if _MAYBE_COMMENT.match(line):
        return IntrospectionError(
            f"The line {validation.quoted(line)} may be a comment or a name: begin a comment "
            "with # and a space, or write the names as a JSON list."
        )
    if line.endswith((",", ";")) or line.startswith("|") or re.match(r'"[^"]*"\s*[,;]', line):
        return IntrospectionError(_several(True))
    cells = [cell.strip() for cell in line.split("\t")]
    while len(cells) > 1 and not cells[-1]:
        cells.pop()
    if not cells[0] or len(cells) > 3:
        return IntrospectionError(
            "The line is not 'name', 'name<TAB>category' or 'name<TAB>category<TAB>harmful': "
            "correct it."
        )
    return _Row(*cells)
