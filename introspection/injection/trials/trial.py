"""Trials: one question put to the model under one injection, and how it becomes tokens.

Knows: messages, schedules, injections, the chat template. Does not know: hooks, generation,
training or grading, all of which start from a list of trials.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from introspection.errors import IntrospectionError
from introspection.injection.trials import chat_templates, clock, prompt_tokens
from introspection.injection.trials.prompt_tokens import Text

__all__ = [
    "ALL",
    "FINAL",
    "FINAL_ON",
    "PLACEHOLDER",
    "PRIOR_TURN",
    "EncodedTrial",
    "Injection",
    "Message",
    "Schedule",
    "Trial",
    "answer_span",
    "cached_prompt_ids",
    "conversation",
    "encode",
    "end_of_turn",
    "from_step",
    "injected_positions",
    "prompt_depends_on_date",
    "prompt_ids",
    "prompt_text",
    "render",
    "span",
    "token_span",
]

Kind = Literal["final", "final_on", "span", "from_step", "all", "prior_turn"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a vector is added, in token positions of the prompt and answer (0-based, no padding).

    ``final`` the last prompt token · ``final_on`` from there through the answer · ``span`` prompt
    tokens ``start..end``, without an end through the answer · ``from_step`` once ``start`` answer
    tokens are written · ``all`` every token · ``prior_turn`` the turns before the last user message,
    and nothing after them.
    """

    kind: Kind = "final_on"
    start: int = 0
    end: int | None = 0

    def __post_init__(self) -> None:
        late = self.kind == "span" and self.end is not None and self.end < self.start
        if self.kind not in get_args(Kind) or self.start < 0 or late:
            raise IntrospectionError(
                f"There is no schedule {self.kind} from {self.start} to {self.end}: use one of "
                f"{', '.join(get_args(Kind))}, and positions from 0 on, the last not before the "
                "first."
            )

    def __str__(self) -> str:
        if self.kind == "span":
            return f"span:{self.start}-{'' if self.end is None else self.end}"
        return f"from_step:{self.start}" if self.kind == "from_step" else self.kind

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Inverse of ``str``. Raises IntrospectionError for anything else."""
        kind, _, rest = text.strip().partition(":")
        try:
            if kind == "span":
                begin, end = rest.split("-")
                start, last = int(begin), int(end) if end else None
                if 0 <= start <= (start if last is None else last):
                    return cls("span", start, last)
            elif kind == "from_step":
                if 0 <= int(rest) <= 4096:
                    return cls("from_step", int(rest))
            elif kind in get_args(Kind) and not rest:
                return cls(kind)  # type: ignore[arg-type]
        except ValueError:
            pass
        raise IntrospectionError(
            f"'{text[:40]}' is not a schedule: use final, final_on, all, prior_turn, span:3-7 or "
            "from_step:5."
        )


FINAL = Schedule("final")
FINAL_ON = Schedule("final_on")
ALL = Schedule("all")
PRIOR_TURN = Schedule("prior_turn")


def span(start: int, end: int | None) -> Schedule:
    return Schedule("span", start, end)


def from_step(step: int) -> Schedule:
    return Schedule("from_step", step)


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, eq=False)
class Injection:
    """A unit concept vector [D] (float32, CPU), its strength and its schedule.

    ``strength`` is rho = |added vector| / typical residual norm at layer L, so the same number
    means the same dose on every model. A negative strength subtracts the vector. ``layer`` is where
    the vector is added if not at layer L.
    """

    vector: Tensor
    strength: float
    schedule: Schedule = FINAL_ON
    layer: int | None = None

    def __post_init__(self) -> None:
        try:
            dose = math.isfinite(self.strength)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            dose = False
        if not dose:
            raise IntrospectionError(
                f"The strength of an injection is {str(self.strength)[:40]}: give a finite number, "
                "such as 1.0."
            )
        if self.layer is not None and not (type(self.layer) is int and self.layer >= 0):
            raise IntrospectionError(
                f"There is no layer {str(self.layer)[:40]}: layers are counted from 0, and None is "
                "the one where the model is read."
            )
        _check_unit(self.vector)


def _check_unit(vector: Tensor) -> None:
    """Raises IntrospectionError unless it is a vector [D] of length one, of numbers that are known."""
    plain = isinstance(vector, Tensor) and vector.is_floating_point() and not vector.is_meta
    if not plain or vector.ndim != 1 or not len(vector):
        kind = type(vector).__name__
        if isinstance(vector, Tensor):
            kind = f"a tensor of shape {list(vector.shape)}, {vector.dtype}, on {vector.device}"
        raise IntrospectionError(
            f"An injection needs one vector of real numbers, as wide as the model's residual stream, "
            f"and was given {kind}: take one from loaded.vector or extract."
        )
    if vector.requires_grad:
        raise IntrospectionError(
            "The vector of an injection asks for gradients, which no report gives: pass "
            "vector.detach()."
        )
    length = float(torch.linalg.vector_norm(vector.float()))
    if not math.isfinite(length):
        raise IntrospectionError(
            "The vector of an injection holds NaN or infinite values: extract it again."
        )
    # Sixteen bits of a number keep three digits.
    if abs(length - 1) > (1e-3 if vector.itemsize > 2 else 1e-2):
        advice = "divide it by its length" if length else "take one that is not zero"
        raise IntrospectionError(
            f"The vector of an injection has the length {length:.4g} and not 1, so its strength "
            f"would mean another dose: {advice}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One row: a conversation, an injection (or none), with the adapter or the base model."""

    messages: tuple[Message, ...]
    injection: Injection | None = None
    adapter: bool = True


