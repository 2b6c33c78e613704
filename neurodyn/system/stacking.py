"""Stacking: networks of one architecture as one network, in which each acts on its own block of the samples.

A batch has the samples of the first network, then those of the second, and so on. Only what is proved alike is stacked
(`neurodyn.layers.alike`). Layers with parameters become `Stacked` ones; gains, leaks, time constants and the numbers of
maps, where they differ, become tensors with one number a network, laid out along the samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.layers.alike import Comparison, Difference
from neurodyn.layers.kinds import acts_sample_by_sample
from neurodyn.layers.losses import Loss, per_sample, squared_error
from neurodyn.layers.stacked import Stacked, StackedTensors, of_samples
from neurodyn.layers.stages import Stage
from neurodyn.network.coupling import Coupling
from neurodyn.network.drives import Constant, Data, Drive, ForwardValue, Input, LossGradient, Noisy, Target
from neurodyn.network.maps import Activity, Map, OperatingPoints, Term
from neurodyn.network.names import as_factor
from neurodyn.network.network import Network
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.population import Population
from neurodyn.network.signals import member_of_signal
from neurodyn.network.vectors import Vector, is_number, same, text_of, uniform
from neurodyn.network.wrapping import Scaled, Wrapping
from neurodyn.randomness import refusing_draws
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets, inputs_by_name
from neurodyn.system.system import System


def compare_networks(first: Network, other: Network, *, learning: bool) -> None:
    """Refuse two networks that are not alike but for weights, gains, leaks, time constants and the step of inference.

    Parameters
    ----------
    first, other
        The networks.
    learning
        Whether they are to learn stacked, so that their plasticity and inference have to be alike, too.

    Raises
    ------
    Difference
        If they are not, or draw random numbers; the message says in what they differ.
    """
    beside = Comparison(learning=learning)
    beside.equal("its class", type(first), type(other))
    beside.stages(first.stages, other.stages)
    beside.compare("forward", first.forward, other.forward)
    beside.equal("the list of populations", *([p.name for p in network.populations] for network in (first, other)))
    beside.equal("the list of couplings", *([str(c) for c in network.couplings] for network in (first, other)))
    beside.equal("algebraic", first.algebraic, other.algebraic)
    beside.equal("the list of delays", *([c.delay for c in network.couplings] for network in (first, other)))
    beside.equal("the list of observables", *(list(network.observables) for network in (first, other)))
    for one, its in zip(first.couplings, other.couplings, strict=True):
        weights = one.map.feedback_weights, its.map.feedback_weights
        (beside.equal if None in weights else beside.pair)(f"the feedback weights of coupling {one}", *weights)
    for one, its in zip(first.couplings, other.couplings, strict=True):
        beside.compare(f"the map of coupling {one}", one.map, its.map)
    for population in first.populations:
        _compare_populations(beside, population, other[population.name])
    if learning:
        beside.equal("the number of plasticity rules", len(first.plasticity), len(other.plasticity))
        for pair in zip(first.plasticity, other.plasticity, strict=True):
            for part in fields(Plasticity):
                if part.name != "gain":
                    what = f"{part.name} of the plasticity of stage {pair[0].stage.name}"
                    beside.compare(what, *(getattr(rule, part.name) for rule in pair))
        steps = (network.inference and network.inference.steps for network in (first, other))
        beside.equal("the number of steps of inference", *steps)


def _compare_populations(beside: Comparison, one: Population, other: Population) -> None:
    beside.equal(f"the shape of population {one.name}", one.shape, other.shape)
    beside.equal(f"whether population {one.name} is instantaneous", one.instantaneous, other.instantaneous)
    leaky = [torch.as_tensor(each.leak, device="cpu").gt(0).expand(each.shape or ()).tolist() for each in (one, other)]
    beside.equal(f"whether population {one.name} has a leak", *leaky)
    beside.compare(f"noise of population {one.name}", one.noise, other.noise)
    beside.compare(f"bounds of population {one.name}", one.bounds, other.bounds)
    for what in ("clamp", "initial"):
        drive = getattr(one, what)
        beside.compare(f"{what} of population {one.name}", drive, getattr(other, what))
        if isinstance(drive, Noisy):
            raise Difference(f"{what} of population {one.name} draws random numbers, which the networks would share")


def stack_networks(networks: Sequence[Network], tensors: StackedTensors, *, inferring: bool) -> Network:
    """Return the declaration that alike networks share, with stacked layers and feedback weights in place of theirs.

    A layer that is the same one in all stays as it is. Losses and observables are each network's own, of its samples.

    Parameters
    ----------
    networks
        The networks, of which `compare_networks` has refused none.
    tensors
        Where their weights are stacked.
    inferring
        Whether they run their discrete inference, whose steps may differ.
    """
    replaced: dict[int, Any] = {}
    for population in networks[0].populations:
        for drive in (population.clamp, population.initial):
            if isinstance(drive, Drive) and type(drive) not in (Input, Target, Constant, ForwardValue, LossGradient):
                replaced[id(drive)] = _EachOnes(drive, len(networks))
    for weights in zip(*(network.feedback_parameters() for network in networks), strict=True):
        replaced[id(weights[0][1])] = tensors.stack([tensor for _, tensor in weights])
    fed_back = {c.map.feedback_weights.stage for c in networks[0].couplings if c.map.feedback_weights is not None}
    for stages in zip(*(network.stages for network in networks), strict=True):
        for stage in stages:
            stage.check()
            stage.origin.check()
        for name, attribute in vars(Stage).items():
            if isinstance(attribute, cached_property):
                getattr(stages[0], name)  # read off the plain layers, before they are replaced
        for layers in zip(*(stage.layers for stage in stages), strict=True):
            if id(layers[0]) not in replaced:
                shared = len(set(layers)) == 1 and stages[0] not in fed_back
                plain = shared or _keeps_samples_apart(layers[0], stages[0])
                replaced[id(layers[0])] = layers[0] if plain else Stacked(layers, tensors)
    for observables in zip(*(network.observables.values() for network in networks), strict=True):
        own = _Observed(tuple(observable.value for observable in observables))
        replaced[id(observables[0])] = replace(observables[0], value=own)
    losses = tuple(network.loss for network in networks)
    replaced[id(losses[0])] = squared_error if set(losses) == {squared_error} else _Losses(losses)
    try:
        stacked = copy.deepcopy(networks[0], replaced)
    except (TypeError, RuntimeError, copy.Error) as error:
        raise InvalidValueError(
            f"network {networks[0].name!r}: a part of it cannot be copied, and so not stacked ({error}); run or train "
            "each by itself"
        ) from error
    return _with_numbers(stacked, networks, inferring=inferring)


def _keeps_samples_apart(layer: nn.Module, stage: Stage) -> bool:
    captured = bool(stage.sources) and not any(True for _ in (*layer.parameters(), *layer.buffers()))
    return captured or acts_sample_by_sample(layer)


def _with_numbers(stacked: Network, networks: Sequence[Network], *, inferring: bool) -> Network:
    """Give a stacked network the numbers of all.

    With leak₀ and τ₀ the first one's, τ dx/dt = −leak x + Σ gain · map is
    τ₀ dx/dt = pace (−leak₀ x + Σ (leak₀/leak) gain · map) with pace = (leak/leak₀) (τ₀/τ), and a step γ of inference is
    a step γ₀ at γ/γ₀ times the pace.
    """
    steps = [network.inference.step if inferring and network.inference else 1.0 for network in networks]
    paces: dict[str, tuple[Vector, ...]] = {}
    shares: dict[str, list[Vector]] = {}
    for population in stacked.populations:
        members = [network[population.name] for network in networks]
        shares[population.name] = [_ratio(population.leak, member.leak) for member in members]
        if not population.instantaneous:
            each = zip(members, shares[population.name], steps, strict=True)
            pace = tuple(population.tau / (m.tau * share) * (step / steps[0]) for m, share, step in each)
            if not all(is_number(uniform(each), 1.0) for each in pace):
                paces[population.name] = pace
    couplings: list[Coupling] = []
    graded: list[Coupling] = []
    for place, coupling in enumerate(stacked.couplings):
        theirs = [network.couplings[place] for network in networks]
        couplings.append(replace(coupling, map=_stacked_map(coupling.map, [each.map for each in theirs])))
        gains = tuple(each.gain * share for each, share in zip(theirs, shares[coupling.target], strict=True))
        if all(same(gain, gains[0]) for gain in gains):
            graded.append(replace(couplings[-1], gain=gains[0]))
        else:
            graded.append(replace(couplings[-1], gain=1.0, map=_Graded(couplings[-1].map, gains)))
    whole = stacked.with_dynamics(stacked.populations, graded)
    whole.paces = paces
    whole.stacked = tuple(_with_numbers_of(network, stacked, couplings) for network in networks)
    return whole


def _ratio(leak: Vector, other: Vector) -> Vector:
    """Return by how much a leak is larger than another one; 1 where that is 0."""
    if isinstance(leak, Tensor) or isinstance(other, Tensor):
        if not isinstance(other, Tensor):
            other = torch.as_tensor(
                other, dtype=torch.float64, device=leak.device if isinstance(leak, Tensor) else None
            )
        return torch.where(other == 0, 1.0, leak / other)
    return leak / other if other else 1.0


def _with_numbers_of(network: Network, stacked: Network, couplings: Sequence[Coupling]) -> Network:
    """Return a stacked network with the numbers of one of its networks: its structure is that network's."""
    populations = zip(stacked.populations, network.populations, strict=True)
    own = stacked.with_numbers(
        [
            one if same((one.tau, one.leak), (its.tau, its.leak)) else replace(one, tau=its.tau, leak=its.leak)
            for one, its in populations
        ],
        [
            one if same(one.gain, its.gain) else replace(one, gain=its.gain)
            for one, its in zip(couplings, network.couplings, strict=True)
        ],
    )
    own.plasticity = tuple(
        replace(rule, gain=its.gain) for rule, its in zip(own.plasticity, network.plasticity, strict=False)
    )
    return own


