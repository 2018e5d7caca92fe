"""HTML from the templates beside the code (``templates/*.html``), with every value escaped.

A template is named by the folder that has it: ``try_it/stage.html`` is
``tabs/try_it/templates/stage.html``. A line break beside a tag or a ``{{ }}`` belongs to the layout of
the template and is dropped; any other is a space. An undefined name is an error.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

DEMO = Path(__file__).parent.parent
# ``white-space: pre`` would show a line break that only lays out the template.
_LAYOUT = re.compile(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=[<{])|\s*\n\s*\Z")


def _source(name: str) -> str | None:
    folder, _, file = name.partition("/")
    path = next(DEMO.rglob(f"{folder}/templates/{file}"), None)
    if path is None:
        return None
    return re.sub(r"\s*\n\s*", " ", _LAYOUT.sub("", path.read_text(encoding="utf-8")))


@cache
def _environment() -> Environment:
    loader = FunctionLoader(_source)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, auto_reload=False)


def render(template: str, **values: Any) -> Markup:
    """The HTML of a template. ``values`` are escaped, unless they are Markup: HTML made here."""
    return Markup(_environment().get_template(template).render(values))
