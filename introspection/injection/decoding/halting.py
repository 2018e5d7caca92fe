"""The mechanical halt: generation of a row ends at the halt marker."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from introspection.concepts.texts import HALT_MARKER


def halt_sequences(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], ...]:
    """Every way in which the tokenizer may write the halt marker, whatever stands before it."""
    sequences = set()
    for before in ("", " ", "\n", ". ", '"'):
        ids = tokenizer(before + HALT_MARKER, add_special_tokens=False)["input_ids"]
        # Drop what belongs to the text before the marker.
        while len(ids) > 1 and HALT_MARKER in tokenizer.decode(ids[1:]):
            ids = ids[1:]
        sequences.add(tuple(ids))
    return tuple(sorted(sequences))


class HaltCriteria(StoppingCriteria):
    """Ends a row when its halt marker is complete, and all rows once ``on_step``, which gets the new
    tokens [B], returns True. ``width`` is the length of the padded prompts, ``halted_at`` [B] the
    number of answer tokens at which each row was halted, 0 for no halt."""

    def __init__(
        self,
        width: int,
        rows: int,
        sequences: tuple[tuple[int, ...], ...],
        device: torch.device,
        on_step: Callable[[list[int]], bool] | None,
    ) -> None:
        self.width, self.on_step = width, on_step
        self.sequences = [torch.tensor(sequence, device=device) for sequence in sequences]
        self.halted_at = torch.zeros(rows, dtype=torch.long, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:  # noqa: ARG002
        written = input_ids[:, self.width :]
        for sequence in self.sequences:
            if written.shape[1] >= len(sequence):
                hit = (written[:, -len(sequence) :] == sequence).all(dim=1)
                self.halted_at[hit & (self.halted_at == 0)] = written.shape[1]
        done = self.halted_at > 0
        if self.on_step is not None and self.on_step(input_ids[:, -1].tolist()):
            done = torch.ones_like(done)
        return done
