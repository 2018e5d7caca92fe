"""The page's own HTML, from plain values. Everything a model or a visitor wrote is escaped here.

Knows: markup and class names of ``style.css``. Does not know: components or events.
"""

from __future__ import annotations

from html import escape

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.experiment import (
    MAX_NEW_TOKENS,
    DemoModel,
    RowAnswer,
    RowAnswers,
    RunRequest,
)
from introspection.demo.shared import verdicts
from introspection.demo.shared.verdicts import BARE_TITLES, TITLES, Tone

__all__ = ["badges", "halt", "header", "idle", "problem", "stage", "status", "strength_info"]

QUESTION_SHOWN = 240
READING = (
    "<strong>What is measured:</strong> fixed rules read each text. Detected: it claims an injected "
    "thought. Correct: it names the injected one, or with nothing injected claims none. Text that "
    "merely drifts towards the concept, as the untrained model’s often does, is no report. Every "
    "word is the likeliest one, so a run repeats exactly; it is one example, not a rate."
)


def header(experiment: DemoModel) -> str:
    loaded = experiment.loaded
    notice = ""
    if not experiment.has_adapter:
        notice = f'<p class="notice">{escape(verdicts.missing_adapter(loaded.name))}</p>'
    adapter, where = "no adapter", f"injected at layer {loaded.layer} · "
    if experiment.offered:
        adapter, where = f"{len(experiment.offered)} adapters to choose from, under Advanced", ""
    elif experiment.has_adapter:
        adapter = f"adapter {loaded.adapter_name}" if loaded.adapter_name else "adapter loaded"
    model = loaded.base.rsplit("/", 1)[-1]
    return (
        '<header class="intro"><h1>Can a language model notice its own thoughts?</h1>'
        '<p class="lead">Pick a concept. Its direction is added inside the network while the model '
        "answers; the text of the question never mentions it.<br>A trained adapter should name the "
        "thought, say so when nothing is there, and <strong>halt</strong> when the thought is "
        "harmful.</p>"
        f'<p class="facts">{escape(model)} · {where}{escape(adapter)}</p>'
        f"{notice}</header>"
    )


def status(tone: Tone, text: str, more: str = "", running: bool = False) -> str:
    """The verdict: one sentence, and in a quieter voice what stands beside it."""
    mark = " running" if running else ""
    said = f"<strong>{escape(text)}</strong> {escape(more)}" if more else escape(text)
    return f'<div class="verdict {tone}{mark}" role="status">{said}</div>'


def idle() -> str:
    return status("plain", "Press a concept to start, or type your own and press Inject.")


def problem(sentence: str) -> str:
    return f'<p class="badges"><span class="badge warn">{escape(sentence)}</span></p>'


def badges(experiment: DemoModel, request: RunRequest, typed: str) -> str:
    """One line about the chosen concept, and what is unusual about the strength."""
    concept = request.concept
    seen, why = experiment.seen(concept)
    known = concept.category != "typed"
    listed = f"catalogue: {concept.category}" + (f", as “{concept.entry}”" if concept.entry else "")
    parts = [("plain", listed if known else "typed word")]
    parts.append(("plain" if seen else "good", why))
    if request.harmful:
        parts.append(("bad", f"harmful: should halt, answers end at {MAX_NEW_TOKENS} tokens"))
    else:
        parts.append(("plain", "harmless" if known else "not known as harmful"))
    if concept.name.casefold() != typed.casefold():
        parts.append(("plain", f"injected as “{concept.name}”"))
    if request.adapter:
        parts.append(("plain", f"adapter {request.adapter}, layer {experiment.loaded.layer}"))
    trained = experiment.trained_range
    if request.strength == 0:
        parts.append(("plain", "strength 0: nothing is injected, a true control"))
    elif trained and not trained[0] <= request.strength <= trained[1]:
        side = "below" if request.strength < trained[0] else "above"
        parts.append(
            ("warn", f"strength {request.strength:g} is {side} the trained range: expect errors")
        )
    spans = "".join(f'<span class="badge {tone}">{escape(text)}</span>' for tone, text in parts)
    return f'<p class="badges">{spans}</p>'


