"""``demo`` and ``check``: the page, and what this machine lacks for it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from introspection.cli import common
from introspection.cli.common import LoadOptions, err, one_line, out
from introspection.errors import IntrospectionError

if TYPE_CHECKING:
    from gradio import Blocks


def demo(
    model: common.ModelOption = None,
    adapter: common.AdapterOption = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the page.", show_default="7860")
    ] = None,
    layer: common.LayerOption = None,
    device: common.DeviceOption = "auto",
    quantise: common.QuantiseOption = None,
) -> None:
    """Open the page with the experiment on this machine.

    What ships may fail to load (no network, a full disk): then the page says so and plays recorded
    runs. Whoever asked for another model or adapter is told here.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    loaded, missing = None, ""
    asked = any(option is not None for option in (model, adapter, layer, quantise))
    try:
        loaded = LoadOptions(model, adapter, layer, device, quantise).load()
    except IntrospectionError as error:
        if asked or device != "auto":
            raise
        missing = str(error)
        with suppress(OSError):  # a log on a full disk
            err.print(one_line(missing), style="red")

    from introspection.demo.server.launch import launch, launch_without, run_until_stopped

    def open_page() -> Blocks:
        if loaded is None:
            return launch_without(missing, port=port, block=False)
        return launch(loaded, port=port, block=False)

    try:
        run_until_stopped(open_page)
    except OSError as error:
        raise IntrospectionError(
            f"The page could not be opened ({one_line(str(error))[:120]}): choose another --port."
        ) from error


def check(*, load: LoadOptions) -> None:
    """Say what works on this machine and what does not, line by line."""
    from introspection.demo.engine import diagnostics

    good = True
    for finding in diagnostics.findings(
        lambda chosen: replace(load, adapter=chosen).load(), load.model, load.adapter
    ):
        mark, colour = ("ok", "green") if finding.ok else ("problem", "red")
        out.print(f"{mark:8}{finding.name}: {one_line(finding.detail)}", style=colour)
        good = good and finding.ok
    if not good:
        raise typer.Exit(2)