def _stacked_map(first: Map, maps: Sequence[Map]) -> Map:
    """Return the first of several maps, with a tuple in place of each number in which they differ."""
    changed = copy.copy(first)
    for name, own in vars(first).items():
        values = tuple(getattr(each, name) for each in maps)
        if isinstance(own, Map):
            vars(changed)[name] = _stacked_map(own, values)
        elif name in first.stacked_numbers and len(set(values)) > 1:
            vars(changed)[name] = values
    return changed


@dataclass(frozen=True)
class _Graded(Wrapping):
    """Another map, times a gain for each network."""

    gains: tuple[Vector, ...]

    def adjoint_to(self, other: Map) -> bool:
        return isinstance(other, _Graded) and same(self.gains, other.gains) and self.map.adjoint_to(other.map)

    def describe(self, source: str, target: str) -> str:
        return f"[{', '.join(map(text_of, self.gains))}] ⊙ {as_factor(self.map.describe(source, target))}"

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _GradedTerm(self.map.bind(points, source, target), self.gains)


class _GradedTerm(Term):
    def __init__(self, term: Term, gains: Sequence[Vector]) -> None:
        self._term, self._gains = term, gains
        self._scaled: Scaled | None = None

    def renew(self) -> bool:
        return self._term.renew()

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        self._of_samples(out).add(activity, out, gain)

    def each(self, activity: Activity, rows: Tensor) -> Tensor | None:
        value = self._term.each(activity, rows)
        return None if value is None else value * of_samples(self._gains, value[0])

    def add_with_jump(self, activity: Activity, out: Tensor, gain: float, jump: Tensor) -> None:
        self._of_samples(out).add_with_jump(activity, out, gain, jump)

    def _of_samples(self, like: Tensor) -> Scaled:
        if self._scaled is None:
            self._scaled = Scaled(self._term, of_samples(self._gains, like))
        return self._scaled


