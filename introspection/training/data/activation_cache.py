"""The residual stream ``h_L`` of every training sequence, read once and replayed.

Neither an adapter above layer L nor the injection behind it changes ``h_L``: every epoch, strength and
vector starts from it (``patching.start_at_layer``). Most sequences share one pass over a prefix.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from introspection.injection import hooks
from introspection.injection.activations import run_prefix
from introspection.injection.trials import limits
from introspection.injection.trials.message import conversation
from introspection.injection.trials.prompts import prompt_ids

MIN_TOKENS_SAVED = 8  # below that a pass of its own costs more than it saves


def shared_prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that stand before any first message of a user: most examples begin with them."""
    one, other = (prompt_ids(tokenizer, conversation(text)) for text in ("One", "two"))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    shared = tuple(token for token, _ in same)
    return shared if len(shared) >= MIN_TOKENS_SAVED else ()


class ActivationCache:
    """``h_L`` of every distinct token sequence, end to end in ``states`` [tokens, D].

    Sequences that begin with ``prefix`` share one pass over it, and one copy of it. A pass has at most
    ``batch_tokens`` tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sequences: Sequence[tuple[int, ...]],
        batch_tokens: int,
        prefix: tuple[int, ...] = (),
    ) -> None:
        distinct = sorted(set(sequences), key=len)
        limits.check_prompts(model, distinct)
        fits = [len(s) > len(prefix) and s[: len(prefix)] == prefix for s in distinct]
        weight = model.get_input_embeddings().weight
        self.shared = len(prefix) if any(fits) else 0
        # The prefix stands first. One row of zeros at the end: where a shorter sequence of a batch
        # has no more tokens.
        total = self.shared + 1
        total += sum(len(s) - self.shared * fit for s, fit in zip(distinct, fits, strict=True))
        self.states = weight.new_zeros(total, weight.shape[1])
        self.start: dict[tuple[int, ...], int] = {}  # of what is the sequence's own
        self.begins: set[tuple[int, ...]] = set()
        at = self.shared
        for begins, start in ((True, prefix), (False, ())):
            chosen = [s for s, fit in zip(distinct, fits, strict=True) if fit is begins]
            skipped = len(start)
            for states, chunk in _read(model, chosen, batch_tokens, start):
                self.states[:skipped] = states[0, :skipped]
                for sequence, row in zip(chunk, states, strict=True):
                    self.start[sequence] = at
                    end = at + len(sequence) - skipped
                    self.states[at:end] = row[skipped : len(sequence)]
                    at = end
            if begins and skipped:
                self.begins.update(chosen)
        if weight.is_cuda:
            torch.cuda.empty_cache()  # what reading and generating left behind in odd sizes

    def batch(self, sequences: Sequence[tuple[int, ...]], width: int) -> Tensor:
        """Residuals [B, width, D], zeros after the end of each sequence."""
        skipped = torch.tensor([self.shared * (s in self.begins) for s in sequences])[:, None]
        start = torch.tensor([self.start[sequence] for sequence in sequences])[:, None]
        length = torch.tensor([len(sequence) for sequence in sequences])[:, None]
        at = torch.arange(width)
        index = torch.where(at < skipped, at, start + at - skipped)
        index = torch.where(at < length, index, len(self.states) - 1)
        return self.states[index.to(self.states.device)]


@torch.no_grad()
def _read(
    model: PreTrainedModel,
    sequences: Sequence[tuple[int, ...]],
    batch_tokens: int,
    prefix: tuple[int, ...],
) -> Iterator[tuple[Tensor, Sequence[tuple[int, ...]]]]:
    """Residuals [B, T, D] of chunks of sequences (shortest first) that all begin with ``prefix``.

    No mask: under causal attention no token of a sequence sees the padding behind it.
    """
    device, at = next(model.parameters()).device, len(prefix)
    decoder = model.get_decoder()
    prefix_kv = DynamicCache(config=model.config)
    first = run_prefix(model, prefix, prefix_kv) if at and sequences else None
    done = 0
    while done < len(sequences):
        chunk = sequences[done : done + max(1, batch_tokens // len(sequences[done]))]
        done += len(chunk)
        ids = pad_sequence([torch.tensor(sequence) for sequence in chunk], batch_first=True)
        past = copy.deepcopy(prefix_kv) if at else None
        if past is not None:
            past.batch_repeat_interleave(len(chunk))
        places = torch.arange(at, ids.shape[1], device=device).expand(len(chunk), -1)
        with hooks.capture_residual() as hidden:
            cache = {"past_key_values": past, "use_cache": bool(at)}
            decoder(input_ids=ids[:, at:].to(device), position_ids=places, **cache)
        states = hidden[0]
        if first is not None:
            states = torch.cat([first.expand(len(chunk), -1, -1), states], 1)
        yield states, chunk
