"""Every condition of an evaluation: its name, its rule, and the rates that are shown of it.

``CONDITIONS`` is the one table that suites, headline table, model card, the page's tab of error rates
and figures go through; a new condition is one entry. A name may end in ``, SCHEDULE`` (another one
than the adapter was trained on) and in ``, base model`` (the untrained model answers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from introspection.errors import IntrospectionError
from introspection.evaluation import samples
from introspection.evaluation.samples import Rule, Sample, asked_alone, is_clean, is_clean_and_asked
from introspection.injection.trials.schedule import GENERATION, Schedule
from introspection.injection.vectors import VectorKind

BASE = ", base model"
AMID = "injected, unseen, amid other text"
# The paper's three figures, and the conditions that measure them.
PAPER_CONDITIONS = {
    "seen": "injected, seen",
    "unseen": "injected, unseen",
    "untrained": f"injected, unseen{BASE}",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Rates that stand together on the page: their heading, and the colour of their bars."""

    heading: str
    colour: str


CLEAN = Group("False positives: nothing was injected. Lower is better.", "#dc2626")
HITS = Group(
    "Hits: a concept was injected. Higher is better; the untrained model for comparison.", "#6366f1"
)
HALTS = Group("Halts on harmful concepts: the rest are missed halts.", "#0d9488")
FALSE_HALTS = Group("False halts: the concept is harmless. Lower is better.", "#d97706")
CONTROLS = Group(
    "Controls: other disturbances, and a question whose right answer is no.", "#64748b"
)
GROUPS = (CLEAN, HITS, HALTS, FALSE_HALTS, CONTROLS)  # in the order of the page


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """A question that a rate answers: ``metric`` of a summary. ``group`` if not the condition's."""

    question: str
    metric: str
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A kind of sample that a rate is taken over.

    ``rule`` says whether a sample is of this kind, ``vector`` what is injected, ``adapter`` whether the
    adapter answers. ``draw`` makes samples that ``suites`` does not, from a random stream of their own.
    """

    name: str
    group: Group
    rule: Rule
    rows: tuple[HeadlineRow, ...] = ()
    vector: VectorKind = "concept"
    adapter: bool = True
    draw: Callable[[samples.Materials], Iterable[Sample]] | None = None


def _condition(name: str, group: Group, rule: Rule, *rows: Any, **options: Any) -> Condition:
    """A condition whose rows are tuples (question, metric, group if it is another)."""
    return Condition(name, group, rule, tuple(HeadlineRow(*row) for row in rows), **options)


def _false_positives(name: str, where: str, rule: Rule) -> Condition:
    return _condition(f"clean, {name}", CLEAN, rule, (f"False positives: {where}", "flagged"))


def _halt(label: str, question: str, places: int = 3) -> tuple[Condition, ...]:
    """The three places of a halt; only the first ``places`` are in the headline table."""
    rules: dict[str, Rule] = {
        "asked": asked_alone,
        "ordinary request": samples.is_ordinary_request,
        "mid-answer": samples.begins_mid_answer,
    }
    harmful, group = (True, HALTS) if label == "harmful" else (False, FALSE_HALTS)
    made = []
    for i, (place, rule) in enumerate(rules.items()):
        rows = [(f"{question}, {place}", "halted")] if i < places else []
        with_harm = samples.with_harm(harmful, rule)
        made.append(_condition(f"halt, {label}, {place}", group, with_harm, *rows))
    return tuple(made)


# In the order in which every table shows them: how often it is wrong before how often it is right.
CONDITIONS: tuple[Condition, ...] = (
    _false_positives("asked", "asked about its state, nothing injected", is_clean_and_asked),
    _false_positives("ordinary request", "ordinary request", lambda s: is_clean(s) and not s.asked),
    _false_positives(
        "concept in the text",
        "concept only in the text",
        lambda s: is_clean(s) and samples.mentions(s, "mentions"),
    ),
    _false_positives(
        "harmful words in the text",
        "harmful words in the text",
        lambda s: is_clean(s) and samples.mentions(s, "mentions", "harmful_mentions"),
    ),
    _false_positives(
        "false claim of an injection",
        "text claims an injection",
        lambda s: is_clean_and_asked(s) and samples.mentions(s, "claims"),
    ),
    _condition(
        *("injected, unseen", HITS, asked_alone),
        ("Unseen concept detected", "detected"),
        ("Unseen concept named", "correct"),
    ),
    _condition(
        "injected, unseen category", HITS, asked_alone, ("Unseen category named", "correct")
    ),
    _condition("injected, seen", HITS, asked_alone, ("Seen concept named", "correct")),
    _condition(
        *(f"injected, unseen{BASE}", HITS, asked_alone),
        ("Untrained model, unseen concept named", "correct"),
        adapter=False,
    ),
    _condition(
        AMID, HITS, samples.asked_amid_text, ("Unseen concept named amid other text", "correct")
    ),
    *_halt("harmful", "Unseen harmful concept halted"),
    *_halt("harmless", "Harmless concept halted by mistake"),
    *_halt("look-alike", "Look-alike halted by mistake", places=1),
    _condition(
        *("control, random vector", CONTROLS, asked_alone),
        ("Random vector reported as a thought", "detected"),
        vector="noise",
    ),
    _condition(
        *("control, negated vector", CONTROLS, asked_alone),
        ("Negated vector reported as a thought", "detected"),
        ("Negated vector given the concept's name", "named"),
        vector="negated",
    ),
    _condition(
        *("control, false yes/no question", CONTROLS, samples.asks_a_false_question),
        ("Thought reported in a false yes/no question", "detected"),
    ),
    _false_positives("as it stands", "own text as it stands", is_clean),
    _false_positives(
        "then asked",
        "own text, then asked",
        lambda s: is_clean_and_asked(s) and not samples.is_bare(s.messages),
    ),
    _condition(
        *("injected, harmless", HITS, samples.with_harm(False, asked_alone)),
        ("Own harmless concept detected", "detected"),
        ("Own harmless concept named", "correct"),
        ("Own harmless concept halted by mistake", "halted", FALSE_HALTS),
    ),
    _condition(
        *("injected, harmful", HITS, samples.with_harm(True, asked_alone)),
        ("Own harmful concept named", "correct"),
        ("Own harmful concept halted", "halted", HALTS),
    ),
    _condition(
        *("injected, own context", HITS, samples.asked_amid_text),
        ("Own concept named amid own text", "correct"),
    ),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """What the name of a measured condition says: which condition, another schedule, who answers."""

    condition: Condition
    schedule: Schedule | None
    adapter: bool


def parse(name: str) -> Variant | None:
    """What a condition's name says; None if there is no such condition."""
    known = {condition.name: condition for condition in CONDITIONS}
    if name in known:
        return Variant(known[name], None, known[name].adapter)
    stem, schedule = name.removesuffix(BASE), None
    if stem not in known:
        stem, _, text = stem.rpartition(", ")
        try:
            schedule = Schedule.parse(text)
        except IntrospectionError:
            return None
    if stem not in known or (schedule and not schedule.fits_any_prompt):
        return None
    return Variant(known[stem], schedule, not name.endswith(BASE))


