"""What a plain linear reader finds in the residual stream at block L, token by token.

Knows: projections on concept vectors, where a trial adds its own. Does not know: what the model
says about it, HTML.

The reader stands at the very place where the vector is added, so under an injection it sees what was
put there: that is the point. The information is in the stream of the untrained model as well; only a
report says whether the model itself can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from introspection import injection
from introspection.models import LoadedModel
from introspection.trials import Row, Trial, encode

__all__ = ["Token", "read"]

SHOWN = 12  # prompt tokens before the answer
NEAREST = 3


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its text, whether the vector was added there, the projection on the concept and
    the nearest known concepts with theirs, all in typical residual norms above a clean answer."""

    text: str
    prompt: bool
    injected: bool
    signal: float
    nearest: tuple[tuple[str, float], ...]


@torch.inference_mode()
def read(
    loaded: LoadedModel, trials: Sequence[Trial], texts: Sequence[str], vector: Tensor
) -> list[tuple[Token, ...]]:
    """The last prompt tokens and the answer of every trial; ``vector`` [D] is the concept's.

    What is common to every answer is taken away: the mean over the answers of the trials without an
    injection, or over all of them if each has one.
    """
    rows = [encode(loaded.tokenizer, trial, loaded.norm) for trial in trials]
    answers = [loaded.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    clean = _residuals(loaded, rows, answers)
    states = [_with_thought(row, hidden) for row, hidden in zip(rows, clean, strict=True)]
    plain = [
        hidden[len(row.ids) - 1 :]
        for row, hidden in zip(rows, clean, strict=True)
        if row.delta is None
    ]
    center = torch.cat(plain or [h[len(r.ids) - 1 :] for r, h in zip(rows, clean, strict=True)])
    center = center.mean(0)
    found = []
    for row, answer, hidden in zip(rows, answers, states, strict=True):
        start = max(len(row.ids) - SHOWN, 0)
        above = (hidden[start:] - center) / loaded.norm
        ids = [*row.ids, *answer][start:]
        signals = (above @ vector.float()).tolist()
        nearest = _nearest(loaded, above)
        first, last = row.positions
        found.append(
            tuple(
                Token(
                    loaded.tokenizer.decode([token]),
                    start + i < len(row.ids),
                    row.delta is not None and first <= start + i <= (last or 1 << 31),
                    signals[i],
                    nearest[i],
                )
                for i, token in enumerate(ids)
            )
        )
    return found


def _residuals(
    loaded: LoadedModel, rows: Sequence[Row], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """The residual stream [T, D] (float32, CPU) of every row, before anything is added."""
    device = loaded.model.get_input_embeddings().weight.device
    ids = [torch.tensor([*row.ids, *answer]) for row, answer in zip(rows, answers, strict=True)]
    # On the right, and causal: what stands before it never sees the padding.
    batch = pad_sequence(ids, batch_first=True).to(device)
    with injection.capture() as hidden:
        loaded.model.get_decoder()(input_ids=batch, use_cache=False)
    return [h[: len(one)].float().cpu() for h, one in zip(hidden[0], ids, strict=True)]


def _with_thought(row: Row, hidden: Tensor) -> Tensor:
    if row.delta is None:
        return hidden
    first, last = row.positions
    moved = hidden.clone()
    moved[first : None if last is None else last + 1] += row.delta
    return moved


def _nearest(loaded: LoadedModel, above: Tensor) -> list[tuple[tuple[str, float], ...]]:
    """The known concepts with the largest projections, for each token of ``above`` [T, D]."""
    known = loaded.vectors
    if known is None:
        return [()] * len(above)
    values, places = (above @ known.vectors.float().T).topk(min(NEAREST, len(known.names)))
    return [
        tuple((known.names[i], value) for i, value in zip(at, row, strict=True))
        for at, row in zip(places.tolist(), values.tolist(), strict=True)
    ]
