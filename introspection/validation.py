"""What a visitor, a script or the command line may ask for: one check for all three.

Knows: the limits of every input, and which characters and tokens may not reach a prompt. Does not
know: models (no torch here), where an input came from, how a message is shown.

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
from typing import TYPE_CHECKING, Any

from introspection.errors import IntrospectionError

if TYPE_CHECKING:
    from introspection.trials import Schedule

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
_JOINER = "\u200d"
_OBJECT = "\ufffc"  # left by pasting from a PDF; trials mark messages with it
# What the usual chat templates write around a turn, for models whose tokenizer is not at hand. The
# second bar is DeepSeek's.
_TOKENS = re.compile(
    r"<[|｜][^<>\n]{0,80}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk|mask)>"
    r"|<(?:start|end)_of_turn>",
    re.IGNORECASE,
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


def _special_tokens(tokenizer: Any) -> set[str]:
    """Every text that the tokenizer turns into a control token.

    ``all_special_tokens`` alone lists only the named ones (SmolLM2: 3 of 17).
    """
    if tokenizer is None:
        return set()
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {*tokenizer.all_special_tokens, *(str(t.content) for t in added if t.special)}
    return {token for token in tokens if token.strip()}


def _characters(text: str, what: str, allowed: str) -> None:
    """Reject what cannot be seen or is not text at all."""
    for letter in text:
        if letter in allowed:
            continue
        kind = unicodedata.category(letter)
        if letter == _JOINER:
            problem = (
                "a zero-width joiner (U+200D), which is invisible and makes two equal-looking "
                "texts differ: use a word or a simple emoji instead of a joined one"
            )
        elif letter in _BIDI:
            problem = (
                f"a text-direction character (U+{ord(letter):04X}), which can hide what the text "
                "says: delete it or type the text by hand"
            )
        elif kind in ("Cc", "Zl", "Zp"):
            problem = (
                f"a control character or line break (U+{ord(letter):04X}): delete it or type the "
                "text by hand"
            )
        elif kind == "Cf":
            problem = (
                f"an invisible character (U+{ord(letter):04X}): delete it or type the text by hand"
            )
        elif letter == _OBJECT:
            problem = "the place of a picture or object (U+FFFC), which is not text: delete it"
        elif kind in ("Cs", "Co") or ord(letter) & 0xFFFE == 0xFFFE:
            problem = (
                f"a code that is no character (U+{ord(letter):04X}): delete it or send the text as "
                "UTF-8"
            )
        else:
            continue
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


def _tokens(text: str, what: str, role: re.Match[str] | None, tokenizer: Any) -> None:
    """Reject what would end the user's turn and speak for somebody else."""
    found = _TOKENS.search(text)
    token = found[0] if found else next((t for t in _special_tokens(tokenizer) if t in text), None)
    if token is not None:
        raise IntrospectionError(
            f"The {what} contains {quoted(token)}, which a model reads as a control token and not "
            "as text: remove it."
        )
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


def concept_text(text: object, tokenizer: Any = None) -> str:
    """A word or short phrase: NFC, single-spaced, 1 to 60 characters, a letter or digit in it.

    With a tokenizer its own special tokens are refused too, not only the usual ones.
    """
    raw = _string(text, "concept", "a word or short phrase, such as ocean", CONCEPT_LENGTH)
    _characters(raw, "concept", "")
    clean = " ".join(unicodedata.normalize("NFC", raw).split())
    _length(clean, "concept", CONCEPT_LENGTH)
    _marks(clean, "concept", long=False)
    _tokens(clean, "concept", _ROLE_AT_START.match(clean), tokenizer)
    if not any(unicodedata.category(letter)[0] in "LN" for letter in clean):
        raise IntrospectionError(
            f"The concept {quoted(clean)} has no letter or digit: type a word or short phrase, "
            "such as ocean."
        )
    return clean


def _prose(text: object, what: str, example: str, high: int, tokenizer: Any) -> str:
    raw = _string(text, what, example, high).replace("\r\n", "\n").replace("\r", "\n")
    _characters(raw, what, "\n\t")
    clean = unicodedata.normalize("NFC", raw)
    _length(clean, what, high)
    _marks(clean, what, long=True)
    _tokens(clean, what, _ROLE_AT_LINE.search(clean), tokenizer)
    return clean


def question_text(text: object, tokenizer: Any = None) -> str:
    """What is put to the model: NFC, 1 to 2,000 characters, newlines and tabs allowed."""
    return _prose(text, "question", "a question to the model", QUESTION_LENGTH, tokenizer)


def context_text(text: object, tokenizer: Any = None) -> str:
    """An earlier text or document: as a question, up to 8,000 characters."""
    return _prose(text, "context", "the text to put before the question", CONTEXT_LENGTH, tokenizer)


def template_text(text: object, tokenizer: Any = None) -> str:
    """A question with one slot ``{c}`` for a concept and no other braces."""
    example = "a sentence with {c} in it, such as 'Tell me about {c}'"
    clean = _prose(text, "template", example, QUESTION_LENGTH, tokenizer)
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


def strength_value(x: object) -> float:
    """A strength from 0 to 16, from a number or its decimal text."""
    wanted = f"use a number from 0 to {MAX_STRENGTH:g}, such as 1.0"
    number = _number(x, "strength", wanted)
    if not 0 <= number <= MAX_STRENGTH:
        raise IntrospectionError(
            f"The strength {number:g} is outside 0 to {MAX_STRENGTH:g}: {wanted}."
        )
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
    from introspection.trials import Schedule

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
