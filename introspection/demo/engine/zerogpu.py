"""A GPU on loan: the part of a run that a Hugging Face ZeroGPU Space executes in a forked process.

Anywhere else nothing here has an effect.
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

Steps = Callable[..., Generator[Any, None, None]]

# Seconds of a lent GPU. What is asked for must fit into the visitor's quota, so ask for little: the
# weights' way onto the GPU, then every token. Unmeasured; generous for a model of 7B.
START, PER_TOKEN = 4.0, 0.06
FEWEST_SECONDS, MOST_SECONDS = 8, 60


def zero_gpu() -> bool:
    """Whether this process is a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").casefold() in ("1", "t", "true")


def seconds(tokens: int) -> int:
    """For how many seconds a run of so many tokens, of all its rows together, asks for the GPU."""
    return min(max(math.ceil(START + PER_TOKEN * tokens), FEWEST_SECONDS), MOST_SECONDS)


def _is_gradio_error(error: Exception) -> bool:
    """Whether it is a ``gradio.Error``, which ``spaces`` raises. Known by its name, without Gradio."""
    return any(
        cls.__name__ == "Error" and cls.__module__.partition(".")[0] == "gradio"
        for cls in type(error).__mro__
    )


def on_gpu(steps: Steps, duration: Callable[..., int]) -> Steps:
    """``steps`` itself; on ZeroGPU a function that runs it in a forked process with a GPU on loan.

    ``duration`` of the same arguments gives the seconds to ask for. Arguments and answers are
    pickled. The fork works on a copy of the model, its hooks and its plan, so ``steps`` must not use
    a lock of its parent. Raises IntrospectionError where ``steps`` does, and when no GPU is lent.
    """
    if not zero_gpu():
        return steps

    def inside(*asked: Any) -> Generator[Any, None, None]:
        try:
            yield from steps(*asked)
        except IntrospectionError as error:
            yield str(error)  # raised, only the name of its class would come out

    lent = import_module("spaces").GPU(duration=duration)(inside)

    def outside(*asked: Any) -> Generator[Any, None, None]:
        try:
            with closing(lent(*asked)) as results:
                for answers in results:
                    if isinstance(answers, str):
                        raise IntrospectionError(answers)
                    yield answers
        except Exception as error:  # no GPU was free, the quota is used up, the time was
            if not _is_gradio_error(error):
                raise
            reason = re.sub("<[^>]*>", "", str(getattr(error, "message", ""))).strip().rstrip(".")
            raise IntrospectionError(
                f"The GPU on loan did not finish this run ({reason}): try again later; a visitor "
                "who is signed in to Hugging Face has more GPU time."
            ) from error

    return outside
