"""Ensembles: networks of one architecture, one a seed, that learn at once with their parameters stacked.

A batch of the ensemble has the samples of the first member, then those of the second, and so on. Layers without
parameters do not notice; a layer with parameters becomes a `Stacked` one, in which each member has its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from neurodyn.layers import CompoundLayer, LayerPoint, LinearPoint, layer_point
from neurodyn.learners import Learner, ModuleLearner, NetworkLearner
from neurodyn.network import Network
from neurodyn.stages import Stage

_TOLERANCE = 1e-2
"""How far, relative to its size, a member's first gradient may be from its own, solvers' tolerances included."""

_ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")
"""The optimizers of `torch.optim` that treat each number of a parameter alone, so that stacked members do not mix."""


class Stacked(CompoundLayer):
    """Modules of one architecture as one; each acts on its own block of the samples.

    Parameters
    ----------
    members
        The modules. Their parameters and buffers become views of the stacked ones, which have the member as first axis.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = tuple(members)  # a tuple, so that their parameters do not count as this module's
        self._names: dict[str, str] = {}
        for name, first in members[0].named_parameters():
            own = self._names[name] = name.replace(".", "/")
            stacked = stack([member.get_parameter(name) for member in members])
            self.register_parameter(own, nn.Parameter(stacked, requires_grad=first.requires_grad))
        for name, _ in members[0].named_buffers():
            own = self._names[name] = name.replace(".", "/")
            self.register_buffer(own, stack([member.get_buffer(name) for member in members]))

    def forward(self, *x: Tensor) -> Tensor:
        """Return the members' values, shape (member · sample, …)."""

        def member(tensors: dict[str, Tensor], *x: Tensor) -> Tensor:
            value: Tensor = functional_call(self.members[0], tensors, x)
            return value

        tensors = {name: getattr(self, own) for name, own in self._names.items()}
        values: Tensor = vmap(member)(tensors, *(torch.stack(each.chunk(len(self.members))) for each in x))
        return values.flatten(0, 1)

    def point(self) -> LayerPoint:
        linear = all(type(layer_point(member)) is LinearPoint for member in self.members)
        return _StackedLinearPoint(self) if linear else _StackedPoint(self)


class _StackedPoint(LayerPoint):
    """Members one after the other, each by its own `LayerPoint`."""

    layer: Stacked

    def __init__(self, layer: Stacked) -> None:
        super().__init__(layer)
        self._points = [layer_point(member) for member in layer.members]
        self.feedback_needs_forward = self._points[0].feedback_needs_forward
        self.gradient_needs_forward = self._points[0].gradient_needs_forward

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        return x.chunk(len(self._points))

    def forward(self, *x: Tensor) -> Tensor:
        parts = zip(*(self._parts(each) for each in x), strict=True)
        return torch.cat([point.forward(*part) for point, part in zip(self._points, parts, strict=True)])

    def feedback(self, v: Tensor) -> Tensor:
        return torch.cat([point.feedback(part) for point, part in zip(self._points, self._parts(v), strict=True)])

    def feedback_to(self, argument: int, v: Tensor) -> Tensor:
        parts = zip(self._points, self._parts(v), strict=True)
        return torch.cat([point.feedback_to(argument, part) for point, part in parts])

    def feedback_through(self, v: Tensor, weights: Tensor) -> Tensor:
        parts = zip(self._points, self._parts(v), weights, strict=True)
        return torch.cat([point.feedback_through(part, own) for point, part, own in parts])

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        parts = zip(self._points, self._parts(x), self._parts(v), strict=True)
        return tuple(torch.stack(each) for each in zip(*(p.gradient(*part) for p, *part in parts), strict=True))