def conversation(question: str, *before: Message) -> tuple[Message, ...]:
    """The conversation that ends with ``question`` as the user's last message."""
    return (*before, Message("user", question))


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTrial:
    """A trial as tokens: prompt ids, (first, last) injected position, delta [D] or None, and the layer
    where it is added if not layer L."""

    ids: tuple[int, ...]
    positions: tuple[int, int | None]
    delta: Tensor | None
    adapter: bool
    layer: int | None = None


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...]
) -> tuple[int, ...]:
    """The tokens of a conversation up to where the assistant's answer starts.

    Uses the model's own chat template; a tokenizer without one gets a plain ``Role: text`` frame.
    """
    return cached_prompt_ids(tokenizer, messages, clock.today())


@lru_cache(maxsize=8192)
def cached_prompt_ids(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], _day: date
) -> tuple[int, ...]:
    """The same, kept: on another day the chat template may say something else."""
    (encoded,) = prompt_tokens.encode(tokenizer, [prompt_text(tokenizer, messages)], offsets=False)
    return encoded.ids


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Text:
    """The prompt as text. What a message says is text in it, whatever it looks like."""
    if not any(prompt_tokens.looks_special(tokenizer, message.content) for message in messages):
        return Text(render(tokenizer, messages))
    # A template sees marks in place of the words, with the white space around them that it may strip.
    # It may also leave a message out, or move it.
    words = [message.content.strip() for message in messages]
    marked = [
        Message(
            m.role, m.content.replace(text, f"{PLACEHOLDER}{i}{PLACEHOLDER}") if text else m.content
        )
        for i, (m, text) in enumerate(zip(messages, words, strict=True))
    ]
    parts = re.split(f"{PLACEHOLDER}([0-9]+){PLACEHOLDER}", render(tokenizer, marked))
    return prompt_tokens.framed(tokenizer, parts[::2], [words[int(i)] for i in parts[1::2]])


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The prompt as text, special tokens included."""
    if tokenizer.chat_template:
        turns = chat_templates.turns(tokenizer, messages)
        with chat_templates.readable_template_errors():
            text: str = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        return text + chat_templates.opening(tokenizer)
    frame = "".join(f"{message.role.title()}: {message.content}\n\n" for message in messages)
    return f"{tokenizer.bos_token or ''}{frame}Assistant:"


def prompt_depends_on_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts differ from day to day."""

    def on(day: date) -> str:
        with clock.fixed(day):
            return render(tokenizer, (Message("user", "Hello"),))

    return on(date(2001, 1, 1)) != on(date(2012, 11, 23))


