"""The residual stream at every layer: the same reading as the strip's, and the thought where it is."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.engine.trial_batch import TrialResult
from introspection.demo.tabs.many import figures, sweeps, tables
from introspection.injection.decoding.readout import (
    LayerProjections,
    layer_projections,
    token_projections,
)
from introspection.injection.plan import make_plan, use_plan
from introspection.injection.trials.encoding import encode
from introspection.injection.trials.message import conversation
from introspection.injection.trials.prompts import prompt_ids
from introspection.injection.trials.trial import Injection, Trial
from introspection.models.loaded_model import LoadedModel
from tests.support.page import ASKED, INFO, last
from tests.support.tiny import LAYER, load_tiny, make_tokenizer

TEXTS = ["I detect a quiet harbour"] * 4


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return replace(load_tiny("llama"), adapter=INFO, tokenizer=make_tokenizer())


def trials(loaded: LoadedModel, strength: float = 1.5) -> list[Trial]:
    vector = loaded.vector("ocean")
    return [
        Trial(conversation(ASKED), Injection(vector, strength)),
        Trial(conversation(ASKED), Injection(vector, strength), adapter=False),
        Trial(conversation(ASKED)),
        Trial(conversation(ASKED), Injection(vector, strength, layer=LAYER + 1)),
    ]


def test_the_map_is_the_strip_at_the_block_of_the_adapter(loaded: LoadedModel) -> None:
    vector, asked = loaded.vector("ocean"), trials(loaded)[:3]
    strip = token_projections(loaded, asked, TEXTS[:3], vector)
    for tokens, one in zip(strip, layer_projections(loaded, asked, TEXTS[:3], vector), strict=True):
        assert one.layer == LAYER and one.tokens == tuple(token.text for token in tokens)
        assert one.prompt == sum(token.prompt for token in tokens)
        assert one.projections[LAYER] == pytest.approx([t.signal for t in tokens], abs=1e-4)
        inside = [i for i, token in enumerate(tokens) if token.injected]
        assert one.injected == ((inside[0], inside[-1]) if inside else None)


def test_below_the_block_nothing_is_moved_and_above_it_something_is(loaded: LoadedModel) -> None:
    vector = loaded.vector("ocean")
    asked = [*trials(loaded), Trial(conversation(ASKED), adapter=False)]
    thought, base, clean, higher, base_clean = layer_projections(
        loaded, asked, [*TEXTS, TEXTS[0]], vector
    )
    depth = len(loaded.model.get_decoder().layers)
    assert all(len(m.projections) == len(m.cosines) == depth for m in (thought, base, clean))
    assert thought.injected == base.injected == higher.injected and clean.injected is None
    first, last_ = thought.injected or (0, 0)
    assert last_ == len(thought.tokens) - 1
    for one, silent, block in (
        (thought, clean, LAYER),
        (higher, clean, LAYER + 1),
        (base, base_clean, LAYER),
    ):
        assert one.layer == block
        for b in range(depth):
            moved = torch.tensor(one.projections[b]) - torch.tensor(silent.projections[b])
            assert moved[: first if b >= block else None].abs().max() < 1e-4, (b, block)
        assert all(abs(c) <= 1.0001 for row in one.cosines for c in row)
    for b in range(LAYER + 1):  # the adapter stands above it
        assert base_clean.projections[b] == pytest.approx(clean.projections[b], abs=1e-4)
    at = torch.tensor(thought.projections[LAYER]) - torch.tensor(clean.projections[LAYER])
    assert at[first:].tolist() == pytest.approx([1.5] * (last_ + 1 - first), abs=1e-3)
    above = torch.tensor(thought.projections[LAYER + 1]) - torch.tensor(base.projections[LAYER + 1])
    assert above[first:].abs().max() > 1e-3, "the adapter stands above the layer"


def test_a_map_is_made_of_what_the_model_sees_while_it_writes(loaded: LoadedModel) -> None:
    """Oracle: the plain model's own hidden states, with the delta added by hand at layer L."""
    vector = loaded.vector("ocean")
    asked = [
        Trial(conversation(ASKED), Injection(vector, 1.5), adapter=False),
        Trial(conversation(ASKED)),
    ]
    one = layer_projections(loaded, asked, TEXTS[:2], vector)[0]
    row = encode(loaded.tokenizer, asked[0], loaded.norm)
    ids = [*row.ids, *loaded.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]]
    states = []

    def add(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        moved = output.clone()
        assert row.delta is not None
        moved[:, row.positions[0] :] += row.delta
        return moved

    blocks = loaded.model.get_decoder().layers
    hooks = [blocks[LAYER].register_forward_hook(add)]
    hooks += [
        block.register_forward_hook(lambda _m, _a, out: states.append(out[0])) for block in blocks
    ]
    base = make_plan(None, (), [False], "cpu", torch.float32)
    with torch.no_grad(), use_plan(base):
        loaded.model.get_decoder()(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    start = len(ids) - len(one.tokens)
    for block, state in enumerate(states):
        got = torch.tensor(one.projections[block])
        along = state[start:] @ vector
        # The same up to the centre and the unit of the layer.
        got, along = got - got[0], along - along[0]
        scale = float((got @ along) / (along @ along))
        assert scale > 0 and torch.allclose(got, along * scale, atol=1e-4), block


def test_the_experiment_draws_and_tells_it(loaded: LoadedModel) -> None:
    experiment = DemoModel(loaded)
    lines = sweeps.plan(experiment, "map", experiment.request("ocean", 2.0))
    answers = last(experiment, lines, 6, maps=True)
    maps = [answer.map for answer in answers]
    assert all(isinstance(one, LayerProjections) for one in maps)
    depth = len(loaded.model.get_decoder().layers)
    figure = figures.layers(answers)
    assert figure is not None and len(figure.data) == 3
    for trace, one in zip(figure.data, maps, strict=True):
        assert one is not None
        assert len(trace.z) == depth and len(set(trace.x)) == len(trace.x) == len(one.tokens)
        assert (trace.zmin, trace.zmax) == (-2.0, 2.0)
    frames = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert len(frames) == 2 and {(f.y0, f.y1) for f in frames} == {(LAYER - 0.5, LAYER + 0.5)}
    assert maps[0] and maps[0].injected and frames[0].x0 == maps[0].injected[0] - 0.5
    table = tables.layers_table(answers)
    cells = re.findall(r'<td class="number">([-\d.]+)</td>', table)
    assert len(cells) == 3 * depth and table.count("the vector is added here") == 1
    written = maps[0].projections[LAYER][maps[0].prompt - 1 :]
    assert float(cells[3 * LAYER]) == pytest.approx(sum(written) / len(written), abs=0.006)
    rows = json.loads(sweeps.as_json(experiment, answers))
    assert rows[0]["every_block"]["tokens"] == list(maps[0].tokens)
    assert rows[0]["every_block"]["projections"][0][0] == round(maps[0].projections[0][0], 3)
    without = last(experiment, lines, 6)
    assert figures.layers(without) is None
    assert [answer.text for answer in without] == [answer.text for answer in answers]


def test_an_answer_of_no_words_has_a_map_too(loaded: LoadedModel) -> None:
    vector = loaded.vector("ocean")
    one = layer_projections(loaded, trials(loaded)[:1], [""], vector)[0]
    shown = min(12, len(prompt_ids(loaded.tokenizer, conversation(ASKED))))
    assert one.prompt == len(one.tokens) == shown
    assert one.injected == (one.prompt - 1, one.prompt - 1)
    experiment = DemoModel(loaded)
    (line, *_) = sweeps.plan(experiment, "map", experiment.request("ocean", 1.0))
    assert "nan" not in tables.layers_table([TrialResult(line, map=one)])
