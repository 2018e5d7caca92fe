"""Records: what was asked, what was answered, the verdict, and where it comes from (``FIELDS``)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from introspection.concepts.catalogue import Concept, resolve
from introspection.concepts.morphology import lemma
from introspection.concepts.splits import UNSEEN_CATEGORIES
from introspection.errors import IntrospectionError
from introspection.evaluation.grading.grade import grade
from introspection.evaluation.grading.graded_answer import grade_answer
from introspection.evaluation.records import provenance
from introspection.evaluation.records.provenance import SCHEMA, seal
from introspection.evaluation.samples import Sample, sample_key
from introspection.injection.decoding.generation import Answer
from introspection.io.characters import quoted

# Field -> what it says, in every condition alike. records/README.md shows this table.
FIELDS: Mapping[str, str] = {
    "schema": "version of this table",
    "run": "suite, split, seed, fingerprint of the base + first 12 digits of the adapter's weights, "
    "and a checksum of the options if there are any",
    "suite": "quick, full, paper or own (own word list or contexts)",
    "options": "what the command was told beside the suite: split, limit, strengths, schedules, "
    "conditions, base, template, quantise, and checksums of own concepts and contexts",
    "seed": "of the draw of concepts and texts and of the random vectors",
    "weights": "sha256 of adapter_model.safetensors, of base rows too",
    "base": "fingerprint of the base model",
    "layer": "layer (0-based) whose output is read and written",
    "norm": "typical residual norm at that layer: the unit of strength",
    "site": "where vectors are read: concept, concept_end or last",
    "template": "sentence that vectors are read under",
    "model": "preset, Hub id or the name of a folder",
    "base_id": "Hub id of the base model, or the name of its folder",
    "adapter_name": "the adapter as people know it",
    "day": "that the chat template is told; null if it says no date",
    "device": "cpu, cuda or mps, and the precision of the weights",
    "versions": "of introspection, python, torch, transformers, peft",
    "planned": "reports of the whole run",
    "key": "checksum of condition, question, concept, strength, schedule, adapter and vector",
    "condition": "name of the group that a rate is taken over",
    "concept": "name of the concept whose vector is used; null where nothing is injected and for "
    "clean contexts",
    "category": "of the concept",
    "split": "bucket of the hash rule of the concept's name alone: train, validation or test",
    "held_out": "whether the concept's category is held out from training as a whole",
    "trained": "whether the training of this adapter saw the concept, by name, alias or lemma",
    "harmful": "whether the concept is harmful",
    "strength": "rho: length of the added vector / norm; 0 where nothing is injected",
    "schedule": "where it is added",
    "question": "the whole conversation, 'role: text' line by line",
    "asked": "whether its last user message asks the model about its state",
    "adapter": "whether the adapter answers, or the untrained model",
    "vector": "concept, noise (a random direction) or negated; null where nothing is injected",
    "text": "the answer",
    "detected": "whether the answer reports a thought",
    "named": "the words in which it names one",
    "correct": "whether it names the concept whose own vector was injected; where none was, whether "
    "it reports and halts nothing",
    "halted": "whether the halt marker stopped the answer",
    "halted_at": "tokens of the answer until the marker was complete",
    "tokens": "of the answer",
    "coherent": "whether the answer is text",
    "p_detect": "p(detect) at the first words; null unless the adapter is asked about its state and "
    "the thought is there from the start",
    "time": "UTC, when the batch was answered",
    "check": "checksum of all other fields",
}


def now() -> str:
    """The time in UTC, as records hold it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seen_names(info: Any) -> frozenset[str] | None:
    """The names that the training of an adapter saw, for :func:`was_trained`; None without one."""
    if info is None:
        return None
    return frozenset(name.casefold() for name in (*info.trained, *info.vocabulary))


def was_trained(name: str, seen: frozenset[str]) -> bool:
    """Whether training saw a concept: its name, one of its aliases, or its lemma."""
    spellings = {text.casefold() for text in (name, *resolve(name).aliases)}
    return not seen.isdisjoint(spellings | {lemma(name)})


def make(
    run: Mapping[str, Any],
    case: Sample,
    seen: frozenset[str] | None,
    answer: Answer,
    score: float | None,
    time: str,
) -> dict[str, Any]:
    """The record of one answered case."""
    concept = case.concept
    graded = grade_answer(answer, _expected(concept.name if concept else None, case.vector))
    fields = {
        **run,
        "key": case.key,
        "condition": case.condition,
        "concept": concept.name if concept else None,
        "category": concept.category if concept else None,
        "split": concept.split if concept else None,
        "held_out": concept.category in UNSEEN_CATEGORIES if concept else None,
        "trained": was_trained(concept.name, seen) if concept and seen is not None else None,
        "harmful": concept.harmful if concept else None,
        "strength": case.strength,
        "schedule": str(case.schedule),
        "question": case.context,
        "asked": case.asked,
        "adapter": case.adapter,
        "vector": case.vector if concept else None,
        **graded.as_json(),
        "halted": answer.halted_at is not None,
        "p_detect": None if score is None else round(score, 6),
        "time": time,
    }
    return seal({name: fields[name] for name in FIELDS if name != "check"})


