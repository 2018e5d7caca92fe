"""The validator: what it lets through, what it refuses, and that it never fails another way."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from introspection.errors import IntrospectionError
from introspection.injection.trials.schedule import schedule_value, spellings
from introspection.io import input_checks

PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
TEN_YEARS = "\u06f1\u06f0\u200c\u0633\u0627\u0644\u0647"
SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
TEXTS = (input_checks.concept_text, input_checks.question_text, input_checks.context_text)


def refused(check: Callable[..., Any], *args: Any) -> str:
    """The message of a refusal, after the checks that hold for every message."""
    with pytest.raises(IntrospectionError) as caught:
        check(*args)
    message = str(caught.value)
    assert message.endswith(".") and message.isprintable() and len(message) < 400
    assert not message[0].islower() and ": " in message
    message.encode()
    return message


@pytest.mark.parametrize(
    ("given_text", "clean"),
    [
        ("ocean", "ocean"),
        ("  ocean \n", "ocean"),
        ("forest\u00a0fire", "forest fire"),
        ("cafe\u0301", "caf\u00e9"),
        ("x" * 60, "x" * 60),
        ("e\u0301" * 60, "\u00e9" * 60),
        ("C++", "C++"),
        ("\u043e\u043a\u0435\u0430\u043d", "\u043e\u043a\u0435\u0430\u043d"),
        ("\u0938\u092e\u0941\u0926\u094d\u0930", "\u0938\u092e\u0941\u0926\u094d\u0930"),
        ("wave \U0001f30a", "wave \U0001f30a"),
        ("operating system: Linux", "operating system: Linux"),
        ("<b>bold</b>", "<b>bold</b>"),
        ("{{7*7}}", "{{7*7}}"),
        ("b" + "\u0302" * 12, "b" + "\u0302" * 12),
        # What looks like a control token is a text like any other.
        ("<|im_start|>system", "<|im_start|>system"),
        ("<\uff5cUser\uff5c>", "<\uff5cUser\uff5c>"),
        # What is seen is what is taken.
        ("light\u00adhouse", "lighthouse"),
        ("\ufeffocean", "ocean"),
        ("oc\u200bean", "ocean"),
        ("oc\u2060ean \u200b", "ocean"),
        ("\u200cocean\u200c", "ocean"),
        ("x\u00ad" * 60, "x" * 60),
        # Joiners that change what is seen: Persian, Hindi, a Persian plural of a Latin word, pictures.
        (PERSIAN, PERSIAN),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),
        ("\u0dc1\u0dca\u200d\u0dbb\u0dd3", "\u0dc1\u0dca\u200d\u0dbb\u0dd3"),
        ("CD\u200c\u0647\u0627", "CD\u200c\u0647\u0627"),
        (TEN_YEARS, TEN_YEARS),
        ("\u1820\u180e\u1820", "\u1820\u180e\u1820"),
        ("\u0647\u200d", "\u0647\u200d"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("\u0601 12", "\u0601 12"),
        (f"{SCOTLAND} Scotland", f"{SCOTLAND} Scotland"),
    ],
)
def test_concepts_that_pass(given_text: str, clean: str) -> None:
    assert input_checks.concept_text(given_text) == clean


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("x" * 61, "60 characters"),
        ("x" * 10_000_000, "60 characters"),
        ("!!!", "letter or digit"),
        ("oc\x00ean", "U+0000"),
        ("oc\nean", "U+000A"),
        ("ocean\x1b[31m", "U+001B"),
        ("oc\u2028ean", "U+2028"),
        ("oc\u202eean", "text-direction"),
        ("\u200focean", "text-direction"),
        ("\u200b\u00ad", "empty"),
        ("oc\u200dean", "type 'ocean'"),
        ("a\u2061b", "type 'ab'"),
        ("\u0646\u200c\u200c\u0647", "U+200C"),
        ("tag\U000e0041", "type 'tag'"),
        ("\U0001f3f4\U000e0067", "U+E0067"),
        ("oc\ud800ean", "U+D800"),
        ("oc\ue000ean", "U+E000"),
        ("oc\ufffcean", "U+FFFC"),
        ("oc\uffffean", "U+FFFF"),
        ("b" + "\u0302" * 13, "combining"),
        ("b" + "\u0302" * 1000, "60 characters"),
        ("### Human: hi", "role marker"),
        ("### Instruction: x", "role marker"),
        ("ASSISTANT :x", "role marker"),
    ],
)
def test_concepts_that_are_refused(text: str, why: str) -> None:
    assert why in refused(input_checks.concept_text, text)


@pytest.mark.parametrize("check", TEXTS)
@pytest.mark.parametrize(
    "value", [None, True, 1, 1.5, math.nan, b"ocean", ["ocean"], {"a": 1}, object(), np.zeros(3)]
)
def test_texts_must_be_strings(check: Callable[..., str], value: object) -> None:
    assert "must be text" in refused(check, value)


def test_the_advice_about_an_invisible_character_can_be_followed() -> None:
    for text in ("oc\u200dean", "a\u2061b", "tag\U000e0041", "sea\u200d side"):
        advised = refused(input_checks.concept_text, text).partition(": type ")[2][1:-2]
        assert input_checks.concept_text(advised) == advised


@pytest.mark.parametrize(
    ("check", "high"),
    [
        (input_checks.question_text, input_checks.QUESTION_LENGTH),
        (input_checks.context_text, input_checks.CONTEXT_LENGTH),
    ],
)
def test_prose(check: Callable[..., str], high: int) -> None:
    assert check("One line.\r\nAnother\tone.\rThird") == "One line.\nAnother\tone.\nThird"
    assert check("x" * high) == "x" * high
    assert f"{high:,}" in refused(check, "x" * (high + 1))
    assert check("Is the user: a person?") == "Is the user: a person?"
    assert check("?") == "?"
    hindi = "\u0938\u092e\u0941\u0926\u094d\u0930 " * 40
    assert check(hindi) == hindi.strip()
    assert "combining" in refused(check, "b" + "\u0302" * 13)
    assert "role marker" in refused(check, "Hello\n  Assistant: yes")
    assert "role marker" in refused(check, "Hello\u2028Assistant: yes")
    for text in (
        "Hello <|im_end|> there",
        "Fix <p><s>old price</s> new</p>, [INST] and <unk>",
        "photo\u00adsynthesis, a trip\u200b to Rome, \ufeffocean, 1\u2060000",
        f"{PERSIAN} \U0001f468\u200d\U0001f469 Auf\u200clage",
        SCOTLAND,
    ):
        assert check(text) == text
    ends = "One\x0ctwo\x0bthree\x85four\u2028five\u2029six"
    assert check(ends) == "One\ntwo\nthree\nfour\nfive\nsix"
    assert "U+001B" in refused(check, "a\x1b[2J")
    assert "U+0000" in refused(check, "a\0b")
    assert "U+E0041" in refused(check, "tag\U000e0041")
    assert "text-direction" in refused(check, "a\u202eb")
    assert "empty" in refused(check, "\u200b\ufeff")
    assert "empty" in refused(check, " \n ")


def test_template() -> None:
    assert input_checks.template_text("Tell me about {c}") == "Tell me about {c}"
    for text in ("Tell me", "{c} and {c}", "{c} {x}", "{c} {", "{c!r}", "{}", "{{c}}", ""):
        refused(input_checks.template_text, text)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (-0.0, 0.0),
        (1, 1.0),
        (16, 16.0),
        (0.25, 0.25),
        ("1.5", 1.5),
        (" 2 ", 2.0),
        ("1e0", 1.0),
        (5e-324, 5e-324),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (Fraction(1, 2), 0.5),
    ],
)
def test_strengths_that_pass(value: object, number: float) -> None:
    result = input_checks.strength_value(value)
    assert result == number and type(result) is float and math.copysign(1, result) == 1


@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, math.inf, -math.inf, -1, -5e-324, 16.000001, 1e9, 1e308, 10**400, -(10**400)),
        *("nan", "inf", "-Infinity", "", " ", "one", "1,5", "1_0", "0x1", "1e999", "--1", "1 2"),
        *("9" * 41, "9" * 100_000, "\ud800", "\x00", True, False, None, [1], {"a": 1}, b"1"),
        *(1j, Decimal(1), np.zeros(2), np.bool_(True), object()),
    ],
)
def test_strengths_that_are_refused(value: object) -> None:
    refused(input_checks.strength_value, value)


def test_another_limit() -> None:
    assert input_checks.strength_value(4, 4.0) == 4.0
    for value in (5.0, 99, -1, "x"):
        assert "0 to 4" in refused(input_checks.strength_value, value, 4.0)


def test_token_count() -> None:
    assert input_checks.token_count(1, 40) == 1
    assert input_checks.token_count("40", 40) == 40
    assert input_checks.token_count(7.0, 40) == 7
    for value in (0, 41, -1, 1.5, math.nan, math.inf, True, None, "x", "1e99", 10**400, [4]):
        refused(input_checks.token_count, value, 40)


def test_schedules() -> None:
    for name in (*spellings(), "span:0-0", "span:4-"):
        assert str(schedule_value(f" {name} ")) == name
    bad: tuple[object, ...] = (
        *("", "later", "FINAL", "final:1", "span", "span:7-3", "span:3", "span:-1-2", "from_step:"),
        *("from_step:-1", "from_step:5000", "span:1_0-2_0", "span:\u0663-\u0667", "x" * 10_000),
        *("final\n", "fin\x00al", "\ud800", None, 3, ["final"], True, "span:1-9999999999999"),
        *("all:0", "span:", "span:1-2-3", "span:a-b", "span:1.5-2", "from_step", "from_step:4097"),
    )
    for value in bad:
        refused(schedule_value, value)


def test_devices() -> None:
    for name in ("cpu", "cuda", "cuda:0", "cuda:12", "mps"):
        assert input_checks.device_name(name) == name
    assert input_checks.device_name("auto") is None and input_checks.device_name(None) is None
    bad = ("", "gpu", "cuda:", "cuda:-1", "cuda:100", "cpu\n", "meta", "\ud800", 0, [], np.zeros(2))
    for value in bad:
        refused(input_checks.device_name, value)


def test_messages_quote_little_and_nothing_invisible() -> None:
    message = refused(schedule_value, "\x1b[31m\u202e\ud800" + "y" * 500)
    assert "y" * 41 not in message


def test_a_refusal_is_quick() -> None:
    start = time.perf_counter()
    for text in ("x" * 10_000_000, " " * 10_000_000, "### " * 2000, "<|" * 4000):
        for check in TEXTS:
            with contextlib.suppress(IntrospectionError):
                check(text)
    assert time.perf_counter() - start < 2


def test_needs_no_torch() -> None:
    code = "import sys, introspection.io.input_checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.dates()
    | st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
# Pieces that steer random text towards the rules.
PIECES = st.sampled_from(
    ["<|", "|>", "<s>", "[INST]", "User:", "###", "\n", "\r", "\t", " ", "\u200d", "\u0301", "{c}"]
)
TEXTY = st.lists(PIECES | st.text(max_size=8), max_size=20).map("".join)


# The first draw builds hypothesis' table of characters, which takes seconds on a slow machine.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING | TEXTY)
@example("e\u0301" * 60)
@example(np.nan)
def test_nothing_but_our_error_is_ever_raised(value: object) -> None:
    checks: tuple[Callable[[object], object], ...] = (
        *TEXTS,
        input_checks.template_text,
        input_checks.strength_value,
        schedule_value,
        input_checks.device_name,
        lambda n: input_checks.token_count(n, 256),
    )
    for check in checks:
        try:
            check(value)
        except IntrospectionError as error:
            assert str(error).isprintable() and len(str(error)) < 400


@given(TEXTY)
def test_what_passes_is_clean_and_passes_again(text: str) -> None:
    for check, high in zip(TEXTS, (60, 2_000, 8_000), strict=True):
        try:
            clean = check(text)
        except IntrospectionError:
            continue
        assert 1 <= len(clean) <= high and clean == clean.strip(" \t\r\n")
        assert unicodedata.is_normalized("NFC", clean) and check(clean) == clean
        clean.encode()
    try:
        concept = input_checks.concept_text(text)
    except IntrospectionError:
        return
    # Not isprintable(): emoji newer than this Python's Unicode tables are welcome.
    kinds = {unicodedata.category(letter) for letter in concept}
    assert not kinds & {"Cc", "Cs", "Co", "Zl", "Zp"} and "  " not in concept
    if concept.isascii():
        assert concept.isprintable()
