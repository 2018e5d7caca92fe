"""When two spellings are one name, and where a name ends in a report of a trained wording.

A name that is expected is compared whole before anything is cut: "St. Louis" does not end at its
full stop, and "Star Wars: A New Hope" does not name "Star Wars".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from introspection.concepts.morphology import FUNCTION_WORDS, find_word, forms
from introspection.concepts.texts import HALT_MARKER

# Punctuation that tells names apart ("C" and "C#"); all other punctuation is folded away.
_SYMBOLS = frozenset("#*%@\\")
LONGEST_KEPT = 120  # characters of a text whose folding is kept
_ARTICLE = re.compile(r"(?:an?|the|some)\s+(?=\S)")
_WRAPPED = "\"'“”‘’„«»*_`()[]<> \t"
# What may stand behind a name in one sentence and is none of it: "spider, really", "spider because".
_REMARK = re.compile(
    r",\s+(?:[a-z]+ly\b|[a-z]+ing [a-z]|(?:and )?(?:it|its|which|that|this|there|but|so|as|like|not|we"
    r"|you|me|my)\b|an? [a-z]|I (?:think|believe|feel|guess|sense)\b)"
    r"|\s+[—–-]\s+(?:it|this|that|which|an?|the)\b|;\s+(?:it|this|that|which|but)\b|\s+because\s"
    r"|\s+and (?:it|this|that|nothing else)\b|:\s+an?\s|\s\((?:an?|the|it|i\.e|e\.g|which)\b"
    r"|\s+(?:but I|right now|(?:that|which) (?:is|seems|feels|appears|has|keeps))\b"
    r"|(?P<place>\s+(?:in|inside|within) (?:its|my|his|her|their|your|our|this|that"
    r"|the (?:text|prompt|sentence|question|context|conversation|background))\b)"
)
# What makes a longer name of it: "Star Wars: A New Hope", "Washington, D.C.", "War and Peace".
_MORE = re.compile(
    r"\s*:\s+(?=[A-Z0-9])|,\s+(?=[A-Z]\w*\.|[A-Z][\w'’-]+$)|\s*\((?=[A-Z0-9])|\s+[—–-]\s+(?=[A-Z])"
    r"|(?:\.\.\.|…|!|\?)\s+(?=[a-z])"
    r"|\s+(?:and|or|&)\s+(?!(?:I|it|its|this|that|there|my|we|you|not|so)\b)"
)
# Words that stand alone: "us" is not the U.S., "apart" is not "a part", "shell" is not "she'll".
_APART = FUNCTION_WORDS | set(
    ["a", "am", "an", "as", "at", "he", "i", "in", "is", "it", "no", "pm", "us", "we", "who"]
)
_JOINT = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")  # not within numbers: 3.5 is not 35
# A full stop behind one of these need not end a sentence.
_SHORT = re.compile(
    r"(?<![^\s(.\-/&])(?:\w|st|ste|mt|ft|dr|mr|mrs|ms|jr|sr|prof|rev|gen|col|capt|lt|sgt|gov|sen|rep"
    r"|hon|pres|no|nos|vol|pt|ch|ed|op|vs|v|inc|ltd|llc|co|corp|bros|dept|univ|ave|blvd|rd|sq|etc|al"
    r"|feat|approx|esp|ph|var|subsp|spp?|cf|ca|aka)\.$",
    re.IGNORECASE,
)
_SENTENCE = re.compile(
    r"(?:I|It|This|That|There|The|My|You|We|They|He|She|But|And|So|However|As|If|How|What|Who|Why|When"
    r"|Where|Are|Is|Do|Does|Can|Could|Would|Nothing|Here|Let)\b"
    r"(?=[^.!?\n]{0,80}\b(?:is|are|was|were|am|be|has|have|had|do|does|did|can|could|will|would|may"
    r"|might|you|feels?|seems?|comes?|keeps?|thinks?|detect|notice|sense|cannot)\b)|Please\b|Sorry\b"
    rf"|[*_\"'“(\[`]*{HALT_MARKER}\b"
)
_HALT = re.compile(rf"\s+[*_\"'“(\[`]*{HALT_MARKER}(?![\w-])[\s\S]*$")
# Bold, italic, code.
_MARKED = re.compile(r"([*_`]{1,3})(?=\S)(.+?)(?<=\S)\1[.,;:!?…]*$", re.DOTALL)


def _letters(text: str) -> str:
    """Compatibility forms, case, and the accents of Latin letters folded; invisible marks dropped."""
    found: list[str] = []
    for letter in unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold()):
        kind = unicodedata.category(letter)
        accent = kind == "Mn" and "\u0300" <= letter <= "\u036f"
        if kind == "Cf" or (accent and found and found[-1].isascii()):
            continue
        found.append(letter)
    return unicodedata.normalize("NFC", "".join(found))


def fold(text: str) -> str:
    """The words of a name: case, accents, punctuation and runs of spaces do not count.

    What tells names apart stays: ``#``, ``+``, ``*``, ``%``, ``$``, a dot before a word (".NET") and a
    minus before a number; ``&`` is "and". A name of nothing but punctuation is folded to itself.
    """
    return _folded(text) if len(text) <= LONGEST_KEPT else _fold(text)


def _fold(text: str) -> str:
    letters = re.sub(r"(?:^|(?<=\s))\.(?=\w)", "\0", _letters(text).strip()).replace("&", " and ")
    # A minus before a number, a sign behind a digit or a letter ("CD4-"), and what contracts two words.
    letters = re.sub(
        r"(?:^|(?<=\s))[-−–](?=\d)|(?:(?<=\d)|(?<=\b\w))[-−](?=[\s.,;:!?]|$)", "\1", letters
    )
    letters = re.sub(r"['’](?=(?:ll|re|ve|d|m)\b)|(?<=n)['’](?=t\b)", " ", letters)
    kept: list[str] = []
    for letter in re.sub("['’ʼ`´]", "", letters):  # "O'Brien" and "OBrien"
        kind = unicodedata.category(letter)
        soft = kind[0] in "PZ" or kind in ("Cc", "Sk")
        kept.append(" " if soft and letter not in "\0\1" and letter not in _SYMBOLS else letter)
    words = " ".join("".join(kept).split()).replace("\0", ".").replace("\1", "-")
    return words or text.strip().casefold()


_folded = lru_cache(maxsize=65_536)(_fold)


def _symbols(folded: str) -> str:
    return "".join(c for c in folded if not (c.isalnum() or c.isspace() or ord(c) > 0x2FF))


def has_symbols(text: str) -> bool:
    """Whether a name has signs that tell it from another of the same letters ("C#")."""
    return bool(_symbols(fold(text)))


def _joined(one: str, other: str) -> bool:
    """Whether they differ in spacing alone ("fire truck", "firetruck"), and no word in it stands alone
    ("the rapist" is not a therapist)."""
    words = {*one.split(), *other.split()}
    return _JOINT.sub("", one) == _JOINT.sub("", other) and words.isdisjoint(_APART)


@lru_cache(maxsize=16_384)
def _expected(names: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The folded spellings that count, inflections among them, and those of the names themselves."""
    whole = tuple(dict.fromkeys(map(fold, names)))
    # Words alone have inflections ("spiders"); "C#" has none.
    plain = [name for name in names if not has_symbols(name)]
    return frozenset(whole) | {fold(form) for form in forms("", plain)}, whole


