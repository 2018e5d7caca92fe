"""Messages in the form that a model's own chat template takes.

Some templates take the content of a message as text, others as a list of parts; some take no system
message. A form is right if the template writes its content out, which is tried once per tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

from transformers import PreTrainedTokenizerBase

from introspection.errors import IntrospectionError
from introspection.injection.trials.message import Message

Form = Literal["text", "parts"]
Turn = dict[str, str | list[dict[str, str]]]  # role and content, as templates take them
_FORMS: tuple[Form, ...] = ("text", "parts")
_PROBE, _OTHER = "q7xprobe", "w4yother"  # no template says either


def turns(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[Turn]:
    """``messages`` as the chat template takes them.

    Where it takes no system message, that text is put before the first question, as such models were
    trained. Raises IntrospectionError for a template that cannot be used.
    """
    pairs = [(message.role, message.content) for message in messages]
    if pairs[1:] and pairs[0][0] == "system" and _form(tokenizer, "system") is None:
        (_, first), (role, content), *rest = pairs
        pairs = [(role, f"{first}\n\n{content}"), *rest]
    found = []
    for role, content in pairs:
        form = _form(tokenizer, role)
        if form is None:
            raise _unusable(tokenizer, role)
        found.append(_turn(role, content, form))
    return found


def answer_header(tokenizer: PreTrainedTokenizerBase) -> str:
    """The header of an answer, for a template that ignores ``add_generation_prompt``; else empty."""
    return _answer_header(tokenizer, _key(tokenizer))


@contextmanager
def readable_template_errors() -> Iterator[None]:
    """Turn any exception of a template into an IntrospectionError."""
    try:
        yield
    except IntrospectionError:
        raise
    except Exception as error:
        raise IntrospectionError(
            f"The model's chat template refuses this conversation ({reason(error)}): ask without "
            "earlier turns, or use a model whose template takes them."
        ) from error


def reason(error: BaseException, most: int = 160) -> str:
    """The first sentence of an error, cut at a word if it is longer than ``most`` characters."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".: ")
    if len(text) > most:
        text = text[:most].rsplit(" ", 1)[0].rstrip(".,:; ") + " ..."
    return text or type(error).__name__


def _turn(role: str, content: str, form: Form) -> Turn:
    parts = [{"type": "text", "text": content}]
    return {"role": role, "content": content if form == "text" else parts}


def _key(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template as it is now, for the caches: it can be replaced while the tokenizer stays."""
    template = tokenizer.chat_template
    return template if isinstance(template, str) else repr(template)


def _form(tokenizer: PreTrainedTokenizerBase, role: str) -> Form | None:
    return _probed_form(tokenizer, role, _key(tokenizer))


def _probes(role: str, form: Form, others: Form) -> list[Turn]:
    before = [] if role in ("user", "system") else [_turn("user", _OTHER, others)]
    after = [] if role == "user" else [_turn("user", _OTHER, others)]
    return [*before, _turn(role, _PROBE, form), *after]


@lru_cache(maxsize=64)
def _probed_form(tokenizer: PreTrainedTokenizerBase, role: str, key: str) -> Form | None:
    others = "text" if role == "user" else _probed_form(tokenizer, "user", key)
    for form in _FORMS if others else ():
        try:
            text = _render(tokenizer, _probes(role, form, others or form), True)
        except Exception:  # noqa: BLE001, S112 - templates raise whatever they like
            continue
        # A template that knows texts alone prints a list as Python would.
        if _PROBE in text and f"'{_PROBE}'}}" not in text:
            return form
    return None


def _unusable(tokenizer: PreTrainedTokenizerBase, role: str) -> IntrospectionError:
    gives = "a text in which the words are missing"
    try:
        _render(tokenizer, _probes(role, "text", _form(tokenizer, "user") or "text"), True)
    except Exception as error:  # noqa: BLE001
        gives = f"an error ({reason(error)})"
    what = {"user": "a plain question", "assistant": "an earlier answer"}.get(role, "a message")
    return IntrospectionError(
        f"The model's chat template cannot be used: with {what} it gives {gives}; mend "
        "chat_template.jinja or take another model."
    )


@lru_cache(maxsize=8)
def _answer_header(tokenizer: PreTrainedTokenizerBase, key: str) -> str:  # noqa: ARG001
    form = _form(tokenizer, "user")
    answered = _form(tokenizer, "assistant")
    if form is None or answered is None:
        return ""
    asked = [_turn("user", _OTHER, form)]
    try:
        plain = _render(tokenizer, asked, False)
        if _render(tokenizer, asked, True) != plain:
            return ""
        whole = _render(tokenizer, [*asked, _turn("assistant", _PROBE, answered)], False)
    except Exception:  # noqa: BLE001
        return ""
    if not whole.startswith(plain):
        return ""
    header, probe, _ = whole[len(plain) :].partition(_PROBE)
    return header if probe and header.strip() else ""


def _render(tokenizer: PreTrainedTokenizerBase, conversation: list[Turn], open_answer: bool) -> str:
    text: str = tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=open_answer
    )
    return text
