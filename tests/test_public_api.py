"""``import introspection``: light, and every public name is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import introspection

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", introspection.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(introspection, name) is not None and name in dir(introspection)


def test_no_other_name_is_made_up() -> None:
    with pytest.raises(AttributeError, match="no attribute 'extracted'"):
        introspection.extracted  # noqa: B018


def test_the_import_is_light() -> None:
    heavy = "{'torch', 'gradio', 'numpy'}"
    code = f"import sys, introspection; sys.exit(not {heavy}.isdisjoint(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0
