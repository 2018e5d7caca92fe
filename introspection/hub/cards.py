"""What the Hub reads at the top of a README: the card of an adapter, the settings of a Space.

Knows: the front matter of both, and how the rates of ``evaluation.json`` become a ``model-index``.
Does not know: the text under the front matter (``report`` writes it) or where a card is sent.
"""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, ModelCardData, RepoCard

from introspection.errors import IntrospectionError
from introspection.models.adapters.front_matter import model_name

__all__ = ["check_space_card", "model_index", "results"]


def results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """The rates of ``evaluation.json`` as results of a model card: one for each row of the headline
    table that the evaluation answers."""
    from introspection.evaluation.report import HEADLINE  # imports torch

    rates = []
    try:
        for question, condition, field in HEADLINE:
            rate = evaluation["conditions"].get(condition, {}).get(field)
            if rate is None:
                continue
            counted = {key: rate[key] for key in ("successes", "n", "contexts")}
            interval = {f"{side}_95": round(rate[side], 4) for side in ("low", "high")}
            rates.append(
                EvalResult(
                    task_type="text-generation",
                    task_name="Report of injected thoughts",
                    dataset_type="introspection",
                    # The Hub puts metrics of one type and configuration together.
                    dataset_name=condition,
                    dataset_config=condition,
                    metric_type=field,
                    metric_name=question,
                    metric_value=round(rate["successes"] / rate["n"], 4),
                    # A model-index has no other place for the size of the sample and the interval.
                    metric_args={**counted, **interval},
                )
            )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise IntrospectionError(
            f"evaluation.json lacks or garbles a rate ({type(error).__name__} {error}): write it "
            "again with 'python -m introspection report'."
        ) from error
    return rates


def model_index(evaluation: dict[str, Any], base_id: str) -> list[dict[str, Any]]:
    """The rates of ``evaluation.json`` as the ``model-index`` of a model card."""
    rates = results(evaluation)
    data = ModelCardData(model_name=model_name(base_id), eval_results=rates)
    index: list[dict[str, Any]] = data.to_dict()["model-index"] if rates else []
    return index


def check_space_card(readme: str, files: set[str]) -> None:
    """Refuse a README that would make a Space which cannot start."""
    try:
        data = RepoCard(readme).data if readme.lstrip().startswith("---") else {}
    except (ValueError, TypeError, yaml.YAMLError):
        data = {}
    if data.get("sdk") != "gradio" or data.get("app_file") not in files:
        raise IntrospectionError(
            "README.md has no front matter that starts a Space: begin it with a block between '---' "
            "that says 'sdk: gradio' and 'app_file: app.py'."
        )