def _expected(concept: str | None, vector: str | None) -> Concept | None:
    """A thought is expected only where the concept's own vector was injected."""
    return resolve(concept) if concept is not None and vector == "concept" else None


def _verdict_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that today's grading gives its text."""
    verdict = grade(record["text"], _expected(record["concept"], record["vector"]))
    return {name: getattr(verdict, name) for name in ("detected", "named", "correct", "coherent")}


def regraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the verdict that today's grading gives its text."""
    return seal({**record, **_verdict_of(record)})


def moved(
    records: Sequence[Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], dict[str, tuple[Any, Any]]]]:
    """Every record whose verdict today's grading would change, and the fields: (recorded, of today)."""
    changes = []
    for record in records:
        new = _verdict_of(record)
        changed = {name: (record[name], new[name]) for name in new if record[name] != new[name]}
        if changed:
            changes.append((record, changed))
    return changes


def as_bytes(records: Iterable[Mapping[str, Any]], path: Path) -> bytes:
    """A file of records; a compressed one is the same bytes whenever it is written."""
    data = "".join(map(line, records)).encode()
    return gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data


def line(record: Mapping[str, Any]) -> str:
    """The record as a line of a ``.jsonl`` file."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def load(path: Path) -> list[dict[str, Any]]:
    """Records of a ``.jsonl`` or ``.jsonl.gz`` file, unchecked. Raises IntrospectionError if there are
    none or they cannot be read."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        records: list[dict[str, Any]] = [json.loads(part) for part in text.split("\n") if part]
        if not all(isinstance(record, dict) for record in records):
            raise ValueError
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise IntrospectionError(
            f"The records {path} cannot be read ({type(error).__name__}): write them again with "
            "'python -m introspection evaluate'."
        ) from error
    if not records:
        raise IntrospectionError(f"The records {path} are empty: run the evaluation again.")
    return records


def intact(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Raises IntrospectionError unless the records are of one run, of today's schema, and unedited."""
    first, keys = records[0], set()
    for number, record in enumerate(records, 1):
        schema = record.get("schema")
        if schema != SCHEMA:
            shown = "1 or older" if schema is None else quoted(str(schema))
            raise IntrospectionError(
                f"Line {number} of {path} has schema {shown}, this program "
                f"reads {SCHEMA}: run 'python -m introspection regrade {path}' for older records, or "
                "the evaluation again."
            )
        if (
            record.keys() != FIELDS.keys()
            or not provenance.sealed(record)
            or key_of(record) != record["key"]
        ):
            raise IntrospectionError(
                f"Line {number} of {path} was edited or damaged (its checksum does not fit): restore "
                "the file or run the evaluation again."
            )
        if difference := provenance.first_difference(record, first):
            raise IntrospectionError(
                f"Line {number} of {path} is of another run than line 1 ({difference}): keep the "
                "records of one run in one file."
            )
        if record["key"] in keys:
            raise IntrospectionError(
                f"Line {number} of {path} stands there twice: restore the file or run the evaluation "
                "again."
            )
        keys.add(record["key"])


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a whole run, unedited and graded as today, or IntrospectionError."""
    records = load(path)
    intact(path, records)
    first = records[0]
    if len(records) != first["planned"]:
        raise IntrospectionError(
            f"{path} holds {len(records):,} of the {first['planned']:,} reports of its run: run the "
            "same 'python -m introspection evaluate' again, which continues it."
        )
    for number, record in enumerate(records, 1):
        if regraded(record) != record:
            raise IntrospectionError(
                f"The verdict in line {number} of {path} is not what today's grading says of its text: "
                f"run 'python -m introspection regrade {path}'."
            )
    return records


def key_of(record: Mapping[str, Any]) -> str:
    """The key that the record's own fields give: another one than it holds shows an edit."""
    return sample_key(
        *(record["condition"], record["question"], record["concept"], record["strength"]),
        *(record["schedule"], record["adapter"], record["vector"] or "concept"),
    )


def run_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the records say of their run: the ``RUN_FIELDS``, first and last time, and a checksum that
    changes with any record, whatever their order."""
    times = sorted(record["time"] for record in records if record["time"])
    return {
        **{field: records[0][field] for field in provenance.RUN_FIELDS},
        "started": times[0] if times else None,
        "ended": times[-1] if times else None,
        "records_check": provenance.checksum(
            {"records": sorted(record["check"] for record in records)}
        ),
    }
