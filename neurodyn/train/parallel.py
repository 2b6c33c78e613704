"""Several processes that train one network, each on its share of every batch, through `torch.distributed`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from neurodyn.checks import usable_device


@contextmanager
def launched(device: torch.device | str = "cpu") -> Iterator[torch.device]:
    """Join the processes that `torchrun` has launched, if it has; `fit` then trains data-parallel.

    Parameters
    ----------
    device
        "cpu", where the processes talk through gloo; or "cuda", through nccl, with one GPU a process.

    Yields
    ------
    torch.device
        That of this process.

    Examples
    --------
    >>> with nd.train.launched("cuda") as device:
    ...     history = nd.train.fit(network, train, test, epochs=10, device=device)
    """
    device = usable_device("device", device)
    if not distributed.is_torchelastic_launched():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()
        gc.collect()  # without it, a process on one core is now and then aborted as it exits


class Processes:
    """The processes of the default group of `torch.distributed`, or this one alone."""

    def __init__(self) -> None:
        grouped = distributed.is_available() and distributed.is_initialized()
        self.size = distributed.get_world_size() if grouped else 1
        self.rank = distributed.get_rank() if grouped else 0

    def share(self, index: Tensor) -> Tensor:
        """Return this process's part of a batch's samples, shape (…, sample); it may be empty."""
        return index.tensor_split(self.size, -1)[self.rank]

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the tensors of the first."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of one dtype and device by their sums over the processes, in one message."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every process's tensor, all of one shape."""
        if self.size == 1:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(gathered, tensor)
        return gathered
