"""Word lists of users: plain lines, lines with tabs, CSV with a header, a JSON list, JSON lines.

Comments, bullets and numbers of lines are left out. A line with two possible meanings is refused with
its number and the advice to write one name per line. No torch is imported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from introspection.concepts import word_tables
from introspection.concepts.catalogue import Concept, resolve
from introspection.concepts.word_tables import ADVICE, Row, Rows
from introspection.errors import IntrospectionError
from introspection.io import input_checks
from introspection.io.characters import quoted
from introspection.io.text_files import FromFile, at_line, read_each, read_text

LONGEST = 1_000  # characters of a line
_TRUE, _FALSE = ("harmful", "true", "yes", "1"), ("harmless", "false", "no", "0")

# After a space and before a word: "C #" and "Psalm # 5" are names.
_COMMENT_AFTER = re.compile(r"(?<=\S)\s+#+\s+(?=[^\W\d]).*$")
_MAYBE_COMMENT = re.compile(
    r"#[^\W\d]\w*\W*\s|.*\s(?:#[^\W\d]|//(?:\s|$))|/\*|<!--|--\s|%\s|</?(?:li|[uo]l|p|t[rd]|div|br)\b"
    r"|\w+\s*=\s*[\[({\"']|#\d+\t"
)
_BULLET = re.compile(r"(?:[-*+•·‣▪◦–—]\s+(?:\[[ xX]\]\s+)?|\(?[A-Za-z]\)\s+)(?=\S)")
_NUMBERED = re.compile(r"\(?(\d{1,5})[.)]{1,2}\s+(?=\S)")
_COUNTED = re.compile(r"\(?(\d{1,5})(?:[.)]{1,2}\s*|:\s+|\t\s*)(?=\S)")
_JSON_LIST = re.compile(r"""\[\s*(?:["'{\[\]]|$)""")
_SEVERAL = re.compile(r"[^,;|]*(?:[,;|][^,;|]*){2,}")
_CELLS = re.compile(r"""[^,;|]{2,}(?:[,;|][^\s,;|][^,;|]*)+|"[^"]*"\s*[,;].*""")


def read(path: Path, skip_bad: bool = False) -> FromFile[Concept]:
    """The concepts of a word list, without exact repeats.

    What a row does not state comes from the catalogue. Raises IntrospectionError with the line that is
    refused, unless ``skip_bad`` leaves it out, and for a file without a name.
    """
    rows = _rows(path.name, read_text(path, "word list"))
    if not rows:
        raise IntrospectionError(f"The word list {path} has no name in it: {ADVICE}.")
    concepts = read_each(path.name, rows, _concept, skip_bad)
    unique: dict[str, Concept] = {}
    for concept in concepts.found:
        unique.setdefault(concept.name, concept)
    return replace(concepts, found=tuple(unique.values()))


def _concept(row: Row | IntrospectionError) -> Concept:
    if isinstance(row, IntrospectionError):
        raise row
    if len(row.name) > input_checks.CONCEPT_LENGTH and re.search("[,;|]", row.name):
        raise IntrospectionError(f"This is more than one name or a long one: {ADVICE}.")
    known = resolve(input_checks.concept_text(row.name))
    stated = (row.harmful or "").casefold()
    if stated and stated not in (*_TRUE, *_FALSE):
        raise IntrospectionError(
            f"Whether it is harmful reads {quoted(stated)}: write harmful, or nothing."
        )
    if not row.category and not stated:
        return known
    harmful = known.harmful if row.harmful is None else stated in _TRUE
    return replace(known, category=row.category or known.category, harmful=harmful)


def _rows(name: str, text: str) -> Rows:
    numbered = enumerate(text.split("\n"), 1)
    lines = [(n, line) for n, line in numbered if line.strip() and not word_tables.is_comment(line)]
    if not lines:
        return []
    first, start = lines[0]
    if _JSON_LIST.match(start.strip()) or word_tables.is_json(text, list):
        return word_tables.json_list(name, text)
    if word_tables.is_json(start, dict) or all(word_tables.is_json(line, str) for _, line in lines):
        return [(n, word_tables.json_line(line)) for n, line in lines]
    if re.match(r'\{\s*("|$)', start.strip()):
        raise at_line(name, first, f"This is JSON, but neither a list nor lines of JSON: {ADVICE}.")
    sheet = name.casefold().endswith((".csv", ".tsv"))
    for delimiter in ("\t", ",", ";"):
        heads = [cell.strip(' "').casefold() for cell in start.split(delimiter)]
        known = {"category", "harmful"}.intersection(heads)
        if set(word_tables.NAMES).intersection(heads) and (known or sheet):
            return word_tables.csv_rows(name, text, first, delimiter)
    commas = next((number for number, line in lines if sheet and "," in line), None)
    if commas or all(_SEVERAL.fullmatch(line.strip()) for _, line in lines):
        raise at_line(name, commas or first, _several(sheet))
    if len(lines) > 1 and all(_CELLS.fullmatch(line.strip()) for _, line in lines):
        raise at_line(name, first, _several(True))
    return _plain(name, lines)


def _several(sheet: bool) -> str:
    head = ", or begin with a header such as concept,category,harmful" if sheet else ""
    return f"There are several names or columns in one line: {ADVICE}{head}."


def _plain(name: str, lines: Sequence[tuple[int, str]]) -> Rows:
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


def _is_counted(name: str, lines: Sequence[tuple[int, str]]) -> bool:
    """Whether the lines are numbered, so that the numbers are no part of the names."""
    matches = [_COUNTED.match(line) for _, line in lines]
    numbers = [int(match[1]) for match in matches if match]
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


def _plain_row(line: str) -> Row | IntrospectionError:
    """A name and, separated by tabs, its category and ``harmful``."""
    if _MAYBE_COMMENT.match(line):
        return IntrospectionError(
            f"The line {quoted(line)} may be a name, or a comment or markup: begin a "
            "comment with # and a space, or write the names as a JSON list."
        )
    if line.endswith((",", ";")) or line.startswith("|") or re.match(r'"[^"]*"\s*[,;]', line):
        return IntrospectionError(_several(True))
    if len(line) > LONGEST:
        return IntrospectionError(f"The line has more than {LONGEST} characters: {ADVICE}.")
    cells = [cell.strip() for cell in line.split("\t")]
    while len(cells) > 1 and not cells[-1]:
        cells.pop()
    if not cells[0] or len(cells) > 3:
        return IntrospectionError(
            "The line is not 'name', 'name<TAB>category' or 'name<TAB>category<TAB>harmful': "
            "correct it."
        )
    return Row(*cells)
