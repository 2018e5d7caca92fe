"""The card of an adapter folder: what it does, how often it is wrong, how to use it without us.

The text follows from ``introspection.json``; the rates come as a text from whoever counted them.
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import safe_open

from introspection.concepts.texts import DEFAULT_QUESTION, HALT_MARKER
from introspection.injection.vectors import load_vectors
from introspection.io.hub_ids import is_hub_id
from introspection.io.outputs import adapter_folder, manifest
from introspection.models import local_paths
from introspection.models.adapters import adapter_info, kinds
from introspection.models.adapters.adapter_info import AdapterInfo
from introspection.models.adapters.front_matter import card_text
from introspection.models.fingerprints import same_base
from introspection.models.presets import DEFAULT, PRESETS
from introspection.models.weights.sources import GGUF, HubRepo

_CARD = """---
language: en
---

# Introspection adapter for {base}

A {kind} that lets the model report a concept vector injected into its residual stream at the
output of block {info.layer} (0-based){halts}. Blocks 0 to {info.layer} are untouched, so vectors
read from the base model stay valid. Strength: rho = added length / typical residual norm
({info.norm:.1f}); trained from {info.strengths[0]:g} to {info.strengths[1]:g}; schedule \
`{info.schedule}`; {trained} concepts, {harmful} of
them harmful, and {further} further words and phrases.
{weights}
It reports the state of its residual stream; that is no claim about consciousness.

## How often is it wrong, and how often right

{rates}

{example}The package `introspection` does this per row of a batch. Trained with `{command}`.
"""

_EXAMPLE = """## Use with stock PEFT

The vector of a concept is added to the output of block {info.layer}, from the last prompt token on:

```python
import json

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
added = rho * {info.norm!r} * vector / vector.norm()


def inject(block, inputs, output):
    state = output[0] if isinstance(output, tuple) else output
    state[:, -1:] += added.to(state)  # the last token of the prompt, then each one that is written


model.get_submodule("{block}").register_forward_hook(inject)
question = [{{"role": "user", "content": "{question}"}}]
prompt = tokenizer.apply_chat_template(
    question, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**prompt, max_new_tokens=32, do_sample=False)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```

"""

_GGUF = """
The base weights are not those of the repository {preset.base_id}: adapter, vectors and rates
belong to its {preset.weights.quantisation} quantisation ({preset.weights.place}), turned
back into float32. On the full-precision weights they are not measured.
"""

_UNMEASURED = """Not measured yet: `python -m introspection evaluate --suite full --adapter FOLDER`
asks,
and `python -m introspection report --records FOLDER-OF-THE-RUN/records.jsonl --adapter FOLDER` writes
the rates here."""


def write_card(folder: Path, rates: str = _UNMEASURED) -> None:
    """The folder's ``README.md``, and a manifest with it; ``rates`` is the text on right and wrong."""
    info, kind = adapter_info.read_info(folder), kinds.kind_of(folder)
    preset = _gguf_preset(info)
    example = _example(info, folder, preset and preset[0]) if kind.STOCK_PEFT else ""
    body = _CARD.format(
        kind=kind.TITLE,
        base=_shown(info.base_id),
        info=info,
        halts=f", says that nothing is there when nothing is, and writes `{HALT_MARKER}` when the\n"
        "thought is harmful"
        if info.halts
        else " and says that nothing is there when nothing is",
        trained=len(info.trained),
        harmful=len(info.harmful),
        further=len(info.vocabulary),
        weights=preset[1] if preset else "",
        rates=rates,
        example=example,
        command=" ".join(map(local_paths.without_path, info.command.split())),
    )
    adapter_folder.write_file(folder, "README.md", card_text(body, (), info.base_id, kind.TAGS))


def _shown(base_id: str) -> str:
    """A Hub id; of a folder its name alone: the rest is nobody's business."""
    return base_id if is_hub_id(base_id) else local_paths.name_of(base_id)


def _gguf_preset(info: AdapterInfo) -> tuple[str, str] | None:
    """(name, what the card says) of the preset whose GGUF weights it was trained on, by their
    fingerprint, and not on the Hub's."""
    for preset in PRESETS.values():
        mark = preset.weights.fingerprint if isinstance(preset.weights, GGUF) else None
        if mark is not None and same_base(info.base_fingerprint, mark):
            return preset.name, _GGUF.format(preset=preset)
    return None


def _example(info: AdapterInfo, folder: Path, preset: str | None) -> str:
    source, revision, imports = f'"{_shown(info.base_id)}"', "", ""
    repositories = [p.weights for p in PRESETS.values() if isinstance(p.weights, HubRepo)]
    pinned_by = {weights.id: weights.revision for weights in repositories}
    if preset is not None:
        name = "" if preset == DEFAULT else f'"{preset}"'
        source = f"model_folder({name})  # the weights it was trained on"
        imports = "\nfrom introspection import model_folder\n"
    elif info.base_id in pinned_by:
        revision = f', revision="{pinned_by[info.base_id]}"'
    elif pinned := re.search(rf"--model[ =]{re.escape(info.base_id)}@(\S+)", info.command):
        revision = f', revision="{pinned[1]}"'
    elif not is_hub_id(info.base_id):
        source = f'"path/to/{_shown(info.base_id)}"'
    names = load_vectors(folder / manifest.VECTORS).names
    return _EXAMPLE.format(
        info=info,
        imports=imports,
        concept="ocean" if "ocean" in names else names[0],
        source=source,
        revision=revision,
        block=f"{_blocks(folder)}.{info.layer}",
        question=DEFAULT_QUESTION,
    )


def _blocks(folder: Path) -> str:
    """Where PEFT's model keeps its blocks, from the names of the adapter's tensors."""
    with safe_open(folder / manifest.WEIGHTS, "np") as file:
        names = list(file.keys())
    match = re.match(r"(.+?)\.\d+\.", names[0]) if names else None
    return match[1] if match else "base_model.model.model.layers"
