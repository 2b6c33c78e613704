"""Stacking: networks of one architecture as one network, in which each acts on its own block of the samples.

A batch has the samples of the first member, then those of the second, and so on. Layers without parameters do not
notice; a layer with parameters becomes a `Stacked` one, in which each member has its own, and a coupling whose gain
differs among the members has a factor for each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.points import CompoundLayer, LayerPoint, LinearPoint, layer_point
from neurodyn.layers.stages import Stage
from neurodyn.network.maps import Activity, Identity, Map, OperatingPoints, Term
from neurodyn.network.network import Network
from neurodyn.network.parts import Coupling, Population
from neurodyn.system.bound import Inputs
from neurodyn.system.system import State, System

_TOLERANCE = 1e-2
"""How far, relative to its size, a member's first velocity may be from its own."""
_ASIDE = 1e-2
"""How far beside the start, in units of activity, the velocities are compared too."""


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


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors along a new first axis, and make each a view of its part."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, stacked, strict=True):
        tensor.data = part
    return stacked


def stack_networks(networks: Sequence[Network]) -> Network:
    """Return the declaration that the networks share, with stacked layers and feedback weights in place of theirs.

    What all have in common, as networks declared for one module do, stays as it is. An observable is read off each
    member's samples by its own function. A coupling has the gains of all, in units of the first one's time constants.

    Parameters
    ----------
    networks
        Of the same declaration, but for weights, gains, leaks and time constants. Their weights become views of the
        stacked ones.
    """
    replaced: dict[int, Any] = {}
    for stages in zip(*(network.stages for network in networks), strict=True):
        for name, attribute in vars(Stage).items():
            if isinstance(attribute, cached_property):
                getattr(stages[0], name)  # read off the plain layers, before they are replaced
        for layers in zip(*(stage.layers for stage in stages), strict=True):
            if id(layers[0]) not in replaced and layers[0].state_dict():
                replaced[id(layers[0])] = layers[0] if len(set(layers)) == 1 else Stacked(layers)
    for observables in zip(*(network.observables.values() for network in networks), strict=True):
        own = _observed_apart([observable.value for observable in observables])
        replaced[id(observables[0])] = replace(observables[0], value=own)
    for weights in zip(*(network.feedback_parameters() for network in networks), strict=True):
        tensors = [tensor for _, tensor in weights]
        replaced[id(tensors[0])] = nn.Parameter(stack(tensors), requires_grad=tensors[0].requires_grad)
    return _with_factors(copy.deepcopy(networks[0], replaced), networks)


def at_one_pace(networks: Sequence[Network]) -> list[Network]:
    """Return networks whose steps of inference are those of the first, by their time constants.

    A step x ← x + γ F(x) is one of γ₀, the first one's, with the time constants γ₀/γ τ.
    """
    first = networks[0].inference
    paced = []
    for network in networks:
        if first is not None and network.inference is not None and network.inference.step != first.step:
            slower = first.step / network.inference.step
            populations = [replace(p, tau=slower * p.tau) for p in network.populations]
            network = network.with_dynamics(populations, network.couplings)
        paced.append(network)
    return paced


def _observed_apart(values: Sequence[Callable[[Activity], Tensor]]) -> Callable[[Activity], Tensor]:
    def value(activity: Activity) -> Tensor:
        parts = {name: tensor.chunk(len(values)) for name, tensor in activity.items()}
        return torch.cat([own({name: part[i] for name, part in parts.items()}) for i, own in enumerate(values)])

    return value