@dataclass(frozen=True)
class _EachOnes(Drive):
    """A drive of one's own, repeated for each of several networks where it gives the samples of one alone."""

    drive: Drive
    members: int

    def __post_init__(self) -> None:
        vars(self).update(reads_targets=self.drive.reads_targets, optional=self.drive.optional)

    def value(self, population: str, data: Data) -> Tensor | None:
        value = self.drive.value(population, data)
        given = [*data.inputs.values(), *([] if data.targets is None else [data.targets])]
        samples = len(given[0]) if given else self.members
        if value is None or len(value) * self.members != samples:
            return value
        return value.repeat(self.members, *[1] * (value.ndim - 1))

    def __str__(self) -> str:
        return str(self.drive)


@dataclass(frozen=True)
class _Observed:
    """Networks' own functions of their activity, each of its own samples."""

    functions: tuple[Callable[[Activity], Tensor], ...]

    def __call__(self, activity: Activity) -> Tensor:
        parts = {name: tensor.chunk(len(self.functions)) for name, tensor in activity.items()}
        each = ({name: part[place] for name, part in parts.items()} for place in range(len(self.functions)))
        return torch.cat([function(own) for function, own in zip(self.functions, each, strict=True)])


@dataclass(frozen=True)
class _Losses:
    """Networks' own losses, each of its own samples."""

    functions: tuple[Loss, ...]

    def __call__(self, output: Tensor, targets: Tensor) -> Tensor:
        blocks = (each.chunk(len(self.functions)) for each in (output, targets))
        return torch.cat([per_sample(*each) for each in zip(self.functions, *blocks, strict=True)])


