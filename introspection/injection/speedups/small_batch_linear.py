"""A faster ``nn.Linear`` for 2 to 5 rows on a CPU.

Intel MKL computes ``(W @ x.T).T`` faster than ``x @ W.T`` there; the result is the same up to the order
of its sums. The thresholds were measured by ``benchmarks/few_rows.py`` on an AMD EPYC.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Beyond these sizes the usual product is as fast or faster.
MAX_ROWS, MAX_IN_FEATURES, MIN_OUT_FEATURES = 5, 1024, 512


class SmallBatchLinear(nn.Linear):
    """``nn.Linear`` whose product of rows [..., K] with the weight [N, K] is transposed where that is
    faster: without gradients, on a CPU, for 2 to 5 rows."""

    def forward(self, x: Tensor) -> Tensor:  # nn.Linear names it "input"
        rows = x.numel() // x.shape[-1]
        if not 1 < rows <= MAX_ROWS or not x.is_cpu or torch.is_grad_enabled():
            return functional.linear(x, self.weight, self.bias)
        flat = x.reshape(rows, -1)
        product = (self.weight @ flat.t()).t().contiguous().view(*x.shape[:-1], -1)
        return product if self.bias is None else product + self.bias


def use_small_batch_linear(model: nn.Module) -> None:
    """Replace the eligible layers of ``model`` in place: on a CPU, float32, at most 1024 inputs, at
    least 512 outputs. No effect under autograd or after a move to a GPU."""
    for module in model.modules():
        if (
            type(module) is nn.Linear
            and module.weight.is_cpu
            and module.weight.dtype == torch.float32
            and module.in_features <= MAX_IN_FEATURES
            and module.out_features >= MIN_OUT_FEATURES
        ):
            module.__class__ = SmallBatchLinear
