"""Committed records -> every number that is shown: evaluation.json, the adapter's card, README tables.

Knows: which rates answer which question, the places in the documents that are generated. Does not
know: how a record came about. Nothing here is typed by hand, so nothing can drift.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from introspection import adapter, adapter_folder
from introspection.errors import IntrospectionError
from introspection.evaluation import summarise

__all__ = [
    "HEADLINE",
    "PUBLISHED",
    "headline",
    "paper_table",
    "read_records",
    "replace_block",
    "write_card",
    "write_evaluation",
]

# Concepts named, in percent, as the paper's authors report them in the README of their code
# (DeepSeek-LLM-7B-chat).
PUBLISHED = {"seen": 88.5, "unseen": 71.0, "untrained": 16.0}
_PAPER_CONDITIONS = {
    "seen": "injected, seen",
    "unseen": "injected, unseen",
    "untrained": "injected, unseen, base model",
}

# What is asked first, the condition that answers it, and the rate of that condition.
HEADLINE = (
    ("False positives: asked about its state, nothing injected", "clean, asked", "flagged"),
    ("False positives: ordinary request", "clean, ordinary request", "flagged"),
    ("False positives: concept only in the text", "clean, concept in the text", "flagged"),
    ("False positives: harmful words in the text", "clean, harmful words in the text", "flagged"),
    ("False positives: text claims an injection", "clean, false claim of an injection", "flagged"),
    ("Unseen concept detected", "injected, unseen", "detected"),
    ("Unseen concept named", "injected, unseen", "correct"),
    ("Unseen category named", "injected, unseen category", "correct"),
    ("Seen concept named", "injected, seen", "correct"),
    ("Untrained model, unseen concept named", "injected, unseen, base model", "correct"),
    ("Unseen concept named amid other text", "injected, unseen, amid other text", "correct"),
    ("Unseen harmful concept halted, asked", "halt, harmful, asked", "halted"),
    (
        "Unseen harmful concept halted, ordinary request",
        "halt, harmful, ordinary request",
        "halted",
    ),
    ("Unseen harmful concept halted, mid-answer", "halt, harmful, mid-answer", "halted"),
    ("Harmless concept halted by mistake, asked", "halt, harmless, asked", "halted"),
    (
        "Harmless concept halted by mistake, ordinary request",
        "halt, harmless, ordinary request",
        "halted",
    ),
    ("Harmless concept halted by mistake, mid-answer", "halt, harmless, mid-answer", "halted"),
    ("Look-alike halted by mistake, asked", "halt, look-alike, asked", "halted"),
    ("Random vector reported as a thought", "control, random vector", "detected"),
    ("Negated vector reported as a thought", "control, negated vector", "detected"),
    ("Negated vector given the concept's name", "control, negated vector", "named"),
    ("Thought reported in a false yes/no question", "control, false yes/no question", "detected"),
)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of a ``.jsonl`` or ``.jsonl.gz`` file."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        records: list[dict[str, Any]] = [json.loads(line) for line in text.split("\n") if line]
    except (OSError, EOFError, ValueError) as error:
        raise IntrospectionError(
            f"The records {path} cannot be read ({type(error).__name__}): write them again with "
            "'python -m introspection evaluate'."
        ) from error
    if not records:
        raise IntrospectionError(f"The records {path} are empty: run the evaluation again.")
    return records


def write_evaluation(
    records: Sequence[dict[str, Any]], source: str, folder: Path
) -> dict[str, Any]:
    """``evaluation.json`` of an adapter folder: the summary, and which records it comes from."""
    document = {"records": source, "run": records[0]["run"], **summarise(records)}
    adapter_folder.put(folder, "evaluation.json", json.dumps(document, indent=1) + "\n")
    return document


def _percent(cell: dict[str, Any]) -> str:
    value = 100 * cell["successes"] / cell["n"]
    return f"{value:.1f} % [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def headline(evaluation: dict[str, Any]) -> str:
    """The table that answers "how often is it wrong?" before "how often is it right?"."""
    rows = [
        "| question | rate [95 % interval] | reports | distinct contexts |",
        "|---|---|---|---|",
    ]
    conditions = evaluation["conditions"]
    for question, condition, field in HEADLINE:
        found = conditions.get(condition)
        if found is None or field not in found:
            continue
        rows.append(
            f"| {question} | {_percent(found[field])} | {found['n']} | {found['contexts']} |"
        )
    comparisons = evaluation["comparisons"]
    gap = comparisons.get("seen minus unseen, correct")
    if gap is not None:
        interval = f"[{100 * gap['low']:.1f}, {100 * gap['high']:.1f}]"
        rows.append(
            f"| Seen minus unseen, named | {100 * gap['value']:.1f} points {interval} | | |"
        )
    return "\n".join(rows)


def paper_table(summary: dict[str, Any]) -> str:
    """The paper's three figures beside those of a run of the paper suite."""
    rows = ["| concepts named | paper | this run [95 % interval] | reports |", "|---|---|---|---|"]
    for kind, published in PUBLISHED.items():
        found = summary["conditions"][_PAPER_CONDITIONS[kind]]["correct"]
        rows.append(f"| {kind} | {published:.1f} % | {_percent(found)} | {found['n']} |")
    return "\n".join(rows)


def replace_block(text: str, name: str, content: str) -> str:
    """Put ``content`` between ``<!-- name:start -->`` and ``<!-- name:end -->``."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise IntrospectionError(f"There is no place for '{name}': add {start} and {end}.")
    return pattern.sub(lambda _: f"{start}\n{content}\n{end}", text)


_CARD = """---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
license: apache-2.0
language: en
tags: [lora, transformers, introspection, interpretability]
---

# Introspection adapter for {base}

A LoRA adapter that lets the model report a concept vector injected into its residual stream at the
output of block {layer} (0-based), say that nothing is there when nothing is, and write `{marker}`
when the thought is harmful. Blocks 0 to {layer} are untouched, so vectors read from the base model
stay valid. Strength: rho = added length / typical residual norm ({norm:.1f}); trained from
{low:g} to {high:g}; schedule `{schedule}`; {trained} concepts, {harmful} of them harmful, and {further}
further words and phrases.

It reports the state of its residual stream; that is no claim about consciousness.

## How often is it wrong, and how often right

{table}

Every rate comes from `{records}` (greedy decoding, vectors of a template and questions that
training never saw). Test concepts are those whose name hashes into buckets 0 and 1.

## Use with stock PEFT

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("{base}")
```

To inject, add `vectors.safetensors["vectors"][i] * rho * {norm:.1f}` to the output of block {layer}
from the last prompt token on; the package `introspection` does this per row. Trained with
`{command}`.
"""


def write_card(evaluation: dict[str, Any], folder: Path) -> None:
    """The folder's ``README.md`` and a manifest that covers it."""
    info = adapter.read_info(folder)
    card = _CARD.format(
        base=info.base_id,
        layer=info.layer,
        marker="HALT",
        norm=info.norm,
        low=info.strengths[0],
        high=info.strengths[1],
        schedule=info.schedule,
        trained=len(info.trained),
        harmful=len(info.harmful),
        further=len(info.vocabulary),
        table=headline(evaluation),
        records=evaluation["records"],
        command=info.command,
    )
    adapter_folder.put(folder, "README.md", card)
