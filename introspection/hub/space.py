"""The demo as a Space on the Hugging Face Hub: what of a checkout goes there, and its variables.

Knows: which files a Space needs, what its README must say, how its adapter is pinned. Does not know:
how a commit is made and checked (``hub``), what the Space does once it runs (``demo.space``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from introspection.errors import IntrospectionError
from introspection.hub.cards import check_space_card
from introspection.hub.transfer import check_repo, commit_files, connect, token_to_write
from introspection.io.hub_errors import readable_hub_errors
from introspection.io.input_checks import quoted
from introspection.models import local_paths
from introspection.models.adapters.front_matter import HUB_ID

__all__ = ["push_space"]

# What a Space needs of this repository. Folders are taken with everything visible in them.
SPACE_FILES = ("README.md", "app.py", "requirements.txt", "introspection", "adapters")
_SHA = re.compile(r"[0-9a-f]{40}")


def push_space(
    repo: str,
    tree: Path,
    *,
    model: str,
    adapter: str | None = None,
    revision: str | None = None,
    hardware: str | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Create or update the Space ``repo`` from the checkout ``tree`` and return the commit's sha.

    ``adapter`` is a folder in the tree or a Hub id, which ``revision`` pins to a commit. ``hardware``
    is asked for only if named, since it may cost money.
    """
    check_repo(repo)
    _check_pin(tree, adapter, revision)
    secret = token_to_write(token, repo)
    with readable_hub_errors(repo, secret):
        files = _space_files(tree)
        readme = files["README.md"].read_bytes().decode(errors="replace")
        check_space_card(readme, set(files))
        api = connect(secret)
        sha = commit_files(
            *(api, repo, "space", files, _from_tree, private),
            "Introspection demo",
            space_sdk="gradio",
        )
        _set_variables(api, repo, model, adapter, revision)
        if hardware is not None:
            api.request_space_hardware(repo, hardware)
    return sha


def _check_pin(tree: Path, adapter: str | None, revision: str | None) -> None:
    named = adapter is not None and adapter.casefold() != "none"
    # As the Space will read it: a/b is a path where there is a folder a.
    on_hub = (
        named
        and HUB_ID.fullmatch(str(adapter)) is not None
        and not (tree / str(adapter).partition("/")[0]).is_dir()
    )
    if on_hub and not _SHA.fullmatch(revision or ""):
        raise IntrospectionError(
            f"The Space needs the adapter {adapter} at one commit: give the revision as the sha of "
            "40 letters and digits that a push reports."
        )
    if revision and not on_hub:
        raise IntrospectionError(
            "A revision belongs to an adapter on the Hub: name one or leave the revision out."
        )
    if named and not on_hub and not (tree / str(adapter)).is_dir():
        raise IntrospectionError(
            f"There is no adapter folder {quoted(str(adapter))} in {tree}: name one such as "
            "adapters/smollm2-135m, or one on the Hub such as org/name."
        )


def _from_tree(name: str) -> bool:
    return name.partition("/")[0] in SPACE_FILES


def _space_files(tree: Path) -> dict[str, Path]:
    """What goes into the Space, by its name there: no caches, nothing hidden, no links."""
    from introspection.io.outputs.manifest import FILES

    missing = [name for name in SPACE_FILES[:4] if not (tree / name).exists()]
    if missing:
        raise IntrospectionError(
            f"{tree} has no {missing[0]}: run this in a checkout of the whole repository."
        )
    files = {}
    for name in SPACE_FILES:
        for path in [tree / name, *sorted((tree / name).rglob("*"))]:
            relative = path.relative_to(tree)
            hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
            linked = any((tree / parent).is_symlink() for parent in [relative, *relative.parents])
            foreign = name == "adapters" and (path.name not in FILES or len(relative.parts) != 3)
            if path.is_file() and not (hidden or linked or foreign or path.suffix == ".pyc"):
                files[relative.as_posix()] = path
    _check_adapters({path.parent for name, path in files.items() if name.startswith("adapters/")})
    return files


def _check_adapters(folders: set[Path]) -> None:
    """Older versions wrote down where a model lay; in a Space everybody could read it."""
    for folder in sorted(folders):
        if local_paths.found(folder):
            raise IntrospectionError(
                f"The adapter {folder.name} names a folder of this machine: push it to a repository "
                "of its own, which leaves that out, or train it again."
            )


def _set_variables(
    api: Any, repo: str, model: str, adapter: str | None, revision: str | None
) -> None:
    wanted = {
        "INTROSPECTION_MODEL": model,
        "INTROSPECTION_ADAPTER": adapter,
        "INTROSPECTION_REVISION": revision,
    }
    present = {key: found.value for key, found in api.get_space_variables(repo).items()}
    for key, value in wanted.items():
        if value and present.get(key) != value:  # each change restarts the Space
            api.add_space_variable(repo, key, value)
        elif not value and key in present:
            api.delete_space_variable(repo, key)