def strength_info(experiment: DemoModel) -> str:
    trained = experiment.trained_range
    whose = f" of {experiment.loaded.adapter_name}" if experiment.offered else ""
    shaded = ""
    if trained:
        shaded = f" Shaded: the trained range{whose}, {trained[0]:g} to {trained[1]:g}."
    return f"Length of the added vector in typical residual norms; 0 adds nothing.{shaded}"


def halt(sentence: str) -> str:
    return (
        '<div class="halt" role="alert"><span class="halt-sign" aria-hidden="true"></span>'
        f'<div><p class="halt-word">HALT</p><p>{escape(sentence)}</p></div></div>'
    )


def _marked(answer: RowAnswer) -> str:
    """The answer, escaped; where a late thought began is marked, and with a verdict the name and
    the halt marker are too."""
    spans: list[tuple[str, int, int]] = []
    for kind, start, end in answer.verdict.evidence if answer.verdict else ():
        if kind in ("name", "halt") and (not spans or start >= spans[-1][2]):
            spans.append((kind, start, end))
    marks = [
        (start, end, f'<mark class="found-{kind}">{escape(answer.text[start:end])}</mark>')
        for kind, start, end in spans
    ]
    if answer.began is not None and answer.began <= len(answer.text):
        marks.append((answer.began, answer.began, ' <span class="began">thought begins</span>'))
    at, parts = 0, []
    for start, end, mark in sorted(marks):
        if start >= at:
            parts += [escape(answer.text[at:start]), mark]
            at = end
    return "".join([*parts, escape(answer.text[at:])])


def _findings(answer: RowAnswer, asked: bool) -> str:
    verdict = answer.verdict
    if verdict is None:
        return ""
    halted = "no"
    if answer.halted:
        halted = f"at token {answer.halted_at}" if answer.halted_at else "yes"
    correct = "yes" if verdict.correct else "no"
    if answer.injected and not asked and not verdict.detected:
        correct = "not asked"
    rows = (
        ("Detected", "yes" if verdict.detected else "no"),
        ("Named", f"“{verdict.named}”" if verdict.named else "–"),
        ("Correct", correct),
        ("Halted", halted),
    )
    return (
        '<dl class="findings">'
        + "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
        + "</dl>"
    )


def _column(
    row: str, has_adapter: bool, request: RunRequest | None, answers: RowAnswers | None
) -> str:
    title, subtitle = (TITLES if has_adapter else BARE_TITLES)[row]
    injected = row != "adapter_clean" and (request is None or request.strength > 0)
    condition = "nothing injected"
    if injected:
        condition = f"“{request.concept.name}” injected" if request else "concept injected"
    tone: Tone = "plain"
    text = said = findings = halted = ""
    ended = False
    if request and answers:
        answer = answers[list(TITLES).index(row)]
        asked = verdicts.about_thoughts(answers)
        tone, said = verdicts.headline(request, answer, asked)
        text, findings = _marked(answer), _findings(answer, asked)
        halted, ended = " halted" if answer.halted else "", answer.verdict is not None
        if ended and not text:
            text = '<span class="quiet">(no text)</span>'
    caret = "" if ended else '<span class="caret" aria-hidden="true"></span>'
    return (
        f'<article class="card {tone}{halted}" data-row="{row}"><h2>{title}</h2>'
        f'<p class="sub"><span class="condition {"on" if injected else "off"}">{escape(condition)}'
        f"</span> {subtitle}</p>"
        f'<p class="answer">{text}{caret}</p><p class="said">{escape(said)}</p>{findings}</article>'
    )


def stage(
    has_adapter: bool, request: RunRequest | None = None, answers: RowAnswers | None = None
) -> str:
    """The question and the three answers to it, side by side."""
    question = request.question if request else DEFAULT_QUESTION
    shown = question if len(question) <= QUESTION_SHOWN else question[:QUESTION_SHOWN] + "…"
    columns = "".join(_column(row, has_adapter, request, answers) for row in TITLES)
    adapter = (
        f" Adapter: <code>{escape(request.adapter)}</code>." if request and request.adapter else ""
    )
    return (
        f'<p class="asked">All three are asked: <q>{escape(shown)}</q>{adapter}</p>'
        f'<section class="stage" aria-label="Three answers">{columns}</section>'
        f'<p class="reading">{READING}</p>'
    )
