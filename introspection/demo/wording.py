"""The sentences of the page about a run: one per answer, one for the whole.

Knows: what the three answers mean together. Does not know: HTML.
"""

from __future__ import annotations

from typing import Literal

from introspection.demo.experiment import Answer, Answers, Request

__all__ = [
    "BARE_TITLES",
    "TITLES",
    "Tone",
    "conclusion",
    "halt_notice",
    "headline",
    "missing_adapter",
]

Tone = Literal["good", "bad", "warn", "plain"]

TITLES = {
    "adapter_thought": ("Adapter + thought", "trained model, concept injected"),
    "base_thought": ("Base model + thought", "same injection, adapter switched off"),
    "adapter_clean": ("Adapter, no thought", "trained model, nothing injected"),
}
BARE_TITLES = {
    "adapter_thought": ("Model + thought", "no adapter loaded, concept injected"),
    "base_thought": ("Model + thought", "no adapter loaded, the same once more"),
    "adapter_clean": ("Model, no thought", "no adapter loaded, nothing injected"),
}


def missing_adapter(name: str) -> str:
    return (
        f"No adapter is loaded for {name}, so every answer below comes from the untrained model, "
        "which cannot report injected thoughts and does not halt. Put a trained adapter into "
        f"adapters/{name} (python -m introspection train makes one) or set INTROSPECTION_ADAPTER "
        "to its folder, then start the page again."
    )


def headline(answer: Answer) -> tuple[Tone, str]:
    """What one answer amounts to, once it has ended."""
    verdict = answer.verdict
    if verdict is None:
        return "plain", ""
    end = ", and halted" if answer.halted else ""
    if not answer.injected:
        if answer.adapter:
            tone: Tone = "good" if verdict.correct else "bad"
        else:
            tone = "plain"
        if verdict.correct:
            return tone, "Right: reports nothing"
        return tone, ("False alarm" if verdict.detected else "Halted for nothing")
    if verdict.correct:
        return ("good" if answer.adapter else "plain"), f"Named it{end}"
    if verdict.detected:
        return "warn", ("Wrong name" if verdict.named else "Noticed, not named") + end
    if answer.halted:
        return "warn", "Halted without a report"
    return ("bad" if answer.adapter else "plain"), "Noticed nothing"


def _noticed(answer: Answer, name: str) -> str:
    verdict = answer.verdict
    if verdict is None or not verdict.detected:
        return "did not report a thought"
    if verdict.correct:
        return f"named the injected thought, “{name}”"
    return (
        f"reported a thought but called it “{verdict.named}”"
        if verdict.named
        else "reported a thought without naming it"
    )


def conclusion(request: Request, answers: Answers, has_adapter: bool) -> tuple[Tone, str]:
    """The whole run in one or two sentences."""
    trained, base, clean = answers
    name = request.concept.name
    silent = clean.verdict is not None and clean.verdict.correct
    if not has_adapter:
        return "plain", (
            f"Untrained model: with “{name}” injected it {_noticed(trained, name)}. "
            "Load an adapter to compare."
            if request.strength
            else "Untrained model, strength 0: nothing was injected. Load an adapter to compare."
        )
    control = (
        "with nothing injected it reported nothing."
        if silent
        else "but it reported a thought with nothing injected too: a false alarm."
    )
    if not request.strength:
        return ("good" if silent else "bad"), (
            "Strength 0 adds nothing, and the trained model "
            + (
                "rightly reported nothing."
                if silent
                else "still reported a thought: a false alarm."
            )
        )
    seen = f"The trained model {_noticed(trained, name)}"
    halted = trained.halted
    if halted:
        at = f" after {trained.halted_at} tokens" if trained.halted_at else ""
        seen += f" and halted{at}" + ("" if request.harmful else ", although it is harmless")
    elif request.harmful:
        seen += " and did not halt"
    told = f"The base model {_noticed(base, name)}"
    right = bool(trained.verdict and trained.verdict.correct)
    tone: Tone = "bad"
    if right:
        tone = "good" if silent and halted == request.harmful else "warn"
    return tone, (f"{seen}; {control} {told}." if silent else f"{seen}, {control} {told}.")


def halt_notice(request: Request, answer: Answer) -> str:
    """The sentence under the word HALT."""
    about = "a harmful thought" if request.harmful else "a thought it took for harmful"
    return (
        f"The model met {about} and stopped itself at token {answer.halted_at}: generation of this "
        f"answer ended there, {max(request.tokens - (answer.halted_at or 0), 0)} tokens before its "
        "limit."
    )
