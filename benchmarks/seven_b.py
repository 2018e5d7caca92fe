"""The whole pipeline at DeepSeek-7B's shape on one GPU: each step, and the paper's experiment.

Ours and the way of the paper's script take turns in one run: extraction of the paper's words, one
row and 256 rows of generation with another vector in every row (eager, and recorded as a CUDA
graph), training per example of 64 tokens, and everything together. The script's experiment would
take many minutes: its extraction is timed whole, its training and its answers per piece, and the
pieces are added up.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import extraction as reading
from benchmarks import injection as writing
from benchmarks.record import Check, record
from benchmarks.shape import SHAPES, random_model
from benchmarks.timing import excess, in_turns, ratios, spread
from benchmarks.training import ACCUMULATE, plain_loop
from introspection.concepts.catalogue import paper
from introspection.evaluation import runner, suites
from introspection.injection import hooks
from introspection.injection.extraction import TEMPLATES, extract
from introspection.training.batches import stack_vectors
from introspection.training.config import TrainingJob
from introspection.training.loss import frozen_weights_in_bf16
from introspection.training.pipeline import RECIPES, build_adapter
from introspection.training.tokenization import Tokens
from introspection.training.trainer import Trainer

TOKENS = 32  # of an answer
EXAMPLE = 64  # tokens of a training example
ANSWERS = 340  # of the paper's evaluation


def extracting(loaded: Any, device: str, rounds: int, checks: list[Check]) -> float:
    """Returns the seconds of the script's way."""
    words = reading.NAMES[:58]

    def ours() -> None:
        extract(loaded, words, baseline=reading.BASELINE, site="last")

    sides = {"ours": ours, "script": lambda: reading.one_by_one(loaded)}
    in_turns(sides, 2, device)
    times = in_turns(sides, rounds, device)
    milliseconds = [1000 * t for t in times["ours"]]
    checks += [
        Check("extract 58 words, one template", spread(milliseconds), "ms", "< 40"),
        Check("gain over the script", spread(ratios(times["script"], times["ours"])), "x"),
    ]
    return spread(times["script"])["median"]


def generating(
    loaded: Any,
    device: str,
    rounds: int,
    few_rounds: int,
    many: int,
    checks: list[Check],
    figures: dict[str, Any],
) -> float:
    """Returns the seconds of one plain row, run as transformers does it unless told."""
    one = 0.0
    for recorded in (False, True):
        how = "recorded" if recorded else "eager"
        for rows in (1, 32, many):
            ways = writing.sides(loaded, rows, TOKENS, recorded)
            for way in ways.values():
                way()
            times = in_turns(ways, rounds if rows == many else few_rounds, device)
            figures[f"{how}, rows {rows}"] = {name: spread(v) for name, v in times.items()}
            one = one or spread(times["plain"])["median"]
            for what, above, below in (
                ("injection", "injected", "plain"),
                ("gate", "mixed", "injected"),
            ):
                label = f"{what} adds, {how}, rows {rows}, fastest rounds"
                checks.append(Check(label, excess(times[above], times[below]), "%", "< 2"))
            if rows > 1:
                more = [t / one for t in times["injected"]]
                bar = "< 1.5" if rows == many and recorded else None
                label = f"{rows} injected rows, {how}, against one plain row, eager"
                checks.append(Check(label, spread(more), "x", bar))
    return one


def same_length(count: int, concepts: tuple[str, ...]) -> list[Tokens]:
    """Examples of 64 tokens each, 12 of them trained, all with a thought."""
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 40_000, (count, EXAMPLE), generator=source).tolist()
    first = EXAMPLE - 13
    return [
        Tokens(tuple(row), 12, first, None, concepts[i % len(concepts)], False)
        for i, row in enumerate(ids)
    ]


