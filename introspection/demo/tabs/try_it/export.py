"""A run as a link, a file or a program, and back again. What comes back is not trusted."""

from __future__ import annotations

import json
import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import MAX_NEW_TOKENS, RowAnswer, RowAnswers, RunRequest
from introspection.errors import IntrospectionError
from introspection.evaluation.grading.grade import grade
from introspection.io.version import __version__

Check = Callable[..., RunRequest]  # concept, strength, question, schedule, tokens, adapter
SCHEMA = 1
LARGEST = 64 * 1024  # bytes of an imported run
DEEPEST = 8  # levels of an imported run; ours has four
LONGEST_QUERY, LONGEST_ANSWER, LONGEST_NAME = 4_000, 4_000, 200
SETTINGS = ("concept", "strength", "question", "schedule", "tokens", "adapter")
ROWS = ("adapter_thought", "base_thought", "adapter_clean")
TRAINED_SCHEDULE = "final_on"
NOT_A_RUN = "paste the JSON that 'Download as JSON' gives"
SPACES = "https://huggingface.co/spaces/"
# They turn the text around them, so that it shows something else than it says.
_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def page_address(request_url: str) -> str:
    """Where others find the page: a Space's own page, or the address that this visitor used."""
    space = os.environ.get("SPACE_ID", "").strip()
    if space:
        return SPACES + quote(space)
    try:
        parts = urlsplit(request_url)
        host = parts.netloc.rpartition("@")[2]  # a password is not for others
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise IntrospectionError("This page has no address to share: open it by http or https.")
    # An event's own address lies below the page's.
    return f"{parts.scheme}://{host}{parts.path.partition('/gradio_api')[0].rstrip('/')}/"


def link(base: str, request: RunRequest) -> str:
    """The page with these settings in its form."""
    query = {"concept": request.concept.name, "strength": repr(request.strength).removesuffix(".0")}
    if request.question != DEFAULT_QUESTION:
        query["question"] = request.question
    query |= {"schedule": str(request.schedule), "tokens": str(request.tokens)}
    if request.adapter:
        query["adapter"] = request.adapter
    return f"{base}?{urlencode(query)}"


def from_query(check: Check, params: Mapping[str, str]) -> RunRequest | None:
    """The settings of a link, None if it has none. Raises IntrospectionError for bad ones."""
    # Where a parser keeps repeated parameters as lists, the last one counts.
    found = {k: v[-1] if isinstance(v, list) and v else v for k, v in params.items()}
    if not any(key in found for key in SETTINGS):
        return None
    if sum(len(str(key)) + len(str(value)) for key, value in params.items()) > LONGEST_QUERY:
        raise IntrospectionError(
            f"The link is longer than {LONGEST_QUERY:,} characters: type the settings instead."
        )
    return check(
        found.get("concept"),
        found.get("strength", 1.0),
        found.get("question", DEFAULT_QUESTION),
        found.get("schedule", TRAINED_SCHEDULE),
        found.get("tokens", MAX_NEW_TOKENS),
        found.get("adapter"),
    )


def _server(base: str) -> str:
    """Where the page's endpoints are; those of a Space are on a host of its own."""
    if not base.startswith(SPACES):
        return base.rstrip("/") + "/"
    space = base.removeprefix(SPACES).strip("/")
    host = os.environ.get("SPACE_HOST", "") if space == os.environ.get("SPACE_ID") else ""
    return f"https://{host or re.sub('[^a-z0-9]+', '-', space.casefold()) + '.hf.space'}/"


def as_python(base: str, request: RunRequest) -> str:
    """The run as a program: the endpoint takes concept, strength, question and adapter."""
    note = (
        f"# /compare runs the schedule {TRAINED_SCHEDULE} and at most {MAX_NEW_TOKENS} answer "
        "tokens.\n"
    )
    usual = str(request.schedule) == TRAINED_SCHEDULE and request.tokens == MAX_NEW_TOKENS
    adapter = f"    adapter={request.adapter!r},\n" if request.adapter else ""
    client = base.removeprefix(SPACES).strip("/") if base.startswith(SPACES) else base
    return (
        "from gradio_client import Client\n\n"
        f"{'' if usual else note}client = Client({client!r})\n"
        "run = client.predict(\n"
        f"    concept={request.concept.name!r},\n"
        f"    strength={request.strength!r},\n"
        f"    question={request.question!r},\n"
        f"{adapter}"
        '    api_name="/compare",\n'
        ")\n"
        'print(run["verdict"])\n'
    )


def as_curl(base: str, request: RunRequest) -> str:
    """The run as two shell commands: ask, then wait for the answer."""
    asked = [request.concept.name, request.strength, request.question]
    data = json.dumps({"data": [*asked, request.adapter] if request.adapter else asked})
    call = shlex.quote(f"{_server(base)}gradio_api/call/compare")
    return (
        f"id=$(curl -s -X POST {call} -H 'Content-Type: application/json' "
        f"--data-raw {shlex.quote(data)} | cut -d'\"' -f4)\n"
        f'curl -sN {call}/"$id"\n'
    )


