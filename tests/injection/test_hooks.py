"""The hook, the gate, the plan, early exit and resuming, against references that share no code."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from introspection.errors import IntrospectionError
from introspection.injection import hooks as injection
from introspection.injection import self_test as self_testing
from introspection.injection.patching import start_at_layer
from introspection.injection.plan import InjectionPlan, current_plan, make_plan, use_plan
from introspection.models.adapters import lora
from introspection.models.adapters.adapter_info import AdapterSpec
from tests.support.tiny import (
    DEPTH,
    FAMILIES,
    LAYER,
    WIDTH,
    hook_count,
    make_adapted,
    make_model,
    overrides,
    vector,
)

IDS = torch.randint(5, 330, (4, 9), generator=torch.Generator().manual_seed(2))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def plan(
    delta: Tensor | None,
    spans: list[tuple[int, int | None]] | None = None,
    adapter: list[bool] | None = None,
    dtype: torch.dtype = torch.float32,
) -> InjectionPlan:
    return make_plan(delta, spans or [(0, None)] * len(IDS), adapter, "cpu", dtype)


def thought(seed: int = 0, size: float = 30.0) -> Tensor:
    """A loud delta [B, D] for all four rows, each its own."""
    return torch.stack([vector(seed + row) for row in range(len(IDS))]) * size


@torch.no_grad()
def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits


def prepared(family: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any, Any]:
    """The bare model, one with an adapter, one with adapter and hooks; nobody else has them."""
    installed = make_adapted(family, dtype)
    injection.install(installed, LAYER)
    return make_model(family, dtype), make_adapted(family, dtype), installed


@contextmanager
def written_by_hand(
    model: Any, delta: Tensor, spans: list[tuple[int, int | None]]
) -> Iterator[None]:
    """An independent injection: adds to the named tokens one by one."""

    def write(_block: Any, _args: Any, output: Any) -> Any:
        hidden = (output if isinstance(output, Tensor) else output[0]).clone()
        for row, (first, last) in enumerate(spans):
            for token in range(hidden.shape[1]):
                if token >= first and (last is None or token <= last):
                    hidden[row, token] += delta[row].to(hidden.dtype)
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    stack = model.base_model
    stack = stack.layers if hasattr(stack, "layers") else stack.h
    handle = stack[LAYER].register_forward_hook(write)
    try:
        yield
    finally:
        handle.remove()


# --- the plan ---------------------------------------------------------------------------------


@DTYPES
def test_install_alone_changes_no_bit(family: str, dtype: torch.dtype) -> None:
    model = make_adapted(family, dtype)
    before, hooks = logits(model), hook_count(model)
    installed = injection.install(model, LAYER)
    assert torch.equal(logits(model), before)
    assert hook_count(model) == hooks + len(installed.handles)
    installed.remove()
    assert hook_count(model) == hooks
    assert torch.equal(logits(model), before)


@DTYPES
def test_each_row_gets_its_own_delta_at_its_own_tokens(family: str, dtype: torch.dtype) -> None:
    _, adapted, model = prepared(family, dtype)
    delta = thought()
    delta[3] = 0
    spans: list[tuple[int, int | None]] = [(8, 8), (4, None), (2, 5), (0, None)]
    plain = logits(adapted)
    with written_by_hand(adapted, delta, spans):
        expected = logits(adapted)
    with use_plan(plan(delta, spans, dtype=dtype)):
        got = logits(model)
    assert torch.equal(got, expected)
    assert torch.equal(got[3], plain[3]), "a zero row is the plain model"
    for row, (first, _) in enumerate(spans[:3]):
        assert torch.equal(got[row, :first], plain[row, :first])
        assert not torch.allclose(got[row, first:], plain[row, first:])
    assert torch.equal(logits(model), plain), "the plan is forgotten"


@DTYPES
def test_gate_rows_are_the_base_and_the_adapter(family: str, dtype: torch.dtype) -> None:
    bare, adapted, model = prepared(family, dtype)
    base, tuned = logits(bare), logits(adapted)
    assert not torch.allclose(base, tuned)
    for module in adapted.modules():  # PEFT's own switch agrees with the model that never had it
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(False)
    assert torch.equal(logits(adapted), base)
    rows = [False, True, False, True]
    for adapter, expected in (
        ([False] * 4, base),
        ([True] * 4, tuned),
        (None, tuned),
        (rows, torch.where(torch.tensor(rows)[:, None, None], tuned, base)),
    ):
        with use_plan(plan(None, adapter=adapter, dtype=dtype)):
            assert torch.equal(logits(model), expected), adapter
        with use_plan(plan(torch.zeros(4, WIDTH), adapter=adapter, dtype=dtype)):
            assert torch.equal(logits(model), expected), adapter


@pytest.mark.parametrize("scaling", [2.0, 1 / 3, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_gate_keeps_every_scaling_to_the_bit(dtype: torch.dtype, scaling: float) -> None:
    """bf16 has no third, so the gate times the scaling is not always one tensor."""
    bare, adapted, model = prepared("llama", dtype)
    for which in (adapted, model):
        for module in which.modules():
            if isinstance(module, BaseTunerLayer):
                module.scaling["default"] = scaling
    injection.install(model, LAYER)
    rows = [False, True, True, False]
    expected = torch.where(torch.tensor(rows)[:, None, None], logits(adapted), logits(bare))
    with use_plan(plan(None, adapter=rows, dtype=dtype)):
        assert torch.equal(logits(model), expected)


def test_a_removed_gate_leaves_the_scaling_that_peft_set() -> None:
    model = make_adapted("llama")
    updates = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    before = [dict(module.scaling) for module in updates]
    installed = injection.install(model, LAYER)
    injection.install(model, LAYER).remove()
    updates[0].delete_adapter("default")
    installed.remove()
    assert [dict(module.scaling) for module in updates[1:]] == before[1:]
    assert all(type(s) is float for module in updates for s in module.scaling.values())


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_a_plan_with_the_wrong_number_of_rows_raises(llama: Any, rows: int) -> None:
    delta = make_plan(torch.ones(rows, WIDTH), [(0, None)] * rows, None, "cpu", torch.float32)
    gate = make_plan(None, [], [False] * rows, "cpu", torch.float32)
    for wrong in (delta, gate):
        with pytest.raises(RuntimeError, match=f"{rows} rows"), use_plan(wrong):
            logits(llama.model)
    assert current_plan.get() is None


@pytest.mark.parametrize("layer", [-1, DEPTH, 99])
def test_a_layer_that_does_not_exist_raises(layer: int) -> None:
    model = make_model("llama")
    with pytest.raises(IntrospectionError, match=f"layers 0 to {DEPTH - 1}"):
        injection.install(model, layer)
    assert hook_count(model) == 0


def test_a_model_without_blocks_raises() -> None:
    class Odd(torch.nn.Module):
        def get_decoder(self) -> torch.nn.Module:
            return torch.nn.Linear(2, 2)

    with pytest.raises(IntrospectionError, match="Linear has no list of decoder layers"):
        injection.decoder_layers(Odd())


def test_a_block_without_positions_raises() -> None:
    model = make_model("llama")
    injection.install(model, LAYER)
    block = injection.decoder_layers(model)[LAYER]
    with (
        use_plan(plan(thought())),
        pytest.raises(RuntimeError, match="no position_ids"),
    ):
        injection._injection_hook(block, (), {}, torch.zeros(4, 9, WIDTH))


# --- early exit -------------------------------------------------------------------------------


@torch.no_grad()
def stream_of(model: Any) -> Tensor:
    return model(IDS, output_hidden_states=True, use_cache=False).hidden_states[LAYER + 1]


def test_capture_reads_the_stream_and_stops(family: str, tiny: Callable, bare: Callable) -> None:
    model = tiny(family).model
    expected = stream_of(bare(family))
    ran: list[int] = []
    above = injection.decoder_layers(model)[LAYER + 1].register_forward_pre_hook(
        lambda *_: ran.append(1)
    )
    try:
        with injection.capture_residual() as hidden:
            logits(model)
            pytest.fail("the forward pass goes on above layer L")
    finally:
        above.remove()
    assert len(hidden) == 1
    assert torch.equal(hidden[0], expected), (hidden[0] - expected).abs().max()
    assert not ran


def test_the_tensor_read_is_the_tensor_written(family: str, tiny: Callable, bare: Callable) -> None:
    """Reading comes before adding; the logits are those of (what was read) + (what was added)."""
    model, delta, spans = tiny(family).model, thought(), [(2, None)] * 4
    clean = stream_of(bare(family))
    with use_plan(plan(delta, spans)):
        injected = logits(model)
        with injection.capture_residual() as hidden:
            logits(model)
    assert len(hidden) == 1
    assert torch.equal(hidden[0], clean), "captured before adding, and not changed afterwards"
    moved = hidden[0].clone()
    moved[:, 2:] += delta[:, None]
    with start_at_layer(model, LAYER, moved):
        assert torch.equal(logits(model), injected)


# --- resuming ---------------------------------------------------------------------------------


def gradients(model: Any) -> dict[str, Tensor]:
    """LoRA gradients of a loss over all tokens, and the logits, in the context of the caller."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    scores = model(input_ids=IDS, use_cache=False).logits
    scores.log_softmax(-1)[..., 7].mean().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.requires_grad_(False)
    return found | {"logits": scores.detach()}


