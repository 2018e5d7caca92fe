"""The model behind the page: three trials in one batch for a request, or a list of labelled trials.

It keeps nothing about a visitor between two runs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from introspection.concepts.catalogue import Concept
from introspection.concepts.splits import UNSEEN_CATEGORIES
from introspection.demo.engine import trial_batch
from introspection.demo.engine.model_lock import ModelLock
from introspection.demo.engine.run_request import (
    MAX_NEW_TOKENS,
    RowAnswer,
    RowAnswers,
    RunRequest,
    checked,
)
from introspection.demo.engine.trial_batch import TrialResult, TrialSpec
from introspection.demo.engine.zerogpu import on_gpu, seconds
from introspection.evaluation.records.record_files import seen_names, was_trained
from introspection.injection import hooks
from introspection.injection.decoding import generation
from introspection.injection.decoding.readout import token_projections
from introspection.injection.decoding.streaming import stream
from introspection.injection.trials.message import conversation
from introspection.injection.trials.trial import Injection, Trial
from introspection.io import input_checks
from introspection.models.adapters import multi_adapter
from introspection.models.loaded_model import LoadedModel

TIMEOUT_SECONDS = 60.0  # of one run of the model
ROWS = 3  # answers that the page asks for at once


class DemoModel:
    """One model with its adapter as the page uses it: built once, used by every visitor in turn.

    ``others`` are the same model with further adapters (``multi_adapter.load_adapter``), each of its
    own name. There is then one DemoModel for every adapter, and all share one ``lock``; ``offered``
    has them by name, and is empty where there is no choice.
    """

    def __init__(self, loaded: LoadedModel, others: Sequence[LoadedModel] = ()) -> None:
        self.loaded = loaded
        self.lock = ModelLock(2 * TIMEOUT_SECONDS)
        self.offered: dict[str, DemoModel] = {}
        if others:
            models = (self, *map(DemoModel, others))
            self.offered = {model.loaded.adapter_name: model for model in models}
            for model in models:
                model.lock, model.offered = self.lock, self.offered
        self._trained = seen_names(loaded.adapter)
        self._steps = on_gpu(self._run, lambda request: seconds(ROWS * request.tokens))
        # Maps are one step more.
        self._line_steps = on_gpu(
            self._run_lines, lambda asked, most, _maps=False: seconds(most * len(asked))
        )

    @property
    def has_adapter(self) -> bool:
        """Whether a trained adapter answers, and not the untrained model alone."""
        return self.loaded.adapter is not None

    @property
    def depth(self) -> int:
        """How many layers the model has."""
        return len(hooks.decoder_layers(self.loaded.model))

    @property
    def trained_range(self) -> tuple[float, float] | None:
        """The least and the greatest strength of training, in typical residual norms."""
        return self.loaded.adapter.strengths if self.loaded.adapter else None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters on offer; the first is the one that answers unless another is chosen."""
        name = self.loaded.adapter_name
        return tuple(self.offered) or ((name,) if name else ())

    def request(self, *asked: object, **named: object) -> RunRequest:
        """:func:`checked` against the adapters on offer."""
        return checked(*asked, offered=self.names, **named)

    def chosen(self, adapter: object) -> DemoModel:
        """The one with the adapter that a visitor chose, the first for None or an empty name. Raises
        IntrospectionError for a name that is not on offer."""
        return self.offered.get(input_checks.adapter_name(adapter, self.names), self)

    def seen(self, concept: Concept) -> tuple[bool, str]:
        """Whether training has seen the concept, and why or why not in words."""
        if self._trained is not None and was_trained(concept.name, self._trained):
            exactly = concept.name.casefold() in self._trained
            return True, "seen in training" + ("" if exactly else " in another form")
        if concept.category in UNSEEN_CATEGORIES:
            return False, "whole category never trained on"
        if concept.category == "typed":
            return False, "never seen in training"
        if concept.split != "train":
            return False, f"never seen in training ({concept.split} split)"
        if self._trained is None:
            return True, "may be trained on"
        return False, "never seen in training"

    def stream(self, request: RunRequest) -> Iterator[RowAnswers]:
        """The three answers after every token; closing the iterator ends the run. Raises
        IntrospectionError when the model does not become free in time."""
        steps_of = self.chosen(request.adapter)._steps
        with self.lock.hold(), closing(steps_of(request)) as steps:
            yield from steps

    def lines(
        self, asked: Sequence[TrialSpec], most: int = MAX_NEW_TOKENS, maps: bool = False
    ) -> Iterator[tuple[TrialResult, ...]]:
        """All answers to a list of trials after every token, by this adapter; closing the iterator ends
        the run. ``most`` is tokens per answer. With ``maps`` the last answers have their projections
        at every layer. Raises IntrospectionError when the model does not become free in time."""
        with self.lock.hold(), closing(self._line_steps(asked, most, maps)) as steps:
            yield from steps

    def warm(self) -> None:
        """Read the baseline words, which the vector of every typed concept needs; they are cached."""
        for one in self.offered.values() or (self,):
            with self.lock.hold():
                one._activate()
                one.loaded.vectors_of(["ocean"])

    def _activate(self) -> None:
        """Let this adapter answer. To be called where the model runs: on ZeroGPU in the fork."""
        if self.offered:
            multi_adapter.set_adapter(self.loaded, [one.loaded for one in self.offered.values()])

    def _run_lines(
        self, asked: Sequence[TrialSpec], most: int, maps: bool
    ) -> Generator[tuple[TrialResult, ...], None, None]:
        self._activate()
        yield from trial_batch.run(self.loaded, asked, most, TIMEOUT_SECONDS, maps)

    def _run(self, request: RunRequest) -> Generator[RowAnswers, None, None]:
        """Everything of :meth:`stream` that needs the model; request and answers can be pickled."""
        self._activate()
        injected = request.strength > 0
        vector = self.loaded.vector(request.concept.name)
        given = Injection(vector, request.strength, request.schedule) if injected else None
        messages = conversation(request.question)
        trials = [
            Trial(messages, given, adapter=self.has_adapter),
            Trial(messages, given, adapter=False),
            Trial(messages, adapter=self.has_adapter),
        ]
        rows = (
            RowAnswer("adapter_thought", self.has_adapter, injected),
            RowAnswer("base_thought", False, injected),
            RowAnswer("adapter_clean", self.has_adapter, False),
        )
        reports: list[generation.Answer] = []
        began: dict[int, int] = {}
        late = request.schedule.start if request.schedule.starts_mid_answer else None
        with closing(
            stream(self.loaded, trials, request.tokens, seconds=TIMEOUT_SECONDS)  # type: ignore[type-var]
        ) as steps:
            for reports in steps:
                for i, (row, report) in enumerate(zip(rows, reports, strict=True)):
                    if row.injected and report.tokens == late and not report.finished:
                        began.setdefault(i, len(report.text))
                yield self._answers(request, rows, reports, began, ended=False)
        done = self._answers(request, rows, reports, began, ended=True)
        texts = [answer.text for answer in done]
        read = token_projections(self.loaded, trials, texts, vector)
        first, second, third = (replace(a, tokens_read=t) for a, t in zip(done, read, strict=True))
        yield first, second, third

    @staticmethod
    def _answers(
        request: RunRequest,
        rows: RowAnswers,
        reports: list[generation.Answer],
        began: dict[int, int],
        ended: bool,
    ) -> RowAnswers:
        def answer(i: int) -> RowAnswer:
            row, report = rows[i], reports[i]
            expected = request.concept if row.injected else None
            written = trial_batch.graded(report, expected, ended or report.finished)
            return replace(row, began=began.get(i), **written)

        return answer(0), answer(1), answer(2)

    def record(self, request: RunRequest, answers: RowAnswers) -> dict[str, Any]:
        """The run as JSON, for the API."""
        chosen = self.chosen(request.adapter)
        return {
            "model": self.loaded.name,
            "adapter_loaded": self.has_adapter,
            "adapter_id": chosen.loaded.adapter_name or None,
            "concept": request.concept.name,
            "catalogue_entry": request.concept.entry or None,
            "category": request.concept.category,
            "harmful": request.harmful,
            "seen_in_training": chosen.seen(request.concept)[0] and chosen.has_adapter,
            "strength": request.strength,
            "schedule": str(request.schedule),
            "question": request.question,
            "rows": [
                {
                    "row": answer.row,
                    "adapter": answer.adapter,
                    "injected": answer.injected,
                    **answer.as_json("coherent"),
                }
                for answer in answers
            ],
        }
