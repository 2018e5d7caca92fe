"""Concept vectors: our batched reading against the way of the paper's script.

Ours: one padded batch, the forward pass ends at block L. The script: one prompt at a time, every
layer's states, all blocks and the logits of every token. Both read the paper's 60 concepts and 32
baseline words at the last prompt token, and must find the same vectors. The default site of
``extract`` is timed as well.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import Check, record
from benchmarks.timing import in_turns, ratios, spread
from introspection.concepts.catalogue import paper
from introspection.injection.extraction import TEMPLATES, extract
from introspection.injection.trials.message import Message
from introspection.injection.trials.prompts import cached_prompt_ids, prompt_ids
from introspection.models import loading
from introspection.models.presets import DEFAULT

NAMES = (*paper().train, *paper().test)
BASELINE = paper().baseline


@torch.no_grad()
def one_by_one(loaded: Any) -> Tensor:
    """Unit vectors [N, D], read as the paper's script reads them."""
    found = []
    for name in (*BASELINE, *NAMES):
        messages = (Message("user", TEMPLATES[0].format(c=name)),)
        ids = torch.tensor([prompt_ids(loaded.tokenizer, messages)], device=loaded.model.device)
        states = loaded.model(input_ids=ids, output_hidden_states=True).hidden_states
        found.append(states[loaded.layer + 1][0, -1].float().cpu())
    differences = torch.stack(found[len(BASELINE) :]) - torch.stack(found[: len(BASELINE)]).mean(0)
    return torch.nn.functional.normalize(differences, dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--device", help="cpu or cuda; the best there is unless given")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    loaded = loading.load(options.model, adapter=None, device=options.device)
    device = loaded.model.device.type
    found: dict[str, Tensor] = {}

    def ours(side: str, **site: Any) -> None:
        cached_prompt_ids.cache_clear()  # tokenising is part of the work
        found[side] = extract(loaded, NAMES, baseline=BASELINE, **site).vectors

    def script() -> None:
        cached_prompt_ids.cache_clear()
        found["script"] = one_by_one(loaded)

    sides = {
        "ours": lambda: ours("ours", site="last"),
        "ours, default site": lambda: ours("default"),
        "script": script,
    }
    first = in_turns(sides, 1, device)  # the first call of each, after load
    times = in_turns(sides, options.rounds, device)
    cosine = float((found["ours"] * found["script"]).sum(-1).min())
    assert cosine > 0.9999, f"the two ways disagree: cosine {cosine}"
    bar = "< 10" if device == "cpu" else None
    record(
        "extraction",
        device,
        [
            Check(f"extract {len(NAMES)} + {len(BASELINE)} words", spread(times["ours"]), "s", bar),
            Check("the same, first call after load", spread(first["ours"]), "s", bar),
            Check("the script's way", spread(times["script"]), "s"),
            Check("gain", spread(ratios(times["script"], times["ours"])), "x"),
        ],
        {
            "seconds": {side: spread(values) for side, values in times.items()},
            "first_seconds": {side: values[0] for side, values in first.items()},
            "smallest_cosine": cosine,
        },
        options.model,
    )


if __name__ == "__main__":
    main()
