"""Linear readout of the residual stream, token by token: at layer L, or at every layer.

At layer L the stream is read at the very place where the vector is added, so the projection of an
injected trial contains the vector by construction, in the untrained model as well. Only the report of
the model says whether the model itself can tell.
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
NEAREST = 3


@dataclass(frozen=True, slots=True)
class ReadToken:
    """One token: its text, whether it is of the ``prompt``, whether the vector was added there
    (``injected``), the projection on the concept (``signal``) and the ``nearest`` known concepts with
    their projections. Projections are of the difference from a clean answer, in typical residual
    norms."""

    text: str
    prompt: bool
    injected: bool
    signal: float
    nearest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class LayerProjections:
    """One answer at every layer. ``projections`` and ``cosines`` [layer][token] are of the difference
    from a clean answer, on the concept: in typical residual norms of that layer, and as the cosine.
    ``injected`` is (first, last) of ``tokens`` to which the vector is added, at ``layer``; None without
    an injection there."""

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

    Projections are of the difference from the mean over the answers of the trials without an
    injection, or over all of them if each has one. Raises IntrospectionError for a trial that this
    model cannot run.
    """
    rows, answers = _encode(loaded, trials, texts)
    with hooks.capture_residual() as stream:
        _forward(loaded, rows, answers)
    clean = _without_padding(stream[0].float().cpu(), rows, answers)
    states = [_with_delta(row, state) for row, state in zip(rows, clean, strict=True)]
    center = _clean_answers(rows, clean).mean(0)
    read = []
    for row, answer, hidden in zip(rows, answers, states, strict=True):
        start = max(len(row.ids) - SHOWN, 0)
        above = (hidden[start:] - center) / loaded.norm
        ids = [*row.ids, *answer][start:]
        signals = (above @ vector.float()).tolist()
        nearest = _nearest(loaded, above)
        first, last = row.positions
        last = len(row.ids) + len(answer) if last is None else last
        read.append(
            tuple(
                ReadToken(
                    loaded.tokenizer.decode([token]),
                    start + i < len(row.ids),
                    row.delta is not None and first <= start + i <= last,
                    signals[i],
                    nearest[i],
                )
                for i, token in enumerate(ids)
            )
        )
    return read


@torch.inference_mode()
def layer_projections(
    loaded: HookedModel, trials: Sequence[Trial], texts: Sequence[str], vector: Tensor
) -> list[LayerProjections]:
    """The tokens of :func:`token_projections` at every layer, with vector and adapter of each trial.

    At layer L the projections equal those of :func:`token_projections` if one of the trials has no
    injection. Raises IntrospectionError for a trial that this model cannot run.
    """
    rows, answers = _encode(loaded, trials, texts)
    depth = len(hooks.decoder_layers(loaded.model))
    with (
        with_plan(loaded.model, rows),
        hooks.record_layers(loaded.model, range(depth)) as seen,
    ):
        _forward(loaded, rows, answers)
    states = [_without_padding(state, rows, answers) for state in seen]  # [layer][row] of [T, D]
    plain = [_clean_answers(rows, state) for state in states]
    norms = [float(answer.norm(dim=-1).mean()) for answer in plain]
    unit, read = vector.float(), []
    for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        start = max(len(row.ids) - SHOWN, 0)
        projections, cosines = [], []
        for state, clean, norm in zip(states, plain, norms, strict=True):
            above = state[i][start:] - clean.mean(0)
            along = above @ unit
            typical = loaded.norm * norm / norms[loaded.layer]
            projections.append(tuple((along / typical).tolist()))
            cosines.append(tuple((along / above.norm(dim=-1).clamp(min=1e-6)).tolist()))
        ids = [*row.ids, *answer]
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
) -> tuple[list[EncodedTrial], list[list[int]]]:
    """The trials as rows, and the token ids of the answers ``texts``."""
    rows = encode_trials(loaded, trials)
    answers = [prompt_tokens.by_people(loaded.tokenizer, text) for text in texts]
    encoded = prompt_tokens.encode(loaded.tokenizer, answers, offsets=False)
    return rows, [list(one.ids) for one in encoded]


def _forward(
    loaded: HookedModel, rows: Sequence[EncodedTrial], answers: Sequence[Sequence[int]]
) -> None:
    device = loaded.model.get_input_embeddings().weight.device
    ids = [torch.tensor([*row.ids, *answer]) for row, answer in zip(rows, answers, strict=True)]
    # Padding on the right: in a causal model no real token attends to it.
    batch = pad_sequence(ids, batch_first=True).to(device)
    loaded.model.get_decoder()(input_ids=batch, use_cache=False)


def _without_padding(
    states: Tensor, rows: Sequence[EncodedTrial], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """The rows [T, D] of a batch [B, T, D], without the padding."""
    return [
        state[: len(row.ids) + len(answer)]
        for state, row, answer in zip(states, rows, answers, strict=True)
    ]


def _clean_answers(rows: Sequence[EncodedTrial], states: Sequence[Tensor]) -> Tensor:
    """The states [N, D] of the answers without an injection, or of all if each has one."""
    answers = [
        (row.delta is None, state[len(row.ids) - 1 :])
        for row, state in zip(rows, states, strict=True)
    ]
    return torch.cat(
        [state for clean, state in answers if clean] or [state for _, state in answers]
    )


def _with_delta(row: EncodedTrial, hidden: Tensor) -> Tensor:
    """The states [T, D] of a row with its vector added, which the capture at layer L does not see."""
    if row.delta is None:
        return hidden
    first, last = row.positions
    moved = hidden.clone()
    moved[first : None if last is None else last + 1] += row.delta
    return moved


def _nearest(loaded: HookedModel, above: Tensor) -> list[tuple[tuple[str, float], ...]]:
    """The known concepts with the largest projections, for each token of ``above`` [T, D]."""
    known = loaded.vectors
    if known is None:
        return [()] * len(above)
    values, places = (above @ known.vectors.float().T).topk(min(NEAREST, len(known.names)))
    return [
        tuple((known.names[i], value) for i, value in zip(at, row, strict=True))
        for at, row in zip(places.tolist(), values.tolist(), strict=True)
    ]
