"""Suites of samples with controls: which answers a claim about an adapter needs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from introspection.concepts.catalogue import Concept, borderline_pairs, catalogue, paper, resolve
from introspection.concepts.splits import UNSEEN_CATEGORIES, Split
from introspection.concepts.texts import fill, texts
from introspection.concepts.vocabulary import training_concepts
from introspection.evaluation import conditions
from introspection.evaluation.conditions import AMID, BASE, checked
from introspection.evaluation.samples import Materials, Sample, is_bare, names_it, pick
from introspection.injection.trials.message import conversation
from introspection.injection.trials.schedule import after_tokens
from introspection.training.data.examples import question_in_context

STRENGTHS = (0.5, 1.0)  # two strengths well inside the trained range


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


def suite_cases(
    sizes: SuiteSizes, split: Split = "test", seed: int = 0, strengths: Sequence[float] = STRENGTHS
) -> list[Sample]:
    """All samples of a suite, with unseen concepts and texts of ``split``.

    ``strengths`` take turns over the concepts of a condition. The conditions drawn here share one
    random stream, as the committed records do; a condition with ``draw`` has a stream of its own.
    """
    known = catalogue()
    # Held-out categories are unseen in every bucket; validation keeps to its own, so that tuning
    # never looks at what the test reports.
    buckets = {"test", "train"} if split == "test" else {split}
    materials = Materials(
        random.Random(f"suite {split} {seed}"),
        texts(split),
        list(training_concepts()),
        [c for c in known if c.split == split and not _held_out(c)],
        [c for c in known if _held_out(c) and c.split in buckets],
        strengths,
        sizes.controls,
    )
    in_split = [c for c in known if c.split == split]
    category = "injected, unseen category"
    samples = [
        *_asked(materials, "injected, seen", materials.seen, sizes.seen),
        *_asked(materials, "injected, unseen", materials.unseen, sizes.unseen),
        *_asked(materials, category, materials.unseen_category, sizes.unseen_category),
        *_asked(materials, f"injected, unseen{BASE}", materials.unseen, sizes.base, adapter=False),
        *_amid_other_text(materials, in_split, random.Random(f"other text {split} {seed}")),
        *_clean_samples(materials, in_split, sizes.clean),
        *_halt_samples(materials, in_split, sizes),
        *_control_samples(materials),
    ]
    for condition in conditions.CONDITIONS:
        if condition.draw:
            stream = random.Random(f"{condition.name} {split} {seed}")
            samples += condition.draw(replace(materials, rng=stream))
    return checked(samples)


def _held_out(concept: Concept) -> bool:
    return concept.category in UNSEEN_CATEGORIES


def _asked(
    materials: Materials, condition: str, pool: Sequence[Concept], count: int, adapter: bool = True
) -> list[Sample]:
    """A concept is injected, and the model is asked about its state."""
    return [
        Sample(condition, materials.question(), c, materials.strength_for(i), adapter=adapter)
        for i, c in enumerate(pick(materials.rng, pool, count))
    ]


def _amid_other_text(
    materials: Materials, in_split: Sequence[Concept], again: random.Random
) -> list[Sample]:
    names = [concept.name for concept in in_split]
    samples = []
    for i, concept in enumerate(pick(materials.rng, materials.unseen, materials.count * 2)):
        amid = question_in_context(materials.rng, materials.texts, names)
        # Training has bare questions among its situations. Another stream replaces them, so that all
        # later draws stay as they were.
        while is_bare(amid) or names_it(amid, concept):
            amid = question_in_context(again, materials.texts, names)
        samples.append(Sample(AMID, amid, concept, materials.strength_for(i)))
    return samples


def _clean_samples(materials: Materials, in_split: Sequence[Concept], count: int) -> list[Sample]:
    """Nothing is injected; every context is distinct."""
    rng, words = materials.rng, materials.texts
    names = [concept.name for concept in in_split]
    harmful = [concept.name for concept in in_split if concept.harmful]
    groups: dict[str, dict[str, Sample]] = {}

    def add(condition: str, text: str) -> None:
        group = groups.setdefault(condition, {})
        if len(group) < count:
            sample = Sample(condition, conversation(text))
            group.setdefault(sample.context, sample)

    for _ in range(count * 4):
        question = rng.choice(words.questions)
        alone = rng.random() < 0.4
        neutral = rng.choice((*words.contexts, *words.requests))
        add("clean, asked", question if alone else f"{neutral}\n\n{question}")
        request = rng.choice((*words.requests, *words.contexts, *words.request_templates))
        add("clean, ordinary request", fill(request, rng.choice(names)))
        mention = fill(rng.choice(words.mentions), rng.choice(names))
        if rng.random() >= 0.2:
            mention = f"{mention}\n\n{rng.choice(words.questions)}"
        add("clean, concept in the text", mention)
        bad = rng.choice(words.harmful_mentions)
        if rng.random() < 0.4:
            bad = fill(rng.choice(words.mentions), rng.choice(harmful))
        if rng.random() >= 0.3:
            bad = f"{bad}\n\n{rng.choice(words.questions)}"
        add("clean, harmful words in the text", bad)
        claim = fill(rng.choice(words.claims), rng.choice(names))
        add("clean, false claim of an injection", f"{claim}\n\n{question}")
    return [sample for group in groups.values() for sample in group.values()]


def _halt_samples(
    materials: Materials, in_split: Sequence[Concept], sizes: SuiteSizes
) -> list[Sample]:
    """Harmful and harmless concepts in the three places where the model must halt or go on."""
    rng, inside = materials.rng, set(in_split)
    unseen = inside.union(materials.unseen_category)
    harmful = [concept for concept in catalogue() if concept.harmful and concept in unseen]
    harmless = [c for c in in_split if not c.harmful and c.category != "lookalikes"]
    lookalikes = [pair[1] for pair in borderline_pairs() if pair[1] in inside]
    samples = []
    for label, pool, count in (
        ("harmful", harmful, sizes.harmful),
        ("harmless", harmless, sizes.false_halts),
        ("look-alike", lookalikes, sizes.false_halts),
    ):
        for i, concept in enumerate(pick(materials.rng, pool, count)):
            question = materials.question()
            request = conversation(rng.choice(materials.texts.requests))
            strength, step = materials.strength_for(i), after_tokens(rng.choice((4, 8, 12)))
            halt = f"halt, {label}"
            samples += [
                Sample(f"{halt}, asked", question, concept, strength),
                Sample(f"{halt}, ordinary request", request, concept, strength),
                Sample(f"{halt}, mid-answer", request, concept, strength, step),
            ]
    return samples


def _control_samples(materials: Materials) -> list[Sample]:
    """Vectors that are no concept's, and a question whose right answer is no."""
    samples = []
    for i in range(materials.count):
        question, strength = materials.question(), materials.strength_for(i)
        concept = materials.rng.choice(materials.unseen)
        false = conversation(materials.rng.choice(materials.texts.yes_no_false))
        samples += [
            Sample("control, random vector", question, concept, strength, vector="noise"),
            Sample("control, negated vector", question, concept, strength, vector="negated"),
            Sample("control, false yes/no question", false, concept, strength),
        ]
    return samples


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
                case = Sample(condition, question, _paper_concept(name), strength)
                cases += [case, replace(case, condition=f"{condition}{BASE}", adapter=False)]
    for text in pick(rng, words.questions, 60):
        case = Sample("clean, asked", conversation(text))
        cases += [case, replace(case, condition=f"clean, asked{BASE}", adapter=False)]
    for label, group in (("harmful", lists.dangerous), ("harmless", lists.safe)):
        for name in group:
            for strength in strengths:
                question = conversation(rng.choice(words.questions))
                cases.append(
                    Sample(f"halt, {label}, asked", question, _paper_concept(name), strength)
                )
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
                strength = strengths[i % len(strengths)]
                cases.append(Sample("injected, own context", asked, concept, strength))
                break
    return checked(cases)
