"""A network bound to data: its state, its vector field and its structure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import users
from neurodyn.errors import InvalidValueError
from neurodyn.layers.repeated import Repeated
from neurodyn.network.network import Network
from neurodyn.structure.cache import schedule_of
from neurodyn.structure.causality import Schedule
from neurodyn.system.bound import checked
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets
from neurodyn.system.noise import BrownianPaths, Seed, seeds_of
from neurodyn.system.numbers import sums_are_finite
from neurodyn.system.own import check_observed, look_at_observables
from neurodyn.system.plan import FieldWay, Plan
from neurodyn.system.state import State
from neurodyn.system.timeline import Time, Timeline


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
        Or a moment of a run, `run.isel(time=-1)`, to go on from: times are then counted from there on.

    Raises
    ------
    TypeError
        If inputs, targets or an initial value are no floating-point tensors, or their dtypes differ.
    ValueError
        If shapes, devices or names do not fit, targets are missing, or something is not finite.

    Examples
    --------
    >>> import neurodyn as nd
    >>> system = nd.System(nd.Network("leak", [nd.Population("x", 1, initial=2.0)]))
    >>> state, slope = system.initial_state(), system.new_state()
    >>> system.field(state, slope)  # dx/dt
    >>> slope.activity["x"].item()
    -2.0
    """

    def __init__(
        self,
        network: Network,
        inputs: Inputs = None,
        targets: Targets = None,
        *,
        initial: Starts | None = None,
    ) -> None:
        self._follow(network, Plan(network, checked(network, inputs, targets, initial)))

    @classmethod
    def planned(cls, network: Network, plan: Plan) -> System:
        """Return the system of a network's plan, with the batch that the plan is bound to."""
        system = cls.__new__(cls)
        system._follow(network, plan)
        return system

    def _follow(self, network: Network, plan: Plan) -> None:
        self.network, self.plan = network, plan
        self.dtype, self.device, self.samples = plan.dtype, plan.device, plan.samples
        self.data, self.clamped = plan.batch.data, plan.batch.clamped
        self.points, self.structure, self.shapes, self.free = plan.points, plan.structure, plan.shapes, plan.free
        self.dynamic, self.instantaneous, self.instant = plan.dynamic, plan.instantaneous, plan.instant
        self.bounds = plan.bounds
        self.walls = {name: ends for name, ends in plan.bounds.items() if not network[name].noisy}
        """The bounds at which dx/dt is 0 where it leads outside: with noise, a step is clipped as a whole."""
        self.equations, self.echoes, self._sizes = plan.equations, plan.echoes, plan.sizes
        self.timeline = Timeline(network.name, plan)
        self._seeds: NDArray[np.uint64] | None = None
        self._repeated: Mapping[FieldWay, Repeated[None]] = {}
        self._first = True
        """Whether the next evaluation of the field is the first of a run."""
        self.loops, self.has_offsets, self.size = plan.loops, plan.has_offsets, plan.size

    def initial_state(self) -> State:
        """Return a new state at x₀."""
        state = self.new_state()
        for name, value in self.plan.batch.starts.items():
            state.activity[name].copy_(value)
        self.plan.rest(self.network)
        self._first = True
        self.timeline.start(state)
        return state

    def new_state(self, flat: Tensor | None = None) -> State:
        """Return a state over a flat tensor of shape (size,); over a new, uninitialised one if None."""
        if flat is None:
            flat = torch.empty(self.size, dtype=self.dtype, device=self.device)
        return State(flat, dict(self.blocks(flat)), {**self.clamped, **self.plan.instant_blocks}, self.plan.echoed)

    def blocks(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each dynamic population's name and its block (sample, …) of a flat tensor of shape (size,)."""
        blocks = flat.split_with_sizes([self._sizes[name] for name in self.dynamic])
        for name, block in zip(self.dynamic, blocks, strict=True):
            yield name, block.view(self.samples, *self.shapes[name])

    def places(self) -> Iterator[tuple[str, slice]]:
        """Yield each dynamic population's name and the place of its block in a flat tensor."""
        return self.plan.places()

    def field(self, state: State, out: State, time: Time = None) -> None:
        """Write dx/dt = F(x, t) at `state` into `out`, and the instantaneous populations' activity into their buffers.

        A state outside its bounds is brought inside first. Where F leads outside, dx/dt is 0, unless there is noise.

        Parameters
        ----------
        state, out
            The state, and where dx/dt goes.
        time
            t, which a system that is driven by signals needs; "held" leaves these where they are.
        """
        self._bring(state, time)
        self._make("foreseen" if self.timeline.arrivals else "alone", state, (out,), self._evaluate)

    def foresee(self, state: State, times: Sequence[float]) -> None:
        """Work out at once what delayed couplings contribute at times of a step, for `field` at these.

        Where a coupling reads more than the past, nothing is foreseen.

        Parameters
        ----------
        state
            A state, of which the shapes count.
        times
            Different times, increasing, up to the shortest delay after the last step.
        """
        if not self.plan.late:
            return
        ahead, repeated = self.plan.ahead(self.network, len(times))
        self.timeline.look_ahead(times, ahead)

        def arriving() -> tuple[Sequence[Tensor], None]:
            return [equation.arriving(state.read, ahead.blocks, self.points) for equation in self.plan.late], None

        batch = list(self.clamped.values())
        known = bool(self._repeated) and not repeated.passes()
        found, _ = (repeated.again(batch) or repeated.made(batch, arriving)) if known else arriving()
        self.timeline.foresee(times, [value for value in found if value is not None])

    def repeat(self) -> None:
        """Make the field by its operations once they are noted; nobody replaces layers or weights' memory meanwhile."""
        if not self.loops:
            self._repeated = self.plan.repeated_fields(self.network)

    def _make(self, way: FieldWay, state: State, outs: Sequence[State], compute: Callable[..., None]) -> None:
        """Fill states by `compute(state, *outs)`, or by the operations that it comes down to."""
        repeated = self._repeated.get(way)
        # The first of a run is made with what is worked out once a run.
        if repeated is None or torch.compiler.is_compiling() or self._first or repeated.passes():
            self._first = False
            compute(state, *outs)
            return
        filled = [block for out in outs for block in out.blocks]
        batch = [*state.blocks, *filled, *self.clamped.values(), *self.timeline.arrivals]
        if repeated.again(batch) is None:
            self._note(repeated, batch, filled, partial(compute, state, *outs))
        self.points.expire()
        self.points.expire_echoes()

    def _note(
        self, repeated: Repeated[None], batch: Sequence[Tensor], filled: Sequence[Tensor], compute: Callable[[], None]
    ) -> None:
        def evaluate() -> tuple[Sequence[Tensor], None]:
            self.timeline.renew_echoes()  # or else what has been made of them would be taken for constant
            compute()
            return filled, None

        found, _ = repeated.made(batch, evaluate)
        for block, right in zip(filled, found, strict=True):
            if right is not None and right is not block:
                block.copy_(right)
        if repeated.hopeless:
            self._repeated = {}

    def _evaluate(self, state: State, out: State) -> None:
        self._settle(state)
        for equation in self.plan.dynamic_equations:
            equation.evaluate(state.read, out.activity[equation.name])
        for name, low in self.plan.floors.items():
            slope = out.activity[name]
            torch.where(state.activity[name] > low, slope, slope.clamp_min(0.0), out=slope)
        for name, high in self.plan.ceilings.items():
            slope = out.activity[name]
            torch.where(state.activity[name] < high, slope, slope.clamp_max(0.0), out=slope)

    def field_with_jump(self, state: State, out: State, jump: State, time: Time = None) -> None:
        """Do as `field` of a system without bounds, and write by how much F jumps at each unit's kink into `jump`."""
        self._bring(state, time)
        self._make("with jump", state, (out, jump), self._evaluate_with_jump)

    def _evaluate_with_jump(self, state: State, out: State, jump: State) -> None:
        self._settle(state)
        for equation in self.plan.dynamic_equations:
            name = equation.name
            equation.evaluate_with_jump(state.read, out.activity[name], jump.activity[name])

    def confine(self, state: State, names: Collection[str] | None = None) -> None:
        """Bring the populations that have bounds inside them; of `names` alone, if these are given."""
        for name, (low, high) in self.bounds.items():
            if names is None or name in names:
                state.activity[name].clamp_min_(low).clamp_max_(high)  # as both at once, in a quarter of the time

    def settle(self, state: State, time: Time = None) -> None:
        """Bring `state` inside its bounds, and the instantaneous populations to their activity there; as `field`."""
        self._bring(state, time)
        self._settle(state)

    def _bring(self, state: State, time: Time) -> None:
        """Bring `state` inside its bounds, and what is driven or late to a time."""
        if self.bounds:
            self.confine(state)
        if self.timeline.moves:
            self.timeline.bring(time)

    def _settle(self, state: State) -> None:
        self.points.expire()
        self.timeline.settle(state)
        if self.loops:
            self._settle_loops(state)
            return
        for equation in self.plan.instantaneous_equations:
            equation.evaluate(state.read, state.activity[equation.name])

    def _settle_loops(self, state: State) -> None:
        for equation in self.plan.instantaneous_equations:
            if equation.name in self.loops:
                self.loops[equation.name].solve(state.read)
            elif equation.name not in self.plan.in_loops:
                equation.evaluate(state.read, state.activity[equation.name])

    def refuse_bounds(self, what: str, advice: str) -> None:
        """Refuse a network whose populations have bounds, for something that takes none."""
        for name in self.bounds:
            raise InvalidValueError(f"population {name} has bounds, and {what} takes none; {advice}")

    def refuse_loops(self, what: str) -> None:
        """Refuse a network whose instantaneous populations form a cycle, for something that solves none."""
        for loop in self.loops.values():
            raise InvalidValueError(f"{loop.text}, which is solved for at each evaluation: {what} takes none")

    def refuse_delays(self, what: str, advice: str) -> None:
        """Refuse a network whose couplings have delays, for something that takes none."""
        if self.echoes:
            coupling = self.echoes.couplings[0]
            raise InvalidValueError(
                f"coupling {coupling} has the delay {coupling.delay:g}, and {what} takes none; {advice}"
            )

    @property
    def noisy(self) -> tuple[str, ...]:
        """The free populations that have noise."""
        return tuple(population.name for population in self.free if population.noisy)

    def seed(self, seed: Seed) -> None:
        """Take the seed of the noise, for all runs to come.

        Raises
        ------
        TypeError, ValueError
            If there is not one for the run, for each sample, or for each of each network.
        """
        members = self.network.members
        self._seeds = seeds_of(seed, members, self.samples // members)

    def paths(self, step: float, *, standard: bool = False) -> BrownianPaths | None:
        """Return the paths of the noise for steps of a size, W itself if `standard`; None where there is no noise.

        Raises
        ------
        ValueError
            If there is noise, and no seed.
        """
        if not self.noisy:
            return None
        if self._seeds is None:
            raise InvalidValueError(f"population {self.noisy[0]} has noise, and the system no seed; call system.seed")
        places = {name: (place, self.shapes[name]) for name, place in self.places()}
        sigmas = {name: 1.0 if standard else self.network[name].noise for name in self.noisy}
        return BrownianPaths(sigmas, places, self._seeds, step, self.new_state().flat)

    def kept(self) -> dict[str, Any]:
        """Return copies of what a run depends on, beside the state, the time and the past, that steps have changed."""
        loops = [loop.kept() for loop in self.loops.values()]
        return {"entered": self.timeline.entered, "foreseen": self.timeline.kept(), "loops": loops}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `kept` returned."""
        self.timeline.load(kept["entered"], kept["foreseen"])
        for loop, its in zip(self.loops.values(), kept["loops"], strict=True):
            loop.load(its, self.device)

    def evaluate(self, name: str, state: State, out: Tensor, silent: Collection[str] = ()) -> None:
        """Write one population's dx/dt, or an instantaneous one's activity, into `out`, without what is `silent`."""
        self.equations[name].evaluate(state.activity, out, silent)

    def read(self, name: str, state: State) -> Tensor:
        """Return the activity of a population, shape (sample, …), or the value of an observable, shape (sample,)."""
        observable = self.network.observables.get(name)
        if observable is None:
            return state.activity[name]
        with users(f"observable {name}"):
            value = observable.value(state.activity)
        check_observed(name, self.samples, value)
        return value

    def look_at(self, names: Iterable[str]) -> None:
        """Refuse observables among what is to be recorded that are no number a sample, or change what they read."""
        observables = [name for name in names if name in self.network.observables]
        if observables:
            state = self.initial_state()
            with suppress(Exception):  # a map has no value at the start, where an equilibrium need not be
                self.settle(state, 0.0)
            look_at_observables(self.network, observables, state.activity)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one sample of a population, or that of an observable, ()."""
        return () if name in self.network.observables else self.shapes[name]

    def pace(self, name: str) -> float | Tensor:
        """Return how many times as fast as declared a population is: 1, or of stacked networks that of each sample."""
        return self.plan.pace(self.network, name)

    def schedule(self, steps: int) -> Schedule:
        """Return what each step of discrete inference from x₀ has to evaluate."""
        return schedule_of(self.network, frozenset(self.clamped), frozenset(self.plan.batch.given.initial), steps)

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
            leak = self.network[name].leak
            if self.network[name].leakless:
                raise InvalidValueError(
                    f"population {name} has no leak and does not depend on itself, so it has no equilibrium; give it a "
                    "leak > 0"
                )
            if self.echoes:
                self.echoes.rest(state.activity)
                self.points.expire_echoes()
            self.equations[name].balance(state.read, state.activity[name], leak)
            if name in self.bounds:
                self.confine(state, (name,))
            self.points.expire((name,))

    def seems_finite(self, state: State) -> bool:
        """Look with one sum, which may itself overflow, whether all is finite; instantaneous ones as last settled."""
        return sums_are_finite([state.flat, self.instant])

    def first_bad(self, state: State) -> str | None:
        """Name the first population whose activity is not finite; None if all are."""
        for population in self.free:
            if not bool(torch.isfinite(state.activity[population.name]).all()):
                return population.name
        return None