def refusing_random(what: str) -> AbstractContextManager[None]:
    """Refuse to go on where networks that are evaluated at once have drawn random numbers, which they then share."""
    return refusing_draws(
        f"{what}: a part of the networks draws random numbers, which those that are stacked would share; run or "
        "train each by itself"
    )


@contextmanager
def together(
    networks: Sequence[Network], inputs: Inputs, targets: Targets, initial: Starts | None
) -> Iterator[tuple[Network, Inputs, Targets, Starts | None]]:
    """Stack networks that may differ in weights, gains, leaks and time constants, with the same data for each.

    Yields
    ------
    tuple
        The stacked network, and the data, repeated for each member.

    Raises
    ------
    TypeError, ValueError
        If the members differ in more, or it is not known whether they do.
    """
    if not networks:
        raise InvalidValueError("network: an empty list; give at least one network")
    for network in networks:
        if not isinstance(network, Network):
            raise InvalidTypeError(f"network: a Network, or a list of them; the list has a {type(network).__name__}")
    if len(networks) == 1:
        yield networks[0], inputs, targets, initial
        return
    given = inputs_by_name(networks[0], inputs)
    first = {name: member_of_signal(each, 0) for name, each in given.items()}
    # which refuses data that do not fit
    of_first = initial.isel(network=0) if isinstance(initial, xr.Dataset) and "network" in initial.dims else initial
    alone = System(networks[0], first, member_of_signal(targets, 0), initial=of_first)
    tensors = StackedTensors()
    for place, network in enumerate(networks, start=1):
        try:
            compare_networks(networks[0], network, learning=False)
        except Difference as error:
            among = "" if network is networks[0] else " with the first"
            raise InvalidValueError(
                f"network: the {_ordinal(place)} cannot be stacked{among}: {error}; run it by itself"
            ) from error
    stacked = stack_networks(networks, tensors, inferring=False)

    def repeated(tensor: Tensor) -> Tensor:
        return tensor.repeat(len(networks), *[1] * (tensor.ndim - 1))

    if isinstance(initial, xr.Dataset) and "network" in initial.dims and "sample" not in initial.dims:
        initial = initial.drop_vars("sample", errors="ignore").expand_dims(sample=alone.samples)
    own = None if isinstance(initial, xr.Dataset) or not initial else alone.initial_state().activity
    try:
        with refusing_random("network"):
            yield (
                stacked,
                {name: repeated(each) if isinstance(each, Tensor) else each for name, each in given.items()},
                repeated(targets) if isinstance(targets, Tensor) else targets,
                initial if own is None else {str(name): repeated(own[str(name)]) for name in initial or ()},
            )
    finally:
        tensors.write_back()


def _ordinal(place: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}th")
