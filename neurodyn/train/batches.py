"""Batches: pairs of inputs and targets, drawn in an order that a seed alone decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

from neurodyn.checks import whole
from neurodyn.data.datasets import Samples
from neurodyn.errors import InvalidTypeError, InvalidValueError

Data = Dataset[Any] | Sequence[Tensor]
"""`Samples`, another torch `Dataset` of pairs (inputs, targets) with a length, or a pair of tensors."""


class Pairs:
    """Pairs of inputs and targets, of which any may be drawn.

    Parameters
    ----------
    data
        As `Data`; the targets are floating-point.
    what
        What they are, for messages, e.g. "train".

    Raises
    ------
    TypeError
        If `data` is something else, or a sample is no pair of tensors.
    ValueError
        If there are no samples, or not as many targets as inputs.
    """

    def __init__(self, data: Data, what: str) -> None:
        if isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
            inputs, targets = data
            if len(inputs) != len(targets):
                raise InvalidValueError(
                    f"{what}: {len(inputs)} inputs and {len(targets)} targets; give one target an input"
                )
            data = TensorDataset(inputs, targets)
        if not isinstance(data, Dataset) or not hasattr(data, "__len__"):
            hint = "; unpack the pair of data sets: train, test = …" if isinstance(data, (tuple, list)) else ""
            raise InvalidTypeError(
                f"{what} is nd.data.Samples, a torch Dataset with a length, or a pair of tensors (inputs, targets), "
                f"not a {type(data).__name__}{hint}"
            )
        self.name = str(getattr(data, "name", what))
        self._data: Dataset[Any] = data
        self._samples = len(cast(Sized, data))
        if self._samples == 0:
            raise InvalidValueError(f"{what}: there are no samples")
        with torch.random.fork_rng(devices=[]):  # drawing a first sample may draw random numbers
            self.draw(torch.zeros(1, dtype=torch.int64))

    def __len__(self) -> int:
        return self._samples

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets, shapes (sample, …), of the samples at `index`, shape (sample,), int64.

        Raises
        ------
        TypeError
            If they are no pair of tensors, or the targets are not floating-point.
        """
        data: Any = self._data
        if isinstance(data, (Samples, TensorDataset)):
            drawn = data[index]
        elif hasattr(data, "__getitems__"):
            drawn = default_collate(data.__getitems__(index.tolist()))
        else:
            drawn = default_collate([data[each] for each in index.tolist()])
        if not (isinstance(drawn, (tuple, list)) and len(drawn) == 2 and all(isinstance(p, Tensor) for p in drawn)):
            raise InvalidTypeError(f"{self.name}: a sample is a pair (inputs, targets) of tensors")
        if not drawn[1].is_floating_point():
            raise InvalidTypeError(
                f"{self.name}: targets must be floating-point, not {drawn[1].dtype}; make labels one-hot, e.g. by "
                "torch.nn.functional.one_hot(labels, classes).float()"
            )
        return drawn[0], drawn[1]


def shuffled(samples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the samples in an epoch, which the seed and the epoch's number, from 1, decide; int64."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(samples))


def batches(data: Data, batch_size: int = 64, *, seed: int = 0, epoch: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch, the same that `fit` trains on: for a training loop of one's own.

    Parameters
    ----------
    data
        `nd.data.Samples`, another torch `Dataset` of pairs with a length, or a pair of tensors (inputs, targets).
    batch_size
        How many samples; the last batch of an epoch may have fewer.
    seed
        As given to `fit`.
    epoch
        The number of the epoch, counted from 1.

    Yields
    ------
    inputs, targets : Tensor
        Shape (sample, …).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> for epoch in range(1, 9):
    ...     for inputs, targets in nd.train.batches(train, 64, seed=0, epoch=epoch):
    ...         optimizer.zero_grad()
    ...         nd.backward(network, inputs, targets)
    ...         optimizer.step()
    """
    pairs = Pairs(data, "data")
    whole("batch_size", batch_size, least=1)
    whole("seed", seed, least=0)
    whole("epoch", epoch, least=1)
    for index in torch.split(shuffled(len(pairs), seed, epoch), batch_size):
        yield pairs.draw(index)
