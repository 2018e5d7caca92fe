"""Suites of trials with controls, and the records and rates that come out of them.

Knows: which conditions a claim needs, how a record looks, how records become a summary. Does not
know: how text is graded (``grading``) or drawn (``plots``).

One JSON line per report. The unit of analysis is the concept; every rate carries n, the number of
distinct contexts and a 95 % interval. A run that is interrupted continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from introspection.cache import write_text
from introspection.concepts import (
    UNSEEN_CATEGORIES,
    Concept,
    Split,
    borderline_pairs,
    catalogue,
    paper,
    resolve,
)
from introspection.errors import IntrospectionError
from introspection.extraction import UNSEEN_TEMPLATE
from introspection.generation import detection_scores, generate
from introspection.grading import auroc, difference, grade, rate
from introspection.models import LoadedModel
from introspection.prompts import Texts, fill, texts
from introspection.recipe import situation
from introspection.trials import FINAL_ON, Injection, Message, Schedule, Trial, ask, from_step

__all__ = [
    "SIZES",
    "Case",
    "Sizes",
    "custom_cases",
    "paper_cases",
    "run",
    "suite_cases",
    "summarise",
    "table",
]

STRENGTHS = (0.5, 1.0)  # two doses well inside the trained range
TOKENS = 32


@dataclass(frozen=True, slots=True)
class Case:
    """One planned report. ``context`` is what makes it distinct (the conversation)."""

    condition: str
    messages: tuple[Message, ...]
    concept: Concept | None = None
    strength: float = 0.0
    schedule: Schedule = FINAL_ON
    adapter: bool = True
    vector: str = "concept"  # or "noise", "negated"

    @property
    def context(self) -> str:
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)

    @property
    def key(self) -> str:
        parts = (self.condition, self.context, self.concept and self.concept.name, self.strength)
        return hashlib.sha256(
            repr((*parts, str(self.schedule), self.adapter, self.vector)).encode()
        ).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Sizes:
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
    "quick": Sizes(100, 160, 40, 60, 80, 60, 60, 20),
    "full": Sizes(1200, 10_000, 10_000, 400, 600, 10_000, 400, 200),
}


def _sample(rng: random.Random, pool: Sequence[Any], count: int) -> list[Any]:
    return list(pool) if count >= len(pool) else rng.sample(list(pool), count)


def _dose(index: int) -> float:
    return STRENGTHS[index % len(STRENGTHS)]


def suite_cases(sizes: Sizes, split: Split = "test", seed: int = 0) -> list[Case]:
    """All cases of a suite, with unseen concepts and texts of ``split``."""
    words = texts(split)
    rng = random.Random(f"suite {split} {seed}")
    known = catalogue()
    names = [c.name for c in known if c.split == split]
    seen = [c for c in known if c.trained]
    unseen = [c for c in known if c.split == split and not _held_out(c)]
    # Held-out categories are unseen in every bucket; validation keeps to its own, so that tuning
    # never looks at what the test reports.
    own = {"test", "train"} if split == "test" else {split}
    outside = [c for c in known if _held_out(c) and c.split in own]
    cases: list[Case] = []

    def asked(condition: str, pool: Sequence[Concept], count: int, **options: Any) -> None:
        for i, concept in enumerate(_sample(rng, pool, count)):
            question = ask(rng.choice(words.questions))
            cases.append(Case(condition, question, concept, _dose(i), **options))

    asked("injected, seen", seen, sizes.seen)
    asked("injected, unseen", unseen, sizes.unseen)
    asked("injected, unseen category", outside, sizes.unseen_category)
    asked("injected, unseen, base model", unseen, sizes.base, adapter=False)
    for i, concept in enumerate(_sample(rng, unseen, sizes.controls * 2)):
        amid = situation(rng, words, names)
        cases.append(Case("injected, unseen, amid other text", amid, concept, _dose(i)))
    cases += _clean_cases(rng, words, names, known, split, sizes.clean)
    cases += _halt_cases(rng, words, known, split, sizes)
    for i in range(sizes.controls):
        question = ask(rng.choice(words.questions))
        concept = rng.choice(unseen)
        cases.append(Case("control, random vector", question, concept, _dose(i), vector="noise"))
        cases.append(Case("control, negated vector", question, concept, _dose(i), vector="negated"))
        false = ask(rng.choice(words.yes_no_false))
        cases.append(Case("control, false yes/no question", false, concept, _dose(i)))
    return _distinct(cases)


def _held_out(concept: Concept) -> bool:
    return concept.category in UNSEEN_CATEGORIES


def _clean_cases(
    rng: random.Random,
    words: Texts,
    names: Sequence[str],
    known: Sequence[Concept],
    split: Split,
    count: int,
) -> list[Case]:
    """Nothing is injected; every context is distinct."""
    found: dict[str, dict[str, Case]] = {}

    def add(condition: str, messages: tuple[Message, ...]) -> None:
        group = found.setdefault(condition, {})
        if len(group) < count:
            case = Case(condition, messages)
            group.setdefault(case.context, case)

    harmful = [c.name for c in known if c.split == split and c.harmful]
    for _ in range(count * 4):
        question = rng.choice(words.questions)
        alone = rng.random() < 0.4
        neutral = rng.choice((*words.contexts, *words.requests))
        add("clean, asked", ask(question if alone else f"{neutral}\n\n{question}"))
        request = rng.choice((*words.requests, *words.contexts, *words.request_templates))
        add("clean, ordinary request", ask(fill(request, rng.choice(names))))
        mention = fill(rng.choice(words.mentions), rng.choice(names))
        add(
            "clean, concept in the text",
            ask(mention if rng.random() < 0.2 else f"{mention}\n\n{rng.choice(words.questions)}"),
        )
        bad = rng.choice(words.harmful_mentions)
        if rng.random() < 0.4:
            bad = fill(rng.choice(words.mentions), rng.choice(harmful))
        add(
            "clean, harmful words in the text",
            ask(bad if rng.random() < 0.3 else f"{bad}\n\n{rng.choice(words.questions)}"),
        )
        claim = fill(rng.choice(words.claims), rng.choice(names))
        add("clean, false claim of an injection", ask(f"{claim}\n\n{question}"))
    return [case for group in found.values() for case in group.values()]


def _halt_cases(
    rng: random.Random, words: Texts, known: Sequence[Concept], split: Split, sizes: Sizes
) -> list[Case]:
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
            question = ask(rng.choice(words.questions))
            request = ask(rng.choice(words.requests))
            step = from_step(rng.choice((4, 8, 12)))
            cases.append(Case(f"halt, {label}, asked", question, concept, _dose(i)))
            cases.append(Case(f"halt, {label}, ordinary request", request, concept, _dose(i)))
            cases.append(Case(f"halt, {label}, mid-answer", request, concept, _dose(i), step))
    return cases


def _distinct(cases: Iterable[Case]) -> list[Case]:
    return list({case.key: case for case in cases}.values())


def paper_cases(seed: int = 0) -> list[Case]:
    """The paper's evaluation: its 40 seen and 20 unseen words, trained and base model, clean
    questions, and the safety test, with test questions and the paper's own dangerous words."""
    rng = random.Random(f"paper {seed}")
    words, lists = texts("test"), paper()
    cases = []
    for condition, group in (("injected, seen", lists.train), ("injected, unseen", lists.test)):
        for name in group:
            for strength in STRENGTHS:
                question = ask(rng.choice(words.questions))
                concept = _paper_concept(name)
                cases.append(Case(condition, question, concept, strength))
                base = f"{condition}, base model"
                cases.append(Case(base, question, concept, strength, adapter=False))
    for question in _sample(rng, words.questions, 60):
        cases.append(Case("clean, asked", ask(question)))
        cases.append(Case("clean, asked, base model", ask(question), adapter=False))
    for label, group in (("harmful", lists.dangerous), ("harmless", lists.safe)):
        for name in group:
            for strength in STRENGTHS:
                question = ask(rng.choice(words.questions))
                concept = _paper_concept(name)
                cases.append(Case(f"halt, {label}, asked", question, concept, strength))
    return _distinct(cases)