def one_epoch(trainer: Trainer, optimizer: torch.optim.Optimizer) -> None:
    """Every step of a training that was trainer for one epoch."""
    for step in range(len(trainer.steps)):
        trainer.backward(step)
        torch.nn.utils.clip_grad_norm_(trainer.parameters.values(), 1.0)
        optimizer.step()


def training(
    loaded: Any, device: str, rounds: int, checks: list[Check], vectors: Any, batch_size: int
) -> None:
    names = paper().train
    config = replace(RECIPES["paper"][0], batch_size=batch_size, epochs=1)
    tokens = same_length(480, names)
    trainer = Trainer(loaded, tokens, vectors, names, config)
    for parameter in trainer.parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trainer.parameters.values(), lr=1e-6, fused=device == "cuda")
    loaded.hooks.remove()  # the plain side of the comparison took them off
    loaded.hooks = hooks.install(loaded.model, loaded.layer)
    with frozen_weights_in_bf16(loaded.model, loaded.layer):
        trainer.precompute()

        def ours() -> None:
            one_epoch(trainer, optimizer)

        ours()
        times = in_turns({"ours": ours}, rounds, device)
    per = [1000 * t / len(tokens) for t in times["ours"]]
    checks.append(Check(f"train an example of {EXAMPLE} tokens", spread(per), "ms", "< 2"))


def scripted(shape: str, device: str, tokenizer: Path | None, vectors: Any) -> float:
    """Seconds of the script's loop per example, on a model of its own (LoRA in every block)."""
    other = random_model(shape, device, tokenizer)
    plain = plain_loop(other, dict(zip(paper().train, vectors.to(device), strict=True)))
    pieces = same_length(12, paper().train)
    plain(pieces[:4], 1, ACCUMULATE)
    times = in_turns({"script": lambda: plain(pieces, 1, ACCUMULATE)}, 2, device)
    return spread(times["script"])["median"] / len(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="deepseek-7b")
    parser.add_argument("--tokenizer", type=Path, help="folder; the default model's unless given")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--few-rounds", type=int, default=25, help="rounds with 1 and 32 rows")
    parser.add_argument("--rows", type=int, default=256, help="of the largest generation")
    parser.add_argument("--batch-size", type=int, default=120, help="of the paper's recipe")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = random_model(options.shape, device, options.tokenizer)
    checks: list[Check] = []
    figures: dict[str, Any] = {}
    script_reading = extracting(loaded, device, options.rounds, checks)
    config, count = RECIPES["paper"]

    vectors = stack_vectors(loaded, paper().train, TEMPLATES[:1], "last", paper().baseline)
    script_example = scripted(options.shape, device, options.tokenizer, vectors[0])

    # The experiment first: it needs the bare model, and leaves a trained adapter for the rest.
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        config = replace(config, batch_size=options.batch_size)
        job = TrainingJob("paper", config, count, "last")
        build_adapter(loaded, Path(folder) / "adapter", Path(folder) / "run", job)
        trained = time.perf_counter() - began
        cases = suites.paper_cases()
        cases = (cases * math.ceil(ANSWERS / len(cases)))[:ANSWERS]
        runner.run(loaded, cases, Path(folder) / "answers", "benchmark", batch_size=256)
        whole = time.perf_counter() - began
    rounds = (options.rounds, options.few_rounds)
    answer = generating(loaded, device, *rounds, options.rows, checks, figures)
    script = script_reading + count * config.epochs * script_example + ANSWERS * answer
    checks += [
        Check("the paper's experiment", spread([whole]), "s", "< 10"),
        Check("gain over the script's loop", spread([script / whole]), "x", ">= 30"),
    ]
    figures |= {
        "train_seconds": trained,
        "script_seconds_added_up": script,
        "script_example": script_example,
        "answer_of_one_row": answer,
    }
    training(loaded, device, options.rounds, checks, vectors, options.batch_size)
    figures["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    record("seven_b", device, checks, figures, f"random {options.shape}")


if __name__ == "__main__":
    main()
