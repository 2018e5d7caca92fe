"""Control vectors: what stands in place of a concept vector."""

from __future__ import annotations

import torch

from introspection.injection.vectors import control_vector, random_direction


def test_control_vectors() -> None:
    vector = random_direction(1, 64)
    assert control_vector("concept", vector, 5) is vector
    assert torch.equal(control_vector("negated", vector, 5), -vector)
    drawn = torch.randn(64, generator=torch.Generator().manual_seed(5))
    for kind in ("noise", "random"):
        torch.testing.assert_close(control_vector(kind, vector, 5), drawn / drawn.norm())
