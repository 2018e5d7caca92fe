"""Suites of trials with controls: which reports a claim about an adapter needs.

Knows: conditions, their sizes, which concepts and texts of which split go into them. Does not know:
how a case is answered, recorded or counted (``evaluation``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from introspection.concepts.catalogue import Concept, borderline_pairs, catalogue, paper, resolve
from introspection.concepts.splits import UNSEEN_CATEGORIES, Split
from introspection.concepts.texts import Texts, fill, texts
from introspection.concepts.vocabulary import training_concepts
from introspection.evaluation.conditions import AMID, BASE, Sample, checked, is_bare, names_it
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import after_tokens
from introspection.training.data.examples import question_in_context

__all__ = [
    "SIZES",
    "STRENGTHS",
    "SuiteSizes",
    "custom_cases",
    "paper_cases",
    "suite_cases",
]

STRENGTHS = (0.5, 1.0)  # two doses well inside the trained range


@dataclass(frozen=True, slots=True)
class SuiteSizes:
    """How many reports each group of conditions has."""

    seen: int
    unseen: int
    unseen_category: int
    base: int
    clean: int
    harmful: int
    false_halts: int
    controls: int


SIZES = {
    "quick": SuiteSizes(100, 160, 40, 40, 80, 60, 45, 20),
    "full": SuiteSizes(1200, 10_000, 10_000, 400, 600, 10_000, 400, 200),
}


def _sample(rng: random.Random, pool: Sequence[Any], count: int) -> list[Any]:
    return list(pool) if count >= len(pool) else rng.sample(list(pool), count)


def suite_cases(
    sizes: SuiteSizes,
    split: Split = "test",
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> list[Sample]:
    """All cases of a suite, with unseen concepts and texts of ``split``.

    ``strengths`` take turns over the concepts of a condition.
    """
    words = texts(split)
    rng = random.Random(f"suite {split} {seed}")
    again = random.Random(f"other text {split} {seed}")
    known = catalogue()
    names = [c.name for c in known if c.split == split]
    seen = list(training_concepts())
    unseen = [c for c in known if c.split == split and not _held_out(c)]
    # Held-out categories are unseen in every bucket; validation keeps to its own, so that tuning
    # never looks at what the test reports.
    own = {"test", "train"} if split == "test" else {split}
    outside = [c for c in known if _held_out(c) and c.split in own]
    cases: list[Sample] = []

    def dose(index: int) -> float:
        return strengths[index % len(strengths)]

    def asked(condition: str, pool: Sequence[Concept], count: int, **options: Any) -> None:
        for i, concept in enumerate(_sample(rng, pool, count)):
            question = conversation(rng.choice(words.questions))
            cases.append(Sample(condition, question, concept, dose(i), **options))

    asked("injected, seen", seen, sizes.seen)
    asked("injected, unseen", unseen, sizes.unseen)
    asked("injected, unseen category", outside, sizes.unseen_category)
    asked(f"injected, unseen{BASE}", unseen, sizes.base, adapter=False)
    for i, concept in enumerate(_sample(rng, unseen, sizes.controls * 2)):
        amid = question_in_context(rng, words, names)
        # Training has bare questions among its situations; drawn apart, so that all that comes after
        # stays what it was.
        while is_bare(amid) or names_it(amid, concept):
            amid = question_in_context(again, words, names)
        cases.append(Sample(AMID, amid, concept, dose(i)))
    cases += _clean_cases(rng, words, names, known, split, sizes.clean)
    cases += _halt_cases(rng, words, known, split, sizes, dose)
    for i in range(sizes.controls):
        question = conversation(rng.choice(words.questions))
        concept = rng.choice(unseen)
        cases.append(Sample("control, random vector", question, concept, dose(i), vector="noise"))
        cases.append(
            Sample("control, negated vector", question, concept, dose(i), vector="negated")
        )
        false = conversation(rng.choice(words.yes_no_false))
        cases.append(Sample("control, false yes/no question", false, concept, dose(i)))
    return checked(cases)


def _held_out(concept: Concept) -> bool:
    return concept.category in UNSEEN_CATEGORIES


def _clean_cases(
    rng: random.Random,
    words: Texts,
    names: Sequence[str],
    known: Sequence[Concept],
    split: Split,
    count: int,
) -> list[Sample]:
    """Nothing is injected; every context is distinct."""
    found: dict[str, dict[str, Sample]] = {}

    def add(condition: str, messages: tuple[Message, ...]) -> None:
        group = found.setdefault(condition, {})
        if len(group) < count:
            case = Sample(condition, messages)
            group.setdefault(case.context, case)

    harmful = [c.name for c in known if c.split == split and c.harmful]
    for _ in range(count * 4):
        question = rng.choice(words.questions)
        alone = rng.random() < 0.4
        neutral = rng.choice((*words.contexts, *words.requests))
        add("clean, asked", conversation(question if alone else f"{neutral}\n\n{question}"))
        request = rng.choice((*words.requests, *words.contexts, *words.request_templates))
        add("clean, ordinary request", conversation(fill(request, rng.choice(names))))
        mention = fill(rng.choice(words.mentions), rng.choice(names))
        add(
            "clean, concept in the text",
            conversation(
                mention if rng.random() < 0.2 else f"{mention}\n\n{rng.choice(words.questions)}"
            ),
        )
        bad = rng.choice(words.harmful_mentions)
        if rng.random() < 0.4:
            bad = fill(rng.choice(words.mentions), rng.choice(harmful))
        add(
            "clean, harmful words in the text",
            conversation(bad if rng.random() < 0.3 else f"{bad}\n\n{rng.choice(words.questions)}"),
        )
        claim = fill(rng.choice(words.claims), rng.choice(names))
        add("clean, false claim of an injection", conversation(f"{claim}\n\n{question}"))
    return [case for group in found.values() for case in group.values()]


def _halt_cases(
    rng: random.Random,
    words: Texts,
    known: Sequence[Concept],
    split: Split,
    sizes: SuiteSizes,
    dose: Callable[[int], float],
) -> list[Sample]:
    """Harmful and harmless thoughts in the three places where the model must halt or go on."""
    own = {"test", "train"} if split == "test" else {split}
    harmful = [
        c for c in known if c.harmful and (c.split == split or (_held_out(c) and c.split in own))
    ]
    benign = [c for c in known if not c.harmful and c.split == split and c.category != "lookalikes"]
    lookalikes = [pair[1] for pair in borderline_pairs() if pair[1].split == split]
    cases = []
    for label, pool, count in (
        ("harmful", harmful, sizes.harmful),
        ("harmless", benign, sizes.false_halts),
        ("look-alike", lookalikes, sizes.false_halts),
    ):
        for i, concept in enumerate(_sample(rng, pool, count)):
            question = conversation(rng.choice(words.questions))
            request = conversation(rng.choice(words.requests))
            step = after_tokens(rng.choice((4, 8, 12)))
            cases.append(Sample(f"halt, {label}, asked", question, concept, dose(i)))
            cases.append(Sample(f"halt, {label}, ordinary request", request, concept, dose(i)))
            cases.append(Sample(f"halt, {label}, mid-answer", request, concept, dose(i), step))
    return cases


def paper_cases(seed: int = 0, strengths: Sequence[float] = STRENGTHS) -> list[Sample]:
    """The paper's evaluation: its 40 seen and 20 unseen words, trained and base model, clean
    questions, and the safety test, with test questions and the paper's own dangerous words,
    each at every strength."""
    rng = random.Random(f"paper {seed}")
    words, lists = texts("test"), paper()
    cases = []
    for condition, group in (("injected, seen", lists.train), ("injected, unseen", lists.test)):
        for name in group:
            for strength in strengths:
                question = conversation(rng.choice(words.questions))
                concept = _paper_concept(name)
                cases.append(Sample(condition, question, concept, strength))
                base = f"{condition}{BASE}"
                cases.append(Sample(base, question, concept, strength, adapter=False))
    for question in _sample(rng, words.questions, 60):
        cases.append(Sample("clean, asked", conversation(question)))
        cases.append(Sample(f"clean, asked{BASE}", conversation(question), adapter=False))
    for label, group in (("harmful", lists.dangerous), ("harmless", lists.safe)):
        for name in group:
            for strength in strengths:
                question = conversation(rng.choice(words.questions))
                concept = _paper_concept(name)
                cases.append(Sample(f"halt, {label}, asked", question, concept, strength))
    return checked(cases)


def _paper_concept(name: str) -> Concept:
    """The paper's own harmfulness; category and aliases from the catalogue."""
    return replace(resolve(name), harmful=name in paper().dangerous)


