"""What a model can take: how many positions it has, which tokens it knows.

Knows: the model's configuration, tables and embeddings. Does not know: where prompts come from.

A model with a table of positions ends in an index error behind the last one. Where positions are
rotations or slopes there is no last one, and how far is too far is for whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError

__all__ = ["check_prompts", "positions"]

SPARE = 16  # rows that a table may have beyond its positions, as OPT's has two


def positions(model: PreTrainedModel) -> int | None:
    """How many tokens a prompt and its answer may have together, where there is a table of them."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if type(limit) is not int or limit <= 0:
        return None
    tokens = model.get_input_embeddings()
    lengths = [
        len(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module is not tokens
    ]
    lengths += [len(table) for table in model.buffers() if table.ndim == 2]  # GPT-J
    return limit if any(limit <= length < limit + SPARE for length in lengths) else None


def check_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], more: int = 0) -> None:
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
