"""Products of two to five rows with a large matrix on a CPU, the other way round.

Knows: where Intel's library, which torch calls on a CPU, is slow: its kernels for so few rows take
longer than those of the transposed product. By how much, and where it pays, is what
``benchmarks/few_rows.py`` measures (on AMD EPYC). The numbers are the same up to the order of their
sums. Does not know: what a model is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SmallBatchLinear", "use_small_batch_linear"]

# Where it pays; beyond, the usual way is as fast or faster.
MAX_ROWS, MAX_IN_FEATURES, MIN_OUT_FEATURES = 5, 1024, 512


class SmallBatchLinear(nn.Linear):
    """Rows [..., K] times the weight [N, K], turned round where it pays."""

    def forward(self, x: Tensor) -> Tensor:  # its parent's name for it is "input"
        rows = x.numel() // x.shape[-1]
        if not 1 < rows <= MAX_ROWS or not x.is_cpu or torch.is_grad_enabled():
            return functional.linear(x, self.weight, self.bias)
        flat = x.reshape(rows, -1)
        found = (self.weight @ flat.t()).t().contiguous().view(*x.shape[:-1], -1)
        return found if self.bias is None else found + self.bias


def use_small_batch_linear(model: nn.Module) -> None:
    """Let every large linear layer of ``model`` on a CPU in full precision do so, if it has few
    inputs. What is trained, or moved to a GPU later, is as it would be without."""
    for module in model.modules():
        if (
            type(module) is nn.Linear
            and module.weight.is_cpu
            and module.weight.dtype == torch.float32
            and module.in_features <= MAX_IN_FEATURES
            and module.out_features >= MIN_OUT_FEATURES
        ):
            module.__class__ = SmallBatchLinear
