"""Text files of other people: what is in them line by line, and which lines cannot be used."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from introspection.errors import IntrospectionError
from introspection.io import input_checks

SHOWN = 20  # numbers of lines in a sentence

Line = TypeVar("Line")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class FromFile(Generic[Found]):
    """What the lines of a file gave, of how many, and the numbers of those that were left out."""

    name: str
    found: tuple[Found, ...]
    lines: int
    bad: tuple[int, ...] = ()

    def left_out(self) -> str:
        """One sentence about the lines that were left out, "" if there are none."""
        if not self.bad:
            return ""
        numbers = ", ".join(map(str, self.bad[:SHOWN]))
        more = f" and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
        were, line = ("was", "line") if len(self.bad) == 1 else ("were", "lines")
        return (
            f"{self.name}: {len(self.bad)} of {self.lines} lines {were} left out: {line} "
            f"{numbers}{more}."
        )


def at_line(name: str, number: int, message: str) -> IntrospectionError:
    return IntrospectionError(f"{name}, line {number}: {message[0].lower()}{message[1:]}")


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file (of UTF-16 with its mark), lines ended by newlines alone. A byte that is
    no UTF-8 becomes half a character, which no check lets pass: so its line is known."""
    try:
        data = path.read_bytes()
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = data.decode("utf-16")
        else:
            text = data.decode("utf-8-sig", "surrogateescape")
    except (OSError, ValueError) as error:
        raise IntrospectionError(
            f"The {what} {path} cannot be read ({type(error).__name__}): name a UTF-8 text file "
            "with one entry per line."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_each(
    name: str,
    lines: Sequence[tuple[int, Line]],
    check: Callable[[Line], Found],
    skip_bad: bool,
) -> FromFile[Found]:
    """What ``check`` makes of every numbered line. A line that it refuses ends the reading, or is left
    out with ``skip_bad``."""
    found, bad = [], []
    for number, line in lines:
        try:
            found.append(check(line))
        except IntrospectionError as error:
            if not skip_bad:
                advice = ", or leave such lines out with --skip-bad-lines."
                raise at_line(name, number, str(error).removesuffix(".") + advice) from error
            bad.append(number)
            last = error
    if bad and not found:
        raise IntrospectionError(
            f"No line of {name} can be used ({len(bad)} were left out). The last, "
            f"{at_line(name, bad[-1], str(last))}"
        )
    return FromFile(name, tuple(found), len(lines), tuple(bad))


def _json(name: str, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise at_line(
            name, number, "This is no JSON: mend it, or write one context per line of a .txt file."
        ) from error


def _context(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("text")
    if not isinstance(value, str):
        raise IntrospectionError(
            "There is no text in this entry: write texts, or objects with a field 'text'."
        )
    return input_checks.context_text(value)


def contexts(path: Path, skip_bad: bool = False) -> FromFile[str]:
    """Texts to put before a question, without repeats: one per line, or of a ``.json`` or ``.jsonl``
    file each text, or each object's field ``text``."""
    whole = read_text(path, "context file")
    filled: list[tuple[int, Any]] = [
        (number, line) for number, line in enumerate(whole.split("\n"), 1) if line.strip()
    ]
    if not filled:
        raise IntrospectionError(f"The context file {path} is empty: write one context per line.")
    if path.suffix.casefold() == ".json":
        found = _json(path.name, 1, whole)
        filled = [(1, one) for one in found] if isinstance(found, list) else [(1, found)]
    elif path.suffix.casefold() == ".jsonl":
        filled = [(number, _json(path.name, number, line)) for number, line in filled]
    read = read_each(path.name, filled, _context, skip_bad)
    return replace(read, found=tuple(dict.fromkeys(read.found)))
