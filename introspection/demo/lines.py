"""Many labelled trials in one run: sweeps, controls, tables and the blind trial are lists of lines.

Knows: what a line injects and what a right answer to it would be, batches, other blocks than the
adapter's. Does not know: Gradio, HTML, locks or visitors.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Literal
from zlib import crc32

from introspection import generation, injection
from introspection.adapter import AdapterInfo
from introspection.concepts import Concept
from introspection.extraction import random_direction
from introspection.grading import Verdict, grade
from introspection.models import LoadedModel
from introspection.trials import FINAL_ON, Injection, Schedule, Trial, ask

__all__ = ["BATCH", "Line", "LineAnswer", "run"]

BATCH = 16  # lines answered side by side: more would keep a visitor with one waiting for long
BASELINE = 32  # words that a vector of another block is measured against
Vector = Literal["none", "concept", "negated", "random"]


@dataclass(frozen=True, slots=True)
class Line:
    """One trial by name. ``concept`` with ``vector="concept"`` is what a right report names; with
    any other vector a right report names nothing. ``layer``: another block than the adapter's."""

    label: str
    concept: Concept | None
    strength: float
    question: str
    vector: Vector = "concept"
    schedule: Schedule = FINAL_ON
    adapter: bool = True
    layer: int | None = None

    @property
    def injected(self) -> bool:
        return self.concept is not None and self.vector != "none" and self.strength > 0


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """What was written on a line so far; ``verdict`` once it has ended."""

    line: Line
    text: str = ""
    tokens: int = 0
    halted_at: int | None = None
    verdict: Verdict | None = None

    @property
    def halted(self) -> bool:
        return self.halted_at is not None or bool(self.verdict and self.verdict.halted)


def run(
    loaded: LoadedModel, lines: Sequence[Line], most: int, seconds: float
) -> Generator[tuple[LineAnswer, ...], None, None]:
    """All answers so far after every token, in the order of ``lines``; closing it ends the model.

    ``most`` tokens per answer, ``seconds`` for each batch. Lines of one block share batches; for
    another block than the adapter's the hook is moved there while they last, so nobody else may use
    the model meanwhile.
    """
    answers = [LineAnswer(line) for line in lines]
    blocks = {line.layer for line in lines}
    for block in sorted(blocks, key=lambda b: (b is not None, b or 0)):
        chosen = [i for i, line in enumerate(lines) if line.layer == block]
        with ExitStack() as stack:
            model = loaded
            if block is not None and block != loaded.layer:
                stack.callback(_move, loaded, loaded.layer)
                _move(loaded, block)
                model = replace(loaded, layer=block, vectors=None, adapter=_briefly(loaded))
                model.norm = model.vectors_of(["ocean"]).norm
            for at in range(0, len(chosen), BATCH):
                part = chosen[at : at + BATCH]
                trials = [_trial(model, lines[i]) for i in part]
                reports: list[generation.Report] = []
                with closing(
                    generation.stream(model, trials, most, seconds=seconds)  # type: ignore[type-var]
                ) as steps:
                    for reports in steps:
                        for i, report in zip(part, reports, strict=True):
                            answers[i] = _answer(lines[i], report, report.finished)
                        yield tuple(answers)
                for i, report in zip(part, reports, strict=True):
                    answers[i] = _answer(lines[i], report, True)
                yield tuple(answers)


def _briefly(loaded: LoadedModel) -> AdapterInfo | None:
    """The adapter's site with fewer baseline words: they are read anew at every other block."""
    info = loaded.adapter
    return info and replace(info, baseline=info.baseline[:BASELINE])


def _move(loaded: LoadedModel, block: int) -> None:
    assert loaded.hooks is not None
    loaded.hooks = injection.move(loaded.model, loaded.hooks, block)


def _trial(loaded: LoadedModel, line: Line) -> Trial:
    given = None
    if line.injected:
        assert line.concept is not None
        vector = loaded.vector(line.concept.name)
        if line.vector == "negated":
            vector = -vector
        elif line.vector == "random":
            vector = random_direction(crc32(line.concept.name.encode()), len(vector))
        given = Injection(vector, line.strength, line.schedule)
    return Trial(ask(line.question), given, line.adapter)


def _answer(line: Line, report: generation.Report, ended: bool) -> LineAnswer:
    verdict = None
    if ended:
        named = line.concept if line.injected and line.vector == "concept" else None
        verdict = grade(report.text, named.name if named else None, named.aliases if named else ())
    return LineAnswer(line, report.text, report.tokens, report.halted_at, verdict)
