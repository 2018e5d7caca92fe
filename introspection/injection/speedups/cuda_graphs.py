"""Decoding by CUDA graph capture: one step is recorded and replayed, without Python between kernels.

Up to many dozens of rows a decoding step of a 7B model takes less time on the GPU than the Python that
launches it. What hooks compute is part of the capture. Nothing outlives the ``generate`` call.
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

from introspection.injection.patching import patch_forward

# Captures a call of a function; returns its output and a function that replays it into that output.
GraphCapture = Callable[[Callable[[], Any]], tuple[Any, Callable[[], None]]]


def static_cache(model: PreTrainedModel, length: int) -> StaticCache | None:
    """An empty cache of ``length`` tokens, or None where no step of ``model`` can be captured: without
    CUDA, over several GPUs, quantised, with a sliding window or with steps that depend on the data."""
    devices = {parameter.device for parameter in model.parameters()}
    one_gpu = len(devices) == 1 and next(iter(devices)).type == "cuda"
    quantised = getattr(model, "hf_quantizer", None) is not None
    if not one_gpu or quantised or not model._can_compile_fullgraph:
        return None
    return new_static_cache(model, length)


def new_static_cache(model: PreTrainedModel, length: int) -> StaticCache | None:
    """A cache of ``length`` tokens in every layer, or None for a model with a sliding window."""
    cache = StaticCache(config=model.config, max_cache_len=length)
    return cache if all(type(layer) is StaticLayer for layer in cache.layers) else None


def _capture(step: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    graph = torch.cuda.CUDAGraph()
    # Another thread may use the GPU meanwhile (the demo's page while a report is written).
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = step()
    return output, graph.replay


@contextmanager
def graph_decoding(model: PreTrainedModel, length: int) -> Iterator[StaticCache | None]:
    """Capture and replay the steps of the next ``generate`` call, which must use the yielded cache of
    ``length`` tokens. Where no step can be captured None is yielded and nothing changes."""
    cache = static_cache(model, length)
    if cache is None:
        yield None
        return
    with capture_and_replay(model):
        yield cache


@contextmanager
def capture_and_replay(model: PreTrainedModel, record: GraphCapture = _capture) -> Iterator[None]:
    """Let the next ``generate`` with a :func:`static_cache` replay its steps from the third forward on.

    The forward of the prompt and the first step, which warms up, run as usual; the inputs of the later
    ones are copied into those of the capture. A model with a step that cannot be captured (Falcon's
    makes a tensor on the CPU) runs as usual. The current plan must not change meanwhile.
    """
    original, head = model.forward, model.get_output_embeddings()
    inputs: dict[str, Any] = {}
    output: Any = None
    replay: Callable[[], None] | None = None
    calls = 0

    @functools.wraps(original)  # generate looks at the signature
    def forward(**given: Any) -> Any:
        nonlocal output, replay, calls
        calls += 1
        if calls == 3:
            inputs.update({name: _copy(value) for name, value in given.items()})
            with suppress(RuntimeError):  # nothing has run yet: the step is run as usual below
                output, replay = record(lambda: original(**inputs))
        if replay is None:
            return original(**given)
        for name, value in given.items():
            _copy_into(inputs[name], value)
        replay()
        return output

    unembed = head.forward

    def unembed_once(states: Tensor) -> Tensor:
        # For a slice, as of last tokens, torch would read the unembedding once per row.
        logits: Tensor = unembed(states.contiguous())
        return logits

    with patch_forward(model, forward), patch_forward(head, unembed_once):
        yield


def _copy(value: Any) -> Any:
    """A copy of a tensor or of a dict of tensors (masks by kind of layer); anything else as it is."""
    if isinstance(value, dict):
        return {name: _copy(part) for name, part in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def _copy_into(target: Any, value: Any) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _copy_into(target[name], part)
    elif isinstance(value, Tensor):
        target.copy_(value)
