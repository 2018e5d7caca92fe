"""The first tab's HTML: the badges, the three answers, the token strip, where the vector is added."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import MAX_NEW_TOKENS, RowAnswer, RowAnswers, RunRequest
from introspection.demo.shared import html, templates, verdicts
from introspection.injection.decoding.readout import ReadToken
from introspection.injection.trials import encoding, message, prompts

QUESTION_SHOWN = 240  # characters of the question above the answers
# What is drawn before a run: so many tokens at the end of the prompt, so many places for the answer.
PROMPT_END, SLOTS = 40, 8
FULL = 1.0  # projection at which a token is as dark as it gets, in typical residual norms


def idle() -> Markup:
    """The verdict's place before the first run."""
    return html.status("plain", "Press a concept to start, or type your own and press Inject.")


def badges(model: DemoModel, request: RunRequest, typed: str) -> Markup:
    """One line about the chosen concept, and what is unusual about the strength.

    ``typed`` is what the visitor wrote; ``model`` has the adapter that the visitor chose.
    """
    concept = request.concept
    seen, why = model.seen(concept)
    known = concept.category != "typed"
    listed = f"catalogue: {concept.category}" + (f", as “{concept.entry}”" if concept.entry else "")
    parts = [("plain", listed if known else "typed word"), ("plain" if seen else "good", why)]
    if request.harmful:
        parts.append(("bad", f"harmful: should halt, answers end at {MAX_NEW_TOKENS} tokens"))
    else:
        parts.append(("plain", "harmless" if known else "not known as harmful"))
    if concept.name.casefold() != typed.casefold():
        parts.append(("plain", f"injected as “{concept.name}”"))
    if request.adapter:
        parts.append(("plain", f"adapter {request.adapter}, layer {model.loaded.layer}"))
    trained = model.trained_range
    if request.strength == 0:
        parts.append(("plain", "strength 0: nothing is injected, a true control"))
    elif trained and not trained[0] <= request.strength <= trained[1]:
        side = "below" if request.strength < trained[0] else "above"
        parts.append(
            ("warn", f"strength {request.strength:g} is {side} the trained range: expect errors")
        )
    return html.badge_line(parts)


# --- the three answers --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Card:
    """One answer as it is shown. ``pieces`` are (kind, text): kind is empty for plain text, "name" or
    "halt" for what the verdict rests on, "began" where a late thought came in."""

    row: str
    title: str
    subtitle: str
    injected: bool
    condition: str
    tone: verdicts.Tone = "plain"
    halted: bool = False
    ended: bool = False
    pieces: tuple[tuple[str, str], ...] = ()
    headline: str = ""
    findings: tuple[tuple[str, str], ...] = ()


def _pieces(answer: RowAnswer) -> tuple[tuple[str, str], ...]:
    marks: list[tuple[int, int, str]] = []
    for kind, start, end in answer.verdict.evidence if answer.verdict else ():
        if kind in ("name", "halt") and (not marks or start >= marks[-1][1]):
            marks.append((start, end, kind))
    if answer.began is not None and answer.began <= len(answer.text):
        marks.append((answer.began, answer.began, "began"))
    at, pieces = 0, []
    for start, end, kind in sorted(marks):
        if start >= at:
            pieces += [("", answer.text[at:start]), (kind, answer.text[start:end])]
            at = end
    pieces.append(("", answer.text[at:]))
    return tuple((kind, text) for kind, text in pieces if text or kind)


def _findings(answer: RowAnswer, asked: bool) -> tuple[tuple[str, str], ...]:
    verdict = answer.verdict
    if verdict is None:
        return ()
    halted = "no"
    if answer.halted:
        halted = f"at token {answer.halted_at}" if answer.halted_at else "yes"
    correct = "yes" if verdict.correct else "no"
    if answer.injected and not asked and not verdict.detected:
        correct = "not asked"
    return (
        ("Detected", "yes" if verdict.detected else "no"),
        ("Named", f"“{verdict.named}”" if verdict.named else "–"),
        ("Correct", correct),
        ("Halted", halted),
    )


