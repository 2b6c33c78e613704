"""A network bound to data: its state, its vector field and its structure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import users
from neurodyn.errors import InvalidValueError
from neurodyn.layers.kernels import pieces
from neurodyn.layers.repeated import Repeated
from neurodyn.network.network import Network
from neurodyn.network.signals import Course, breaks_of, jumps_of
from neurodyn.structure.cache import schedule_of
from neurodyn.structure.causality import Schedule
from neurodyn.system.bound import Given, Inputs, Targets, checked, sums_are_finite
from neurodyn.system.continued import Starts
from neurodyn.system.delays import Past, distinct, kinks
from neurodyn.system.driven import Driven, check_span
from neurodyn.system.noise import BrownianPaths, Seed, seeds_of
from neurodyn.system.own import check_observed, look_at_observables
from neurodyn.system.plan import Plan

Time = float | Literal["held"] | None
"""A time, where there are signals."""


class State:
    """The activity at one moment: one flat tensor, seen as a block (sample, …) for each dynamic population.

    Parameters
    ----------
    flat
        The dynamic populations' activity, shape (n,).
    blocks
        The dynamic populations' activity by name: views of `flat`.
    others
        That of the others by name: the instantaneous populations' buffers, the clamps.
    echoes
        What delayed couplings read.
    """

    __slots__ = ("activity", "blocks", "flat", "pieces", "read")

    def __init__(
        self, flat: Tensor, blocks: dict[str, Tensor], others: Mapping[str, Tensor], echoes: Mapping[str, Tensor]
    ) -> None:
        self.flat = flat
        self.blocks = list(blocks.values())
        """The dynamic populations' activity: views of `flat`."""
        self.activity: dict[str, Tensor] = {**others, **blocks}
        """Every population's activity by name."""
        self.read = {**self.activity, **echoes} if echoes else self.activity
        """What couplings read: every population's activity, and the echoes."""
        self.pieces = pieces(flat)
        """Views of `flat`, for sums of states."""

    def combine(self, base: State, summands: Iterable[tuple[float, State]]) -> None:
        """Become base + Σ a_i k_i, given each a_i and k_i; one a_i at least is not 0."""
        nonzero = [(factor, slope.pieces) for factor, slope in summands if factor]
        for place, (total, out) in enumerate(zip(base.pieces, self.pieces, strict=True)):
            for factor, slopes in nonzero:
                total = torch.add(total, slopes[place], alpha=factor, out=out)


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

    def _follow(self, network: Network, plan: Plan) -> None:
        self.network, self.plan = network, plan
        self.dtype, self.device, self.samples = plan.dtype, plan.device, plan.samples
        self.data, self.clamped = plan.batch.data, plan.batch.clamped
        self.points, self.structure, self.shapes, self.free = plan.points, plan.structure, plan.shapes, plan.free
        self.dynamic, self.instantaneous, self.instant = plan.dynamic, plan.instantaneous, plan.instant
        self.bounds = plan.bounds
        self._starts, self._equations, self._sizes = plan.batch.starts, plan.equations, plan.sizes
        self._seeds: NDArray[np.uint64] | None = None
        self._repeated: Repeated[None] | None = None
        self._first = True
        """Whether the next evaluation of the field is the first of a run."""
        self._driven, self.origin = plan.batch.driven, plan.batch.origin
        self._jumping = {name: driven for name, driven in self._driven.items() if driven.jumps_alone}
        self.echoes, self._echoed, self._settled_echoes = plan.echoes, plan.echoed, plan.echoes.settled
        self._late = plan.echoes.shifted(self._driven) if self._echoed else {}
        self._moving_late = self._late
        """Those signals that arrive late and move within a step, where a solver says when each begins."""
        self.past: Past | None = None
        """Where couplings have delays, what they read of dynamic populations: a solver extends it by its steps."""
        self._recalled: float | None = None
        self._entered = 0.0
        self._within: dict[str, Driven] | None = None
        """What moves within a step, where a solver says when each begins; None where none has."""
        self._instant = dict(self._cut(plan.instant, plan.instantaneous))
        self._instantaneous_equations = [plan.equations[name] for name in plan.instantaneous]
        self.loops = plan.loops
        self._in_loops = {name for loop in plan.loops.values() for name in loop.names}
        self._dynamic_equations = [plan.equations[name] for name in plan.dynamic]
        self.has_offsets = any(
            entry.silenced_by is None for equation in plan.equations.values() for entry in equation.moving
        )
        self.size = sum(plan.sizes[name] for name in plan.dynamic)

    def initial_state(self) -> State:
        """Return a new state at x₀."""
        state = self.new_state()
        for name, value in self._starts.items():
            state.activity[name].copy_(value)
        self.plan.rest(self.network)
        self._first = True
        if self._driven:
            self._within = None
            self._move(self._driven, 0.0)
        if self.echoes:
            names = dict.fromkeys(echo.name for echo in self.echoes.dynamic)
            self.past = Past({name: state.activity[name] for name in names}, max(self.echoes.delays, default=0.0))
            self._moving_late, self._recalled = self._late, None
        return state

    def new_state(self, flat: Tensor | None = None) -> State:
        """Return a state over a flat tensor of shape (size,); over a new, uninitialised one if None."""
        if flat is None:
            flat = torch.empty(self.size, dtype=self.dtype, device=self.device)
        return State(flat, dict(self.blocks(flat)), {**self.clamped, **self._instant}, self._echoed)

    def lent_state(self) -> State:
        """Return a state in memory that the batches of a plan share: the next one overwrites it."""
        return self.new_state(self.plan.lent())

    def blocks(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each dynamic population's name and its block (sample, …) of a flat tensor of shape (size,)."""
        return self._cut(flat, self.dynamic)

    def _cut(self, flat: Tensor, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        blocks = flat.split_with_sizes([self._sizes[name] for name in names])
        for name, block in zip(names, blocks, strict=True):
            yield name, block.view(self.samples, *self.shapes[name])

    def places(self) -> Iterator[tuple[str, slice]]:
        """Yield each dynamic population's name and the place of its block in a flat tensor."""
        start = 0
        for name in self.dynamic:
            end = start + self._sizes[name]
            yield name, slice(start, end)
            start = end

    def field(self, state: State, out: State, time: Time = None) -> None:
        """Write dx/dt = F(x, t) at `state` into `out`, and the instantaneous populations' activity into their buffers.

        A state outside its bounds is brought inside first, and where F leads outside, dx/dt is 0.

        Parameters
        ----------
        state, out
            The state, and where dx/dt goes.
        time
            t, which a system that is driven by signals needs; "held" leaves these where they are.
        """
        self._bring(state, time)
        # The first of a run is made with what is worked out once a run.
        if self._repeated is None or torch.compiler.is_compiling() or self._first or self._repeated.passes():
            self._first = False
            self._evaluate(state, out)
            return
        batch = [*state.blocks, *out.blocks, *self.clamped.values()]
        if self._repeated.again(batch) is None:
            self._note(self._repeated, batch, state, out)
        self.points.expire()
        self.points.expire_echoes()

    def repeat(self, field: Repeated[None]) -> None:
        """Make the field by its operations once they are noted; nobody replaces layers or weights' memory meanwhile."""
        self._repeated = None if self.loops else field

    def _note(self, repeated: Repeated[None], batch: Sequence[Tensor], state: State, out: State) -> None:
        def evaluate() -> tuple[Sequence[Tensor], None]:
            self.points.expire_echoes()  # or else what has been made of them would be taken for constant
            self._evaluate(state, out)
            return out.blocks, None

        found, _ = repeated.made(batch, evaluate)
        for block, right in zip(out.blocks, found, strict=True):
            if right is not None and right is not block:
                block.copy_(right)
        if repeated.hopeless:
            self._repeated = None

    def _evaluate(self, state: State, out: State) -> None:
        self._settle(state)
        for equation in self._dynamic_equations:
            equation.evaluate(state.read, out.activity[equation.name])
        for name, (low, high) in self.bounds.items():
            x, slope = state.activity[name], out.activity[name]
            slope.masked_fill_(((x <= low) & (slope < 0)) | ((x >= high) & (slope > 0)), 0.0)

    def field_with_jump(self, state: State, out: State, jump: State, time: Time = None) -> None:
        """Do as `field` of a system without bounds, and write by how much F jumps as each unit passes 0 into `jump`."""
        self.settle(state, time)
        for equation in self._dynamic_equations:
            name = equation.name
            equation.evaluate_with_jump(state.read, out.activity[name], jump.activity[name])

    def confine(self, state: State, names: Collection[str] | None = None) -> None:
        """Bring the populations that have bounds inside them; of `names` alone, if these are given."""
        for name, (low, high) in self.bounds.items():
            if names is None or name in names:
                state.activity[name].clamp_(low, high)

    def settle(self, state: State, time: Time = None) -> None:
        """Bring `state` inside its bounds, and the instantaneous populations to their activity there; as `field`."""
        self._bring(state, time)
        self._settle(state)

    def _bring(self, state: State, time: Time) -> None:
        """Bring `state` inside its bounds, and what is driven or late to a time."""
        if self.bounds:
            self.confine(state)
        if (self._driven or self._echoed) and time != "held":
            if time is None:
                why = "is driven by signals" if self._driven else "has delays"
                raise InvalidValueError(
                    f"network {self.network.name!r} {why}: F depends on the time; give it, as in "
                    "system.field(state, out, time)"
                )
            if self._driven:
                self._move(self._driven if self._within is None else self._within, time)
            if self._echoed and time != self._recalled:
                self._recall(time)
                self._settle_echoes(state)
        elif self._echoed:
            self._settle_echoes(state)

    def _settle(self, state: State) -> None:
        self.points.expire()
        if self.loops:
            self._settle_loops(state)
            return
        for equation in self._instantaneous_equations:
            equation.evaluate(state.read, state.activity[equation.name])

    def _settle_echoes(self, state: State) -> None:
        """Take up what delayed couplings read of what is dynamic, or driven."""
        self.points.expire_echoes()
        for echo, equation in self._settled_echoes:
            equation.evaluate(state.read, echo.block)

    def _settle_loops(self, state: State) -> None:
        for equation in self._instantaneous_equations:
            if equation.name in self.loops:
                self.loops[equation.name].solve(state.read)
            elif equation.name not in self._in_loops:
                equation.evaluate(state.read, state.activity[equation.name])

    def refuse_bounds(self, what: str, advice: str) -> None:
        """Refuse a network whose populations have bounds, for something that takes none.

        Raises
        ------
        ValueError
            If one has; the message names it, and says what would be right.
        """
        for name in self.bounds:
            raise InvalidValueError(f"population {name} has bounds, and {what} takes none; {advice}")

    def refuse_loops(self, what: str) -> None:
        """Refuse a network whose instantaneous populations form a cycle, for something that solves none.

        Raises
        ------
        ValueError
            If they do.
        """
        for loop in self.loops.values():
            raise InvalidValueError(f"{loop.text}, which is solved for at each evaluation: {what} takes none")

    def _recall(self, time: float) -> None:
        """Bring the echoes of what is dynamic, or driven, to what it was so long before a time."""
        if self.past is None:
            raise InvalidValueError(
                f"network {self.network.name!r} has delays: F depends on the past, which begins with "
                "system.initial_state()"
            )
        for echo in self.echoes.dynamic:
            self.past.write(echo.name, time - echo.delay, echo.block)
            if echo.name in self.bounds:
                echo.block.clamp_(*self.bounds[echo.name])
        for late in self._moving_late.values():
            late.move(self.origin + time)
        self._recalled = time

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

    def refuse_delays(self, what: str, advice: str) -> None:
        """Refuse a network whose couplings have delays, for something that takes none.

        Raises
        ------
        ValueError
            If one has; the message names it, and says what would be right.
        """
        if self.echoes:
            coupling = self.echoes.couplings[0]
            raise InvalidValueError(
                f"coupling {coupling} has the delay {coupling.delay:g}, and {what} takes none; {advice}"
            )

    def check_span(self, duration: float) -> None:
        """Refuse a run that leaves the span of a signal.

        Raises
        ------
        ValueError
            If it does; the message names the signal.
        """
        for signal in self.plan.batch.signals:
            check_span(signal.what, signal.course, self.origin, self.origin + duration)

    @property
    def driven(self) -> Collection[str]:
        """The clamped populations that vary in time."""
        return self._driven.keys()

    @property
    def signals(self) -> tuple[Course, ...]:
        """What the network is driven by in time; signals that are constant are none."""
        return tuple(driven.signal.course for driven in self._driven.values())

    @property
    def moves_within_steps(self) -> bool:
        """Whether it is driven by more than jumps."""
        return len(self._jumping) < len(self._driven)

    def jumps(self, end: float) -> NDArray[np.float64]:
        """Return when signals jump between 0 and the end of a run, or their echoes do, increasing."""
        return jumps_of((*self.signals, *self._late_signals), self.origin, self.origin + end) - self.origin

    @property
    def late(self) -> Mapping[str, Driven]:
        """The signals that arrive late, by the keys of their echoes."""
        return self._late

    @property
    def _late_signals(self) -> tuple[Course, ...]:
        return tuple(late.signal.course for late in self._late.values())

    def cuts(self, end: float, order: int, *, adaptive: bool = False) -> NDArray[np.float64]:
        """Return when steps of a method of an order have to end: where signals jump, and at kinks that delays make."""
        jumps = self.jumps(end)
        if not self.echoes:
            return jumps
        begins = [echo.delay for echo in self.echoes.driven]
        found = kinks(self.echoes.delays, jumps, begins, end, order, adaptive=adaptive)
        return distinct(np.union1d(found, jumps), self.echoes.delays)

    def enter(self, time: float, *, idle: bool = False) -> None:
        """Say that a step begins at a time: what jumps is brought past its jump, and stands still up to the next call.

        So a step that ends where a signal jumps sees the value before, and the next one that after the jump. If `idle`,
        F is not asked for in this step, and what the signals contribute to it is not worked out.
        """
        self._entered = time
        if self._driven:
            self._within = {name: each for name, each in self._driven.items() if name not in self._jumping}
            if idle:
                for driven in self._jumping.values():
                    driven.move(self.origin + time)
            else:
                self._move(self._jumping, time)
        if self.echoes:
            self._moving_late = {key: late for key, late in self._late.items() if not late.jumps_alone}
            for late in self._late.values():
                late.move(self.origin + time)
            self._recalled = None

    def kept(self) -> dict[str, Any]:
        """Return copies of what a run depends on, beside the state, the time and the past, that steps have changed."""
        return {"entered": self._entered, "loops": [loop.kept() for loop in self.loops.values()]}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `kept` returned."""
        self.enter(kept["entered"])
        for loop, its in zip(self.loops.values(), kept["loops"], strict=True):
            loop.load(its, self.device)

    def breaks(self, end: float) -> NDArray[np.float64]:
        """Return when signals, or their echoes, jump or bend between 0 and the end of a run, increasing."""
        return breaks_of((*self.signals, *self._late_signals), self.origin, self.origin + end) - self.origin

    def ends(self, end: float, order: int) -> NDArray[np.float64]:
        """Return when steps of a method that adapts them have to end: at `cuts`, and where signals bend."""
        breaks = self.breaks(end)
        if not self.echoes:
            return breaks
        return distinct(np.union1d(breaks, self.cuts(end, order, adaptive=True)), self.echoes.delays)

    def repeated(self, moments: Sequence[tuple[float, float]]) -> System:
        """Return the system with its samples repeated once a moment, at which what varies stands still.

        Parameters
        ----------
        moments
            When, each after the time at which the step that it is in begins.
        """
        members, count = self.network.members, len(moments)

        def repeat(value: Tensor) -> Tensor:
            own = value.view(members, 1, -1, *value.shape[1:])
            return own.expand(members, count, *own.shape[2:]).reshape(-1, *value.shape[1:])

        # A tensor of its own where it is written to: one sample, repeated, would be the clamped one itself.
        held = {n: repeat(value).clone() if n in self._driven else repeat(value) for n, value in self.clamped.items()}
        for place, (start, time) in enumerate(moments):
            for name, driven in self._driven.items():
                driven.move(self.origin + (start if driven.jumps_alone else time))
                own = held[name].view(members, count, -1, *self.shapes[name])
                own[:, place] = self.clamped[name].view(members, -1, *self.shapes[name])
        data = self.data
        given = Given(
            {name: repeat(value) for name, value in data.inputs.items()},
            None if data.targets is None else repeat(data.targets),
            {name: repeat(value) for name, value in self._starts.items()},
            self.dtype,
            self.device,
            self.samples * count,
            held=held,
        )
        system = System.__new__(System)
        system._follow(self.network, Plan(self.network, given))
        return system

    def driven_alone(self) -> Sequence[str] | None:
        """Return the dynamic populations that signals enter; None where they pass through instantaneous ones."""
        names = [name for name, equation in self._equations.items() if equation.driven]
        return names if set(names) <= set(self.dynamic) else None

    def constants(self, names: Collection[str], out: State) -> None:
        """Write what held populations contribute to dx/dt of some populations into `out`, and 0 elsewhere."""
        out.flat.zero_()
        for name in names:
            equation = self._equations[name]
            assert equation.constant is not None, "a population that signals enter has one"
            torch.mul(equation.constant, equation.scale, out=out.activity[name])

    def taken_apart(self, flat: Tensor, count: int) -> Tensor:
        """Return a flat state of a `repeated` system moment by moment, shape (moment, n)."""
        members = self.network.members
        out = flat.new_empty(count, self.size)
        blocks = flat.split_with_sizes([count * self._sizes[name] for name in self.dynamic])
        for (_, place), block in zip(self.places(), blocks, strict=True):
            out[:, place].view(count, members, -1).copy_(block.view(members, count, -1).transpose(0, 1))
        return out

    def put_together(self, states: Tensor, out: State) -> None:
        """Write flat states moment by moment, shape (moment, n), into a state of a `repeated` system."""
        members, count = self.network.members, len(states)
        for name, place in self.places():
            own = states[:, place].view(count, members, -1).transpose(0, 1)
            out.activity[name].view(members, count, -1).copy_(own)

    def take_off(self, flat: Tensor, state: State, count: int) -> None:
        """Subtract a flat state from each moment of a state of a `repeated` system."""
        members = self.network.members
        for name, place in self.places():
            state.activity[name].view(members, count, -1).sub_(flat[place].view(members, 1, -1))

    def ahead(self, times: Sequence[float]) -> dict[str, Tensor]:
        """Return the activity of what moves within steps at some times, shape (time, sample, …)."""
        moving = {name: each for name, each in self._driven.items() if name not in self._jumping}
        found = {name: torch.empty((len(times), *self.clamped[name].shape)).to(self.clamped[name]) for name in moving}
        for name, each in moving.items():
            for place, time in enumerate(times):
                each.move(self.origin + time)
                found[name][place] = self.clamped[name]
        return found

    def take(self, ahead: Mapping[str, Tensor], place: int) -> None:
        """Bring what moves within steps to a place of what `ahead` returned."""
        for name, values in ahead.items():
            self.clamped[name].copy_(values[place])
        if ahead:
            self.renew(ahead)

    def _move(self, driven: Mapping[str, Driven], time: float) -> None:
        """Bring populations to what they are given at a time, and what they contribute with them."""
        if driven:
            for each in driven.values():
                each.move(self.origin + time)
            self.renew(driven)

    def renew(self, names: Collection[str]) -> None:
        """Say that the activity of populations that vary in time has been changed."""
        self.points.expire(names)
        for equation in self._equations.values():
            if equation.driven and any(name in names for entry in equation.driven for name in entry.reads):
                equation.drive(self.clamped)

    def evaluate(self, name: str, state: State, out: Tensor, silent: Collection[str] = ()) -> None:
        """Write one population's dx/dt, or an instantaneous one's activity, into `out`, without what is `silent`."""
        self._equations[name].evaluate(state.activity, out, silent)

    def couple(
        self, state: State, out: State, silent: Collection[str] = (), targets: Collection[str] | None = None
    ) -> None:
        """Write what the couplings alone make of `state` into `out`, without leaks, constants and what is `silent`.

        The instantaneous populations pass it on likewise. Dynamic ones beside the `targets` are left out, if these are
        given.
        """
        self.points.expire()
        for name in (*self.instantaneous, *(self.dynamic if targets is None else targets)):
            block = (state if name in self._instant else out).activity[name]
            self._equations[name].couple(state.activity, block, silent)

    def couple_each(self, name: str, state: State, rows: Mapping[str, Tensor]) -> Tensor | None:
        """Return what the couplings alone make of several states side by side for one population, without offsets.

        Parameters
        ----------
        name
            The population.
        state
            A state, of which the held populations, and the shapes of the others, count.
        rows
            The activity of the populations that may not be 0, shape (row, sample, …); what rows lack at the end is 0.

        Returns
        -------
        Tensor or None
            To be read; as many rows as may not be 0, None where none is.
        """
        return self._equations[name].each(state.activity, rows, self.points)

    def coupling_norms(self, state: State, rows: int) -> dict[str, dict[str, float]] | None:
        """Return a bound on what ‖·‖₂ of each population adds to that of each other by the couplings, of any sample.

        Parameters
        ----------
        state
            A state, of which the shapes count.
        rows
            How many samples the couplings are applied to: the bounds take no longer than that.

        Returns
        -------
        dict or None
            By the target and the population that it reads; None where one is not known.
        """
        found: dict[str, dict[str, float | Tensor]] = {}
        for name, equation in self._equations.items():
            norms = equation.norms(state.activity, rows)
            if norms is None:
                return None
            found[name] = norms
        every = [torch.as_tensor(norm, device=self.device) for norms in found.values() for norm in norms.values()]
        values = iter(torch.stack([norm.double() for norm in every]).tolist() if every else [])
        return {name: {read: next(values) for read in norms} for name, norms in found.items()}

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
        """Refuse observables among what is to be recorded that are no number a sample, or change what they read.

        Raises
        ------
        TypeError, ValueError
            If one is such; the message names it.
        """
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
        return schedule_of(self.network, frozenset(self.clamped), self.plan.batch.overridden, steps)

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
            self._equations[name].balance(state.read, state.activity[name], leak)
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
