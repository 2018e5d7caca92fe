"""The folder of a training run: which run it is, whose files they are, the base model's answers.

A run is identified by a hash of all that decides its result, and every file of it names that hash. The
first run of a folder lies in the folder itself, another one in a folder of its own inside.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from introspection.errors import IntrospectionError
from introspection.injection.trials import clock
from introspection.io.files import SCRATCH, write_text
from introspection.io.outputs.ownership import RUN_LOCK as LOCK
from introspection.models import distributed
from introspection.models.fingerprints import fingerprint
from introspection.models.loaded_model import LoadedModel
from introspection.training.config import TrainingJob

# Raise it whenever the code changes what a training does, so that no run goes on in another way than
# it began.
METHOD = 1

CONFIG, REPLIES, LOG = "config.json", "replies.json", "log.jsonl"
CHECKPOINT = "checkpoint.safetensors"
FILES = (CONFIG, REPLIES, LOG, CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder that this process may write to; ``started`` is the day that its prompts name."""

    folder: Path
    digest: str
    started: date

    @property
    def header(self) -> dict[str, str]:
        """What every file of the run says of itself."""
        return {"run": self.digest, "started": self.started.isoformat()}

    def load_replies(self, made_from: str) -> list[Any] | None:
        """What :meth:`save_replies` wrote; None unless it is whole and was made from the same."""
        known = _json(self.folder / REPLIES)
        if not isinstance(known, dict) or known.get("made_from") != made_from:
            return None
        answers: Any = known.get("answers")
        return answers if known.get("sha256") == _sha256(answers) else None

    def save_replies(self, made_from: str, answers: Sequence[Any]) -> None:
        """Keep the base model's answers; ``made_from`` is a hash of what they answer."""
        header = {**self.header, "made_from": made_from, "sha256": _sha256(answers)}
        write_text(self.folder / REPLIES, json.dumps({**header, "answers": answers}) + "\n")


def describe_run(loaded: LoadedModel, job: TrainingJob) -> dict[str, Any]:
    """All that decides the result of a training, known before it begins."""
    return {
        "method": METHOD,
        "recipe": job.recipe,
        "examples": job.examples,
        "config": job.config.as_record(),
        "base": fingerprint(loaded.model),
        # Quantised or in another precision, the base model gives other answers.
        "precision": sorted({str(p.dtype) for p in loaded.model.parameters()}),
        "tokenizer": _tokenizer(loaded.tokenizer),
        "layer": loaded.layer,
        "site": job.site,
        "templates": list(job.templates),
        "baseline": list(job.baseline),
    }


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short hash of what makes tokens of a prompt."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    core = tokenizer.get_vocab() if fast is None else json.loads(fast.to_str())
    for passing in ("truncation", "padding"):  # of the last call
        core.pop(passing, None)
    return _sha256([core, tokenizer.chat_template, tokenizer.bos_token])[:16]


@contextmanager
def claim_run(folder: Path, description: Mapping[str, Any]) -> Iterator[Run]:
    """The run of this ``description`` in ``folder``, new or to go on with, and nobody else's meanwhile.

    ``config.json`` is the first file that is written. Raises IntrospectionError where another
    process works on the same run, or something else lies in a file's place.
    """
    main = distributed.rank() == 0
    plain = json.loads(json.dumps(description))
    digest = _sha256(plain)
    with _locked_place(folder, digest) if main else nullcontext((folder, None)) as chosen:
        place, started = distributed.broadcast(chosen)
        run = Run(place, digest, started or distributed.broadcast(clock.today()))
        if main:
            document = {**run.header, **plain}
            if _json(place / CONFIG) != document:  # not there, or damaged
                write_text(place / CONFIG, json.dumps(document, indent=1) + "\n")
        distributed.barrier()
        yield run


def checkpoint_header(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises what a file that is none leads to."""
    with safe_open(checkpoint, framework="pt") as file:
        header = json.loads((file.metadata() or {})["introspection"])
    if not isinstance(header, dict):
        raise ValueError("not an object")
    return header


def _place(folder: Path, digest: str) -> tuple[Path, date | None]:
    """Where the run lies or will lie, and when it started."""
    beside = folder / digest[:12]
    for place in (folder, beside):
        days = [day for run, day in _headers(place) if run == digest]
        if days:
            break
    else:
        taken = any(os.path.lexists(folder / name) for name in FILES)
        place = beside if taken else folder
    place.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        path = place / name
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise IntrospectionError(
                f"{path} is not a file that this program wrote: move it away or choose another --run."
            )
    return place, next((day for day in days if day), None)


def _headers(folder: Path) -> Iterator[tuple[Any, date | None]]:
    """The runs that the files of a folder say they belong to."""
    for read, name in ((_json, CONFIG), (_checkpoint, CHECKPOINT), (_json, REPLIES)):
        header = read(folder / name)
        if isinstance(header, dict):
            try:
                yield header.get("run"), date.fromisoformat(header["started"])
            except (KeyError, TypeError, ValueError):
                yield header.get("run"), None


def _checkpoint(path: Path) -> dict[str, Any] | None:
    try:
        return checkpoint_header(path) if path.is_file() else None
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError):
        return None


def _json(path: Path) -> Any:
    """None for what is not there or cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


@contextmanager
def _locked_place(folder: Path, digest: str) -> Iterator[tuple[Path, date | None]]:
    """The place of a run, locked. Another run may be given the same place before it has written
    anything there: whoever comes second looks again."""
    with ExitStack() as locks:
        place, _ = _place(folder, digest)
        try:
            lock = locks.enter_context(ExitStack())
            lock.enter_context(_locked(place))
        except IntrospectionError:
            if _place(folder, digest)[0] == place:
                raise
        now, started = _place(folder, digest)
        if now != place:
            lock.close()
            locks.enter_context(_locked(now))
        yield now, started


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as locks:
        try:
            locks.enter_context(WeakFileLock(folder / LOCK, timeout=1))
        except TimeoutError as error:
            raise IntrospectionError(
                f"Another process is training the same run in {folder}: wait for it or stop it."
            ) from error
        for left in folder.glob(f"{SCRATCH}*"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
