"""Several processes that share the work, one per GPU (``accelerate launch``); else there is one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

T = TypeVar("T")


@lru_cache(maxsize=1)
def _state() -> PartialState:
    return PartialState()


def rank() -> int:
    """The number of this process, 0 for the main one."""
    return int(_state().process_index)


def world_size() -> int:
    """How many processes there are."""
    return int(_state().num_processes)


def split_between_processes(items: Iterable[T]) -> list[T]:
    """This process's part: every ``world_size``-th item."""
    return list(items)[rank() :: world_size()]


def gather(part: list[T]) -> list[T]:
    """All parts that :func:`split_between_processes` made, put together in the original order."""
    if world_size() == 1:
        return part
    parts, size = dict(gather_object([(rank(), part)])), world_size()
    return [parts[i % size][i // size] for i in range(sum(map(len, parts.values())))]


def broadcast(value: T) -> T:
    """The main process's value."""
    if world_size() == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]


def all_reduce_sum(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor by its sum over the processes."""
    if world_size() > 1:
        values = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in values])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(values, flat.split([t.numel() for t in values]), strict=True):
            tensor.copy_(part.view_as(tensor))


def barrier() -> None:
    """Wait until every process is here."""
    _state().wait_for_everyone()


def device() -> str:
    """The device of this process: the best there is, its own GPU among several processes."""
    if world_size() > 1:
        return str(_state().device)
    return "cuda" if torch.cuda.is_available() else "cpu"
