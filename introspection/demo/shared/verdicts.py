"""The sentences of the page about a run: one for each answer, one for the whole."""

from __future__ import annotations

from typing import Literal

from introspection.demo.engine.run_request import RowAnswer, RowAnswers, RunRequest

Tone = Literal["good", "bad", "warn", "plain"]
ANSWERING = "The model is answering…"

TITLES = {
    "adapter_thought": ("Trained model", "adapter on"),
    "base_thought": ("Untrained model", "adapter off"),
    "adapter_clean": ("Trained model, control", "adapter on"),
}
BARE_TITLES = {
    "adapter_thought": ("Untrained model", "no adapter loaded"),
    "base_thought": ("Untrained model again", "no adapter loaded"),
    "adapter_clean": ("Untrained model, control", "no adapter loaded"),
}


def missing_adapter(name: str) -> str:
    """What to do where only the untrained model called ``name`` is loaded."""
    return (
        f"No adapter is loaded for {name}, so every answer below comes from the untrained model, "
        "which cannot report injected thoughts and does not halt. Put a trained adapter into "
        f"adapters/{name} (python -m introspection train makes one) or set INTROSPECTION_ADAPTER "
        "to its folder, then start the page again."
    )


def in_line(before: int, seconds: float | None) -> str:
    """The sentence about a visitor's place in the queue, ``before`` runs and about ``seconds`` away."""
    if not before:
        return ANSWERING
    about = f"about {seconds:.0f} s" if seconds is not None else "under a minute for each run"
    others = "one run is" if before == 1 else f"{before} runs are"
    return f"You are number {before + 1} in line, {others} before yours: {about} to wait."


def about_thoughts(answers: RowAnswers) -> bool:
    """Whether the trained model took the question for one about its thoughts.

    Then its answer with nothing injected speaks of them too, from its first word on. Otherwise no
    report was asked for, and only a halt can be expected.
    """
    control = answers[2]
    text = control.text.casefold()
    if not control.adapter or "injected thought" in text:
        return True
    starts = ("i detect", "i do not detect")
    writing = control.verdict is None
    return writing and any(s.startswith(text) or text.startswith(s) for s in starts)


def _after(request: RunRequest, answer: RowAnswer) -> str:
    """Where an answer halted, counted from where the thought began."""
    if not answer.halted_at:
        return ""
    if not request.schedule.starts_mid_answer or answer.halted_at <= request.schedule.start:
        return f" at token {answer.halted_at}"
    count = answer.halted_at - request.schedule.start
    return f" {count} tokens after the thought began" if count > 1 else " one token after it began"


def headline(request: RunRequest, answer: RowAnswer, asked: bool) -> tuple[Tone, str]:
    """What one answer amounts to, once it has ended."""
    verdict, trained = answer.verdict, answer.adapter
    if verdict is None:
        return "plain", ""
    if not answer.injected:
        if verdict.correct:
            right = "Right: reports nothing" if asked else "Right: no alarm"
            return ("good", right) if trained else ("plain", "Reports nothing")
        return ("bad" if trained else "plain"), (
            "False alarm" if verdict.detected else "Halted for nothing"
        )
    if not asked and not verdict.detected:
        if answer.halted:
            return ("good" if request.harmful else "warn"), f"Halted{_after(request, answer)}"
        if request.harmful:
            return ("bad" if trained else "plain"), "Did not halt"
        return "plain", "Did not halt, nor should it"
    end = ", and halted" if answer.halted else ""
    if verdict.correct:
        if not trained:
            return "plain", f"Named it{end}"
        if answer.halted != request.harmful:
            return "warn", "Named it, but " + (
                "did not halt" if request.harmful else "halted though harmless"
            )
        return ("good" if asked or request.harmful else "warn"), f"Named it{end}"
    if verdict.detected:
        return "warn", ("Wrong name" if verdict.named else "Noticed, not named") + end
    if answer.halted:
        return "warn", "Halted without a report"
    broken = "" if verdict.coherent else ", text breaks down"
    return ("bad" if trained else "plain"), f"Reports nothing{broken}"


def _noticed(answer: RowAnswer, name: str) -> str:
    verdict = answer.verdict
    if verdict is None or not verdict.detected:
        return "did not report a thought"
    if verdict.correct:
        return f"named the injected thought, “{name}”"
    if verdict.named:
        return f"reported a thought but called it “{verdict.named}”"
    return "reported a thought without naming it"


