"""The mix of examples: the right answer in every situation, and nothing of the other splits."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import fields, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from introspection.concepts.catalogue import Concept, catalogue, find, paper, resolve
from introspection.concepts.morphology import english_lemmas, forms
from introspection.concepts.splits import UNSEEN_CATEGORIES, split_of
from introspection.concepts.texts import DENIALS, UNNAMED, Texts, reports, texts
from introspection.concepts.vocabulary import training_vocabulary
from introspection.evaluation.grading.grade import grade
from introspection.injection.trials.schedule import GENERATION, LAST_TOKEN
from introspection.training import pipeline
from introspection.training.data.examples import (
    FINAL_SHARE,
    HARMFUL_SHARE,
    MIXTURE,
    NOISE,
    PHRASE_SHARE,
    Example,
    Messages,
    examples,
    ordinary_prompts,
    paper_examples,
    question_in_context,
)

COUNT = 6_000
# Names that no text holds by itself, so that every slot can be told from its text.
CONCEPTS = tuple(
    Concept(f"zq{i}q", "weapons" if i % 4 == 0 else "space", i % 4 == 0) for i in range(200)
)
NAMES = [concept.name for concept in CONCEPTS]
PHRASES = tuple(f"zq{i + 1}q of zq{i + 2}q" for i in range(0, 80, 4))  # of harmless names alone
OTHERS = tuple(f"zv{i}v zq{i + 1}q" for i in range(0, 40, 4))  # nobody knows what the first one is
VOCABULARY = (*(f"zv{i}v" for i in range(300)), *PHRASES, *OTHERS)
HARMFUL = {concept.name for concept in CONCEPTS if concept.harmful}
TRAIN = texts("train")


@lru_cache(maxsize=1)
def replies() -> dict[Messages, tuple[str, bool]]:
    """What a base model might say: one word, or a long text that the limit cut short."""
    answers = (("Sure.", True), ("One two three four five. " * 9, False), ("Yes, it is.", True))
    prompts = ordinary_prompts(1, TRAIN, NAMES, 600)
    return {prompt: answers[i % 3] for i, prompt in enumerate(prompts)}


@lru_cache(maxsize=4)
def made(seed: int = 0) -> tuple[Example, ...]:
    return tuple(examples(seed, CONCEPTS, VOCABULARY, TRAIN, replies(), COUNT))


def kind(name: str) -> list[Example]:
    found = [example for example in made() if example.kind == name]
    assert len(found) > 20, name
    return found


def within(hits: int, n: int, share: float) -> bool:
    return abs(hits - n * share) <= 3 * math.sqrt(n * share * (1 - share)) + 1


def test_the_seed_decides() -> None:
    again = examples(0, CONCEPTS, VOCABULARY, TRAIN, dict(replies()), COUNT)
    assert tuple(again) == made() and len(again) == COUNT
    assert made(1) != made()
    assert ordinary_prompts(0, TRAIN, NAMES, 50) == ordinary_prompts(0, TRAIN, NAMES, 50)
    assert ordinary_prompts(0, TRAIN, NAMES, 50) != ordinary_prompts(1, TRAIN, NAMES, 50)


def test_shares_of_the_mix() -> None:
    assert math.isclose(sum(MIXTURE.values()), 1)
    found = Counter(example.kind for example in made())
    assert found.keys() == MIXTURE.keys()
    for name, share in MIXTURE.items():
        assert within(found[name], COUNT, share), name
    asked = kind("report")
    assert within(sum(e.concept in HARMFUL for e in asked), len(asked), HARMFUL_SHARE)
    assert within(sum(e.schedule == LAST_TOKEN for e in asked), len(asked), FINAL_SHARE)
    quiet = [e for name in ("ordinary harmless", "mid-answer harmless") for e in kind(name)]
    thoughts = [e.concept for e in quiet if e.concept]
    assert within(sum(name in PHRASES for name in thoughts), len(thoughts), PHRASE_SHARE)


class TestAnswers:
    def test_report(self) -> None:
        wordings = Counter[int]()
        for example in kind("report"):
            assert not example.match_base and example.ends_turn
            right = reports(str(example.concept), example.concept in HARMFUL)
            wordings[right.index(example.answer)] += 1
            assert example.schedule in (LAST_TOKEN, GENERATION) and not example.prefill
        assert len(wordings) == 3 and wordings[0] > sum(wordings.values()) / 2

    def test_vocabulary(self) -> None:
        """Whether such a word is harmful is unknown: where its name ends, so does the target."""
        for example in kind("vocabulary"):
            assert example.concept in VOCABULARY and example.schedule == GENERATION
            assert example.answer == reports(str(example.concept), False)[0]
            assert not example.ends_turn and not example.match_base and not example.prefill
        times = Counter(example.concept for example in kind("vocabulary")).values()
        assert len(times) == len(VOCABULARY)  # dealt, not drawn
        assert max(times) - min(times) <= 1

    def test_deny_and_noise(self) -> None:
        for example in kind("deny"):
            assert example.concept is None and example.answer in DENIALS and example.ends_turn
            assert not example.match_base and not example.prefill
        assert {example.answer for example in kind("deny")} == set(DENIALS)
        for example in kind("noise"):
            assert (example.concept, example.answer) == (NOISE, UNNAMED) and not example.match_base

    def test_replay_and_harmless_thoughts_leave_ordinary_answers_alone(self) -> None:
        for name in ("replay", "ordinary harmless"):
            for example in kind(name):
                answer, whole = replies()[example.messages]
                assert (example.answer, example.ends_turn) == (answer, whole)
                assert example.match_base and not example.prefill and example.schedule == GENERATION
                assert example.concept not in HARMFUL
                assert (example.concept is None) is (name == "replay")

    def test_requests_that_a_thought_changes(self) -> None:
        for example in kind("ordinary harmful"):
            assert example.concept in HARMFUL and example.messages in replies()
            assert example.answer in reports(example.concept, True)
            assert not example.match_base and example.ends_turn and example.schedule == GENERATION
        for example in kind("yes or no"):
            (message,) = example.messages
            assert message.content in TRAIN.yes_no_false and example.answer == "No."
            assert example.concept in set(NAMES) - HARMFUL and not example.match_base

    def test_mid_answer(self) -> None:
        for name in ("mid-answer harmless", "mid-answer harmful"):
            for example in kind(name):
                answer, whole = replies()[example.messages]
                assert example.schedule.starts_mid_answer
                assert example.prefill and answer.startswith(example.prefill + " ")
                assert example.answer
                if name == "mid-answer harmful":
                    assert example.concept in HARMFUL
                    assert not example.match_base and example.ends_turn
                    assert example.answer == reports(example.concept, True)[0]
                else:
                    assert example.concept not in HARMFUL and example.match_base
                    assert f"{example.prefill} {example.answer}" == answer
                    assert example.ends_turn is whole
        clean = sum(example.concept is None for example in kind("mid-answer harmless"))
        assert 0 < clean < len(kind("mid-answer harmless"))
        # At many points of the answer, so that no count of tokens announces the thought.
        assert len({len(example.prefill.split()) for example in kind("mid-answer harmful")}) > 10

    def test_the_halt_marker_stands_exactly_where_the_thought_is_harmful(self) -> None:
        for example in made():
            asked = not example.match_base and example.concept not in (None, NOISE)
            verdict = grade(example.answer, Concept(example.concept) if asked else None)
            assert verdict.halted is (example.concept in HARMFUL), example
            if asked and example.kind not in ("yes or no", "mid-answer harmful"):
                assert verdict.correct, example


def test_a_thought_and_a_text_differ_in_nothing_but_the_injection() -> None:
    """Clean and injected questions come from the same situations in the same shares."""

    def features(found: list[Example]) -> list[float]:
        ends = [example.messages[-1].content for example in found]
        counts = [sum(len(example.messages) > 1 for example in found)]
        counts += [sum(end.endswith(tuple(TRAIN.questions[:50])) for end in ends)]
        counts += [sum("zq" in e for e in ends), sum(e in TRAIN.questions for e in ends)]
        return [count / len(found) for count in counts]

    for one, other in zip(features(kind("report")), features(kind("deny")), strict=True):
        assert 0 < one < 1 and abs(one - other) < 0.06


def trained_texts() -> tuple[set[str], dict[str, str]]:
    lines = {line for field in fields(Texts) for line in getattr(TRAIN, field.name)}
    return lines, dict(line.split(" ||| ") for line in TRAIN.prior_turns)


def parts(text: str) -> list[str] | None:
    """The texts of the train split that a message is made of, slots put back; None if it is not."""
    lines, _ = trained_texts()
    text = re.sub(r"zq\d+q", "{c}", text)
    if text in lines:
        return [text]
    for gap in ("\n\n", "\n", " "):
        for cut in (m.start() for m in re.finditer(gap, text)):
            pair = [text[:cut], text[cut + len(gap) :]]
            if set(pair) <= lines:
                return pair
    return None


def test_every_word_of_every_prompt_is_of_the_train_split() -> None:
    _, turns = trained_texts()
    seen = {example.messages for example in made()}
    for messages in seen:
        assert all("{c}" not in message.content for message in messages)
        *before, last = messages
        assert last.role == "user" and parts(last.content), last
        if before and before[0].role == "system":
            assert parts(before[0].content) and len(before) == 1
        elif before:
            user, answer = before
            assert (user.role, answer.role) == ("user", "assistant")
            assert turns[user.content] == answer.content
    roles = Counter(tuple(m.role for m in messages) for messages in seen)
    assert set(roles) == {("user",), ("user", "assistant", "user"), ("system", "user")}


def test_every_concept_is_one_that_was_given() -> None:
    used = {example.concept for example in made() if example.kind != "vocabulary"}
    assert used == {*NAMES, *PHRASES, NOISE, None}  # words of unknown harm stay out


def test_situations_vary() -> None:
    rng = random.Random(0)
    drawn = {question_in_context(rng, TRAIN, NAMES) for _ in range(2_000)}
    assert len(drawn) > 1_200
    questions = {q for m in drawn for q in TRAIN.questions if q in m[-1].content}
    assert len(questions) > 0.9 * len(TRAIN.questions)


def test_ordinary_prompts_are_distinct_and_end() -> None:
    prompts = ordinary_prompts(0, TRAIN, NAMES, 1_000)
    assert len(set(prompts)) == len(prompts) == 1_000
    one = replace(TRAIN, **{field.name: ("x {c} ||| y",) for field in fields(Texts)})
    assert len(ordinary_prompts(0, one, ["n"], 50)) < 20  # fewer there are not


class _Reached(Exception):
    pass


@pytest.mark.slow  # makes the whole vocabulary
def test_what_the_build_trains_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the catalogue only what the split allows, and of the texts only the train split."""
    given: dict[str, Any] = {}

    def stop(_seed: int, concepts: Any, more: Any, words: Any, said: Any, *_: Any) -> Any:
        given.update(concepts=concepts, more=more, words=words, said=said)
        raise _Reached

    def split(names: list[str], add_special_tokens: bool) -> dict[str, list[str]]:
        assert not add_special_tokens and all(name[0] == " " for name in names)
        return {"input_ids": [name[1::4] for name in names]}  # a token for every four letters

    answer = ("Yes.", True)
    monkeypatch.setattr(
        pipeline, "base_replies", lambda _, asked, *__: dict.fromkeys(asked, answer)
    )
    monkeypatch.setattr(pipeline, "examples", stop)
    monkeypatch.setattr(pipeline, "describe_run", lambda *_: {})
    monkeypatch.setattr(pipeline, "prompt_depends_on_date", lambda _: False)
    bare: Any = SimpleNamespace(tokenizer=split)
    job = pipeline.TrainingJob("ours", pipeline.TrainConfig(), 400)
    with pytest.raises(_Reached):
        pipeline.build_adapter(bare, tmp_path / "a", tmp_path / "r", job)
    assert given["words"] == TRAIN
    # Names that take practice are all there, a third of the others is.
    whole = training_vocabulary(0, pipeline.VOCABULARY)
    hard = [name for name in whole if 9 <= len(name) <= 16]
    assert set(hard) <= set(given["more"]) <= set(whole)
    easy = (len(given["more"]) - len(hard)) / (len(whole) - len(hard))
    assert 0.32 < easy < 0.35
    allowed = {c for c in catalogue() if c.split == "train"}
    open_ = {c for c in allowed if c.category not in UNSEEN_CATEGORIES}
    held = {form for c in set(catalogue()) - open_ for form in forms(c.name, c.aliases)}
    assert set(given["concepts"]) == {c for c in open_ if held.isdisjoint(forms(c.name, c.aliases))}
    assert {"whisper", "raft"} <= {c.name for c in open_ - set(given["concepts"])}
    shut = {c.name for c in catalogue()} - {c.name for c in given["concepts"]}
    # The slots of the prompts, too, hold no other concept.
    templates = [line for line in TRAIN.request_templates if line.count("{c}") == 1]
    slots = [
        match[1]
        for prompt in given["said"]
        for line in templates
        if (match := re.fullmatch(re.escape(line).replace(r"\{c\}", "(.+)"), prompt[-1].content))
    ]
    assert len(slots) > 5 and not set(slots) & shut


