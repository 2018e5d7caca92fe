"""``app.py``: load what the variables name and serve the page, also as a Hugging Face Space.

Off a Space every function here does what a plain start does.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NoReturn

from introspection.demo.engine.adapter_choices import adapter_choices
from introspection.demo.engine.zerogpu import on_gpu, zero_gpu
from introspection.demo.server.settings import Settings, adapter_source, on_space, read_settings
from introspection.errors import IntrospectionError
from introspection.models.presets import DEFAULT, full_precision

if TYPE_CHECKING:
    import gradio as gr

    from introspection.demo.engine.run_request import RunRequest
    from introspection.models.loaded_model import LoadedModel

log = logging.getLogger(__name__)


def _load(chosen: Settings) -> tuple[LoadedModel, list[LoadedModel]]:
    """The model with its adapter, and with each of the others that loads and fits."""
    from introspection.models import loading

    # On ZeroGPU the hook is proved on the CPU.
    loaded = loading.load(
        chosen.model, adapter_source(chosen), device="cpu" if zero_gpu() else None
    )
    others = []
    for _, choice in adapter_choices(chosen.more, loaded):
        if isinstance(choice, str):
            log.warning("Left out of INTROSPECTION_ADAPTERS: %s", choice)
        else:
            others.append(choice)
    if not zero_gpu():
        return loaded, others
    # From now on "cuda" is a promise that spaces keeps in the fork, for every adapter.
    if not full_precision(chosen.model):  # as models.loading.load does on a GPU
        for parameter in loaded.model.parameters():
            parameter.data = parameter.data.bfloat16()
    loaded.model.to("cuda")
    return loaded, others


def serve() -> NoReturn:
    """Load what the variables name, serve the page until SIGTERM or Ctrl-C, and end the process.

    When that fails a page shows the sentence and plays recorded runs: on a Space, where nobody reads
    a terminal, and wherever no variable asked for something else than what ships. Otherwise it
    raises IntrospectionError.
    """
    from introspection.demo.server.launch import launch, run_until_stopped

    chosen = read_settings()

    def open_page() -> gr.Blocks:
        try:
            loaded, others = _load(chosen)
            return launch(loaded, block=False, others=others)
        except IntrospectionError as error:
            if not on_space() and chosen != Settings(DEFAULT, None, None):
                raise
            log.error("%s", error)  # unlike a plain write, it survives a log on a full disk
            return _apology(str(error))

    run_until_stopped(open_page)


def _apology(sentence: str) -> gr.Blocks:
    """A page with one sentence, and recorded runs."""
    from introspection.demo.server.launch import launch_without

    def nothing(_request: RunRequest) -> Generator[Any, None, None]:
        yield from ()

    # ZeroGPU starts no Space without a function to lend a GPU to.
    on_gpu(nothing, lambda *_asked: 1)
    return launch_without(sentence, block=False)
