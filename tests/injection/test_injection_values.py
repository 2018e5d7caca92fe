"""What may be injected, and into what: everything else is one sentence where the trial is made or
where it meets the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from introspection.concepts.catalogue import resolve
from introspection.demo.engine import diagnostics, trial_batch
from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.run_request import checked
from introspection.errors import IntrospectionError
from introspection.injection import hooks as injection
from introspection.injection.decoding import generation, readout
from introspection.injection.decoding.batching import encode_trials
from introspection.injection.decoding.detection_score import detection_scores
from introspection.injection.decoding.streaming import stream
from introspection.injection.extraction import extract
from introspection.injection.trials.message import conversation
from introspection.injection.trials.schedule import GENERATION, Schedule, after_tokens, span
from introspection.injection.trials.trial import Injection, Trial
from introspection.injection.vectors import random_direction
from introspection.models import loading
from introspection.models.loaded_model import LoadedModel
from tests.support.tiny import (
    DEPTH,
    LAYER,
    WIDTH,
    load_tiny,
    make_model,
    make_tokenizer,
    vector,
)
from tests.support.tiny_folder import write_model

UNIT = vector(0)
WRONG_VECTORS: dict[str, tuple[Any, str]] = {
    "twenty times as long": (UNIT * 20, "length 20 and not 1.*divide it by its length"),
    "a little too long": (UNIT * 1.01, "length 1.01 and not 1"),
    "in sixteen bits and too long": (UNIT.half() * 1.03, "length 1.03 and not 1"),
    "zero": (torch.zeros(WIDTH), "length 0 and not 1.*not zero"),
    "NaN": (UNIT * float("nan"), "NaN or infinite"),
    "several": (UNIT[None], r"tensor of shape \[1, 32\]"),
    "a number": (torch.tensor(1.0), r"tensor of shape \[\]"),
    "empty": (torch.zeros(0), r"tensor of shape \[0\]"),
    "whole numbers": (torch.eye(WIDTH, dtype=torch.long)[0], "torch.int64"),
    "complex": (UNIT.to(torch.complex64), "torch.complex64"),
    "without values": (UNIT.to("meta"), "on meta"),
    "a list": (UNIT.tolist(), "was given list"),
    "nothing": (None, "was given NoneType"),
    "with gradients": (UNIT.clone().requires_grad_(), r"vector\.detach\(\)"),
}


@pytest.mark.parametrize("name", WRONG_VECTORS)
def test_a_wrong_vector(name: str) -> None:
    wrong, says = WRONG_VECTORS[name]
    with pytest.raises(IntrospectionError, match=says):
        Injection(wrong, 1.0)


@pytest.mark.parametrize(
    "strength", [float("nan"), float("inf"), -float("inf"), "1", None, torch.ones(2), 1j, 10**400]
)
def test_a_wrong_strength(strength: Any) -> None:
    with pytest.raises(IntrospectionError, match="The strength of an injection is"):
        Injection(UNIT, strength)


@pytest.mark.parametrize("block", [-1, 1.0, "2", True])
def test_a_wrong_block(block: Any) -> None:
    with pytest.raises(IntrospectionError, match=f"There is no layer {block}"):
        Injection(UNIT, 1.0, GENERATION, block)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule("later"),  # type: ignore[arg-type]
        lambda: span(-1, 3),
        lambda: span(5, 3),
        lambda: after_tokens(-2),
    ],
)
def test_a_wrong_schedule(make: Callable[[], Schedule]) -> None:
    with pytest.raises(IntrospectionError, match="There is no schedule"):
        make()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_vector_in_another_precision_gives_the_same_dose(dtype: torch.dtype) -> None:
    for seed in range(50):
        given = Injection(vector(seed).to(dtype), 2.0)
        delta = encode_trials(load_tiny("llama"), [Trial(conversation("Hi"), given)])[0].delta
        assert delta is not None and delta.dtype == torch.float32
        assert delta.norm() / load_tiny("llama").norm == pytest.approx(2.0, abs=0.02)


def test_what_the_program_makes_itself_passes(llama: LoadedModel) -> None:
    found = extract(llama, ["ocean", "forest fire"], baseline=["bomb", "justice"]).vectors
    drawn = [random_direction(3, width) for width in (4096, 2)]
    for one in (*found, *found.half(), -found[0], *drawn):
        Injection(one, 0.0)
        Injection(one, -40)
    replace(Injection(found[0], 1.0), strength=2.0, layer=0)


def everything(loaded: LoadedModel, trial: Trial) -> list[Callable[[], object]]:
    return [
        lambda: generation.generate(loaded, [trial], 2),
        lambda: list(stream(loaded, [trial], 2)),
        lambda: detection_scores(loaded, [trial]),
        lambda: generation.generate_with_scores(loaded, [trial], [True], 2),
        lambda: readout.token_projections(loaded, [trial], ["Hi"], UNIT),
        lambda: readout.layer_projections(loaded, [trial], ["Hi"], UNIT),
    ]


def test_a_vector_of_another_model(family: str, tiny: Callable[[str], LoadedModel]) -> None:
    for width in (WIDTH - 1, WIDTH + 1, 1):
        trial = Trial(conversation("Hi"), Injection(random_direction(0, width), 1.0))
        for call in everything(tiny(family), trial):
            with pytest.raises(IntrospectionError, match=f"has {width} numbers, .* has {WIDTH}"):
                call()


def test_a_block_that_is_not_there(llama: LoadedModel) -> None:
    for call in everything(llama, Trial(conversation("Hi"), Injection(UNIT, 1.0, layer=DEPTH))):
        with pytest.raises(IntrospectionError, match=f"no layer 4: .* layers 0 to {DEPTH - 1}"):
            call()
    assert llama.hooks is not None
    for layer in (-1, DEPTH):
        with pytest.raises(IntrospectionError, match=f"Layer {layer} does not exist"):
            injection.move_hook(llama.model, llama.hooks, layer)


@pytest.fixture
def bare_llama() -> LoadedModel:
    model = make_model("llama")
    hooks = injection.install(model, LAYER)
    return LoadedModel(model, make_tokenizer(), "llama", "llama", LAYER, 1.0, hooks=hooks)


def test_the_adapter_of_a_bare_model(bare_llama: LoadedModel) -> None:
    given = Injection(UNIT, 1.0)
    for trial in (Trial(conversation("Hi")), Trial(conversation("Hi"), given)):
        for call in everything(bare_llama, trial):
            with pytest.raises(IntrospectionError, match=r"none: load one .*adapter=False"):
                call()
        for call in everything(bare_llama, replace(trial, adapter=False)):
            call()


def test_the_page_and_the_check_work_on_a_bare_model(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "m"))
    loaded = loading.load(folder, None, device="cpu")
    experiment = DemoModel(loaded)
    *_, answers = experiment.stream(checked("ocean", 1.0))
    assert [answer.adapter for answer in answers] == [False] * 3
    asked = [trial_batch.TrialSpec("one", resolve("ocean"), 1.0, "What is it?")]
    asked += [replace(asked[0], adapter=False)]
    *_, (trained, base) = trial_batch.run(loaded, asked, 4, 60)
    assert trained.text == base.text
    found = list(diagnostics.findings(lambda _: loaded, folder, "none"))
    assert all(one.ok for one in found) and found[-1].name == "report"
