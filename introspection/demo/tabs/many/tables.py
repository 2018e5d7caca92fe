"""Tables and the token strip as HTML. Everything a model or a visitor wrote is escaped here.

Knows: markup and class names of ``style.css``. Does not know: components or events.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from introspection.demo.engine.experiment import DemoModel, RowAnswers, RunRequest
from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.tabs.many.sweeps import as_csv, as_json, outcome, rates
from introspection.injection.decoding.readout import ReadToken
from introspection.injection.trials.encoding import injected_positions
from introspection.injection.trials.message import conversation
from introspection.injection.trials.prompts import prompt_ids

__all__ = ["blocks_table", "downloads", "lines_table", "rates_table", "strip", "where"]

# What is drawn before a run: so many tokens at the end of the prompt, so many places for the answer.
PROMPT_END, SLOTS = 40, 8

FULL = 1.0  # projection at which a token is as dark as it gets, in typical residual norms


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="lines"><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def lines_table(experiment: DemoModel, answers: Sequence[TrialResult], caption: str) -> str:
    """One row per line: what was done, what was written, what it amounts to."""
    rows = []
    for answer in answers:
        result = outcome(answer)
        word = "writing…" if answer.text else "waiting…"
        tone = "plain"
        if result is not None:
            word = f"{'✓' if result.right else '✗'} {result.word}"
            tone = "good" if result.right else "bad"
            if not (answer.line.adapter and experiment.has_adapter):
                word, tone = result.word, "plain"
        rows.append(
            f'<tr><th scope="row">{escape(answer.line.label)}</th>'
            f"<td>{answer.line.strength:g}</td>"
            f'<td class="told">{escape(answer.text) or "–"}</td>'
            f'<td><span class="badge {tone}">{escape(word)}</span></td></tr>'
        )
    return _table(caption, ("What is injected", "Strength", "Report", "Outcome"), rows)


def rates_table(answers: Sequence[TrialResult], caption: str, head: str) -> str:
    """One row per dose: how many wordings noticed it and named it, trained and untrained."""
    found = rates(answers)
    rows = []
    for label in dict.fromkeys(label for label, _ in found):
        cells = []
        for adapter in (True, False):
            if (label, adapter) in found:
                named, noticed, n = found[label, adapter]
                cells += [f"{noticed} of {n}", f"{named} of {n}"] if n else ["…", "…"]
        tds = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{tds}</tr>')
    heads = [head, "Trained: noticed", "named"]
    if any(not adapter for _, adapter in found):
        heads += ["Untrained: noticed", "named"]
    return _table(caption, heads, rows)


def blocks_table(answers: Sequence[TrialResult]) -> str:
    """For each layer the mean over the answer of what the figure shows token by token."""
    maps = [answer.map for answer in answers if answer.map]
    if not maps:
        return ""
    added = {one.layer for one in maps if one.injected}
    rows = []
    for layer in range(len(maps[0].projections)):
        cells = ""
        for one in maps:
            written = one.projections[layer][one.prompt - 1 :]
            cells += f'<td class="number">{sum(written) / len(written):.2f}</td>'
        mark = " (the vector is added here)" if layer in added else ""
        rows.append(f'<tr><th scope="row">{layer}{mark}</th>{cells}</tr>')
    caption = (
        f"Projection on “{answers[0].line.concept.name}” at each layer, "  # type: ignore[union-attr]
        "mean over the answer, in typical residual norms of the layer above a clean answer"
    )
    return (
        '<details class="layers"><summary>The mean of each layer as a table (every token: in the '
        "JSON)</summary>"
        f"{_table(caption, ('Layer', *(a.line.label for a in answers)), rows)}</details>"
    )


def downloads(experiment: DemoModel, answers: Sequence[TrialResult]) -> str:
    """Links that hold the file themselves: nothing is written on the server."""

    def link(text: str, kind: str, name: str, label: str) -> str:
        data = b64encode(text.encode()).decode()
        return f'<a class="file" download="{name}" href="data:{kind};base64,{data}">{label}</a>'

    return (
        '<p class="files">'
        + link(as_csv(experiment, answers), "text/csv", "introspection.csv", "Download CSV")
        + link(as_json(experiment, answers), "application/json", "introspection.json", "JSON")
        + "</p>"
    )


def _cell(token: ReadToken) -> str:
    """One token of the strip, darker the more of the concept the reader finds there."""
    share = max(0.0, min(token.signal / FULL, 1.0))
    near = ", ".join(f"{name} {value:.2f}" for name, value in token.nearest)
    marks = " ".join(mark for mark, on in (("given", token.prompt), ("in", token.injected)) if on)
    shown = escape(token.text.replace("\n", "⏎")) or "·"
    return (
        f'<span class="tok {marks}" style="--s:{share:.2f}" '
        f'title="{token.signal:.2f} · nearest: {escape(near)}">{shown}</span>'
    )


def strip(answers: RowAnswers, concept: str) -> str:
    """What the reader found along the trained model's answer and along the control's."""
    if not answers[0].tokens_read:
        return ""
    lines, rows = [], []
    for title, answer in (("Trained model", answers[0]), ("Control", answers[2])):
        cells = "".join(_cell(token) for token in answer.tokens_read)
        lines.append(f'<h3>{title}</h3><p class="strip" aria-hidden="true">{cells}</p>')
        for token in answer.tokens_read:
            if not token.prompt:
                near = ", ".join(name for name, _ in token.nearest) or "–"
                rows.append(
                    f'<tr><th scope="row">{escape(token.text)}</th><td>{title}</td>'
                    f"<td>{'yes' if token.injected else 'no'}</td><td>{token.signal:.2f}</td>"
                    f"<td>{escape(near)}</td></tr>"
                )
    heads = ("Token", "Answer", "Vector added", "Projection", "Nearest known concepts")
    caption = f"Projection of the residual stream on “{concept}”, token by token"
    return (
        '<p class="reading">A plain reader at the same layer, beside the self-report: the darker a '
        f"token, the more of “{escape(concept)}” it finds there (in typical residual norms above "
        "the clean answer; every layer: under “Many at once”). Dashed: the prompt. Underlined: the "
        "vector is added there, so the reader must see it, in the untrained model too; whether the "
        "model can <em>say</em> it is another matter.</p>"
        f"{''.join(lines)}<details><summary>The same as a table</summary>"
        f"{_table(caption, heads, rows)}</details>"
    )


def where(experiment: DemoModel, request: RunRequest) -> str:
    """Before a run: the prompt's tokens and the first places of the answer, and at which of them the
    vector will be added."""
    tokenizer, messages = experiment.loaded.tokenizer, conversation(request.question)
    ids = prompt_ids(tokenizer, messages)
    first, last = injected_positions(tokenizer, messages, request.schedule)
    count = len(ids)

    def cell(text: str, at: int, given: bool) -> str:
        inside = at >= first and (last is None or at <= last)
        marks = " ".join(mark for mark, on in (("given", given), ("in", inside)) if on)
        return f'<span class="tok {marks}" style="--s:0">{escape(text)}</span>'

    texts = [tokenizer.decode([token]).replace("\n", "⏎") or "·" for token in ids]
    cells = [cell(text, at, True) for at, text in enumerate(texts)][-PROMPT_END:]
    if count > PROMPT_END:
        cells.insert(0, '<span class="tok given" style="--s:0">…</span>')
    cells += [cell(str(k + 1), count + k, False) for k in range(SLOTS)]
    prompt = max(0, (count if last is None else min(last + 1, count)) - first)
    parts = {0: "no prompt token", 1: "one prompt token", count: f"all {count} prompt tokens"}
    before = parts.get(prompt, f"{prompt} prompt tokens")
    if first == count - 1:
        before = "the last prompt token"
    after = "no answer token"
    if last is None:
        after = "every answer token"
        if first >= count:
            after += f" from number {first - count + 1} on"
    return (
        f'<p class="reading">The vector will be added at {before} and {after} (underlined; dashed: '
        "the prompt; numbered: the answer to come).</p>"
        f'<p class="strip" aria-hidden="true">{"".join(cells)}<span class="tok" '
        'style="--s:0">…</span></p>'
    )
