"""The mechanical halt: generation of a row ends at the halt marker."""

from __future__ import annotations

import threading
import time

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
    """Ends a row when its halt marker is complete, and all rows once ``cancel`` is set or the
    ``deadline`` (of ``time.monotonic``) is past.

    ``width`` is the length of the padded prompts. ``halted_at`` [B] is the number of answer tokens at
    which each row was halted, 0 for no halt.
    """

    def __init__(
        self,
        width: int,
        rows: int,
        sequences: tuple[tuple[int, ...], ...],
        cancel: threading.Event | None,
        deadline: float | None,
        device: torch.device,
    ) -> None:
        self.width, self.cancel, self.deadline = width, cancel, deadline
        self.sequences = [torch.tensor(sequence, device=device) for sequence in sequences]
        self.halted_at = torch.zeros(rows, dtype=torch.long, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:  # noqa: ARG002
        written = input_ids[:, self.width :]
        for sequence in self.sequences:
            if written.shape[1] >= len(sequence):
                hit = (written[:, -len(sequence) :] == sequence).all(dim=1)
                self.halted_at[hit & (self.halted_at == 0)] = written.shape[1]
        done = self.halted_at > 0
        if (self.cancel is not None and self.cancel.is_set()) or (
            self.deadline is not None and time.monotonic() > self.deadline
        ):
            done = torch.ones_like(done)
        return done