@contextmanager
def together(
    networks: Sequence[Network], inputs: Inputs, targets: Tensor | None, initial: Mapping[str, Tensor] | None
) -> Iterator[tuple[Network, Inputs, Tensor | None, dict[str, Tensor]]]:
    """Stack networks that may differ in weights, gains, leaks and time constants, with the same data for each.

    Parameters
    ----------
    networks
        The members.
    inputs, targets, initial
        As for `simulate`.

    Yields
    ------
    tuple
        The stacked network, and the data, repeated for each member.

    Raises
    ------
    TypeError, ValueError
        If the members differ in more, or do not move alike stacked.
    """
    if not networks:
        raise InvalidValueError("network: an empty list; give at least one network")
    for network in networks:
        if not isinstance(network, Network):
            raise InvalidTypeError(f"network: a Network, or a list of them; the list has a {type(network).__name__}")
    for place, network in enumerate(networks[1:], start=2):
        if not alike_but_for_numbers(network, networks[0]):
            raise InvalidValueError(
                f"network: the {_ordinal(place)} differs from the first in more than weights, gains, leaks and time "
                "constants; run it by itself"
            )
    alone = [System(network, inputs, targets, initial=initial) for network in networks]
    count = len(networks)
    memory = {tensor: tensor.data for network in networks for tensor in _tensors(network)}
    repeated = {name: tensor.repeat(count, *[1] * (tensor.ndim - 1)) for name, tensor in alone[0].data.inputs.items()}
    targets = None if targets is None else targets.repeat(count, *[1] * (targets.ndim - 1))
    # Where no data tell the number of samples, the start of a population does.
    started = initial or (() if repeated or targets is not None else alone[0].dynamic[:1])
    own = alone[0].initial_state().activity
    starts = {name: own[name].repeat(count, *[1] * (own[name].ndim - 1)) for name in started}
    try:
        network = stack_networks(networks)
        _check_alike(alone, System(network, repeated, targets, initial=starts))
        yield network, repeated, targets, starts
    finally:
        for tensor, own_memory in memory.items():
            tensor.data = own_memory


def _tensors(network: Network) -> Iterator[Tensor]:
    for stage in network.stages:
        for layer in stage.layers:
            yield from layer.parameters()
            yield from layer.buffers()
    yield from (tensor for _, tensor in network.feedback_parameters())


def alike_but_for_numbers(network: Network, first: Network) -> bool:
    """Tell whether two networks can be stacked: what this misses shows in how they move or learn.

    Their couplings say the same of themselves, given the same numbers.
    """
    ends, those = ([str(c) for c in each.couplings] for each in (network, first))
    return (
        ends == those
        and all(
            type(own.map) is type(other.map)
            and own.map.stacked([other.map]).describe(own.source, own.target)
            == other.map.stacked([other.map]).describe(other.source, other.target)
            for own, other in zip(network.couplings, first.couplings, strict=True)
        )
        and _frame(network) == _frame(first)
    )


def _frame(network: Network) -> tuple[object, ...]:
    return (
        [(p.name, p.shape, p.role, p.tau == 0, str(p.clamp), str(p.initial)) for p in network.populations],
        [(stage.symbol, [repr(layer) for layer in stage.layers]) for stage in network.stages],
        len(network.forward),
        list(network.observables),
    )


def _with_factors(stacked: Network, networks: Sequence[Network]) -> Network:
    """Give every coupling of a stacked network the gains of all members, in units of the first one's time constants.

    With τ the member's time constant and τ₀ the first one's, τ dx/dt = −leak x + Σ gain · map is
    τ₀ dx/dt = −(τ₀/τ) leak x + Σ (τ₀/τ) gain · map; what leaks differ by becomes a coupling of x to itself. For an
    instantaneous population, leaks take the part of time constants.
    """
    populations: list[Population] = []
    couplings: list[Coupling] = []
    scales: dict[str, np.ndarray] = {}
    for population in stacked.populations:
        members = [network[population.name] for network in networks]
        if population.clamp is not None and not population.clamp.optional:
            populations.append(population)
            continue
        if population.tau == 0:
            scales[population.name] = np.array([population.leak / p.leak for p in members])
            populations.append(population)
            continue
        scales[population.name] = np.array([population.tau / p.tau for p in members])
        leaks = scales[population.name] * [p.leak for p in members]
        populations.append(replace(population, leak=float(leaks.min())))
        excess = leaks - leaks.min()
        if excess.any():
            couplings.append(_coupled(Coupling(population.name, population.name, Identity()), -excess))
    for place, coupling in enumerate(stacked.couplings):
        those = [network.couplings[place] for network in networks]
        own = replace(coupling, map=coupling.map.stacked([each.map for each in those]))
        couplings.append(_coupled(own, scales[coupling.target] * np.array([each.gain for each in those])))
    return stacked.with_dynamics(populations, couplings)


