"""Runs suites of cases, and turns the reports into records and rates.

Knows: how a record looks, how records become a summary. Does not know: which conditions a claim
needs (``suites``), how text is graded (``grading``) or drawn (``plots``).

One JSON line per report. The unit of analysis is the concept; every rate carries n, the number of
distinct contexts and a 95 % interval. A run that is interrupted continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from introspection import outputs, parallel
from introspection.cache import write_text
from introspection.concepts import resolve
from introspection.errors import IntrospectionError
from introspection.extraction import UNSEEN_TEMPLATE, random_direction
from introspection.generation import generate_scored
from introspection.grading import grade
from introspection.models import LoadedModel
from introspection.ownership import RECORDS
from introspection.rates import auroc, difference, rate
from introspection.suites import Case
from introspection.trials import Injection, Trial

__all__ = ["run", "summarise", "table"]

TOKENS = 32  # of an answer; a thought that comes in mid-answer gets as many after it


def run(
    loaded: LoadedModel,
    cases: Sequence[Case],
    out: Path,
    name: str,
    seed: int = 0,
    batch_size: int = 32,
    template: str = UNSEEN_TEMPLATE,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Answer every case, append ``out/records.jsonl`` batch by batch, write ``out/summary.json``.

    Records that are already there are kept and not computed again; a folder with records of another
    run is refused. Under ``accelerate launch`` the processes share the batches, each with a file of
    its own until all are done. Returns the summary.
    """
    main = parallel.rank() == 0
    if main:
        out = outputs.records_target(out)
    whole = out / "records.jsonl"
    path = whole if main else out / f"records.{parallel.rank()}.jsonl"
    records = parallel.everyone(_finished(whole, name, cases) if main else {})
    # Batches are the same at every start: the last digits of a score depend on the padding.
    # A batch lasts as long as its longest answer, so those that write on come together.
    planned = sorted(cases, key=lambda c: (_budget(c), _writes_on(c), len(c.context)))
    batches = [planned[at : at + batch_size] for at in range(0, len(planned), batch_size)]
    left = [batch for batch in batches if any(case.key not in records for case in batch)]
    wanted = sorted({case.concept.name for case in cases if case.concept}) if left else []
    # The evaluation reads its vectors under its own template, never from the adapter's file.
    vectors = loaded.vectors_of(wanted, template=template) if wanted else None
    out.mkdir(parents=True, exist_ok=True)
    before, own = len(records), list[list[dict[str, Any]]]()
    with path.open("a", encoding="utf-8") as file:
        for batch in parallel.share(left):
            trials = [_trial(case, vectors, seed) for case in batch]
            most = max(_budget(c) for c in batch)
            scored = [_decides_at_once(case) for case in batch]
            reports, scores = generate_scored(loaded, trials, scored, most, batch_size)
            own.append(
                [
                    _record(name, seed, case, report, score)
                    for case, report, score in zip(batch, reports, scores, strict=True)
                    if case.key not in records
                ]
            )
            file.writelines(map(_line, own[-1]))
            file.flush()
            if progress:
                done = before + sum(map(len, own)) * parallel.world()
                progress(min(done, len(cases)), len(cases))
    for found in parallel.gather(own):
        records |= {record["key"]: record for record in found}
    ordered = [records[case.key] for case in cases]
    summary = summarise(ordered)
    if main:
        if parallel.world() > 1:
            write_text(whole, "".join(map(_line, records.values())))
            for part in _parts(whole):
                part.unlink()
        write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _parts(whole: Path) -> list[Path]:
    """The files of the other processes of a run that did not end."""
    found = whole.parent.glob("records.*.jsonl")
    return sorted(path for path in found if RECORDS.fullmatch(path.name))


def _budget(case: Case) -> int:
    return TOKENS + (case.schedule.start if case.schedule.kind == "from_step" else 0)


def _writes_on(case: Case) -> bool:
    """Whether the answer is rather an ordinary one than a short report."""
    return not case.adapter or case.condition.endswith("ordinary request")


def _decides_at_once(case: Case) -> bool:
    """Whether the first words of the answer say if a thought was detected: a question was put to the
    adapter, and a thought would be there by then. Elsewhere a score means nothing."""
    return not _writes_on(case) and case.schedule.kind != "from_step"


def _trial(case: Case, vectors: Any, seed: int) -> Trial:
    if case.concept is None:
        return Trial(case.messages, None, case.adapter)
    vector = vectors[case.concept.name]
    if case.vector == "noise":
        vector = random_direction(int(case.key[:12], 16) + seed, len(vector))
    elif case.vector == "negated":
        vector = -vector
    return Trial(case.messages, Injection(vector, case.strength, case.schedule), case.adapter)


