"""Tokenization of prompts in which text typed by people is never encoded as control tokens.

Where typed text looks like a control token, a copy of the tokenizer is used in which every such token
is spelled in private-use characters. The frame (what a chat template writes) is spelled that way too;
typed text cannot be. A spelling is as long as the token's name, so character offsets do not change.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from introspection.errors import IntrospectionError

# Some vocabularies do not mark these as special, though they shape a conversation all the same
# (Qwen: <|fim_prefix|>, <tool_call>, <think>). The second bar is DeepSeek's.
_LOOKS = re.compile(
    r"<[|｜][^<>\n]{1,80}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk|mask)>"
    r"|</?(?:think|tool_[a-z]+|[a-z]+_of_[a-z]+)>|<unused_?[0-9]+>",
    re.IGNORECASE,
)
_PRIVATE = 0xF0000  # a plane of private-use characters, which no validated text has
_SPELLED = re.compile("[\U000f0000-\U000fffff]")


@dataclass(frozen=True, slots=True)
class Text:
    """A text to encode. ``spelled`` is the same text with the frame's control tokens in private-use
    characters, None where nothing typed looks like a control token."""

    plain: str
    spelled: str | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, and the characters (start, end) of the plain text that each stands for."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Controls:
    """The control tokens of one tokenizer: a pattern of their names in a frame, one of their folded
    names in typed text, and the first characters of the latter."""

    names: frozenset[str]
    in_frame: re.Pattern[str]
    typed: re.Pattern[str]
    begins: frozenset[str]


def _folded(text: str) -> str:
    """The text without case, accents and invisible characters, as a tokenizer may normalise it."""
    if text.isascii():
        return text.casefold()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf", "Cc", "Co"))


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    # The longest first, as the tokenizer takes them. Without names nothing matches.
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


@lru_cache(maxsize=8)
def _controls(tokenizer: PreTrainedTokenizerBase) -> _Controls:
    named = set(tokenizer.all_special_tokens)
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    names = {
        token.content
        for token in added
        if token.special or token.content in named or _LOOKS.fullmatch(token.content.strip())
    }
    names = {name for name in names if name.strip()}
    typed = {_folded(name).strip() for name in names} - {""}
    return _Controls(
        frozenset(names),
        _any_of([*names]),
        _any_of([*typed]),
        frozenset(name[0] for name in typed),
    )


def looks_special(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether the tokenizer might encode a part of ``text`` as a control token. A false alarm only
    costs time: the ids are the same either way."""
    controls = _controls(tokenizer)
    folded = _folded(text)
    return any(c in folded for c in controls.begins) and bool(controls.typed.search(folded))


def _spelling(name: str) -> str:
    return "".join(chr(_PRIVATE + (ord(letter) & 0xFFFF)) for letter in name)


def by_people(tokenizer: PreTrainedTokenizerBase, text: str) -> Text:
    """A text that people typed, without a frame."""
    return framed(tokenizer, ("", ""), (text,))


def framed(tokenizer: PreTrainedTokenizerBase, frame: Sequence[str], texts: Sequence[str]) -> Text:
    """``frame[0] + texts[0] + frame[1] + ...``, where people typed the ``texts``.

    Raises IntrospectionError for private-use characters beside the name of a control token.
    """

    def joined(parts: Sequence[str]) -> str:
        return parts[0] + "".join(a + b for a, b in zip(texts, parts[1:], strict=True))

    plain = joined(frame)
    if not any(looks_special(tokenizer, text) for text in texts):
        return Text(plain)
    if _SPELLED.search(plain):
        raise IntrospectionError(
            "A text holds private-use characters beside a control token's name: delete them."
        )
    pattern = _controls(tokenizer).in_frame
    return Text(plain, joined([pattern.sub(lambda m: _spelling(m[0]), part) for part in frame]))


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], offsets: bool = True
) -> list[Encoded]:
    """The tokens of every text, without any that a tokenizer adds around a text.

    Without ``offsets`` those of the result are empty, which is faster. Raises IntrospectionError for
    typed text that the tokenizer has only as a control token.
    """
    plain = [text.plain for text in texts if text.spelled is None]
    encoded: list[Encoded] = []
    if plain:
        # In one call: the tokenizer encodes a list on all cores.
        batch = tokenizer(plain, add_special_tokens=False, return_offsets_mapping=offsets)
        places = batch["offset_mapping"] if offsets else [()] * len(plain)
        encoded = [
            Encoded(tuple(ids), tuple(where))
            for ids, where in zip(batch["input_ids"], places, strict=True)
        ]
    ready = iter(encoded)
    return [
        next(ready) if text.spelled is None else _encode_spelled(tokenizer, text.spelled)
        for text in texts
    ]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy of a tokenizer with other names for the control tokens. ``original`` maps the ids of the
    copy that differ to those of the tokenizer; ``controls`` are ids that no typed text may get."""

    tokenizer: Tokenizer
    original: dict[int, int]
    controls: frozenset[int]


@lru_cache(maxsize=4)
def _copy(tokenizer: PreTrainedTokenizerBase) -> _Copy:
    backend = tokenizer.backend_tokenizer
    state, names = json.loads(backend.to_str()), _controls(tokenizer).names
    # A call of the transformers tokenizer neither truncates nor pads.
    state |= {"truncation": None, "padding": None}

    def renamed(name: str) -> str:
        return _spelling(name) if name in names else name

    def survives(spelling: str) -> bool:
        return not backend.normalizer or spelling in backend.normalizer.normalize_str(spelling)

    known = {}
    for token in state["added_tokens"]:
        known[renamed(token["content"])] = token["id"]
        if token["content"] in names:
            token["content"] = renamed(token["content"])
            # Some normalisers drop private-use characters; then the token is matched before them.
            token["normalized"] &= survives(token["content"])
    model = state["model"]
    # A vocabulary may have control tokens as pieces too, into which typed text would be cut.
    pieces = model["vocab"]
    unknown = model.get("unk_token")
    if isinstance(pieces, list):
        unknown = None if model.get("unk_id") is None else pieces[model["unk_id"]][0]
        model["vocab"] = [[renamed(piece), score] for piece, score in pieces]
    else:
        model["vocab"] = {renamed(piece): number for piece, number in pieces.items()}
    if model.get("unk_token"):
        model["unk_token"] = renamed(model["unk_token"])
    if model.get("merges"):
        model["merges"] = [
            merge
            for merge in model["merges"]
            if names.isdisjoint(pair := merge.split(" ") if isinstance(merge, str) else merge)
            and "".join(pair) not in names
        ]
    copy = Tokenizer.from_str(json.dumps(state))
    places = {name: copy.token_to_id(name) for name in known}
    original = {place: known[name] for name, place in places.items() if place is not None}
    # The unknown token stands for anything that has no token, in typed text too.
    controls = {known[_spelling(name)] for name in names if name != unknown}
    return _Copy(copy, original, frozenset(controls))


def _encode_spelled(tokenizer: PreTrainedTokenizerBase, spelled: str) -> Encoded:
    copy = _copy(tokenizer)
    encoding = copy.tokenizer.encode(spelled, add_special_tokens=False)
    ids = tuple(copy.original.get(number, number) for number in encoding.ids)
    for number, (start, end) in zip(ids, encoding.offsets, strict=True):
        if number in copy.controls and not _SPELLED.search(spelled, start, end):
            raise IntrospectionError(
                f"The text contains {spelled[start:end][:40]!r}, which this model's tokenizer has "
                "only as a control token: write it another way."
            )
    return Encoded(ids, tuple(encoding.offsets))
