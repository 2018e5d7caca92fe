"""Trials as tokens: prompt ids, and the positions and the delta of the injection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspection.injection.trials import prompt_tokens
from introspection.injection.trials.message import Message
from introspection.injection.trials.prompts import PLACEHOLDER, prompt_ids, prompt_text
from introspection.injection.trials.schedule import Positions, Schedule
from introspection.injection.trials.trial import Trial


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTrial:
    """A trial as tokens: prompt ``ids``, (first, last) injected position (None: to the end of the
    answer), ``delta`` [D] = vector x strength x norm or None, whether the adapter is on, and the layer
    at which ``delta`` is added if not layer L."""

    ids: tuple[int, ...]
    positions: Positions
    delta: Tensor | None
    adapter: bool
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """The :class:`PromptLayout` of a prompt of ``length`` tokens, those of an answer that is given in
    part included."""

    tokenizer: PreTrainedTokenizerBase
    messages: tuple[Message, ...]
    length: int

    def tokens_of(self, first: int, last: int) -> tuple[int, int]:
        """First and last token of the messages ``first..last``."""
        text = prompt_text(self.tokenizer, self.messages)
        start = len(_around(self.tokenizer, self.messages, first)[0])
        end = len(text.plain) - len(_around(self.tokenizer, self.messages, last)[1])
        (encoded,) = prompt_tokens.encode(self.tokenizer, [text])
        return token_span(encoded.offsets, start, end)


def injected_positions(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], schedule: Schedule
) -> Positions:
    """:meth:`Schedule.positions` for the prompt of a conversation, before any answer."""
    length = len(prompt_ids(tokenizer, messages))
    return schedule.positions(TokenizedPrompt(tokenizer, messages, length))


def encode(tokenizer: PreTrainedTokenizerBase, trial: Trial, norm: float) -> EncodedTrial:
    """Tokens and injected positions of a trial; ``norm`` is the typical residual norm at layer L.

    Raises IntrospectionError if the schedule does not fit the prompt.
    """
    ids = prompt_ids(tokenizer, trial.messages)
    if trial.injection is None:
        return EncodedTrial(ids, (0, None), None, trial.adapter)
    positions = injected_positions(tokenizer, trial.messages, trial.injection.schedule)
    vector = trial.injection.vector.to("cpu", torch.float32)
    delta = vector * (trial.injection.strength * norm)
    return EncodedTrial(ids, positions, delta, trial.adapter, trial.injection.layer)


def answer_span(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], i: int
) -> tuple[int, int]:
    """The positions of ``GENERATION`` while message ``i``, an assistant's, was written, in the prompt
    that ``messages`` are now: the last token before it, and its own last."""
    text = prompt_text(tokenizer, messages)
    end = len(text.plain) - len(_around(tokenizer, messages, i)[1])
    first = len(prompt_ids(tokenizer, messages[:i])) - 1
    (encoded,) = prompt_tokens.encode(tokenizer, [text])
    return first, max(first, sum(a < end for a, _ in encoded.offsets) - 1)


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """First and last token that touch the characters ``start..end`` (end exclusive); ``offsets`` are
    the tokenizer's ``offset_mapping`` of the text."""
    touched = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    return touched[0], touched[-1]


def _around(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], i: int
) -> tuple[str, str]:
    """The rendered text before and after message i, whose words may also stand elsewhere and which many
    templates strip: a placeholder in its place is searched for."""
    marked = (*messages[:i], Message(messages[i].role, PLACEHOLDER), *messages[i + 1 :])
    before, _, after = prompt_text(tokenizer, marked).plain.partition(PLACEHOLDER)
    return before, after
