"""Checks of what a visitor, a script or the command line asks for: one check for all three.

Every function takes any value that JSON, a form or a shell can hand over, returns a clean value, and
raises IntrospectionError, never anything else, for the rest. Text that looks like a control token is
allowed: ``prompt_tokens`` encodes it as text. No torch is imported.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from numbers import Real

from introspection.errors import IntrospectionError
from introspection.io import characters
from introspection.io.characters import INVISIBLE_BREAKS, LINE_ENDS, quoted

CONCEPT_LENGTH = 60
QUESTION_LENGTH = 2_000
CONTEXT_LENGTH = 8_000
MAX_STRENGTH = 16.0
NUMBER_LENGTH = 40

_GAP = r"[^\S\n]*"
_ROLE = re.compile(
    rf"^{_GAP}(?:(?:#{{1,6}}{_GAP})?(?:human|user|assistant|system)"
    rf"|#{{1,6}}{_GAP}(?:instruction|response)){_GAP}[:：]",
    re.IGNORECASE | re.MULTILINE,
)


def type_phrase(value: object) -> str:
    """The type of a value that is not what was asked for, as a sentence names it."""
    return "nothing" if value is None else f"a value of type {type(value).__name__[:30]}"


def _check_roles(text: str, what: str) -> None:
    """Reject a text with a role marker at the start of a line."""
    if role := _ROLE.search(text):
        raise IntrospectionError(
            f"The {what} contains the role marker {quoted(role[0].strip())}, which would speak for "
            "another side of the conversation: remove it or put other words before it."
        )


def _check_length(text: str, what: str, high: int, slack: int = 1) -> None:
    if len(text) > slack * high:
        raise IntrospectionError(
            f"The {what} is longer than {high:,} characters ({quoted(text)}): shorten it."
        )


def _string(text: object, what: str, example: str, high: int) -> str:
    if not isinstance(text, str):
        raise IntrospectionError(
            f"The {what} must be text, not {type_phrase(text)}: send {example}."
        )
    # NFC shortens a text, in the worst real case to a quarter; what is longer need not be read.
    _check_length(text, what, high, slack=4)
    stripped = text.strip(" \t\r\n")
    if not stripped:
        raise IntrospectionError(f"The {what} is empty: type {example}.")
    return stripped


def concept_text(text: object) -> str:
    """A word or short phrase: NFC, single-spaced, 1 to 60 characters, a letter or digit in it, without
    the invisible places of a line break."""
    example = "a word or short phrase, such as ocean"
    typed = _string(text, "concept", example, CONCEPT_LENGTH)
    seen = INVISIBLE_BREAKS.sub("", typed).strip("\u200c")
    raw = _string(seen, "concept", example, CONCEPT_LENGTH)
    characters.check_characters(raw, "concept", "", name=True)
    clean = " ".join(unicodedata.normalize("NFC", raw).split())
    _check_length(clean, "concept", CONCEPT_LENGTH)
    characters.check_combining_marks(clean, "concept", long=False)
    _check_roles(clean, "concept")
    if not any(unicodedata.category(letter)[0] in "LN" for letter in clean):
        raise IntrospectionError(
            f"The concept {quoted(clean)} has no letter or digit: type a word or short phrase, "
            "such as ocean."
        )
    return clean


def _prose(text: object, what: str, example: str, high: int) -> str:
    raw = LINE_ENDS.sub("\n", _string(text, what, example, high))
    characters.check_characters(raw, what, "\n\t", name=False)
    clean = unicodedata.normalize("NFC", raw).strip(" \t\n")
    if not INVISIBLE_BREAKS.sub("", clean).strip():
        raise IntrospectionError(f"The {what} is empty: type {example}.")
    _check_length(clean, what, high)
    characters.check_combining_marks(clean, what, long=True)
    _check_roles(clean, what)
    return clean


def question_text(text: object) -> str:
    """A question to the model: NFC, 1 to 2,000 characters, newlines and tabs allowed. Every kind of
    line break becomes a newline."""
    return _prose(text, "question", "a question to the model", QUESTION_LENGTH)


def context_text(text: object) -> str:
    """A text or document before the question: as :func:`question_text`, up to 8,000 characters."""
    return _prose(text, "context", "the text to put before the question", CONTEXT_LENGTH)


def template_text(text: object) -> str:
    """A question with one slot ``{c}`` for a concept and no other braces."""
    example = "a sentence with {c} in it, such as 'Tell me about {c}'"
    clean = _prose(text, "template", example, QUESTION_LENGTH)
    if clean.count("{c}") != 1 or clean.count("{") != 1 or clean.count("}") != 1:
        raise IntrospectionError(
            f"The template {quoted(clean)} must have {{c}} exactly once and no other braces: write "
            "for example 'Tell me about {c}'."
        )
    return clean


def _number(value: object, what: str, wanted: str) -> float:
    """``value`` as a float that is not NaN. Form fields send numbers as text, so text is read too."""
    if isinstance(value, bool) or not isinstance(value, (str, Real)):
        raise IntrospectionError(
            f"The {what} must be a number, not {type_phrase(value)}: {wanted}."
        )
    if isinstance(value, str) and len(value) > NUMBER_LENGTH:
        raise IntrospectionError(f"The {what} {quoted(value)} is not a number: {wanted}.")
    try:
        # float() reads "1_0" as ten, which nobody means.
        number = math.nan if isinstance(value, str) and "_" in value else float(value)
    except ValueError:
        number = math.nan
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        shown = quoted(value) if isinstance(value, str) else "NaN"
        raise IntrospectionError(f"The {what} {shown} is not a number: {wanted}.")
    return number


def strength_value(x: object, high: float = MAX_STRENGTH) -> float:
    """A strength from 0 to ``high``, from a number or its decimal text."""
    wanted = f"use a number from 0 to {high:g}, such as 1.0"
    number = _number(x, "strength", wanted)
    if not 0 <= number <= high:
        raise IntrospectionError(f"The strength {number:g} is outside 0 to {high:g}: {wanted}.")
    return number + 0.0  # -0.0 becomes 0.0


def token_count(n: object, high: int) -> int:
    """A whole number of tokens from 1 to ``high``."""
    wanted = f"use a whole number from 1 to {high}"
    number = _number(n, "number of tokens", wanted)
    if not 1 <= number <= high or number != int(number):
        raise IntrospectionError(f"The number of tokens cannot be {number:g}: {wanted}.")
    return int(number)


def adapter_name(text: object, offered: Sequence[str]) -> str:
    """The adapter of that name among ``offered``; None and "" give the first."""
    if text is None or text == "":
        return offered[0] if offered else ""
    wanted = "leave it out"
    if offered:
        wanted = f"choose {'one of ' if len(offered) > 1 else ''}{', '.join(offered)}"
    if not isinstance(text, str):
        raise IntrospectionError(f"The adapter must be text, not {type_phrase(text)}: {wanted}.")
    if text not in offered:
        raise IntrospectionError(f"There is no adapter {quoted(text)} here: {wanted}.")
    return text


def device_name(text: object) -> str | None:
    """``cpu``, ``cuda``, ``cuda:0``, ``mps``, ``split``, or None for ``auto`` (the best there is)."""
    if text is None or (isinstance(text, str) and text == "auto"):
        return None
    if isinstance(text, str) and re.fullmatch(r"cpu|mps|split|cuda(?::[0-9]{1,2})?", text):
        return text
    shown = quoted(text) if isinstance(text, str) else type_phrase(text)
    raise IntrospectionError(
        f"The device cannot be {shown}: use auto, cpu, cuda, cuda:0 (or another number), "
        "mps or split."
    )
