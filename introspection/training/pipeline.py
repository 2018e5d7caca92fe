"""From a model to an adapter folder: the whole of ``python -m introspection train``.

Knows: the order of the steps, which names are hard for a tokenizer, what goes into the folder. Does
not know: how any other step is done.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from introspection.concepts.catalogue import (
    Concept,
    catalogue,
    paper,
    resolve,
    training_concepts,
    training_vocabulary,
)
from introspection.concepts.texts import texts
from introspection.injection import hooks
from introspection.injection.decoding.generation import generate
from introspection.injection.extraction import TEMPLATES, baseline_words, extract
from introspection.injection.trials import clock
from introspection.injection.trials.trial import FINAL_ON, Trial, prompt_depends_on_date, render
from introspection.injection.vectors import ConceptVectors, save_vectors
from introspection.io.outputs import adapter_folder, manifest, targets
from introspection.io.version import versions
from introspection.models import distributed, local_paths
from introspection.models.adapters import adapter_info, lora
from introspection.models.adapters.adapter_info import AdapterSpec
from introspection.models.adapters.card import write_card
from introspection.models.fingerprints import fingerprint
from introspection.models.loaded_model import LoadedModel
from introspection.training.data.examples import (
    NOISE,
    Example,
    Messages,
    examples,
    ordinary_prompts,
    paper_examples,
)
from introspection.training.loop import add_lora, forecast, stack_vectors, train
from introspection.training.runs import Run, claimed, described
from introspection.training.trainer import Forecast, TrainConfig

__all__ = ["RECIPES", "base_replies", "build_adapter", "dry_run"]

REPLY_TOKENS = 32
PROMPTS = 10_000  # ordinary ones at most, each answered by the base model
TRIED = 4  # batches of examples that a dry run makes
VOCABULARY = 90_000  # names outside the catalogue, see concepts.training_vocabulary
# What ``train`` does unless told otherwise, and with how many examples. The paper's recipe: three
# epochs over 240 injected and 240 clean questions; its learning rate was for batches of four.
RECIPES = {
    "ours": (TrainConfig(epochs=5, batch_size=512, learning_rate=8e-4, rank=64), 150_000),
    "paper": (TrainConfig(epochs=3, batch_size=8, learning_rate=5e-4), 480),
}

Progress = Callable[[str, int, int], None]


def base_replies(
    loaded: LoadedModel, prompts: Sequence[Messages], run: Run | None, progress: Progress | None
) -> dict[Messages, tuple[str, bool]]:
    """The base model's answers to ordinary prompts, kept in the run folder for a later start."""
    # The run's digest says which model answers, and how it is loaded.
    asked = hashlib.sha256(repr((REPLY_TOKENS, run.digest if run else "")).encode())
    for messages in prompts:
        asked.update(repr(render(loaded.tokenizer, messages)).encode())
    made_from = asked.hexdigest()
    main = run is not None and distributed.rank() == 0
    kept = distributed.broadcast(run.kept_answers(made_from) if main and run else None)
    if kept is not None:
        return _said(prompts, kept)
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress("answers of the base model", done * distributed.world_size(), len(prompts))

    size = 512 if loaded.model.device.type == "cuda" else 32
    trials = [
        Trial(messages, None, adapter=False)
        for messages in distributed.split_between_processes(prompts)
    ]
    replies = generate(loaded, trials, REPLY_TOKENS, size, halt=False, progress=count)
    answers = distributed.gather([(reply.text, reply.finished) for reply in replies])
    if main and run:
        run.keep_answers(made_from, answers)
    return _said(prompts, answers)


def _said(
    prompts: Sequence[Messages], answers: Sequence[tuple[str, bool]]
) -> dict[Messages, tuple[str, bool]]:
    """The prompts that got an answer at all, each with its text and whether it ended by itself."""
    pairs = zip(prompts, answers, strict=True)
    return {prompt: (text, whole) for prompt, (text, whole) in pairs if text}


