"""What an adapter folder is that this program did not write, in one sentence."""

from __future__ import annotations

from pathlib import Path

from introspection.errors import IntrospectionError
from introspection.io.hub_ids import split_hub_id
from introspection.models.weights.model_files import shown

TRAIN = "train one with 'python -m introspection train'"
_PICKLES = {".bin", ".pt", ".pth", ".pkl"}


def no_folder(path: Path, wanted: str) -> IntrospectionError:
    """What ``path`` is, as the adapter that was asked for, if it is no folder. ``wanted`` is the file
    that says what is in one."""
    name = str(path)
    if path.is_file():
        kind = "a GGUF file" if path.suffix == ".gguf" else "a file"
        inside = path.parent / wanted
        hint = f"name the folder {path.parent}" if inside.is_file() else "name the adapter's folder"
        return IntrospectionError(
            f"{shown(name)} is {kind} and no adapter folder: {hint}, or {TRAIN}."
        )
    if hub_id := split_hub_id(name):
        repository, revision = hub_id
        at = f" --revision {revision}" if revision else ""
        return IntrospectionError(
            f"There is no adapter folder {shown(name)}: if it is a repository on the Hub, run "
            f"'python -m introspection pull {repository}{at}' and point --adapter to the folder that "
            "this prints."
        )
    return IntrospectionError(
        f"There is no adapter folder {path}: {TRAIN} or point --adapter to one."
    )


def no_adapter(folder: Path, wanted: str) -> IntrospectionError:
    """What ``folder`` holds, if not ``wanted``."""
    here = f"The adapter folder {folder} has no {wanted}"
    files = sorted(path.name for path in folder.iterdir())
    ours = sorted(path.parent.name for path in folder.glob(f"*/{wanted}"))
    gguf = [name for name in files if name.endswith(".gguf")]
    pickled = [name for name in files if Path(name).suffix in _PICKLES]
    if ours:
        named = ", ".join(ours[:3]) + (" and others" if ours[3:] else "")
        return IntrospectionError(f"{here} but folders that have one ({named}): name one of them.")
    if "adapter_config.json" in files:
        return IntrospectionError(
            f"The adapter in {folder} was not made by this program: it has adapter_config.json but no "
            f"{wanted}, so nobody knows what it reports or at which layer; {TRAIN}."
        )
    if "config.json" in files:
        return IntrospectionError(
            f"{here}: it holds a model and no adapter; name it with --model, and {TRAIN} for it."
        )
    if gguf:
        return IntrospectionError(
            f"{here} but GGUF weights ({gguf[0]}), so it was not made by this program: {TRAIN}."
        )
    if pickled:
        return IntrospectionError(
            f"{here} but pickle weights ({pickled[0]}), so it was not made by this program, and "
            f"pickles are never loaded because they can run code: {TRAIN}."
        )
    what = f"such files as {files[0]}" if files else "nothing at all"
    return IntrospectionError(
        f"{here} but {what}, so it is no adapter: name another folder or {TRAIN}."
    )
