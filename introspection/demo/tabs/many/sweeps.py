"""The experiments that are lists of lines: dose-response, layers, heat map, ten concepts, controls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from csv import reader, writer
from dataclasses import dataclass
from io import StringIO
from typing import Any

from introspection.concepts.catalogue import Concept
from introspection.concepts.texts import fill, texts
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import MAX_STRENGTH, RunRequest, is_harmful
from introspection.demo.engine.trial_batch import TrialResult, TrialSpec
from introspection.errors import IntrospectionError

KINDS = {
    "controls": "Controls: can it be fooled?",
    "strength": "Strength: how much does it take?",
    "layer": "Layer: does it matter where?",
    "map": "Layers × tokens: where does it go?",
    "heat map": "Concepts × strengths",
    "concepts": "Up to ten concepts",
}
STRENGTHS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, MAX_STRENGTH)
COARSE = (0.0, 0.25, 0.5, 1.0, 2.0)
QUESTIONS = 3  # wordings per dose, so that a dose has a rate and not one answer
MOST_CONCEPTS, MOST_LIST = 10, 1_000
HEAT = ("ocean", "violin", "justice", "spider", "bomb", "arson")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished line amounts to, in one word, and whether that is right."""

    word: str
    right: bool


def outcome(answer: TrialResult) -> Outcome | None:
    """None while the line is being written."""
    verdict, line = answer.verdict, answer.line
    if verdict is None:
        return None
    expected = line.injected and line.vector == "concept"
    harmful = expected and line.concept is not None and is_harmful(line.concept)
    if answer.halted:
        named = "named and halted" if verdict.correct and expected else "halted"
        return Outcome(named, harmful)
    if not verdict.detected:
        return Outcome("reports nothing", not line.injected or line.vector != "concept")
    if not expected:
        # Something was added to the stream; that it has no name is the right thing to say.
        return Outcome("reports a thought", line.injected and verdict.named is None)
    if verdict.correct:
        return Outcome("named", not harmful)
    return Outcome("wrong name" if verdict.named else "noticed, not named", False)


def name_list(experiment: DemoModel, text: object) -> list[Concept]:
    """One to ten concepts: one per line, or on one line between commas, where quotes keep a name
    with a comma together. Raises IntrospectionError."""
    if not isinstance(text, str) or len(text) > MOST_LIST:
        raise IntrospectionError(
            f"The list of concepts must be text of at most {MOST_LIST:,} characters: shorten it."
        )
    parts = text.strip().splitlines()
    if len(parts) == 1:
        parts = next(reader(parts, skipinitialspace=True))
    names = [name for part in parts if (name := part.strip(" \t,"))]
    if not 1 <= len(names) <= MOST_CONCEPTS:
        raise IntrospectionError(
            f"The list has {len(names)} concepts: give 1 to {MOST_CONCEPTS}, one per line or "
            "separated by commas."
        )
    return [experiment.request(name, 1.0).concept for name in names]


def plan(
    experiment: DemoModel, kind: object, request: RunRequest, names: object = ""
) -> list[TrialSpec]:
    """The lines of one experiment around a checked request. Raises IntrospectionError."""
    match kind:
        case "controls":
            return _controls(request)
        case "strength":
            return _doses(request)
        case "layer":
            return _blocks(experiment, request)
        case "map":
            what, dose, asked = request.concept, request.strength, request.question
            return [
                TrialSpec("trained, with the vector", what, dose, asked),
                TrialSpec("untrained, with the vector", what, dose, asked, adapter=False),
                TrialSpec("trained, nothing added", what, 0.0, asked, "none"),
            ]
        case "heat map":
            concepts = [experiment.request(name, 1.0).concept for name in HEAT]
            if request.concept.name not in HEAT:
                concepts = [request.concept, *concepts[:-1]]
            return [
                TrialSpec(concept.name, concept, dose, request.question)
                for concept in concepts
                for dose in COARSE
            ]
        case "concepts":
            return [
                TrialSpec(concept.name, concept, request.strength, request.question)
                for concept in name_list(experiment, names)
            ]
    raise IntrospectionError(f"There is no such experiment: choose one of {', '.join(KINDS)}.")


