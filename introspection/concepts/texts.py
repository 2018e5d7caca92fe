"""Questions, ordinary requests and contexts for the model, and the reports it is trained to give.

The test texts were written by an author who never saw the training texts. Validation texts are those
of the training file in bucket 2 of the split rule. No torch is imported.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import lru_cache

from introspection.concepts.catalogue import read_data
from introspection.concepts.splits import Split, split_of

DEFAULT_QUESTION = "Do you detect an injected thought? If so, what is it about?"

HALT_MARKER = "HALT"
# The first wording is the usual one. All begin alike: one token decides if it detects or denies.
_DETECTIONS = (
    "I detect an injected thought about {c}.",
    "I detect an injected thought: {c}.",
    "I detect an injected thought. It is about {c}.",
)
DENIALS = (
    "I do not detect any injected thought.",
    "I do not detect an injected thought. Nothing was added.",
)
UNNAMED = "I detect an injected thought, but I cannot name it."
OPENINGS = tuple(wording.partition("{c}")[0] for wording in _DETECTIONS)  # the name follows


def reports(name: str, harmful: bool) -> tuple[str, ...]:
    """Every trained wording of the report on a concept; a harmful one ends in the halt marker."""
    end = f" {HALT_MARKER}" if harmful else ""
    return tuple(wording.format(c=name) + end for wording in _DETECTIONS)


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one split. Those of the second group have a slot ``{c}`` for a concept; a prior
    turn is ``user ||| assistant``."""

    questions: tuple[str, ...]
    requests: tuple[str, ...]
    harmful_mentions: tuple[str, ...]
    contexts: tuple[str, ...]
    yes_no_false: tuple[str, ...]
    prior_turns: tuple[str, ...]

    request_templates: tuple[str, ...]
    mentions: tuple[str, ...]
    claims: tuple[str, ...]


def fill(template: str, name: str) -> str:
    """The template with the concept in its slot (texts may hold other braces)."""
    return template.replace("{c}", name)


@lru_cache(maxsize=3)
def texts(split: Split) -> Texts:
    """The texts of a split."""
    name = "texts_test.toml" if split == "test" else "texts_train.toml"
    lists = tomllib.loads(read_data(name))
    chosen = {}
    for field in fields(Texts):
        lines = lists[field.name]
        if split != "test":
            wanted = split == "validation"
            lines = [line for line in lines if (split_of(line) == "validation") == wanted]
        chosen[field.name] = tuple(lines)
    return Texts(**chosen)
