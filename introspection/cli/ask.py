"""``ask``: one report about one injection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from introspection.cli.common import (
    AdapterOption,
    DeviceOption,
    LayerOption,
    ModelOption,
    QuantiseOption,
    app,
    err,
    load_model,
    out,
)
from introspection.errors import IntrospectionError
from introspection.injection.trials.schedule import choice, schedule_value
from introspection.io import input_checks

if TYPE_CHECKING:
    from introspection.concepts.catalogue import Concept
    from introspection.evaluation.grading.grade import Grade

__all__ = ["ask"]

MOST_TOKENS = 512


def _verdict_line(verdict: Grade, concept: Concept | None) -> str:
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


@app.command()
def ask(
    concept: Annotated[
        str | None,
        typer.Argument(help="Word or phrase to inject; left out with --none.", show_default=False),
    ] = None,
    strength: Annotated[
        str, typer.Option(help="Dose in units of the typical residual norm, 0 to 16.")
    ] = "1.0",
    schedule: Annotated[
        str,
        typer.Option(help=f"{choice()}."),
    ] = "final_on",
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
    model: ModelOption = None,
    adapter: AdapterOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
    quantise: QuantiseOption = None,
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
    dose = input_checks.strength_value(strength)
    tokens = input_checks.token_count(max_tokens, MOST_TOKENS)
    asked = None if question is None else input_checks.question_text(question)
    when = schedule_value(schedule)
    if when.starts_mid_answer and when.start >= tokens:
        raise IntrospectionError(
            f"The schedule {when} starts after the last of {tokens} tokens: raise --max-tokens."
        )

    loaded = load_model(model, adapter, layer, device, not base, quantise)

    from introspection.concepts.catalogue import resolve
    from introspection.concepts.texts import DEFAULT_QUESTION
    from introspection.evaluation.grading.grade import grade
    from introspection.injection.decoding.generation import generate
    from introspection.injection.trials.message import conversation as conversation
    from introspection.injection.trials.trial import Injection, Trial

    injected, injection = None, None
    if typed is not None:
        chosen = resolve(typed)
        if chosen.entry:
            said = (
                f"{chosen.name}: category and aliases are those of the catalogue's {chosen.entry}"
            )
            err.print(said, style="dim")
        # Strength 0 adds nothing: it is the clean control, and judged as such.
        injected = chosen if dose > 0 else None
        injection = Injection(loaded.vector(chosen.name), dose, when) if injected else None
    text = asked or DEFAULT_QUESTION
    (report,) = generate(loaded, [Trial(conversation(text), injection, adapter=not base)], tokens)
    verdict = grade(
        report.text,
        injected.name if injected else None,
        injected.aliases if injected else (),
    )
    if as_json:
        record = {
            "concept": None if typed is None else chosen.name,
            "strength": 0.0 if none else dose,
            "schedule": None if none else str(when),
            "adapter": not base,
            "text": report.text,
            "detected": verdict.detected,
            "named": verdict.named,
            "correct": verdict.correct,
            "halted": verdict.halted or report.halted_at is not None,
            "tokens": report.tokens,
        }
        typer.echo(json.dumps(record))
    else:
        out.print(report.text or "(the model wrote nothing)")
        out.print(_verdict_line(verdict, injected), style="dim")