class _StackedLinearPoint(LayerPoint):
    """Members' `nn.Linear` at once, by batched products of matrices."""

    feedback_needs_forward = False
    layer: Stacked

    def __init__(self, layer: Stacked) -> None:
        super().__init__(layer)
        weight, *bias = layer.parameters()
        self._weight, self._bias = weight.detach(), bias[0].detach().unsqueeze(1) if bias else None

    def _blocks(self, x: Tensor) -> Tensor:
        return x.reshape(len(self._weight), -1, x.shape[-1])

    def forward(self, x: Tensor, /) -> Tensor:
        blocks, transposed = self._blocks(x), self._weight.mT
        y = blocks @ transposed if self._bias is None else torch.baddbmm(self._bias, blocks, transposed)
        return y.view(*x.shape[:-1], -1)

    def feedback(self, v: Tensor) -> Tensor:
        return (self._blocks(v) @ self._weight).view(*v.shape[:-1], -1)

    def feedback_through(self, v: Tensor, weights: Tensor) -> Tensor:
        return (self._blocks(v) @ weights.mT).view(*v.shape[:-1], -1)

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        x, v = self._blocks(x), self._blocks(v)
        weight = v.mT @ x
        return (weight,) if self._bias is None else (weight, v.sum(1))


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
        If the learners differ in more than their parameters, draw random numbers, or do not learn alike stacked.
    """
    if len(learners) == 1:
        yield learners[0]
        return
    for learner, seed in zip(learners, seeds, strict=True):
        if learner.description != learners[0].description:
            raise ValueError(
                f"seeds: the network of seed {seed} differs from that of seed {seeds[0]} in more than weights"
            )
    everything = [tensor for learner in learners for tensor in learner.tensors.values()]
    if len(set(everything)) < len(learners) * len(set(learners[0].tensors.values())):
        raise ValueError("seeds: two networks share parameters; build one for each seed")
    random = torch.get_rng_state()
    alone = [_gradients(learner, *batch) for learner, batch in zip(learners, batches, strict=True)]
    if not torch.equal(random, torch.get_rng_state()):
        raise ValueError(
            "seeds: the networks draw random numbers as they learn, which stacked ones would share; train each by "
            "itself"
        )
    try:
        try:
            together = _stack(learners)
            found = _gradients(together, *(torch.cat(parts) for parts in zip(*batches, strict=True)))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"seeds: the networks cannot be stacked ({error}); train each by itself") from error
        for seed, own, *gradients in zip(seeds, alone, *found, strict=True):
            _check_alike(seed, own, gradients)
        yield together
    finally:
        for tensor in everything:
            tensor.data = tensor.data.clone()


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors along a new first axis, and make each a view of its part."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, stacked, strict=True):
        tensor.data = part
    return stacked


def _stack(learners: Sequence[Learner]) -> Learner:
    first, count = learners[0], len(learners)
    if isinstance(first, ModuleLearner):
        modules = [learner.module for learner in learners if isinstance(learner, ModuleLearner)]
        together: Learner = ModuleLearner(Stacked(modules), first.loss, count, modes=modules[0])
    else:
        assert isinstance(first, NetworkLearner)
        networks = [learner.network for learner in learners if isinstance(learner, NetworkLearner)]
        together = NetworkLearner(_stack_networks(networks), first.duration, first.solver, count)
    together.name, together.description = first.name, first.description
    return together


def _stack_networks(networks: Sequence[Network]) -> Network:
    """Return the declaration that the networks share, with stacked layers and feedback weights in place of theirs."""
    replaced: dict[int, Any] = {}
    for stages in zip(*(network.stages for network in networks), strict=True):
        for name, attribute in vars(Stage).items():
            if isinstance(attribute, cached_property):
                getattr(stages[0], name)  # read off the plain layers, before they are replaced
        for layers in zip(*(stage.layers for stage in stages), strict=True):
            if id(layers[0]) not in replaced and layers[0].state_dict():
                replaced[id(layers[0])] = Stacked(layers)
    for weights in zip(*(network.feedback_parameters() for network in networks), strict=True):
        tensors = [tensor for _, tensor in weights]
        replaced[id(tensors[0])] = nn.Parameter(stack(tensors), requires_grad=tensors[0].requires_grad)
    return copy.deepcopy(networks[0], replaced)


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
            raise ValueError(
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
        raise ValueError(
            f"optimizer: {type(optimizer).__name__} may treat a parameter as a whole, and so mix the seeds; train each "
            f"by itself, or take one of {', '.join(_ELEMENTWISE)}"
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError("optimizer: ReduceLROnPlateau would follow the mean of the seeds; train each by itself")
