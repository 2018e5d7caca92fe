"""A GPU on loan: the part of a run that a Hugging Face ZeroGPU Space executes in a forked process.

Knows: whether this is such a Space, for how long to ask, how answers come out of the fork. Does not
know: what a run does. Anywhere else nothing here has an effect.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Generator
from contextlib import closing
from importlib import import_module
from typing import Any

from introspection.errors import IntrospectionError

__all__ = ["on_gpu", "seconds", "zero_gpu"]

Steps = Callable[..., Generator[Any, None, None]]

# Seconds of a lent GPU. What is asked for must fit into the visitor's quota, so ask for little: the
# weights' way onto the GPU, then every token. Unmeasured; generous for a model of 7B.
START, PER_TOKEN = 4.0, 0.06
FEWEST_SECONDS, MOST_SECONDS = 8, 60


def zero_gpu() -> bool:
    return os.environ.get("SPACES_ZERO_GPU", "").casefold() in ("1", "t", "true")


def seconds(tokens: int) -> int:
    """For how long a run of so many tokens, of all its rows together, asks for the GPU; never over a
    minute."""
    return min(max(math.ceil(START + PER_TOKEN * tokens), FEWEST_SECONDS), MOST_SECONDS)


def on_gpu(steps: Steps, duration: Callable[..., int]) -> Steps:
    """``steps`` itself; on ZeroGPU its twin that runs in a forked process with a GPU on loan for
    ``duration`` of the same arguments.

    Only requests go in and only answers come out, pickled. The model, its hooks and its plan are
    the fork's own copy, so ``steps`` must not touch a lock of its parent.
    """
    if not zero_gpu():
        return steps
    import gradio as gr

    def inside(*asked: Any) -> Generator[Any, None, None]:
        try:
            yield from steps(*asked)
        except IntrospectionError as error:
            yield str(error)  # raised, only the name of its class would come out

    lent = import_module("spaces").GPU(duration=duration)(inside)

    def outside(*asked: Any) -> Generator[Any, None, None]:
        try:
            with closing(lent(*asked)) as found:
                for answers in found:
                    if isinstance(answers, str):
                        raise IntrospectionError(answers)
                    yield answers
        except gr.Error as error:  # no GPU was free, the quota is used up, the time was
            told = re.sub("<[^>]*>", "", str(error.message)).strip().rstrip(".")
            raise IntrospectionError(
                f"The GPU on loan did not finish this run ({told}): try again later; a visitor "
                "who is signed in to Hugging Face has more GPU time."
            ) from error

    return outside