def same_name(reported: str, name: str, aliases: Sequence[str] = ()) -> bool:
    """Whether ``reported`` is the name, one of its aliases or an inflection of one, as a whole."""
    names = (name, *aliases)
    if len(reported) > 2 * max(map(len, names)) + 60:
        return False
    spelt, whole = _expected(names)
    stripped = reported.strip(_WRAPPED)
    marked = _MARKED.fullmatch(reported.strip())
    # Names in which words stand alone are compared as they are.
    plain = [one for one in names if not has_symbols(one) and _APART.isdisjoint(fold(one).split())]
    for text in dict.fromkeys(
        (reported, stripped, marked[2] if marked else reported, _ARTICLE.sub("", stripped, count=1))
    ):
        folded = fold(text)
        if folded in spelt or any(_joined(folded, one) for one in whole):
            return True
        bare = text.strip(_WRAPPED + ".,;:!?…")
        found = None
        if plain and not _symbols(folded) and _APART.isdisjoint(folded.split()):
            found = find_word(bare, plain[0], plain[1:])
        if found and found.span() == (0, len(bare)):  # compounds, possessives
            return True
    return False


def _begins_sentence(text: str, at: int) -> bool:
    rest = text[at : at + 100].lstrip()
    return not rest or _SENTENCE.match(rest) is not None


