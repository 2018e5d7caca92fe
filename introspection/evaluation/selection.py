"""Which cases of a suite are run: conditions, how many of each, schedules, the base model too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from introspection.errors import IntrospectionError
from introspection.evaluation.conditions import checked, holds, variant_name
from introspection.evaluation.samples import Sample
from introspection.injection.trials.schedule import GENERATION, Schedule, choice, schedule_value
from introspection.io.characters import quoted
from introspection.io.input_checks import strength_value


def chosen_strengths(text: str) -> tuple[float, ...]:
    """Strengths with commas between. Raises IntrospectionError for anything else."""
    strengths = tuple(dict.fromkeys(strength_value(part.strip()) for part in text.split(",")))
    if 0 in strengths:
        raise IntrospectionError(
            "A strength of 0 injects nothing: the clean conditions ask that; choose others."
        )
    return strengths


def chosen_schedules(text: str) -> tuple[Schedule, ...]:
    """Schedules with commas between, of those that fit any prompt. Raises IntrospectionError."""
    schedules = tuple(dict.fromkeys(schedule_value(part.strip()) for part in text.split(",")))
    for schedule in schedules:
        if not schedule.fits_any_prompt:
            raise IntrospectionError(
                f"The schedule {quoted(str(schedule))} fits one prompt, not a whole suite: choose "
                f"{choice('any prompt', number='N')}."
            )
    return schedules


def select(
    cases: Sequence[Sample],
    conditions: Sequence[str] = (),
    limit: int | None = None,
    schedules: Sequence[Schedule] = (GENERATION,),
    base: bool = False,
) -> list[Sample]:
    """The cases of ``conditions`` (names, ``*`` for anything), the first ``limit`` of each condition.

    A case whose thought is there from the start comes once per schedule; another schedule than
    ``final_on`` is named in its condition. With ``base`` every case of the adapter comes once more for
    the untrained model, in place of the suite's own sample of such cases. Raises IntrospectionError
    for what is not there.
    """
    chosen = _named(cases, conditions)
    if base:
        chosen = [case for case in chosen if case.adapter]
    counts: Counter[str] = Counter()
    timed: list[Sample] = []
    for case in chosen:
        counts[case.condition] += 1
        if limit is None or counts[case.condition] <= limit:
            timed += _timed(case, schedules)
    twins = [
        replace(case, condition=variant_name(case.condition, adapter=False), adapter=False)
        for case in (timed if base else ())
    ]
    if not timed:
        raise IntrospectionError(
            "No report is left of this choice: take other --conditions or --schedules, or leave --base "
            "out."
        )
    return checked([*timed, *twins])


def _named(cases: Sequence[Sample], conditions: Sequence[str]) -> list[Sample]:
    names = list(dict.fromkeys(case.condition for case in cases))
    for wanted in conditions:
        if not any(fnmatchcase(name, wanted) for name in names):
            raise IntrospectionError(
                f"There is no condition {quoted(wanted)} in this run: separate several with ';', and "
                f"choose from {'; '.join(names)}."
            )
    if not conditions:
        return list(cases)
    return [case for case in cases if any(fnmatchcase(case.condition, c) for c in conditions)]


def _timed(case: Sample, schedules: Sequence[Schedule]) -> list[Sample]:
    if case.concept is None or case.schedule != GENERATION:
        return [case]
    named = [(variant_name(case.condition, each, case.adapter), each) for each in schedules]
    timed = (replace(case, condition=name, schedule=schedule) for name, schedule in named)
    # A thought that begins in mid-answer is no longer there "under an ordinary request".
    return [other for other in timed if holds(other)]