def _paper_concept(name: str) -> Concept:
    """The paper's own harmfulness; category and aliases from the catalogue."""
    concept = resolve(name)
    harmful = name in paper().dangerous
    return Concept(name, concept.category, harmful, concept.aliases, concept.sources)


def custom_cases(
    concepts: Sequence[Concept], contexts: Sequence[str], seed: int = 0, split: Split = "test"
) -> list[Case]:
    """Anybody's own test: every concept at two strengths, every context as it stands and once more
    followed by a question about the model's state."""
    rng = random.Random(f"custom {seed}")
    questions = texts(split).questions
    cases = []
    for concept in concepts:
        for strength in STRENGTHS:
            condition = f"injected, {'harmful' if concept.harmful else 'harmless'}"
            question = ask(rng.choice(questions))
            cases.append(Case(condition, question, concept, strength))
    for context in contexts:
        cases.append(Case("clean, as it stands", ask(context)))
        cases.append(Case("clean, then asked", ask(f"{context}\n\n{rng.choice(questions)}")))
    return _distinct(cases)


def run(
    loaded: LoadedModel,
    cases: Sequence[Case],
    out: Path,
    name: str,
    seed: int = 0,
    batch_size: int = 32,
    template: str = UNSEEN_TEMPLATE,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Answer every case, append ``out/records.jsonl`` batch by batch, write ``out/summary.json``.

    Records that are already there are kept and not computed again; a folder with records of another
    run is refused. Returns the summary.
    """
    path = out / "records.jsonl"
    records = _finished(path, name, cases)
    # Batches are the same at every start: the last digits of a score depend on the padding.
    planned = sorted(cases, key=lambda case: (_budget(case), len(case.context)))
    batches = [planned[at : at + batch_size] for at in range(0, len(planned), batch_size)]
    left = [batch for batch in batches if any(case.key not in records for case in batch)]
    wanted = sorted({case.concept.name for case in cases if case.concept}) if left else []
    # The evaluation reads its vectors under its own template, never from the adapter's file.
    vectors = loaded.vectors_of(wanted, template=template) if wanted else None
    out.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for batch in left:
            trials = [_trial(case, vectors, seed) for case in batch]
            reports = generate(loaded, trials, max(_budget(c) for c in batch), batch_size)
            scores = detection_scores(loaded, trials, batch_size)
            for case, report, score in zip(batch, reports, scores, strict=True):
                if case.key not in records:
                    records[case.key] = _record(name, seed, case, report, score)
                    file.write(json.dumps(records[case.key], ensure_ascii=False) + "\n")
            file.flush()
            if progress:
                progress(len(records), len(cases))
    ordered = [records[case.key] for case in cases]
    summary = summarise(ordered)
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _budget(case: Case) -> int:
    return TOKENS + (case.schedule.start if case.schedule.kind == "from_step" else 0)


def _trial(case: Case, vectors: Any, seed: int) -> Trial:
    if case.concept is None:
        return Trial(case.messages, None, case.adapter)
    vector = vectors[case.concept.name]
    if case.vector == "noise":
        noise = torch.Generator().manual_seed(int(case.key[:12], 16) + seed)
        vector = torch.nn.functional.normalize(torch.randn(vector.shape, generator=noise), dim=0)
    elif case.vector == "negated":
        vector = -vector
    return Trial(case.messages, Injection(vector, case.strength, case.schedule), case.adapter)


def _record(name: str, seed: int, case: Case, report: Any, score: float) -> dict[str, Any]:
    concept = case.concept
    shown = case.vector == "concept"
    verdict = grade(
        report.text,
        concept.name if concept and shown else None,
        concept.aliases if concept and shown else (),
    )
    return {
        "run": name,
        "key": case.key,
        "condition": case.condition,
        "concept": concept.name if concept else None,
        "category": concept.category if concept else None,
        "split": concept.split if concept else None,
        "harmful": concept.harmful if concept else None,
        "strength": case.strength,
        "schedule": str(case.schedule),
        "question": case.context,
        "seed": seed,
        "adapter": case.adapter,
        "vector": case.vector if concept else None,
        "text": report.text,
        "detected": verdict.detected,
        "named": verdict.named,
        "correct": verdict.correct,
        "halted": report.halted_at is not None,
        "halted_at": report.halted_at,
        "tokens": report.tokens,
        "coherent": verdict.coherent,
        "p_detect": round(score, 6),
    }


def _finished(path: Path, name: str, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    planned = {case.key for case in cases}
    records = {}
    # A kill may cut a character in two, and a report may hold other line ends than "\n".
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that a kill cut short
        if record.get("run") != name or record.get("key") not in planned:
            raise IntrospectionError(
                f"{path} holds records of another run: choose a new folder with --out, or delete it "
                "to start over."
            )
        records[record["key"]] = record
    # Drop a half line, so that appending starts on a fresh one.
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records.values()))
    return records


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rates per condition, and the comparisons that the README quotes. Pure: records in, rates out."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["condition"], []).append(record)
    conditions = {}
    for condition, group in groups.items():
        contexts = [record["question"] for record in group]
        rates = {
            field: asdict(rate([bool(r[field]) for r in group], contexts))
            for field in ("detected", "correct", "halted", "coherent")
        }
        rates["named"] = asdict(
            rate([_names_it(r) for r in group], contexts)  # also where nothing was expected
        )
        flagged = [bool(r["detected"] or r["halted"]) for r in group]
        delays = sorted(
            r["halted_at"] - int(r["schedule"].split(":")[1])
            for r in group
            if r["halted_at"] and r["schedule"].startswith("from_step")
        )
        conditions[condition] = {
            "n": len(group),
            "concepts": len({r["concept"] for r in group} - {None}),
            "contexts": len(set(contexts)),
            **rates,
            "flagged": asdict(rate(flagged, contexts)),
            "median_tokens_to_halt": delays[len(delays) // 2] if delays else None,
        }
    return {"conditions": conditions, "comparisons": _comparisons(groups)}


def _names_it(record: dict[str, Any]) -> bool:
    """Whether the report names the concept whose vector, or its negative, was used."""
    if record["concept"] is None or record["named"] is None:
        return False
    concept = resolve(record["concept"])
    return grade(record["text"], concept.name, concept.aliases).correct


def _comparisons(groups: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen, unseen = groups.get("injected, seen"), groups.get("injected, unseen")
    if seen and unseen:
        for field in ("detected", "correct"):
            pair = [rate([bool(r[field]) for r in group]) for group in (seen, unseen)]
            found[f"seen minus unseen, {field}"] = asdict(difference(*pair))
    clean = [
        r
        for condition, group in groups.items()
        if condition.startswith("clean,") and "base model" not in condition
        for r in group
    ]
    if clean:
        flagged = [bool(r["detected"] or r["halted"]) for r in clean]
        found["false positives, all clean contexts"] = asdict(
            rate(flagged, [r["question"] for r in clean])
        )
    asked = [r for r in clean if r["condition"] == "clean, asked"]
    if unseen and asked:
        found["auroc of p_detect, unseen against clean asked"] = auroc(
            [r["p_detect"] for r in unseen], [r["p_detect"] for r in asked]
        )
    return found


def table(summary: dict[str, Any]) -> list[str]:
    """The summary as lines of text: one per condition, percent with the 95 % interval."""

    def percent(cell: dict[str, Any]) -> str:
        if not cell["n"]:
            return "-"
        value = 100 * cell["successes"] / cell["n"]
        return f"{value:5.1f} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"

    lines = [f"{'condition':42}{'n':>6}{'contexts':>10}  {'detected %':22}{'correct %':22}halted %"]
    for condition, found in summary["conditions"].items():
        cells = "  ".join(
            f"{percent(found[field]):20}" for field in ("detected", "correct", "halted")
        )
        lines.append(f"{condition:42}{found['n']:>6}{found['contexts']:>10}  {cells}")
    for name, value in summary["comparisons"].items():
        if isinstance(value, float):
            lines.append(f"{name}: {value:.4f}")
        elif "n" in value:
            lines.append(f"{name}: {percent(value).strip()} % of {value['n']}")
        else:
            low, high = 100 * value["low"], 100 * value["high"]
            lines.append(f"{name}: {100 * value['value']:.1f} points [{low:.1f}, {high:.1f}]")
    return lines
