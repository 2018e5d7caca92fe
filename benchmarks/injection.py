"""What injection and the per-row gate add to a plain ``model.generate``.

Three calls with the same prompts and a fixed number of tokens take turns: hooks removed (plain), a
plan with another vector in every row (injected, all rows with the adapter), and the same with the
gate, half of the rows without the adapter (mixed). For many rows and for one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks.record import Check, record
from benchmarks.timing import excess, in_turns, spread
from introspection.concepts.catalogue import paper
from introspection.concepts.texts import texts
from introspection.injection import hooks
from introspection.injection.decoding.batching import pad_left, row_plan
from introspection.injection.extraction import extract
from introspection.injection.plan import InjectionPlan, use_plan
from introspection.injection.speedups import cuda_graphs
from introspection.injection.trials.encoding import encode
from introspection.injection.trials.message import conversation
from introspection.injection.trials.schedule import GENERATION
from introspection.injection.trials.trial import Injection, Trial
from introspection.models import loading
from introspection.models.presets import DEFAULT

NAMES = (*paper().train, *paper().test)


def sides(
    loaded: Any, rows: int, tokens: int, recorded: bool = False
) -> dict[str, Callable[[], object]]:
    """One call of ``model.generate`` per way of running it, on the same prompts; ``recorded`` as a CUDA
    graph, otherwise as transformers does it unless told."""
    model, norm = loaded.model, loaded.norm
    loaded.hooks.remove()  # whatever the rounds before this one left
    loaded.hooks = hooks.install(model, loaded.layer)
    vectors = extract(loaded, NAMES[:rows]).vectors  # with more rows than names they come again
    questions = texts("train").questions
    asked = [conversation(questions[i % len(questions)]) for i in range(rows)]
    injections = [Injection(vectors[i % len(vectors)], 1.0, GENERATION) for i in range(rows)]

    def encoded(injected: bool, gated: bool) -> list[Any]:
        return [
            encode(
                loaded.tokenizer,
                Trial(asked[i], injections[i] if injected else None, not gated or i % 2 == 1),
                norm,
            )
            for i in range(rows)
        ]

    pad = loaded.tokenizer.pad_token_id or 0
    ids, mask = pad_left(encoded(False, False), pad, model.device)
    plans = {
        "injected": row_plan(model, encoded(True, False)),
        "mixed": row_plan(model, encoded(True, True)),
    }

    def call(plan: InjectionPlan | None) -> None:
        loaded.hooks.remove()
        if plan:
            loaded.hooks = hooks.install(model, loaded.layer)
        planned = use_plan(plan) if plan else nullcontext()
        faster = (
            cuda_graphs.graph_decoding(model, ids.shape[1] + tokens) if recorded else nullcontext()
        )
        with torch.inference_mode(), planned, faster as cache:
            written = model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                disable_compile=True,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=pad,
            )
        assert written.shape[1] == ids.shape[1] + tokens

    return {
        "plain": lambda: call(None),
        **{name: (lambda plan=plan: call(plan)) for name, plan in plans.items()},  # type: ignore[misc]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--device", help="cpu or cuda; the best there is unless given")
    parser.add_argument("--rows", type=int, default=32, choices=range(1, len(NAMES) + 1))
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=25, help="rounds with all rows")
    parser.add_argument("--single-rounds", type=int, default=25, help="rounds with one row")
    options = parser.parse_args()
    loaded = loading.load(options.model, device=options.device)
    device = loaded.model.device.type
    checks: list[Check] = []
    figures: dict[str, Any] = {"rows": options.rows, "tokens": options.tokens}
    for rows, rounds in ((options.rows, options.rounds), (1, options.single_rounds)):
        ways = sides(loaded, rows, options.tokens)
        for way in ways.values():
            way()
        times = in_turns(ways, rounds, device)
        label = f"{rows} rows" if rows > 1 else "1 row"
        figures[label] = {name: spread(values) for name, values in times.items()}
        pairs = [
            ("injection", "injected", "plain", "< 2"),
            ("gate, half the rows without the adapter", "mixed", "injected", "< 2"),
        ]
        checks += [
            Check(
                f"{what} adds, {label}, fastest rounds",
                excess(times[above], times[below]),
                "%",
                bar,
            )
            for what, above, below, bar in pairs
        ]
    record("injection", device, checks, figures, options.model)


if __name__ == "__main__":
    main()
