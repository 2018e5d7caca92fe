"""The command line: ``python -m introspection ask|extract|train|evaluate|demo|check``.

Knows: arguments, what is printed, exit codes. Does not know: how anything is computed. Everything
heavy is imported inside a command, so that ``--help`` answers at once.

Exit codes: 0 done; 2 something the user can mend, said in one sentence on standard error; 130
interrupted. Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from introspection import validation
from introspection.errors import IntrospectionError

if TYPE_CHECKING:
    from introspection.concepts import Concept
    from introspection.grading import Verdict
    from introspection.models import LoadedModel

__all__ = ["app", "main"]

MOST_TOKENS = 512

# Reports and messages are printed as they are: no markup, no colours inside, no lines broken to the
# width of a terminal (a script may read them).
out = Console(markup=False, highlight=False, soft_wrap=True)
err = Console(markup=False, highlight=False, soft_wrap=True, stderr=True)


def _one_line(message: str) -> str:
    """A message as one printable line, whatever somebody typed into it."""
    return "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1]
        for letter in " ".join(message.split())
    )


class _Commands(TyperGroup):
    """The one place where an error becomes a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except IntrospectionError as error:
            err.print(f"error: {_one_line(str(error))}", style="red")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            err.print("Interrupted: every file that exists is complete; run the command again.")
            raise typer.Exit(130) from error


app = typer.Typer(
    name="introspection",
    cls=_Commands,
    help="Put a thought into a language model's residual stream and let the model report it.",
    no_args_is_help=True,
    add_completion=False,
    # Our own errors never get this far; a bug is easier to report from a plain traceback.
    pretty_exceptions_enable=False,
)

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="Preset, Hub id (org/name@revision) or folder.", show_default="smollm2-135m"
    ),
]
AdapterOption = Annotated[
    str | None,
    typer.Option("--adapter", help="Adapter folder, or none.", show_default="the preset's own"),
]
LayerOption = Annotated[
    int | None,
    typer.Option("--layer", help="Block that is read and written.", show_default="the model's own"),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0 or mps.")]


def _load(
    model: str | None,
    adapter: str | None,
    layer: int | None,
    device: str,
    needs_adapter: bool = False,
) -> LoadedModel:
    """The model that the common options ask for."""
    where = validation.device_name(device)
    from transformers.utils import logging

    from introspection import models

    # What transformers says while it loads is not for the reader of a report.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name = models.DEFAULT if model is None else model
    folder = "shipped" if adapter is None else None if adapter == "none" else adapter
    bare = folder is None or (folder == "shipped" and models.shipped_adapter(name) is None)
    # Before gigabytes are loaded for nothing. A name that is no model at all is for load() to say.
    if needs_adapter and bare and (name in models.PRESETS or os.path.isdir(name) or "/" in name):
        raise IntrospectionError(
            f"No adapter is chosen for {name}: train one with 'python -m introspection train "
            f"--model {name}', point --adapter to its folder, or ask the untrained model with "
            "--base."
        )
    return models.load(name, folder, layer, where)


def _verdict_line(verdict: Verdict, concept: Concept | None) -> str:
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
        typer.Option(help="final, final_on, all, prior_turn, span:3-7 or from_step:5."),
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
) -> None:
    """Inject a concept, ask the model what it notices, print its report and our verdict."""
    if none and concept is not None:
        raise IntrospectionError("With --none nothing is injected: leave the concept out.")
    if not none and concept is None:
        raise IntrospectionError(
            "The concept is missing: name one, such as ocean, or add --none for the clean control."
        )
    # What was typed is checked before the model is loaded, and once more with its own tokens.
    typed = None if concept is None else validation.concept_text(concept)
    dose = validation.strength_value(strength)
    tokens = validation.token_count(max_tokens, MOST_TOKENS)
    asked = None if question is None else validation.question_text(question)
    when = validation.schedule_value(schedule)
    if when.kind == "from_step" and when.start >= tokens:
        raise IntrospectionError(
            f"The schedule {when} starts after the last of {tokens} tokens: raise --max-tokens."
        )

    loaded = _load(model, adapter, layer, device, needs_adapter=not base)

    from introspection.concepts import resolve
    from introspection.generation import generate
    from introspection.grading import grade
    from introspection.prompts import DEFAULT_QUESTION
    from introspection.trials import Injection, Trial
    from introspection.trials import ask as conversation

    injected, injection = None, None
    if typed is not None:
        chosen = resolve(validation.concept_text(typed, loaded.tokenizer))
        # Strength 0 adds nothing: it is the clean control, and judged as such.
        injected = chosen if dose > 0 else None
        injection = Injection(loaded.vector(chosen.name), dose, when) if injected else None
    text = validation.question_text(asked or DEFAULT_QUESTION, loaded.tokenizer)
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


