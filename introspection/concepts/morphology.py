"""English morphology: lemmas, inflections, whole-word search.

Noun plurals, verb forms, possessives and the three spellings of a compound ("fire truck",
"fire-truck", "firetruck") are the same word; so are two senses of one spelling.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import simplemma
from simplemma.strategies.dictionaries.dictionary_factory import DefaultDictionaryFactory


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words whose "singular" in simplemma is another word ("mars" -> "mar", "glasses" -> "glass") or no
# word at all ("plier"). They are their own key.
KEEP = _set(
    """aids alps arms athletics binoculars bored clothes crossroads customs dice economics
    electronics excited gemini glasses goggles goods graphics hades headquarters hypochondria
    mars mathematics measles media molasses moped naked news olympics overalls pajamas pants physics
    pliers politics pyjamas savings scissors sepia series shorts spectacles species statistics
    sunglasses thanks tights tired tongs torus trivia trousers tweezers wales"""
)
# Rare forms of one word that are the spelling of another ("bare" of "bear", "cola" of "colon").
_HOMOGRAPHS = _set("bare cola gone lay opera slang")
# Plurals simplemma takes for verbs ("leaves" -> "leave") or misspells ("lenses" -> "lense").
_PLURALS = {
    "calves": "calf", "halves": "half", "leaves": "leaf", "lenses": "lens", "lives": "life",
    "loaves": "loaf", "sheaves": "sheaf", "shelves": "shelf", "bookshelves": "bookshelf",
    "bacteria": "bacterium", "thieves": "thief", "quizzes": "quiz", "gases": "gas",
    "skies": "sky",
}  # fmt: skip
# Of irregular inflections simplemma's lemma is used for these noun plurals only: its others would turn
# a saw into "see" and felt into "feel".
_IRREGULAR = (
    ("men", "man"), ("mice", "mouse"), ("lice", "louse"), ("teeth", "tooth"), ("feet", "foot"),
    ("geese", "goose"), ("children", "child"), ("oxen", "ox"), ("i", "us"), ("ae", "a"),
    ("eria", "erion"), ("omena", "omenon"), ("ia", "ium"), ("ses", "sis"), ("ices", "ix"),
    ("ices", "ex"),
)  # fmt: skip
# Nouns in -ing that are no gerunds: else a text with the word "even" would mention the evening.
_ING_NOUNS = _set(
    """bedding being building ceiling clothing drawing dressing dwelling evening feeling
    herring icing lining meaning meeting morning offering outing painting pudding setting shilling
    stocking stuffing topping wedding"""
)
# A compound is never split at one of these: "the rapist" is not a therapist.
FUNCTION_WORDS = _set(
    """all and any are but can for had has her him his how its man may more must not now off one
    our out over she some than that the them then this too two under was were what with you"""
)
_QUOTE = "['’ʼ]"
_LETTER = r"[^\W_]|[\u0300-\u036f]"
_GAP = r"(?:\s+|[-‐‑–])"


def _clean(text: str) -> str:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    letters = " ".join(folded.split())
    start, end = 0, len(letters)
    while start < end and _is_edge(letters[start]):
        start += 1
    while end > start and _is_edge(letters[end - 1]):
        end -= 1
    return re.sub(rf"{_QUOTE}s$", "", letters[start:end])


def _is_edge(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind[0] in "PZC" or kind == "Sk" or letter in "<>=|~"


def _raw(word: str) -> str:
    return simplemma.lemmatize(word, lang="en").casefold() if word else word


def plural(base: str) -> str:
    """The regular plural."""
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ies"
    return base + ("es" if re.search(r"(?:[sxz]|ch|sh)$", base) else "s")


def _verb(base: str, ending: str) -> str:
    """The regular form in "ed" or "ing"."""
    if ending == "ing" and base.endswith("ie"):
        return base[:-2] + "ying"
    if base.endswith("e") and (ending == "ed" or not base.endswith(("ee", "oe", "ye"))):
        return base[:-1] + ending
    if ending == "ed" and re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ied"
    # Only one-syllable words surely double: "plan" -> "planning", but "open" -> "opening".
    if re.fullmatch(r"(?:[^aeiou]|qu)*[aeiou][^aeiouwxy]", base) and base != "bus":
        return base + base[-1] + ending
    return base + ending


def _key(word: str) -> str:
    if word in KEEP or word.endswith(("ing", "eed")):  # simplemma: "weed" -> "wee"
        return word
    if word in _PLURALS:
        return _PLURALS[word]
    base = _raw(word)
    regular = {base + "s", base + "es", plural(base), _verb(base, "ed"), base + base[-1:] + "ed"}
    if base.endswith(("f", "fe")):
        regular.add(re.sub("fe?$", "ves", base))
    irregular = any(
        word.endswith(many) and base == word.removesuffix(many) + one for many, one in _IRREGULAR
    )
    return base if word in regular or irregular else word


def _step(text: str) -> str:
    clean = _clean(text)
    cut = max(clean.rfind(" "), clean.rfind("-")) + 1
    return clean[:cut] + _key(clean[cut:])


@lru_cache(maxsize=65_536)
def lemma(text: str) -> str:
    """The key under which a word or phrase is the same as its plural, case and punctuation."""
    # Repeating makes it idempotent. A cycle (none is known) would settle on its smallest member.
    seen: list[str] = []
    while text not in seen:
        seen.append(text)
        text = _step(text)
    return min(seen[seen.index(text) :])


@lru_cache(maxsize=1)
def _dictionary() -> Mapping[str, str]:
    entries = DefaultDictionaryFactory().get_dictionary("en")
    return {str(word): str(base) for word, base in entries.items()}


@lru_cache(maxsize=1)
def _families() -> dict[str, list[str]]:
    families: dict[str, list[str]] = {}
    for word, base in _dictionary().items():
        # A form with another first letter counts as another word: "best" does not mention "good".
        if word.islower() and word.isalpha() and word[0] == base[:1].casefold():
            families.setdefault(base.casefold(), []).append(word)
    return families


def _is_verb(base: str) -> bool:
    if _raw(_verb(base, "ed")) == base:
        return True
    return any(_raw(w) == base and not w.endswith(("s", "r", "st")) for w in _others(base))


def _others(base: str) -> list[str]:
    family = _families().get(base, [])
    excluded = KEEP | _HOMOGRAPHS
    return [w for w in family if w != base and w not in excluded and not w.endswith("eed")]


def _verb_of_gerund(word: str) -> str | None:
    """The verb of which a word is the gerund."""
    if not word.endswith("ing") or word in _ING_NOUNS:
        return None
    stem = word[:-3]
    for base in (_raw(word), stem, stem + "e", stem[:-1], stem[:-1] + "ie"):
        # simplemma has "thinking" -> "thinke", so its lemma is checked like the guesses.
        if base in _dictionary() and _verb(base, "ing") == word and _is_verb(base):
            return base
    return None


@lru_cache(maxsize=65_536)
def _inflections(word: str) -> frozenset[str]:
    base = _key(word)
    found = {word, base, plural(base)} - ({plural(base)} if base in KEEP else set())
    for stem in {base, _verb_of_gerund(word) or _verb_of_gerund(base) or base}:
        if not stem:
            continue
        found |= {stem, *_others(stem)}
        found |= {many for many, one in _PLURALS.items() if one == stem}
        if _is_verb(stem):
            found |= {plural(stem), _verb(stem, "ing")}
            past = _verb(stem, "ed")
            found |= {past} if _raw(past) == stem and past not in ("reed", "weed") else set()
    return frozenset(found)


def _phrases(name: str) -> list[tuple[str, ...]]:
    parts = tuple(re.split(r"[\s\-‐‑–]+", _clean(name)))
    return [(*parts[:-1], last) for last in sorted(_inflections(parts[-1]))] if any(parts) else []


def forms(name: str, aliases: Sequence[str] = ()) -> tuple[str, ...]:
    """Every inflected form of a concept's names, sorted; compounds with a space between."""
    return tuple(sorted({" ".join(p) for one in (name, *aliases) for p in _phrases(one)}))


