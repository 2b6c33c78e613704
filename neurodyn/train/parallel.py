"""Several processes that train one network, each on its share of every batch, through `torch.distributed`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch import Tensor, distributed

from neurodyn.checks import usable_device
from neurodyn.errors import LostWorkerError


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

    Raises
    ------
    RuntimeError
        If another process ends before the training does: in the first process; the others exit with status 1.

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
    # Its functions keep, as default arguments, the group that there is as it is imported, and an optimizer imports it.
    # A group that is kept, with its threads, until the interpreter ends may abort the process then.
    import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    except LostWorkerError:
        if distributed.get_rank() > 0:  # one message is enough
            raise SystemExit(1) from None
        raise
    finally:
        distributed.destroy_process_group()


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
            with _told():
                for tensor in tensors:
                    distributed.broadcast(tensor, 0)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of one dtype and device by their sums over the processes, in one message."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _told():
            distributed.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every process's tensor, all of one shape."""
        if self.size == 1:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        with _told():
            distributed.all_gather(gathered, tensor)
        return gathered


@contextmanager
def _told() -> Iterator[None]:
    """Say of an exchange that fails what that means."""
    try:
        yield
    except RuntimeError as error:
        told = str(error).partition("] ")[2].partition(". ")[0] or str(error)
        raise LostWorkerError(
            f"another process of this training has ended, or is out of reach ({told}); launch it again, with as many "
            "processes or others, to go on from the checkpoint, if there is one"
        ) from None
