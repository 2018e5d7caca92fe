"""What the adapter is trained on: examples as data, drawn from concepts and texts by a seed.

A thought and a text must differ in nothing but the injection. So clean questions and injected ones
are drawn from the same situations, and ordinary requests are answered as the base model answers them
unless the thought is harmful.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from introspection.concepts.catalogue import Concept, paper
from introspection.concepts.texts import DENIALS, UNNAMED, Texts, fill, reports
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.schedule import GENERATION, LAST_TOKEN, Schedule, after_tokens

Messages = tuple[Message, ...]
NOISE = "<noise>"  # the "concept" of an example whose vector is random

# Shares of the kinds of example, tuned on the validation split.
MIXTURE: Mapping[str, float] = {
    "report": 0.2,
    "vocabulary": 0.33,
    "deny": 0.092,
    "noise": 0.01,
    "replay": 0.048,
    "ordinary harmless": 0.12,
    "ordinary harmful": 0.05,
    "mid-answer harmless": 0.08,
    "mid-answer harmful": 0.06,
    "yes or no": 0.01,
}
HARMFUL_SHARE = 0.55  # of the injected concepts that are asked about
FINAL_SHARE = 0.15  # of those injected at the last prompt token alone
# Of the harmless thoughts amid ordinary work: phrases of the vocabulary, and harmless names that
# sound like harm ("bath bomb").
PHRASE_SHARE = 0.25
LOOKALIKE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation, what is injected (a concept name, NOISE or None) and when, and the answer.

    ``prefill`` is the part of the answer that is already there (never trained on). With
    ``match_base`` the answer is the base model's own and its whole distribution is the target.
    With ``ends_turn`` the answer ends there (the end token is trained).
    """

    kind: str
    messages: Messages
    concept: str | None
    schedule: Schedule
    answer: str
    prefill: str = ""
    match_base: bool = False
    ends_turn: bool = True


def _usual(rng: random.Random, wordings: Sequence[str]) -> str:
    """The first wording four times in five, else one of the others."""
    return wordings[0] if rng.random() < 0.8 else rng.choice(wordings[1:])


def _joined(rng: random.Random, first: str, second: str) -> str:
    return first + rng.choice(("\n\n", "\n", " ")) + second


def question_in_context(rng: random.Random, texts: Texts, names: Sequence[str]) -> Messages:
    """A question about the model's state, alone or amid other text. ``names`` fill the slots."""
    question = rng.choice(texts.questions)
    draw = rng.random()
    if draw < 0.40:
        return conversation(question)
    if draw < 0.50:
        user, answer = rng.choice(texts.prior_turns).split(" ||| ")
        return conversation(question, Message("user", user), Message("assistant", answer))
    if draw < 0.64:
        text = rng.choice(texts.contexts if rng.random() < 0.7 else texts.requests)
    elif draw < 0.79:
        text = fill(rng.choice(texts.mentions), rng.choice(names))
    elif draw < 0.89:
        text = rng.choice(texts.harmful_mentions)
    else:
        text = fill(rng.choice(texts.claims), rng.choice(names))
        if rng.random() < 0.2:
            return (Message("system", text), *conversation(question))
    if rng.random() < 0.15:
        return conversation(_joined(rng, question, text))
    return conversation(_joined(rng, text, question))


def ordinary(rng: random.Random, texts: Texts, names: Sequence[str]) -> Messages:
    """An ordinary request, or a text that asks for nothing."""
    draw = rng.random()
    if draw < 0.34:
        text = rng.choice(texts.requests)
    elif draw < 0.54:
        text = fill(rng.choice(texts.request_templates), rng.choice(names))
    elif draw < 0.68:
        text = rng.choice(texts.contexts)
    elif draw < 0.82:
        text = fill(rng.choice(texts.mentions), rng.choice(names))
    elif draw < 0.94:
        text = rng.choice(texts.harmful_mentions)
    else:
        text = rng.choice(texts.yes_no_false)
    if rng.random() < 0.08:
        user, answer = rng.choice(texts.prior_turns).split(" ||| ")
        return conversation(text, Message("user", user), Message("assistant", answer))
    return conversation(text)


def ordinary_prompts(seed: int, texts: Texts, names: Sequence[str], count: int) -> list[Messages]:
    """Distinct ordinary prompts, whose answers by the base model the examples need."""
    rng = random.Random(f"ordinary {seed}")
    prompts: dict[Messages, None] = {}
    for _ in range(count * 20):
        if len(prompts) == count:
            break
        prompts[ordinary(rng, texts, names)] = None
    return list(prompts)


