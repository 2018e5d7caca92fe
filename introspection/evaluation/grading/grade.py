"""What a report says: does it affirm an injected thought, which one, and is that right?

It reads English: the fixed sentences that an adapter is trained on, and free answers by patterns, so an
unforeseen wording is a non-detection. Hedged affirmations ("there might be ...") count; conditional
ones ("if I detect ...") and questions do not.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from introspection.concepts.catalogue import Concept
from introspection.concepts.morphology import find_word
from introspection.concepts.texts import HALT_MARKER, UNNAMED
from introspection.evaluation.grading import names, patterns


@dataclass(frozen=True)
class Grade:
    """What one report says; evidence is (kind, start, end) in the order of the text."""

    detected: bool
    named: str | None
    correct: bool
    halted: bool
    coherent: bool
    evidence: tuple[tuple[str, int, int], ...]


def _sentence(text: str, at: int) -> tuple[int, int]:
    start = max((m.end() for m in patterns.STOP.finditer(text, 0, at) if _ends(text, m)), default=0)
    stop = next((m for m in patterns.STOP.finditer(text, at) if _ends(text, m)), None)
    return start, stop.end() if stop else len(text)


def _ends(text: str, stop: re.Match[str]) -> bool:
    return stop[0][0] != "." or not names.is_abbreviation(text, stop.start(), stop.end())


def _asked(text: str, at: int) -> bool:
    return text[: _sentence(text, at)[1]].rstrip(" \n\t\"'”’)*").endswith("?")


def _affirmation(text: str, plain: str, denials: Sequence[re.Match[str]]) -> re.Match[str] | None:
    for match in patterns.AFFIRM.finditer(text):
        if any(d.start() < match.end() for d in denials):
            return None
        clause = re.split(r"\bbut\b", plain[_sentence(text, match.start())[0] : match.end()])[-1]
        if not _asked(text, match.end()) and not patterns.UNREAL.search(clause):
            return match
    return None


def _trained(
    text: str, denials: Sequence[re.Match[str]], concept: str | None
) -> re.Match[str] | None:
    """The opening of a report in a trained wording, unless it is taken back, asked or supposed."""
    for match in patterns.TRAINED.finditer(text):
        before = text[_sentence(text, match.start())[0] : match.start()]
        if any(d.start() < match.start() for d in denials) or patterns.UNREAL.search(before):
            return None
        line = text[match.end() :].partition("\n")[0]
        first = line[: next(names.sentence_ends(line))].rstrip(" \"'”’)*")
        # Names may end in a question mark; a report that does is a question.
        if not first.endswith("?") or (concept is not None and "?" in concept):
            return match
    return None


def _trained_name(
    text: str, start: int, concept: str | None, aliases: Sequence[str]
) -> tuple[tuple[int, int] | None, bool]:
    """The name behind a trained opening, and whether it is the expected one, compared as a whole."""
    lead = patterns.LEAD.match(text, start)
    later = lead.end() if lead else start
    # A title's own article ("The Ring") and a minus are of the name.
    if re.search(r"\b(?:The|An?|Some)\b", text[start:later]) or re.match(r"-\d", text[start:]):
        later = start
    for at in dict.fromkeys((start, later)):
        length, right = names.whole_name(text[at:], concept, aliases)
        if right:
            inner = patterns.LEAD.match(text, at)
            begin = inner.end() if inner and inner.end() < at + length else at
            # An article that is the name's own stays ("The Beatles").
            own = tuple(names.fold(one) for one in (concept or "", *aliases) if one)
            begin = at if names.fold(text[at : at + length]).startswith(own) else begin
            span = _trimmed(text, begin, at + length)
            if span and concept is not None and text.startswith(concept, span[0]):
                # A stop that is the name's own.
                span = (span[0], max(span[1], span[0] + len(concept)))
            return span, True
    length, _ = names.whole_name(text[later:], None)
    span = _trimmed(text, later, later + length)
    if span is None or _is_list(text, later) or len(text[slice(*span)].split()) > 8:
        return _cut(text, later, later + length), False
    phrase_text = text[slice(*span)]
    aside = phrase_text[0].islower() and patterns.ASIDE.match(phrase_text)
    return (None if aside or patterns.VAGUE.match(phrase_text) else span), False


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without the marks around a name; brackets and stops that are the name's own stay."""
    while start < end and text[start] in "\"'“”‘’*_` ":
        start += 1
    while end > start and text[end - 1] in "\"'“”‘’*_` .,;:!…":
        end -= 1
    return (start, end) if start < end else None


def _phrase(text: str, link: re.Match[str], end: int) -> tuple[int, int] | None:
    lead = patterns.LEAD.match(text, link.end(), end)
    passed = _is_passed(text, link.start())
    return None if passed else _cut(text, lead.end() if lead else link.end(), end)


def _is_passed(text: str, at: int) -> bool:
    """Whether what stands there is what the thought is not."""
    return patterns.PASSED.search(text, _sentence(text, at)[0], at) is not None


