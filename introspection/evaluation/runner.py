"""Answers the samples of a suite in batches: every answer becomes a record, a run can be interrupted
and continued, and several processes share it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from introspection.errors import IntrospectionError
from introspection.evaluation.records import provenance
from introspection.evaluation.records import record_files as recording
from introspection.evaluation.samples import Sample
from introspection.evaluation.summary import summarise
from introspection.injection.decoding.generation import generate_with_scores
from introspection.injection.extraction import UNSEEN_TEMPLATE
from introspection.injection.trials import clock
from introspection.injection.trials.trial import Injection, Trial
from introspection.injection.vectors import control_vector
from introspection.io.files import write_text
from introspection.io.outputs import targets
from introspection.io.outputs.ownership import RECORDS
from introspection.models import distributed
from introspection.models.loaded_model import LoadedModel

TOKENS = 32  # of an answer; a thought that comes in mid-answer gets as many after it

Records = dict[str, dict[str, Any]]


def run(
    loaded: LoadedModel,
    cases: Sequence[Sample],
    out: Path,
    name: str,
    seed: int = 0,
    batch_size: int = 32,
    template: str = UNSEEN_TEMPLATE,
    progress: Callable[[int, int], None] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Answer every case, append ``out/records.jsonl`` batch by batch, write ``out/summary.json`` and
    return the summary.

    Records that are already there are not computed again; those of another run (suite, with which
    ``name`` begins, seed, adapter, base, template, device, version, ``options``) are refused. However
    the run ends, the summary says how many of the planned reports it covers. Under ``accelerate
    launch`` each process has a file of its own until all are done.
    """
    main = distributed.rank() == 0
    if main:
        out = targets.records_target(out)
    # A run that goes on tells its chat template the day on which it began.
    with clock.fixed(distributed.broadcast(_day(out / "records.jsonl") if main else clock.today())):
        made_by = provenance.describe(loaded, name, seed, template, len(cases), options or {})
        made_by = distributed.broadcast(json.loads(json.dumps(made_by)))
        return _run(loaded, cases, out, made_by, batch_size, progress)


def _day(path: Path) -> date:
    try:
        with path.open(encoding="utf-8") as file:
            return date.fromisoformat(json.loads(file.readline())["day"])
    except (OSError, ValueError, TypeError, KeyError):
        return clock.today()


def _run(
    loaded: LoadedModel,
    cases: Sequence[Sample],
    out: Path,
    made_by: Mapping[str, Any],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    main = distributed.rank() == 0
    whole = out / "records.jsonl"
    path = whole if main else out / f"records.{distributed.rank()}.jsonl"
    records: Records = distributed.broadcast(_load_records(whole, made_by, cases) if main else {})
    # Batches are the same at every start: the last digits of a score depend on the padding.
    # A batch lasts as long as its longest answer, so long ones, which are no reports, come together.
    planned = sorted(cases, key=lambda c: (_budget(c), not (c.adapter and c.asked), len(c.context)))
    batches = [planned[at : at + batch_size] for at in range(0, len(planned), batch_size)]
    left = [batch for batch in batches if any(case.key not in records for case in batch)]
    wanted = sorted({case.concept.name for case in cases if case.concept}) if left else []
    # The evaluation reads its vectors under its own template, never from the adapter's file.
    vectors = loaded.vectors_of(wanted, template=made_by["template"]) if wanted else None
    seen = recording.seen_names(loaded.adapter)
    out.mkdir(parents=True, exist_ok=True)
    before, made_here = len(records), list[list[dict[str, Any]]]()
    if main and left:
        _write(out, _summary(made_by, cases, records))  # a kill leaves no time for it
    try:
        with path.open("a", encoding="utf-8") as file:
            for batch in distributed.split_between_processes(left):
                trials = [_trial(case, vectors, made_by["seed"]) for case in batch]
                most = max(_budget(c) for c in batch)
                scored = [case.has_detection_score for case in batch]
                reports, scores = generate_with_scores(loaded, trials, scored, most, batch_size)
                time = recording.now()
                made = [
                    recording.make(made_by, case, seen, report, score, time)
                    for case, report, score in zip(batch, reports, scores, strict=True)
                    if case.key not in records
                ]
                file.writelines(map(recording.line, made))
                file.flush()
                made_here.append(made)
                if progress:
                    done = before + sum(map(len, made_here)) * distributed.world_size()
                    progress(min(done, len(cases)), len(cases))
    except BaseException:
        if main:
            records |= {record["key"]: record for made in made_here for record in made}
            with suppress(OSError):  # what stopped the run may be the disk
                _write(out, _summary(made_by, cases, records))
        raise
    for answered in distributed.gather(made_here):
        records |= {record["key"]: record for record in answered}
    summary = _summary(made_by, cases, records)
    if main:
        if distributed.world_size() > 1:
            write_text(whole, "".join(map(recording.line, records.values())))
            for part in _rank_files(whole):
                part.unlink()
        _write(out, summary)
    return summary


def _summary(run: Mapping[str, Any], cases: Sequence[Sample], records: Records) -> dict[str, Any]:
    ordered = [records[case.key] for case in cases if case.key in records]
    of_run = recording.run_of(ordered) if ordered else {**run, "started": None, "ended": None}
    return {
        "schema": provenance.SCHEMA,
        "run": run["run"],
        "provenance": of_run,
        "complete": len(ordered) == len(cases),
        "planned": len(cases),
        "done": len(ordered),
        **summarise(ordered),
    }


def _write(out: Path, summary: Mapping[str, Any]) -> None:
    write_text(out / "summary.json", json.dumps(provenance.seal(summary), indent=1) + "\n")


def _rank_files(whole: Path) -> list[Path]:
    """The files of the other processes of a run that did not end."""
    files = whole.parent.glob("records.*.jsonl")
    return sorted(path for path in files if RECORDS.fullmatch(path.name))


def _budget(case: Sample) -> int:
    return TOKENS + (case.schedule.start if case.schedule.starts_mid_answer else 0)


def _trial(case: Sample, vectors: Any, seed: int) -> Trial:
    if case.concept is None:
        return Trial(case.messages, None, case.adapter)
    of_key = int(case.key[:12], 16) + seed
    vector = control_vector(case.vector, vectors[case.concept.name], of_key)
    return Trial(case.messages, Injection(vector, case.strength, case.schedule), case.adapter)


def _load_records(path: Path, made_by: Mapping[str, Any], cases: Sequence[Sample]) -> Records:
    files = [file for file in (path, *_rank_files(path)) if file.exists()]
    if not files:
        return {}
    planned = {case.key for case in cases}
    records: Records = {}
    # A kill may cut a character in two, and a report may hold other line ends than "\n".
    text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    for line in text.split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that a kill cut short
        if not isinstance(record, dict):
            difference: str | None = "a line that is no record"
        else:
            difference = provenance.first_difference(record, made_by)
            if difference is None and record.get("key") not in planned:
                difference = "a report that is not planned"
        if difference:
            raise IntrospectionError(
                f"{path} holds records of another run ({difference}): choose a new folder with --out, "
                "or delete it to start over."
            )
        if provenance.sealed(record):  # else it was edited or damaged, and is made again
            records[record["key"]] = record
    # Drop a half line, so that appending starts on a fresh one.
    write_text(path, "".join(map(recording.line, records.values())))
    for part in files[1:]:
        part.unlink(missing_ok=True)
    return records
