"""Equilibria dx/dt = 0: those that the dynamics reach from their start."""

from __future__ import annotations

import math
import warnings
from itertools import count

import torch
from torch import Tensor

from neurodyn.errors import DivergenceError
from neurodyn.network.maps import Activity
from neurodyn.solvers.anderson import Candidate, anderson
from neurodyn.solvers.base import Progress, Report, Unrecorded, Until, Velocity, residual, steady
from neurodyn.solvers.choice import for_relaxation
from neurodyn.solvers.gauss_seidel import gauss_seidel, sweeps_lead_back
from neurodyn.solvers.rows import Rows, lengths
from neurodyn.solvers.stability import growth_rate, random_direction
from neurodyn.system.state import State
from neurodyn.system.system import System

_MOST_STEPS = 20_000
"""After how many steps a relaxation is given up: where it slides along a kink, such as ReLU's, it may never end."""
_FIRST_LEG = 2.0
"""How long a relaxation first runs before acceleration is tried, in units of the slowest time constant; then double."""
_LATE = 25.0
"""After how long a relaxation has to meet the tolerance by itself, likewise."""
_NONLINEAR = 0.3
"""By how much, relative to its largest change, F may deviate from its linearisation on the way to an equilibrium."""
_ASIDE = 1e-2
"""How far at least, relative to the activity, beside the start and its equilibrium sweeps have to lead there too."""
_BESIDE = 1e-5
"""How far, relative to the activity, a sample that rests at an unstable equilibrium may be from it."""
_ROUNDING = 100.0
"""How large, in machine epsilons times the activity, a velocity is that is rounding."""


def to_equilibrium(
    system: System, stop: steady, max_duration: float = 1000.0, progress: Progress | None = None
) -> tuple[State, Report]:
    """Take a system to the equilibrium that its dynamics reach from their start, each sample to its own.

    An acyclic system takes one sweep, which is exact. Elsewhere accelerated iterations, repeated sweeps where weak
    couplings close the cycles and Anderson's otherwise, propose an equilibrium, from the start or from where a
    relaxation in time has come. It is taken if F is nearly linear from there to it, and no perturbation of it grows:
    then the dynamics end there. Otherwise the relaxation goes on.

    Parameters
    ----------
    system
        The system.
    stop
        When a sample has arrived: max |τ dx/dt| ≤ tolerance.
    max_duration
        How long to relax at most, in units of the slowest time constant.
    progress
        A bar over the time that it has relaxed.

    Returns
    -------
    State
        The equilibrium, the instantaneous populations included.
    Report
        What happened.

    Raises
    ------
    DivergenceError
        If the relaxation grows without bound, or the equilibrium is not finite.

    Warns
    -----
    RuntimeWarning
        If a sample has not arrived, or rests where perturbations grow.
    """
    bound = stop.bound(system.dtype)
    if system.structure.acyclic:
        state, slope = swept(system), system.new_state()
        system.field(state, slope, "held")
        left = residual(system, slope)
        return state, Report("sweep", 1, 0, 0, left, left <= bound, 0.0, "acyclic: one sweep is exact", stable=True)
    system.refuse_delays(
        f"the equilibrium of a cyclic network such as {system.network.name!r}, whose stability depends on it,",
        "simulate the network for as long as it takes",
    )
    if not system.dynamic:
        state = system.initial_state()
        system.settle(state)
        _refuse_overflow(system, state)
        reason = "nothing is dynamic: its cycles are solved for"
        return state, Report("solve", 1, 0, 0, 0.0, True, 0.0, reason, stable=True)
    return _Search(system, bound, progress).run(max_duration)


def swept(system: System, state: State | None = None) -> State:
    """Return the equilibrium of an acyclic system, by one sweep; in a state at hand, if one is given.

    Raises
    ------
    DivergenceError
        If it is not finite.
    """
    state = system.new_state() if state is None else state  # which the sweep fills, wherever the network starts
    system.sweep(state)
    _refuse_overflow(system, state)
    return state


def _refuse_overflow(system: System, state: State) -> None:
    bad = None if system.seems_finite(state) else system.first_bad(state)
    if bad is not None:
        raise DivergenceError(f"population {bad} is not finite at the equilibrium", math.inf, bad)