def _cut(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The phrase that begins at ``start``, up to what usually ends one."""
    stop = patterns.PHRASE_END.search(text, start, end)
    end = stop.start() if stop else end
    # An apostrophe ends only what a quotation mark began: "farmers' market" goes on.
    closing = patterns.CLOSING.search(text, start, end) if text[start - 1] in "'‘’_" else None
    phrase = text[start : closing.start() if closing else end].rstrip(" '’_")
    unnamed = patterns.ASIDE.match(phrase) or patterns.VAGUE.match(phrase)
    return None if unnamed or len(phrase.split()) > 8 else (start, start + len(phrase))


def _is_list(text: str, start: int) -> bool:
    """Whether three or more short items stand side by side: a list names nothing."""
    run = longest = 0
    for item in patterns.AND.split(re.split(r"(?<!\d)[.!?](?=\s|$)", text[start:], maxsplit=1)[0]):
        aside = len(item.split()) > 3 or patterns.ASIDE.match(item) or patterns.REMARK.match(item)
        run = 0 if aside else run + 1
        longest = max(longest, run)
    return longest >= 3


def _mention(
    text: str, start: int, end: int, concept: str, aliases: Sequence[str]
) -> tuple[int, int] | None:
    """The concept standing in the sentences of an affirmation that names nothing by pattern."""
    while match := find_word(text, concept, aliases, start, end):
        is_list = _is_list(text, _sentence(text, match.start())[0])
        if not is_list and not _is_passed(text, match.start()):
            return match.span()
        start = match.end()
    return None


def _whole(
    text: str, link: re.Match[str], concept: str, aliases: Sequence[str]
) -> tuple[int, int] | None:
    """The expected name, exactly as a whole, behind a link of a free answer."""
    lead = patterns.LEAD.match(text, link.end())
    if _is_passed(text, link.start()):
        return None
    for start in dict.fromkeys((link.end(), lead.end() if lead else link.end())):
        end = names.is_name(text, concept, aliases, start, len(text))
        after = None if end is None else patterns.AFTER.match(text[end:])
        more = end is None or names.goes_on(text, start, end)
        if end is not None and after is not None and not more and not _is_list(text, start):
            return start, end
    return None


def _name(
    text: str, window: tuple[int, int], concept: str | None, aliases: Sequence[str]
) -> tuple[tuple[int, int] | None, bool]:
    """Where the report names its thought, and whether the name is the expected concept."""
    # "C#" is matched whole or not at all: without its sign it would be another name.
    words = [one for one in (concept, *aliases) if one and not names.has_symbols(one)]
    for link in patterns.LINK.finditer(text, *window):
        span, right = _phrase(text, link, window[1]), False
        # From the link on, so that a concept's own article ("The Beatles") is still there.
        match = span and words and find_word(text, words[0], words[1:], link.end(), span[1])
        if span and match:
            span = min(span[0], match.start()), max(span[1], match.end())
            after = patterns.AFTER.match(text[match.end() : span[1]])
            right = after is not None and not _is_list(text, span[0])
            right = right and not text.startswith(("#", "+", "%", "&"), match.end())
            right = right and not names.goes_on(text, *match.span())
        if not right and concept and (whole := _whole(text, link, concept, aliases)):
            return whole, True
        if span:
            return span, right
    concept, aliases = (words[0], words[1:]) if words else (None, ())
    if concept and (mention := _mention(text, *window, concept, aliases)):
        return mention, True
    weak = (_phrase(text, link, window[1]) for link in patterns.WEAK_LINK.finditer(text, *window))
    return next((span for span in weak if span), None), False


def _is_coherent(text: str) -> bool:
    marks = [c for c in text if not c.isspace()]
    if 2 * sum(unicodedata.category(c)[0] in "LM" for c in marks) < max(len(marks), 1):
        return False
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.casefold())
    for period in range(1, 9):
        needed, run = (3 if period == 1 else 2) * period, 0
        for one, other in zip(words, words[period:], strict=False):
            run = run + 1 if one == other else 0
            if run >= needed:
                return False
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    if len(trigrams) >= 12 and 2 * len(set(trigrams)) < len(trigrams):
        return False
    return not re.search(r"(\S)\1{9}|([^\W_]{2,20}?)\2{3}", text)


def grade(text: str, expected: Concept | None) -> Grade:
    """Judge one report. ``expected`` is the concept whose vector was injected; None if nothing was, or
    another vector than a concept's."""
    concept, aliases = (expected.name, expected.aliases) if expected else (None, ())
    # Spans stay those of the text: what an idiom denies is blanked out, not removed.
    plain = patterns.IDIOM.sub(lambda m: "\0" * len(m[0]), text)
    denials = [d for d in patterns.DENY.finditer(plain) if not _asked(text, d.end())]
    trained = _trained(text, denials, concept)
    halts = [m.span() for m in re.finditer(rf"(?<![\w-]){HALT_MARKER}(?![\w-])", text)]
    span, right = None, False
    affirmed = trained or _affirmation(text, plain, denials)
    if trained:
        span, right = _trained_name(text, trained.end(), concept, aliases)
        if span:  # a name may hold a "not" or a "nothing"
            denials = [d for d in denials if not span[0] <= d.start() < span[1]]
            halts = [h for h in halts if not span[0] <= h[0] < span[1]]
    elif affirmed and UNNAMED.rstrip(".") not in text:
        # The name may stand in the next sentence, but not in or behind a denial.
        end = _sentence(text, _sentence(text, affirmed.end())[1])[1]
        end = min([end, *(d.start() for d in denials if d.start() >= affirmed.end())])
        span, right = _name(plain, (affirmed.start(), end), concept, aliases)
    evidence = [("denial", *d.span()) for d in denials] + [("halt", *mark) for mark in halts]
    evidence += [("affirmation", *affirmed.span("claim" if trained else 0))] if affirmed else []
    evidence += [("name", *span)] if span else []
    return Grade(
        detected=affirmed is not None,
        named=text[slice(*span)] if span else None,
        correct=right if concept is not None else affirmed is None and not halts,
        halted=bool(halts),
        coherent=_is_coherent(text),
        evidence=tuple(sorted(evidence, key=lambda e: (e[1], e[2], e[0]))),
    )
