"""HTML from templates: values are escaped, layout is dropped, nothing is left out in silence."""

from __future__ import annotations

import pytest
from jinja2 import TemplateNotFound, UndefinedError
from markupsafe import Markup

from introspection.demo.shared import templates
from introspection.demo.shared.html import halt, status
from introspection.demo.shared.templates import render

ATTACK = "<img src=x onerror=alert(1)>\"'&"


def test_render_escapes_text_and_keeps_markup() -> None:
    shown = halt(ATTACK)
    assert "<img" not in shown and "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;" in shown
    assert "<b>bold</b>" in halt(Markup("<b>bold</b>"))
    assert "<img" not in status("plain", ATTACK, ATTACK)


def test_render_drops_the_line_breaks_of_the_layout() -> None:
    """The answers are shown with ``white-space: pre-wrap``, which would show them."""
    assert status("good", "It is.", "And more.") == (
        '<div class="verdict good" role="status"><strong>It is.</strong> And more.</div>'
    )
    for template in templates.DEMO.rglob("templates/*.html"):
        source = templates._source(f"{template.parent.parent.name}/{template.name}")
        assert source and "\n" not in source


def test_render_keeps_the_line_breaks_of_a_value() -> None:
    assert "one\ntwo" in status("plain", "one\ntwo")


def test_render_refuses_a_missing_value() -> None:
    with pytest.raises(UndefinedError, match="sentence"):
        render("shared/halt.html")
    with pytest.raises(TemplateNotFound):
        render("shared/nothing.html")