def _record(name: str, seed: int, case: Case, report: Any, score: float | None) -> dict[str, Any]:
    concept = case.concept
    shown = case.vector == "concept"
    verdict = grade(
        report.text,
        concept.name if concept and shown else None,
        concept.aliases if concept and shown else (),
    )
    return {
        "run": name,
        "key": case.key,
        "condition": case.condition,
        "concept": concept.name if concept else None,
        "category": concept.category if concept else None,
        "split": concept.split if concept else None,
        "harmful": concept.harmful if concept else None,
        "strength": case.strength,
        "schedule": str(case.schedule),
        "question": case.context,
        "seed": seed,
        "adapter": case.adapter,
        "vector": case.vector if concept else None,
        "text": report.text,
        "detected": verdict.detected,
        "named": verdict.named,
        "correct": verdict.correct,
        "halted": report.halted_at is not None,
        "halted_at": report.halted_at,
        "tokens": report.tokens,
        "coherent": verdict.coherent,
        "p_detect": None if score is None else round(score, 6),
    }


def _finished(path: Path, name: str, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    files = [file for file in (path, *_parts(path)) if file.exists()]
    if not files:
        return {}
    planned = {case.key for case in cases}
    records = {}
    # A kill may cut a character in two, and a report may hold other line ends than "\n".
    text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    for line in text.split("\n"):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that a kill cut short
        if record.get("run") != name or record.get("key") not in planned:
            raise IntrospectionError(
                f"{path} holds records of another run: choose a new folder with --out, or delete it "
                "to start over."
            )
        records[record["key"]] = record
    # Drop a half line, so that appending starts on a fresh one.
    write_text(path, "".join(map(_line, records.values())))
    for part in files[1:]:
        part.unlink(missing_ok=True)
    return records


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rates per condition, and the comparisons that the README quotes. Pure: records in, rates out."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["condition"], []).append(record)
    conditions = {}
    for condition, group in groups.items():
        contexts = [record["question"] for record in group]
        rates = {
            field: asdict(rate([bool(r[field]) for r in group], contexts))
            for field in ("detected", "correct", "halted", "coherent")
        }
        rates["named"] = asdict(
            rate([_names_it(r) for r in group], contexts)  # also where nothing was expected
        )
        flagged = [bool(r["detected"] or r["halted"]) for r in group]
        delays = sorted(
            r["halted_at"] - int(r["schedule"].split(":")[1])
            for r in group
            if r["halted_at"] and r["schedule"].startswith("from_step")
        )
        conditions[condition] = {
            "n": len(group),
            "concepts": len({r["concept"] for r in group} - {None}),
            "contexts": len(set(contexts)),
            **rates,
            "flagged": asdict(rate(flagged, contexts)),
            "median_tokens_to_halt": delays[len(delays) // 2] if delays else None,
        }
    return {"conditions": conditions, "comparisons": _comparisons(groups)}


def _names_it(record: dict[str, Any]) -> bool:
    """Whether the report names the concept whose vector, or its negative, was used."""
    if record["concept"] is None or record["named"] is None:
        return False
    concept = resolve(record["concept"])
    return grade(record["text"], concept.name, concept.aliases).correct


def _comparisons(groups: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen, unseen = groups.get("injected, seen"), groups.get("injected, unseen")
    if seen and unseen:
        for field in ("detected", "correct"):
            pair = [rate([bool(r[field]) for r in group]) for group in (seen, unseen)]
            found[f"seen minus unseen, {field}"] = asdict(difference(*pair))
    clean = [
        r
        for condition, group in groups.items()
        if condition.startswith("clean,") and "base model" not in condition
        for r in group
    ]
    if clean:
        flagged = [bool(r["detected"] or r["halted"]) for r in clean]
        found["false positives, all clean contexts"] = asdict(
            rate(flagged, [r["question"] for r in clean])
        )
    asked = [r for r in clean if r["condition"] == "clean, asked"]
    if unseen and asked:
        found["auroc of p_detect, unseen against clean asked"] = auroc(
            [r["p_detect"] for r in unseen], [r["p_detect"] for r in asked]
        )
    return found


def table(summary: dict[str, Any]) -> list[str]:
    """The summary as lines of text: one per condition, percent with the 95 % interval."""

    def percent(cell: dict[str, Any]) -> str:
        if not cell["n"]:
            return "-"
        value = 100 * cell["successes"] / cell["n"]
        return f"{value:5.1f} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"

    lines = [f"{'condition':42}{'n':>6}{'contexts':>10}  {'detected %':22}{'correct %':22}halted %"]
    for condition, found in summary["conditions"].items():
        cells = "  ".join(
            f"{percent(found[field]):20}" for field in ("detected", "correct", "halted")
        )
        lines.append(f"{condition:42}{found['n']:>6}{found['contexts']:>10}  {cells}")
    for name, value in summary["comparisons"].items():
        if isinstance(value, float):
            lines.append(f"{name}: {value:.4f}")
        elif "n" in value:
            lines.append(f"{name}: {percent(value).strip()} % of {value['n']}")
        else:
            low, high = 100 * value["low"], 100 * value["high"]
            lines.append(f"{name}: {100 * value['value']:.1f} points [{low:.1f}, {high:.1f}]")
    return lines
