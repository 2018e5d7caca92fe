"""Everything of the package that the safety net touches: when a module moves, only this file changes.

A trial case names a vector by its ``concept`` and how it is read (``read``: options of
``vectors_of``; without it, the adapter's own file), ``negated`` or drawn from a ``seed``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from typer.testing import CliRunner, Result

from introspection.__main__ import app
from introspection.concepts.catalogue import resolve
from introspection.evaluation.grading.grade import grade
from introspection.injection.decoding import generation
from introspection.injection.decoding.generation import Answer, generate, generate_with_scores
from introspection.injection.decoding.streaming import stream
from introspection.injection.trials.encoding import injected_positions
from introspection.injection.trials.message import Message
from introspection.injection.trials.prompts import prompt_ids
from introspection.injection.trials.schedule import Schedule
from introspection.injection.trials.trial import Injection, Trial
from introspection.injection.vectors import random_direction
from introspection.models import loading
from introspection.models.adapters import multi_adapter
from introspection.models.loaded_model import LoadedModel

if TYPE_CHECKING:
    import gradio as gr

Case = dict[str, Any]


@lru_cache(maxsize=1)
def default_model() -> LoadedModel:
    return loading.load(device="cpu")


def page(folder: Path, port: int) -> gr.Blocks:
    """The demo on the default model, with a copy of the adapter as a second choice called ``twin``."""
    # Half of what an import of this module would take.
    from introspection.demo.server.launch import launch

    loaded = loading.load(device="cpu")
    assert loaded.adapter_folder is not None
    twin = Path(shutil.copytree(loaded.adapter_folder, folder / "twin"))
    others = [multi_adapter.load_adapter(loaded, twin)]
    return launch(loaded, "127.0.0.1", port, block=False, others=others, quiet=True)


def command(args: Sequence[str]) -> Result:
    return CliRunner().invoke(app, list(args))


def _vector(loaded: LoadedModel, given: Case) -> tuple[Tensor, float | None]:
    """The vector [D] of an injection, and its length before scaling if it was read now."""
    magnitude = None
    if "seed" in given:
        vector = random_direction(given["seed"], loaded.model.config.hidden_size)
    elif "read" in given:
        read = loaded.vectors_of([given["concept"]], **given["read"])
        vector, magnitude = read.vectors[0], float(read.magnitudes[0])
    else:
        vector = loaded.vector(given["concept"])
    return (-vector if given.get("negated") else vector), magnitude


def _trial(loaded: LoadedModel, case: Case) -> tuple[Trial, float | None]:
    messages = tuple(Message(*message) for message in case["messages"])
    given = case.get("inject")
    if given is None:
        return Trial(messages, None, case["adapter"]), None
    vector, magnitude = _vector(loaded, given)
    schedule = Schedule.parse(given["schedule"])
    injection = Injection(vector, given["strength"], schedule, given.get("layer"))
    return Trial(messages, injection, case["adapter"]), magnitude


def _streamed(loaded: LoadedModel, trials: Sequence[Trial], tokens: int) -> list[Answer]:
    *_, last = stream(loaded, trials, tokens)
    return last


WAYS: dict[str, Callable[[LoadedModel, Sequence[Trial], int], list[Answer]]] = {
    "plain": lambda loaded, trials, n: generate(loaded, trials, n),
    "alone": lambda loaded, trials, n: generate(loaded, trials, n, batch_size=1),
    "unhalted": lambda loaded, trials, n: generate(loaded, trials, n, halt=False),
    "streamed": _streamed,
}


def answered(loaded: LoadedModel, way: str, cases: Sequence[Case], tokens: int) -> list[Case]:
    """What the model says to one batch of cases, its verdicts, and where the vectors were added.
    ``way``: one of WAYS, or ``scored`` for detection scores as well."""
    made = [_trial(loaded, case) for case in cases]
    trials = [trial for trial, _ in made]
    scores: Sequence[float | None] = [None] * len(trials)
    if way == "scored":
        wanted = [case.get("scored", True) for case in cases]
        reports, scores = generate_with_scores(loaded, trials, wanted, tokens)
    else:
        reports = WAYS[way](loaded, trials, tokens)
    found = []
    rows = zip(cases, made, reports, scores, strict=True)
    for case, (trial, magnitude), report, score in rows:
        concept = resolve(case["expected"]) if case.get("expected") else None
        verdict = grade(report.text, concept)
        given = trial.injection
        span = given and injected_positions(loaded.tokenizer, trial.messages, given.schedule)
        found.append(
            {
                **asdict(report),
                "verdict": asdict(verdict),
                "score": score,
                "prompt_tokens": len(prompt_ids(loaded.tokenizer, trial.messages)),
                "span": span and list(span),
                "magnitude": magnitude,
            }
        )
    return found


class _Gaps(LogitsProcessor):
    """Notes how far the best token is before the second, in logits, at every step of every row."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        best = scores.float().topk(2, dim=-1).values
        self.steps.append(best[:, 0] - best[:, 1])
        return scores


@contextmanager
def watched() -> Iterator[list[float]]:
    """The smallest gap of every row that is written in this context, batch after batch."""
    write, found = generation.greedy_decode, list[float]()

    def watching(model: Any, rows: Any, pad: int, max_new_tokens: int, **options: Any) -> Tensor:
        gaps = _Gaps()
        processors = [*(options.pop("logits_processor", None) or ()), gaps]
        options["logits_processor"] = LogitsProcessorList(processors)
        written = write(model, rows, pad, max_new_tokens, **options)
        ends = torch.tensor([pad, *(options.get("eos_token_id") or ())])
        ended = torch.isin(written, ends).cumsum(1) > torch.isin(written, ends)  # past the first
        steps = torch.stack(gaps.steps, dim=1)[:, : written.shape[1]]
        found.extend(steps.masked_fill(ended, float("inf")).min(dim=1).values.tolist())
        return written

    generation.greedy_decode = watching  # type: ignore[assignment]
    try:
        yield found
    finally:
        generation.greedy_decode = write


def gaps(loaded: LoadedModel, way: str, cases: Sequence[Case], tokens: int) -> list[float]:
    """Of every case the smallest gap on the way to its answer, each asked alone."""
    found = []
    for case in cases:
        with watched() as seen:
            answered(loaded, "unhalted" if way == "unhalted" else "alone", [case], tokens)
        found += seen
    return found
