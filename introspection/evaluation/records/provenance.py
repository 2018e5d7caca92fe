"""Where a number comes from, and whether it belongs to an adapter.

A run of ``evaluate`` describes itself (``RUN_FIELDS``), and a checksum shows an edit by hand. Whoever
puts a number beside an adapter (``report``, ``push``, the page) asks :func:`check` first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from introspection.errors import IntrospectionError
from introspection.io.version import __version__, versions
from introspection.models.fingerprints import fingerprint
from introspection.models.local_paths import name_of

if TYPE_CHECKING:
    from introspection.models.loaded_model import LoadedModel

SCHEMA = 2  # of records, summary.json and evaluation.json
MEASURE = (
    "run 'python -m introspection evaluate --suite full' and then 'python -m introspection report' "
    "for this adapter"
)
# What every record of a run says alike, in the order in which a difference is told.
RUN_FIELDS = (
    *("schema", "run", "suite", "options", "seed", "weights", "base", "layer", "norm", "site"),
    *("template", "model", "base_id", "adapter_name", "day", "device", "versions", "planned"),
)


def describe(
    loaded: LoadedModel,
    name: str,
    seed: int,
    template: str,
    planned: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The ``RUN_FIELDS`` of a run of ``planned`` reports. ``name`` begins with the suite's; ``options``
    are those that differ from the command's own."""
    from introspection.injection.trials import clock
    from introspection.injection.trials.prompts import prompt_depends_on_date
    from introspection.io.files import sha256_file
    from introspection.io.outputs import manifest

    folder, model = loaded.adapter_folder, loaded.model
    label = f"{name} {loaded.fingerprint_with_adapter}"
    if options:
        label += f" {checksum(options)}"
    return {
        "schema": SCHEMA,
        "run": label,
        "suite": name.split(" ")[0],
        "options": dict(options),
        "seed": seed,
        "weights": sha256_file(folder / manifest.WEIGHTS) if folder else None,
        "base": fingerprint(model),
        "layer": loaded.layer,
        "norm": loaded.norm,
        "site": loaded.adapter.site if loaded.adapter else "concept",
        "template": template,
        "model": name_of(loaded.name),
        "base_id": name_of(loaded.base),
        "adapter_name": loaded.adapter_name or None,
        "day": clock.today().isoformat() if prompt_depends_on_date(loaded.tokenizer) else None,
        "device": f"{model.device.type} {str(model.dtype).removeprefix('torch.')}",
        "versions": versions(),
        "planned": planned,
    }


def checksum(document: Mapping[str, Any]) -> str:
    """Checksum [16 hex digits] of all fields of ``document`` but ``check``."""
    plain = {name: value for name, value in document.items() if name != "check"}
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with its checksum, as it is when it comes back from a file."""
    plain = json.loads(json.dumps(document))
    plain.pop("check", None)
    return {**plain, "check": checksum(plain)}


def sealed(document: Mapping[str, Any]) -> bool:
    """Whether the checksum of ``document`` fits, so that nobody edited it by hand."""
    return document.get("check") == checksum(document)


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first of ``RUN_FIELDS`` in which two runs differ, and both values."""
    for field in ("options", *RUN_FIELDS):  # the label of a run says no more than its options
        a, b = one.get(field), other.get(field)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            name = next(key for key in {**a, **b} if a.get(key) != b.get(key))
            field, a, b = f"{field}: {name}", a.get(name), b.get(name)
        return f"{field} {_short(a)} there, {_short(b)} here"
    return None


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def same_version(one: str) -> bool:
    """Whether what version ``one`` of this package wrote means the same today: its first number that
    is not zero, as in semantic versioning."""

    def compatible(version: str) -> list[str]:
        numbers = version.split(".")
        first = next((i for i, number in enumerate(numbers) if number != "0"), len(numbers))
        return numbers[: first + 1]

    return compatible(one) == compatible(__version__)


def check(run: Mapping[str, Any], folder: Path, what: str, remedy: str = MEASURE) -> None:
    """Raise IntrospectionError with the first difference between a run (its ``RUN_FIELDS``) and the
    adapter in ``folder``. What is not known (null) is not compared, but the weights must be known."""
    from introspection.io.outputs import manifest
    from introspection.models.fingerprints import same_base

    info = manifest.read_json(folder / manifest.INFO)
    try:
        weights, base, layer, norm = (run[name] for name in ("weights", "base", "layer", "norm"))
        made_by, schema = (run["versions"] or {}).get("introspection"), run["schema"]
        its_weights, its_base = info["files"][manifest.WEIGHTS], info["base_fingerprint"]
        its_layer, its_norm = info["layer"], float(info["norm"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntrospectionError(
            f"{what} cannot be compared with the adapter in {folder} ({error} is missing or garbled): "
            f"{remedy}."
        ) from error
    if weights is None:
        raise IntrospectionError(f"{what} does not say which adapter answered: {remedy}.")
    difference = None
    if weights != its_weights:
        difference = f"another adapter (weights {str(weights)[:12]} there, {its_weights[:12]} here)"
    elif base is not None and not same_base(str(base), str(its_base)):
        difference = f"another base model (fingerprint {str(base)[:40]} there, {its_base} here)"
    elif layer != its_layer:
        difference = f"another layer (layer {_short(layer)} there, {its_layer} here)"
    elif not isinstance(norm, int | float) or not math.isclose(norm, its_norm, rel_tol=1e-6):
        difference = f"another unit of strength (norm {_short(norm)} there, {its_norm:g} here)"
    elif schema != SCHEMA:
        difference = f"another schema ({_short(schema)} there, {SCHEMA} here)"
    elif made_by is not None and not same_version(str(made_by)):
        difference = f"another version (introspection {_short(made_by)} there, {__version__} here)"
    if difference:
        raise IntrospectionError(f"{what} is of {difference}: {remedy}.")
