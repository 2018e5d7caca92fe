"""Limits of a model: how many positions it has and which tokens it knows.

A table of position embeddings has a last one; rotary embeddings and ALiBi have no limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from introspection.errors import IntrospectionError

SPARE = 16  # rows that a table may have beyond its positions, as OPT's has two


def positions(model: PreTrainedModel) -> int | None:
    """How many tokens a prompt and its answer may have together; None without a table of positions."""
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
    """Raise IntrospectionError if one of ``prompts`` (token ids), with ``more`` tokens of an answer, is
    too long for the model or has a token that it does not know."""
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
