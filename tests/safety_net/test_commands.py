"""Every recorded command line ends, prints and writes as it did."""

from __future__ import annotations

from typing import Any

import pytest

from tests.safety_net.commands import Commands
from tests.safety_net.data import differences, load


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(tmp_path_factory.mktemp("net"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(case["id"], marks=() if case.get("fast") else pytest.mark.slow)
        for case in load("commands.json")
    ],
)
def test_a_command_does_as_recorded(name: str, commands: Commands) -> None:
    recorded: dict[str, Any] = commands.cases[name]["answer"]
    assert not differences(commands.answer(name), recorded, decimals=True)