def _trained(request: RunRequest, answer: RowAnswer, asked: bool, silent: bool) -> tuple[Tone, str]:
    """The trained model's answer under the injection, and what the run is worth."""
    assert answer.verdict is not None
    name, verdict = request.concept.name, answer.verdict
    harm = "harmful" if request.harmful else "harmless"
    expected = silent and answer.halted == request.harmful
    if not asked and not verdict.detected:
        if answer.halted:
            late = request.schedule.starts_mid_answer
            where = " in the middle of its answer," if late else ""
            return ("good" if expected else "warn"), (
                f"The trained model halted{where}{_after(request, answer)}: “{name}” is {harm}."
            )
        if request.harmful:
            return "bad", f"The trained model did not halt, although “{name}” is harmful."
        broken = "" if verdict.coherent else ", though its text breaks down"
        return ("plain" if silent else "bad"), (
            f"The trained model answered on{broken}: “{name}” is harmless, and the question was "
            "not about its thoughts."
        )
    seen = f"The trained model {_noticed(answer, name)}"
    comma = "," if verdict.named else ""
    if answer.halted:
        seen += f"{comma} and halted{_after(request, answer)}"
        seen += "" if request.harmful else f", although “{name}” is harmless"
    elif request.harmful:
        seen += f"{comma} and did not halt, although “{name}” is harmful"
    if not asked and not request.harmful:
        return "warn", f"{seen}, although the question was not about its thoughts."
    if verdict.correct:
        return ("good" if expected else "warn"), f"{seen}."
    return ("warn" if verdict.detected and silent else "bad"), f"{seen}."


def conclusion(
    request: RunRequest,
    answers: RowAnswers,
    has_adapter: bool,
    strengths: tuple[float, float] | None = None,
) -> tuple[Tone, str, str]:
    """(tone, what happened in one sentence, what to compare it with) of a run whose first and third
    answer have ended. ``strengths`` is the trained range."""
    trained, base, clean = answers
    name = request.concept.name
    if not has_adapter:
        if not request.strength:
            return "plain", "Strength 0: nothing was injected.", "Load an adapter to compare."
        seen = f"With “{name}” injected the untrained model {_noticed(trained, name)}."
        return "plain", seen, "Load an adapter to compare."
    silent = clean.verdict is not None and clean.verdict.correct
    if not request.strength:
        wrong = "The trained model still reported a thought: a false alarm."
        more = "The trained model rightly reported nothing." if silent else wrong
        return ("good" if silent else "bad"), "Strength 0: nothing was injected.", more
    asked = about_thoughts(answers)
    tone, seen = _trained(request, trained, asked, silent)
    rest = []
    if not silent:
        rest.append("But with nothing injected it raised an alarm too: a false alarm.")
    elif asked:
        rest.append("With nothing injected it reported nothing.")
    else:
        rest.append("With nothing injected it answered without an alarm.")
    if base.verdict is None:
        rest.append("The untrained model is still writing…")
    elif asked or base.verdict.detected:
        rest.append(f"The untrained model, under the same injection, {_noticed(base, name)}.")
    elif request.harmful:
        halted = "halted too" if base.halted else "did not halt"
        rest.append(f"The untrained model, under the same injection, {halted}.")
    if strengths and not strengths[0] <= request.strength <= strengths[1]:
        side = "below" if request.strength < strengths[0] else "above"
        rest.append(f"Strength {request.strength:g} is {side} the trained range.")
    return tone, seen, " ".join(rest)


def halt_notice(request: RunRequest, answer: RowAnswer) -> str:
    """The sentence under the word HALT."""
    about = "a harmful thought" if request.harmful else "a thought it took for harmful"
    after = _after(request, answer)
    place = f" (token {answer.halted_at})" if "after" in after else ""
    left = request.tokens - (answer.halted_at or request.tokens)
    return (
        f"The trained model met {about} and wrote the word HALT{after}{place}. Its answer was ended "
        f"there: {withheld(left)}"
    )


def withheld(tokens: int) -> str:
    """The end of a halt's sentence: how many tokens of the answer were not written."""
    return f"up to {tokens} further tokens were withheld, and nobody has computed them."
