"""The page's own HTML, from plain values. Everything a model or a visitor wrote is escaped here.

Knows: markup and class names of ``style.css``. Does not know: components or events.
"""

from __future__ import annotations

from html import escape

from introspection.demo import wording
from introspection.demo.experiment import CAP, Answer, Answers, Experiment, Request
from introspection.demo.wording import BARE_TITLES, TITLES, Tone

__all__ = ["badges", "halt", "header", "idle", "problem", "stage", "status", "strength_info"]


def header(experiment: Experiment) -> str:
    loaded = experiment.loaded
    notice = ""
    if not experiment.has_adapter:
        notice = f'<p class="notice">{escape(wording.missing_adapter(loaded.name))}</p>'
    adapter = "adapter loaded" if experiment.has_adapter else "no adapter"
    model = loaded.base.rsplit("/", 1)[-1]
    return (
        '<header class="intro"><h1>Can a language model notice its own thoughts?</h1>'
        '<p class="lead">Pick a concept. Its direction is added inside the network while the model '
        "answers; the text of the question never mentions it.<br>A trained adapter should name the "
        "thought, say so when nothing is there, and <strong>halt</strong> when the thought is "
        "harmful.</p>"
        f'<p class="facts">{escape(model)} · injected at block {loaded.layer} · {adapter}</p>'
        f"{notice}</header>"
    )


def status(tone: Tone, text: str, running: bool = False) -> str:
    mark = " running" if running else ""
    return f'<div class="verdict {tone}{mark}" role="status">{escape(text)}</div>'


def idle() -> str:
    return status("plain", "Press a concept to start, or type your own and press Inject.")


def problem(sentence: str) -> str:
    return f'<p class="badges"><span class="badge warn">{escape(sentence)}</span></p>'


def badges(experiment: Experiment, request: Request, typed: str) -> str:
    """One line about the chosen concept, and what is unusual about the strength."""
    concept = request.concept
    seen, why = experiment.seen(concept)
    known = concept.category != "typed"
    parts = [("plain", f"catalogue: {concept.category}" if known else "typed word")]
    parts.append(("plain" if seen else "good", why))
    if request.harmful:
        parts.append(("bad", f"harmful: should halt, answers end at {CAP} tokens"))
    else:
        parts.append(("plain", "harmless" if known else "not known as harmful"))
    if concept.name.casefold() != typed.casefold():
        parts.append(("plain", f"injected as “{concept.name}”"))
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


def strength_info(experiment: Experiment) -> str:
    trained = experiment.trained_range
    shaded = f" Shaded: the trained range, {trained[0]:g} to {trained[1]:g}." if trained else ""
    return f"Length of the added vector in typical residual norms; 0 adds nothing.{shaded}"


def halt(request: Request, answer: Answer) -> str:
    return (
        '<div class="halt" role="alert"><span class="halt-sign" aria-hidden="true"></span>'
        f'<div><p class="halt-word">HALT</p><p>{escape(wording.halt_notice(request, answer))}</p>'
        "</div></div>"
    )


def _marked(answer: Answer) -> str:
    """The answer, escaped, with the name and the halt marker highlighted once it has a verdict."""
    spans: list[tuple[str, int, int]] = []
    for kind, start, end in answer.verdict.evidence if answer.verdict else ():
        if kind in ("name", "halt") and (not spans or start >= spans[-1][2]):
            spans.append((kind, start, end))
    text, at, parts = answer.text, 0, []
    for kind, start, end in spans:
        parts += [
            escape(text[at:start]),
            f'<mark class="found-{kind}">{escape(text[start:end])}</mark>',
        ]
        at = end
    return "".join([*parts, escape(text[at:])])


def _findings(answer: Answer) -> str:
    verdict = answer.verdict
    if verdict is None:
        return ""
    halted = "no"
    if answer.halted:
        halted = f"at token {answer.halted_at}" if answer.halted_at else "yes"
    rows = (
        ("Detected", "yes" if verdict.detected else "no"),
        ("Named", f"“{verdict.named}”" if verdict.named else "–"),
        ("Correct", "yes" if verdict.correct else "no"),
        ("Halted", halted),
    )
    return (
        '<dl class="findings">'
        + "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
        + "</dl>"
    )


def _column(answer: Answer | None, row: str, has_adapter: bool) -> str:
    title, subtitle = (TITLES if has_adapter else BARE_TITLES)[row]
    tone, said = wording.headline(answer) if answer else ("plain", "")
    text = _marked(answer) if answer else ""
    ended = answer is not None and answer.verdict is not None
    caret = "" if ended else '<span class="caret" aria-hidden="true"></span>'
    if ended and not text:
        text = '<span class="quiet">(no text)</span>'
    state = f"card {tone}{' halted' if answer and answer.halted else ''}"
    return (
        f'<article class="{state}" data-row="{row}"><h2>{title}</h2><p class="sub">{subtitle}</p>'
        f'<p class="answer">{text}{caret}</p><p class="said">{escape(said)}</p>'
        f"{_findings(answer) if answer else ''}</article>"
    )


def stage(has_adapter: bool, answers: Answers | None = None) -> str:
    """The three answers side by side."""
    columns = (
        "".join(_column(answer, answer.row, has_adapter) for answer in answers)
        if answers
        else "".join(_column(None, row, has_adapter) for row in TITLES)
    )
    return f'<section class="stage" aria-label="Three answers">{columns}</section>'
