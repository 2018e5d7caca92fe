"""What every side of the comparison with other libraries is given, and what it gives back.

That is the default model's folder in a form that transformers 4 reads too, the prompts as text and as
tokens, and the rows to write for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModelForCausalLM

from introspection.concepts.catalogue import paper
from introspection.concepts.texts import texts
from introspection.injection.decoding.batching import pad_left
from introspection.injection.extraction import TEMPLATES, extract
from introspection.injection.trials import trial
from introspection.injection.trials.encoding import EncodedTrial, encode
from introspection.injection.trials.message import conversation
from introspection.injection.trials.prompts import prompt_ids, render
from introspection.injection.trials.schedule import GENERATION
from introspection.models import loading
from introspection.models.loaded_model import LoadedModel

NAMES = (*paper().train, *paper().test)
BASELINE = paper().baseline
BATCH = 64  # prompts in one forward pass of an extraction: two passes, as ours has


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Prompts to continue: ``ids`` and ``mask`` [B, T] padded at the left, ``deltas`` [B, D] what to
    add to the residual stream from the last prompt token on, ``rows`` the same as ours takes it."""

    rows: list[EncodedTrial]
    ids: Tensor
    mask: Tensor
    deltas: Tensor

    @property
    def batch(self) -> dict[str, Tensor]:
        return {"input_ids": self.ids, "attention_mask": self.mask}

    def single(self, row: int) -> dict[str, Tensor]:
        """One row without padding."""
        ids = self.ids[row : row + 1, self.mask[row].bool()]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """``prompts`` are the baseline's, then the concepts', and ``prompt_ids`` the same as tokens;
    ``tokens`` is how many are written for each row. ``many`` ask a question each, ``same`` all the same
    one, as the paper's evaluation and our sweeps do.

    The model in ``loaded`` is ours alone: some libraries change what they are given.
    """

    folder: str
    loaded: LoadedModel
    prompts: list[str]
    prompt_ids: list[list[int]]
    many: Rows
    same: Rows
    one: Rows
    tokens: int

    @property
    def layer(self) -> int:
        return self.loaded.layer

    @property
    def device(self) -> torch.device:
        device: torch.device = self.loaded.model.device
        return device

    @property
    def options(self) -> dict[str, Any]:
        """Of ``generate``: greedy, and no side may stop early."""
        return {
            "max_new_tokens": self.tokens,
            "min_new_tokens": self.tokens,
            "do_sample": False,
            "pad_token_id": self.loaded.tokenizer.pad_token_id or 0,
        }

    def model(self) -> Any:
        """A copy of the model of one's own."""
        dtype = self.loaded.model.dtype
        own = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype)
        return own.to(self.device).eval().requires_grad_(False)

    def batches(self) -> list[list[list[int]]]:
        return [self.prompt_ids[at : at + BATCH] for at in range(0, len(self.prompts), BATCH)]

    def right_padded(self, lists: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask of some prompts, and where each ends."""
        ends = torch.tensor([len(ids) - 1 for ids in lists], device=self.device)
        width = max(map(len, lists))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in lists], device=self.device)
        mask = (torch.arange(width, device=self.device) <= ends[:, None]).long()
        return ids, mask, ends


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One way to use a library. ``extract`` gives unit vectors [N, D], ``generate`` the new tokens
    [B, ``work.tokens``] of rows; None: not done that way.

    ``same`` says that it computes what ours computes. ``note`` goes into the record.
    """

    note: str
    extract: Callable[[], Tensor] | None = None
    generate: Callable[[Rows], Tensor] | None = None
    same: bool = True


def unit_differences(read: Tensor) -> Tensor:
    """Unit vectors of the concepts, of readings that begin with the baseline's."""
    differences = read[len(BASELINE) :] - read[: len(BASELINE)].mean(0)
    return normalize(differences.float().cpu(), dim=-1)


def readable(folder: Path, scratch: Path) -> Path:
    """The folder as the installed transformers reads it. Version 5 renamed a class and the base of
    the rotary embedding, and version 4 would take another base without a word."""
    if not version("transformers").startswith("4."):
        return folder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", None)
    if rope is not None:
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    for path in folder.iterdir():
        (scratch / path.name).symlink_to(path.resolve())
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        (scratch / name).unlink()
        (scratch / name).write_text(json.dumps(content), encoding="utf-8")
    return scratch


def prepare(folder: Path, layer: int | None, device: str | None, count: int, tokens: int) -> Work:
    loaded = loading.load(str(folder), adapter=None, layer=layer, device=device)
    tokenizer = loaded.tokenizer
    asked = [conversation(TEMPLATES[0].format(c=name)) for name in (*BASELINE, *NAMES)]
    prompts = [render(tokenizer, messages) for messages in asked]
    ids = [list(prompt_ids(tokenizer, messages)) for messages in asked]
    if tokenizer(prompts)["input_ids"] != ids:
        # It puts a first token before any text, and the chat template wrote one already.
        prompts = [prompt.removeprefix(tokenizer.bos_token) for prompt in prompts]
    assert tokenizer(prompts)["input_ids"] == ids
    vectors = extract(loaded, NAMES, site="last", baseline=BASELINE).vectors
    questions = texts("train").questions

    def rows(n: int, asked: int) -> Rows:
        chosen = [
            encode(
                tokenizer,
                trial.Trial(
                    conversation(questions[i % asked]),
                    trial.Injection(vectors[i], 1.0, GENERATION),
                ),
                loaded.norm,
            )
            for i in range(n)
        ]
        padded, mask = pad_left(chosen, tokenizer.pad_token_id or 0, loaded.model.device)
        deltas = torch.stack([row.delta for row in chosen if row.delta is not None])
        return Rows(chosen, padded, mask, deltas.to(loaded.model.device, loaded.model.dtype))

    return Work(
        str(folder),
        loaded,
        prompts,
        ids,
        rows(count, len(questions)),
        rows(count, 1),
        rows(1, 1),
        tokens,
    )
