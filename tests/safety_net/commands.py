"""Command lines, run in this process: exit code, standard output and error, and files they wrote.

``<tmp>`` in an argument is a folder with a tiny model, ``model``, an adapter for it, ``adapter``, a
copy of the shipped adapter, ``shipped``, and files to read. ``after`` names cases that have to run
before, ``shows`` a file whose text is part of the answer, or ``fields`` of each of its JSON lines.
The Hub is out of reach.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from tests.safety_net import entry
from tests.safety_net.data import ROOT, load, masked, rounded
from tests.support.tiny_folder import write_loud_adapter, write_model

OFFLINE = "huggingface_hub.constants.HF_HUB_OFFLINE"  # its variable is read once, at the start
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RANK", "WORLD_SIZE")
FILES = {
    "words.txt": "# mine\nocean\n!!!\nUser: x\nforest fire  # big\n",
    "words.csv": "concept,category,harmful\nharbour,places,no\nbomb,weapons,yes\n",
    "texts.txt": "A trip to Rome.\nThe sky is blue.\n",
    "latin.txt": b"caf\xe9\n",
    "README.md": "".join(
        f"<!-- {part}:start --><!-- {part}:end -->\n" for part in ("results", "paper")
    ),
    "diary.jsonl": '{"today": "rain"}\n',
}


class Commands:
    """The commands of ``commands.json`` in one folder, each run once, when it is first asked for."""

    def __init__(self, tmp: Path) -> None:
        self.tmp, self.done = tmp, dict[str, Any]()
        self.cases = {case["id"]: case for case in load("commands.json")}
        write_model(tmp / "model")
        write_loud_adapter(tmp / "adapter", tmp / "model", 3)
        shutil.copytree(ROOT / "adapters" / "smollm2-135m", tmp / "shipped")
        for name, content in FILES.items():
            (tmp / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def answer(self, name: str) -> Any:
        if name not in self.done:
            case = self.cases[name]
            for earlier in case.get("after", ()):
                self.answer(earlier)
            self.done[name] = self._run(case)
        return self.done[name]

    def _run(self, case: dict[str, Any]) -> Any:
        args = [arg.replace("<tmp>", str(self.tmp)) for arg in case["args"]]
        kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
        before = Path.cwd()
        os.chdir(ROOT)
        try:
            with mock.patch(OFFLINE, True), mock.patch.dict(os.environ, kept, clear=True):
                result = entry.command(args)
        finally:
            os.chdir(before)
        found = {"exit": result.exit_code, "out": result.stdout, "err": result.stderr}
        if "shows" in case:
            path = Path(case["shows"].replace("<tmp>", str(self.tmp)))
            found["file"] = path.read_text(encoding="utf-8")
            if "fields" in case:
                lines = map(json.loads, found["file"].splitlines())
                found["file"] = [[line[field] for field in case["fields"]] for line in lines]
        return rounded(masked(found, self.tmp))
