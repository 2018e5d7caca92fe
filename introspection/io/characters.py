"""Which characters a text may have: none that turns its direction, hides something or is no character,
and no stacks of accents."""

from __future__ import annotations

import re
import unicodedata

from introspection.errors import IntrospectionError

MAX_COMBINING = 12
QUOTED_LENGTH = 40

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_JOINERS = ("\u200c", "\u200d")
# Invisible places of a line break: soft hyphen, zero-width space, word joiner, byte order mark.
INVISIBLE_BREAKS = re.compile("[\u00ad\u200b\u2060\ufeff]")
# Every way to end a line.
LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
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


def quoted(text: str) -> str:
    """``text`` for an error message: quoted, at most 40 characters, invisible ones escaped."""
    return repr(text[:QUOTED_LENGTH]) + ("..." if len(text) > QUOTED_LENGTH else "")


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


def check_characters(text: str, what: str, allowed: str, name: bool) -> None:
    """Raise IntrospectionError for a character that is not text or, in a ``name``, is invisible.

    ``what`` names the input in the sentence, ``allowed`` are characters that are not looked at.
    """
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


def check_combining_marks(text: str, what: str, long: bool) -> None:
    """Raise IntrospectionError for letters under a stack of accents, which draw over their
    neighbours; a ``long`` text may have many marks, but not many on one letter."""
    marks = run = longest = 0
    for letter in text:
        combining = unicodedata.category(letter).startswith("M")
        run = run + 1 if combining else 0
        marks, longest = marks + combining, max(longest, run)
    # A long text in Hindi or Thai has many marks.
    if (longest if long else marks) > MAX_COMBINING:
        raise IntrospectionError(
            f"The {what} has more than {MAX_COMBINING} combining marks: remove the stacked accents."
        )
