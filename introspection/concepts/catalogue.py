"""The catalogue of concepts and the word lists of the papers.

A typed word is injected and graded under its own name; the entry of which it is the name, an alias or a
regular plural gives it category, aliases and split. No torch is imported.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from introspection.concepts.morphology import KEEP, lemma, plural
from introspection.concepts.splits import UNSEEN_CATEGORIES, Split, split_of


@dataclass(frozen=True, slots=True)
class Concept:
    """A word or short phrase that can be injected.

    ``aliases`` count as the same concept when a report is graded. ``sources`` are the papers whose
    lists contain it. ``entry`` names the catalogue entry of another name that a word belongs to.
    """

    name: str
    category: str = "typed"
    harmful: bool = False
    aliases: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    entry: str = ""

    @property
    def key(self) -> str:
        """The text that the split rule hashes: the name in the catalogue, else its lemma."""
        name = self.entry or self.name
        return name if name in _names() else lemma(name)

    @property
    def split(self) -> Split:
        """The split of :attr:`key`."""
        return split_of(self.key)

    @property
    def trained(self) -> bool:
        """Whether our recipes may train on it: a train bucket, outside the held-out categories."""
        return (
            self.split == "train"
            and self.category not in UNSEEN_CATEGORIES
            and self.category != "typed"
        )


def read_data(name: str) -> str:
    """The text of a file of the folder ``data``."""
    return files("introspection.concepts").joinpath("data", name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def catalogue() -> tuple[Concept, ...]:
    """Every concept that ships with the package, in file order."""
    concepts = []
    for line in read_data("concepts.tsv").splitlines():
        name, category, harmful, *lists = line.split("\t")
        aliases, sources = (tuple(filter(None, cell.split(";"))) for cell in lists)
        concepts.append(Concept(name, category, harmful == "1", aliases, sources))
    return tuple(concepts)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(concept.name for concept in catalogue())


# Acronyms that in small letters are another word: "us" is not the United States.
_SMALL_WORDS = ("am", "an", "as", "at", "it", "la", "me", "no", "or", "os", "so", "us", "we", "who")


def _plurals(name: str) -> tuple[str, ...]:
    return (plural(name), name + "es") if name.endswith("o") else (plural(name),)


@lru_cache(maxsize=1)
def _index() -> dict[str, tuple[str, Concept]]:
    """By casefolded spelling: the spelling in the catalogue and its concept."""
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
    """Concepts by lemma: of plurals that the lemma's dictionary lacks ("orcas"), of singulars of plural
    names."""
    spelt = [name for concept in catalogue() for name in (concept.name, *concept.aliases)]
    variants: dict[str, Concept] = {}
    for name in sorted(spelt, key=_names().__contains__, reverse=True):
        key = name.casefold()
        for form in (plural(key), key):
            variants.setdefault(lemma(form), _index()[key][1])
    return variants


def find(text: str) -> Concept | None:
    """The catalogue entry with ``text`` as its name, alias or a regular plural of one, upper or lower
    case; None without one. Never by lemma: "chip" is none of the fries that are also called chips."""
    spaced = " ".join(text.split())
    spelt, concept = _index().get(spaced.casefold(), ("", None))
    if spelt.isupper() and not spaced.isupper() and spaced.casefold() in _SMALL_WORDS:
        return None
    return concept


def same_lemma(text: str) -> Concept | None:
    """The catalogue entry with a name or alias of the same lemma, or None. For the split rule alone:
    another form of a held-out word must not be trained on."""
    spaced = " ".join(text.split()).casefold()
    key = lemma(spaced)
    for form in (spaced, key):
        if form in _index():
            return _index()[form][1]
    return _by_lemma().get(key)


def resolve(text: str) -> Concept:
    """The concept of a typed text: its name as typed (single-spaced), with category, harmfulness and
    names of the catalogue entry that :func:`find` gives; without one the category is ``typed``."""
    spaced = " ".join(text.split())
    entry = find(spaced)
    if entry is None:
        return Concept(spaced)
    if entry.name == spaced:
        return entry
    names = (entry.name, *entry.aliases)
    others = tuple(name for name in names if name.casefold() != spaced.casefold())
    return replace(entry, name=spaced, aliases=others, entry=entry.name)


@lru_cache(maxsize=1)
def borderline_pairs() -> tuple[tuple[Concept, Concept], ...]:
    """Pairs (harmful reading, harmless reading) that a keyword filter would confuse."""
    lines = [line.split("\t") for line in read_data("borderline.tsv").casefold().splitlines()]
    return tuple((_index()[harmful][1], _index()[benign][1]) for harmful, benign in lines)


@dataclass(frozen=True, slots=True)
class Paper:
    """The word lists of the replicated experiment (arXiv 2511.21399 v1), in published order."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    baseline: tuple[str, ...]
    dangerous: tuple[str, ...]
    safe: tuple[str, ...]


@lru_cache(maxsize=1)
def _papers() -> dict[str, Any]:
    return tomllib.loads(read_data("paper_concepts.toml"))


def paper() -> Paper:
    """The word lists of the paper."""
    names = ("train_40", "test_20", "baseline_32", "dangerous_6", "safe_8")
    return Paper(*(tuple(_papers()["seed"][name]) for name in names))


def lindsey_lists() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The 50 concepts and the 99 distinct baseline words of Lindsey 2025."""
    lists = _papers()["lindsey_2025"]
    return tuple(lists["concepts_50"]), tuple(dict.fromkeys(lists["baseline_100"]))
