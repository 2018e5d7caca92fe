"""Linear readout of the residual stream, token by token: at layer L, or at every layer.

At layer L the projection of an injected trial contains the vector by construction, in the untrained
model as well. Only the report of the model says whether the model itself can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from introspection.injection import hooks
from introspection.injection.decoding.batching import encode_trials, with_plan
from introspection.injection.hooked_model import HookedModel
from introspection.injection.trials import prompt_tokens
from introspection.injection.trials.encoding import EncodedTrial
from introspection.injection.trials.trial import Trial

SHOWN = 12  # prompt tokens before the answer


@dataclass(frozen=True, slots=True)
class ReadToken:
    """One token: whether it is of the ``prompt``, whether the vector was added there (``injected``),
    the projection on the concept (``signal``) and those on the ``nearest`` known concepts.
    Projections are of the difference from a clean answer, in typical residual norms."""

    text: str
    prompt: bool
    injected: bool
    signal: float
    nearest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class LayerProjections:
    """One answer at every layer: the difference from a clean answer on the concept, as ``projections``
    (in typical residual norms of that layer) and ``cosines`` [layer][token]. The vector is added at
    ``layer``, to the ``tokens`` (first, last) ``injected``; None for no token."""

    tokens: tuple[str, ...]
    prompt: int  # how many of them are the prompt's
    layer: int
    injected: tuple[int, int] | None
    projections: tuple[tuple[float, ...], ...]
    cosines: tuple[tuple[float, ...], ...]


@torch.inference_mode()
def token_projections(
    loaded: HookedModel, trials: Sequence[Trial], texts: Sequence[str], vector: Tensor
) -> list[tuple[ReadToken, ...]]:
    """The last prompt tokens and the answer (``texts``) of every trial, projected on ``vector`` [D].

    They are of the difference from the mean over the answers without an injection, or over all if
    there is none. Raises IntrospectionError for a trial that this model cannot run.
    """
    rows, tokens, batch = _encode(loaded, trials, texts)
    with hooks.capture_residual() as stream:
        loaded.model.get_decoder()(input_ids=batch, use_cache=False)
    clean = _without_padding(stream[0].float().cpu(), tokens)
    states = [_with_delta(row, state) for row, state in zip(rows, clean, strict=True)]
    center = _clean_answers(rows, clean).mean(0)
    read = []
    for row, ids, hidden in zip(rows, tokens, states, strict=True):
        start = max(len(row.ids) - SHOWN, 0)
        above = (hidden[start:] - center) / loaded.norm
        signals = (above @ vector.float()).tolist()
        nearest = _nearest(loaded, above)
        first, last = row.positions
        last = len(ids) if last is None else last
        read.append(
            tuple(
                ReadToken(
                    loaded.tokenizer.decode([token]),
                    start + i < len(row.ids),
                    row.delta is not None and first <= start + i <= last,
                    signals[i],
                    nearest[i],
                )
                for i, token in enumerate(ids[start:])
            )
        )
    return read


@torch.inference_mode()
def layer_projections(
    loaded: HookedModel, trials: Sequence[Trial], texts: Sequence[str], vector: Tensor
) -> list[LayerProjections]:
    """The tokens of :func:`token_projections` at every layer, with vector and adapter of each trial."""
    rows, tokens, batch = _encode(loaded, trials, texts)
    every = range(len(hooks.decoder_layers(loaded.model)))
    with with_plan(loaded.model, rows), hooks.record_layers(loaded.model, every) as seen:
        loaded.model.get_decoder()(input_ids=batch, use_cache=False)
    states = [_without_padding(state, tokens) for state in seen]  # [layer][row] of [T, D]
    plain = [_clean_answers(rows, state) for state in states]
    norms = [float(state.norm(dim=-1).mean()) for state in plain]
    unit, read = vector.float(), []
    for i, (row, ids) in enumerate(zip(rows, tokens, strict=True)):
        start = max(len(row.ids) - SHOWN, 0)
        projections, cosines = [], []
        for state, clean, norm in zip(states, plain, norms, strict=True):
            above = state[i][start:] - clean.mean(0)
            along = above @ unit
            typical = loaded.norm * norm / norms[loaded.layer]
            projections.append(tuple((along / typical).tolist()))
            cosines.append(tuple((along / above.norm(dim=-1).clamp(min=1e-6)).tolist()))
        place = None
        if row.delta is not None and row.positions[0] < len(ids):
            first, last = row.positions
            end = len(ids) - 1 if last is None else min(last, len(ids) - 1)
            place = (max(first - start, 0), end - start) if end >= start else None
        read.append(
            LayerProjections(
                tuple(loaded.tokenizer.decode([token]) for token in ids[start:]),
                len(row.ids) - start,
                loaded.layer if row.layer is None else row.layer,
                place,
                tuple(projections),
                tuple(cosines),
            )
        )
    return read


def _encode(
    loaded: HookedModel, trials: Sequence[Trial], texts: Sequence[str]
) -> tuple[list[EncodedTrial], list[list[int]], Tensor]:
    """The trials as rows, the token ids of each with its answer, and the same as one batch [B, T]."""
    rows = encode_trials(loaded, trials)
    answers = [prompt_tokens.by_people(loaded.tokenizer, text) for text in texts]
    encoded = prompt_tokens.encode(loaded.tokenizer, answers, offsets=False)
    tokens = [[*row.ids, *answer.ids] for row, answer in zip(rows, encoded, strict=True)]
    # Padding on the right: in a causal model no real token attends to it.
    batch = pad_sequence([torch.tensor(ids) for ids in tokens], batch_first=True)
    return rows, tokens, batch.to(loaded.model.get_input_embeddings().weight.device)


def _without_padding(states: Tensor, tokens: Sequence[Sequence[int]]) -> list[Tensor]:
    """The rows [T, D] of a batch [B, T, D], without the padding."""
    return [state[: len(ids)] for state, ids in zip(states, tokens, strict=True)]


def _clean_answers(rows: Sequence[EncodedTrial], states: Sequence[Tensor]) -> Tensor:
    """The states [N, D] of the answers without an injection, or of all if each has one."""
    answers = [state[len(row.ids) - 1 :] for row, state in zip(rows, states, strict=True)]
    clean = [answer for row, answer in zip(rows, answers, strict=True) if row.delta is None]
    return torch.cat(clean or answers)


def _with_delta(row: EncodedTrial, hidden: Tensor) -> Tensor:
    """The states [T, D] of a row with its vector added, which the capture at layer L does not see."""
    if row.delta is None:
        return hidden
    first, last = row.positions
    moved = hidden.clone()
    moved[first : None if last is None else last + 1] += row.delta
    return moved


def _nearest(loaded: HookedModel, above: Tensor) -> list[tuple[tuple[str, float], ...]]:
    """The three known concepts with the largest projections, for each token of ``above`` [T, D]."""
    known = loaded.vectors
    if known is None:
        return [()] * len(above)
    values, places = (above @ known.vectors.float().T).topk(min(3, len(known.names)))
    return [
        tuple((known.names[i], value) for i, value in zip(at, row, strict=True))
        for at, row in zip(places.tolist(), values.tolist(), strict=True)
    ]
