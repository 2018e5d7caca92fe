"""``benchmark``: the speed of this machine."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from introspection.cli.common import DeviceOption, ModelOption
from introspection.errors import IntrospectionError
from introspection.io import input_checks
from introspection.io.characters import quoted


def benchmark(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="extraction, injection or training.", show_default="all three"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, show_default="each one's own")
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Time extraction, injection and training on this machine; append to benchmarks/records."""
    if find_spec("benchmarks") is None:
        raise IntrospectionError(
            "The benchmarks come with a checkout of the project: run this command in its folder."
        )
    known = ("extraction", "injection", "training")
    unknown = sorted(set(what or ()) - set(known))
    if unknown:
        raise IntrospectionError(
            f"There is no benchmark {quoted(unknown[0])}: choose from {', '.join(known)}."
        )
    where = input_checks.device_name(device)
    arguments = ["--device", where] if where else []
    arguments += ["--model", model] if model else []
    arguments += ["--rounds", str(rounds)] if rounds else []
    for each in what or known:
        # Each in a process of its own: fresh memory, and the record tells how to run it again.
        command = [sys.executable, "-m", f"benchmarks.{each}", *arguments]
        if subprocess.run(command, check=False).returncode:
            raise IntrospectionError(f"The benchmark {each} did not end: see what it said above.")