@pytest.mark.slow  # looks at every inflection of 20,000 names
def test_vocabulary_keeps_to_the_split() -> None:
    """No word of it is, once typed, of another split, and none is a held-out concept inflected."""
    found = training_vocabulary(0, 20_000)
    assert len(set(found)) == len(found) == 20_000
    assert training_vocabulary(0, 90) == training_vocabulary(0, 90) != training_vocabulary(1, 90)
    held = {form for c in catalogue() if not c.trained for form in forms(c.name, c.aliases)}
    assert {"vote", "voting"} <= held  # vote is of the validation split
    listed = files("introspection.concepts").joinpath("data/held_out_words.txt")
    shut = set(listed.read_text().split())
    # Words of held-out categories that nothing but this list keeps out.
    lost = [w for w in english_lemmas() if w in shut - held and split_of(w) == "train"]
    assert len(lost) > 50 and shut.isdisjoint(found)
    for word in found:
        assert find(word) is None and resolve(word).split == "train", word
        assert resolve(word).name.casefold() == word.casefold() and held.isdisjoint(forms(word))


class TestPaper:
    def test_mix(self) -> None:
        lists = paper()
        concepts = [resolve(name) for name in lists.train]
        found = paper_examples(0, TRAIN, concepts, 480)
        assert found == paper_examples(0, TRAIN, concepts, 480)
        assert found != paper_examples(1, TRAIN, concepts, 480)
        injected = [example for example in found if example.kind == "report"]
        clean = [example for example in found if example.kind == "deny"]
        assert len(injected) == len(clean) == 240 and len(found) == 480
        assert Counter(e.concept for e in injected) == {c.name: 6 for c in concepts}
        for example in injected:
            assert example.concept is not None
            dangerous = example.concept in lists.dangerous
            assert example.answer == reports(example.concept, dangerous)[0]
        assert {(e.concept, e.answer) for e in clean} == {(None, DENIALS[0])}
        for example in found:
            (message,) = example.messages
            assert message.content in TRAIN.questions and example.schedule == GENERATION
            assert not example.match_base and example.ends_turn and not example.prefill

    def test_what_is_dangerous_is_the_papers_own_choice(self) -> None:
        concepts = [resolve("knife"), replace(resolve("demon"), harmful=False)]
        found = paper_examples(0, TRAIN, concepts, 4)
        halted = [grade(e.answer, Concept(e.concept)).halted for e in found if e.concept]
        assert halted == [False, True]
