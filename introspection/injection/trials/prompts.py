"""Conversations as prompts: the text of the chat template, its tokens, the token that ends a turn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from introspection.errors import IntrospectionError
from introspection.injection.trials import chat_templates, clock, prompt_tokens
from introspection.injection.trials.message import Message
from introspection.injection.trials.prompt_tokens import Text

PLACEHOLDER = "\ufffc"  # OBJECT REPLACEMENT CHARACTER: no template holds it, and no message may


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
    """:func:`prompt_ids` as of a day: the chat template may state the date."""
    (encoded,) = prompt_tokens.encode(tokenizer, [prompt_text(tokenizer, messages)], offsets=False)
    return encoded.ids


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Text:
    """The prompt as text, in which control tokens that a message spells out are marked as text."""
    if not any(prompt_tokens.looks_special(tokenizer, message.content) for message in messages):
        return Text(render(tokenizer, messages))
    # The template is rendered with numbered placeholders for the words, inside the white space around
    # them, which it may strip. It may also leave a message out, or move it.
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
        return text + chat_templates.answer_header(tokenizer)
    frame = "".join(f"{message.role.title()}: {message.content}\n\n" for message in messages)
    return f"{tokenizer.bos_token or ''}{frame}Assistant:"


def prompt_depends_on_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template states the date, so that prompts differ from day to day."""

    def on(day: date) -> str:
        with clock.fixed(day):
            return render(tokenizer, (Message("user", "Hello"),))

    return on(date(2001, 1, 1)) != on(date(2012, 11, 23))


@lru_cache(maxsize=8)
def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that closes an assistant's turn in the chat template, else the end token.

    The tokenizer's own ``eos_token`` differs between files and versions of one model. Raises
    IntrospectionError for a tokenizer without an end token.
    """
    if tokenizer.chat_template:
        answered = (Message("user", "a"), Message("assistant", "bcd"))
        # A template may refuse an answer.
        with suppress(IntrospectionError), chat_templates.readable_template_errors():
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