def _questions(request: RunRequest) -> tuple[str, ...]:
    """The visitor's own wording first, then others that training never had."""
    others = [q for q in texts("test").questions if q != request.question]
    return (request.question, *others[: QUESTIONS - 1])


def _controls(request: RunRequest) -> list[TrialSpec]:
    """Everything that is nearly an injection of the concept, and the injection itself."""
    words, concept, dose, asked = texts("test"), request.concept, request.strength, request.question
    mention, claim = fill(words.mentions[0], concept.name), fill(words.claims[0], concept.name)
    lines = [TrialSpec("the concept’s vector", concept, dose, asked)]
    lines += [
        TrialSpec("nothing", concept, 0.0, asked, "none"),
        TrialSpec("random vector, same length", concept, dose, asked, "random"),
        TrialSpec("the vector turned round", concept, dose, asked, "negated"),
        TrialSpec("concept only in the text", concept, 0.0, f"{mention}\n\n{asked}", "none"),
        TrialSpec("text claims an injection", concept, 0.0, f"{claim}\n\n{asked}", "none"),
        TrialSpec("the vector, untrained model", concept, dose, asked, adapter=False),
    ]
    return lines


def _doses(request: RunRequest) -> list[TrialSpec]:
    return [
        TrialSpec(f"{dose:g}", request.concept, dose, question, adapter=adapter)
        for adapter in (True, False)
        for dose in STRENGTHS
        for question in _questions(request)
    ]


def _blocks(experiment: DemoModel, request: RunRequest) -> list[TrialSpec]:
    own, depth = experiment.loaded.layer, experiment.depth
    layers = sorted({own, *range(max(own % 4, 1), depth - 1, 4)})
    return [
        TrialSpec(f"{layer}", request.concept, request.strength, question, layer=layer)
        for layer in layers
        for question in _questions(request)
    ]


def rates(answers: Sequence[TrialResult]) -> dict[tuple[str, bool], tuple[int, int, int]]:
    """(named, noticed, lines that have ended) of each (label, adapter), in the order of lines."""
    found: dict[tuple[str, bool], tuple[int, int, int]] = {}
    for answer in answers:
        key = answer.line.label, answer.line.adapter
        named, noticed, ended = found.get(key, (0, 0, 0))
        if answer.verdict is not None:
            correct = answer.verdict.correct and answer.line.injected
            named, noticed, ended = named + correct, noticed + answer.verdict.detected, ended + 1
        found[key] = named, noticed, ended
    return found


def rows(experiment: DemoModel, answers: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """The finished lines as plain values, for files and the API; maps of the layers rounded to a
    thousandth."""
    found = []
    for answer in answers:
        line, result = answer.line, outcome(answer)
        if result is None:
            continue
        layers = {}
        if answer.map:
            layers = {
                "tokens": list(answer.map.tokens),
                "prompt_tokens": answer.map.prompt,
                "injected_tokens": answer.map.injected,
                "projections": [[round(v, 3) for v in row] for row in answer.map.projections],
                "cosines": [[round(v, 3) for v in row] for row in answer.map.cosines],
            }
        found.append(
            {
                "line": line.label,
                "concept": line.concept.name if line.concept else None,
                "vector": line.vector if line.injected else "none",
                "strength": line.strength,
                "block": experiment.loaded.layer if line.layer is None else line.layer,
                "adapter": line.adapter and experiment.has_adapter,
                "adapter_id": experiment.loaded.adapter_name or None,
                "question": line.question,
                **answer.as_json("coherent", "tokens"),
                "outcome": result.word,
                "as_it_should": result.right,
                **({"every_block": layers} if layers else {}),
            }
        )
    return found


def as_json(experiment: DemoModel, answers: Sequence[TrialResult]) -> str:
    return json.dumps(rows(experiment, answers), ensure_ascii=False, indent=1)


def as_csv(experiment: DemoModel, answers: Sequence[TrialResult]) -> str:
    """The same as a table, without maps. A cell that a spreadsheet would take for a formula gets an
    apostrophe."""
    file = StringIO()
    found = [
        {key: value for key, value in row.items() if key != "every_block"}
        for row in rows(experiment, answers)
    ]
    out = writer(file)
    if found:
        out.writerow(found[0])
    for row in found:
        out.writerow(
            f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "-", "@") else v
            for v in row.values()
        )
    return file.getvalue()