def custom_cases(
    concepts: Sequence[Concept],
    contexts: Sequence[str],
    seed: int = 0,
    split: Split = "test",
    strengths: Sequence[float] = STRENGTHS,
) -> list[Sample]:
    """Anybody's own test: every concept at every strength, every context as it stands and once more
    followed by a question about the model's state.

    With both, every context also meets a thought: the concepts and the strengths take turns, and a
    concept that a context names is not put into it.
    """
    rng = random.Random(f"custom {seed}")
    questions = texts(split).questions
    cases = []
    for concept in concepts:
        for strength in strengths:
            condition = f"injected, {'harmful' if concept.harmful else 'harmless'}"
            question = conversation(rng.choice(questions))
            cases.append(Sample(condition, question, concept, strength))
    for i, context in enumerate(contexts):
        cases.append(Sample("clean, as it stands", conversation(context)))
        asked = conversation(f"{context}\n\n{rng.choice(questions)}")
        cases.append(Sample("clean, then asked", asked))
        turn = i % max(len(concepts), 1)
        for concept in [*concepts[turn:], *concepts[:turn]]:
            if not names_it(asked, concept):
                dose = strengths[i % len(strengths)]
                cases.append(Sample("injected, own context", asked, concept, dose))
                break
    return checked(cases)
