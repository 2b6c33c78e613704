"""Ensembles: networks of one architecture, one a seed, that learn at once with their parameters stacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from neurodyn.errors import InvalidValueError
from neurodyn.system.stacking import Stacked, at_one_pace, stack_networks
from neurodyn.train.learners import Learner, ModuleLearner, NetworkLearner

_TOLERANCE = 1e-2
"""How far, relative to its size, a member's first gradient may be from its own, solvers' tolerances included."""

_ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")
"""The optimizers of `torch.optim` that treat each number of a parameter alone, so that stacked members do not mix."""


@contextmanager
def stacked(
    learners: Sequence[Learner], batches: Sequence[tuple[Tensor, Tensor]], seeds: Sequence[int]
) -> Iterator[Learner]:
    """Stack learners of one architecture, so that they learn at once; what one learns, it learns in place.

    Parameters
    ----------
    learners
        One a seed.
    batches
        A batch for each, by which it is verified that the members learn what each would learn by itself.
    seeds
        For messages.

    Yields
    ------
    Learner
        All of them; of one, that one.

    Raises
    ------
    ValueError
        If the learners differ in more than their parameters, gains, leaks, time constants and steps of inference, draw
        random numbers, or do not learn alike stacked.
    """
    if len(learners) == 1:
        yield learners[0]
        return
    for learner, seed in zip(learners, seeds, strict=True):
        if not learner.is_like(learners[0]):
            raise InvalidValueError(
                f"seeds: the network of seed {seed} differs from that of seed {seeds[0]} in more than weights, gains, "
                "leaks, time constants and the step of inference"
            )
    everything = [tensor for learner in learners for tensor in learner.tensors.values()]
    if len(set(everything)) < len(learners) * len(set(learners[0].tensors.values())):
        raise InvalidValueError("seeds: two networks share parameters; build one for each seed")
    for learner, seed in zip(learners, seeds, strict=True):
        learner.refuse_hooks(f"seeds: the network of seed {seed}")
    random = torch.get_rng_state()
    alone = [_gradients(learner, *batch) for learner, batch in zip(learners, batches, strict=True)]
    if not torch.equal(random, torch.get_rng_state()):
        raise InvalidValueError(
            "seeds: the networks draw random numbers as they learn, which stacked ones would share; train each by "
            "itself"
        )
    try:
        try:
            together = _stack(learners)
            found = _gradients(together, *(torch.cat(parts) for parts in zip(*batches, strict=True)))
        except (RuntimeError, TypeError, ValueError) as error:
            raise InvalidValueError(f"seeds: the networks cannot be stacked ({error}); train each by itself") from error
        for seed, own, *gradients in zip(seeds, alone, *found, strict=True):
            _check_alike(seed, own, gradients)
        yield together
    finally:
        for tensor in everything:
            tensor.data = tensor.data.clone()


def _stack(learners: Sequence[Learner]) -> Learner:
    first, count = learners[0], len(learners)
    if isinstance(first, ModuleLearner):
        modules = [learner.module for learner in learners if isinstance(learner, ModuleLearner)]
        together: Learner = ModuleLearner(Stacked(modules), first.loss, count, modes=modules[0])
    else:
        assert isinstance(first, NetworkLearner)
        networks = [learner.network for learner in learners if isinstance(learner, NetworkLearner)]
        if first.duration is None:  # elsewhere, the steps of inference have no part
            networks = at_one_pace(networks)
        together = NetworkLearner(stack_networks(networks), first.duration, first.solver, count)
    together.name = first.name
    together.description = "\n\n".join(dict.fromkeys(learner.description for learner in learners))
    return together


def _gradients(learner: Learner, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    """Return the gradients that a batch leaves, and leave all else as it was."""
    before = {name: tensor.detach().clone() for name, tensor in learner.tensors.items()}
    for parameter in learner.parameters:
        parameter.grad = None
    learner.learn(inputs, targets)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.parameters]
    for parameter in learner.parameters:
        parameter.grad = None
    with torch.no_grad():
        for name, tensor in learner.tensors.items():
            tensor.copy_(before[name])
    return gradients


def _check_alike(seed: int, alone: Sequence[Tensor], stacked: Sequence[Tensor]) -> None:
    largest = torch.stack([gradient.norm() for gradient in alone]).max()
    if not bool(torch.isfinite(largest)):
        return  # the first batch will tell that the run diverges
    for own, found in zip(alone, stacked, strict=True):
        # A gradient that is rounding itself, such as that of a bias whose effect cancels, has no relative precision.
        if not bool((own - found).norm() <= _TOLERANCE * own.norm() + torch.finfo(own.dtype).eps ** 0.75 * largest):
            raise InvalidValueError(
                f"seeds: the network of seed {seed} does not learn among others as it does by itself: a part of it "
                "looks at several samples, or holds tensors of its own that are no parameters; train each by itself"
            )


def check_elementwise(optimizer: Optimizer, scheduler: LRScheduler | None) -> None:
    """Refuse an optimizer or scheduler under which stacked members would not each follow a course of its own.

    Raises
    ------
    ValueError
        If it is one.
    """
    if type(optimizer) not in [getattr(torch.optim, name) for name in _ELEMENTWISE]:
        raise InvalidValueError(
            f"optimizer: {type(optimizer).__name__} may treat a parameter as a whole, and so mix the seeds; train each "
            f"by itself, or take one of {', '.join(_ELEMENTWISE)}"
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        raise InvalidValueError("optimizer: ReduceLROnPlateau would follow the mean of the seeds; train each by itself")
