"""Gradients through the steps of a run: discretise, then differentiate.

The steps are those that the solver takes without a graph, with a graph put through them: what results is the gradient
of the discrete run itself, step sizes being constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from neurodyn.errors import DivergenceError, InvalidValueError
from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.base import Recorder, SavePoints, Solver
from neurodyn.solvers.fixed import FixedStep, Steps
from neurodyn.solvers.tableaux import Numbers, hermite
from neurodyn.system.noise import BrownianPaths
from neurodyn.system.system import State, System
from neurodyn.system.traced import TracedField

Moments = tuple[list[float], Tensor]
"""When, and the states then, shape (time, sample, unit)."""


def along_steps(
    field: TracedField, solver: Solver, duration: float, times: NDArray[np.float64] | None, *, checkpointed: bool
) -> Moments:
    """Return the states at some times, with the graph of the steps that a solver takes to them.

    Parameters
    ----------
    field
        The vector field.
    solver
        A method of fixed step, or an adaptive pair.
    duration
        How long.
    times
        The times to save at; None for the end of every step.
    checkpointed
        Whether the graph of √n steps at a time is kept, and the others worked out once more on the way back.

    Raises
    ------
    ValueError
        If the solver is another.
    DivergenceError
        If the state becomes non-finite.

    References
    ----------
    T. Chen et al., "Training deep nets with sublinear memory cost" (2016).
    """
    system = field.system
    if isinstance(solver, FixedStep):
        tableau = solver.tableau
        method = _Method((*tableau.a, tableau.b), (*tableau.b, 0.0), hermite((*tableau.b, 0.0)))
        ends = _fixed_ends(solver, system, duration)
        noise = None if not system.noisy else system.paths(solver.step, standard=True)
    elif isinstance(solver, Adaptive):
        method, noise = _Method(solver.pair.a, solver.pair.b, solver.pair.dense), None
        with torch.no_grad():
            recorder = _Ends()
            solver.integrate(system, system.initial_state(), duration, recorder)
            ends = recorder.moments[1:]
    else:
        raise InvalidValueError(
            f"solver: nd.activity goes through the steps of Euler, Heun, RK4, FixedStep and Adaptive, by the closed "
            f"form of Exact, or with TorchDiffEq, and not through those of {solver!r}"
        )
    run = _Run(field, method, noise)
    legs = _legs(ends, times, set(system.jumps(duration).tolist()), solver)
    start = field.rows(field.start)
    moments = [0.0] if times is None or (len(times) and times[0] <= legs[0].tolerance) else []
    states = [start[None]] if moments else []
    x, slope = start, field(start, 0.0, 0.0)
    size = math.isqrt(max(1, len(legs) - 1)) + 1 if checkpointed else len(legs)
    for first in range(0, len(legs), size):
        segment = legs[first : first + size]
        step: Callable[..., tuple[Tensor, Tensor, Tensor]] = run.through
        if checkpointed and torch.is_grad_enabled():
            x, slope, saved = checkpoint(step, segment, x, slope, use_reentrant=False, preserve_rng_state=False)
        else:
            x, slope, saved = step(segment, x, slope)
        moments += [moment for leg in segment for moment in leg.moments]
        states.append(saved)
    return moments, _finite(field, moments, torch.cat(states), solver)


@dataclass(frozen=True)
class _Method:
    """An explicit Runge–Kutta method whose last stage is the first of the next step.

    Parameters
    ----------
    a, b
        The coefficients of the stages, and of the solution.
    dense
        Those of the dense output, shape (stage, power of θ from 1).
    """

    a: tuple[Numbers, ...]
    b: Numbers
    dense: NDArray[np.float64]


@dataclass(frozen=True)
class _Leg:
    """A step.

    Parameters
    ----------
    start, end
        When it begins and ends.
    moments
        What is saved of it, the end included.
    jumps
        Whether signals jump at its end.
    tolerance
        How close to its end a time is there.
    """

    start: float
    end: float
    moments: list[float]
    jumps: bool
    tolerance: float


class _Ends(Recorder):
    """A recorder of when steps end."""

    times: NDArray[np.float64] | None = None

    def __init__(self) -> None:
        self.moments: list[float] = []

    def record(self, time: float, state: State, *, settled: bool = False) -> None:
        """Take the time."""
        self.moments.append(time)

    def combine(self, times: NDArray[np.float64], weights: Tensor, rows: Tensor) -> None:
        """Take the times."""
        self.moments += times.tolist()


def _fixed_ends(solver: FixedStep, system: System, duration: float) -> list[float]:
    steps, ends = Steps(solver.step, duration, system.jumps(duration)), [0.0]
    while ends[-1] < duration:
        ends.append(steps.next())
    return ends[1:]


def _legs(ends: Sequence[float], times: NDArray[np.float64] | None, jumps: set[float], solver: Solver) -> list[_Leg]:
    tolerance = 1e-9 * solver.step if isinstance(solver, FixedStep) else 1e-12 * ends[-1]
    save, legs = SavePoints(times), []
    save.at(0.0, tolerance)
    for start, end in pairwise([0.0, *ends]):
        moments = save.before(end, tolerance)
        legs.append(_Leg(start, end, [*moments, *save.at(end, tolerance)], end in jumps, tolerance))
    return legs


class _Run:
    """Steps of a method along a field.

    Parameters
    ----------
    field, method
        The field, and the method.
    noise
        The paths W(t), or None.
    """

    def __init__(self, field: TracedField, method: _Method, noise: BrownianPaths | None) -> None:
        self._field, self._method, self._noise = field, method, noise

    def through(self, legs: Sequence[_Leg], x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take steps from a state with its slope; return both at the end, and what is saved, (time, sample, unit)."""
        saved: list[Tensor] = []
        for leg in legs:
            y, slopes = self._step(leg, x, slope)
            for moment in leg.moments:
                at_end = moment >= leg.end - leg.tolerance
                saved.append(y if at_end else self._between(leg, moment, x, y, slopes))
            x, slope = y, self._field(y, leg.end, leg.end) if leg.jumps else slopes[-1]
        return x, slope, torch.stack(saved) if saved else x.new_empty(0, *x.shape)

    def _step(self, leg: _Leg, x: Tensor, slope: Tensor) -> tuple[Tensor, list[Tensor]]:
        h, slopes, y = leg.end - leg.start, [slope], x
        gained = self._gained(leg.start, leg.end)
        for row in self._method.a[1:]:
            y = _sum(x, h, row, slopes)
            y = y if gained is None else y + gained
            slopes.append(self._field(y, leg.start + sum(row) * h, leg.start))
        return self._field.confined(y), slopes

    def _between(self, leg: _Leg, moment: float, x: Tensor, y: Tensor, slopes: Sequence[Tensor]) -> Tensor:
        h = leg.end - leg.start
        theta = (moment - leg.start) / h
        gained = self._gained(leg.start, leg.end)
        if gained is not None:
            partly = self._gained(leg.start, moment)
            assert partly is not None
            return self._field.confined(torch.lerp(x, y - gained, theta) + partly)
        weights = self._method.dense @ theta ** np.arange(1.0, self._method.dense.shape[1] + 1)
        return self._field.confined(_sum(x, h, weights.tolist(), slopes))

    def _gained(self, start: float, end: float) -> Tensor | None:
        """Return σ ΔW."""
        if self._noise is None:
            return None
        field, origin = self._field, self._field.system.origin
        blocks = dict(field.system.blocks(self._noise.gained(origin + start, origin + end)))
        return field.rows({name: field.number("noise", name) * block for name, block in blocks.items()})


def _sum(x: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=False):
        if weight:
            x = torch.add(x, slope, alpha=h * weight)
    return x


def _finite(field: TracedField, moments: Sequence[float], states: Tensor, solver: Solver) -> Tensor:
    """Return states, and refuse those that are not finite."""
    bad = ~torch.isfinite(states.detach()).flatten(1).all(1)
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        blocks = field.blocks(states.detach()[place])
        name = next(name for name, block in blocks.items() if not bool(torch.isfinite(block).all()))
        raise DivergenceError(
            f"population {name} became non-finite by time {moments[place]:g}, with {solver!r}; try a smaller step",
            moments[place],
            name,
        )
    return states
