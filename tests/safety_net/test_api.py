"""The demo answers every recorded call of its public API as it did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.safety_net import api, entry
from tests.safety_net.data import differences, load, masked, rounded
from tests.support.tab import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    tmp = tmp_path_factory.mktemp("net")
    page = entry.page(tmp, free_port())
    yield page.local_url.rstrip("/"), tmp
    page.close()


@pytest.mark.parametrize("case", load("api.json"), ids=lambda case: case["id"])
def test_a_call_is_answered_as_recorded(case: dict[str, Any], server: tuple[str, Path]) -> None:
    url, tmp = server
    assert not differences(rounded(masked(api.called(url, case), tmp)), case["answer"])
