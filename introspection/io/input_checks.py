"""What a visitor, a script or the command line may ask for: one check for all three.

Knows: the limits of every input, and which characters may not reach a prompt. Does not know: models
(no torch here), where an input came from, how a message is shown. What looks like a control token is
text here as everywhere: ``prompt_tokens`` sees to it that a model reads it so.

Every function takes whatever JSON, a form or a shell can hand over, returns a clean value, and
raises IntrospectionError, never anything else, for the rest. Browser limits are no limits: a script
sends what it likes, so nothing is taken for granted.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

from introspection.errors import IntrospectionError

if TYPE_CHECKING:
    from introspection.injection.trials.trial import Schedule

__all__ = [
    "CONCEPT_LENGTH",
    "CONTEXT_LENGTH",
    "MAX_STRENGTH",
    "QUESTION_LENGTH",
    "adapter_name",
    "concept_text",
    "context_text",
    "device_name",
    "question_text",
    "quoted",
    "schedule_value",
    "strength_value",
    "template_text",
    "token_count",
]

CONCEPT_LENGTH = 60
QUESTION_LENGTH = 2_000
CONTEXT_LENGTH = 8_000
MAX_STRENGTH = 16.0
MAX_COMBINING = 12
QUOTED_LENGTH = 40
NUMBER_LENGTH = 40

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_JOINERS = ("\u200c", "\u200d")
# Where a line may be broken, of which nothing is seen: soft hyphen, zero-width space, word joiner, and
# a byte order mark in the middle of a text.
_BREAKS = re.compile("[\u00ad\u200b\u2060\ufeff]")
# Every way to end a line, as one.
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_TAGS = frozenset(map(chr, range(0xE0000, 0xE0080)))
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{1,8}\U000e007f")  # of Scotland, for one
_OBJECT = "\ufffc"  # left by pasting from a PDF; trials mark messages with it
# The first words of the names of letters that change their shape beside a joiner.
_JOINED_SCRIPTS = re.compile(
    r"(?:EXTENDED )?(?:"
    r"ADLAM|ARABIC|BALINESE|BATAK|BENGALI|BRAHMI|BUGINESE|BUHID|CHAKMA|CHAM|DEVANAGARI|"
    r"GRANTHA|GUJARATI|GURMUKHI|HANIFI|JAVANESE|KAITHI|KANNADA|KHAROSHTHI|KHMER|KHOJKI|LAO|"
    r"LEPCHA|LIMBU|MALAYALAM|MANDAIC|MANICHAEAN|MEETEI|MODI|MONGOLIAN|MYANMAR|NEWA|NKO|"
    r"ORIYA|PHAGS-PA|RUNIC|SAURASHTRA|SHARADA|SIDDHAM|SINHALA|SOGDIAN|SUNDANESE|SYLOTI|"
    r"SYRIAC|TAGALOG|TAI|TAKRI|TAMIL|TELUGU|THAANA|THAI|TIBETAN|TIFINAGH|TIRHUTA|VEDIC"
    r")[ -]"
)
_GAP = r"[^\S\n]*"
_ROLE = (
    rf"{_GAP}(?:(?:#{{1,6}}{_GAP})?(?:human|user|assistant|system)"
    rf"|#{{1,6}}{_GAP}(?:instruction|response)){_GAP}[:：]"
)
_ROLE_AT_START = re.compile(_ROLE, re.IGNORECASE)
_ROLE_AT_LINE = re.compile(rf"^{_ROLE}", re.IGNORECASE | re.MULTILINE)


def quoted(text: str) -> str:
    """``text`` as it may stand in a message: quoted, at most 40 characters, nothing invisible."""
    return repr(text[:QUOTED_LENGTH]) + ("..." if len(text) > QUOTED_LENGTH else "")


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__[:30]}"


def _joined(letter: str) -> bool:
    """Whether a character belongs to a script whose letters change their shape beside a joiner."""
    return len(letter) == 1 and bool(_JOINED_SCRIPTS.match(unicodedata.name(letter, "")))


def _joins(before: str, after: str) -> bool:
    """Whether a joiner between two characters (or none) changes what is seen: beside a letter of a
    joined script, as in Persian words and suffixes, and between the parts of an emoji."""
    if before in _JOINERS or after in _JOINERS:
        return before not in _JOINERS and _joined(before)
    picture = before == "\ufe0f" or unicodedata.category(before or " ") in ("So", "Sk")
    return picture or _joined(before) or _joined(after)


def _problem(letter: str, before: str, after: str, name: bool) -> str:
    """What is wrong with a character between two others (or none), or ""; ``name``: in a name, where
    nothing may be hidden."""
    kind, code = unicodedata.category(letter), f"U+{ord(letter):04X}"
    if letter in _BIDI:
        return (
            f"a text-direction character ({code}), which can hide what the text says: delete it or "
            "type the text by hand"
        )
    if kind in ("Cc", "Zl", "Zp"):
        return f"a control character or line break ({code}): delete it or type the text by hand"
    if letter == _OBJECT:
        return "the place of a picture or object (U+FFFC), which is not text: delete it"
    if kind in ("Cs", "Co") or ord(letter) & 0xFFFE == 0xFFFE:
        return f"a code that is no character ({code}): delete it or save the text as UTF-8"
    if kind != "Cf" or (letter in _JOINERS and (not name or _joins(before, after))):
        return ""
    if letter in _TAGS or (name and not _joined(letter)):  # those of a script are drawn
        return f"an invisible character ({code})"
    return ""


def _characters(text: str, what: str, allowed: str, name: bool) -> None:
    """Reject what is not text at all, and in a name what cannot be seen."""
    plain = _FLAG.sub("\U0001f3f4", text)
    for at, letter in enumerate(plain):
        if letter in allowed or " " <= letter <= "~":
            continue
        problem = _problem(letter, plain[max(at - 1, 0) : at], plain[at + 1 : at + 2], name)
        if problem and ": " not in problem:
            clean = plain[:at] + plain[at + 1 :]
            advice = f"type {quoted(clean)}" if name else "delete it"
            problem += f" after {quoted(plain[max(at - 20, 0) : at])}: {advice}"
        if problem:
            raise IntrospectionError(f"The {what} contains {problem}.")


def _marks(text: str, what: str, long: bool) -> None:
    """Reject letters under a stack of accents, which draw over their neighbours."""
    marks = run = longest = 0
    for letter in text:
        combining = unicodedata.category(letter).startswith("M")
        run = run + 1 if combining else 0
        marks, longest = marks + combining, max(longest, run)
    # A long text in Hindi or Thai has many marks, though never many on one letter.
    if (longest if long else marks) > MAX_COMBINING:
        raise IntrospectionError(
            f"The {what} has more than {MAX_COMBINING} combining marks: remove the stacked accents."
        )


def _roles(what: str, role: re.Match[str] | None) -> None:
    """Reject what would speak for somebody else."""
    if role is not None:
        raise IntrospectionError(
            f"The {what} contains the role marker {quoted(role[0].strip())}, which would speak for "
            "another side of the conversation: remove it or put other words before it."
        )


def _length(text: str, what: str, high: int, slack: int = 1) -> None:
    if len(text) > slack * high:
        raise IntrospectionError(
            f"The {what} is longer than {high:,} characters ({quoted(text)}): shorten it."
        )


def _string(text: object, what: str, example: str, high: int) -> str:
    if not isinstance(text, str):
        raise IntrospectionError(f"The {what} must be text, not {_kind(text)}: send {example}.")
    # NFC shortens a text, in the worst real case to a quarter; what is longer need not be read.
    _length(text, what, high, slack=4)
    stripped = text.strip(" \t\r\n")
    if not stripped:
        raise IntrospectionError(f"The {what} is empty: type {example}.")
    return stripped


def concept_text(text: object) -> str:
    """A word or short phrase: NFC, single-spaced, 1 to 60 characters, a letter or digit in it.

    What is seen is what is taken: soft hyphens, zero-width spaces and their like are dropped.
    """
    example = "a word or short phrase, such as ocean"
    seen = _BREAKS.sub("", _string(text, "concept", example, CONCEPT_LENGTH)).strip("\u200c")
    raw = _string(seen, "concept", example, CONCEPT_LENGTH)
    _characters(raw, "concept", "", name=True)
    clean = " ".join(unicodedata.normalize("NFC", raw).split())
    _length(clean, "concept", CONCEPT_LENGTH)
    _marks(clean, "concept", long=False)
    _roles("concept", _ROLE_AT_START.match(clean))
    if not any(unicodedata.category(letter)[0] in "LN" for letter in clean):
        raise IntrospectionError(
            f"The concept {quoted(clean)} has no letter or digit: type a word or short phrase, "
            "such as ocean."
        )
    return clean


def _prose(text: object, what: str, example: str, high: int) -> str:
    raw = _LINE_ENDS.sub("\n", _string(text, what, example, high))
    _characters(raw, what, "\n\t", name=False)
    clean = unicodedata.normalize("NFC", raw).strip(" \t\n")
    if not _BREAKS.sub("", clean).strip():
        raise IntrospectionError(f"The {what} is empty: type {example}.")
    _length(clean, what, high)
    _marks(clean, what, long=True)
    _roles(what, _ROLE_AT_LINE.search(clean))
    return clean


def question_text(text: object) -> str:
    """What is put to the model: NFC, 1 to 2,000 characters, newlines and tabs allowed.

    Every kind of line break becomes a newline. Soft hyphens, joiners and zero-width spaces are text.
    """
    return _prose(text, "question", "a question to the model", QUESTION_LENGTH)


def context_text(text: object) -> str:
    """An earlier text or document: as a question, up to 8,000 characters."""
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
    """``value`` as a finite float. Form fields send numbers as text, so text is read too."""
    if isinstance(value, bool) or not isinstance(value, (str, Real)):
        raise IntrospectionError(f"The {what} must be a number, not {_kind(value)}: {wanted}.")
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


def schedule_value(text: object) -> Schedule:
    """A schedule from its name, such as ``final_on`` or ``span:3-7``."""
    wanted = "use final, final_on, all, prior_turn, span:3-7 or from_step:5"
    if not isinstance(text, str):
        raise IntrospectionError(f"The schedule must be text, not {_kind(text)}: {wanted}.")
    # int() inside the parser would take digits of any script, underscores and spaces.
    if not re.fullmatch(r"[a-z_]{1,12}(?::[0-9]{1,6}(?:-[0-9]{0,6})?)?", text.strip(" ")):
        raise IntrospectionError(f"The schedule {quoted(text)} is not known: {wanted}.")
    # Trials need torch; only this one check does, so it is imported here.
    from introspection.injection.trials.trial import Schedule

    return Schedule.parse(text.strip(" "))


def adapter_name(text: object, offered: Sequence[str]) -> str:
    """One of the adapters on offer, by its whole name; nothing and "" are the first."""
    if text is None or text == "":
        return offered[0] if offered else ""
    wanted = "leave it out"
    if offered:
        wanted = f"choose {'one of ' if len(offered) > 1 else ''}{', '.join(offered)}"
    if not isinstance(text, str):
        raise IntrospectionError(f"The adapter must be text, not {_kind(text)}: {wanted}.")
    if text not in offered:
        raise IntrospectionError(f"There is no adapter {quoted(text)} here: {wanted}.")
    return text


def device_name(text: object) -> str | None:
    """``cpu``, ``cuda``, ``cuda:0``, ``mps``, ``split``, or None for ``auto``: the best there is.

    Whether this machine has the device is found out when the model is loaded.
    """
    if text is None or (isinstance(text, str) and text == "auto"):
        return None
    if isinstance(text, str) and re.fullmatch(r"cpu|mps|split|cuda(?::[0-9]{1,2})?", text):
        return text
    shown = quoted(text) if isinstance(text, str) else _kind(text)
    raise IntrospectionError(
        f"The device cannot be {shown}: use auto, cpu, cuda, cuda:0 (or another number), "
        "mps or split."
    )
