"""Answers of one batch while they are generated, token by token."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from introspection.injection.decoding.batching import encode_trials
from introspection.injection.decoding.generation import Answer, answer_batch, answer_of, end_ids
from introspection.injection.decoding.halting import halt_sequences
from introspection.injection.hooked_model import HookedModel
from introspection.injection.trials.trial import Trial


def stream(
    loaded: HookedModel,
    trials: Sequence[Trial],
    max_new_tokens: int = 40,
    halt: bool = True,
    seconds: float = 120.0,
) -> Iterator[list[Answer]]:
    """The answers of one batch as they grow: after every token a list of one answer per trial.

    Closing the iterator (a visitor who leaves, a stop button) ends generation within a token; the
    deadline of ``seconds`` ends it in any case. The model runs in a thread of its own, with its own
    plan, which is joined before the iterator ends. Raises IntrospectionError for a trial that this
    model cannot run.
    """
    rows = encode_trials(loaded, trials, max_new_tokens)
    ends, tokenizer = end_ids(loaded), loaded.tokenizer
    sequences = halt_sequences(tokenizer) if halt else ()
    steps: queue.Queue[list[int] | list[Answer] | BaseException] = queue.Queue()
    cancel = threading.Event()

    def work() -> None:
        try:
            deadline = time.monotonic() + seconds
            streamer = BatchStreamer(steps.put)
            steps.put(
                answer_batch(loaded, rows, max_new_tokens, halt, cancel, deadline, streamer)[0]
            )
        except BaseException as error:  # noqa: BLE001 - raised by the iterator
            steps.put(error)

    worker = threading.Thread(target=work, name="introspection-generate", daemon=True)
    worker.start()
    written: list[list[int]] = [[] for _ in rows]
    halted = [0] * len(rows)
    try:
        while True:
            step = steps.get()
            if isinstance(step, BaseException):
                raise step
            if step and isinstance(step[0], Answer):
                yield step
                return
            for i, token in enumerate(step):
                if halted[i] or (written[i] and written[i][-1] in ends):
                    continue
                written[i].append(token)  # type: ignore[arg-type]
                if any(tuple(written[i][-len(s) :]) == s for s in sequences):
                    halted[i] = len(written[i])
            yield [
                answer_of(tokenizer, ids, ends, at) for ids, at in zip(written, halted, strict=True)
            ]
    finally:
        cancel.set()
        worker.join()


class BatchStreamer(BaseStreamer):
    """Calls a function with the tokens [B] of each step; transformers' own streamers refuse B > 1."""

    def __init__(self, put: Callable[[list[int]], None]) -> None:
        self.hand_over, self.prompt = put, True

    def put(self, value: Tensor) -> None:
        if self.prompt:
            self.prompt = False
        else:
            self.hand_over(value.tolist())

    def end(self) -> None:
        self.prompt = True
