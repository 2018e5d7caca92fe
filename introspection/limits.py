"""What a model can take: how many positions it has, which tokens it knows.

Knows: the model's configuration and embeddings. Does not know: where prompts come from.

Without this a text that is too long ends in an index error of some table, or, where positions are
rotations, in words from a model that never saw such a distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from introspection.errors import IntrospectionError

__all__ = ["check_prompts", "positions"]

# transformers maps the older names to the first; models without a table have a name of their own.
_NAMES = ("max_position_embeddings", "max_seq_len", "seq_length")


def positions(model: Any) -> int | None:
    """How many tokens a prompt and its answer may have together; None where nothing says so."""
    config = model.config.get_text_config()
    found = (getattr(config, name, None) for name in _NAMES)
    return next((limit for limit in found if type(limit) is int and limit > 0), None)


def check_prompts(model: Any, prompts: Sequence[Sequence[int]], more: int = 0) -> None:
    """Raises IntrospectionError if one of them, with ``more`` tokens of an answer, is too long for
    the model or has a token that it does not know."""
    longest, most = max(map(len, prompts), default=0), positions(model)
    if most is not None and longest + more > most:
        answer = f" and an answer of up to {more}" if more else ""
        raise IntrospectionError(
            f"A text of {longest} tokens{answer} is too long for this model, which has {most} "
            f"positions: shorten the text{' or the answer' if more else ''}, or use another model."
        )
    known = len(model.get_input_embeddings().weight)
    highest = max((max(ids) for ids in prompts if ids), default=0)
    if highest >= known:
        raise IntrospectionError(
            f"The tokenizer gives token {highest}, but this model knows {known}: they do not belong "
            "together; use the model's own tokenizer files."
        )
