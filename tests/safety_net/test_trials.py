"""The default model answers every recorded trial as it did: text, verdict, score, injected span."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from tests.safety_net import entry
from tests.safety_net.data import differences, load, rounded

pytestmark = pytest.mark.slow
CASES = load("trials.json")


@lru_cache
def answers(batch: str) -> dict[str, Any]:
    """A batch mixes rows of all kinds; its name begins with the way it is asked."""
    rows = [case for case in CASES if case["batch"] == batch]
    way = batch.split()[0]
    found = entry.answered(entry.default_model(), way, rows, rows[0]["tokens"])
    return {case["id"]: answer for case, answer in zip(rows, rounded(found), strict=True)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_trial_is_answered_as_recorded(case: dict[str, Any]) -> None:
    assert not differences(answers(case["batch"])[case["id"]], case["answer"])
