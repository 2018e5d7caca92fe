"""``ask``: one report about one injection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from introspection.cli.common import LoadOptions, err, out
from introspection.errors import IntrospectionError
from introspection.injection.trials.schedule import choice, schedule_value
from introspection.io import input_checks

if TYPE_CHECKING:
    from introspection.concepts.catalogue import Concept
    from introspection.evaluation.grading.graded_answer import GradedAnswer

MOST_TOKENS = 512


def _verdict_line(answer: GradedAnswer, concept: Concept | None) -> str:
    verdict = answer.verdict
    assert verdict is not None
    if concept is None:
        if verdict.correct:
            return "right: nothing was injected, and it reports nothing"
        return "false alarm: nothing was injected" + (", but it halted" if verdict.halted else "")
    end = ", and halted" if verdict.halted else ""
    if verdict.correct:
        return f"right: it names the injected thought, {concept.name}{end}"
    if verdict.named:
        return f"wrong name: {concept.name} was injected, it reports {verdict.named}{end}"
    if verdict.detected:
        return f"noticed, not named: {concept.name} was injected{end}"
    return f"missed: {concept.name} was injected{end}"


def ask(
    concept: Annotated[
        str | None,
        typer.Argument(help="Word or phrase to inject; left out with --none.", show_default=False),
    ] = None,
    strength: Annotated[
        str, typer.Option(help="Dose in units of the typical residual norm, 0 to 16.")
    ] = "1.0",
    schedule: Annotated[str, typer.Option(help=f"{choice()}.")] = "final_on",
    question: Annotated[
        str | None,
        typer.Option(help="What is put to the model.", show_default="the usual question"),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Ask the base model, not the adapter.")
    ] = False,
    none: Annotated[
        bool, typer.Option("--none", help="Inject nothing: the clean control.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    max_tokens: Annotated[str, typer.Option(help="Longest report.")] = "40",
    *,
    load: LoadOptions,
) -> None:
    """Inject a concept, ask the model what it notices, print its report and our verdict."""
    if none and concept is not None:
        raise IntrospectionError("With --none nothing is injected: leave the concept out.")
    if not none and concept is None:
        raise IntrospectionError(
            "The concept is missing: name one, such as ocean, or add --none for the clean control."
        )
    # What was typed is checked before the model is loaded.
    typed = None if concept is None else input_checks.concept_text(concept)
    amount = input_checks.strength_value(strength)
    tokens = input_checks.token_count(max_tokens, MOST_TOKENS)
    asked = None if question is None else input_checks.question_text(question)
    when = schedule_value(schedule)
    if when.starts_mid_answer and when.start >= tokens:
        raise IntrospectionError(
            f"The schedule {when} starts after the last of {tokens} tokens: raise --max-tokens."
        )

    loaded = load.load(needs_adapter=not base)

    from introspection.concepts.catalogue import resolve
    from introspection.concepts.texts import DEFAULT_QUESTION
    from introspection.evaluation.grading.graded_answer import grade_answer
    from introspection.injection.decoding.generation import generate
    from introspection.injection.trials.message import conversation
    from introspection.injection.trials.trial import Injection, Trial

    injected, injection = None, None
    if typed is not None:
        chosen = resolve(typed)
        if chosen.entry:
            entry = f"category and aliases are those of the catalogue's {chosen.entry}"
            err.print(f"{chosen.name}: {entry}", style="dim")
        # Strength 0 adds nothing: it is the clean control, and judged as such.
        injected = chosen if amount > 0 else None
        injection = Injection(loaded.vector(chosen.name), amount, when) if injected else None
    text = asked or DEFAULT_QUESTION
    (answer,) = generate(loaded, [Trial(conversation(text), injection, adapter=not base)], tokens)
    graded = grade_answer(answer, injected)
    if as_json:
        record = {
            "concept": None if typed is None else chosen.name,
            "strength": 0.0 if none else amount,
            "schedule": None if none else str(when),
            "adapter": not base,
            **graded.as_json("coherent", "halted_at"),
        }
        typer.echo(json.dumps(record))
    else:
        out.print(answer.text or "(the model wrote nothing)")
        out.print(_verdict_line(graded, injected), style="dim")
