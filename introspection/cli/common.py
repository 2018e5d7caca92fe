"""What all commands share: the app and its errors, common options, loading, progress.

Knows: how an error becomes a sentence and an exit code. Does not know: any single command.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

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

__all__ = [
    "PATH",
    "PATH_OR_NAME",
    "AdapterOption",
    "DeviceOption",
    "LayerOption",
    "ModelOption",
    "QuantiseOption",
    "SkipOption",
    "app",
    "err",
    "load_model",
    "one_line",
    "out",
    "own_concepts",
    "own_contexts",
    "progress_bar",
]

Found = TypeVar("Found")

# Reports and messages are printed as they are: no markup, no colours inside, no lines broken to the
# width of a terminal (a script may read them).
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


def _disk(error: OSError) -> str:
    place = quoted(str(error.filename)) if error.filename else "A file"
    return (
        f"{place} could not be written ({error.strerror}): {places.remedy(error, 'name another')}."
    )


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
            err.print(f"error: {one_line(_disk(error))}", style="red")
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
SkipOption = Annotated[
    bool,
    typer.Option("--skip-bad-lines", help="Leave out lines of a file that cannot be used."),
]
QuantiseOption = Annotated[
    Literal["8bit", "4bit"] | None,
    typer.Option("--quantise", help="Of the base model, with bitsandbytes.", show_default="no"),
]


def load_model(
    model: str | None,
    adapter: str | None,
    layer: int | None,
    device: str,
    needs_adapter: bool = False,
    quantise: Literal["8bit", "4bit"] | None = None,
) -> LoadedModel:
    """The model that the common options ask for."""
    where = input_checks.device_name(device)
    from transformers.utils import logging

    from introspection.models import loading

    # What transformers says while it loads is not for the reader of a report.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name = DEFAULT if model is None else model
    folder = "shipped" if adapter is None else None if adapter == "none" else adapter
    bare = folder is None or (folder == "shipped" and bundled_adapter(name) is None)
    if needs_adapter and bare:  # before gigabytes are loaded for nothing
        loading.check_source(name)
        raise IntrospectionError(
            f"No adapter is chosen for {name}: train one with 'python -m introspection train "
            f"--model {name}', point --adapter to its folder, or ask the untrained model with "
            "--base."
        )
    return loading.load(name, folder, layer, where, quantise)


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
    """The concepts of a word list; what was left out is said on standard error."""
    from introspection.concepts import word_lists

    return _told(word_lists.read(path, skip_bad))


def own_contexts(path: Path, skip_bad: bool) -> list[str]:
    """The texts of a context file; what was left out is said on standard error."""
    from introspection.io import text_files

    return _told(text_files.contexts(path, skip_bad))


def _told(read: FromFile[Found]) -> list[Found]:
    if read.bad:
        err.print(one_line(read.left_out()))
    return [*read.found]
