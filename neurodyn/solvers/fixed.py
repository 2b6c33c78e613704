"""Explicit Runge–Kutta methods of a fixed step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from neurodyn.checks import flag, positive
from neurodyn.errors import DivergenceError, InvalidTypeError, InvalidValueError
from neurodyn.solvers.base import Progress, Recorder, Report, SavePoints, Solver, Until, hermite, velocity
from neurodyn.solvers.compiled import STEPS_COMPILED, advance_compiled, check_compilable
from neurodyn.solvers.past import FixedPast, refuse_order
from neurodyn.solvers.steps import StepNoise, Steps, steps_of
from neurodyn.solvers.tableaux import EULER, HEUN, Tableau
from neurodyn.solvers.tableaux import RK4 as RK4_TABLEAU
from neurodyn.system.state import State
from neurodyn.system.system import System

_STEPS_BETWEEN_CHECKS = 64
"""How many steps run before one looks whether the state is still finite; a look would otherwise stall a GPU."""
_MOST_AHEAD = 16
"""For how many steps at once one works out what arrives late."""
_MOST_NUMBERS = 2**18
"""How many numbers that holds at most, unless it is for one step."""
_FEW_TIMES = 4
"""For fewer evaluations it does not pay."""


@dataclass(frozen=True)
class FixedStep(Solver):
    """An explicit Runge–Kutta method of a fixed step; the last step is shortened where the duration asks for it.

    Save points inside a step are interpolated by a cubic Hermite polynomial.

    Parameters
    ----------
    step
        The step h, in units of time.
    tableau
        The method. `Euler`, `Heun` and `RK4` bring their own.
    compile
        Whether `torch.compile` makes one function of every 20 steps between which nothing is saved. That takes some
        seconds once for a network and the shapes of its data, and pays in small networks and long runs. A network that
        cannot be compiled runs as it is, with a warning; a run in which 20 steps never come together, because it is
        shorter, saves more often or has a stop condition, is refused.

    Raises
    ------
    TypeError, ValueError
        If the step is not positive, or `compile` no bool.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> midpoint = nd.FixedStep(0.1, nd.Tableau(2, ((), (0.5,)), (0.0, 1.0)))
    >>> run = nd.simulate(net, None, duration=1.0, solver=midpoint, save_at=2)
    >>> round(float(run.x[-1].item()), 3)
    0.369
    """

    takes_delays = True
    step: float
    tableau: Tableau
    compile: bool = field(default=False, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", positive(f"step of {type(self).__name__}", self.step))
        flag(f"compile of {type(self).__name__}", self.compile)
        if not isinstance(self.tableau, Tableau):
            raise InvalidTypeError(
                f"tableau of {type(self).__name__}: a Tableau of coefficients, not {type(self.tableau).__name__}"
            )

    def stability_limit(self, system: System) -> float | None:
        """Return the largest stable step, where the network's structure tells it."""
        bound = system.structure.spectral_bound
        return self.tableau.real_stability / bound if bound else None

    def steps_in(self, duration: float) -> int:
        return steps_of(duration, self.step)

    def check(self, system: System) -> None:
        refuse_order(system, type(self).__name__, self.tableau.order, dense=False)
        for delay in system.echoes.delays[:1]:
            if self.step > delay * (1 + 1e-9):
                raise InvalidValueError(
                    f"step of {type(self).__name__}: {self.step:g} is longer than the shortest delay {delay:g}, so "
                    "that a step would read its own end; take one that is no longer, or Adaptive()"
                )
        limit = self.stability_limit(system)
        if limit is not None and self.step > limit * (1 + 1e-9):
            warnings.warn(
                f"step {self.step:g} is beyond the stability limit {limit:g} of {type(self).__name__} for network "
                f"{system.network.name!r}; the run will grow without bound",
                stacklevel=4,
            )

    def integrate(
        self,
        system: System,
        state: State,
        duration: float,
        recorder: Recorder,
        *,
        until: Until | None = None,
        progress: Progress | None = None,
    ) -> Report:
        steps = Steps(self.step, duration, system.timeline.cuts(duration, self.tableau.order))
        slopes = [system.new_state() for _ in self.tableau.b]
        work = system.new_state() if len(slopes) > 1 else state
        save = SavePoints(recorder.times)
        inside: list[float] = []
        start, start_slope, rewind = state.flat.clone(), torch.empty_like(state.flat), state.flat.clone()
        tolerance = 1e-9 * self.step
        time = earlier = foreseen = 0.0
        taken, since = 0, [0.0]
        noise = StepNoise(system, self.step)
        compiled = self.compile
        if compiled:
            if noise.paths is not None:
                raise InvalidValueError("compile: noise is drawn between the steps; leave compile out")
            system.refuse_delays("compile", "leave it out")
            system.refuse_loops("compile")
            check_compilable(self.step, recorder.times, duration, until)
        past = FixedPast(system, self.tableau.order) if system.echoes else None
        ahead = self._ahead(system)
        begun = recorder.resumed is not None
        if recorder.resumed is None:
            system.timeline.enter(time)
        else:
            time, taken = recorder.resumed["time"], recorder.resumed["taken"]
            state.flat.copy_(recorder.resumed["x"])
            slopes[0].flat.copy_(recorder.resumed["slope"])
            rewind.copy_(state.flat)
            since = [time]
            steps.load(recorder.resumed["steps"])
            save.at(time, tolerance)  # up to where all is saved
            if past is not None:
                past.load(recorder.resumed["past"])
                foreseen = recorder.resumed["foreseen"]
            system.load(recorder.resumed["system"])
            if progress is not None:
                progress.update(time)
        while True:
            if begun:
                joined = compiled and steps.whole(STEPS_COMPILED, save.next - tolerance)
                if joined:
                    compiled = joined = advance_compiled(self.step, self.tableau, system, state, slopes, work, time)
                if ahead and time >= foreseen:
                    foreseen = self._foresee(system, state, time, steps.ahead(time, ahead))
                ends = [steps.next() for _ in range(STEPS_COMPILED if joined else 1)]
                earlier, time = time, ends[-1]
                inside = save.before(time, tolerance)
                if not joined:
                    if inside:
                        start.copy_(state.flat)
                        start_slope.copy_(slopes[0].flat)
                    gained = noise.gained(earlier, time)
                    self._advance(system, state, slopes, work, earlier, time, gained)
                taken, since = taken + len(ends), since + ends
                if progress is not None:
                    progress.update(time - earlier)
            begun = True
            system.field(state, slopes[0], time)
            if past is not None:
                past.reach(time, state, slopes[0])
            if inside:
                h = time - earlier
                between = system.new_state()
                for moment in inside:
                    theta = (moment - earlier) / h
                    if noise.paths is not None:
                        noise.between(start, state.flat, earlier, moment, theta, between.flat)
                    else:
                        hermite(start, start_slope, state.flat, slopes[0].flat, h=h, theta=theta, out=between.flat)
                    recorder.record(moment, between)
                system.settle(state, time)
            if steps.at_jump:
                system.timeline.enter(time)
                foreseen = time
                system.field(state, slopes[0], time)
                if past is not None:
                    past.turn(slopes[0])
            moments = save.at(time, tolerance)
            for moment in moments:
                recorder.record(moment, state, settled=True)
            stop = until is not None and until(time, state.activity, velocity(system, slopes[0]))
            done = time >= duration
            if len(since) > _STEPS_BETWEEN_CHECKS or done or stop or recorder.due:
                if not system.seems_finite(state):
                    self._locate_divergence(system, state, rewind, since)
                rewind.copy_(state.flat)
                since = [time]
                if past is not None:
                    past.forget(time)
            if stop or done:
                break
            if recorder.due:
                kept = {"time": time, "taken": taken, "x": state.flat.clone(), "slope": slopes[0].flat.clone()}
                kept |= {"steps": steps.kept(), "system": system.kept()}
                recorder.keep(kept if past is None else {**kept, "past": past.kept(), "foreseen": foreseen})
        if stop and not moments:
            recorder.record(time, state, settled=True)
        return self.report(system, slopes[0], until, time=time, evaluations=taken * len(slopes), accepted=taken)

    def _advance(
        self,
        system: System,
        state: State,
        slopes: list[State],
        work: State,
        time: float,
        end: float,
        noise: Tensor | None,
    ) -> None:
        """Take one step from `state` at a time, whose slope stands in slopes[0], with the noise σ ΔW."""
        h, times = end - time, self._times(time, end) if len(slopes) > 1 else []
        for row, then, slope in zip(self.tableau.a[1:], times, slopes[1:], strict=True):
            earlier = zip(row, slopes[: len(row)], strict=True)
            work.combine(state, [(h * weight, its) for weight, its in earlier])
            if noise is not None:
                work.flat.add_(noise)
            system.field(work, slope, then)
        state.combine(state, [(h * weight, slope) for weight, slope in zip(self.tableau.b, slopes, strict=True)])
        if noise is not None:
            state.flat.add_(noise)

    def _times(self, time: float, end: float) -> list[float]:
        """Return when a step evaluates F, after its start."""
        return [end if node == 1.0 else time + node * (end - time) for node in self.tableau.nodes[1:]]

    def _ahead(self, system: System) -> int:
        """Return for how many steps to come what arrives late is to be worked out at once; 0 where it does not pay."""
        if not system.plan.late:
            return 0
        most = max(1, _MOST_NUMBERS // (len(self.tableau.b) * max(1, system.size)))
        steps = int(min(most, _MOST_AHEAD, system.echoes.shortest / self.step + 1e-9))
        return steps if steps * len(self.tableau.b) >= _FEW_TIMES else 0

    def _foresee(self, system: System, state: State, time: float, ends: Sequence[float]) -> float:
        """Work out what arrives late in some steps from a time on, and return when the last of them ends."""
        times = {then for start, end in pairwise([time, *ends]) for then in (*self._times(start, end), end)}
        system.foresee(state, sorted(times))
        return ends[-1]

    def _locate_divergence(self, system: System, state: State, rewind: Tensor, times: Sequence[float]) -> None:
        """Repeat the last steps one by one and raise at the first that is not finite; return if none is.

        The sum that sounded the alarm may have overflowed alone.
        """
        if system.first_bad(state) is None:
            return
        again, work = system.new_state(rewind.clone()), system.new_state()
        slopes = [system.new_state() for _ in self.tableau.b]
        noise = StepNoise(system, self.step)
        for time, then in pairwise([*times, times[-1]]):
            system.timeline.enter(time)
            system.field(again, slopes[0], time)
            bad = system.first_bad(again)
            if bad is not None:
                limit = self.stability_limit(system)
                hint = (
                    f"the stability limit of {type(self).__name__} for this network is a step of {limit:g}"
                    if limit is not None
                    else "try a smaller step"
                )
                when = system.timeline.origin + time
                raise DivergenceError(
                    f"population {bad} became non-finite at time {when:g}, with {self!r}; {hint}", when, bad
                )
            self._advance(system, again, slopes, work, time, then, noise.gained(time, then))


@dataclass(frozen=True)
class Euler(FixedStep):
    """The explicit Euler method, order 1: x ← x + h F(x).

    With noise, the Euler–Maruyama method: x ← x + h F(x) + σ ΔW, of strong order 1, as the noise is additive.

    Parameters
    ----------
    step, compile
        As of `FixedStep`: the step h, and whether to compile the steps.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> nd.simulate(net, None, duration=1.0, solver=nd.Euler(0.5)).x.values.ravel().tolist()
    [1.0, 0.5, 0.25]
    """

    takes_noise = True
    tableau: Tableau = field(default=EULER, init=False, repr=False)


@dataclass(frozen=True)
class Heun(FixedStep):
    """Heun's method, order 2: x ← x + h/2 (F(x) + F(x + h F(x))).

    With noise, x ← x + h/2 (F(x) + F(x + h F(x) + σ ΔW)) + σ ΔW, of strong order 1, and of order 2 in the drift.

    Parameters
    ----------
    step, compile
        As of `FixedStep`: the step h, and whether to compile the steps.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> nd.simulate(net, None, duration=1.0, solver=nd.Heun(0.5)).x.values.ravel().tolist()  # (1 − h + h²/2)ⁿ
    [1.0, 0.625, 0.390625]
    """

    takes_noise = True
    tableau: Tableau = field(default=HEUN, init=False, repr=False)


@dataclass(frozen=True)
class RK4(FixedStep):
    """The classical Runge–Kutta method, order 4.

    Parameters
    ----------
    step, compile
        As of `FixedStep`: the step h, and whether to compile the steps.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=1.0, solver=nd.RK4(0.1), save_at=2)
    >>> round(float(run.x[-1].item()), 4)
    0.3679
    """

    tableau: Tableau = field(default=RK4_TABLEAU, init=False, repr=False)