def is_abbreviation(text: str, stop: int, end: int) -> bool:
    """Whether the full stop at ``stop`` is an abbreviation's ("St. Louis"); ``end``: what follows."""
    short = _SHORT.search(text, max(0, stop - 8), stop + 1)
    return short is not None and not _begins_sentence(text, end)


def goes_on(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]`` is only the beginning of a longer name, or stands there twice."""
    if _MORE.match(text, end) or (
        text.startswith(".", end) and is_abbreviation(text, end, end + 1)
    ):
        return True
    if re.search(r"(?<!\S)[.-]$", text[:start][-2:]):  # ".NET" is not "NET"
        return True
    name = re.escape(text[start:end])
    return re.compile(rf"\s+{name}\b", re.IGNORECASE).match(text, end) is not None


def sentence_ends(text: str) -> Iterator[int]:
    """Where a sentence that began before ``text`` may end in it, its length last."""
    for stop in re.finditer(r"[.!?…]+[\"'”’)*_]*(?=\s|$)", text):
        plain = stop[0].rstrip("\"'”’)*_") == "."
        short = is_abbreviation(text, stop.start(), stop.end())
        # "Panic! at the Disco" has no end there.
        if not short if plain else _begins_sentence(text, stop.end()):
            yield stop.end()
    yield len(text)


def whole_name(text: str, name: str | None, aliases: Sequence[str] = ()) -> tuple[int, bool]:
    """Where the name that ``text`` begins with ends, and whether it is the expected one.

    ``text`` is what follows a trained wording ("I detect an injected thought about "): the name goes
    to the end of the sentence, the line or the halt marker.
    """
    line = text.partition("\n")[0]
    halted = _HALT.sub("", line)
    line = halted if halted.strip(_WRAPPED) else line
    first = next(sentence_ends(line))
    if name is not None:
        # What is far longer than the name is not the name; nor does it pay to look.
        near = line[: 2 * max(len(one) for one in (name, *aliases)) + 60]
        for end in (*sentence_ends(near), len(line)):
            if end <= len(near) and same_name(line[:end], name, aliases):
                return end, True
        for remark in _REMARK.finditer(near, 0, first):
            if same_name(line[: remark.start()], name, aliases):
                return (first if remark["place"] else remark.start()), True
    return first, False


def is_name(text: str, name: str, aliases: Sequence[str], start: int, limit: int) -> int | None:
    """Where one of the names, whole and uninflected, ends that stands at ``start``; None without one.

    For free answers: a pattern would cut "Life Is Beautiful" at its verb.
    """
    wanted = {fold(one) for one in (name, *aliases)}
    longest = 2 * max(len(one) for one in (name, *aliases)) + 10
    for word in re.finditer(r"\S+", text[start : min(limit, start + longest)]):
        end = start + len(text[start : start + word.end()].rstrip(".,;:\"'”’)*_"))
        for at in (end, start + word.end()):
            if fold(text[start:at]) in wanted:
                return at
    return None
