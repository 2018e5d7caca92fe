"""When the prefix that rows share is run once."""

from __future__ import annotations

import pytest
import torch

from introspection.injection.speedups.prefix_cache import prefill, shared_prefix
from tests.support.tiny import make_model

PREFIX = list(range(5, 25))
ROWS = [[*PREFIX, 30], [*PREFIX, 31, 32], [*PREFIX, 33], [*PREFIX, 30, 34]]


def test_the_prefix_ends_before_what_differs_or_is_injected() -> None:
    model = make_model("llama")
    assert shared_prefix(model, ROWS, ())[0] == 20
    assert shared_prefix(model, ROWS, (15, 18))[0] == 15
    assert shared_prefix(model, [PREFIX] * 4, ())[0] == 19  # a token is left of each row


@pytest.mark.parametrize(("before", "copies"), [((13,), 1), ((), 3)])
def test_too_few_tokens_are_not_worth_a_forward(before: tuple[int, ...], copies: int) -> None:
    assert shared_prefix(make_model("llama"), ROWS, before, copies) == (0, None)


def test_layers_that_keep_the_latest_tokens_only_must_be_allowed() -> None:
    model = make_model("gemma3_text")
    assert shared_prefix(model, ROWS, ()) == (0, None)
    assert shared_prefix(model, ROWS, (), windows=True)[0] == 20


def test_rows_go_on_from_the_prefix() -> None:
    model = make_model("llama")
    length, cache = shared_prefix(model, ROWS, ())
    assert cache is not None
    with torch.no_grad():
        prefill(model, torch.tensor([PREFIX]), cache)
        cache.batch_repeat_interleave(2)
        rest = model(
            input_ids=torch.tensor([[30], [33]]), past_key_values=cache, use_cache=True
        ).logits
        whole = model(input_ids=torch.tensor([ROWS[0], ROWS[2]])).logits
    assert length == 20
    torch.testing.assert_close(rest[:, 0], whole[:, -1], rtol=1e-4, atol=1e-4)
