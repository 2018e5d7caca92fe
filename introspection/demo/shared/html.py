"""HTML that several tabs have; the templates escape what a model or a visitor wrote."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.shared import templates, verdicts


def header(model: DemoModel) -> Markup:
    """The head of the page: what it is about, which model and adapter answer."""
    loaded = model.loaded
    adapter, where = "no adapter", f"injected at layer {loaded.layer} · "
    if model.offered:
        adapter, where = f"{len(model.offered)} adapters to choose from, under Advanced", ""
    elif model.has_adapter:
        adapter = f"adapter {loaded.adapter_name}" if loaded.adapter_name else "adapter loaded"
    return templates.render(
        "shared/header.html",
        model=loaded.base.rsplit("/", 1)[-1],
        where=where,
        adapter=adapter,
        notice="" if model.has_adapter else verdicts.missing_adapter(loaded.name),
    )


def status(tone: verdicts.Tone, text: str, more: str = "", running: bool = False) -> Markup:
    """The verdict: one sentence, and in a quieter voice what stands beside it."""
    return templates.render("shared/status.html", tone=tone, text=text, more=more, running=running)


def badge_line(badges: Sequence[tuple[str, str]]) -> Markup:
    """Short remarks in a row, as (tone, text)."""
    return templates.render("shared/badges.html", badges=badges)


def problem(sentence: str) -> Markup:
    """One sentence where badges stand otherwise: what is wrong with the form."""
    return badge_line([("warn", sentence)])


def halt(sentence: str) -> Markup:
    """The banner of a halt. It is announced at once to those who cannot see it."""
    return templates.render("shared/halt.html", sentence=sentence)
