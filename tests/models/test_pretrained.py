"""Where weights come from and go: pickles without code, devices, precision, tokens."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
import transformers
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from introspection.errors import IntrospectionError
from introspection.injection.decoding.generation import generate
from introspection.injection.trials.message import conversation
from introspection.injection.trials.trial import Injection, Trial
from introspection.models import loading
from introspection.models.weights import pretrained
from introspection.training.adapter import add_adapter
from introspection.training.config import TrainConfig
from tests.support.tiny import DEPTH, LAYER
from tests.support.tiny_folder import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def pickled(tmp_path: Path, model: Path) -> Path:
    """The same model as its makers may have saved it: with torch.save."""
    folder = Path(shutil.copytree(model, tmp_path / "pickled"))
    (folder / "model.safetensors").unlink()
    torch.save(load_file(model / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


def says(folder: Path) -> str:
    loaded = loading.load(str(folder), adapter=None, layer=LAYER, device="cpu")
    given = Injection(loaded.vector("ocean"), 2.0)
    trial = Trial(conversation("What is it?"), given, adapter=False)
    return generate(loaded, [trial], 12)[0].text


def test_pickled_weights_are_read_as_tensors(model: Path, pickled: Path) -> None:
    assert says(pickled) == says(model) != ""


def test_pickled_code_is_refused(pickled: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(pickled / "ran"),)

    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Evil()}))
    with pytest.raises(IntrospectionError, match="could not be loaded"):
        loading.load(str(pickled), adapter=None, device="cpu")
    assert not (pickled / "ran").exists()


def test_a_token_is_sent_only_after_a_refusal(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a Hub that denies what it does not know: first nobody asks, then the owner of the token."""
    tokens: list[object] = []
    refusal = httpx.Response(401, request=httpx.Request("GET", "http://hub"))
    unknown = RepositoryNotFoundError("Repository not found", response=refusal)
    # transformers asks for the configuration on its own account as well.
    config = SimpleNamespace(get_config_dict=PreTrainedConfig.get_config_dict)
    monkeypatch.setattr(transformers, "PreTrainedConfig", config)
    for kind in (config, AutoTokenizer, AutoModelForCausalLM):
        name = "get_config_dict" if kind is config else "from_pretrained"
        plain = getattr(kind, name)

        def asked(_source: str, token: object, plain: object = plain, **options: object) -> object:
            tokens.append(token)
            if token is False and private:
                raise OSError("org/name is not a local folder") from unknown
            return plain(str(model), **{**options, "revision": None})  # type: ignore[operator]

        monkeypatch.setattr(kind, name, asked)
    where = pretrained.placement("cpu", full_precision=True)
    private = False
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pretrained.load_pretrained("org/name", "org/name", None, where)
    assert tokens == [False] * 3
    private = True
    pretrained.load_pretrained("org/name", "org/name", None, where)
    assert tokens[3:] == [False, None, None, None]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(IntrospectionError, match="HF_TOKEN") as refused:
        pretrained.load_pretrained("org/name", "org/name", None, where)
    assert "hf_secret" not in str(refused.value)


def test_attention_on_a_gpu_makes_no_plans(model: Path) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    loading.load(str(model), adapter=None, device="cpu")
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_what_needs_a_gpu_says_so(model: Path) -> None:
    with pytest.raises(IntrospectionError, match="no GPU to split"):
        loading.load(str(model), adapter=None, device="split")
    with pytest.raises(IntrospectionError, match="Quantisation needs"):
        loading.load(str(model), adapter=None, quantisation="4bit")


def test_the_default_layer_leaves_blocks_to_train(model: Path) -> None:
    loaded = loading.load(str(model), adapter=None, device="cpu")
    assert loaded.layer == DEPTH - 2
    add_adapter(loaded, TrainConfig(rank=2))
    last = loading.load(str(model), adapter=None, layer=DEPTH - 1, device="cpu")
    with pytest.raises(IntrospectionError, match=f"--layer from 0 to {DEPTH - 2}"):
        add_adapter(last, TrainConfig(rank=2))
