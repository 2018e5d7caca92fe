"""Four libraries, each doing the same work: as its documentation does, and as fast as it allows.

repeng and steering-vectors tokenise finished prompts within the call; nnsight and TransformerLens are
given tokens.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer

from benchmarks.comparison.work import BASELINE, BATCH, Rows, Way, Work, unit_differences


def repeng(work: Work) -> dict[str, Way]:
    from repeng import ControlModel, ControlVector, DatasetEntry
    from repeng.extract import batched_get_hiddens

    tokenizer = AutoTokenizer.from_pretrained(work.folder)
    model = ControlModel(work.model(), [work.layer])
    kind = work.loaded.model.config.model_type

    def train() -> Tensor:
        concept, baseline = work.prompts[len(BASELINE)], work.prompts[: len(BASELINE)]
        pairs = [DatasetEntry(positive=concept, negative=other) for other in baseline]
        vector = ControlVector.train(
            model,
            tokenizer,
            pairs,
            hidden_layers=[work.layer],
            batch_size=BATCH,
            method="pca_center",
        )
        return normalize(torch.from_numpy(vector.directions[work.layer])[None], dim=-1)

    def read() -> Tensor:
        found = batched_get_hiddens(model, tokenizer, work.prompts, [work.layer], BATCH)
        return unit_differences(torch.from_numpy(found[work.layer]))

    def from_the_end(current: Tensor, control: Tensor) -> Tensor:
        """The operator of ``set_control``: the prompt's last token, then every new one."""
        current[:, -1] += control[:, -1]
        return current

    @torch.inference_mode()
    def one_by_one(rows: Rows) -> Tensor:
        written = []
        for row, delta in enumerate(rows.deltas):
            vector = ControlVector(kind, {work.layer: delta.float().cpu().numpy()})
            model.set_control(vector, 1.0, operator=from_the_end)
            written.append(model.generate(**rows.single(row), **work.options)[:, -work.tokens :])
        return torch.cat(written)

    @torch.inference_mode()
    def batch(rows: Rows) -> Tensor:
        model.set_raw_control({work.layer: rows.deltas[:, None]}, operator=from_the_end)
        out: Tensor = model.generate(**rows.batch, **work.options)
        return out[:, -work.tokens :]

    def reset(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Reading begins with no control set."""

        def run(*args: Any) -> Tensor:
            model.reset()
            return call(*args)

        return run

    return {
        "repeng": Way(
            "batched_get_hiddens, which its train calls, and a mean; set_control and generate row "
            "by row, with an operator that leaves earlier tokens alone",
            reset(read),
            one_by_one,
        ),
        "repeng, train of 1 concept": Way(
            "ControlVector.train, pca_center, 32 pairs of one concept and a baseline word: the "
            "first principal component, not the mean difference",
            reset(train),
            same=False,
        ),
        "repeng, raw control": Way(
            "set_raw_control with a tensor [B, 1, D]: its source allows it, its documentation does "
            "not mention it",
            generate=batch,
        ),
    }


def nnsight(work: Work) -> dict[str, Way]:
    from nnsight import TransformersModel

    model = TransformersModel(
        work.folder,
        task="text-generation",
        dispatch=True,
        device_map=str(work.device),
        dtype=work.loaded.model.dtype,
    )
    block = model.model.layers[work.layer]

    def read() -> Tensor:
        found = []
        for lists in work.batches():
            # It pads at the left.
            with torch.inference_mode(), model.trace(lists) as tracer:
                states = block.output[:, -1].save()
                tracer.stop()
            found.append(states)
        return unit_differences(torch.cat(found))

    def invokes(rows: Rows) -> Tensor:
        deltas, options = rows.deltas, work.options
        with torch.inference_mode(), model.generate(**options) as tracer:
            for row in range(len(deltas)):
                with tracer.invoke(rows.rows[row].ids):
                    for _step in tracer.iter[: work.tokens]:
                        block.output[:, -1] += deltas[row]
            with tracer.invoke():
                out = tracer.result.save()
        tokens: Tensor = out[:, -work.tokens :]
        return tokens

    def batch(rows: Rows) -> Tensor:
        deltas, options = rows.deltas, work.options
        with torch.inference_mode(), model.generate(rows.batch, **options) as tracer:
            for _step in tracer.iter[: work.tokens]:
                block.output[:, -1] += deltas
            out = tracer.result.save()
        tokens: Tensor = out[:, -work.tokens :]
        return tokens

    return {
        "nnsight": Way(
            "one trace per batch, stopped at block L; one generate with an invoke per row",
            read,
            invokes,
        ),
        "nnsight, one invoke": Way(
            "one generate of the padded batch, to which a tensor [B, D] is added", generate=batch
        ),
    }


def transformer_lens(work: Work) -> dict[str, Way]:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        work.folder, device=str(work.device), dtype=work.loaded.model.dtype
    )
    name = f"blocks.{work.layer}.hook_out"

    @torch.inference_mode()
    def read() -> Tensor:
        found = []
        for lists in work.batches():
            ids, mask, ends = work.right_padded(lists)
            _, cache = bridge.run_with_cache(
                ids, attention_mask=mask, names_filter=name, stop_at_layer=work.layer + 1
            )
            found.append(cache[name][torch.arange(len(ids)), ends])
        return unit_differences(torch.cat(found))

    def hooked(rows: Rows) -> Any:
        def add(state: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - it is passed by name
            state[:, -1] += rows.deltas
            return state

        return bridge.hooks(fwd_hooks=[(name, add)])

    @torch.inference_mode()
    def write(rows: Rows) -> Tensor:
        with hooked(rows):
            out: Tensor = bridge.generate(
                rows.ids,
                attention_mask=rows.mask,
                max_new_tokens=work.tokens,
                stop_at_eos=False,
                do_sample=False,
                return_type="tokens",
                verbose=False,
            )
        return out[:, -work.tokens :]

    @torch.inference_mode()
    def write_hf(rows: Rows) -> Tensor:
        with hooked(rows):
            out: Tensor = bridge.hf_generate(
                rows.ids, attention_mask=rows.mask, return_type="tokens", **work.options
            )
        return out[:, -work.tokens :]

    return {
        "transformer-lens": Way(
            "run_with_cache of padded batches, stopped after block L; one generate with a hook that "
            "adds a tensor [B, D]",
            read,
            write,
        ),
        "transformer-lens, hf_generate": Way(
            "the same hook under transformers' own generate", generate=write_hf
        ),
    }


def steering_vectors(work: Work) -> dict[str, Way]:
    from steering_vectors import (
        SteeringVector,
        extract_activations,
        record_activations,
        train_steering_vector,
    )

    tokenizer = AutoTokenizer.from_pretrained(work.folder)
    model, layer = work.model(), work.layer

    def train() -> Tensor:
        concept, baseline = work.prompts[len(BASELINE)], work.prompts[: len(BASELINE)]
        vector = train_steering_vector(
            model,
            tokenizer,
            [(concept, other) for other in baseline],
            layers=[layer],
            batch_size=BATCH,
        )
        return normalize(vector.layer_activations[layer].float().cpu()[None], dim=-1)

    def read() -> Tensor:
        # It takes pairs only, so the first half of all prompts stands beside the second.
        half = len(work.prompts) // 2
        pairs = list(zip(work.prompts[:half], work.prompts[half:], strict=True))
        first, second = extract_activations(
            model, tokenizer, pairs, layers=[layer], batch_size=BATCH
        )
        return unit_differences(torch.cat([*first[layer], *second[layer]]))

    @torch.inference_mode()
    def recorded() -> Tensor:
        found = []
        for lists in work.batches():
            ids, mask, ends = work.right_padded(lists)
            with record_activations(model, layer_nums=[layer]) as states:
                model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
            found.append(states[layer][0][torch.arange(len(ids)), ends])
        return unit_differences(torch.cat(found))

    @torch.inference_mode()
    def one_by_one(rows: Rows) -> Tensor:
        written = []
        for row, delta in enumerate(rows.deltas):
            # The index counts within each forward pass: the prompt's last token, then every new one.
            with SteeringVector({layer: delta}).apply(model, min_token_index=-1):
                written.append(
                    model.generate(**rows.single(row), **work.options)[:, -work.tokens :]
                )
        return torch.cat(written)

    @torch.inference_mode()
    def batch(rows: Rows) -> Tensor:
        def operator(_state: Tensor, _vector: Tensor) -> Tensor:
            return rows.deltas[:, None]

        vector = SteeringVector({layer: rows.deltas[0]})
        with vector.apply(model, operator=operator, min_token_index=-1):
            out: Tensor = model.generate(**rows.batch, **work.options)
        return out[:, -work.tokens :]

    return {
        "steering-vectors": Way(
            "extract_activations of 46 pairs and a mean; apply and generate, row by row",
            read,
            one_by_one,
        ),
        "steering-vectors, train of 1 concept": Way(
            "train_steering_vector, 32 pairs of one concept and a baseline word", train
        ),
        "steering-vectors, recorded": Way(
            "record_activations of padded batches, one row of logits each", recorded
        ),
        "steering-vectors, operator": Way(
            "apply with an operator that gives a tensor [B, 1, D] whatever the vector",
            generate=batch,
        ),
    }


LIBRARIES: dict[str, Callable[[Work], dict[str, Way]]] = {
    "repeng": repeng,
    "nnsight": nnsight,
    "transformer-lens": transformer_lens,
    "steering-vectors": steering_vectors,
}
