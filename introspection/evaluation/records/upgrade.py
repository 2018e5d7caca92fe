"""Records of schema 1 -> the present schema: what was not written down of them stays null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from introspection.concepts.splits import UNSEEN_CATEGORIES
from introspection.errors import IntrospectionError
from introspection.evaluation.records.provenance import SCHEMA, seal
from introspection.evaluation.records.record_files import FIELDS, seen_names, was_trained
from introspection.evaluation.samples import asks_about_state, has_detection_score, messages_of
from introspection.injection.extraction import UNSEEN_TEMPLATE
from introspection.injection.trials.schedule import Schedule
from introspection.io.outputs import manifest
from introspection.models.adapters import adapter_info
from introspection.models.fingerprints import same_base
from introspection.models.local_paths import name_of

_OLD = frozenset(
    {"run", "key", "condition", "concept", "category", "split", "harmful", "strength", "schedule"}
    | {"question", "seed", "adapter", "vector", "text", "detected", "named", "correct", "halted"}
    | {"halted_at", "tokens", "coherent", "p_detect"}
)


def is_old(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether they are of schema 1, which did not say so. Raises IntrospectionError for what is no
    record of either."""
    if any("schema" in record for record in records):
        return False
    if all(set(record) >= _OLD for record in records):
        return True
    raise IntrospectionError("These are no records of an evaluation: name a records.jsonl of one.")


def upgraded(records: Sequence[Mapping[str, Any]], folder: Path | None) -> list[dict[str, Any]]:
    """``records`` of schema 1 in the present one. ``folder`` is the adapter that answered, if it is
    still there. Raises IntrospectionError if their label names another one.

    The program of that time read vectors under ``UNSEEN_TEMPLATE`` only, and knew no other options.
    """
    label = str(records[0]["run"])
    info = adapter_info.read_info(folder) if folder else None
    run: dict[str, Any] = dict.fromkeys(FIELDS) | {
        "schema": SCHEMA,
        "run": label,
        "suite": label.replace("-", " ").split(" ")[0],
        "options": {},
        "template": UNSEEN_TEMPLATE,
        "model": label.removeprefix("paper-") if label.startswith("paper-") else None,
        "planned": len(records),
    }
    if folder and info:
        weights = manifest.read_json(folder / manifest.INFO)["files"][manifest.WEIGHTS]
        base, _, answered = label.split(" ")[-1].partition("+")
        if answered != weights[:12] or not same_base(base, info.base_fingerprint):
            raise IntrospectionError(
                f"The records of the run {label} are not of the adapter in {folder} "
                f"({info.base_fingerprint}+{weights[:12]}): name the one that they belong to."
            )
        run |= {
            "options": {} if " test " in label else {"split": "validation"},
            "weights": weights,
            "base": base,
            "layer": info.layer,
            "norm": info.norm,
            "site": info.site,
            "base_id": name_of(info.base_id),
        }
    seen = seen_names(info)
    return [_upgraded(run, record, seen) for record in records]


def _upgraded(
    run: Mapping[str, Any], record: Mapping[str, Any], seen: frozenset[str] | None
) -> dict[str, Any]:
    name = record["concept"]
    asked = asks_about_state(messages_of(record["question"]))
    scored = has_detection_score(asked, record["adapter"], Schedule.parse(record["schedule"]))
    fields = {
        **run,
        **record,
        "held_out": record["category"] in UNSEEN_CATEGORIES if name is not None else None,
        "trained": was_trained(name, seen) if name is not None and seen is not None else None,
        "asked": asked,
        "p_detect": record["p_detect"] if scored else None,
    }
    return seal({field: fields[field] for field in FIELDS if field != "check"})
