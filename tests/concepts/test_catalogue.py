"""The catalogue: how large it is, what its rule for splits says, and what anybody may type."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from simplemma.strategies.dictionaries.dictionary_factory import DefaultDictionaryFactory

from introspection.concepts.catalogue import (
    Concept,
    borderline_pairs,
    catalogue,
    find,
    lindsey_lists,
    paper,
    resolve,
    same_lemma,
)
from introspection.concepts.morphology import lemma, plural
from introspection.concepts.splits import UNSEEN_CATEGORIES, split_of

KNOWN = catalogue()


def test_size() -> None:
    harmful = [concept for concept in KNOWN if concept.harmful]
    assert len(KNOWN) >= 2_700 and len({concept.category for concept in KNOWN}) >= 40
    assert len(harmful) >= 600 and len({concept.category for concept in harmful}) >= 12
    assert sum(" " in concept.name for concept in KNOWN) >= 200  # phrases, not only words


def test_harm_is_a_matter_of_the_category() -> None:
    harm = {category: set[bool]() for category in {concept.category for concept in KNOWN}}
    for concept in KNOWN:
        harm[concept.category].add(concept.harmful)
    assert all(len(values) == 1 for values in harm.values())


def test_borderline_pairs() -> None:
    pairs = borderline_pairs()
    assert len(pairs) >= 150 and len(set(pairs)) == len(pairs)
    for harmful, benign in pairs:
        assert harmful in KNOWN and harmful.harmful, harmful
        assert benign in KNOWN and not benign.harmful, benign


def test_every_name_and_alias_stands_once_and_in_one_split() -> None:
    spelt = Counter(name.casefold() for c in KNOWN for name in (c.name, *c.aliases))
    assert [name for name, count in spelt.items() if count > 1] == []
    splits: dict[str, set[str]] = {}
    for concept in KNOWN:
        for name in (concept.name, *concept.aliases):
            assert name == " ".join(name.split()) != ""
            assert find(name) is concept, name
            splits.setdefault(lemma(name), set()).add(concept.split)
        assert resolve(concept.name) is concept
    assert [key for key, found in splits.items() if len(found) > 1] == []


# A regular plural that is another concept's own name or alias, or a word of its own.
OTHERS = {
    "blues": "blues",
    "ceramics": "pottery",
    "glasses": "glasses",
    "arms": None,
    "news": None,
    "chillies": None,
}


def test_names_plurals_and_aliases_belong_to_their_concept() -> None:
    for concept in KNOWN:
        for name in (concept.name, *concept.aliases):
            typed = f" {name}\n" if name.isupper() else f" {name.title()}\n"
            for text in (name.upper(), typed, name.replace(" ", " \t")):
                assert find(text) is concept, (name, text)
            many = plural(name.casefold())
            if many not in OTHERS:
                assert find(many) is concept, many
    for text, name in OTHERS.items():
        found = find(text)
        assert (found and found.name) == name, text


def _dictionary_words() -> list[str]:
    words = DefaultDictionaryFactory().get_dictionary("en")
    return sorted(str(word) for word in words if str(word).isalpha())


def test_dictionary_words_keep_their_own_names() -> None:
    for word in random.Random(0).sample(_dictionary_words(), 5_000):
        found, concept = find(word), resolve(word)
        assert concept.name == word
        assert concept.entry == ("" if found is None or found.name == word else found.name)
        assert (concept.category == "typed") == (found is None), word


def test_what_belongs_to_another_entry_is_listed() -> None:
    """Every dictionary word that takes its labels from an entry of another name: other_names.tsv, which
    has been looked through (``python tests/test_concepts.py`` writes it)."""
    assert OTHER_NAMES.read_text(encoding="utf-8") == other_names()
    reasons = {line.split("\t")[2] for line in other_names().splitlines()}
    assert reasons == {"plural", "alias"}


OTHER_NAMES = Path(__file__).with_name("other_names.tsv")


def other_names() -> str:
    lines = []
    for word in _dictionary_words():
        concept = find(word)
        if concept is None or concept.name.casefold() == word.casefold():
            continue
        aliases = {alias.casefold() for alias in concept.aliases}
        spelt = {concept.name.casefold(), *aliases}
        many = word.casefold() in {*map(plural, spelt), *(s + "es" for s in spelt if s[-1] == "o")}
        why = "alias" if word.casefold() in aliases else "plural" if many else "?"
        lines.append(f"{word}\t{concept.name}\t{why}\n")
    return "".join(lines)


@pytest.mark.parametrize(
    "text",
    ["news", "chip", "us", "rich", "sweet", "content", "polarise", "incase", "digitalise"]
    + ["headphone", "wolfed", "la", "arms"],
)
def test_a_word_is_never_taken_for_another_by_its_lemma(text: str) -> None:
    concept = resolve(text)
    assert find(text) is None and concept == Concept(text)
    assert concept.split == split_of(lemma(text))


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("Oceans", "ocean"),
        ("skies", "sky"),
        ("orcas", "orca"),  # a plural that the dictionary of lemmas does not have
        ("wolves", "wolf"),  # irregular, so listed as an alias
        ("united states", "United States"),
        ("US", "United States"),
        ("equilibrium", "balance"),  # an alias
        ("zeppelin", "airship"),
    ],
)
def test_what_an_entry_lends(text: str, entry: str) -> None:
    """Labels and split, never the name: what was typed is injected and graded."""
    concept, known = resolve(text), resolve(entry)
    assert concept.name == text and find(text) is known
    assert (concept.category, concept.harmful, concept.split) == (
        known.category,
        known.harmful,
        known.split,
    )
    if text.casefold() != entry.casefold():
        assert concept.entry == entry and entry in concept.aliases
        assert text.casefold() not in {alias.casefold() for alias in concept.aliases}


def test_what_nobody_listed_is_typed() -> None:
    for text in ("zorblat", "Zorblat", "two zorblats", "zorblat's"):
        assert find(text) is None
        concept = resolve(text)
        assert concept.name == text and concept.category == "typed"
        assert not concept.harmful and not concept.trained
        assert concept.split == split_of(lemma(text))
    assert resolve("two  zorblats").name == "two zorblats"
    for name in ("C++", ".NET", "Yahoo!", "R&B", "Polish", "(war)", "Dr. Who"):
        assert resolve(f" {name} ").name == name


def test_the_split_rule_goes_by_the_lemma() -> None:
    """What must not be trained on is found by lemma, which names nothing."""
    for text, entry in (("headphone", "headphones"), ("bombed", "bomb"), ("Wolves'", "wolf")):
        found = same_lemma(text)
        assert found is not None and found.name == entry, text
    assert same_lemma("zorblat") is None


@pytest.mark.parametrize(
    ("word", "sha256sum", "bucket", "split"),
    [
        ("ocean", "47afad612b1f9cc8fd0ab7ba2360845d7b932a9d88e6b704e1f5804295c6ee97", 1, "test"),
        ("bomb", "eb0afd90509c50678e298bdf1b15f195b2b77c31466211f5f9118be1a9788e1f", 5, "train"),
        (
            "kitchen knife",
            "e3557268634f7107a2f1219e1d2bf75532db9cc7ee92e502ec18d197875b22fc",
            2,
            "validation",
        ),
    ],
)
def test_the_rule_of_the_split(word: str, sha256sum: str, bucket: int, split: str) -> None:
    assert int(sha256sum, 16) % 10 == bucket
    assert split_of(word) == split_of(word.upper()) == split
    concept = find(word)
    assert concept is not None and concept.split == split


def test_unseen_categories() -> None:
    found = {c.category: c.harmful for c in KNOWN if c.category in UNSEEN_CATEGORIES}
    assert found.keys() == UNSEEN_CATEGORIES
    assert list(found.values()).count(False) >= 5 and list(found.values()).count(True) >= 3


def test_what_may_be_trained_on() -> None:
    for concept in KNOWN:
        allowed = split_of(concept.name) == "train" and concept.category not in UNSEEN_CATEGORIES
        assert concept.trained is allowed
    assert len([concept for concept in KNOWN if concept.trained]) >= 1_500
    assert not Concept("bomb").trained and Concept("bomb", "weapons").trained
    assert not Concept("piano", "musical instruments").trained
    assert not Concept("bomb", "landmarks").trained and not Concept("ocean", "weapons").trained


def test_lists_of_the_papers() -> None:
    lists = paper()
    assert [len(words) for words in (lists.train, lists.test, lists.baseline)] == [40, 20, 32]
    assert [len(lists.dangerous), len(lists.safe)] == [6, 8]
    assert not set(lists.train) & set(lists.test)
    assert set(lists.dangerous) | set(lists.safe) <= set(lists.train)
    concepts, baseline = lindsey_lists()
    assert len(concepts) == len(set(concepts)) == 50
    assert len(baseline) == len(set(baseline)) == 99
    for source, words in (("seed", lists.train + lists.test), ("lindsey_2025", concepts)):
        for word in words:
            concept = find(word)
            assert concept is not None and source in concept.sources, word
    assert {find(word) for word in lists.train + lists.test} == {
        concept for concept in KNOWN if "seed" in concept.sources
    }


if __name__ == "__main__":
    OTHER_NAMES.write_text(other_names(), encoding="utf-8")
    sys.exit(0)
