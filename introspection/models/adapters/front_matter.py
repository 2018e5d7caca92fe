"""The front matter of an adapter's card: what the Hub reads at the top of ``README.md``."""

from __future__ import annotations

from collections.abc import Sequence

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, ModelCard

from introspection.errors import IntrospectionError
from introspection.io.hub_ids import is_hub_id

_TAGS = ("transformers", "introspection", "interpretability")
_EMPTY = "---\n{}\n---\n"


def card_text(
    existing: str, results: Sequence[EvalResult], base_id: str, tags: Sequence[str]
) -> str:
    """``existing`` with complete front matter; its text and its other settings stay.

    ``results`` are the measured rates, ``tags`` those of the kind of adapter. Merging what was merged
    before changes nothing. A base that is no Hub id is not named: the Hub refuses it.
    """
    try:
        card = ModelCard(existing if existing.lstrip().startswith("---") else _EMPTY + existing)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise IntrospectionError(
            f"The front matter of README.md cannot be read ({type(error).__name__}): mend the lines "
            "between the two '---' or write the card again."
        ) from error
    data = card.data
    data.base_model = base_id if is_hub_id(base_id) else None
    data.library_name, data.pipeline_tag = "peft", "text-generation"
    data.license = data.license or "apache-2.0"
    data.tags = list(dict.fromkeys([*(data.tags or ()), *tags, *_TAGS]))
    data.eval_results = list(results) or None
    data.model_name = f"Introspection adapter for {base_id}" if results else None  # in its index
    return str(card)
