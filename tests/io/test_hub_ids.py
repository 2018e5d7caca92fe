"""What is the name of a repository on the Hub."""

from __future__ import annotations

import pytest

from introspection.io.hub_ids import is_hub_id, split_hub_id


@pytest.mark.parametrize("text", ["org/name", "o/n", "a_b/c-d.e", "0/1"])
def test_is_hub_id(text: str) -> None:
    assert is_hub_id(text) and split_hub_id(text) == (text, None)
    assert not is_hub_id(f"{text}@main") and split_hub_id(f"{text}@pr/1") == (text, "pr/1")


@pytest.mark.parametrize(
    "text", ["", "name", "/a", "a/", "../a", "a/..", "a/b/c", "a b/c", "ä/b", "a/b\n", "a\\b"]
)
def test_other_texts_are_no_hub_ids(text: str) -> None:
    assert not is_hub_id(text) and split_hub_id(text) is None


@pytest.mark.parametrize("text", ["a/b@", "a/b@x y", "a/b@x@y", "@main", f"a/{'b' * 200}"])
def test_split_hub_id_refuses(text: str) -> None:
    assert split_hub_id(text) is None