def examples(
    seed: int,
    concepts: Sequence[Concept],
    vocabulary: Sequence[str],
    texts: Texts,
    replies: Mapping[Messages, tuple[str, bool]],
    count: int,
) -> list[Example]:
    """``count`` examples of our recipe.

    ``concepts`` are those that may be trained on, ``vocabulary`` further names whose harmfulness is
    unknown (so what follows the name is not trained); ``replies`` maps ordinary prompts to the base
    model's answer and whether it ended by itself.
    """
    rng = random.Random(f"examples {seed}")
    harmful = [concept for concept in concepts if concept.harmful]
    harmless = [concept for concept in concepts if not concept.harmful]
    lookalikes = [concept for concept in harmless if concept.category == "lookalikes"]
    names = [concept.name for concept in concepts]
    known = {concept.name for concept in harmless} | {"and", "of", "in", "the"}
    phrases = [name for name in vocabulary if " " in name and known.issuperset(name.split())]
    # Each of them once before any comes again.
    vocabulary_in_turn = itertools.cycle(rng.sample(vocabulary, len(vocabulary)))
    prompts = list(replies)
    kinds = rng.choices(list(MIXTURE), list(MIXTURE.values()), k=count)

    def harmless_concept() -> str:
        """For a vector that must not show: harmless words, which stay harmless side by side."""
        share = rng.random()
        if phrases and share < PHRASE_SHARE:
            return rng.choice(phrases)
        if lookalikes and share > 1 - LOOKALIKE_SHARE:
            return rng.choice(lookalikes).name
        return rng.choice(harmless).name

    def base_answer(kind: str, concept: str | None, schedule: Schedule, cut: int = 0) -> Example:
        while True:
            messages = rng.choice(prompts)
            text, finished = replies[messages]
            words = text.split(" ")
            if len(words) > 1 or not cut:
                break
        at = rng.randint(1, min(cut, len(words) - 1)) if cut else 0
        prefill, rest = " ".join(words[:at]), " ".join(words[at:])
        return Example(kind, messages, concept, schedule, rest, prefill, True, finished)

    def asked(kind: str, concept: str | None, answer: str, ends_turn: bool = True) -> Example:
        messages = question_in_context(rng, texts, names)
        return Example(kind, messages, concept, GENERATION, answer, ends_turn=ends_turn)

    drawn = []
    for kind in kinds:
        if kind == "report":
            concept = rng.choice(harmful if rng.random() < HARMFUL_SHARE else harmless)
            schedule = LAST_TOKEN if rng.random() < FINAL_SHARE else GENERATION
            answer = _usual(rng, reports(concept.name, concept.harmful))
            drawn.append(replace(asked(kind, concept.name, answer), schedule=schedule))
        elif kind == "vocabulary":
            word = next(vocabulary_in_turn)
            drawn.append(asked(kind, word, reports(word, False)[0], ends_turn=False))
        elif kind == "deny":
            drawn.append(asked(kind, None, _usual(rng, DENIALS)))
        elif kind == "noise":
            drawn.append(asked(kind, NOISE, UNNAMED))
        elif kind == "replay":
            drawn.append(base_answer(kind, None, GENERATION))
        elif kind == "ordinary harmless":
            drawn.append(base_answer(kind, harmless_concept(), GENERATION))
        elif kind == "ordinary harmful":
            concept = rng.choice(harmful)
            answer = reports(concept.name, True)[0]
            drawn.append(Example(kind, rng.choice(prompts), concept.name, GENERATION, answer))
        elif kind == "mid-answer harmless":
            name = None if rng.random() < 0.3 else harmless_concept()
            drawn.append(base_answer(kind, name, after_tokens(0), cut=24))
        elif kind == "mid-answer harmful":
            concept = rng.choice(harmful)
            start = base_answer(kind, concept.name, after_tokens(0), cut=24)
            answer = reports(concept.name, True)[0]
            drawn.append(replace(start, answer=answer, match_base=False, ends_turn=True))
        else:
            name = rng.choice(harmless).name
            question = conversation(rng.choice(texts.yes_no_false))
            drawn.append(Example(kind, question, name, GENERATION, "No."))
    return drawn


def paper_examples(
    seed: int, texts: Texts, concepts: Sequence[Concept], count: int
) -> list[Example]:
    """The paper's mix (arXiv 2511.21399 v1): half injected questions, half clean ones.

    The paper has 240 of each: its 40 concepts at six strengths. Its safety words are the paper's own
    six dangerous ones, whatever our catalogue says of them.
    """
    rng = random.Random(f"paper {seed}")
    dangerous = set(paper().dangerous)
    drawn = []
    for i in range(count // 2):
        concept = concepts[i % len(concepts)]
        answer = reports(concept.name, concept.name in dangerous)[0]
        question = conversation(rng.choice(texts.questions))
        drawn.append(Example("report", question, concept.name, GENERATION, answer))
        clean = conversation(rng.choice(texts.questions))
        drawn.append(Example("deny", clean, None, GENERATION, DENIALS[0]))
    return drawn
