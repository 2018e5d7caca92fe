"""Names in place of local paths, in what is shown, written down or uploaded."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from introspection.io.files import write_text
from introspection.io.hub_ids import is_hub_id
from introspection.io.outputs import manifest

LONGEST_NAME = 120  # characters; the Hub allows 96 without a revision
_PATH = re.compile(r"~|\.{1,2}(?:[/\\]|$)|[/\\]|[A-Za-z]:[/\\]|file:")
_BASES = ("base_id", "base", "base_model_name_or_path")
_WORDS = ("trained", "vocabulary", "harmful", "baseline", "templates")


def name_of(model: str) -> str:
    """What a model is called: a folder or a file by its own name, anything else as it stands."""
    if os.path.isdir(model) or _is_path(model):
        model = _last(model)
    return printable(model)


def printable(name: str) -> str:
    """A name that may stand anywhere: at most LONGEST_NAME characters, "?" for what is no letter."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:LONGEST_NAME]


def document_name(path: Path) -> str:
    """A file as a document may name it: from the current folder on, else by its name alone."""
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except (OSError, ValueError):
        return path.name


def command_line(program: str, arguments: Sequence[str]) -> str:
    """The command that made an adapter, without where anything of it lay."""
    words, shown = iter(arguments), []
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if word in ("--out", "--run"):
            next(words, None)
        elif option in ("--out", "--run"):
            continue
        elif option and not equals:
            shown.append(re.sub(r"[/\\].*", "", word))
        else:
            shown.append(f"{option}{equals}{name_of(value)}")
    name = re.split(r"[/\\]", program)[-1]
    start = ["python", "-m", "introspection"] if name == "__main__.py" else [name]
    return shlex.join([*start, *shown])


def find_paths(folder: Path) -> dict[str, str]:
    """Every text in the files of an adapter folder that holds a local path (older versions wrote them),
    with its replacement."""
    texts: dict[str, str] = {}
    commands: list[str] = []

    def note(key: str, text: str) -> str:
        if key == "command":
            commands.append(text)
            return text
        # By form alone: org/name is a name on the Hub, whatever lies in the current folder.
        local = _PATH.match(text) or (key in _BASES and not is_hub_id(text.partition("@")[0]))
        new = name_of(text) if local and key in _BASES else _last(text) if local else text
        if new != text:
            texts[text] = new
        return text

    for name in (manifest.CONFIG, manifest.INFO, "evaluation.json"):
        if (folder / name).is_file():
            _walk(manifest.read_json(folder / name), note)
    if (folder / manifest.VECTORS).is_file():
        with safe_open(folder / manifest.VECTORS, framework="numpy") as file:
            _walk(file.metadata() or {}, note)
    spaced = {old: new for old, new in texts.items() if " " in old}
    for command in commands:
        new = " ".join(map(without_path, _replaced(command, spaced).split()))
        if new != command:
            texts[command] = new
    return texts


def remove_paths(folder: Path) -> None:
    """Replace the local paths in a copy of an adapter folder; its manifest must be written again."""
    from safetensors.torch import load_file

    from introspection.io.tensor_file import write_tensors

    texts = find_paths(folder)
    if not texts:
        return

    def change(_key: str, text: str) -> str:
        return texts.get(text, text)

    for name in (manifest.CONFIG, manifest.INFO, "evaluation.json"):
        if (folder / name).is_file():
            document = _walk(manifest.read_json(folder / name), change)
            write_text(folder / name, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    vectors = folder / manifest.VECTORS
    with safe_open(vectors, framework="numpy") as file:
        metadata = _walk(file.metadata() or {}, change)
    write_tensors(vectors, load_file(vectors), metadata)
    card = folder / "README.md"
    if card.is_file():
        write_text(card, _replaced(card.read_bytes().decode(errors="replace"), texts))


def _is_path(text: str) -> bool:
    """Whether it looks like one, or is one here: ``a/b`` may be a folder or a name on the Hub."""
    named = not is_hub_id(text.partition("@")[0]) or os.path.exists(text)
    return _PATH.match(text) is not None or (("/" in text or "\\" in text) and named)


def _last(path: str) -> str:
    if not path.strip("./~"):
        path = os.path.abspath(os.path.expanduser(path))
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "model"


def _replaced(text: str, texts: dict[str, str]) -> str:
    for old in sorted(texts, key=len, reverse=True):
        text = text.replace(old, texts[old])
    return text


def without_path(word: str) -> str:
    """A word of a command line: a path in it by its last name."""
    option, equals, value = word.rpartition("=") if word.startswith("-") else ("", "", word)
    return option + equals + (_last(value) if _PATH.match(value) else value)


def _walk(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _walk(part, change, name) for name, part in value.items()}
    if isinstance(value, list) and key not in _WORDS:
        return [_walk(part, change, key) for part in value]
    return change(key, value) if isinstance(value, str) else value
