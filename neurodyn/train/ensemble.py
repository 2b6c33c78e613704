"""Ensembles: networks of one architecture, one a seed, that learn at once with their parameters stacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from neurodyn.errors import InvalidValueError
from neurodyn.layers.alike import Difference
from neurodyn.train.learners import Learner

_ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")
"""The optimizers of `torch.optim` that treat each number of a parameter alone, so that stacked members do not mix."""


@contextmanager
def stacked(learners: Sequence[Learner], seeds: Sequence[int]) -> Iterator[Learner]:
    """Stack learners of one architecture, so that they learn at once; at the end each has what it learned.

    Yields
    ------
    Learner
        All of them; of one, that one.

    Raises
    ------
    ValueError
        If the learners differ in more than their parameters, gains, leaks, time constants and steps of inference, it is
        not known whether they do, or they share what they learn.
    """
    first = learners[0]
    if len(learners) == 1:
        yield first
        return
    for learner, seed in zip(learners, seeds, strict=True):
        try:
            first.compare(learner)
        except Difference as error:
            among = "" if learner is first else f" with the first, of seed {seeds[0]}"
            raise InvalidValueError(
                f"seeds: the network of seed {seed} cannot be stacked{among}: {error}; train each by itself"
            ) from error
    owners: dict[int, int] = {}
    for learner, seed in zip(learners, seeds, strict=True):
        for name, tensor in learner.tensors.items():
            if tensor.requires_grad and owners.setdefault(id(tensor), seed) != seed:
                raise InvalidValueError(
                    f"seeds: two networks share parameters: {name} of seed {seed} is one of seed {owners[id(tensor)]}; "
                    "build one for each seed"
                )
    together = first.stack(learners)
    try:
        yield together
    finally:
        together.stacks.write_back()


def check_elementwise(optimizer: Optimizer, scheduler: LRScheduler | None) -> None:
    """Refuse an optimizer or scheduler under which stacked members would not each follow a course of its own."""
    if type(optimizer) not in [getattr(torch.optim, name) for name in _ELEMENTWISE]:
        raise InvalidValueError(
            f"optimizer: {type(optimizer).__name__} may treat a parameter as a whole, and so mix the seeds; train each "
            f"by itself, or take one of {', '.join(_ELEMENTWISE)}"
        )
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise InvalidValueError(
            "optimizer: it has a step hook, which would see the parameters of all seeds as one, and so mix them, as "
            "clipping their norm does; train each by itself"
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        raise InvalidValueError("optimizer: ReduceLROnPlateau would follow the mean of the seeds; train each by itself")