@app.command()
def extract(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Words or phrases.", show_default="the paper's concepts"),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Word list: one concept per line.", show_default=False)
    ] = None,
    target: Annotated[Path, typer.Option("--out", help="File to write.")] = Path(
        "vectors.safetensors"
    ),
    site: Annotated[
        Literal["concept", "concept_end", "last"],
        typer.Option(help="Mean of the concept's tokens, its last one, or the prompt's last one."),
    ] = "concept",
    template: Annotated[
        str | None, typer.Option(help="Sentence with {c} in it.", show_default="Tell me about {c}")
    ] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Read concept vectors out of a model and save them."""
    sentence = None if template is None else validation.template_text(template)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise IntrospectionError(
            f"The vectors cannot be written to {target}: name a file in a folder that exists."
        )
    names = _names(words or [], file)
    loaded = _load(model, adapter, layer, device)

    from introspection import extraction

    names = [validation.concept_text(name, loaded.tokenizer) for name in names]
    sentence = validation.template_text(sentence or extraction.TEMPLATES[0], loaded.tokenizer)
    baseline = extraction.baseline_words()
    with _progress() as bar:
        task = bar.add_task("Reading vectors", total=len(names) + len(baseline))
        vectors = extraction.extract(
            loaded, names, sentence, site, baseline, lambda rows: bar.advance(task, rows)
        )
    try:
        extraction.save_vectors(vectors, target)
    except OSError as error:
        raise IntrospectionError(
            f"The vectors could not be written to {target} ({error.strerror}): choose another "
            "--out."
        ) from error
    out.print(", ".join(vectors.names))
    out.print(
        f"{len(names)} vectors of {loaded.name}: block {vectors.layer}, site {vectors.site}, "
        f"typical residual norm {vectors.norm:.4g}, saved to {target}",
        style="dim",
    )


@app.command()
def train(
    target: Annotated[
        Path | None,
        typer.Option("--out", help="Adapter folder.", show_default="adapters/<model>"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of checkpoints.", show_default="runs/<model>-<recipe>"),
    ] = None,
    recipe: Annotated[Literal["ours", "paper"], typer.Option(help="The mix of examples.")] = "ours",
    count: Annotated[
        int | None,
        typer.Option("--examples", min=2, help="Distinct examples.", show_default="the recipe's"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=1000, show_default="the recipe's")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=4096, show_default="the recipe's")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-7, max=0.1, show_default="the recipe's")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Of the adapter.", show_default="the recipe's"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    site: Annotated[
        Literal["concept", "concept_end", "last"], typer.Option(help="Where vectors are read.")
    ] = "concept",
    model: ModelOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train an adapter. Killed at any moment, the same command continues where it stopped."""
    loaded = _load(model, "none", layer, device)

    from dataclasses import replace

    from introspection.build import RECIPES, build_adapter

    config, examples = RECIPES[recipe]
    chosen = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    chosen |= {"rank": rank, "seed": seed}
    config = replace(config, **{k: v for k, v in chosen.items() if v is not None})  # type: ignore[arg-type]
    name = Path(loaded.name).name
    folder = target or Path("adapters") / name
    steps = run or Path("runs") / f"{name}-{recipe}"
    with _progress() as bar:
        task = bar.add_task("Preparing", total=None)
        build_adapter(
            loaded,
            folder,
            steps,
            recipe,
            config,
            count or examples,
            site,
            progress=lambda what, done, total: bar.update(
                task, description=what.capitalize(), completed=done, total=total
            ),
        )
    out.print(f"The adapter is in {folder}; log and checkpoint are in {steps}.", style="dim")


