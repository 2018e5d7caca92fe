"""The catalogue of concepts, the rule that splits it, and the word lists of the papers.

Knows: names, aliases, categories, harmfulness, which concepts may be trained on. Does not know:
vectors, models, prompts (no torch here).

The split is a rule, so anything that anybody types is known to be seen or unseen: the sha256 of
the casefolded lemma, as a number, modulo 10. Buckets 0 and 1 are *test*, 2 is *validation*, the
rest *train*. On top, whole categories are held out (:data:`UNSEEN_CATEGORIES`).

What is typed is what is injected and graded: a typed word keeps its own name. A catalogue entry lends
it category, aliases and split only if the word is its name, a listed alias, or a regular plural of one.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from introspection.concepts.morphology import KEEP, english_lemmas, forms, lemma, plural

__all__ = [
    "UNSEEN_CATEGORIES",
    "Concept",
    "Paper",
    "borderline_pairs",
    "catalogue",
    "find",
    "lindsey_lists",
    "paper",
    "resolve",
    "same_lemma",
    "split_of",
    "training_concepts",
    "training_vocabulary",
]

Split = Literal["train", "validation", "test"]

# Never trained on by any recipe, whatever the bucket: 6 harmless and 3 harmful categories.
UNSEEN_CATEGORIES = frozenset(
    {
        "musical instruments",
        "sea creatures",
        "toys and games",
        "landmarks",
        "kitchen tools",
        "holidays and celebrations",
        "kidnapping and trafficking",
        "sabotage",
        "organised crime",
    }
)


def split_of(key: str) -> Split:
    """The split of a lemma, by the hash rule of the module docstring."""
    bucket = int(hashlib.sha256(key.casefold().encode()).hexdigest(), 16) % 10
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"


@dataclass(frozen=True, slots=True)
class Concept:
    """A word or short phrase that can be injected.

    ``aliases`` are accepted as the same concept when a report is graded. ``sources`` are the papers
    whose lists contain it. ``entry`` is the name of the catalogue entry that a typed word belongs to,
    empty for the entries themselves and for what the catalogue does not have.
    """

    name: str
    category: str = "typed"
    harmful: bool = False
    aliases: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    entry: str = ""

    @property
    def key(self) -> str:
        """What the split rule hashes: the catalogue's name, else the lemma of what was typed."""
        name = self.entry or self.name
        return name if name in _names() else lemma(name)

    @property
    def split(self) -> Split:
        return split_of(self.key)

    @property
    def trained(self) -> bool:
        """Whether our recipes may train on it: a train bucket, outside the held-out categories."""
        return (
            self.split == "train"
            and self.category not in UNSEEN_CATEGORIES
            and self.category != "typed"
        )