@pytest.mark.parametrize("injected", [False, True])
def test_resuming_equals_the_full_forward(family: str, injected: bool) -> None:
    _, adapted, model = prepared(family)
    spans: list[tuple[int, int | None]] = [(8, 8), (4, None), (2, 5), (0, None)]
    delta = thought() if injected else torch.zeros(4, WIDTH)
    with written_by_hand(adapted, delta, spans):
        expected = gradients(adapted)
    with torch.no_grad(), injection.capture_residual() as hidden:
        model(input_ids=IDS, use_cache=False)

    ran: list[int] = []
    stack = injection.decoder_layers(model)
    watched = [m for block in stack[: LAYER + 1] for m in block.modules() if m is not block]
    handles = [module.register_forward_pre_hook(lambda *_: ran.append(1)) for module in watched]
    with start_at_layer(model, LAYER, hidden[0]), use_plan(plan(delta, spans)):
        got = gradients(model)
    for handle in handles:
        handle.remove()
    assert not ran, "the lower layers are not run"
    assert got.keys() == expected.keys()
    assert len(got) > 4
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
        assert value.abs().max() > 0, name
    assert overrides(model) == []
    assert torch.equal(logits(model), logits(adapted))


def test_resuming_puts_a_wrapped_forward_back(llama: Any) -> None:
    stack = injection.decoder_layers(llama.model)
    wrapped = {0: stack[0].forward, LAYER: stack[LAYER].forward}
    before = logits(llama.model)
    try:
        for i, forward in wrapped.items():
            stack[i].forward = forward  # as accelerate does
        with start_at_layer(llama.model, LAYER, torch.zeros(4, 9, WIDTH)):
            assert not torch.allclose(logits(llama.model), before)
        assert [vars(block).get("forward") for block in stack] == [*wrapped.values(), None, None]
        assert torch.equal(logits(llama.model), before)
    finally:
        for block in stack:
            vars(block).pop("forward", None)


