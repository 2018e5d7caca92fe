"""The base model's own answers to ordinary prompts, which training keeps as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from introspection.injection.decoding.generation import generate
from introspection.injection.trials.prompts import render
from introspection.injection.trials.trial import Trial
from introspection.models import distributed
from introspection.models.loaded_model import LoadedModel
from introspection.training.data.examples import Messages
from introspection.training.runs import Run

REPLY_TOKENS = 32
CPU_ROWS, GPU_ROWS = 32, 512  # of a batch

Progress = Callable[[str, int, int], None]  # what is done, how much, of how much


def base_replies(
    loaded: LoadedModel, prompts: Sequence[Messages], run: Run | None, progress: Progress | None
) -> dict[Messages, tuple[str, bool]]:
    """The base model's answer to each ordinary prompt, and whether it ended by itself.

    Empty answers are left out. They are kept in the folder of ``run`` for a later start; of several
    processes each makes its part.
    """
    # The run's digest says which model answers, and how it is loaded.
    digest = hashlib.sha256(repr((REPLY_TOKENS, run.digest if run else "")).encode())
    for messages in prompts:
        digest.update(repr(render(loaded.tokenizer, messages)).encode())
    made_from = digest.hexdigest()
    keeper = run if distributed.rank() == 0 else None
    answers = distributed.broadcast(keeper.load_replies(made_from) if keeper else None)
    if answers is None:
        answers = _generate(loaded, prompts, progress)
        if keeper:
            keeper.save_replies(made_from, answers)
    pairs = zip(prompts, answers, strict=True)
    return {prompt: (text, finished) for prompt, (text, finished) in pairs if text}


def _generate(
    loaded: LoadedModel, prompts: Sequence[Messages], progress: Progress | None
) -> list[tuple[str, bool]]:
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress("answers of the base model", done * distributed.world_size(), len(prompts))

    rows = GPU_ROWS if loaded.model.device.type == "cuda" else CPU_ROWS
    local = distributed.split_between_processes(prompts)
    trials = [Trial(messages, None, adapter=False) for messages in local]
    replies = generate(loaded, trials, REPLY_TOKENS, rows, halt=False, progress=count)
    return distributed.gather([(reply.text, reply.finished) for reply in replies])