class _Search:
    """The search in a cyclic system: where each sample's trajectory is, and where it is known to end."""

    def __init__(self, system: System, tolerance: float, progress: Progress | None) -> None:
        self._system, self._tolerance, self._field = system, tolerance, Rows(system, progress)
        self._progress = progress
        self._state = system.initial_state()
        self._x = self._earlier = self._found = self._field.of(self._state)
        self._slowest = float(self._field.tau.max())
        self._arrived = torch.zeros(system.samples, dtype=torch.bool, device=system.device)
        self._growth = torch.zeros_like(self._x[:, 0])
        """The rate at which a perturbation grows where a sample has rested since; 0 where none does."""
        self._resting = torch.zeros_like(self._growth)
        """For how long it has."""
        self._accelerated = ""

    def run(self, max_duration: float) -> tuple[State, Report]:
        """Search, relax for at most `max_duration` in units of the slowest time constant, and report."""
        structure = self._system.structure
        solver, reason = "", "close to linear from the start, and stable: accelerated"
        time, leg, relaxing, accepted, rejected, rested = 0.0, _FIRST_LEG, 0, 0, 0, False
        if structure.weak_order is not None or (structure.gradient_flow and structure.smooth):
            self._accelerate(0.0)
        if not bool(self._arrived.all()):
            self._accelerated = ""
        while not bool(self._arrived.all()) and time < max_duration and accepted < _MOST_STEPS:
            choice = for_relaxation(self._system, self._tolerance, late=time >= _LATE)
            solver, reason = repr(choice.solver), choice.reason
            span = min(leg, max_duration - time) * self._slowest
            pending = ~self._arrived
            rest = not rested and not bool((self._growth > 0)[pending].any())
            stop = _stop(self._tolerance, pending, _MOST_STEPS - accepted, rest=rest)
            report = choice.solver.integrate(
                self._system, self._state, span, Unrecorded(), until=stop, progress=self._progress
            )
            relaxing, accepted = relaxing + report.evaluations, accepted + report.accepted
            rested = report.time < span  # which is asked once: if nothing was taken there, what follows is no rest
            time, leg, rejected = time + report.time / self._slowest, 2.0 * leg, rejected + report.rejected
            self._earlier, self._x = self._x, self._field.of(self._state)
            self._accelerate(report.time)
        self._take(self._growth > 0, self._found)
        x = torch.where(self._arrived[:, None], self._found, self._x)
        self._field.write(self._field.resting(x), self._state)
        slope = self._system.new_state()
        self._system.field(self._state, slope)
        _refuse_overflow(self._system, self._state)
        slides = self._system.structure.kinks_at_units
        left = float(self._field(self._field.of(self._state)).abs().max()) if slides else residual(self._system, slope)
        stable = self._arrived & (self._growth == 0)
        report = Report(
            ", then ".join(part for part in (solver, self._accelerated) if part),
            relaxing + self._field.evaluations,
            accepted,
            rejected,
            left,
            bool(self._arrived.all()),
            time * self._slowest,
            reason,
            stable=bool(stable.all()),
        )
        self._warn(report, timed_out=time >= max_duration)
        return self._state, report

    def _accelerate(self, relaxed: float) -> None:
        """Take what acceleration proposes where the dynamics end there, after they were relaxed for so long."""
        x, field = self._x, self._field
        found = self._propose()
        rounding = _ROUNDING * torch.finfo(x.dtype).eps * x.abs().amax(1)
        # A trajectory that a saddle attracts and then repels comes no closer for long.
        root = field.tau.sqrt()
        away, before = (torch.linalg.vector_norm(root * (where - found.x), dim=1) for where in (x, self._earlier))
        open_ = found.arrived & ~self._arrived & (away <= before + rounding * root.norm())
        ends = stable = open_ & self._sweeps_agree(found) if found.swept else torch.zeros_like(open_)
        growth = torch.zeros_like(self._growth)
        if bool((open_ & ~ends).any()) and (relaxed or not found.swept):
            slope = field(found.x)
            symmetric = self._system.structure.gradient_flow
            # Within as far as a kink, or else the trajectory may turn around the equilibrium for ever.
            within = torch.ones_like(open_) if symmetric else away <= field.clearance(found.x) + rounding
            ends = ends | open_ & within & self._is_nearly_linear(found, slope, rounding)
            if bool((ends & ~stable).any()):
                growth, turns = growth_rate(field, found.x, slope, x - found.x, symmetric=symmetric)
                growth = torch.where(stable, 0.0, growth)
                ends = ends & (stable | ~turns | (found.before[1].abs().amax(1) <= self._tolerance))
        self._take(ends & (growth == 0), found.x)
        near = (x - found.x).abs().amax(1) <= _BESIDE * x.abs().amax(1)
        rests = ends & (growth > 0) & (near | (found.before[1].abs().amax(1) <= self._tolerance))
        self._growth = torch.where(rests, growth, torch.where(self._arrived, self._growth, 0.0))
        self._resting = torch.where(rests, self._resting + relaxed, 0.0)
        self._found = torch.where((rests & ~self._arrived)[:, None], found.x, self._found)
        # Rounding alone would have led away from an unstable equilibrium after so long.
        self._take(rests & (self._resting * growth >= -1.5 * math.log(torch.finfo(x.dtype).eps)), found.x)

    def _take(self, which: Tensor, x: Tensor) -> None:
        self._found = torch.where(which[:, None], x, self._found)
        self._arrived = self._arrived | which

    def _propose(self) -> Candidate:
        x, field, system = self._x, self._field, self._system
        if torch.finfo(x.dtype).bits < 32:  # in which differences of differences are rounding
            slope = field(x)
            return Candidate(x, slope.abs().amax(1) <= self._tolerance, (x, slope), (x, slope))
        if system.structure.weak_order is not None:
            end = gauss_seidel(field, x)
            if end is not None:
                self._accelerated = "Gauss–Seidel sweeps"
                slope = field(x)
                then = x + 0.5 * field.step * slope
                everywhere = torch.ones_like(self._arrived)
                return Candidate(end, everywhere, (x, slope), (then, None), swept=True)
        found = anderson(field, x, self._tolerance)
        if not torch.equal(found.x, x):
            self._accelerated = "Anderson acceleration"
        return found

    def _sweeps_agree(self, found: Candidate) -> Tensor:
        """Tell of each sample whether sweeps from where its trajectory leads, and from beside there, end likewise."""
        ahead = found.after[0]
        size = found.x.abs().amax(1, keepdim=True)
        apart = (found.x - self._x).abs() + _ASIDE * torch.where(size > 0, size, 1.0)
        points = [ahead, ahead + random_direction(self._field) * apart]
        return sweeps_lead_back(self._field, found.x, points)

    def _is_nearly_linear(self, found: Candidate, slope: Tensor, rounding: Tensor) -> Tensor:
        """Tell of each sample whether F changes along the trajectory, and half the way to the candidate, as there."""
        (x, start), (then, after), field = found.before, found.after, self._field
        after = field(then) if after is None else after
        step = then - x
        length = lengths(step)
        size = torch.maximum(lengths(found.x), length)
        little = torch.finfo(x.dtype).eps ** 0.5 * size / torch.where(length > 0, length, 1.0)
        little = torch.where(little > 0, little, 1.0)
        predicted = (field.near(found.x + little * step, found.x) - slope) / little
        off = (after - start - predicted).abs().amax(1)
        along = off <= _NONLINEAR * (after - start).abs().amax(1) + rounding
        bent = (field(0.5 * (found.x + x)) - 0.5 * (start + slope)).abs().amax(1)
        return along & (bent <= _NONLINEAR * 0.5 * start.abs().amax(1) + rounding)

    def _warn(self, report: Report, *, timed_out: bool) -> None:
        name, samples = self._system.network.name, self._system.samples
        if not report.converged:
            why = "" if timed_out else "; it may oscillate, or its steps stay small where an activation has a kink"
            missing = int((~self._arrived).sum())
            warnings.warn(
                f"network {name!r} has not reached its equilibrium after {report.time:g} units of time and "
                f"{report.accepted} steps in {missing} of {samples} samples: max |τ dx/dt| is {report.residual:.3g}, "
                f"and the tolerance {self._tolerance:.3g}{why}",
                RuntimeWarning,
                stacklevel=6,
            )
        unstable = self._arrived & (self._growth > 0)
        if bool(unstable.any()):
            warnings.warn(
                f"network {name!r} rests at an unstable equilibrium in {int(unstable.sum())} of {samples} samples, "
                f"where a perturbation grows at a rate of {float(self._growth.max()):.3g}; start elsewhere, or break "
                "the symmetry of the start",
                RuntimeWarning,
                stacklevel=6,
            )


def _stop(tolerance: float, pending: Tensor, steps: int, *, rest: bool) -> Until:
    """Return the stop condition of a relaxation: after so many steps, or, to `rest`, as all pending samples do."""
    counted = count()

    def until(time: float, activity: Activity, velocity: Activity) -> bool:
        assert isinstance(velocity, Velocity), "which solvers hand out"
        taken = next(counted)  # none at the start, which is asked about, too
        return taken > 0 and (taken >= steps or (rest and velocity.below(tolerance, pending)))

    return until
