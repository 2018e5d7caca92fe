"""Concept vectors against a loop of one row at a time, and files of vectors."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.injection.activations import LAST_WORD_WEIGHT, read_residuals
from introspection.injection.extraction import TEMPLATES, UNSEEN_TEMPLATE, baseline_words, extract
from introspection.injection.plan import current_plan, make_plan, use_plan
from introspection.injection.speedups import prefix_cache
from introspection.injection.vectors import ConceptVectors, load_vectors, save_vectors
from introspection.models.loaded_model import LoadedModel
from tests.support.tiny import LAYER, WIDTH, load_bare, load_tiny, make_model, make_tokenizer

ROWS = [[5, 6], [9, 8, 7, 6, 5, 4, 11], [12], [20, 0, 3, 21], [30, 31, 32, 33]]
# The words of each row: one, one of four tokens, two, three.
WORDS = [[(1, 1)], [(2, 5)], [(0, 0)], [(0, 1), (3, 3)], [(0, 0), (1, 2), (3, 3)]]


@torch.no_grad()
def stream_of(model: Any, ids: list[int]) -> Tensor:
    """The residual stream [T, D] at the output of layer LAYER, by transformers' own means."""
    states = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
    return states[LAYER + 1][0]


@pytest.mark.parametrize("batch_size", [64, 2, 1])
def test_reading_a_batch_equals_reading_one_row(family: str, batch_size: int) -> None:
    told: list[int] = []
    model = load_tiny(family).model
    found, norms = read_residuals(model, ROWS, WORDS, batch_size, told.append)
    alone = [stream_of(load_bare(family), row) for row in ROWS]
    middle = (1 + LAST_WORD_WEIGHT) / 2
    loudness = {1: [1.0], 2: [1, LAST_WORD_WEIGHT], 3: [1, middle, LAST_WORD_WEIGHT]}
    expected = []
    for state, words in zip(alone, WORDS, strict=True):
        means = [state[a : b + 1].mean(0) for a, b in words]
        shares = loudness[len(words)]
        expected.append(sum(m * w for m, w in zip(means, shares, strict=True)) / sum(shares))
    expected = torch.stack(expected)
    assert torch.allclose(found, expected, atol=1e-4)
    assert found.dtype == torch.float32
    sizes = torch.cat([state[1:].norm(dim=-1) for state in alone])
    assert torch.allclose(norms.sort().values, sizes.sort().values, atol=1e-4)
    assert sum(told) == len(ROWS)
    assert max(told) <= batch_size
    assert current_plan.get() is None


@pytest.mark.parametrize(("common", "read_from"), [(40, 40), (40, 37), (1, 0), (20, 0)])
def test_what_a_batch_begins_with_is_run_once(family: str, common: int, read_from: int) -> None:
    """Where that saves enough, and never a token that is read."""
    start = [(7 * i) % 40 + 3 for i in range(common)]
    rows = [[*start, *row] for row in ROWS]
    words = [[(a + common, b + common) for a, b in spans] for spans in WORDS]
    words[3] = [(read_from, common)]
    model = load_tiny(family).model
    passes: list[tuple[int, ...]] = []
    embed = model.get_input_embeddings()
    handle = embed.register_forward_hook(lambda _m, args, _o: passes.append(tuple(args[0].shape)))
    found, norms = read_residuals(model, rows, words)
    handle.remove()
    if 4 * read_from >= prefix_cache.MIN_TOKENS_SAVED:
        assert passes == [(1, read_from), (5, common + 7 - read_from)]
    else:
        assert passes == [(5, common + 7)]
    alone = [stream_of(load_bare(family), row) for row in rows]
    one_by_one = [
        read_residuals(model, [row], [spans]) for row, spans in zip(rows, words, strict=True)
    ]
    assert torch.allclose(found, torch.cat([read for read, _ in one_by_one]), atol=1e-4)
    sizes = torch.cat([state[1:].norm(dim=-1) for state in alone])
    assert torch.allclose(norms.sort().values, sizes.sort().values, atol=1e-4)


def test_reading_a_bf16_model_gives_float32() -> None:
    model = make_model("llama", torch.bfloat16)
    hooks.install(model, LAYER)
    found, norms = read_residuals(model, ROWS, [[(3, 3)]] * 2 + [[(0, 0)]] * 3)
    assert found.dtype == norms.dtype == torch.float32
    assert torch.equal(found[1], stream_of(model, ROWS[1])[3].float())


# Each prompt by hand.
PROMPTS = {
    TEMPLATES[0]: "<|im_start|>user\nTell me about {}<|im_end|>\n<|im_start|>assistant\n",
    "Is {c} a user or an assistant": (
        "<|im_start|>user\nIs {} a user or an assistant<|im_end|>\n<|im_start|>assistant\n"
    ),
}
CONCEPTS = ["justice", "ocean", "about", "a quiet volcano", "user", "assistant", "né 茶", "HALT"]
BASELINE = ["bomb", "harbour", "thought"]