def _worth_spelling(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> list[str]:
    """The names of three or four tokens, which take practice, and every third of the others: shorter
    ones are easy, longer ones rare."""
    ids = tokenizer([f" {name}" for name in names], add_special_tokens=False)["input_ids"]
    pairs = enumerate(zip(names, ids, strict=True))
    return [name for k, (name, tokens) in pairs if len(tokens) in (3, 4) or k % 3 == 0]


def build_adapter(
    loaded: LoadedModel,
    out: Path,
    runs: Path,
    recipe: str,
    config: TrainConfig,
    count: int,
    site: str = "concept",
    templates: Sequence[str] = TEMPLATES,
    progress: Progress | None = None,
) -> Path:
    """Train an adapter on a bare model and write its folder to ``out``; returns the run's folder.

    ``recipe`` is ``ours`` or ``paper``; ``count`` the number of distinct examples. ``runs`` keeps the
    checkpoints of this run, so that a start after a kill continues, beside those of other runs. The
    finished adapter stays attached to ``loaded``.
    """
    out, runs = targets.adapter_target(out, runs, None)
    baseline = paper().baseline if recipe == "paper" else baseline_words()
    description = described(loaded, recipe, config, count, site, templates, baseline)
    with claimed(runs, description) as run, clock.fixed(run.started):
        if prompt_depends_on_date(loaded.tokenizer):
            loaded.norm = extract(loaded, ["ocean"]).norm  # was read on the day of loading
        concepts, made = _examples(loaded, recipe, config, count, run, progress)
        names = _names(made)
        if progress:
            progress("concept vectors", 0, 1)
        vectors = stack_vectors(loaded, names, templates, site, baseline)
        add_lora(loaded, config)
        train(
            loaded,
            made,
            vectors,
            names,
            config,
            run,
            (lambda step, steps, loss: progress(f"training, loss {loss:.3f}", step, steps))
            if progress
            else None,
        )
        further = sorted(set(names) - {concept.name for concept in concepts})
        _write(
            loaded, out, run.folder, recipe, config, concepts, further, site, templates, baseline
        )
    return run.folder


def dry_run(
    loaded: LoadedModel,
    recipe: str,
    config: TrainConfig,
    count: int,
    site: str = "concept",
    templates: Sequence[str] = TEMPLATES,
    progress: Progress | None = None,
) -> Forecast:
    """What :func:`build_adapter` will take, from two steps on a part of the examples; nothing is
    written."""
    few = min(count, TRIED * config.batch_size)
    baseline = paper().baseline if recipe == "paper" else baseline_words()
    _, made = _examples(loaded, recipe, config, few, None, progress)
    names = _names(made)
    vectors = stack_vectors(loaded, names, templates, site, baseline)
    add_lora(loaded, config)
    return forecast(loaded, made, vectors, names, config, count)


def _examples(
    loaded: LoadedModel,
    recipe: str,
    config: TrainConfig,
    count: int,
    run: Run | None,
    progress: Progress | None,
) -> tuple[list[Concept], list[Example]]:
    """The catalogue concepts that a recipe trains on, and its examples."""
    words = texts("train")
    if recipe == "paper":
        concepts = [_as_in_paper(name) for name in paper().train]
        return concepts, paper_examples(config.seed, words, concepts, count)
    concepts = list(training_concepts())
    slots = [concept.name for concept in concepts]
    prompts = ordinary_prompts(config.seed, words, slots, min(max(count // 8, 16), PROMPTS))
    replies = base_replies(loaded, prompts, run, progress)
    vocabulary = _worth_spelling(loaded.tokenizer, training_vocabulary(config.seed, VOCABULARY))
    return concepts, examples(config.seed, concepts, vocabulary, words, replies, count)


def _names(made: Sequence[Example]) -> list[str]:
    return sorted({example.concept for example in made if example.concept} - {NOISE})


def _as_in_paper(name: str) -> Concept:
    return replace(resolve(name), harmful=name in paper().dangerous)


def _write(
    loaded: LoadedModel,
    out: Path,
    run: Path,
    recipe: str,
    config: TrainConfig,
    concepts: Sequence[Concept],
    vocabulary: Sequence[str],
    site: str,
    templates: Sequence[str],
    baseline: Sequence[str],
) -> None:
    known = [_as_in_paper(n) for n in (*paper().train, *paper().test)]
    shipped = known if recipe == "paper" else list(catalogue())
    vectors = loaded.vectors_of(
        [c.name for c in shipped], template=templates[0], site=site, baseline=baseline
    )
    # One unit of strength in all files of an adapter: the one that it was trained with.
    vectors = replace(vectors, norm=loaded.norm, fingerprint=fingerprint(loaded.model))
    info = adapter_info.AdapterInfo(
        base_id=loaded.base,
        base_fingerprint=fingerprint(loaded.model),
        layer=loaded.layer,
        norm=loaded.norm,
        site=site,
        schedule=str(FINAL_ON),
        strengths=config.strengths,
        templates=tuple(templates),
        baseline=tuple(baseline),
        trained=tuple(c.name for c in concepts),
        vocabulary=tuple(vocabulary),
        harmful=tuple(c.name for c in concepts if c.harmful),
        halts=any(c.harmful for c in concepts),
        seed=config.seed,
        command=local_paths.command_line(sys.argv[0], sys.argv[1:]),
        versions=versions(),
        config={"recipe": recipe, **asdict(config)},
    )
    if distributed.rank() == 0:
        _write_folder(loaded, out, run, info, config, vectors)
    distributed.barrier()
    loaded.adapter, loaded.adapter_folder, loaded.vectors = info, out, vectors


def _write_folder(
    loaded: LoadedModel,
    out: Path,
    run: Path,
    info: adapter_info.AdapterInfo,
    config: TrainConfig,
    vectors: ConceptVectors,
) -> None:
    depth = len(hooks.decoder_layers(loaded.model))
    kept = f"choose another --out; what was trained is kept in {run}, so that command ends at once"
    with targets.writing(out, kept), adapter_folder.rewritten(out) as folder:
        spec = AdapterSpec(loaded.layer, depth, loaded.base, config.rank, config.targets)
        lora.save(loaded.model, spec, folder)
        save_vectors(vectors, folder / manifest.VECTORS)
        adapter_info.refresh_manifest(folder, info)
        write_card(folder)
