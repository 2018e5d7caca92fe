"""The public endpoints: named, typed, documented, and nothing else.

Errors are plain text, for programs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Any

import gradio as gr
from gradio.context import get_blocks_context

from introspection.concepts.catalogue import catalogue
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import MAX_NEW_TOKENS, RunRequest
from introspection.demo.engine.trial_batch import TrialSpec
from introspection.demo.shared import verdicts
from introspection.demo.shared.events import BROKEN, MODEL_QUEUE
from introspection.demo.tabs.many import sweeps
from introspection.errors import IntrospectionError
from introspection.injection.trials.schedule import choice

log = logging.getLogger(__name__)
MOST_STRENGTHS = 8


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn everything that the body raises into one sentence."""
    try:
        yield
    except IntrospectionError as error:
        raise gr.Error(str(error), print_exception=False) from None
    except Exception:
        log.exception("a run failed")
        raise gr.Error(BROKEN, print_exception=False) from None


def _verdicts(check: Callable[..., Any], good: tuple[Any, ...], *given: Any) -> list[Any]:
    """Gradio's validation before a request joins the queue: for every argument whether it is valid, or
    a sentence that says why not. Each is checked among ``good`` ones, then all together."""
    alone = [(*good[:i], value, *good[i + 1 :]) for i, value in enumerate(given)]
    refusals = [_refusal(check, *arguments) for arguments in alone]
    if not any(refusals):
        refusals[0] = _refusal(check, *given)
    return [gr.validate(not sentence, sentence) for sentence in refusals]


def _refusal(check: Callable[..., Any], *arguments: Any) -> str:
    try:
        check(*arguments)
    except IntrospectionError as error:
        return str(error)
    return ""


