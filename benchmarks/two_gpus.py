"""Two GPUs against one at DeepSeek-7B's shape: a model split over both, then training and evaluation.

A random model is saved, loaded once on one GPU and once over both, and asked the same question with
a thought in every row. Then the same training and evaluation are done by one process and after it
by two under ``accelerate launch``; each loads a model of its own and says what the work took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import Check, record
from benchmarks.seven_b import one_epoch, same_length
from benchmarks.shape import SHAPES, random_model
from benchmarks.timing import ratios, spread
from introspection.concepts.catalogue import paper
from introspection.concepts.texts import DEFAULT_QUESTION
from introspection.evaluation import runner, suites
from introspection.injection.decoding.generation import generate
from introspection.injection.extraction import TEMPLATES
from introspection.injection.trials.message import conversation
from introspection.injection.trials.trial import Injection, Trial
from introspection.models import distributed
from introspection.models.loading import load
from introspection.training.adapter import add_adapter
from introspection.training.batches import stack_vectors
from introspection.training.loss import frozen_weights_in_bf16
from introspection.training.pipeline import RECIPES
from introspection.training.trainer import Trainer

# Examples and answers, and how many of them a step and a batch of one process have.
SIZES = {"deepseek-7b": (1_920, 2_048, 240, 256), "small": (48, 64, 12, 8)}
TOKENS = 32


def worker(shape: str, tokenizer: Path | None, rounds: int, out: Path) -> None:
    """One process: a training step after another, then the evaluation; rank 0 writes the times."""
    device = distributed.device()
    examples, answers, step_size, batch = SIZES[shape]
    loaded = random_model(shape, device, tokenizer)
    names = paper().train
    vectors = stack_vectors(loaded, names, TEMPLATES[:1], "last", paper().baseline)
    config = replace(RECIPES["paper"][0], batch_size=step_size, epochs=1)
    add_adapter(loaded, config)
    trainer = Trainer(loaded, same_length(examples, names), vectors, names, config)
    for parameter in trainer.parameters.values():
        parameter.requires_grad_(True)
    times: dict[str, list[float]] = {"training": [], "evaluation": []}
    # The weights stay as they are: one process and two must give the same answers afterwards.
    optimizer = torch.optim.AdamW(trainer.parameters.values(), lr=0.0)

    def training() -> None:
        trainer.precompute()
        one_epoch(trainer, optimizer)

    few = suites.paper_cases()
    # Each copy in a slightly other dose, so that every case is a case of its own.
    copies = range(answers // len(few) + 1)
    cases = [replace(c, strength=c.strength + 0.001 * copy) for copy in copies for c in few]
    cases = cases[:answers]
    for i in range(rounds + 1):  # the first is for warming up
        with frozen_weights_in_bf16(loaded.model, loaded.layer):
            times["training"].append(_seconds(training, device))
        for parameter in trainer.parameters.values():
            parameter.grad = None
        folder = out.parent / f"{out.stem}-{i}"
        asked = cases if i else cases[: batch * distributed.world_size()]
        times["evaluation"].append(
            _seconds(
                lambda asked=asked, folder=folder: runner.run(
                    loaded, asked, folder, "two_gpus", batch_size=batch
                ),
                device,
            )
        )
    if distributed.rank() == 0:
        out.write_text(json.dumps({name: taken[1:] for name, taken in times.items()}))


def _seconds(work: Any, device: str) -> float:
    """Until every process is done."""
    distributed.barrier()
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    distributed.barrier()
    return time.perf_counter() - began


def launched(processes: int, options: argparse.Namespace, out: Path) -> dict[str, list[float]]:
    launch = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--num_processes"]
    launch += [str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0"] + ([] if torch.cuda.is_available() else ["--cpu"])
    own = ["benchmarks.two_gpus", "--shape", options.shape, "--rounds", str(options.rounds)]
    own += ["--tokenizer", str(options.tokenizer)] if options.tokenizer else []
    command = [*launch, "--module"] if processes > 1 else ["-m"]
    subprocess.run([sys.executable, *command, *own, "--worker", str(out)], check=True)
    return dict(json.loads(out.read_text()))


def same_records(one: Path, two: Path) -> dict[str, float]:
    """How many answers to the same case are the same text, and whether the cases are the same."""
    a, b = (
        {
            line["key"]: line
            for line in map(json.loads, (path / "records.jsonl").read_text().splitlines())
        }
        for path in (one, two)
    )
    same = sum(a[key]["text"] == b[key]["text"] for key in a if key in b)
    return {"one": len(a), "two": len(b), "cases_in_both": len(a.keys() & b.keys()), "same": same}


def split(shape: str, tokenizer: Path | None) -> dict[str, float]:
    """The tokens of one GPU against those of the model split over all, a thought in every row."""
    with tempfile.TemporaryDirectory() as folder:
        made = random_model(shape, "cuda:0", tokenizer)
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        layer = made.layer
        del made
        torch.cuda.empty_cache()
        texts, placed = [], 0
        for device in ("cuda:0", "split"):
            loaded = load(folder, adapter=None, layer=layer, device=device)
            placed = len({p.device for p in loaded.model.parameters()})
            vectors = loaded.vectors_of(paper().train).vectors
            question = conversation(DEFAULT_QUESTION)
            trials = [Trial(question, Injection(vector, 1.0), adapter=False) for vector in vectors]
            texts.append([r.text for r in generate(loaded, trials, TOKENS, 64, halt=False)])
            del loaded
            torch.cuda.empty_cache()
    same = sum(a == b for a, b in zip(*texts, strict=True))
    return {"rows": len(texts[0]), "same": same, "gpus": placed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="deepseek-7b")
    parser.add_argument("--tokenizer", type=Path, help="folder; the default model's unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.shape, options.tokenizer, options.rounds, options.worker)
        return
    gpus = torch.cuda.device_count()
    device = "cuda" if gpus else "cpu"
    os.environ.setdefault("OMP_NUM_THREADS", "4")
    # What two GPUs may get wrong comes before what they may gain.
    figures: dict[str, Any] = {"split": split(options.shape, options.tokenizer)} if gpus > 1 else {}
    with tempfile.TemporaryDirectory() as folder:
        times = {n: launched(n, options, Path(folder) / f"{n}.json") for n in (1, 2)}
        records = same_records(Path(folder) / "1-1", Path(folder) / "2-1")
    checks = [
        Check(f"gain of two in {what}", spread(ratios(times[1][what], times[2][what])), "x", bar)
        for what, bar in (("training", ">= 1.7"), ("evaluation", ">= 1.8"))
    ]
    seconds = {str(n): times[n] for n in times}
    figures |= {"seconds": seconds, "records": records}
    record("two_gpus", device, checks, figures, f"random {options.shape}")


if __name__ == "__main__":
    main()
