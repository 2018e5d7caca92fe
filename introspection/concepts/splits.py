"""The rule that splits concepts into train, validation and test.

The bucket of any typed word is the sha256 of its casefolded lemma, as a number, modulo 10: 0 and 1 are
test, 2 is validation, the rest train. Whole categories are held out in addition.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]

# No recipe trains on these, whatever the bucket: 6 harmless and 3 harmful categories.
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
    """The split of a lemma, by the rule of the module docstring."""
    bucket = int(hashlib.sha256(key.casefold().encode()).hexdigest(), 16) % 10
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"