def by_hand(family: str, template: str, names: list[str], site: str) -> Tensor:
    tokenizer, rows = make_tokenizer(), []
    for name in names:
        prompt = PROMPTS[template].format(name)
        encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        state = stream_of(load_bare(family), encoded["input_ids"])
        at, means = PROMPTS[template].index("{}"), []
        for word in name.split():
            start = prompt.index(word, at)
            at = start + len(word)
            inside = [
                i
                for i, (a, b) in enumerate(encoded["offset_mapping"])
                if set(range(a, b)) & set(range(start, at))
            ]
            means.append(sum(state[i] for i in inside) / len(inside))
        if site == "concept":
            shares = torch.linspace(1, LAST_WORD_WEIGHT, len(means))
            rows.append(sum(m * w for m, w in zip(means, shares, strict=True)) / shares.sum())
        else:
            rows.append(state[inside[-1] if site == "concept_end" else -1])
    return torch.stack(rows)


@pytest.mark.parametrize("site", ["concept", "concept_end", "last"])
@pytest.mark.parametrize("template", PROMPTS)
def test_vectors_are_mean_differences_at_the_site(family: str, site: Any, template: str) -> None:
    loaded = load_tiny(family)
    got = extract(loaded, CONCEPTS, template, site, BASELINE)
    expected = by_hand(family, template, CONCEPTS, site)
    expected = expected - by_hand(family, template, BASELINE, site).mean(0)
    assert torch.allclose(got.magnitudes, expected.norm(dim=-1), rtol=1e-4)
    assert torch.allclose(got.vectors, expected / expected.norm(dim=-1, keepdim=True), atol=1e-4)
    assert torch.allclose(got.vectors.norm(dim=-1), torch.ones(len(CONCEPTS)), atol=1e-5)
    assert (got.names, got.layer, got.site) == (tuple(CONCEPTS), LAYER, site)
    assert (got.template, got.base) == (template, loaded.base)
    assert torch.equal(got["ocean"], got.vectors[1])
    assert got.get("nothing") is None
    other = extract(loaded, CONCEPTS, template, "last" if site != "last" else "concept", BASELINE)
    assert not torch.allclose(got.vectors, other.vectors, atol=0.1)


def test_norm_is_the_mean_over_all_but_first_tokens_of_the_baseline(llama: LoadedModel) -> None:
    got = extract(llama, ["ocean"], baseline=["bomb", "a quiet volcano"])
    tokenizer = make_tokenizer()
    sizes = [
        stream_of(load_bare("llama"), tokenizer(PROMPTS[TEMPLATES[0]].format(name))["input_ids"])[
            1:
        ]
        for name in ("bomb", "a quiet volcano")
    ]
    assert got.norm == pytest.approx(float(torch.cat(sizes).norm(dim=-1).mean()), rel=1e-5)


def test_norm_is_the_same_for_every_list_and_an_adapter_has_its_own(llama: LoadedModel) -> None:
    fresh = replace(llama, model=llama.model)  # nothing kept of earlier baselines
    lists = (["ocean"], ["a", "b c d", "justice"], CONCEPTS)
    for site in ("concept", "concept_end", "last"):
        norms = {extract(fresh, names, site=site, baseline=BASELINE).norm for names in lists}
        assert len(norms) == 1
    other = extract(fresh, ["ocean"], UNSEEN_TEMPLATE, baseline=BASELINE)
    assert other.norm not in norms
    info = SimpleNamespace(layer=LAYER, norm=7.25)
    assert extract(replace(llama, adapter=info), ["ocean"], baseline=BASELINE).norm == 7.25
    elsewhere = SimpleNamespace(layer=LAYER + 1, norm=7.25)
    assert {extract(replace(llama, adapter=elsewhere), ["ocean"], baseline=BASELINE).norm} == norms


def test_the_adapter_and_a_plan_do_not_move_the_vectors(llama: LoadedModel) -> None:
    quiet = extract(llama, ["ocean", "justice"], baseline=BASELINE)
    plan = make_plan(torch.ones(5, WIDTH), [(0, None)] * 5, [False] * 5, "cpu", torch.float32)
    with use_plan(plan):
        assert torch.equal(
            extract(llama, ["ocean", "justice"], baseline=BASELINE).vectors, quiet.vectors
        )
    bare = make_model("llama")
    hooks.install(bare, LAYER)
    again = extract(replace(llama, model=bare), ["ocean", "justice"], baseline=BASELINE)
    assert torch.equal(again.vectors, quiet.vectors)


def test_the_default_baseline_is_lindseys(llama: LoadedModel) -> None:
    words = baseline_words()
    assert len(words) == len(set(words)) == 99
    told: list[int] = []
    got = extract(llama, ["ocean"], progress=told.append)
    assert sum(told) == 100
    assert torch.equal(got.vectors, extract(llama, ["ocean"], baseline=words).vectors)


