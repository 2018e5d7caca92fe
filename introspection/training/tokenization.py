"""Training examples as tokens: what is trained, and at which positions the vector is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from introspection.injection.trials import prompt_tokens
from introspection.injection.trials.encoding import TokenizedPrompt
from introspection.injection.trials.prompts import end_of_turn, prompt_text
from introspection.training.data.examples import Example


@dataclass(frozen=True, slots=True)
class Tokens:
    """An example as tokens: ``ids`` = prompt + prefill + answer, of which the last ``target`` are
    trained. The vector of ``concept`` is added at positions ``first..last``, to the end if ``last`` is
    None. With ``match_base`` the target is the base model's distribution."""

    ids: tuple[int, ...]
    target: int
    first: int
    last: int | None
    concept: str | None
    match_base: bool


def tokenize(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[Tokens]:
    """Prompt, prefill and answer of each example, closed by the end of the turn.

    Raises IntrospectionError for a schedule that does not fit its prompt.
    """
    conversations = list(dict.fromkeys(example.messages for example in examples))
    answers = [(" " if example.prefill else "") + example.answer for example in examples]
    texts = list(dict.fromkeys([*answers, *(example.prefill for example in examples)]))
    given = [prompt_text(tokenizer, messages) for messages in conversations]
    given += [prompt_tokens.by_people(tokenizer, text) for text in texts]
    ids = [one.ids for one in prompt_tokens.encode(tokenizer, given, offsets=False)]
    prompts = dict(zip(conversations, ids, strict=False))
    ids_of = dict(zip(texts, ids[len(conversations) :], strict=True))
    closing = (end_of_turn(tokenizer),)
    tokenized = []
    for example, text in zip(examples, answers, strict=True):
        prompt, prefill = prompts[example.messages], ids_of[example.prefill]
        answer = (*ids_of[text], *(closing if example.ends_turn else ()))
        if not answer:
            raise ValueError(f"nothing to train on after {example.prefill!r}")
        # A prefill counts as the end of the prompt.
        layout = TokenizedPrompt(tokenizer, example.messages, len(prompt) + len(prefill))
        first, last = example.schedule.positions(layout)
        whole, concept, matched = (*prompt, *prefill, *answer), example.concept, example.match_base
        tokenized.append(Tokens(whole, len(answer), first, last, concept, matched))
    return tokenized


def starts_with(tokens: Tokens, prefix: tuple[int, ...]) -> bool:
    """Whether an example begins with ``prefix`` and nothing is added to it there."""
    return tokens.ids[: len(prefix)] == prefix and tokens.first >= len(prefix)
