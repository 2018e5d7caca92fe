"""What all commands share: the app and its errors, common options, loading, progress."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from introspection.errors import IntrospectionError
from introspection.io import input_checks
from introspection.io.characters import quoted
from introspection.io.outputs import places
from introspection.models.presets import DEFAULT, bundled_adapter

if TYPE_CHECKING:
    from introspection.concepts.catalogue import Concept
    from introspection.io.text_files import FromFile
    from introspection.models.loaded_model import LoadedModel

Found = TypeVar("Found")

# A script may read what is printed: no markup, no colours inside, no lines broken to a width.
# Of several processes (accelerate launch) the first one speaks; errors come from any.
_QUIET = os.environ.get("RANK", "0") != "0"
out = Console(markup=False, highlight=False, soft_wrap=True, quiet=_QUIET)
err = Console(markup=False, highlight=False, soft_wrap=True, stderr=True)


def one_line(message: str) -> str:
    """A message as one printable line, whatever somebody typed into it."""
    return "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1]
        for letter in " ".join(message.split())
    )


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


class _Commands(TyperGroup):
    """The one place where an error becomes a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except IntrospectionError as error:
            err.print(f"error: {one_line(str(error))}", style="red")
            raise typer.Exit(2) from error
        except OSError as error:
            # Anywhere, be it the terminal's log: nothing that a program could mend.
            if error.errno not in _DISK:
                raise
            place = quoted(str(error.filename)) if error.filename else "A file"
            remedy = places.remedy(error, "name another")
            told = one_line(f"{place} could not be written ({error.strerror}): {remedy}.")
            err.print(f"error: {told}", style="red")
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


# For every option that takes a path; the metavar is what help shows.
PATH: dict[str, Any] = {"parser": places.own_path, "metavar": "PATH"}
PATH_OR_NAME: dict[str, Any] = {"parser": places.home_expanded, "metavar": "TEXT"}

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Preset, Hub id (org/name@revision) or folder.",
        show_default="smollm2-135m",
        **PATH_OR_NAME,
    ),
]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        help="Adapter folder, or none.",
        show_default="the preset's own",
        **PATH_OR_NAME,
    ),
]
LayerOption = Annotated[
    int | None,
    typer.Option("--layer", help="Layer that is read and written.", show_default="the model's own"),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:0, mps, or split over all GPUs.")
]
QuantiseOption = Annotated[
    Literal["8bit", "4bit"] | None,
    typer.Option("--quantise", help="Of the base model, with bitsandbytes.", show_default="no"),
]
SkipOption = Annotated[
    bool, typer.Option("--skip-bad-lines", help="Leave out lines of a file that cannot be used.")
]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Which model a command loads, and where: five options that several commands share."""

    model: ModelOption = None
    adapter: AdapterOption = None
    layer: LayerOption = None
    device: DeviceOption = "auto"
    quantise: QuantiseOption = None

    def load(self, needs_adapter: bool = False) -> LoadedModel:
        """The model with its adapter. Raises IntrospectionError for what cannot be loaded, and with
        ``needs_adapter`` if there is no adapter."""
        where = input_checks.device_name(self.device)
        from transformers.utils import logging

        from introspection.models import loading

        # What transformers says while it loads is not for the reader of a report.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        name = DEFAULT if self.model is None else self.model
        folder = {None: "shipped", "none": None}.get(self.adapter, self.adapter)
        bare = folder is None or (folder == "shipped" and bundled_adapter(name) is None)
        if needs_adapter and bare:  # before gigabytes are loaded for nothing
            loading.check_source(name)
            raise IntrospectionError(
                f"No adapter is chosen for {name}: train one with 'python -m introspection train "
                f"--model {name}', point --adapter to its folder, or ask the untrained model with "
                "--base."
            )
        return loading.load(name, folder, self.layer, where, self.quantise)


def _annotated(source: Callable[..., Any], hints: dict[str, Any]) -> list[Parameter]:
    """The parameters of a function or class with their types, which typer reads options from."""
    return [
        each.replace(annotation=hints[each.name], kind=Parameter.KEYWORD_ONLY)
        for each in signature(source).parameters.values()
    ]


def add_command(command: Callable[..., None]) -> None:
    """Add a command to the app, under the function's name. A parameter ``load`` of type
    :class:`LoadOptions` becomes the five options."""
    hints = get_type_hints(command, include_extras=True)
    shared = _annotated(LoadOptions, get_type_hints(LoadOptions, include_extras=True))
    parameters = []
    for each in _annotated(command, hints):
        parameters += shared if each.name == "load" else [each]

    @wraps(command)
    def run(**values: Any) -> None:
        if "load" in hints:
            values["load"] = LoadOptions(**{each.name: values.pop(each.name) for each in shared})
        command(**values)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    app.command()(run)


def progress_bar() -> Progress:
    """A bar on standard error that leaves nothing behind."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=_QUIET or not err.is_terminal,
    )


def own_concepts(path: Path, skip_bad: bool) -> list[Concept]:
    """The concepts of a word list; lines that were left out are reported on standard error."""
    from introspection.concepts import word_lists

    return _report_left_out(word_lists.read(path, skip_bad))


def own_contexts(path: Path, skip_bad: bool) -> list[str]:
    """The texts of a context file; lines that were left out are reported on standard error."""
    from introspection.io import text_files

    return _report_left_out(text_files.contexts(path, skip_bad))


def _report_left_out(read: FromFile[Found]) -> list[Found]:
    if read.bad:
        err.print(one_line(read.left_out()))
    return [*read.found]