# --- threads ----------------------------------------------------------------------------------


def test_two_threads_do_not_see_each_others_plans(llama: Any) -> None:
    """With threads that are switched as often as Python can."""
    model, rounds, barrier = llama.model, 60, threading.Barrier(4, timeout=60)
    plans = [
        plan(thought(0), [(1, 3)] * 4),
        plan(thought(9), [(5, None)] * 4, [False, True, False, True]),
    ]
    expected = []
    for each in plans:
        with use_plan(each):
            expected.append(logits(model))
    plain = logits(model)
    with injection.capture_residual() as read:
        logits(model)

    def planned(which: int) -> None:
        for _ in range(rounds):
            barrier.wait()
            with use_plan(plans[which]):
                assert torch.equal(logits(model), expected[which])

    def without() -> None:
        for _ in range(rounds):
            barrier.wait()
            assert torch.equal(logits(model), plain)

    def reading() -> None:
        for _ in range(rounds):
            barrier.wait()
            with injection.capture_residual() as hidden:
                logits(model)
            assert torch.equal(hidden[0], read[0])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(planned, 0), pool.submit(planned, 1)]
            for job in (*jobs, pool.submit(without), pool.submit(reading)):
                job.result()
    finally:
        sys.setswitchinterval(interval)


# --- exceptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_an_exception_leaves_nothing_behind(family: str, tiny: Callable) -> None:
    model = tiny(family).model
    before, hooks = logits(model), hook_count(model)

    def explode(*_: Any) -> None:
        raise ZeroDivisionError

    first = injection.decoder_layers(model)[0]  # replayed when resuming, but its hooks still run
    handle = first.register_forward_pre_hook(explode)
    with (
        pytest.raises(ZeroDivisionError),
        use_plan(plan(thought())),
        start_at_layer(model, LAYER, torch.zeros(4, 9, WIDTH)),
        injection.capture_residual(),
    ):
        logits(model)
    handle.remove()
    assert current_plan.get() is None
    assert overrides(model) == []
    assert hook_count(model) == hooks
    assert torch.equal(logits(model), before)