def _unfit(letter: str) -> bool:
    """What no shared text may hold: control characters, half characters, hidden turns of text."""
    if letter in "\n\t":
        return False
    kind, turn = unicodedata.category(letter), unicodedata.bidirectional(letter)
    return kind in ("Cc", "Cs") or turn in _TURNING


def _clean(text: str) -> str:
    return "".join("\ufffd" if _unfit(letter) else letter for letter in text)


def as_json(experiment: DemoModel, request: RunRequest, answers: RowAnswers) -> str:
    """The run as a file: settings, texts, verdicts, and which weights gave them.

    Always importable: a character that an import refuses, should a model write one, becomes U+FFFD.
    """
    loaded = experiment.chosen(request.adapter).loaded
    record = experiment.record(request, answers)
    for row, answer in zip(record["rows"], answers, strict=True):
        named = row["named"] and _clean(row["named"])
        row |= {"text": _clean(row["text"]), "named": named, "began": answer.began}
    head = {"schema": SCHEMA, "version": __version__, "weights": loaded.fingerprint_with_adapter}
    run = {**head, **record, "tokens": request.tokens}
    return json.dumps(run, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _refused(what: str) -> IntrospectionError:
    return IntrospectionError(f"The run {what}: {NOT_A_RUN}.")


def _take(found: dict[str, Any], key: str, kind: Any, wanted: str) -> Any:
    value = found.get(key)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        raise _refused(f"has no '{key}' that is {wanted}")
    return value


def _count(found: dict[str, Any], key: str, low: int, high: int) -> int | None:
    """A whole number from ``low`` to ``high``, or None where there is none."""
    value = found.get(key)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and low <= value <= high):
        raise _refused(f"has an answer whose '{key}' is not a whole number from {low} to {high}")
    return value


def _shallow(found: object, levels: int = DEEPEST) -> bool:
    inside = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return levels > 0 and all(_shallow(child, levels - 1) for child in inside)


def _loaded(text: object) -> dict[str, Any]:
    """The JSON object in ``text``: small, shallow, of our schema."""
    if not isinstance(text, str) or not text.strip("\ufeff \t\r\n"):
        raise _refused("is not text" if not isinstance(text, str) else "is empty")
    if len(text) > LARGEST or len(text.encode(errors="replace")) > LARGEST:
        raise _refused(f"is larger than {LARGEST // 1024} KiB")
    try:
        found = json.loads(text.lstrip("\ufeff"))
    except ValueError:
        raise _refused("is not JSON") from None
    except RecursionError:
        raise _refused("is nested too deeply") from None
    if not _shallow(found):
        raise _refused("is nested too deeply")
    if not isinstance(found, dict) or _take(found, "schema", int, "a number") != SCHEMA:
        raise _refused(f"is not of schema {SCHEMA}")
    return found


def _answer(request: RunRequest, found: dict[str, Any], most: int, adapter: bool) -> RowAnswer:
    if _take(found, "adapter", bool, "true or false") != adapter:
        raise _refused("mixes up which answers used the adapter")
    text = _take(found, "text", str, "text")
    if any(map(_unfit, text)):
        raise _refused("has an answer with control characters")
    tokens = _count(found, "tokens", 0, most) or 0
    halted_at = _count(found, "halted_at", 1, tokens)
    began = _count(found, "began", 0, len(text))
    text = text[:LONGEST_ANSWER]
    injected = request.strength > 0 and found["row"] != "adapter_clean"
    concept = request.concept if injected else None
    verdict = grade(text, concept)
    halted_at = halted_at if verdict.halted else None
    began = began if injected and request.schedule.starts_mid_answer else None
    return RowAnswer(
        found["row"],
        adapter,
        injected,
        began,
        text=text,
        tokens=tokens,
        halted_at=halted_at,
        verdict=verdict,
    )


def from_json(check: Check, text: object) -> tuple[RunRequest, RowAnswers]:
    """An imported run. Settings pass the usual check, verdicts are worked out anew from the texts.

    Raises IntrospectionError for everything that is no run.
    """
    found = _loaded(text)
    if found.get("adapter_id") is None:  # an older file, or a model without one
        found["adapter_id"] = ""
    for key in ("version", "weights", "model", "adapter_id"):
        name = _take(found, key, str, "text")
        if len(name) > LONGEST_NAME or any(map(_unfit, name)):
            raise _refused(f"has no '{key}' that is a short text")
    request = check(
        _take(found, "concept", str, "text"),
        _take(found, "strength", (int, float), "a number"),
        _take(found, "question", str, "text"),
        _take(found, "schedule", str, "text"),
        _take(found, "tokens", int, "a whole number"),
    )
    trained = _take(found, "adapter_loaded", bool, "true or false")
    rows = _take(found, "rows", list, "a list")
    if [row.get("row") if isinstance(row, dict) else None for row in rows] != [*ROWS]:
        raise _refused("does not have its three answers in order")
    first, second, third = (
        _answer(request, row, found["tokens"], trained and row["row"] != "base_thought")
        for row in rows
    )
    # Nothing is run with it: it may be one that is not on offer here.
    return replace(request, adapter=found["adapter_id"]), (first, second, third)
