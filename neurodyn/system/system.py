"""A network bound to data: its state, its vector field and its structure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.kernels import pieces
from neurodyn.layers.stages import ForwardPass
from neurodyn.network.drives import Data, Drive, Noisy
from neurodyn.network.maps import Identity, OperatingPoints, Term
from neurodyn.network.network import Network, check_coupling_shapes, check_plasticity_shapes
from neurodyn.network.parts import Population
from neurodyn.structure.cache import schedule_of, start_of, structure_of
from neurodyn.structure.causality import Schedule
from neurodyn.system.bound import (
    Inputs,
    check_drive,
    check_finite,
    check_integers,
    check_network,
    check_targets,
    common_kind,
    count_samples,
    inputs_by_name,
    of_integers,
    sums_are_finite,
)


class State:
    """The activity at one moment: one flat tensor, seen as a block (sample, …) for each dynamic population.

    Parameters
    ----------
    flat
        The dynamic populations' activity, shape (n,).
    activity
        Every population's activity by name: views of `flat`, the instantaneous populations' buffers, the clamps.
    """

    __slots__ = ("activity", "flat", "pieces")

    def __init__(self, flat: Tensor, activity: dict[str, Tensor]) -> None:
        self.flat = flat
        self.activity = activity
        self.pieces = pieces(flat)
        """Views of `flat`, for sums of states."""

    def combine(self, base: State, summands: Iterable[tuple[float, State]]) -> None:
        """Become base + Σ a_i k_i, given each a_i and k_i; one a_i at least is not 0."""
        nonzero = [(factor, slope.pieces) for factor, slope in summands if factor]
        for place, (total, out) in enumerate(zip(base.pieces, self.pieces, strict=True)):
            for factor, slopes in nonzero:
                total = torch.add(total, slopes[place], alpha=factor, out=out)


@dataclass
class _Equation:
    """dx/dt = scale · (−leak x + Σ gain · map), with 1/τ as the scale; for an instantaneous x, 1/leak · Σ gain · map.

    The sum is scaled last: divided gains would round, and what balances exactly would no longer do so.
    """

    name: str
    scale: float
    leak: float
    constant: Tensor | None
    terms: list[tuple[Term, float, str | None]]
    """Each bound map, its factor, and its source where a silent source may be skipped."""

    def __post_init__(self) -> None:
        self.terms.sort(key=lambda term: term[1] != 1.0)  # one with gain 1 can begin the sum

    def evaluate(self, activity: Mapping[str, Tensor], out: Tensor, silent: Collection[str] = ()) -> None:
        terms = [(term, gain) for term, gain, source in self.terms if source not in silent]
        done = self._begin(terms, activity, out)
        for term, gain in terms[done:]:
            term.add(activity, out, gain)
        if self.scale != 1.0:
            out.mul_(self.scale)

    def velocity(self, activity: Mapping[str, Tensor], silent: Collection[str], *, own: bool) -> Tensor:
        if not own and self.constant is None and self.leak == 0.0 and self.scale == 1.0:
            terms = [(term, gain) for term, gain, source in self.terms if source not in silent]
            if len(terms) == 1 and terms[0][1] == 1.0:
                value = terms[0][0].value(activity)
                if value is not None:
                    return value
        out = torch.empty_like(activity[self.name])
        self.evaluate(activity, out, silent)
        return out

    def _begin(self, terms: Sequence[tuple[Term, float]], activity: Mapping[str, Tensor], out: Tensor) -> int:
        """Write the first summands into `out`, two at once where they come as tensors; return how many terms are."""
        done = 0
        first, second, factor = self.constant, None, -self.leak
        if first is None and terms and terms[0][1] == 1.0:
            first = terms[0][0].value(activity)
            done = int(first is not None)
        if self.leak != 0.0:
            second = activity[self.name]
        elif first is not None and done < len(terms):
            second, factor = terms[done][0].value(activity), terms[done][1]
            done += int(second is not None)
        if first is not None and second is not None:
            torch.add(first, second, alpha=factor, out=out)
        elif first is not None:
            out.copy_(first)
        elif second is not None:
            torch.mul(second, factor, out=out)
        elif terms:
            terms[0][0].assign(activity, out, terms[0][1])
            done = 1
        else:
            out.zero_()
        return done


class System:
    """A network bound to inputs and targets: dx/dt = F(x), x(0) = x₀.

    Parameters
    ----------
    network
        The declaration.
    inputs
        Shape (sample, …); a mapping by population where several are clamped to `Input()`; None where none is.
    targets
        Shape (sample, …), where the network needs or allows them.
    initial
        Where populations start instead of where the declaration says, by name; shape (sample, …) or that of a sample.

    Raises
    ------
    TypeError
        If inputs, targets or an initial value are no floating-point tensors, or their dtypes differ.
    ValueError
        If shapes, devices or names do not fit, targets are missing, or something is not finite.
    """

    def __init__(
        self,
        network: Network,
        inputs: Inputs = None,
        targets: Tensor | None = None,
        *,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        check_network(network)
        if initial is not None and not isinstance(initial, Mapping):
            raise InvalidTypeError(f"initial must be a mapping {{population: tensor}}, not {type(initial).__name__}")
        self.network = network
        self._initial = dict(initial or {})
        for stage in network.stages:
            stage.check()
        by_name = inputs_by_name(network, inputs)
        indices = {name for name in by_name if of_integers(network[name].clamp)}
        given = {f"inputs of population {name}": x for name, x in by_name.items() if name not in indices}
        if targets is not None:
            given["targets"] = targets
        for name, tensor in self._initial.items():
            if network[name].tau == 0:
                raise InvalidValueError(
                    f"initial value of population {name}: it is instantaneous, and equals its input; leave it out"
                )
            given[f"initial value of population {name}"] = tensor
        check_targets(network, targets)
        self.dtype, self.device = common_kind(network, given)
        for name in indices:
            check_integers(name, by_name[name], self.device)
        self.samples = count_samples(network, by_name, targets, self._initial)
        for name, tensor in by_name.items():
            self._block(network[name], tensor, "input")  # before a stage meets a shape that is not for it
        for name in by_name:
            clamp = network[name].clamp
            if isinstance(clamp, Noisy):  # one draw, for the population and for the forward pass that starts from it
                noisy = clamp.value(name, Data(by_name, targets, None, network.loss))
                assert noisy is not None, "an input is never absent"
                by_name[name] = noisy
        forward = None
        if network.forward:
            forward = ForwardPass(network.forward, by_name[network.inputs[0]].detach())
            check_finite(network.name, [("output of the forward pass", forward.output)])
            if targets is not None and targets.shape != forward.output.shape:
                raise InvalidValueError(
                    f"targets have the shape {tuple(targets.shape)}, and the network's output has "
                    f"{tuple(forward.output.shape)}; give one target a sample and output unit"
                )
        self.data = Data({k: v.detach() for k, v in by_name.items()}, targets, forward, network.loss)
        self.points = OperatingPoints(forward)
        self.clamped = self._hold()
        for name in self._initial:
            if name in self.clamped:
                raise InvalidValueError(f"initial value of population {name}: it is clamped to {network[name].clamp}")
        self.free = tuple(p for p in network.populations if p.name not in self.clamped)
        self.dynamic = tuple(p.name for p in self.free if p.tau > 0)
        self.shapes = {name: tuple(value.shape[1:]) for name, value in self.clamped.items()}
        starts: dict[str, Tensor] = {}
        for population in self.free:
            if population.tau > 0:
                starts[population.name] = self._start(population)
                self.shapes[population.name] = tuple(starts[population.name].shape[1:])
            else:
                self.shapes[population.name] = population.shape or self._shape_of_source(population)
        unsized = {p.name for p in network.populations if p.shape is None}
        if unsized:  # what has sizes was checked as it was declared
            for coupling in network.couplings:
                if not unsized.isdisjoint((coupling.source, coupling.target)):
                    check_coupling_shapes(coupling, self.shapes[coupling.source], self.shapes[coupling.target])
            for rule in network.plasticity:
                if not unsized.isdisjoint((rule.pre, rule.post)):
                    check_plasticity_shapes(rule, self.shapes[rule.pre], self.shapes[rule.post])
        self.structure = structure_of(network, frozenset(self.clamped))
        self._sizes = {p.name: self.samples * prod(self.shapes[p.name]) for p in self.free}
        instantaneous = [p.name for p in self.free if p.tau == 0]
        self.instant = torch.empty(self._size(instantaneous), dtype=self.dtype, device=self.device)
        """The instantaneous populations' activity, as last settled, shape (m,)."""
        self._instant = dict(self._cut(self.instant, instantaneous))
        self._take_points_from_forward()
        equations = {p.name: self._equation(p) for p in self.free}
        self._instantaneous_equations = [equations[n] for n in network.instantaneous_order if n in equations]
        self._dynamic_equations = [equations[n] for n in self.dynamic]
        self._equations = equations
        self.instantaneous = tuple(equation.name for equation in self._instantaneous_equations)
        self.has_offsets = any(source is None for e in equations.values() for _, _, source in e.terms)
        self._start_values = [starts[n] for n in self.dynamic]
        self.size = self._size(self.dynamic)

    def initial_state(self) -> State:
        """Return a new state at x₀."""
        state = self.new_state()
        for name, value in zip(self.dynamic, self._start_values, strict=True):
            state.activity[name].copy_(value)
        self.instant.zero_()  # and stays so where inference does not evaluate it
        self.points.expire()
        self._take_points_from_forward()
        return state

    def new_state(self, flat: Tensor | None = None) -> State:
        """Return a state over a flat tensor of shape (size,); over a new, uninitialised one if None."""
        if flat is None:
            flat = torch.empty(self.size, dtype=self.dtype, device=self.device)
        activity = dict(self.clamped)
        activity.update(self._instant)
        activity.update(self.blocks(flat))
        return State(flat, activity)

    def blocks(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each dynamic population's name and its block (sample, …) of a flat tensor of shape (size,)."""
        return self._cut(flat, self.dynamic)

    def _cut(self, flat: Tensor, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        blocks = flat.split_with_sizes([self._sizes[name] for name in names])
        for name, block in zip(names, blocks, strict=True):
            yield name, block.view(self.samples, *self.shapes[name])

    def _size(self, names: Iterable[str]) -> int:
        return sum(self._sizes[name] for name in names)

    def places(self) -> Iterator[tuple[str, slice]]:
        """Yield each dynamic population's name and the place of its block in a flat tensor."""
        start = 0
        for name in self.dynamic:
            end = start + self._sizes[name]
            yield name, slice(start, end)
            start = end

    def field(self, state: State, out: State) -> None:
        """Write dx/dt = F(x) at `state` into `out`, and the instantaneous populations' activity into their buffers."""
        self.settle(state)
        for equation in self._dynamic_equations:
            equation.evaluate(state.activity, out.activity[equation.name])

    def settle(self, state: State) -> None:
        """Bring the instantaneous populations to their activity at `state`."""
        self.points.expire()
        for equation in self._instantaneous_equations:
            equation.evaluate(state.activity, state.activity[equation.name])

    def evaluate(self, name: str, state: State, out: Tensor, silent: Collection[str] = ()) -> None:
        """Write one population's dx/dt, or an instantaneous one's activity, into `out`, without what is `silent`."""
        self._equations[name].evaluate(state.activity, out, silent)

    def velocity(self, name: str, state: State, silent: Collection[str], *, own: bool) -> Tensor:
        """Return one population's dx/dt without what is `silent`; in memory that activity may share, unless `own`."""
        return self._equations[name].velocity(state.activity, silent, own=own)

    def couple(self, state: State, out: State, silent: Collection[str] = ()) -> None:
        """Write what the couplings alone make of `state` into `out`, without leaks, constants and what is `silent`.

        The instantaneous populations pass it on likewise.
        """
        self.points.expire()
        for name in (*self.instantaneous, *self.dynamic):
            block = (state if name in self._instant else out).activity[name]
            equation = self._equations[name]
            _Equation(name, equation.scale, 0.0, None, equation.terms).evaluate(state.activity, block, silent)

    def read(self, name: str, state: State) -> Tensor:
        """Return the activity of a population, shape (sample, …), or the value of an observable, shape (sample,)."""
        observable = self.network.observables.get(name)
        return state.activity[name] if observable is None else observable.value(state.activity)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one sample of a population, or that of an observable, ()."""
        return () if name in self.network.observables else self.shapes[name]

    def schedule(self, steps: int) -> Schedule:
        """Return what each step of discrete inference from x₀ has to evaluate."""
        return schedule_of(self.network, frozenset(self.clamped), frozenset(self._initial), steps)

    def sweep(self, state: State, order: Sequence[str] | None = None) -> None:
        """Bring one population after the other to where the others, as they then are, balance its leak.

        This gives the equilibrium of an acyclic network, in the order of its dependencies.

        Parameters
        ----------
        state
            The state, which is changed.
        order
            The order; by default that of an acyclic network's structure.

        Raises
        ------
        ValueError
            If the network is cyclic and no order is given, or a population without leak has no equilibrium.
        """
        order = self.structure.order if order is None else order
        if order is None:
            raise InvalidValueError(f"network {self.network.name!r} is cyclic, so that no sweep gives its equilibrium")
        self.points.expire()
        for name in order:
            equation = self._equations[name]
            leak = self.network[name].leak
            if leak == 0.0:
                raise InvalidValueError(
                    f"population {name} has no leak and does not depend on itself, so it has no equilibrium; give it a "
                    "leak > 0"
                )
            # x = Σ gain · map / leak, as if every population were instantaneous.
            _Equation(name, 1.0 / leak, 0.0, equation.constant, equation.terms).evaluate(
                state.activity, state.activity[name]
            )
            self.points.expire((name,))

    def _take_points_from_forward(self) -> None:
        for stage, name in start_of(self.network, frozenset(self.clamped), frozenset(self._initial)).points:
            self.points.take_from_forward(stage, name, lasting=name in self.clamped)

    def seems_finite(self, state: State) -> bool:
        """Look with one sum, which may itself overflow, whether all is finite; instantaneous ones as last settled."""
        return sums_are_finite([state.flat, self.instant])

    def first_bad(self, state: State) -> str | None:
        """Name the first population whose activity is not finite; None if all are."""
        for population in self.free:
            if not bool(torch.isfinite(state.activity[population.name]).all()):
                return population.name
        return None

    def _hold(self) -> dict[str, Tensor]:
        clamped: dict[str, Tensor] = {}
        for population in self.network.populations:
            if population.clamp is not None:
                value = self._value(population, population.clamp)
                if value is not None:
                    clamped[population.name] = self._block(population, value, population.clamp)
        return clamped

    def _value(self, population: Population, drive: Drive) -> Tensor | None:
        name = population.name
        if isinstance(drive, Noisy) and drive is population.clamp and name in self.data.inputs:
            return self.data.inputs[name]
        value = drive.value(name, self.data)
        if value is not None and not of_integers(drive):
            check_drive(name, drive, value, self.dtype, self.device)
        return value

    def _start(self, population: Population) -> Tensor:
        if population.name in self._initial:
            return self._block(population, self._initial[population.name], "initial value")
        if isinstance(population.initial, Drive):
            value = self._value(population, population.initial)
            if value is None:
                raise InvalidValueError(
                    f"population {population.name}: it starts from {population.initial}, which is not given"
                )
            return self._block(population, value, population.initial)
        shape = population.shape or self._shape_of_source(population)
        return torch.full((self.samples, *shape), population.initial, dtype=self.dtype, device=self.device)

    def _shape_of_source(self, population: Population) -> tuple[int, ...]:
        for coupling in self.network.into(population.name):
            if isinstance(coupling.map, Identity) and coupling.source in self.shapes:
                return self.shapes[coupling.source]
        raise InvalidValueError(f"population {population.name}: its size is unknown; declare it with size=")

    def _block(self, population: Population, value: Tensor, what: str | Drive) -> Tensor:
        shape = population.shape
        if shape is not None and tuple(value.shape) == shape and population.name in self._initial:
            value = value.expand(self.samples, *shape)
        if shape is not None and tuple(value.shape[1:]) != shape:
            raise InvalidValueError(
                f"population {population.name}: {what} has the shape {tuple(value.shape)}, and the population "
                f"{(self.samples, *shape)}: (sample, units…)"
            )
        if value.shape[0] != self.samples:
            raise InvalidValueError(
                f"population {population.name}: {what} has {len(value)} samples, and the run has {self.samples}"
            )
        return value.detach()

    def _equation(self, population: Population) -> _Equation:
        constant: Tensor | None = None
        terms: list[tuple[Term, float, str | None]] = []
        for coupling in self.network.into(population.name):
            term = coupling.map.bind(self.points, coupling.source, coupling.target)
            reads = coupling.map.reads(coupling.source, coupling.target)
            if all(name in self.clamped for name in reads):
                if constant is None:
                    shape = (self.samples, *self.shapes[population.name])
                    constant = torch.zeros(shape, dtype=self.dtype, device=self.device)
                term.add({**self.clamped, population.name: constant}, constant, coupling.gain)
            else:
                source = coupling.source if coupling.map.homogeneous else None
                terms.append((term, coupling.gain, source))
        if population.tau == 0:
            return _Equation(population.name, 1.0 / population.leak, 0.0, constant, terms)
        return _Equation(population.name, 1.0 / population.tau, population.leak, constant, terms)
