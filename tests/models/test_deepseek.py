"""The big preset from end to end, in small: DeepSeek-7B's architecture, chat format and kind of files
on a Hub, its adapter in another repository there, and app.py that is only told their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from introspection.demo.server import space
from introspection.demo.server.settings import read_settings
from introspection.errors import IntrospectionError
from introspection.hub.transfer import push
from introspection.models.presets import PRESETS
from tests.support.app_process import SPACE, compare, copy_of_the_project, running
from tests.support.fake_hub import FakeHub
from tests.support.tiny import make_tokenizer
from tests.support.tiny_folder import write_adapter

pytestmark = pytest.mark.slow

PRESET = PRESETS["deepseek-7b"]
DEPTH = 30  # layers, as many as the real one has
ADAPTER, OWNER = "org/introspection-deepseek", "hf_owner_0123456789"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the real repository holds: config, tokenizer and pickled weights, nothing else."""
    folder = tmp_path_factory.mktemp("deepseek") / "model"
    tokenizer = make_tokenizer(template=TEMPLATE, pad=None)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    sizes |= {"vocab_size": len(tokenizer), "num_hidden_layers": DEPTH, "initializer_range": 0.3}
    config = LlamaConfig(**sizes, max_position_embeddings=256, bos_token_id=0, eos_token_id=2)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).bfloat16()
    tokenizer.save_pretrained(folder)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: Path) -> Iterator[FakeHub]:
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with FakeHub() as running_hub:
        monkeypatch.setenv("HF_ENDPOINT", running_hub.url)
        repo = running_hub.create(PRESET.base_id)
        repo.commits[str(PRESET.weights.revision)] = {
            p.name: p.read_bytes() for p in weights.iterdir()
        }
        yield running_hub


@pytest.fixture
def settings(hub: FakeHub, weights: Path, tmp_path: Path) -> dict[str, str]:
    folder = write_adapter(tmp_path / "adapter", weights, PRESET.layer, DEPTH, PRESET.base_id)
    sha = push(folder, ADAPTER, token=OWNER)
    hub.forget()
    return {
        **{"INTROSPECTION_MODEL": PRESET.name, "INTROSPECTION_ADAPTER": ADAPTER},
        **{"INTROSPECTION_REVISION": sha, **SPACE},
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_project(tmp_path_factory.mktemp("tree"))


def test_two_names_are_enough_and_later_none_is_asked(
    hub: FakeHub, settings: dict[str, str], tree: Path, tmp_path: Path
) -> None:
    # Somebody's token is on the machine, and both repositories are public.
    told: list[Any] = []
    with running(tree, tmp_path / "log", HF_TOKEN=OWNER, **settings) as (address, _):
        told.append(compare(address, "ocean", 1.0, "Why?"))
    rows = told[0]["rows"]
    assert [(row["adapter"], row["injected"]) for row in rows] == [
        *((True, True), (False, True), (True, False))
    ]
    assert all(row["tokens"] > 0 for row in rows) and told[0]["adapter_loaded"]
    asked = [call.path for call in hub.calls]
    assert [p for p in asked if PRESET.base_id in p] and [p for p in asked if ADAPTER in p]
    assert all(settings["INTROSPECTION_REVISION"] in p for p in asked if f"{ADAPTER}/resolve" in p)
    pinned = f"{PRESET.base_id}/resolve/{PRESET.weights.revision}/"
    assert all(pinned in p for p in asked if f"{PRESET.base_id}/resolve" in p)
    assert [call.path for call in hub.calls if call.token] == []
    assert not hub.asked("discussions|refs/pr|whoami")  # nobody is asked to convert the weights

    hub.forget()
    offline = {**settings, "HF_HUB_OFFLINE": "1"}
    with running(tree, tmp_path / "log", **offline) as (address, _):
        told.append(compare(address, "ocean", 1.0, "Why?"))
    assert hub.calls == []
    assert [row["text"] for row in told[1]["rows"]] == [row["text"] for row in rows]


def test_an_adapter_that_the_hub_does_not_have(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**settings, "INTROSPECTION_REVISION": "0" * 40}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(IntrospectionError, match="has no such revision"):
        space._load(read_settings())
