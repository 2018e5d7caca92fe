"""Fixtures over the tiny models of ``tiny.py``.

That module, and torch with it, is imported by whoever asks for a model: the process that only hands
out tests to the others never does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from introspection.models.loaded_model import LoadedModel

os.environ.setdefault("MKL_CBWR", "AUTO")  # as the programs set it

FAMILIES = (
    *("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "mistral", "phi3", "olmo2"),
    *("gpt2", "gpt_neox", "falcon"),
)
# Rotary and learned positions, sliding windows, one key head: most of what families differ in.
UNLIKE = ("llama", "gemma3_text", "gpt2", "falcon")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that the short ones fill what is left at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """With ``--dist loadscope``: a file on one worker, which starts its servers and trains its models
    once; what Node renders apart, with a server of its own."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("::")[0] + "[ssr]" * nodeid.endswith("[ssr]")

    return ByServer(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name in UNLIKE else pytest.mark.slow) for name in FAMILIES
    ]
)
def family(request: pytest.FixtureRequest) -> str:
    """Four families in ``make check``, all in ``make test``."""
    return request.param


@pytest.fixture
def tiny() -> Callable[[str], LoadedModel]:
    """``tiny(family)``: a model with tokenizer, adapter, hook and gate, like ``models.load``."""
    from tests.support.tiny import load_tiny

    return load_tiny


@pytest.fixture
def bare() -> Callable[[str], PreTrainedModel]:
    """``bare(family)``: the same weights without adapter and without hooks."""
    from tests.support.tiny import load_bare

    return load_bare


@pytest.fixture
def adapted() -> Callable[[str], PreTrainedModel]:
    """``adapted(family)``: the same weights with the adapter and without our hooks."""
    from tests.support.tiny import load_adapted

    return load_adapted


@pytest.fixture
def llama(tiny: Callable[[str], LoadedModel]) -> LoadedModel:
    """For what does not depend on the family."""
    return tiny("llama")