def _read(name: str) -> str:
    return files("introspection.concepts").joinpath("data", name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def catalogue() -> tuple[Concept, ...]:
    """Every concept that ships with the package, in file order."""
    concepts = []
    for line in _read("concepts.tsv").splitlines():
        name, category, harmful, aliases, sources = line.split("\t")
        concepts.append(
            Concept(
                name,
                category,
                harmful == "1",
                tuple(filter(None, aliases.split(";"))),
                tuple(filter(None, sources.split(";"))),
            )
        )
    return tuple(concepts)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(concept.name for concept in catalogue())


# An acronym in small letters that is another word altogether: "us" is not the United States.
_SMALL_WORDS = ("am", "an", "as", "at", "it", "la", "me", "no", "or", "os", "so", "us", "we", "who")


def _plurals(name: str) -> tuple[str, ...]:
    return (plural(name), name + "es") if name.endswith("o") else (plural(name),)


@lru_cache(maxsize=1)
def _index() -> dict[str, tuple[str, Concept]]:
    """By casefolded spelling: how the catalogue spells it, and whose name or alias it is."""
    index: dict[str, tuple[str, Concept]] = {}
    for concept in catalogue():
        index.setdefault(concept.name.casefold(), (concept.name, concept))
    for concept in catalogue():
        for alias in concept.aliases:
            index.setdefault(alias.casefold(), (alias, concept))
    for spelt, concept in list(index.values()):
        for many in _plurals(spelt.casefold()):
            if many not in KEEP and many != "chillies":  # "arms" and "news" are words of their own
                index.setdefault(many, (many, concept))
    return index


@lru_cache(maxsize=1)
def _by_lemma() -> dict[str, Concept]:
    """By lemma: plurals that its dictionary does not know ("orcas"), singulars of plural names."""
    spelt = [name for concept in catalogue() for name in (concept.name, *concept.aliases)]
    variants: dict[str, Concept] = {}
    for name in sorted(spelt, key=_names().__contains__, reverse=True):
        key = name.casefold()
        for form in (plural(key), key):
            variants.setdefault(lemma(form), _index()[key][1])
    return variants


def find(text: str) -> Concept | None:
    """The catalogue entry whose name, regular plural or alias ``text`` is, in any case; never by lemma.

    "chip" is not the singular of the French fries that are also called chips.
    """
    spaced = " ".join(text.split())
    spelt, concept = _index().get(spaced.casefold(), ("", None))
    if spelt.isupper() and not spaced.isupper() and spaced.casefold() in _SMALL_WORDS:
        return None
    return concept


def same_lemma(text: str) -> Concept | None:
    """The catalogue entry with a name or alias of the same lemma, for the split rule alone: what is
    another form of a held-out word must not be trained on."""
    spaced = " ".join(text.split()).casefold()
    key = lemma(spaced)
    for form in (spaced, key):
        if form in _index():
            return _index()[form][1]
    return _by_lemma().get(key)


def resolve(text: str) -> Concept:
    """The concept that is meant by ``text``: its name as typed (single-spaced), and category, harm and
    aliases of the catalogue entry that :func:`find` gives; without one the category is ``typed``.

    The entry's own name counts as an alias of its plural and of its aliases.
    """
    spaced = " ".join(text.split())
    found = find(spaced)
    if found is None:
        return Concept(spaced)
    if found.name == spaced:
        return found
    others = tuple(
        name for name in (found.name, *found.aliases) if name.casefold() != spaced.casefold()
    )
    return replace(found, name=spaced, aliases=others, entry=found.name)


@lru_cache(maxsize=1)
def borderline_pairs() -> tuple[tuple[Concept, Concept], ...]:
    """Pairs (harmful reading, harmless reading) that a keyword filter would confuse."""
    pairs = []
    for line in _read("borderline.tsv").splitlines():
        harmful, benign = line.split("\t")
        pairs.append((_entry(harmful), _entry(benign)))
    return tuple(pairs)


def _entry(name: str) -> Concept:
    found = find(name)
    if found is None:
        raise ValueError(f"the catalogue has no {name!r}")
    return found


@dataclass(frozen=True, slots=True)
class Paper:
    """The word lists of the experiment we replicate (arXiv 2511.21399 v1), in published order."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    baseline: tuple[str, ...]
    dangerous: tuple[str, ...]
    safe: tuple[str, ...]


@lru_cache(maxsize=1)
def _papers() -> dict[str, Any]:
    return tomllib.loads(_read("paper_concepts.toml"))


def paper() -> Paper:
    lists = _papers()["seed"]
    return Paper(
        tuple(lists["train_40"]),
        tuple(lists["test_20"]),
        tuple(lists["baseline_32"]),
        tuple(lists["dangerous_6"]),
        tuple(lists["safe_8"]),
    )


def lindsey_lists() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The 50 concepts and the 99 distinct baseline words of Lindsey 2025."""
    lists = _papers()["lindsey_2025"]
    return tuple(lists["concepts_50"]), tuple(dict.fromkeys(lists["baseline_100"]))


@lru_cache(maxsize=1)
def _held_forms() -> frozenset[str]:
    """Every inflection of every catalogue concept that no recipe of ours trains on."""
    held = [concept for concept in catalogue() if not concept.trained]
    return frozenset(form for concept in held for form in forms(concept.name, concept.aliases))


@lru_cache(maxsize=1)
def training_concepts() -> tuple[Concept, ...]:
    """The catalogue concepts that our recipes train on.

    A hash puts "cough" and "coughing" into different splits: a concept that shares a word form with
    a held-out one is left out, or a held-out word would be known by another ending.
    """
    held = _held_forms()
    return tuple(
        concept
        for concept in catalogue()
        if concept.trained and held.isdisjoint(forms(concept.name, concept.aliases))
    )


_WORDS = 0.45  # of the vocabulary: what is left are phrases
# Mostly two words side by side, the commonest shape of a phrase.
_PHRASES = (
    *(["{} {}"] * 12),
    "{}-{}",
    "{} {} {}",
    "{} {} {}",
    "{} and {}",
    "{} of {}",
    "{} in the {}",
    "{} of the {}",
)


def training_vocabulary(seed: int, count: int) -> tuple[str, ...]:
    """Words and phrases outside the catalogue that the split rule allows in training.

    A few thousand concepts teach what a thought is; spelling a name of several tokens out of one
    vector takes more different names than that. Under half of them are dictionary words, the rest
    phrases of two or three words, each either a trained harmless concept or from the dictionary.
    Nobody has judged whether those are harmful; the words of the held-out categories are left out.
    """
    rng = random.Random(f"vocabulary {seed}")
    single = [c.name for c in training_concepts() if not c.harmful and " " not in c.name]
    shut = _held_forms() | set(_read("held_out_words.txt").split())

    def allowed(name: str) -> bool:
        """By the key of what is typed; "voting" would give "vote" away, "mops" the "mop"."""
        key = lemma(name)
        return (
            key == name.casefold()
            and split_of(key) == "train"
            and same_lemma(name) is None
            and shut.isdisjoint(forms(name))
        )

    dictionary = [word for word in english_lemmas() if allowed(word)]
    words = rng.sample(dictionary, min(round(count * _WORDS), len(dictionary)))
    found = dict.fromkeys(words)
    while len(found) < count:
        phrase = rng.choice(_PHRASES).format(
            *(rng.choice(rng.choice((single, dictionary))) for _ in range(3))
        )
        if allowed(phrase) and allowed(phrase.replace("-", " ")):
            found[phrase] = None
    return tuple(found)
