"""Front matter for the Hugging Face Hub: measured rates of an adapter's card, settings of a Space."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, RepoCard

from introspection.errors import IntrospectionError


def eval_results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """One metric per row of the report's headline table that ``evaluation.json`` has a rate for.

    Raises IntrospectionError for a rate that is incomplete or of the wrong type.
    """
    from introspection.evaluation.summary import measured_rows  # imports torch

    rates = []
    try:
        for row in measured_rows(evaluation["conditions"]):
            rate = evaluation["conditions"][row.name].get(row.metric)
            if rate is None or row.variant:
                continue
            counted = {key: rate[key] for key in ("successes", "n", "contexts")}
            interval = {f"{side}_95": round(rate[side], 4) for side in ("low", "high")}
            rates.append(
                EvalResult(
                    task_type="text-generation",
                    task_name="Report of injected thoughts",
                    dataset_type="introspection",
                    # The Hub puts metrics of one type and configuration together.
                    dataset_name=row.name,
                    dataset_config=row.name,
                    metric_type=row.metric,
                    metric_name=row.question,
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
