"""Residuals that training replays: ``h_L`` of every sequence, read once.

Knows: how to read them, that most sequences begin alike and need one pass over that beginning. Does
not know: what is trained on them (``loss``).

An adapter above layer L cannot change the residual stream at L, and neither does the injection
before it is added there: so ``h_L`` depends on the tokens alone, and every epoch, strength and vector
is replayed from it (``injection.resume_from``).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from introspection.injection import hooks
from introspection.injection.activations import run_prefix
from introspection.injection.trials import limits
from introspection.injection.trials.message import conversation
from introspection.injection.trials.prompts import prompt_ids

__all__ = ["ResidualCache", "shared_opening"]

WORTH_SHARING = 8  # tokens: below that a pass of its own costs more than it saves


def shared_opening(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that stand before any first message of a user: most examples begin with them."""
    one, other = (prompt_ids(tokenizer, conversation(text)) for text in ("One", "two"))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    shared = tuple(token for token, _ in same)
    return shared if len(shared) >= WORTH_SHARING else ()


class ResidualCache:
    """``h_L`` of every distinct token sequence, read once, kept end to end in one tensor.

    Sequences that begin with ``opening`` share one pass over it, and one copy of it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sequences: Sequence[tuple[int, ...]],
        batch_tokens: int,
        progress: Callable[[int], None] | None = None,
        opening: tuple[int, ...] = (),
    ) -> None:
        distinct = sorted(set(sequences), key=len)
        limits.check_prompts(model, distinct)
        fits = [len(s) > len(opening) and s[: len(opening)] == opening for s in distinct]
        weight = model.get_input_embeddings().weight
        self.shared = len(opening) if any(fits) else 0
        # The opening stands first. One row of zeros at the end: where a shorter sequence of a batch
        # has no more tokens.
        total = self.shared + 1
        total += sum(len(s) - self.shared * fit for s, fit in zip(distinct, fits, strict=True))
        self.states = weight.new_zeros(total, weight.shape[1])
        self.start: dict[tuple[int, ...], int] = {}  # of what is the sequence's own
        self.begins: set[tuple[int, ...]] = set()
        at = self.shared
        for begins, start in ((True, opening), (False, ())):
            chosen = [s for s, fit in zip(distinct, fits, strict=True) if fit is begins]
            own = len(start)
            for states, chunk in _read(model, chosen, batch_tokens, start):
                self.states[:own] = states[0, :own]
                for sequence, row in zip(chunk, states, strict=True):
                    self.start[sequence] = at
                    end = at + len(sequence) - own
                    self.states[at:end] = row[own : len(sequence)]
                    at = end
                if progress:
                    progress(len(chunk))
            if begins and own:
                self.begins.update(chosen)
        if weight.is_cuda:
            torch.cuda.empty_cache()  # what reading and generating left behind in odd sizes

    def batch(self, sequences: Sequence[tuple[int, ...]], width: int) -> Tensor:
        """Residuals [B, width, D], zeros after the end of each sequence."""
        own = torch.tensor([self.shared * (s in self.begins) for s in sequences])[:, None]
        start = torch.tensor([self.start[sequence] for sequence in sequences])[:, None]
        length = torch.tensor([len(sequence) for sequence in sequences])[:, None]
        at = torch.arange(width)
        index = torch.where(at < own, at, start + at - own)
        index = torch.where(at < length, index, len(self.states) - 1)
        return self.states[index.to(self.states.device)]


@torch.no_grad()
def _read(
    model: PreTrainedModel,
    sequences: Sequence[tuple[int, ...]],
    batch_tokens: int,
    opening: tuple[int, ...],
) -> Iterator[tuple[Tensor, Sequence[tuple[int, ...]]]]:
    """Residuals [B, T, D] of chunks of sequences (shortest first) that all begin with ``opening``.

    No mask: under causal attention no token of a sequence sees the padding behind it.
    """
    device, at = next(model.parameters()).device, len(opening)
    decoder = model.get_decoder()
    kept, first = DynamicCache(config=model.config), None
    if at and sequences:
        first = run_prefix(model, opening, kept)
    done = 0
    while done < len(sequences):
        chunk = sequences[done : done + max(1, batch_tokens // len(sequences[done]))]
        done += len(chunk)
        ids = torch.zeros(len(chunk), len(chunk[-1]), dtype=torch.long)
        for row, sequence in enumerate(chunk):
            ids[row, : len(sequence)] = torch.tensor(sequence)
        past = None
        if at:
            past = copy.deepcopy(kept)
            past.batch_repeat_interleave(len(chunk))
        places = torch.arange(at, ids.shape[1], device=device).expand(len(chunk), -1)
        with hooks.capture_residual() as hidden:
            decoder(
                input_ids=ids[:, at:].to(device),
                position_ids=places,
                past_key_values=past,
                use_cache=bool(at),
            )
        states = hidden[0]
        if first is not None:
            states = torch.cat([first.expand(len(chunk), -1, -1), states], 1)
        yield states, chunk
