"""What a model's own chat template wants: texts or lists of parts, a system message or none.

Knows: how a template is probed by rendering with it. Does not know: what a conversation is about, or
how it becomes tokens (``trials``).

Nothing here is a list of models. A form of content is right if the template writes it out; what is
found is kept for each tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from introspection.errors import IntrospectionError

__all__ = ["opening", "readable_template_errors", "reason", "turns"]

Form = Literal["text", "parts"]
_FORMS: tuple[Form, ...] = ("text", "parts")
_PROBE, _OTHER = "q7xprobe", "w4yother"  # no template says either


def turns(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Any]) -> list[dict[str, Any]]:
    """``messages`` as the chat template takes them.

    Where it takes no system message, that text stands before the first question: such models were
    trained so. Raises IntrospectionError for a template that cannot be used.
    """
    said = [(message.role, message.content) for message in messages]
    if said[1:] and said[0][0] == "system" and _form(tokenizer, "system") is None:
        (_, first), (role, content), *rest = said
        said = [(role, f"{first}\n\n{content}"), *rest]
    return [_turn(role, content, _required(tokenizer, role)) for role, content in said]


def opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands between a question and its answer, where the template leaves it out of the prompt
    (it ignores ``add_generation_prompt``); else empty."""
    return _opening(tokenizer, _key(tokenizer))


@contextmanager
def readable_template_errors() -> Iterator[None]:
    """Whatever a template raises becomes one sentence."""
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
    """The first sentence of an error as it fits into one of ours, in whole words."""
    said = " ".join(str(error).split()).split(". ")[0].rstrip(".: ")
    if len(said) > most:
        said = said[:most].rsplit(" ", 1)[0].rstrip(".,:; ") + " ..."
    return said or type(error).__name__


def _turn(role: str, content: str, form: Form) -> dict[str, Any]:
    parts = [{"type": "text", "text": content}]
    return {"role": role, "content": content if form == "text" else parts}


def _key(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template as it is now: somebody may have set another one."""
    template = tokenizer.chat_template
    return template if isinstance(template, str) else repr(template)


def _required(tokenizer: PreTrainedTokenizerBase, role: str) -> Form:
    form = _form(tokenizer, role)
    if form is not None:
        return form
    what = {"user": "a plain question", "assistant": "an earlier answer"}.get(role, "a message")
    raise IntrospectionError(
        f"The model's chat template cannot be used: with {what} it gives "
        f"{_failure(tokenizer, role, _key(tokenizer))}; mend chat_template.jinja or take another "
        "model."
    )


def _form(tokenizer: PreTrainedTokenizerBase, role: str) -> Form | None:
    return _found_form(tokenizer, role, _key(tokenizer))


def _probes(role: str, form: Form, others: Form) -> list[dict[str, Any]]:
    before = [] if role in ("user", "system") else [_turn("user", _OTHER, others)]
    after = [] if role == "user" else [_turn("user", _OTHER, others)]
    return [*before, _turn(role, _PROBE, form), *after]


@lru_cache(maxsize=64)
def _found_form(tokenizer: PreTrainedTokenizerBase, role: str, key: str) -> Form | None:
    others = "text" if role == "user" else _found_form(tokenizer, "user", key)
    for form in _FORMS if others else ():
        try:
            text = _rendered(tokenizer, _probes(role, form, others or form), True)
        except Exception:  # noqa: BLE001, S112 - templates raise whatever they like
            continue
        # A template that knows texts alone prints a list as Python would.
        if _PROBE in text and f"'{_PROBE}'}}" not in text:
            return form
    return None


@lru_cache(maxsize=64)
def _failure(tokenizer: PreTrainedTokenizerBase, role: str, key: str) -> str:  # noqa: ARG001 - the key is the cache's
    others = _form(tokenizer, "user") or "text"
    try:
        _rendered(tokenizer, _probes(role, "text", others), True)
    except Exception as error:  # noqa: BLE001
        return f"an error ({reason(error)})"
    return "a text in which the words are missing"


@lru_cache(maxsize=8)
def _opening(tokenizer: PreTrainedTokenizerBase, key: str) -> str:  # noqa: ARG001
    form = _form(tokenizer, "user")
    answered = _form(tokenizer, "assistant")
    if form is None or answered is None:
        return ""
    asked = [_turn("user", _OTHER, form)]
    try:
        plain = _rendered(tokenizer, asked, False)
        if _rendered(tokenizer, asked, True) != plain:
            return ""
        whole = _rendered(tokenizer, [*asked, _turn("assistant", _PROBE, answered)], False)
    except Exception:  # noqa: BLE001
        return ""
    if not whole.startswith(plain):
        return ""
    between, found, _ = whole[len(plain) :].partition(_PROBE)
    return between if found and between.strip() else ""


def _rendered(
    tokenizer: PreTrainedTokenizerBase, said: list[dict[str, Any]], open_answer: bool
) -> str:
    text: str = tokenizer.apply_chat_template(
        said, tokenize=False, add_generation_prompt=open_answer
    )
    return text