def _coupled(coupling: Coupling, gains: np.ndarray) -> Coupling:
    """Return a coupling with a gain for each member: the largest, and each member's part of it."""
    largest = float(gains[np.abs(gains).argmax()])
    if (gains == largest).all():
        return replace(coupling, gain=largest)
    return replace(coupling, map=_Shared(coupling.map, gains / largest), gain=largest)


class _Shared(Map):
    """Another map, times a factor for each member."""

    def __init__(self, map: Map, factors: np.ndarray) -> None:
        self.map, self.factors = map, tuple(factors.tolist())
        self.linear, self.homogeneous = map.linear, map.homogeneous

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.map.stages

    @property
    def frozen_stages(self) -> tuple[Stage, ...]:
        return self.map.frozen_stages

    @property
    def feedback_weights(self) -> FeedbackWeights | None:
        return self.map.feedback_weights

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        return self.map.output_shape(source, target)

    def reads(self, source: str, target: str) -> tuple[str, ...]:
        return self.map.reads(source, target)

    def adjoint_to(self, other: Map) -> bool:
        return isinstance(other, _Shared) and self.factors == other.factors and self.map.adjoint_to(other.map)

    def describe(self, source: str, target: str) -> str:
        return f"[{', '.join(f'{factor:g}' for factor in self.factors)}] ⊙ {self.map.describe(source, target)}"

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _SharedTerm(self.map.bind(points, source, target), self.factors)


class _SharedTerm(Term):
    def __init__(self, term: Term, factors: Sequence[float]) -> None:
        self._term, self._factors = term, factors
        self._value: Tensor | None = None
        self._factor = torch.empty(0)

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        if self._value is None:
            self._value = torch.empty_like(out)
            factor = torch.tensor(self._factors, dtype=out.dtype, device=out.device)
            self._factor = factor.repeat_interleave(len(out) // len(factor)).view(-1, *[1] * (out.ndim - 1))
        self._term.assign(activity, self._value, gain)
        out.addcmul_(self._factor, self._value)


def _check_alike(alone: Sequence[System], stacked: System) -> None:
    """Refuse networks whose start or velocity differs stacked from what it is alone."""
    count = len(alone)
    state, slope = stacked.initial_state(), stacked.new_state()
    states = [(system, system.initial_state(), system.new_state()) for system in alone]
    stacked.field(state, slope)
    for place, (system, own_state, own_slope) in enumerate(states):
        system.field(own_state, own_slope)
        for population in system.network.populations:
            _compare(system, own_state, state, population.name, place, count)
        for name in system.dynamic:
            _compare(system, own_slope, slope, name, place, count)
    # Where all is 0 much looks alike, so a little beside the start the velocities are compared again.
    for name in stacked.dynamic:
        shape = stacked.shapes[name]
        aside = torch.arange(stacked.samples // count * prod(shape), dtype=stacked.dtype, device=stacked.device)
        aside = aside.cos_().mul_(_ASIDE).view(-1, *shape)
        state.activity[name].add_(aside.repeat(count, *[1] * len(shape)))
        for _, own_state, _ in states:
            own_state.activity[name].add_(aside)
    try:
        for system, own_state, own_slope in states:
            system.field(own_state, own_slope)
    except ValueError:  # a member cannot be there, e.g. outside the values that an activation takes
        return
    stacked.field(state, slope)
    for place, (system, _, own_slope) in enumerate(states):
        for name in system.dynamic:
            _compare(system, own_slope, slope, name, place, count)


def _compare(system: System, own: State, all_of_them: State, name: str, place: int, count: int) -> None:
    expected, found = own.activity[name], all_of_them.activity[name].chunk(count)[place]
    allowed = _TOLERANCE * expected.norm() + torch.finfo(system.dtype).eps ** 0.75 * expected.numel() ** 0.5
    if expected.is_floating_point() and not bool((expected - found).norm() <= allowed):
        raise InvalidValueError(
            f"network: in the {_ordinal(place + 1)}, population {name} differs among others from what it is alone: a "
            "part of the network looks at several samples, draws random numbers, or holds numbers of its own; run it "
            "by itself"
        )


def _ordinal(place: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}th")
