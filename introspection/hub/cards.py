"""What the Hub reads at the top of a README: the card of an adapter, the settings of a Space.

Knows: the front matter of both, and how the rates of ``evaluation.json`` become a ``model-index``.
Does not know: the text under the front matter (``report`` writes it) or where a card is sent.
"""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, ModelCard, ModelCardData, RepoCard

from introspection.errors import IntrospectionError

__all__ = ["HUB_ID", "card_text", "check_space_readme", "model_index"]

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_TAGS = ("lora", "transformers", "introspection", "interpretability")
_EMPTY = "---\n{}\n---\n"


def _results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """One metric per row of the report's headline table that the evaluation answers."""
    from introspection.evaluation.report import HEADLINE  # imports torch

    results = []
    try:
        for question, condition, field in HEADLINE:
            rate = evaluation["conditions"].get(condition, {}).get(field)
            if rate is None:
                continue
            counted = {key: rate[key] for key in ("successes", "n", "contexts")}
            interval = {f"{side}_95": round(rate[side], 4) for side in ("low", "high")}
            results.append(
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
    return results


def _model_name(base_id: str) -> str:
    return f"Introspection adapter for {base_id}"


def model_index(evaluation: dict[str, Any], base_id: str) -> list[dict[str, Any]]:
    """The rates of ``evaluation.json`` as the ``model-index`` of a model card."""
    results = _results(evaluation)
    data = ModelCardData(model_name=_model_name(base_id), eval_results=results)
    index: list[dict[str, Any]] = data.to_dict()["model-index"] if results else []
    return index


def card_text(existing: str, evaluation: dict[str, Any] | None, base_id: str) -> str:
    """``existing`` with complete front matter; its text and its other settings stay.

    Merging what was merged before changes nothing. A base that is no Hub id (a local folder) is not
    named: the Hub refuses it, and it is nobody's business.
    """
    try:
        card = ModelCard(existing if existing.lstrip().startswith("---") else _EMPTY + existing)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise IntrospectionError(
            f"The front matter of README.md cannot be read ({type(error).__name__}): mend the lines "
            "between the two '---' or write the card again."
        ) from error
    data = card.data
    data.base_model = base_id if HUB_ID.fullmatch(base_id) else None
    data.library_name, data.pipeline_tag = "peft", "text-generation"
    data.license = data.license or "apache-2.0"
    data.tags = list(dict.fromkeys([*(data.tags or ()), *_TAGS]))
    data.eval_results = (_results(evaluation) if evaluation else None) or None
    data.model_name = _model_name(base_id) if data.eval_results else None
    return str(card)


def check_space_readme(readme: str, files: set[str]) -> None:
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
