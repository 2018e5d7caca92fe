"""Rates with their uncertainty: 95 % intervals of rates and of their differences, and the area under
the ROC curve."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True, slots=True)
class Rate:
    """A proportion with a 95 % interval; ``contexts`` counts distinct ones, 0 if unknown."""

    successes: int
    n: int
    low: float
    high: float
    contexts: int

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else math.nan


@dataclass(frozen=True, slots=True)
class Difference:
    """The first rate less the second, with a 95 % interval."""

    value: float
    low: float
    high: float


def rate(outcomes: Iterable[bool], contexts: Iterable[Hashable] | None = None) -> Rate:
    """Share of true outcomes with a Wilson interval, NaN where there are none."""
    hits = [bool(o) for o in outcomes]
    distinct = len(set(contexts)) if contexts is not None else 0
    if not hits:
        return Rate(0, 0, math.nan, math.nan, distinct)
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return Rate(sum(hits), len(hits), float(interval.low), float(interval.high), distinct)


def difference(a: Rate, b: Rate) -> Difference:
    """Newcombe's interval for a - b, of independent samples."""
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    value = a.value - b.value
    return Difference(value, value - below, value + above)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a positive scores above a negative, ties half; NaN if either is empty."""
    if not len(positive) or not len(negative):
        return math.nan
    return float(stats.mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative)))
