"""Many labelled trials in one run: sweeps, controls, tables and the blind trial are lists of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal
from zlib import crc32

from introspection.concepts.catalogue import Concept
from introspection.evaluation.grading.grade import grade
from introspection.evaluation.grading.graded_answer import GradedAnswer
from introspection.injection import hooks
from introspection.injection.decoding import generation
from introspection.injection.decoding.readout import LayerProjections, layer_projections
from introspection.injection.decoding.streaming import stream
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import GENERATION, Schedule
from introspection.injection.trials.trial import Injection, Trial
from introspection.injection.vectors import control_vector
from introspection.models.loaded_model import LoadedModel

BATCH = 24  # trials answered side by side; a sweep over strengths has as many of each model
BASELINE = 32  # words that a vector of another layer is measured against
Vector = Literal["none", "concept", "negated", "random"]


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One trial by name. ``concept`` with ``vector="concept"`` is what a right report names; with
    any other vector a right report names nothing. ``layer``: another layer than the adapter's;
    ``before``: the turns before the question."""

    label: str
    concept: Concept | None
    strength: float
    question: str
    vector: Vector = "concept"
    schedule: Schedule = GENERATION
    adapter: bool = True
    layer: int | None = None
    before: tuple[Message, ...] = ()

    @property
    def injected(self) -> bool:
        """Whether any vector is added."""
        return self.concept is not None and self.vector != "none" and self.strength > 0


@dataclass(frozen=True, slots=True)
class TrialResult(GradedAnswer):
    """The answer to a trial so far; ``verdict`` once it has ended, ``map`` (projections of the residual
    stream at every layer) once a run that asked for it has ended."""

    line: TrialSpec
    map: LayerProjections | None = None


def run(
    loaded: LoadedModel, lines: Sequence[TrialSpec], most: int, seconds: float, maps: bool = False
) -> Generator[tuple[TrialResult, ...], None, None]:
    """All answers so far after every token, in the order of ``lines``; closing it ends the run.

    ``most`` is tokens per answer, ``seconds`` the time for each batch; trials of all layers share
    batches. To read the vectors of another layer than the adapter's, the hook is moved there for a
    moment, so nobody else may use the model meanwhile. With ``maps`` the residual stream of all
    trials is read at the end, as projections on the first trial's concept.
    """
    answers = [TrialResult(line) for line in lines]
    sites: dict[int | None, LoadedModel] = {None: loaded, loaded.layer: loaded}
    for layer in sorted({line.layer for line in lines if line.layer is not None} - {loaded.layer}):
        sites[layer] = _read_at(loaded, layer, [line for line in lines if line.layer == layer])
        yield tuple(answers)  # whoever has left is noticed here
    for at in range(0, len(lines), BATCH):
        part = range(at, min(at + BATCH, len(lines)))
        trials = [_trial(loaded, sites[lines[i].layer], lines[i]) for i in part]
        reports: list[generation.Answer] = []
        with closing(
            stream(loaded, trials, most, seconds=seconds)  # type: ignore[type-var]
        ) as steps:
            for reports in steps:
                for i, report in zip(part, reports, strict=True):
                    answers[i] = _answer(lines[i], report, report.finished)
                yield tuple(answers)
        for i, report in zip(part, reports, strict=True):
            answers[i] = _answer(lines[i], report, True)
        yield tuple(answers)
    if maps and lines[0].concept:
        trials = [_trial(loaded, sites[line.layer], line) for line in lines]
        texts, vector = [answer.text for answer in answers], loaded.vector(lines[0].concept.name)
        projections = layer_projections(loaded, trials, texts, vector)
        yield tuple(replace(a, map=one) for a, one in zip(answers, projections, strict=True))


def _read_at(loaded: LoadedModel, layer: int, lines: Sequence[TrialSpec]) -> LoadedModel:
    """The model with the vectors and the typical norm of another layer, read against a short baseline
    of BASELINE words."""
    info = loaded.adapter
    brief = info and replace(info, baseline=info.baseline[:BASELINE])
    there = replace(loaded, layer=layer, vectors=None, adapter=brief)
    names = sorted({line.concept.name for line in lines if line.concept}) or ["ocean"]
    assert loaded.hooks is not None
    home = loaded.hooks.layer
    loaded.hooks = hooks.move_hook(loaded.model, loaded.hooks, layer)
    try:
        there.vectors = there.vectors_of(names)
    finally:
        loaded.hooks = hooks.move_hook(loaded.model, loaded.hooks, home)
    there.norm = there.vectors.norm
    return there


def _trial(loaded: LoadedModel, site: LoadedModel, line: TrialSpec) -> Trial:
    """The trial of a line. ``site`` is ``loaded`` itself or has another layer's vectors."""
    given = None
    if line.injected:
        assert line.concept is not None and line.vector != "none"
        seed = crc32(line.concept.name.encode())
        vector = control_vector(line.vector, site.vector(line.concept.name), seed)
        given = Injection(vector, line.strength, line.schedule)
        if site is not loaded:  # a strength counts in norms of the layer it is added at
            dose = line.strength * site.norm / loaded.norm
            given = replace(given, strength=dose, layer=site.layer)
    # On a bare model every line is the base model's.
    trained = line.adapter and hooks.has_adapter(loaded.model)
    return Trial(conversation(line.question, *line.before), given, trained)


def graded(report: generation.Answer, expected: Concept | None, ended: bool) -> dict[str, Any]:
    """The fields of a GradedAnswer: what is written, and the verdict on it once it has ended."""
    return {
        "text": report.text,
        "tokens": report.tokens,
        "halted_at": report.halted_at,
        "verdict": grade(report.text, expected) if ended else None,
    }


def _answer(line: TrialSpec, report: generation.Answer, ended: bool) -> TrialResult:
    named = line.concept if line.injected and line.vector == "concept" else None
    return TrialResult(line, **graded(report, named, ended))
