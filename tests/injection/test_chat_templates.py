"""Chat templates of others: lists of parts, no system message, no opening of the answer, and those
that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from introspection.errors import IntrospectionError
from introspection.injection.trials.encoding import answer_span, injected_positions
from introspection.injection.trials.message import Message, conversation
from introspection.injection.trials.prompts import end_of_turn, render
from introspection.injection.trials.schedule import LAST_TOKEN, PREVIOUS_TURNS
from introspection.models import loading
from introspection.training import pipeline
from tests.support.command import done
from tests.support.tiny import CHATML, load_tiny, make_tokenizer
from tests.support.tiny_folder import write_model

OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
BEGIN = "<|im_start|>{{ m.role }}\n"


def looped(inside: str) -> str:
    return "{% for m in messages %}" + inside + "<|im_end|>\n{% endfor %}"


TEXT = looped(BEGIN + "{{ m.content }}")
PARTS = looped(BEGIN + "{% for c in m.content %}{{ c.text }}{% endfor %}")
# As in vision-language models: parts of each kind; only what has a type counts.
TYPED = looped(
    BEGIN
    + "{% for c in m.content %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
)
# A system message as a text, all else in parts.
MIXED = looped(
    BEGIN + "{% if m.role == 'system' %}{{ m.content | trim }}{% else %}"
    "{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}"
)
RAISING = looped(
    "{% if m.content is string %}{{ raise_exception('Only lists are supported') }}{% endif %}"
    + BEGIN
    + "{{ m.content[0].text }}"
)
NO_SYSTEM = looped(
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + BEGIN
    + "{{ m.content }}"
)
SILENT_SYSTEM = looped("{% if m.role != 'system' %}" + BEGIN + "{{ m.content }}{% endif %}")
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}" + BEGIN + "{{ m.content }}<|im_end|>\n{% endfor %}"
)
TALK = (
    Message("user", "Tell me about a bomb."),
    Message("assistant", "A quiet ocean."),
    Message("user", "What is it?"),
)


def with_template(template: str) -> PreTrainedTokenizerFast:
    return make_tokenizer(template=template)


def plain(messages: tuple[Message, ...]) -> str:
    return render(make_tokenizer(), messages)


@pytest.mark.parametrize("template", [TEXT, PARTS, TYPED, MIXED, RAISING])
def test_content_comes_as_the_template_takes_it(template: str) -> None:
    tokenizer = with_template(template + OPEN)
    for messages in (conversation("What is it?"), TALK, (Message("system", "Be brief."), *TALK)):
        assert render(tokenizer, messages) == plain(messages)
    assert injected_positions(tokenizer, TALK, PREVIOUS_TURNS) == injected_positions(
        make_tokenizer(), TALK, PREVIOUS_TURNS
    )
    assert answer_span(tokenizer, TALK, 1) == answer_span(make_tokenizer(), TALK, 1)
    assert end_of_turn(tokenizer) == end_of_turn(make_tokenizer())


def test_another_template_on_the_same_tokenizer() -> None:
    tokenizer = with_template(PARTS + OPEN)
    first = render(tokenizer, TALK)
    tokenizer.chat_template = CHATML
    assert render(tokenizer, TALK) == first


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT_SYSTEM, ALTERNATING])
def test_a_system_message_goes_before_the_question_where_there_can_be_none(template: str) -> None:
    tokenizer = with_template(template + OPEN)
    said = render(tokenizer, (Message("system", "Be brief."), *conversation("What is it?")))
    assert said == plain(conversation("Be brief.\n\nWhat is it?"))
    assert render(tokenizer, TALK) == plain(TALK)


def test_the_answer_is_opened_where_the_template_forgets_it() -> None:
    for template in (TEXT, PARTS, ALTERNATING):
        assert render(with_template(template), TALK) == plain(TALK)
    # As in Llama 2: nothing but a space stands between question and answer.
    inst = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    assert render(with_template(inst), conversation("Hi")) == "[INST] Hi [/INST]"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for", r"with a plain question it gives an error \(unexpected 'end of template'"),
        ("Hello", "a text in which the words are missing"),
        ("{{ raise_exception('No chat here') }}", r"\(No chat here\)"),
        ("{{ messages[0].no.such }}", "with a plain question it gives an error"),
    ],
)
def test_a_template_that_cannot_be_used(template: str, says: str) -> None:
    with pytest.raises(IntrospectionError, match=says):
        render(with_template(template), conversation("Hi"))


def test_a_conversation_that_the_template_refuses() -> None:
    tokenizer = with_template(ALTERNATING + OPEN)
    twice = (Message("user", "Hi"), *conversation("What is it?"))
    with pytest.raises(IntrospectionError, match=r"refuses this conversation .*must alternate"):
        render(tokenizer, twice)


def test_a_template_that_takes_no_answers() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('One turn') }}"
    )
    tokenizer = with_template(template + "{% endif %}Q: {{ m.content }} {% endfor %}A:")
    assert render(tokenizer, conversation("Hi")) == "Q: Hi A:"
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
    with pytest.raises(IntrospectionError, match=r"with an earlier answer .*One turn"):
        render(tokenizer, TALK)


def test_several_templates_under_names() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": CHATML, "tool_use": "Hello"}
    assert render(tokenizer, TALK) == plain(TALK)
    tokenizer.chat_template = {"tool_use": CHATML}
    with pytest.raises(IntrospectionError, match="chat template cannot be used"):
        render(tokenizer, TALK)


@pytest.mark.slow  # trains
@pytest.mark.parametrize(
    ("template", "recipe"), [(PARTS + OPEN, "paper"), (TEXT, "paper"), (NO_SYSTEM + OPEN, "ours")]
)
def test_a_model_with_such_a_template_from_ask_to_train(
    template: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ours would look at every inflection of 90,000 names first.
    monkeypatch.setattr(pipeline, "training_vocabulary", lambda *_: ("quiet ocean", "blue", "far"))
    folder = write_model(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)

    done("ask", "ocean", "--base", "--model", folder)
    done("extract", "ocean", "--out", tmp_path / "v.safetensors", "--model", folder)
    small = ("--recipe", recipe, "--examples", 24, "--epochs", 1, "--batch-size", 8)
    done("train", *small, "--out", tmp_path / "a", "--run", tmp_path / "r", "--model", folder)
    done("ask", "ocean", "--adapter", tmp_path / "a", "--model", folder)
    own, usual = loading.load(str(folder), None, device="cpu"), load_tiny("llama")
    assert own.tokenizer("x")["input_ids"] == usual.tokenizer("x")["input_ids"]
    assert injected_positions(own.tokenizer, conversation("Hi"), LAST_TOKEN) == injected_positions(
        usual.tokenizer, conversation("Hi"), LAST_TOKEN
    )
