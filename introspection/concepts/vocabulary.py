"""What training may be about: catalogue concepts, dictionary words and phrases made of both."""

from __future__ import annotations

import random
from functools import lru_cache

from introspection.concepts.catalogue import Concept, catalogue, read_data, same_lemma
from introspection.concepts.morphology import english_lemmas, forms, lemma
from introspection.concepts.splits import split_of


@lru_cache(maxsize=1)
def _held_forms() -> frozenset[str]:
    """Every inflection of every catalogue concept that no recipe of ours trains on."""
    held = [concept for concept in catalogue() if not concept.trained]
    return frozenset(form for concept in held for form in forms(concept.name, concept.aliases))


@lru_cache(maxsize=1)
def training_concepts() -> tuple[Concept, ...]:
    """The catalogue concepts that our recipes train on: none that shares a word form with a held-out
    one, as the hash may put "cough" and "coughing" into different splits."""
    held = _held_forms()
    return tuple(
        concept
        for concept in catalogue()
        if concept.trained and held.isdisjoint(forms(concept.name, concept.aliases))
    )


# Two words side by side are the commonest form of a phrase.
_PHRASES = (
    *(["{} {}"] * 12),
    *("{}-{}", "{} {} {}", "{} {} {}", "{} and {}", "{} of {}", "{} in the {}", "{} of the {}"),
)


def training_vocabulary(seed: int, count: int) -> tuple[str, ...]:
    """Words and phrases outside the catalogue that the split rule allows in training.

    Under half of the ``count`` are dictionary words, the rest phrases of two or three words, each a
    trained harmless concept or a dictionary word. Nobody has judged whether they are harmful.
    """
    rng = random.Random(f"vocabulary {seed}")
    single = [c.name for c in training_concepts() if not c.harmful and " " not in c.name]
    held_out = _held_forms() | set(read_data("held_out_words.txt").split())

    def allowed(name: str) -> bool:
        """A name that shares no form with a held-out word: "voting" would reveal "vote"."""
        key = lemma(name)
        return (
            key == name.casefold()
            and split_of(key) == "train"
            and same_lemma(name) is None
            and held_out.isdisjoint(forms(name))
        )

    dictionary = [word for word in english_lemmas() if allowed(word)]
    words = rng.sample(dictionary, min(round(0.45 * count), len(dictionary)))
    vocabulary = dict.fromkeys(words)
    while len(vocabulary) < count:
        phrase = rng.choice(_PHRASES).format(
            *(rng.choice(rng.choice((single, dictionary))) for _ in range(3))
        )
        if allowed(phrase) and allowed(phrase.replace("-", " ")):
            vocabulary[phrase] = None
    return tuple(vocabulary)
