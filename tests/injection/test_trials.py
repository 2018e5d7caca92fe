"""Conversations as tokens, and where schedules that look at the text put their vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from introspection.injection.trials.encoding import answer_span, encode, token_span
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.prompts import prompt_ids
from introspection.injection.trials.schedule import (
    GENERATION,
    PREVIOUS_TURNS,
    Schedule,
)
from introspection.injection.trials.trial import Injection, Trial
from tests.support.tiny import CHATML, WIDTH, make_tokenizer, vector

# As SmolLM2: a system prompt that nobody asked for. And as Gemma: contents are stripped.
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant."
    "<|im_end|>\n' }}{% endif %}" + CHATML
)
STRIPPING = CHATML.replace("message.content", "(message.content | trim)")

# --- prompts ----------------------------------------------------------------------------------


def pieces(tokenizer: Any, *texts: str) -> list[tuple[int, ...]]:
    return [tuple(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]


def test_a_prompt_is_the_chat_template_up_to_the_answer() -> None:
    tokenizer = make_tokenizer()
    messages = conversation("Tell me.", Message("system", "You detect."))
    (expected,) = pieces(
        tokenizer,
        "<|im_start|>system\nYou detect.<|im_end|>\n<|im_start|>user\nTell me.<|im_end|>\n"
        "<|im_start|>assistant\n",
    )
    assert prompt_ids(tokenizer, messages) == expected


def test_a_tokenizer_without_a_template_gets_a_plain_frame() -> None:
    tokenizer = make_tokenizer(template=None)
    messages = conversation("What?", Message("user", "Tell me."), Message("assistant", "Justice."))
    (expected,) = pieces(
        tokenizer,
        "<|endoftext|>User: Tell me.\n\nAssistant: Justice.\n\nUser: What?\n\nAssistant:",
    )
    assert prompt_ids(tokenizer, messages) == expected
    assert expected[0] == tokenizer.bos_token_id
    assert injected_text(tokenizer, messages, PREVIOUS_TURNS) == "Tell me.\n\nAssistant: Justice."
    tokenizer.bos_token = None
    assert prompt_ids(tokenizer, conversation("Other?"))[0] != 0


def test_special_tokens_are_not_added_twice() -> None:
    tokenizer = make_tokenizer(template="{{ bos_token }}" + CHATML)
    ids = prompt_ids(tokenizer, conversation("Tell me."))
    assert ids.count(tokenizer.bos_token_id) == 1


def test_tokens_that_touch_a_range_of_characters() -> None:
    tokenizer = make_tokenizer()
    text = "Tell me about justice."
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            first, last = token_span(offsets, start, end)
            assert offsets[first][0] <= start < offsets[first][1]
            assert offsets[last][0] < end <= offsets[last][1]


# --- positions --------------------------------------------------------------------------------


def row(tokenizer: Any, messages: tuple[Message, ...], schedule: Schedule) -> Any:
    return encode(tokenizer, Trial(messages, Injection(vector(0), 1.0, schedule)), 2.0)


def injected_text(tokenizer: Any, messages: tuple[Message, ...], schedule: Schedule) -> str:
    encoded = row(tokenizer, messages, schedule)
    first, last = encoded.positions
    return tokenizer.decode(encoded.ids[first:] if last is None else encoded.ids[first : last + 1])


@pytest.mark.parametrize(
    "template", [CHATML, DEFAULT_SYSTEM, STRIPPING], ids=["chatml", "default", "strip"]
)
@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (["Tell me.", "Justice.", "What?"], "Tell me.{}Justice."),
        (["a", "b", "c", "d", "What?"], "a{}b{}c{}d"),
        (["Tell me.", "Tell me.", "Tell me."], "Tell me.{}Tell me."),
        (["AI", "a helpful AI assistant", "assistant"], "AI{}a helpful AI assistant"),
        (["user", "assistant", "a"], "user{}assistant"),
        (["ocean", "user", "What?"], "ocean{}user"),
        (["", "Justice.", "What?"], "Justice."),
        (["Tell me.\n", " Justice. ", "What?"], "Tell me.{}Justice."),
    ],
)
def test_prior_turn_is_what_was_said_before_the_question(
    template: str, turns: list[str], expected: str
) -> None:
    tokenizer = make_tokenizer(template=template)
    roles = ["user", "assistant"] * len(turns)
    messages = tuple(Message(role, text) for role, text in zip(roles, turns, strict=False))  # type: ignore[arg-type]
    between = [f"<|im_end|>\n<|im_start|>{role}\n" for role in roles[1:]]
    for before in ((), (Message("system", "You detect. Tell me. a user"),)):
        found = injected_text(tokenizer, (*before, *messages), PREVIOUS_TURNS)
        told = found if template == STRIPPING else found.replace(" Justice. ", "Justice.")
        told = told if template == STRIPPING else told.replace("me.\n<", "me.<")
        assert told == expected.format(*between)


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, STRIPPING, None])
@pytest.mark.parametrize("answer", ["Justice.", "user", "assistant\n\nassistant", "What?", "", "é"])
def test_an_answer_is_found_where_final_on_put_the_vector_while_it_was_written(
    template: str | None, answer: str
) -> None:
    tokenizer = make_tokenizer(template=template)
    first = conversation("Tell me. assistant")
    written = (*first, Message("assistant", answer))
    now = conversation("What?", *written)
    begin, end = answer_span(tokenizer, now, 1)
    ids = prompt_ids(tokenizer, now)
    before = prompt_ids(tokenizer, first)
    assert begin == row(tokenizer, first, GENERATION).positions[0] and ids[: len(before)] == before
    assert tokenizer.decode(ids[begin + 1 : end + 1]).strip() == answer.strip()
    longer = conversation("Why?", *now, Message("assistant", "No."))
    assert answer_span(tokenizer, longer, 1) == (begin, end)


def test_the_delta_is_vector_times_strength_times_norm() -> None:
    tokenizer = make_tokenizer()
    for strength in (1.0, -0.5, 0.0):
        trial = Trial(conversation("What?"), Injection(vector(3), strength), adapter=False)
        encoded = encode(tokenizer, trial, norm=40.0)
        assert encoded.delta is not None
        assert torch.allclose(encoded.delta, vector(3) * strength * 40.0)
        assert encoded.delta.norm().item() == pytest.approx(abs(strength) * 40.0)
        assert encoded.delta.shape == (WIDTH,)
        assert encoded.delta.dtype == torch.float32
        assert encoded.adapter is False
        assert encoded.positions == (len(encoded.ids) - 1, None), "final_on is the default"
    clean = encode(tokenizer, Trial(conversation("What?")), norm=40.0)
    assert clean.delta is None
    assert clean.adapter is True
