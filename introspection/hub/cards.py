"""The front matter of a README on the Hugging Face Hub: an adapter's card and a Space's settings.

The rates of ``evaluation.json`` become the card's ``model-index``; the text below is not written here.
"""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, ModelCard, RepoCard

from introspection.errors import IntrospectionError

__all__ = ["HUB_ID", "card_text", "check_space_readme"]

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_TAGS = ("lora", "transformers", "introspection", "interpretability")
_EMPTY = "---\n{}\n---\n"


def _results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """One metric per row of the report's headline table that ``evaluation.json`` has a rate for.

    Raises IntrospectionError for a rate that is incomplete or of the wrong type.
    """
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


def card_text(existing: str, evaluation: dict[str, Any] | None, base_id: str) -> str:
    """The card ``existing`` with complete front matter; its text and its other settings are kept.

    Writing it twice gives the same text. ``evaluation`` is the content of ``evaluation.json``, or
    None without rates. A base that is not a Hub id (a local folder) is left out: the Hub refuses it,
    and a local path is private. Raises IntrospectionError for unreadable front matter.
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
    data.model_name = f"Introspection adapter for {base_id}" if data.eval_results else None
    return str(card)


def check_space_readme(readme: str, files: set[str]) -> None:
    """Raise IntrospectionError unless ``readme`` names the SDK and an app file among ``files``."""
    try:
        data = RepoCard(readme).data if readme.lstrip().startswith("---") else {}
    except (ValueError, TypeError, yaml.YAMLError):
        data = {}
    if data.get("sdk") != "gradio" or data.get("app_file") not in files:
        raise IntrospectionError(
            "README.md has no front matter that starts a Space: begin it with a block between '---' "
            "that says 'sdk: gradio' and 'app_file: app.py'."
        )
