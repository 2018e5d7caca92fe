"""Decoding as one recorded CUDA graph: the GPU no longer waits for Python between two kernels.

Knows: static caches, which forward of a ``generate`` call is recorded and how it is fed afterwards.
Does not know: trials, plans or what is injected; a hook's arithmetic is part of the recording.

At 7B and up to many dozens of rows a decoding step is shorter on the GPU than the Python that launches
it. The second step of every ``generate`` call is therefore recorded, which takes about as long as to
run it once, and the others are replayed. No compiler runs and nothing outlives the call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from introspection.injection.hooks import patch_forward

__all__ = [
    "GraphCapture",
    "capture_and_replay",
    "graph_decoding",
    "new_static_cache",
    "static_cache",
]

# Runs a function once as a recording and returns what it returned with the way to run it again.
GraphCapture = Callable[[Callable[[], Any]], tuple[Any, Callable[[], None]]]


def static_cache(model: PreTrainedModel, length: int) -> StaticCache | None:
    """An empty cache of ``length`` tokens, or None where no step of ``model`` can be recorded: without
    CUDA, over several GPUs, quantised, with a sliding window or with steps that depend on the data."""
    devices = {parameter.device for parameter in model.parameters()}
    one_gpu = len(devices) == 1 and next(iter(devices)).type == "cuda"
    if not one_gpu or not model._can_compile_fullgraph:
        return None
    if getattr(model, "hf_quantizer", None) is not None:
        return None
    return new_static_cache(model, length)


def new_static_cache(model: PreTrainedModel, length: int) -> StaticCache | None:
    """A cache all of whose layers keep every token at its own place, or None with a sliding window."""
    cache = StaticCache(config=model.config, max_cache_len=length)
    return cache if all(type(layer) is StaticLayer for layer in cache.layers) else None


def _recorded(step: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    graph = torch.cuda.CUDAGraph()
    # Another thread may use the GPU meanwhile (the demo's page while a report is written).
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = step()
    return output, graph.replay


@contextmanager
def graph_decoding(model: PreTrainedModel, length: int) -> Iterator[StaticCache | None]:
    """Record and replay the steps of the next ``generate`` with the cache of ``length`` tokens that is
    given; with None, where nothing can be recorded, they run as ever."""
    cache = static_cache(model, length)
    if cache is None:
        yield None
        return
    with capture_and_replay(model):
        yield cache


@contextmanager
def capture_and_replay(model: PreTrainedModel, record: GraphCapture = _recorded) -> Iterator[None]:
    """Let the next ``generate`` with a :func:`static_cache` replay its steps from the third forward on.

    The first forward (the prompt) and the second (the first step, which also warms up) run as ever;
    the third is recorded, then it and all later ones are replayed with their inputs copied into
    those of the recording. A model with a step that cannot be recorded (falcon makes a tensor on the
    CPU in its own) is run as ever. The plan of the call must not change meanwhile.
    """
    original, head = model.forward, model.get_output_embeddings()
    fed: dict[str, Any] = {}
    output: Any = None
    replay: Callable[[], None] | None = None
    calls = 0

    @functools.wraps(original)  # generate looks at the signature
    def forward(**given: Any) -> Any:
        nonlocal output, replay, calls
        calls += 1
        if calls == 3:
            fed.update({name: _copied(value) for name, value in given.items()})
            with suppress(RuntimeError):  # nothing has run: the step goes on as ever
                output, replay = record(lambda: original(**fed))
        if replay is None:
            return original(**given)
        for name, value in given.items():
            _copy_into(fed[name], value)
        replay()
        return output

    unembed = head.forward

    def unembed_once(states: Tensor) -> Tensor:
        # The last tokens of many prompts are a slice, for which torch would read the unembedding
        # once per row.
        logits: Tensor = unembed(states.contiguous())
        return logits

    with patch_forward(model, forward), patch_forward(head, unembed_once):
        yield


def _copied(value: Any) -> Any:
    """A copy of a tensor or of a dict of tensors (masks by kind of layer); all else is itself."""
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def _copy_into(held: Any, value: Any) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _copy_into(held[name], part)
    elif isinstance(value, Tensor):
        held.copy_(value)
