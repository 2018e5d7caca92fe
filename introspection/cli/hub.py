"""``push`` and ``pull``: adapters and the Space, to and from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from introspection.cli.common import PATH, out
from introspection.errors import IntrospectionError


def push(
    repo: Annotated[str, typer.Argument(help="Repository on the Hub: org/name.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--adapter", help="Adapter folder.", show_default="adapters/smollm2-135m", **PATH
        ),
    ] = None,
    space: Annotated[
        bool, typer.Option("--space", help="Make or update the Space instead, from this checkout.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="With --space: what it runs.", show_default="smollm2-135m")
    ] = None,
    space_adapter: Annotated[
        str | None,
        typer.Option(help="With --space: adapter on the Hub.", show_default="the one that ships"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="With --space-adapter: its commit.", show_default=False)
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(help="With --space: ask for it, such as l40sx1.", show_default="as it is"),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Of a new repository.")] = False,
) -> None:
    """Upload an adapter, or the Space, in one commit; the token comes from HF_TOKEN."""
    from introspection.hub import transfer
    from introspection.hub.space import push_space

    if not space:
        if any((model, space_adapter, revision, hardware)):
            raise IntrospectionError(
                "--model, --space-adapter, --revision and --hardware belong to a Space: add --space "
                "or leave them out."
            )
        sha = transfer.push(folder or Path("adapters/smollm2-135m"), repo, private=private)
        out.print(f"{repo}@{sha}")
        return
    if folder is not None:
        raise IntrospectionError(
            "A Space takes its adapter from the Hub: push the folder first, then name the repository "
            "with --space-adapter and --revision."
        )
    sha = push_space(
        repo,
        Path.cwd(),
        model=model or "smollm2-135m",
        adapter=space_adapter,
        revision=revision,
        hardware=hardware,
        private=private,
    )
    out.print(f"{repo}@{sha}")


def pull(
    repo: Annotated[str, typer.Argument(help="Repository on the Hub: org/name.")],
    revision: Annotated[str, typer.Option(help="Commit, branch or tag.")] = "main",
) -> None:
    """Download an adapter, check every byte of it, and print its folder (for --adapter)."""
    from introspection.hub import transfer

    out.print(str(transfer.pull(repo, revision)))