# --- the self-test ----------------------------------------------------------------------------


@DTYPES
def test_self_test_passes_and_leaves_no_hook(family: str, dtype: torch.dtype) -> None:
    _, _, model = prepared(family, dtype)
    hooks = hook_count(model)
    self_testing.self_test(model, LAYER)
    self_testing.self_test(model, LAYER, norm=500.0)
    assert hook_count(model) == hooks
    assert current_plan.get() is None


@DTYPES
@pytest.mark.parametrize(
    "harm", ["removed", "replaced", "below", "above", "twice", "half", "every token", "no forward"]
)
def test_self_test_catches_a_dead_hook(
    family: str, dtype: torch.dtype, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(family, dtype)
    # One token with a massive activation, as every large model has: it must not hide a dead hook.
    model.get_input_embeddings().weight[5] *= 3000
    fresh = copy.deepcopy(injection.decoder_layers(model)[LAYER])
    installed = injection.install(model, {"below": LAYER - 1, "above": LAYER + 1}.get(harm, LAYER))
    if harm == "removed":
        installed.remove()
    elif harm == "replaced":
        injection.decoder_layers(model)[LAYER] = fresh
    elif harm == "twice":
        injection.install(model, LAYER)
    elif harm == "half":
        monkeypatch.setattr(self_testing, "make_plan", lambda d, *rest: make_plan(d / 2, *rest))
    elif harm == "every token":
        everywhere = [(0, None)] * 2
        monkeypatch.setattr(
            self_testing, "make_plan", lambda d, _, *rest: make_plan(d, everywhere, *rest)
        )
    elif harm == "no forward":  # a compiled or fused stack that never calls its layers
        for block in injection.decoder_layers(model):
            monkeypatch.setattr(block, "_call_impl", block.forward)
    with pytest.raises(IntrospectionError, match=f"hook on layer {LAYER} is dead"):
        self_testing.self_test(model, LAYER)
    assert current_plan.get() is None


@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning")  # PEFT mends it for GPT-2
def test_our_lora_sits_above_the_layer_in_every_family(family: str) -> None:
    model = make_model(family)
    lora.add(model, AdapterSpec(LAYER, DEPTH, "org/base", 4, FAMILIES[family][1]))
    stack = injection.decoder_layers(model)
    tuned = [any(isinstance(m, LoraLayer) for m in block.modules()) for block in stack]
    assert tuned == [i > LAYER for i in range(DEPTH)]
