"""Computations that are made for batch after batch: after the first three, by the operations that they come down to.

A small gradient costs more in Python, which finds its way through the declaration, than in arithmetic, and it finds the
same way for every batch of one shape.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from neurodyn.progress import AFTER

try:
    from neurodyn.layers.notes import Notes
    from neurodyn.layers.program import Operations
except ImportError:  # PyTorch makes no promise for what it stands on; without it, every batch goes the long way
    Notes = None  # type: ignore[assignment, misc]

Rest = TypeVar("Rest")
_here = threading.local()
_WORTH = 10
"""For how many batches on end operations must hold to be worth being tried in vain for another."""


def expect(reads: Callable[..., bool], tensors: Sequence[Tensor], *numbers: int) -> bool:
    """Return what a function tells of tensors and numbers, on which the course of a computation depends.

    What was noted of the computation is good for as long as it tells the same.
    """
    notes: Notes | None = getattr(_here, "notes", None)
    return reads(tensors, *numbers) if notes is None else notes.expect(reads, tensors, *numbers)


def constant(make: Callable[[], Tensor]) -> Tensor:
    """Return the new tensor that a function makes of numbers that are the same for every batch, as coefficients are."""
    notes: Notes | None = getattr(_here, "notes", None)
    return make() if notes is None else notes.constant(make)


def steered() -> None:
    """Say that numbers steer the course of a computation, of which no condition tells: it is not to be noted."""
    notes: Notes | None = getattr(_here, "notes", None)
    if notes is not None:
        notes.give_up()


def all_true(tensors: Sequence[Tensor]) -> bool:
    """Tell whether all values of boolean tensors are true: a condition for `expect`."""
    return all(bool(tensor.view(torch.uint8).min()) for tensor in tensors)  # PyTorch's own takes 15 times as long


def any_true(tensors: Sequence[Tensor]) -> bool:
    """Tell whether any value of boolean tensors is true."""
    return any(bool(tensor.view(torch.uint8).max()) for tensor in tensors)


class Repeated(Generic[Rest]):
    """A computation that is made for one batch after the other, all of the same shapes.

    It is made as it is written for the first batches, noted with the next, and compared with the one after, to the bit.
    What cannot be noted is made as it is written every time, and so is what takes other courses time and again.

    Parameters
    ----------
    known
        The tensors that it may read beside a batch and what it makes of it: weights, and buffers that it fills.
    first
        For how many batches it is made as it is written: notes take as long as many a computation.
    """

    def __init__(self, known: Iterable[Tensor], first: int = 1) -> None:
        self._known, self._first = list(known), first
        self._batches = self._held = 0
        self._operations: Operations | None = None
        self._rest: Rest | None = None

    def passes(self) -> bool:
        """Tell whether it is one of the first that are made as they are written, and count it."""
        first = self._batches < self._first
        self._batches += first
        return first

    @property
    def noted(self) -> bool:
        """Whether the operations are known, and have been compared."""
        return self._operations is not None and self._batches > self._first + 1

    @property
    def hopeless(self) -> bool:
        """Whether the operations could not be noted, and never will be."""
        return self._operations is None and self._batches > self._first

    def again(self, batch: Sequence[Tensor]) -> tuple[Sequence[Tensor | None], Rest] | None:
        """Return what the operations give for a batch; None where they are not known, or do not hold for it."""
        if not self.noted:
            return None
        done = self._alone(batch)
        self._held += done is not None
        return done

    def made(
        self, batch: Sequence[Tensor], compute: Callable[[], tuple[Sequence[Tensor | None], Rest]]
    ) -> tuple[Sequence[Tensor | None], Rest]:
        """Return what a computation gives for a batch, made as it is written.

        Parameters
        ----------
        batch
            The tensors of the batch, each of them another object.
        compute
            Returns tensors, or None in the place of one, and what is the same for every batch. The tensors are new, or
            those of the batch that it writes to.

        Returns
        -------
        tensors, rest
            Tensors of the batch, which it has written to, or others with the values that belong there.
        """
        if self.noted:  # in vain
            self._operations = self._operations if self._held >= _WORTH else None
            self._held = 0
        self._batches += 1
        if self._batches == self._first + 1 and Notes is not None:
            return self._note(batch, compute)
        found, rest = compute()
        if self._batches == self._first + 2 and self._operations is not None:
            kept = [None if each is None else each.clone() for each in found]
            alone = self._alone(batch)
            if alone is None or not all(map(_equal, alone[0], kept)):
                self._operations = None
                found = kept
        return found, rest

    def _alone(self, batch: Sequence[Tensor]) -> tuple[Sequence[Tensor | None], Rest] | None:
        assert self._operations is not None, "they are noted"
        found, held = self._operations(*batch)
        return (found, cast(Rest, self._rest)) if all(held) else None

    def _note(
        self, batch: Sequence[Tensor], compute: Callable[[], tuple[Sequence[Tensor | None], Rest]]
    ) -> tuple[Sequence[Tensor | None], Rest]:
        notes = _here.notes = Notes(batch, self._known)
        try:
            began = time.monotonic()
            with notes:
                found, self._rest = compute()
        finally:
            _here.notes = None
        # What takes so long has nothing to gain, and tells how far it is.
        self._operations = None if time.monotonic() - began > AFTER else notes.operations(found)
        return found, self._rest


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return torch.equal(one, other) if one is not None and other is not None else one is other