@lru_cache(maxsize=8)
def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that closes an assistant's turn in the chat template, else the end token.

    Training must end a report with the very token that ``generate`` stops at: the tokenizer's own
    ``eos_token`` differs between files and versions of one model.
    """
    if tokenizer.chat_template:
        answered = (Message("user", "a"), Message("assistant", "bcd"))
        with (
            suppress(IntrospectionError),
            chat_templates.readable_template_errors(),
        ):  # it may take no answers
            turns = chat_templates.turns(tokenizer, answered)
            text: str = tokenizer.apply_chat_template(turns, tokenize=False)
            after = text.rpartition("bcd")[2]
            closing = tokenizer(after, add_special_tokens=False)["input_ids"]
            special = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
            if closing and closing[0] in special:
                return int(closing[0])
    if tokenizer.eos_token_id is None:
        raise IntrospectionError(
            "The tokenizer has no end token, so no answer would end: set its eos_token."
        )
    return int(tokenizer.eos_token_id)


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """First and last token that touch the characters ``start..end`` (end exclusive); ``offsets`` are
    the tokenizer's ``offset_mapping`` of the text."""
    touched = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    return touched[0], touched[-1]


PLACEHOLDER = "\ufffc"  # OBJECT REPLACEMENT CHARACTER: no template holds it, and no message may


def _around(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], i: int
) -> tuple[str, str]:
    """The rendered text before and after message i. A mark finds it: its own words may also stand in
    a system prompt or a header, and many templates strip them."""
    marked = (*messages[:i], Message(messages[i].role, PLACEHOLDER), *messages[i + 1 :])
    before, _, after = prompt_text(tokenizer, marked).plain.partition(PLACEHOLDER)
    return before, after


def _prior_turn(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...]
) -> tuple[int, int]:
    earlier = [i for i, m in enumerate(messages[:-1]) if m.role != "system" and m.content.strip()]
    if not earlier:
        raise IntrospectionError(
            "The schedule prior_turn needs an earlier turn: add a first message and its answer."
        )
    text = prompt_text(tokenizer, messages)
    start = len(_around(tokenizer, messages, earlier[0])[0])
    end = len(text.plain) - len(_around(tokenizer, messages, earlier[-1])[1])
    return token_span(prompt_tokens.encode(tokenizer, [text])[0].offsets, start, end)


def answer_span(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], i: int
) -> tuple[int, int]:
    """Where ``final_on`` put a vector while message ``i``, an assistant's, was written: from the last
    token before it to its own last, as positions in the prompt that ``messages`` are now."""
    text = prompt_text(tokenizer, messages)
    end = len(text.plain) - len(_around(tokenizer, messages, i)[1])
    first = len(prompt_ids(tokenizer, messages[:i])) - 1
    (encoded,) = prompt_tokens.encode(tokenizer, [text])
    return first, max(first, sum(a < end for a, _ in encoded.offsets) - 1)


def injected_positions(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], schedule: Schedule
) -> tuple[int, int | None]:
    """(first, last) token at which a schedule adds the vector, counted from the start of the prompt;
    None for the last: to the end of the answer."""
    last = len(prompt_ids(tokenizer, messages)) - 1
    match schedule.kind:
        case "final":
            return last, last
        case "final_on":
            return last, None
        case "span":
            if max(schedule.start, schedule.end or 0) > last:
                raise IntrospectionError(
                    f"The {str(schedule).replace(':', ' ')} is outside the prompt, which has "
                    f"{last + 1} tokens: choose positions from 0 to {last}."
                )
            return schedule.start, schedule.end
        case "from_step":
            return last + schedule.start, None
        case "all":
            return 0, None
        case "prior_turn":
            return _prior_turn(tokenizer, messages)


def encode(tokenizer: PreTrainedTokenizerBase, trial: Trial, norm: float) -> EncodedTrial:
    """Tokens and injected positions of a trial; ``norm`` is the typical residual norm at layer L."""
    ids = prompt_ids(tokenizer, trial.messages)
    if trial.injection is None:
        return EncodedTrial(ids, (0, None), None, trial.adapter)
    positions = injected_positions(tokenizer, trial.messages, trial.injection.schedule)
    vector = trial.injection.vector.to("cpu", torch.float32)
    delta = vector * (trial.injection.strength * norm)
    return EncodedTrial(ids, positions, delta, trial.adapter, trial.injection.layer)