class Page(gr.Blocks):
    """Fills missing trailing arguments with defaults for raw HTTP calls, as ``gradio_client`` does, so
    that adding an argument breaks nobody."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], *options: Any, **named: Any
    ) -> Any:
        if block_fn.api_visibility == "public" or block_fn.is_validator_function:
            defaults = [
                parameter.default for parameter in signature(block_fn.fn).parameters.values()
            ]
            missing = defaults[len(inputs) :]
            if all(value is not Parameter.empty for value in missing):
                inputs = [*inputs, *missing]
        return await super().preprocess_data(block_fn, inputs, *options, **named)


class _Api:
    def __init__(self, model: DemoModel) -> None:
        self.model = model

    def _rows(
        self, asked: list[TrialSpec], adapter: str, most: int = MAX_NEW_TOKENS
    ) -> list[dict[str, Any]]:
        chosen = self.model.chosen(adapter)
        *_, answers = chosen.lines(asked, most)
        return sweeps.rows(chosen, answers)

    def report(
        self,
        concept: str,
        strength: float = 1.0,
        question: str = DEFAULT_QUESTION,
        schedule: str = "final_on",
        adapter: str = "",
    ) -> dict[str, Any]:
        """One self-report of the trained model under an injection.

        Parameters:
            concept: a word or short phrase of at most 60 characters
            strength: 0 to 4, in units of the model's typical residual norm; 0 injects nothing
            question: what the model is asked
            schedule: SCHEDULES
            adapter: one of those that /health lists; empty for the first
        Returns:
            the report with its verdict
        """

        with _plainly():
            asked = self.asked_report(concept, strength, question, schedule, adapter)
            injected = asked.concept, asked.strength, asked.question
            line = TrialSpec(asked.concept.name, *injected, schedule=asked.schedule)
            return self._rows([line], asked.adapter, asked.tokens)[0]

    report.__doc__ = (report.__doc__ or "").replace(
        "SCHEDULES", choice("any prompt", "one prompt", default_first=True)
    )

    def asked_report(
        self, concept: str, strength: float, question: str, schedule: str, adapter: str
    ) -> RunRequest:
        return self.model.request(concept, strength, question, schedule, adapter=adapter)

    def compare(
        self,
        concept: str,
        strength: float = 1.0,
        question: str = DEFAULT_QUESTION,
        adapter: str = "",
    ) -> dict[str, Any]:
        """Put one question to three rows: adapter + thought, base + thought, adapter alone.

        Parameters:
            concept: a word or short phrase of at most 60 characters
            strength: 0 to 4, in units of the model's typical residual norm; 0 injects nothing
            question: what the model is asked
            adapter: one of those that /health lists; empty for the first
        Returns:
            the three answers with their verdicts, and the verdict of the run in words
        """

        with _plainly():
            asked = self.asked_compare(concept, strength, question, adapter)
            chosen = self.model.chosen(asked.adapter)
            *_, answers = self.model.stream(asked)
            verdict = verdicts.conclusion(asked, answers, chosen.has_adapter, chosen.trained_range)
            return {**self.model.record(asked, answers), "verdict": " ".join(verdict[1:])}

    def asked_compare(
        self, concept: str, strength: float, question: str, adapter: str
    ) -> RunRequest:
        return self.model.request(concept, strength, question, adapter=adapter)

    def sweep(
        self,
        concept: str,
        strengths: list[float],
        question: str = DEFAULT_QUESTION,
        adapter: str = "",
    ) -> list[dict[str, Any]]:
        """One self-report of the trained model for each of up to eight strengths.

        Parameters:
            concept: a word or short phrase of at most 60 characters
            strengths: one to eight numbers from 0 to 4
            question: what the model is asked
            adapter: one of those that /health lists; empty for the first
        Returns:
            the reports with their verdicts, in the order of the strengths
        """

        with _plainly():
            asked = self.asked_sweep(concept, strengths, question, adapter)
            lines = [TrialSpec(f"{a.strength:g}", a.concept, a.strength, a.question) for a in asked]
            return self._rows(lines, asked[0].adapter)

    def asked_sweep(
        self, concept: str, strengths: list[float], question: str, adapter: str
    ) -> list[RunRequest]:
        if not isinstance(strengths, list) or not 1 <= len(strengths) <= MOST_STRENGTHS:
            raise IntrospectionError(
                f"The strengths must be a list of 1 to {MOST_STRENGTHS} numbers: send for "
                "example [0, 0.5, 1]."
            )
        return [
            self.model.request(concept, strength, question, adapter=adapter)
            for strength in strengths
        ]

    def concepts(self, adapter: str = "") -> list[dict[str, Any]]:
        """The catalogue: name, category, whether it is harmful and whether training has seen it.

        Parameters:
            adapter: one of those that /health lists; empty for the first
        """

        with _plainly():
            chosen = self.model.chosen(adapter)
            return [
                {
                    "name": concept.name,
                    "category": concept.category,
                    "harmful": concept.harmful,
                    "seen_in_training": chosen.seen(concept)[0],
                }
                for concept in catalogue()
            ]

    def health(self) -> dict[str, Any]:
        """Which model and adapters answer, and whether somebody is using them now."""
        loaded = self.model.loaded
        return {
            "status": "ok",
            "model": loaded.name,
            "base": loaded.base,
            "block": loaded.layer,
            "adapter_loaded": self.model.has_adapter,
            "adapters": list(self.model.names),
            "busy": self.model.lock.busy,
        }


def add(model: DemoModel) -> None:
    """The five endpoints; call it inside ``gr.Blocks``."""
    api = _Api(model)
    usual = (1.0, DEFAULT_QUESTION)
    for work, check, good in (
        (api.report, api.asked_report, ("ocean", *usual, "final_on", "")),
        (api.compare, api.asked_compare, ("ocean", *usual, "")),
        (api.sweep, api.asked_sweep, ("ocean", [1.0], DEFAULT_QUESTION, "")),
    ):
        endpoint = gr.api(work, api_name=work.__name__, **MODEL_QUEUE)
        # Refused at once, not when its turn comes. gr.api itself takes no validator.
        page = get_blocks_context()
        assert page is not None
        page.fns[endpoint["id"]].validator = wraps(work)(partial(_verdicts, check, good))
    gr.api(api.concepts, api_name="concepts", concurrency_limit=4)
    gr.api(api.health, api_name="health", concurrency_limit=4)
