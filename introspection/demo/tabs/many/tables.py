"""The tables of many answers, and the links to them as files."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from markupsafe import Markup

from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.shared.templates import render
from introspection.demo.tabs.many.sweeps import as_csv, as_json, outcome, rates


def lines_table(model: DemoModel, answers: Sequence[TrialResult], caption: str) -> Markup:
    """One row per answer: what was injected, what was written, what it amounts to."""
    rows = []
    for answer in answers:
        result = outcome(answer)
        word, tone = "writing…" if answer.text else "waiting…", "plain"
        if result is not None:
            word = result.word
            if answer.line.adapter and model.has_adapter:
                word = f"{'✓' if result.right else '✗'} {word}"
                tone = "good" if result.right else "bad"
        rows.append(
            {
                "label": answer.line.label,
                "strength": f"{answer.line.strength:g}",
                "text": answer.text,
                "outcome": word,
                "tone": tone,
            }
        )
    return render("many/lines.html", caption=caption, rows=rows)


def rates_table(answers: Sequence[TrialResult], caption: str, head: str) -> Markup:
    """One row per dose: how many wordings noticed it and named it, trained and untrained."""
    counts = rates(answers)
    rows = []
    for label in dict.fromkeys(label for label, _ in counts):
        cells = []
        for adapter in (True, False):
            if (label, adapter) in counts:
                named, noticed, n = counts[label, adapter]
                cells += [f"{noticed} of {n}", f"{named} of {n}"] if n else ["…", "…"]
        rows.append((label, cells))
    heads = [head, "Trained: noticed", "named"]
    if any(not adapter for _, adapter in counts):
        heads += ["Untrained: noticed", "named"]
    return render("many/rates.html", caption=caption, heads=heads, rows=rows)


def layers_table(answers: Sequence[TrialResult]) -> Markup | str:
    """For each layer the mean over the answer of what the figure shows token by token; empty while no
    answer has its map."""
    maps = [answer.map for answer in answers if answer.map]
    if not maps:
        return ""
    added = {one.layer for one in maps if one.injected}
    rows = []
    for layer in range(len(maps[0].projections)):
        answered = [one.projections[layer][one.prompt - 1 :] for one in maps]
        mark = " (the vector is added here)" if layer in added else ""
        rows.append((f"{layer}{mark}", [f"{sum(row) / len(row):.2f}" for row in answered]))
    caption = (
        f"Projection on “{answers[0].line.concept.name}” at each layer, "  # type: ignore[union-attr]
        "mean over the answer, in typical residual norms of the layer above a clean answer"
    )
    heads = ("Layer", *(answer.line.label for answer in answers))
    return render("many/layers.html", caption=caption, heads=heads, rows=rows)


def downloads(model: DemoModel, answers: Sequence[TrialResult]) -> Markup:
    """Links that hold the file themselves: nothing is written on the server."""
    return render(
        "many/downloads.html",
        csv=b64encode(as_csv(model, answers).encode()).decode(),
        json=b64encode(as_json(model, answers).encode()).decode(),
    )