def _splits(word: str) -> list[tuple[str, str]]:
    pairs = [(word[:cut], word[cut:]) for cut in range(3, len(word) - 2)]
    known = [p for p in pairs if all(w in _dictionary() and w not in FUNCTION_WORDS for w in p)]
    return [p for p in known if all(re.search("[aeiouy]", w) for w in p)]


def _spell(part: str) -> str:
    both = {part, unicodedata.normalize("NFD", part)}  # reports are searched as they stand
    spelt = sorted(re.sub(r"['’ʼ]", f"{_QUOTE}?", re.escape(one)) for one in both)
    return spelt[0] if len(spelt) == 1 else f"(?:{'|'.join(spelt)})"


@lru_cache(maxsize=16_384)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    found: set[str] = set()
    for name in names:
        phrases = _phrases(name)
        found |= {f"{_GAP}?".join(map(_spell, phrase)) for phrase in phrases}
        if phrases and len(phrases[0]) == 1:
            for head, _ in _splits(_key(_clean(name))):
                tails = {p[0][len(head) :] for p in phrases if p[0].startswith(head)} - {""}
                found |= {f"{_spell(head)}{_GAP}{_spell(tail)}" for tail in tails}
    if not found:
        return re.compile("(?!)")
    words = "|".join(sorted(found, key=lambda p: (-len(p), p)))  # the longest form wins
    # After the word: a possessive, but no other contraction ("can't" does not mention a can).
    return re.compile(
        rf"(?<!{_LETTER.replace('|', ')(?<!')})(?:{words})(?:{_QUOTE}s)?(?!{_QUOTE}?(?:{_LETTER}))",
        re.IGNORECASE,
    )


def find_word(
    text: str, name: str, aliases: Sequence[str] = (), start: int = 0, end: int | None = None
) -> re.Match[str] | None:
    """The first whole-word mention of a concept in text[start:end], None without one."""
    return _pattern((name, *aliases)).search(text, start, len(text) if end is None else end)


@lru_cache(maxsize=1)
def english_lemmas() -> tuple[str, ...]:
    """Plain lower-case dictionary words of 4 to 12 letters, common and rare, in alphabetic order."""
    words = set(_dictionary().values())
    return tuple(sorted(word for word in words if re.fullmatch("[a-z]{4,12}", word)))
