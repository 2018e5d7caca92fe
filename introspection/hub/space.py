"""Create or update the Space of the demo: which files of a checkout it needs, and its variables."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi

from introspection.errors import IntrospectionError
from introspection.hub.cards import check_space_readme
from introspection.hub.client import check_repo, commit_files, connect, write_token
from introspection.io.characters import quoted
from introspection.io.hub_errors import readable_hub_errors
from introspection.io.hub_ids import is_hub_id
from introspection.io.outputs.manifest import FILES
from introspection.models import local_paths

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

    ``adapter`` is a folder in the tree or a Hub id, which ``revision`` pins to a commit (40 hex
    digits). ``hardware`` is requested only if named, since it may cost money. Raises
    IntrospectionError if the Space could not start or the Hub refuses.
    """
    check_repo(repo)
    _check_pin(tree, adapter, revision)
    secret = write_token(token, repo)
    with readable_hub_errors(repo, secret):
        names = _space_files(tree)
        readme = (tree / "README.md").read_bytes().decode(errors="replace")
        check_space_readme(readme, names)
        api = connect(secret)
        options = {"message": "Introspection demo", "space_sdk": "gradio"}
        sha = commit_files(api, repo, "space", tree, names, _is_ours, private=private, **options)
        _set_variables(api, repo, model, adapter, revision)
        if hardware is not None:
            api.request_space_hardware(repo, hardware)
    return sha


def _check_pin(tree: Path, adapter: str | None, revision: str | None) -> None:
    """Raise IntrospectionError unless ``adapter`` is in ``tree``, or on the Hub at a commit."""
    named = adapter is not None and adapter.casefold() != "none"
    # As the Space will read it: a/b is a path where there is a folder a.
    on_hub = (
        named and is_hub_id(str(adapter)) and not (tree / str(adapter).partition("/")[0]).is_dir()
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


def _is_ours(name: str) -> bool:
    """Whether a file of a Space comes from a checkout and may be deleted there."""
    return name.partition("/")[0] in SPACE_FILES


def _space_files(tree: Path) -> set[str]:
    """The names of the Space's files in ``tree``: no caches, nothing hidden, no symbolic links."""
    missing = [name for name in SPACE_FILES[:4] if not (tree / name).exists()]
    if missing:
        raise IntrospectionError(
            f"{tree} has no {missing[0]}: run this in a checkout of the whole repository."
        )
    names = set()
    for name in SPACE_FILES:
        for path in [tree / name, *sorted((tree / name).rglob("*"))]:
            relative = path.relative_to(tree)
            hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
            linked = any((tree / parent).is_symlink() for parent in [relative, *relative.parents])
            foreign = name == "adapters" and (path.name not in FILES or len(relative.parts) != 3)
            if path.is_file() and not (hidden or linked or foreign or path.suffix == ".pyc"):
                names.add(relative.as_posix())
    # Older versions of the program wrote local paths: in a Space everybody could read them.
    for folder in sorted({(tree / name).parent for name in names if name.startswith("adapters/")}):
        if local_paths.find_paths(folder):
            raise IntrospectionError(
                f"The adapter {folder.name} names a folder of this machine: push it to a repository "
                "of its own, which leaves that out, or train it again."
            )
    return names


def _set_variables(
    api: HfApi, repo: str, model: str, adapter: str | None, revision: str | None
) -> None:
    """Set the variables that the demo reads at its start, and delete those that do not apply."""
    wanted = {
        "INTROSPECTION_MODEL": model,
        "INTROSPECTION_ADAPTER": adapter,
        "INTROSPECTION_REVISION": revision,
    }
    present = {key: variable.value for key, variable in api.get_space_variables(repo).items()}
    for key, value in wanted.items():
        if value and present.get(key) != value:  # each change restarts the Space
            api.add_space_variable(repo, key, value)
        elif not value and key in present:
            api.delete_space_variable(repo, key)
