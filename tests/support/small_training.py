"""A training of our recipe, as ``introspection train`` does it, on a tiny model and in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from introspection.concepts.catalogue import Concept, catalogue
from introspection.concepts.texts import Texts, texts
from introspection.injection import hooks as injection
from introspection.models.loaded_model import LoadedModel
from introspection.training import loss, pipeline
from introspection.training.config import TrainConfig, TrainingJob
from introspection.training.data import replies
from tests.support.tiny import CHATML, LAYER, make_model, make_tokenizer

CONFIG = TrainConfig(
    epochs=2, batch_size=2, learning_rate=1e-2, rank=4, targets=("q_proj", "v_proj", "down_proj")
)
EXAMPLES = 12
# As the templates of several families do.
DATED = "Today is {{ strftime_now('%d %B %Y, %H:%M') }}.\n" + CHATML


@cache
def _tokenizer(template: str) -> Any:
    return make_tokenizer(template=template)


@cache
def _short_texts(split: str) -> Texts:
    """The ten shortest of every kind: the tiny tokenizer makes a token of nearly every letter."""
    known = texts(split)
    kinds = [field.name for field in fields(Texts)]
    return Texts(**{kind: tuple(sorted(getattr(known, kind), key=len)[:10]) for kind in kinds})


def small_model(seed: int = 0, template: str = CHATML) -> LoadedModel:
    model = make_model("llama")
    source = torch.Generator().manual_seed(seed)
    for parameter in model.parameters() if seed else ():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=source)
    hooks = injection.install(model, LAYER)
    return LoadedModel(model, _tokenizer(template), "tiny", "tiny", LAYER, 3.0, hooks=hooks)


@pytest.fixture(scope="module")
def small_catalogue() -> Any:
    """A dozen concepts, a checkpoint after every step, float32 on any machine."""
    names = ("ocean", "whisper", "bomb", "justice", "volcano", "poison", "harbour", "guitar")
    few: tuple[Concept, ...] = tuple(c for c in catalogue() if c.name in names)
    assert {c.harmful for c in few} == {True, False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "catalogue", lambda: few)
        patch.setattr(pipeline, "texts", _short_texts)
        patch.setattr(replies, "REPLY_TOKENS", 6)
        patch.setattr(pipeline, "training_concepts", lambda: few)
        patch.setattr(pipeline, "training_vocabulary", lambda *_: ("quiet ocean", "blue", "far"))
        patch.setattr(pipeline, "train", partial(pipeline.train, checkpoint_seconds=-1.0))
        patch.setattr(loss, "_fast_bf16", lambda _device: False)
        yield


def train_small(
    folder: Path,
    seed: int = 0,
    model: int = 0,
    template: str = CHATML,
    recipe: str = "ours",
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """The same command as ``train --out folder/adapter --run folder/run``; the run's own folder."""
    config = TrainConfig(**{f: getattr(CONFIG, f) for f in CONFIG.__slots__} | {"seed": seed})
    return pipeline.build_adapter(
        small_model(model, template),
        folder / "adapter",
        folder / "run",
        TrainingJob(recipe, config, EXAMPLES, templates=("Tell me about {c}",)),
        progress,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """The files that lie in a folder, without what lies deeper."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
