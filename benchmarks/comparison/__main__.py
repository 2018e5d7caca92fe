"""Our extraction and injected generation against the libraries one would pick instead.

Two kinds of work, on copies of one model: the mean-difference vectors of the paper's 60 concepts
(with 32 baseline words, so 92 prompts), read at the last prompt token at block L; and a fixed number
of tokens for many rows and for one, with another vector in every row from the last prompt token on.
All sides take turns, and vectors and tokens must be ours.

``libraries`` says how each library is used, ``work`` what the work is made of, ``requirements.txt`` how
to build the environments: steering-vectors needs one of its own, where ours is measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.comparison.libraries import LIBRARIES
from benchmarks.comparison.work import (
    BASELINE,
    NAMES,
    Rows,
    Way,
    Work,
    prepare,
    readable,
    unit_differences,
)
from benchmarks.record import Check, record
from benchmarks.shape import SHAPES, save_random_model
from benchmarks.timing import in_turns, ratios, spread
from introspection.injection.decoding import generation
from introspection.injection.extraction import extract
from introspection.injection.trials.prompts import cached_prompt_ids
from introspection.models.presets import DEFAULT, PRESETS, model_folder


def ours(work: Work) -> dict[str, Way]:
    """The only side that renders and tokenises within the call."""
    loaded = work.loaded

    def read() -> Tensor:
        cached_prompt_ids.cache_clear()
        loaded.baselines.clear()  # later calls would not read the baseline again
        return extract(loaded, NAMES, site="last", baseline=BASELINE).vectors

    def write(rows: Rows) -> Tensor:
        tokens = work.tokens
        return generation.greedy_decode(loaded.model, rows.rows, 0, tokens, min_new_tokens=tokens)

    note = "extraction.extract; generation.write of rows with a vector each, recorded on a GPU"
    return {"ours": Way(note, read, write)}


def plain(work: Work) -> dict[str, Way]:
    """Not a library but the yardstick that two environments have in common."""
    model = work.model()

    @torch.inference_mode()
    def read() -> Tensor:
        found = []
        for lists in work.batches():
            ids, mask, ends = work.right_padded(lists)
            states = model(
                input_ids=ids,
                attention_mask=mask,
                output_hidden_states=True,
                use_cache=False,
                logits_to_keep=1,
            ).hidden_states
            found.append(states[work.layer + 1][torch.arange(len(ids)), ends])
        return unit_differences(torch.cat(found))

    @torch.inference_mode()
    def write(rows: Rows) -> Tensor:
        out: Tensor = model.generate(**rows.batch, **work.options)
        return out[:, -work.tokens :]

    return {
        "transformers": Way("all hidden states of padded batches, one row of logits each", read),
        "transformers, nothing injected": Way("one generate", generate=write, same=False),
    }


def agreement(found: Mapping[str, Tensor], ways: Mapping[str, Way], exact: bool) -> dict[str, Any]:
    """The smallest cosine to our vectors, or how many rows have our tokens. With ``exact`` (float32)
    a way that computes the same must agree."""
    own, said = found["ours"].cpu(), {}
    for name, theirs in found.items():
        if own.is_floating_point():
            cosine = float((own[: len(theirs)] * theirs).sum(-1).min())
            said[name], equal = f"{cosine:.6f}", cosine > 0.9999
        else:
            rows = int((own == theirs.cpu()).all(-1).sum())
            said[name], equal = f"{rows} of {len(own)}", rows == len(own)
        assert equal or not exact or not ways[name].same, f"{name} disagrees: {said[name]}"
    return said


def compare(
    what: str,
    calls: Mapping[str, Callable[[], Tensor]],
    ways: Mapping[str, Way],
    rounds: int,
    work: Work,
) -> tuple[list[Check], dict[str, Any]]:
    """One kind of work, done by all sides in turns; what they gave at first is compared."""
    found = {name: call() for name, call in calls.items()}  # also the warm-up
    agrees = agreement(found, ways, work.loaded.model.dtype == torch.float32)
    print(f"{what}: {agrees}", flush=True)
    times = in_turns(calls, rounds, work.device.type)
    gains = {name: spread(ratios(times[name], times["ours"])) for name in calls if name != "ours"}
    checks = [Check(f"{what}, ours", spread(times["ours"]), "s")]
    checks += [Check(f"{what}, {name} over ours", gain, "x") for name, gain in gains.items()]
    seconds = {name: spread(values) for name, values in times.items()}
    return checks, {"seconds": seconds, "agreement": agrees}


def measure(work: Work, names: list[str], rounds: int) -> tuple[list[Check], dict[str, Any]]:
    ways = {**ours(work), **plain(work)}
    for name in names:
        try:
            ways |= LIBRARIES[name](work)
        except ImportError as error:
            sys.exit(f"{name} does not work here ({error}): see requirements.txt beside this file.")
    figures: dict[str, Any] = {
        "libraries": {name: version(name) for name in names},
        "ways": {name: way.note for name, way in ways.items()},
    }
    what = f"extract {len(NAMES)} + {len(BASELINE)} words"
    reads = {name: way.extract for name, way in ways.items() if way.extract}
    checks, figures[what] = compare(what, reads, ways, rounds, work)
    count = len(work.many.ids)
    for rows, label in (
        (work.many, f"{count} rows, a question each"),
        (work.same, f"{count} rows, one question"),
        (work.one, "1 row"),
    ):
        what = f"{work.tokens} tokens, {label}"
        writes = {name: partial(w.generate, rows) for name, w in ways.items() if w.generate}
        more, figures[what] = compare(what, writes, ways, rounds, work)
        checks += more
    return checks, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="+", choices=LIBRARIES)
    parser.add_argument("--model", default=DEFAULT, help="the default or a folder")
    parser.add_argument("--shape", choices=SHAPES, help="instead: random weights of that shape")
    parser.add_argument(
        "--tokenizer", type=Path, help="for --shape; the default model's unless given"
    )
    parser.add_argument("--device", help="cpu or cuda; the best there is unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=32, choices=range(2, len(NAMES) + 1))
    parser.add_argument("--tokens", type=int, default=16, help="written for each row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.shape:
            folder, layer = Path(scratch) / options.shape, SHAPES[options.shape][-1]
            save_random_model(options.shape, options.tokenizer, folder)
        elif options.model == DEFAULT:
            folder, layer = model_folder(), PRESETS[DEFAULT].layer
        else:
            folder, layer = Path(options.model), None
        read = readable(folder, Path(scratch))
        work = prepare(read, layer, options.device, options.rows, options.tokens)
        checks, figures = measure(work, options.libraries, options.rounds)
    model = f"random {options.shape}" if options.shape else options.model
    record("comparison", work.device.type, checks, figures, model)


if __name__ == "__main__":
    main()