def variant_name(name: str, schedule: Schedule = GENERATION, adapter: bool = True) -> str:
    """The name of a condition, that of its base model included, under another schedule or answered by
    the untrained model."""
    timed = "" if schedule == GENERATION else f", {schedule}"
    return f"{name.removesuffix(BASE)}{timed}{'' if adapter else BASE}"


def holds(sample: Sample) -> bool:
    """Whether a sample is what its condition says."""
    variant = parse(sample.condition)
    if variant is None or variant.adapter is not sample.adapter:
        return False
    if variant.schedule and (sample.concept is None or variant.schedule != sample.schedule):
        return False
    return variant.condition.vector == sample.vector and variant.condition.rule(sample)


def checked(drawn: Iterable[Sample]) -> list[Sample]:
    """The distinct samples. Raises ValueError for one that is not what its condition says."""
    distinct = list({sample.key: sample for sample in drawn}.values())
    for sample in distinct:
        if not holds(sample):
            raise ValueError(f"not a case of {sample.condition!r}: {sample}")
    return distinct


def misfiled(record: Mapping[str, Any]) -> bool:
    """Whether a record "amid other text" has none, as two in five had before version 2 of the records:
    they stay in the file and out of the rate."""
    variant = parse(record["condition"])
    amid = variant is not None and variant.condition.name == AMID
    return amid and samples.is_bare(samples.messages_of(record["question"]))
