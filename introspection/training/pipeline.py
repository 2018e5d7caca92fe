"""From a model to an adapter folder: the whole of ``python -m introspection train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from introspection.concepts.catalogue import Concept, catalogue, paper, resolve
from introspection.concepts.texts import texts
from introspection.concepts.vocabulary import training_concepts, training_vocabulary
from introspection.injection.extraction import extract
from introspection.injection.trials import clock
from introspection.injection.trials.prompts import prompt_depends_on_date
from introspection.injection.trials.schedule import GENERATION
from introspection.injection.vectors import save_vectors
from introspection.io.outputs import adapter_folder, manifest, targets
from introspection.io.version import versions
from introspection.models import distributed, local_paths
from introspection.models.adapters.adapter_info import AdapterInfo, refresh_manifest
from introspection.models.adapters.card import write_card
from introspection.models.adapters.kinds import KINDS
from introspection.models.fingerprints import fingerprint
from introspection.models.loaded_model import LoadedModel
from introspection.training import trainer
from introspection.training.adapter import adapter_spec, add_adapter
from introspection.training.batches import stack_vectors
from introspection.training.config import TrainConfig, TrainingJob
from introspection.training.data.examples import (
    NOISE,
    Example,
    examples,
    ordinary_prompts,
    paper_examples,
)
from introspection.training.data.replies import Progress, base_replies
from introspection.training.runs import Run, claim_run, describe_run
from introspection.training.trainer import Forecast, train

PROMPTS = 10_000  # ordinary ones at most, each answered by the base model
DRY_RUN_BATCHES = 4
VOCABULARY = 90_000  # names outside the catalogue, see concepts.training_vocabulary
# What ``train`` does unless told otherwise, and with how many examples. The paper's recipe: three
# epochs over 240 injected and 240 clean questions; its learning rate was for batches of four.
RECIPES = {
    "ours": (TrainConfig(epochs=5, batch_size=512, learning_rate=8e-4, rank=64), 150_000),
    "paper": (TrainConfig(epochs=3, batch_size=8, learning_rate=5e-4), 480),
}


def build_adapter(
    loaded: LoadedModel, out: Path, runs: Path, job: TrainingJob, progress: Progress | None = None
) -> Path:
    """Train an adapter on a bare model and write its folder to ``out``; returns the run's folder.

    ``runs`` keeps the checkpoints, so that a start after a kill continues. The finished adapter stays
    attached to ``loaded``. Raises IntrospectionError for whatever stops the training.
    """
    out, runs = targets.adapter_target(out, runs, None)
    with claim_run(runs, describe_run(loaded, job)) as run, clock.fixed(run.started):
        if prompt_depends_on_date(loaded.tokenizer):
            loaded.norm = extract(loaded, ["ocean"]).norm  # was read on the day of loading
        concepts, drawn = _examples(loaded, job, run, progress)
        names = _names(drawn)
        if progress:
            progress("concept vectors", 0, 1)
        vectors = stack_vectors(loaded, names, job.templates, job.site, job.baseline)
        add_adapter(loaded, job.config)

        def tell(step: int, steps: int, loss: float) -> None:
            if progress:
                progress(f"training, loss {loss:.3f}", step, steps)

        train(loaded, drawn, vectors, names, job.config, run, tell)
        further = sorted(set(names) - {concept.name for concept in concepts})
        _finish(loaded, out, run.folder, job, concepts, further)
    return run.folder


def dry_run(loaded: LoadedModel, job: TrainingJob, progress: Progress | None = None) -> Forecast:
    """What :func:`build_adapter` will take, from two steps on a part of the examples; nothing is
    written."""
    part = replace(job, examples=min(job.examples, DRY_RUN_BATCHES * job.config.batch_size))
    _, drawn = _examples(loaded, part, None, progress)
    names = _names(drawn)
    vectors = stack_vectors(loaded, names, job.templates, job.site, job.baseline)
    add_adapter(loaded, job.config)
    return trainer.dry_run(loaded, drawn, vectors, names, job.config, job.examples)


def _examples(
    loaded: LoadedModel, job: TrainingJob, run: Run | None, progress: Progress | None
) -> tuple[list[Concept], list[Example]]:
    """The catalogue concepts that a recipe trains on, and its examples."""
    seed, count, words = job.config.seed, job.examples, texts("train")
    if job.recipe == "paper":
        concepts = [_as_in_paper(name) for name in paper().train]
        return concepts, paper_examples(seed, words, concepts, count)
    concepts = list(training_concepts())
    slots = [concept.name for concept in concepts]
    prompts = ordinary_prompts(seed, words, slots, min(max(count // 8, 16), PROMPTS))
    replies = base_replies(loaded, prompts, run, progress)
    vocabulary = _worth_spelling(loaded.tokenizer, training_vocabulary(seed, VOCABULARY))
    return concepts, examples(seed, concepts, vocabulary, words, replies, count)


def _worth_spelling(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> list[str]:
    """The names of three or four tokens, which take practice, and every third of the others: shorter
    ones are easy, longer ones rare."""
    ids = tokenizer([f" {name}" for name in names], add_special_tokens=False)["input_ids"]
    pairs = enumerate(zip(names, ids, strict=True))
    return [name for k, (name, tokens) in pairs if len(tokens) in (3, 4) or k % 3 == 0]


def _names(drawn: Sequence[Example]) -> list[str]:
    return sorted({example.concept for example in drawn if example.concept} - {NOISE})


def _as_in_paper(name: str) -> Concept:
    return replace(resolve(name), harmful=name in paper().dangerous)


def _finish(
    loaded: LoadedModel,
    out: Path,
    run: Path,
    job: TrainingJob,
    concepts: Sequence[Concept],
    vocabulary: Sequence[str],
) -> None:
    """Write the adapter's folder and attach it to ``loaded``."""
    in_paper = [_as_in_paper(name) for name in (*paper().train, *paper().test)]
    shipped = in_paper if job.recipe == "paper" else list(catalogue())
    vectors = loaded.vectors_of(
        [c.name for c in shipped], template=job.templates[0], site=job.site, baseline=job.baseline
    )
    base = fingerprint(loaded.model)
    # One unit of strength in all files of an adapter: the one that it was trained with.
    vectors = replace(vectors, norm=loaded.norm, fingerprint=base)
    info = AdapterInfo(
        base_id=loaded.base,
        base_fingerprint=base,
        layer=loaded.layer,
        norm=loaded.norm,
        site=job.site,
        schedule=str(GENERATION),
        strengths=job.config.strengths,
        templates=tuple(job.templates),
        baseline=job.baseline,
        trained=tuple(c.name for c in concepts),
        vocabulary=tuple(vocabulary),
        harmful=tuple(c.name for c in concepts if c.harmful),
        halts=any(c.harmful for c in concepts),
        seed=job.config.seed,
        command=local_paths.command_line(sys.argv[0], sys.argv[1:]),
        versions=versions(),
        config={"recipe": job.recipe, **job.config.as_record()},
    )
    if distributed.rank() == 0:
        advice = (
            f"choose another --out; what was trained is kept in {run}, so that command ends at once"
        )
        with targets.writing(out, advice), adapter_folder.rewrite_folder(out) as folder:
            spec = adapter_spec(loaded, job.config)
            KINDS[job.config.kind].save(loaded.model, spec, folder)
            save_vectors(vectors, folder / manifest.VECTORS)
            refresh_manifest(folder, info)
            write_card(folder)
    distributed.barrier()
    loaded.adapter, loaded.adapter_folder, loaded.vectors = info, out, vectors
