"""Which base an adapter belongs to: one fingerprint from every file, dtype and wrapping; another one
as soon as something was merged into the weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.io.outputs import manifest
from introspection.models import loading
from introspection.models.adapters import adapter_info
from introspection.models.fingerprints import fingerprint, same_base
from tests.support.tiny import FAMILIES, load_adapted, load_bare, make_adapted, make_model
from tests.support.tiny_folder import edit_json, write_loud_adapter, write_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("prints")
    model = write_model(folder / "model")
    return model, write_loud_adapter(folder / "adapter", model, 5)


def test_adapters_precision_and_wrapping_do_not_matter(family: str) -> None:
    bare = fingerprint(load_bare(family))
    assert len(bare) == 33 and bare[16] == "."
    assert fingerprint(load_adapted(family)) == bare
    assert fingerprint(make_model(family).to(torch.bfloat16)) == bare
    targets = list(FAMILIES[family][1])
    lora = LoraConfig(target_modules=targets, fan_in_fan_out=family == "gpt2", r=2)
    assert fingerprint(get_peft_model(make_model(family), lora)) == bare


def test_what_was_merged_is_seen(family: str) -> None:
    """Every projection alone, however little of it changed."""
    model = make_adapted(family)
    bare, layers = fingerprint(model), [m for m in model.modules() if isinstance(m, LoraLayer)]
    for module in layers:
        before = module.get_base_layer().weight.data.clone()
        for matrix in module.lora_B.values():
            matrix.weight.data *= 0.05
        module.merge()
        merged = fingerprint(model)
        assert not same_base(bare, merged) and merged.partition(".")[0] == bare.partition(".")[0]
        module.unmerge()
        module.get_base_layer().weight.data = before
        assert fingerprint(model) == bare


def test_the_unembedding_and_single_tensors_count() -> None:
    bare = fingerprint(load_bare("qwen2"))
    for change in (
        lambda m: m.get_output_embeddings().weight,
        lambda m: hooks.decoder_layers(m)[0].self_attn.q_proj.bias,
        lambda m: hooks.decoder_layers(m)[-1].mlp.down_proj.weight,
    ):
        model = make_model("qwen2")
        change(model).data += 0.1
        assert not same_base(bare, fingerprint(model))


def test_quantised_weights_have_one_part(family: str) -> None:
    bare = fingerprint(load_bare(family))

    def packed(model: nn.Module) -> None:
        for block in hooks.decoder_layers(model):
            for module in block.modules():
                weight = getattr(module, "weight", None)
                if isinstance(weight, nn.Parameter) and weight.ndim == 2:
                    data = torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8)
                    module.weight = nn.Parameter(data, requires_grad=False)

    def described(model: Any) -> None:
        model.config.quantization_config = {"quant_method": "gptq"}

    for quantise in (packed, described):
        model = make_model(family)
        quantise(model)
        found = fingerprint(model)
        assert found == bare.partition(".")[0]
        assert same_base(found, bare) and same_base(bare, found)


def test_two_parts_and_one() -> None:
    assert same_base("a.b", "a.b") and same_base("a", "a.b") and same_base("a.b", "a")
    assert not same_base("a.b", "a.c") and not same_base("a", "c.b") and not same_base("", "a.b")


def test_an_adapter_on_its_own_merged_base(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model, made = folders
    merged = PeftModel.from_pretrained(make_model("llama"), str(made)).merge_and_unload()
    merged.save_pretrained(write_model(tmp_path / "m"))
    assert loading.load(str(model), made, device="cpu").adapter is not None
    says = r"differs from it in the layers .* merged into it"
    with pytest.raises(IntrospectionError, match=says):
        loading.load(str(tmp_path / "m"), made, device="cpu")


def test_adapters_from_before_still_load(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model, made = folders
    old = Path(shutil.copytree(made, tmp_path / "old"))
    known = adapter_info.read_info(old).base_fingerprint
    edit_json(old / manifest.INFO, base_fingerprint=known.partition(".")[0])
    loaded = loading.load(str(model), old, device="cpu")
    assert loaded.adapter is not None and loaded.fingerprint_with_adapter.startswith(f"{known}+")
    edit_json(old / manifest.INFO, base_fingerprint=None)
    with pytest.raises(IntrospectionError, match="lacks or garbles a field"):
        loading.load(str(model), old, device="cpu")
