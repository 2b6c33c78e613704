"""Batches: pairs of inputs and targets, drawn in an order that a seed alone decides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from neurodyn.checks import check_dense, whole
from neurodyn.data.datasets import Samples
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.randomness import seeded

Data = Dataset[Any] | Sequence[Tensor]
"""`Samples`, another torch `Dataset` of pairs (inputs, targets) with a length, or a pair of tensors."""

_DIGESTED_SAMPLES = 256
_DIGESTED_BYTES = 2**28
"""How much of a data set its digest is of, at most: samples of any, and bytes of one that memory holds."""
_CHUNK = 4096
"""How many samples are digested at once."""


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
            for part, kind in zip(data, ("inputs", "targets"), strict=True):
                check_dense(f"{what}: {kind}", part)
            if len(inputs) != len(targets):
                raise InvalidValueError(
                    f"{what}: {len(inputs)} inputs and {len(targets)} targets; give one target an input"
                )
            data = TensorDataset(inputs, targets)
        if not isinstance(data, Dataset) or isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise InvalidTypeError(
                f"{what} is nd.data.Samples, a torch Dataset with a length, or a pair of tensors (inputs, targets), "
                f"not a {type(data).__name__}{_hint(data)}"
            )
        self.name = str(getattr(data, "name", what))
        self._data: Dataset[Any] = data
        self._samples = len(cast(Sized, data))
        if self._samples == 0:
            raise InvalidValueError(f"{what}: there are no samples")
        held = data.tensors if type(data) is TensorDataset else (data.inputs,) if type(data) is Samples else ()
        for part, kind in zip(held, ("inputs", "targets"), strict=False):
            check_dense(f"{self.name}: {kind}", part)
        with seeded(0):  # drawing a first sample may draw random numbers
            first = self.draw(torch.zeros(1, dtype=torch.int64, device="cpu"))
        self.outputs = first[1].numel()
        """How many numbers a target has."""
        self._kinds = [f"{part.dtype} {tuple(part.shape[1:])}" for part in first]
        self._sample_bytes = sum(part.numel() * part.element_size() for part in first)
        self._refuse_not_finite(held)

    def __len__(self) -> int:
        return self._samples

    def _refuse_not_finite(self, parts: Sequence[Tensor]) -> None:
        for part, what in zip(parts, ("inputs", "targets"), strict=False):
            if part.is_floating_point() and not (bool(part.sum().isfinite()) or bool(part.isfinite().all())):
                bad = int((~part.isfinite()).flatten(1).any(1).nonzero()[0])
                raise InvalidValueError(f"{self.name}: {what} of sample {bad} are NaN or infinite; all must be finite")

    def fingerprint(self) -> str:
        """Return a digest by which the data are known again: of all samples, or of some, evenly spread over the rest.

        Of tensors, all of 256 MiB count; of another `Dataset`, 256 samples, drawn with seeds of their own. What comes
        out otherwise each time that it is drawn, as a random augmentation does, counts with its shape alone.
        """
        held = isinstance(self._data, (Samples, TensorDataset))
        most = max(_DIGESTED_SAMPLES, _DIGESTED_BYTES // max(1, self._sample_bytes)) if held else _DIGESTED_SAMPLES
        places = (
            torch.linspace(0, self._samples - 1, min(self._samples, most), dtype=torch.float64, device="cpu")
            .round()
            .long()
        )
        digests = [hashlib.blake2b(kind.encode(), digest_size=16) for kind in self._kinds]
        with seeded(0):
            if held:
                for index in torch.split(places, _CHUNK):
                    for part, digest in zip(self.draw(index), digests, strict=True):
                        digest.update(_bytes(part))
            else:
                # A first sample drawn twice tells whether it comes out the same.
                for part, digest in zip(self.draw(torch.cat([places, places[:1]])), digests, strict=True):
                    digest.update(_bytes(part[:-1]) if torch.equal(part[0], part[-1]) else b"")
        return ", ".join(digest.hexdigest() for digest in digests)

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


def _hint(data: object) -> str:
    """Say what to do about data that are none."""
    if isinstance(data, IterableDataset):
        return ", whose samples are not drawn by their index"
    if isinstance(data, DataLoader):
        return "; give its .dataset, and batch_size="
    if isinstance(data, (tuple, list)) and len(data) == 2:
        if all(isinstance(part, Dataset) for part in data):
            return "; unpack the pair of data sets: train, test = …"
        if all(isinstance(part, (np.ndarray, Tensor)) for part in data):
            return " of arrays; make tensors of them, by torch.as_tensor"
    return ""


def _bytes(part: Tensor) -> bytes:
    return part.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


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
    >>> import torch
    >>> import neurodyn as nd
    >>> module = nd.mlp([64, 10], seed=0)
    >>> network = nd.models.activation_relaxation.network(module)
    >>> optimizer = torch.optim.Adam(module.parameters())
    >>> for epoch in range(1, 3):
    ...     for inputs, targets in nd.train.batches(nd.data.digits()[0][:128], 64, seed=0, epoch=epoch):
    ...         optimizer.zero_grad()
    ...         loss = nd.backward(network, inputs, targets)
    ...         _ = optimizer.step()
    """
    pairs = Pairs(data, "data")
    batch_size = whole("batch_size", batch_size, least=1)
    seed, epoch = whole("seed", seed, least=0), whole("epoch", epoch, least=1)
    for index in torch.split(shuffled(len(pairs), seed, epoch), batch_size):
        yield pairs.draw(index)