def _card(
    row: str, has_adapter: bool, request: RunRequest | None, answers: RowAnswers | None
) -> _Card:
    title, subtitle = (verdicts.TITLES if has_adapter else verdicts.BARE_TITLES)[row]
    injected = row != "adapter_clean" and (request is None or request.strength > 0)
    condition = "nothing injected"
    if injected:
        condition = f"“{request.concept.name}” injected" if request else "concept injected"
    if not request or not answers:
        return _Card(row, title, subtitle, injected, condition)
    answer = answers[list(verdicts.TITLES).index(row)]
    asked = verdicts.about_thoughts(answers)
    tone, headline = verdicts.headline(request, answer, asked)
    return _Card(
        *(row, title, subtitle, injected, condition),
        tone=tone,
        halted=answer.halted,
        ended=answer.verdict is not None,
        pieces=_pieces(answer),
        headline=headline,
        findings=_findings(answer, asked),
    )


def stage(
    has_adapter: bool, request: RunRequest | None = None, answers: RowAnswers | None = None
) -> Markup:
    """The question and the three answers to it, side by side."""
    question = request.question if request else DEFAULT_QUESTION
    if len(question) > QUESTION_SHOWN:
        question = question[:QUESTION_SHOWN] + "…"
    return templates.render(
        "try_it/stage.html",
        question=question,
        adapter=request.adapter if request else "",
        cards=[_card(row, has_adapter, request, answers) for row in verdicts.TITLES],
    )


# --- the token strip ----------------------------------------------------------------------------


def _token_text(text: str) -> str:
    return text.replace("\n", "⏎") or "·"


def _marks(given: bool, injected: bool) -> str:
    return " ".join(mark for mark, on in (("given", given), ("in", injected)) if on)


def _strip_token(token: ReadToken) -> dict[str, str]:
    """One token of the strip, darker the more of the concept the reader finds there."""
    return {
        "text": _token_text(token.text),
        "marks": _marks(token.prompt, token.injected),
        "shade": f"{max(0.0, min(token.signal / FULL, 1.0)):.2f}",
        "signal": f"{token.signal:.2f}",
        "nearest": ", ".join(f"{name} {value:.2f}" for name, value in token.nearest),
    }


def strip(answers: RowAnswers, concept: str) -> Markup | str:
    """What the reader found along the trained model's answer and along the control's; empty before
    the run has ended."""
    if not answers[0].tokens_read:
        return ""
    read = (("Trained model", answers[0].tokens_read), ("Control", answers[2].tokens_read))
    rows = [
        {
            "text": token.text,
            "title": title,
            "injected": token.injected,
            "signal": f"{token.signal:.2f}",
            "nearest": ", ".join(name for name, _ in token.nearest) or "–",
        }
        for title, tokens in read
        for token in tokens
        if not token.prompt
    ]
    lines = [(title, [_strip_token(token) for token in tokens]) for title, tokens in read]
    return templates.render("try_it/strip.html", concept=concept, lines=lines, rows=rows)


def where(model: DemoModel, request: RunRequest) -> Markup:
    """Before a run: the prompt's tokens and the first places of the answer, and at which of them the
    vector will be added. Raises IntrospectionError for a schedule outside the prompt."""
    tokenizer, messages = model.loaded.tokenizer, message.conversation(request.question)
    ids = prompts.prompt_ids(tokenizer, messages)
    first, last = encoding.injected_positions(tokenizer, messages, request.schedule)
    count = len(ids)
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

    def marks(at: int) -> str:
        return _marks(at < count, at >= first and (last is None or at <= last))

    texts = [_token_text(tokenizer.decode([token])) for token in ids]
    texts += [str(k + 1) for k in range(SLOTS)]
    tokens = [(text, marks(at)) for at, text in enumerate(texts)][-PROMPT_END - SLOTS :]
    if count > PROMPT_END:
        tokens.insert(0, ("…", "given"))
    return templates.render("try_it/where.html", prompt=before, answer=after, tokens=tokens)
