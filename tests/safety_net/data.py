"""Files of recorded cases, and the comparison of what is found with what was recorded.

A file is a list of ``{"id": ..., ..., "answer": ...}``. Floats are recorded with four significant
digits and compared to within two thousandths of the larger; texts are compared exactly, apart from the
decimal numbers in what a command prints.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
TOLERANCE = 2e-3
DECIMAL = re.compile(r"\d+\.\d+")


def load(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return cases


def save(name: str, cases: list[dict[str, Any]]) -> None:
    lines = (json.dumps(case, ensure_ascii=False) for case in cases)
    (FOLDER / name).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Plain JSON of a value, its floats with four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, (list, tuple)) else value


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-6)


def differences(found: Any, recorded: Any, decimals: bool = False, at: str = "") -> list[str]:
    """Every place where two values differ, in words. ``decimals``: decimal numbers in texts too may
    differ by the tolerance."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        keys = [*recorded, *(key for key in found if key not in recorded)]
        missing = [
            f"{at}.{key}: only in one" for key in keys if (key in found) != (key in recorded)
        ]
        both = [key for key in keys if key in found and key in recorded]
        inside = (differences(found[k], recorded[k], decimals, f"{at}.{k}") for k in both)
        return [*missing, *(line for lines in inside for line in lines)]
    if isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        pairs = enumerate(zip(found, recorded, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, decimals, f"{at}[{i}]")]
    if isinstance(found, float) and isinstance(recorded, (int, float)):
        same = _near(found, recorded)
    elif decimals and isinstance(found, str) and isinstance(recorded, str):
        numbers = [list(map(float, DECIMAL.findall(text))) for text in (found, recorded)]
        same = DECIMAL.sub("#", found) == DECIMAL.sub("#", recorded)
        same = same and all(_near(a, b) for a, b in zip(*numbers, strict=True))
    else:
        same = type(found) is type(recorded) and found == recorded
    return [] if same else [f"{at}: found {found!r}, recorded {recorded!r}"]


_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d(?:T[\d:.+-]+Z?)?"), "<date>"),
    (re.compile(r"(?<=[ /(])[0-9a-f]{12,}\b"), "<hash>"),
    (re.compile(r"\b\d+\.\d+\.\d+[\w.+]*"), "<version>"),
    (re.compile(r"\b[\d.]+ (minutes?|seconds?|s|GB free)\b"), r"<some> \1"),
    (re.compile(r"(?<=cache folder: )[^,]+"), "<cache>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "<server>"),
    # One thing with two names, which the wording is about to settle.
    (re.compile(r"\bblock(s?)\b"), r"layer\1"),
)


def masked(value: Any, tmp: Path) -> Any:
    """The same without what differs from run to run: folders, dates, times, versions, ports."""
    if isinstance(value, dict):
        return {key: masked(part, tmp) for key, part in value.items()}
    if isinstance(value, list):
        return [masked(part, tmp) for part in value]
    if not isinstance(value, str):
        return value
    value = value.replace(str(tmp), "<tmp>").replace(str(ROOT), "<root>")
    for pattern, instead in _MASKS:
        value = pattern.sub(instead, value)
    return value
