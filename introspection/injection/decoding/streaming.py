"""Answers of one batch while they are generated, token by token."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

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

    Closing the iterator ends generation within a token, the deadline of ``seconds`` in any case. The
    model runs in a thread of its own, which is joined before the iterator ends. Raises
    IntrospectionError for a trial that this model cannot run.
    """
    rows = encode_trials(loaded, trials, max_new_tokens)
    ends, tokenizer = end_ids(loaded), loaded.tokenizer
    sequences = halt_sequences(tokenizer) if halt else ()
    steps: queue.Queue[list[int] | list[Answer] | BaseException] = queue.Queue()
    cancel = threading.Event()

    deadline = time.monotonic() + seconds

    def on_step(tokens: list[int]) -> bool:
        steps.put(tokens)
        return cancel.is_set() or time.monotonic() > deadline

    def work() -> None:
        try:
            steps.put(answer_batch(loaded, rows, max_new_tokens, halt, on_step)[0])
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