@pytest.mark.parametrize("harm", ["nan", "inf"])
def test_a_broken_model_is_refused(harm: str) -> None:
    model = make_model("llama")
    hooks.install(model, LAYER)
    hooks.decoder_layers(model)[LAYER].mlp.down_proj.weight[:] = float(harm)
    loaded = LoadedModel(model, make_tokenizer(), "x", "x", LAYER, 1.0)
    with pytest.raises(IntrospectionError, match="no usable concept vector"):
        extract(loaded, ["ocean"], baseline=BASELINE)


def test_a_concept_that_is_the_baseline_is_refused(llama: LoadedModel) -> None:
    with pytest.raises(IntrospectionError, match="equals the baseline"):
        extract(llama, ["bomb"], baseline=["bomb"])


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def vectors() -> ConceptVectors:
    drawn = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    return ConceptVectors(
        ("né 茶", "quiet volcano", 'a "b"'),
        torch.nn.functional.normalize(drawn, dim=-1),
        drawn.norm(dim=-1),
        12.345678,
        LAYER,
        "concept",
        TEMPLATES[1],
        "org/base",
        ("desk", "né"),
        "0123456789abcdef",
    )


def test_a_file_of_vectors_is_read_back(tmp_path: Path, vectors: ConceptVectors) -> None:
    save_vectors(vectors, tmp_path / "v.safetensors")
    got = load_vectors(tmp_path / "v.safetensors")
    assert torch.allclose(got.vectors, vectors.vectors, atol=5e-4)
    assert torch.allclose(got.vectors.norm(dim=-1), torch.ones(3), atol=1e-6)
    assert torch.equal(got.magnitudes, vectors.magnitudes)
    for name in ("names", "norm", "layer", "site", "template", "base", "baseline", "fingerprint"):
        assert getattr(got, name) == getattr(vectors, name), name
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["names"]) == list(vectors.names)
        assert file.get_tensor("vectors").dtype == torch.float16
    save_vectors(got, tmp_path / "again.safetensors")
    assert torch.equal(load_vectors(tmp_path / "again.safetensors").vectors, got.vectors)


class Bomb:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


def test_garbage_pickles_and_parts_of_a_file_are_refused(
    tmp_path: Path, vectors: ConceptVectors
) -> None:
    path = tmp_path / "v.safetensors"
    torch.save({"vectors": torch.ones(2, 2), "bomb": Bomb()}, path)
    bad = [path.read_bytes(), b"", b"garbage", b"\x00" * 4096, b"{}", pickle.dumps(Bomb())]
    save_vectors(vectors, path)
    whole = path.read_bytes()
    for content in (*bad, *(whole[:cut] for cut in range(1, len(whole), 23))):
        path.write_bytes(content)
        with pytest.raises(IntrospectionError, match="v.safetensors is not a readable file of con"):
            load_vectors(path)
    for name in ("missing", "."):
        with pytest.raises(IntrospectionError, match="is not a readable file of concept vectors"):
            load_vectors(tmp_path / name)


GOOD_META = {
    "names": '["a", "b"]',
    "norm": "3.0",
    "layer": "1",
    "site": "concept",
    "template": "t",
    "base": "b",
}
GOOD = {"vectors": torch.ones(2, WIDTH).half(), "magnitudes": torch.ones(2)}


@pytest.mark.parametrize(
    ("tensors", "meta"),
    [
        *[({}, {key: None}) for key in GOOD_META],
        *[({}, {"names": names}) for names in ('["a"]', "5", "null", "[", '["a", "b", "c"]')],
        *[({}, {"norm": norm}) for norm in ("nan", "inf", "-1", "0", "x")],
        ({}, {"layer": "one"}),
        ({"vectors": None}, {}),
        ({"magnitudes": None}, {}),
        ({"vectors": torch.ones(2)}, {}),
        ({"vectors": torch.ones(2, 2, 2)}, {}),
        ({"vectors": torch.full((2, WIDTH), torch.nan)}, {}),
        ({"magnitudes": torch.ones(3)}, {}),
        ({"magnitudes": torch.full((2,), torch.nan)}, {}),
    ],
    ids=str,
)
def test_a_safetensors_file_that_says_something_else_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor | None], meta: dict[str, str | None]
) -> None:
    path = tmp_path / "v.safetensors"
    save_file(GOOD, path, GOOD_META)
    assert load_vectors(path).names == ("a", "b")
    wrong_tensors = {k: v for k, v in (GOOD | tensors).items() if v is not None}
    wrong_meta = {k: v for k, v in (GOOD_META | meta).items() if v is not None}
    save_file(wrong_tensors, path, wrong_meta)
    with pytest.raises(IntrospectionError, match="is not a readable file"):
        load_vectors(path)