@app.command()
def evaluate(
    suite: Annotated[Literal["quick", "full", "paper"], typer.Option()] = "quick",
    concepts: Annotated[
        Path | None,
        typer.Option(help="Own word list: concept, tab category, tab harmful.", show_default=False),
    ] = None,
    contexts: Annotated[
        Path | None, typer.Option(help="Own clean contexts, one per line.", show_default=False)
    ] = None,
    split: Annotated[
        Literal["test", "validation"], typer.Option(help="Unseen concepts and texts of this split.")
    ] = "test",
    target: Annotated[
        Path | None, typer.Option("--out", help="Folder.", show_default="runs/evaluate-<suite>")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: Annotated[int, typer.Option(min=1, max=4096)] = 32,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure hits, false positives and halts; write records.jsonl and summary.json."""
    from introspection import evaluation, suites

    own = concepts is not None or contexts is not None
    words = _own_concepts(concepts) if concepts else []
    lines = _own_contexts(contexts) if contexts else []
    loaded = _load(model, adapter, layer, device, needs_adapter=True)
    if own:
        cases = suites.custom_cases(words, lines, seed)
    elif suite == "paper":
        cases = suites.paper_cases(seed)
    else:
        cases = suites.suite_cases(suites.SIZES[suite], split, seed)
    name = "own" if own else suite
    folder = target or Path("runs") / f"evaluate-{name}"
    label = f"{name} {split} {seed} {loaded.identity}"
    with _progress() as bar:
        task = bar.add_task("Reports", total=len(cases))
        summary = evaluation.run(
            loaded,
            cases,
            folder,
            label,
            seed,
            batch_size,
            progress=lambda done, _total: bar.update(task, completed=done),
        )
    for line in evaluation.table(summary):
        out.print(line)
    out.print(f"Records and summary are in {folder}.", style="dim")


@app.command()
def report(
    records: Annotated[Path, typer.Option(help="Records of a full evaluation.")] = Path(
        "records/smollm2-135m/full.jsonl.gz"
    ),
    adapter: Annotated[Path, typer.Option(help="Adapter folder that gets the numbers.")] = Path(
        "adapters/smollm2-135m"
    ),
    paper: Annotated[Path, typer.Option(help="Records of the paper's experiment.")] = Path(
        "records/paper/smollm2-135m.jsonl.gz"
    ),
    readme: Annotated[Path | None, typer.Option(help="Document with generated tables.")] = None,
) -> None:
    """Write evaluation.json, the adapter's card and the tables of a document from records."""
    from introspection import report as reporting
    from introspection.cache import write_text
    from introspection.evaluation import summarise

    evaluation = reporting.write_evaluation(
        reporting.read_records(records), records.as_posix(), adapter
    )
    reporting.write_card(evaluation, adapter)
    if readme is not None:
        results = (
            f"{reporting.headline(evaluation)}\n\n(`python -m introspection report --records "
            f"{records.as_posix()} --readme {readme.name}` writes this table.)"
        )
        text = reporting.replace_block(readme.read_text(encoding="utf-8"), "results", results)
        table = reporting.paper_table(summarise(reporting.read_records(paper)))
        write_text(readme, reporting.replace_block(text, "paper", table))
    out.print(reporting.headline(evaluation))


def _lines(path: Path, what: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise IntrospectionError(
            f"The {what} {path} cannot be read ({type(error).__name__}): name a UTF-8 text file "
            "with one entry per line."
        ) from error


def _own_concepts(path: Path) -> list[Concept]:
    """A word list, checked as typed: the lemma that becomes the name has lost its brackets."""
    from introspection.concepts import read_concept_file

    lines = _lines(path, "word list")
    for line in filter(str.strip, lines):
        validation.concept_text(line.split("\t")[0])
    return read_concept_file(lines)


def _own_contexts(path: Path) -> list[str]:
    found = [validation.context_text(line) for line in _lines(path, "context file") if line.strip()]
    if not found:
        raise IntrospectionError(f"The context file {path} is empty: write one context per line.")
    return list(dict.fromkeys(found))


def _names(words: list[str], file: Path | None) -> list[str]:
    """The words and the file's concepts, checked and without repeats; else the paper's."""
    from introspection.concepts import paper

    names = [validation.concept_text(word) for word in words]
    if file is not None:
        names += [concept.name for concept in _own_concepts(file)]
    if not words and file is None:
        names = [*paper().train, *paper().test]
    return list(dict.fromkeys(names))


def _progress() -> Progress:
    """A bar on standard error that leaves nothing behind."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


@app.command()
def demo(
    model: ModelOption = None,
    adapter: AdapterOption = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the page.", show_default="7860")
    ] = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Open the page with the experiment on this machine."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    loaded = _load(model, adapter, layer, device)

    from introspection.demo import launch

    try:
        launch(loaded, port=port)
    except OSError as error:
        raise IntrospectionError(
            f"The page could not be opened ({_one_line(str(error))[:120]}): choose another --port."
        ) from error


@app.command()
def check(
    model: ModelOption = None,
    adapter: AdapterOption = None,
    layer: LayerOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say what works on this machine and what does not, line by line."""
    from introspection import checks

    good = True
    for finding in checks.findings(
        lambda chosen: _load(model, chosen, layer, device), model, adapter
    ):
        mark, colour = ("ok", "green") if finding.ok else ("problem", "red")
        out.print(f"{mark:8}{finding.name}: {_one_line(finding.detail)}", style=colour)
        good = good and finding.ok
    if not good:
        raise typer.Exit(2)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A report may hold letters that an old terminal cannot show.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
