"""Examples per second of ``training.trainer.train`` against the training loop of the paper's script.

Ours is the whole function: tokens, the residual cache (read once, used for all epochs), every step,
the checkpoint. The script's loop: LoRA r 32 on q/k/v/o of every block, one example at a time, four
of them per optimizer step, forward and backward through all blocks, the logits of every token. It is
run in a kinder form here (tokens made beforehand, no dropout, no frozen parameters in the
optimizer), and once more at our batch size. Same examples, same threads, taking turns.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from benchmarks.record import Check, record
from benchmarks.timing import in_turns, ratios, spread
from introspection.concepts.catalogue import paper, resolve
from introspection.concepts.texts import texts
from introspection.injection import hooks
from introspection.injection.extraction import TEMPLATES
from introspection.models import loading
from introspection.models.presets import DEFAULT
from introspection.training.adapter import add_adapter
from introspection.training.batches import stack_vectors
from introspection.training.data.examples import paper_examples
from introspection.training.pipeline import RECIPES
from introspection.training.runs import Run
from introspection.training.tokenization import Tokens, tokenize
from introspection.training.trainer import train

ACCUMULATE = 4  # of the script


def plain_loop(
    loaded: Any, vectors: dict[str, Tensor]
) -> Callable[[Sequence[Tokens], int, int], None]:
    """The script's loop on a model of its own: call it with (examples, batch size, accumulation)."""
    loaded.hooks.remove()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    lora = LoraConfig(r=32, lora_alpha=64, target_modules=targets, task_type="CAUSAL_LM")
    model: Any = get_peft_model(loaded.model, lora)
    model.train()
    device = loaded.model.device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, fused=device.type == "cuda")
    deltas: list[Tensor] = []

    def inject(_block: Any, _args: Any, output: Any) -> Any:
        return output + deltas[0].to(output)

    hooks.decoder_layers(loaded.model)[loaded.layer].register_forward_hook(inject)
    nothing = torch.zeros(next(iter(vectors.values())).shape, device=device)

    def run(examples: Sequence[Tokens], batch: int, accumulate: int) -> None:
        for step, at in enumerate(range(0, len(examples), batch), 1):
            chosen = examples[at : at + batch]
            ids = torch.zeros(len(chosen), max(len(s.ids) for s in chosen), dtype=torch.long)
            labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
            for row, s in enumerate(chosen):
                ids[row, : len(s.ids)] = torch.tensor(s.ids)
                mask[row, : len(s.ids)] = 1
                labels[row, len(s.ids) - s.target : len(s.ids)] = torch.tensor(s.ids[-s.target :])
            rows = [vectors[s.concept] if s.concept else nothing for s in chosen]
            deltas[:] = [torch.stack(rows)[:, None] * loaded.norm]
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = model(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device) if batch > 1 else None,
                    labels=labels.to(device),
                    use_cache=False,
                ).loss
            (loss / accumulate).backward()
            if step % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()

    return run


def slices(examples: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive stretches of the examples, over and over."""
    return itertools.cycle([examples[i : i + size] for i in range(0, len(examples), size)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--device", help="cpu or cuda; the best there is unless given")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--examples", type=int, default=48, help="of ours per round, each 3 times")
    parser.add_argument("--plain", type=int, default=24, help="of the plain loop per round")
    config, count = RECIPES["paper"]
    parser.add_argument("--batch-size", type=int, default=config.batch_size)
    options = parser.parse_args()
    config = replace(config, batch_size=options.batch_size)
    names = paper().train
    concepts = [replace(resolve(name), name=name) for name in names]
    examples = paper_examples(0, texts("train"), concepts, count)
    loaded = loading.load(options.model, adapter=None, device=options.device)
    device = loaded.model.device.type
    vectors = stack_vectors(loaded, names, TEMPLATES[:1], "last", paper().baseline)
    add_adapter(loaded, config)
    other = loading.load(options.model, adapter=None, device=options.device)
    plain = plain_loop(other, dict(zip(names, vectors[0].to(device), strict=True)))
    tokens = tokenize(loaded.tokenizer, examples)
    stretches = slices(examples, options.examples)
    plain_1, plain_n = slices(tokens, options.plain), slices(tokens, options.plain)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), "benchmark", date.today())
            train(loaded, next(stretches), vectors, names, config, run)

    sides = {
        "ours": ours,
        "plain": lambda: plain(next(plain_1), 1, ACCUMULATE),
        "plain, our batch": lambda: plain(next(plain_n), config.batch_size, 1),
    }
    in_turns(sides, 1, device)
    times = in_turns(sides, options.rounds, device)
    done = {name: options.plain for name in sides} | {"ours": options.examples * config.epochs}
    rate = {name: [done[name] / t for t in values] for name, values in times.items()}
    gain = {side: ratios(rate["ours"], rate[side]) for side in ("plain", "plain, our batch")}
    record(
        "training",
        device,
        [
            Check("ours", spread(rate["ours"]), "examples/s"),
            Check("the script's loop", spread(rate["plain"]), "examples/s"),
            Check("the same in our batches", spread(rate["plain, our batch"]), "examples/s"),
            Check("gain over the script's loop", spread(gain["plain"]), "x", ">= 5"),
            Check("gain over the same in our batches", spread(gain["plain, our batch"]), "x"),
        ],
        {
            "batch_size": config.batch_size,
            "epochs": config.epochs,
            "examples_per_round": done,
            "distinct_of_all": len({s.ids for s in tokens}) / len(tokens),
            "mean_tokens": sum(len(s.ids) for s in tokens) / len(tokens),
            "mean_trained_tokens": sum(s.target for s in tokens) / len(tokens),
        },
        options.model,
    )


if __name__ == "__main__":
    main()
