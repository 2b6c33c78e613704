"""Gradients through the steps of a run: discretise, then differentiate.

The steps are those that the solver takes without a graph, with a graph put through them: what results is the gradient
of the discrete run itself, step sizes being constants.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from neurodyn.errors import DivergenceError, InvalidValueError
from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.base import Recorder, SavePoints, Solver
from neurodyn.solvers.fixed import FixedStep
from neurodyn.solvers.steps import Steps
from neurodyn.solvers.tableaux import Numbers
from neurodyn.system.noise import BrownianPaths
from neurodyn.system.state import State
from neurodyn.system.system import System
from neurodyn.system.traced import TracedField, by_name

Moments = tuple[list[float], Tensor]
"""When, and the activity of all free populations then, shape (time, sample, unit)."""


def along_steps(
    field: TracedField, solver: Solver, duration: float, times: NDArray[np.float64] | None, *, checkpointed: bool
) -> Moments:
    """Return the activity at some times, with the graph of the steps that a solver takes to them.

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
        straight = tableau.order == 1 or bool(system.noisy)
        method = _Method((*tableau.a, tableau.b), None, straight)
        ends = _fixed_ends(solver, system, duration)
        noise = None if not system.noisy else system.paths(solver.step, standard=True)
    elif isinstance(solver, Adaptive):
        method, noise = _Method(solver.pair.a, solver.pair.dense), None
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
    past = _Past(field)
    moments, legs = _legs(ends, times, system.timeline.jumps(duration), solver)
    start = field.rows(field.start)
    run.recall(past)
    states = [field.everything(start, moment) for moment in moments]
    x, slope = start, field(start, 0.0, 0.0)
    size = math.isqrt(max(1, len(legs) - 1)) + 1 if checkpointed else len(legs)
    for first in range(0, len(legs), size):
        segment = legs[first : first + size]
        step: Callable[..., tuple[Tensor, Tensor, list[Tensor], _Past]] = run.through
        if checkpointed and torch.is_grad_enabled():
            given = segment, x, slope, past
            x, slope, saved, past = checkpoint(step, *given, use_reentrant=False, preserve_rng_state=False)
        else:
            x, slope, saved, past = step(segment, x, slope, past)
        moments += [moment for leg in segment for moment in (*leg.inside, *leg.at_end)]
        states += saved
    return moments, _finite(field, moments, torch.stack(states), solver)


class _Method(NamedTuple):
    """An explicit Runge–Kutta method whose last stage is the first of the next step."""

    a: tuple[Numbers, ...]
    """The coefficients of the stages, of which the last is the solution."""
    dense: NDArray[np.float64] | None
    """Those of the dense output, shape (stage, power of θ from 1); None for the cubic between a step's ends."""
    straight: bool = False
    """Whether delays read straight lines between the steps' ends."""

    def between(self, x: Tensor, y: Tensor, slopes: Sequence[Tensor], h: float, theta: float) -> Tensor:
        """Return the state at a fraction θ of a step from x to y, which bounds may have clipped."""
        if self.dense is None:
            cubic = torch.lerp(x, y, theta * theta * (3 - 2 * theta))
            return _sum(cubic, h, (theta * (1 - theta) ** 2, -(theta**2) * (1 - theta)), (slopes[0], slopes[-1]))
        return _sum(x, h, (self.dense @ theta ** np.arange(1.0, self.dense.shape[1] + 1)).tolist(), slopes)


class _Leg(NamedTuple):
    """A step, what is saved inside it and at its end, and whether signals jump there."""

    start: float
    end: float
    inside: list[float]
    at_end: list[float]
    jumps: bool


class _Ends(Recorder):
    """A recorder of when steps end."""

    times: NDArray[np.float64] | None = None

    def __init__(self) -> None:
        self.moments: list[float] = []

    def record(self, time: float, state: State, *, settled: bool = False) -> None:
        """Take the time."""
        self.moments.append(time)


def _fixed_ends(solver: FixedStep, system: System, duration: float) -> list[float]:
    steps, ends = Steps(solver.step, duration, system.timeline.cuts(duration, solver.tableau.order)), [0.0]
    while ends[-1] < duration:
        ends.append(steps.next())
    return ends[1:]


def _legs(
    ends: Sequence[float], times: NDArray[np.float64] | None, jumps: NDArray[np.float64], solver: Solver
) -> tuple[list[float], list[_Leg]]:
    """Return what is saved at the start, and the steps."""
    tolerance = 1e-9 * solver.step if isinstance(solver, FixedStep) else 1e-12 * ends[-1]
    save, legs = SavePoints(times), []
    at_start = save.at(0.0, tolerance)
    for start, end in pairwise([0.0, *ends]):
        jumped = bool(((jumps > start) & (jumps <= end)).any())
        legs.append(_Leg(start, end, save.before(end, tolerance), save.at(end, tolerance), jumped))
    return at_start, legs


class _Piece(NamedTuple):
    """A step from x to y, for delays to read, with the slopes of its stages; none where it is straight."""

    start: float
    end: float
    x: Tensor
    y: Tensor
    slopes: Sequence[Tensor]


class _Past:
    """What the dynamic populations were since time 0, as far back as delays read it, with its graph."""

    def __init__(self, field: TracedField, pieces: Sequence[_Piece] = ()) -> None:
        self._field, self._pieces = field, pieces
        self._longest = max(field.system.echoes.delays, default=0.0)

    def after(self, pieces: Sequence[_Piece]) -> _Past:
        """Return the past after some more steps; this one stays as it is, for the way back through a checkpoint."""
        if not self._field.system.echoes:
            return self
        since = pieces[-1].end - self._longest if pieces else 0.0
        return _Past(self._field, [piece for piece in (*self._pieces, *pieces) if piece.end >= since])

    def piece(self, time: float) -> _Piece | None:
        """Return the step that a time is in; None before the first one."""
        if time <= 0.0 or not self._pieces:
            return None
        place = bisect_left(self._pieces, time, key=lambda piece: piece.end)
        return self._pieces[min(place, len(self._pieces) - 1)]


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
        ends = np.cumsum(field.widths).tolist()
        self._places = {
            name: slice(end - width, end)
            for name, width, end in zip(field.system.dynamic, field.widths, ends, strict=True)
        }

    def recall(self, past: _Past) -> None:
        """Let the field read a past."""
        if self._field.system.echoes:
            self._field.recall = partial(self._recalled, past)

    def _recalled(self, past: _Past, name: str, time: float) -> Tensor:
        piece, place = past.piece(time), self._places[name]
        if piece is None:
            return self._field.start[name]
        h = piece.end - piece.start
        theta = (time - piece.start) / h
        x, y = piece.x[:, place], piece.y[:, place]
        if theta > 1.0 - 1e-9:
            block = y
        elif self._method.straight:
            block = torch.lerp(x, y, theta)
        else:
            block = self._method.between(x, y, [slope[:, place] for slope in piece.slopes], h, theta)
        return block.reshape(self._field.start[name].shape)

    def through(
        self, legs: Sequence[_Leg], x: Tensor, slope: Tensor, past: _Past
    ) -> tuple[Tensor, Tensor, list[Tensor], _Past]:
        """Take steps from a state with its slope; return both at the end, what is saved, and the past then.

        What is saved is the activity of all free populations side by side, shape (sample, unit), at each moment.
        """
        saved: list[Tensor] = []
        for leg in legs:
            self.recall(past)
            y, slopes = self._step(leg, x, slope)
            past = past.after([_Piece(leg.start, leg.end, x, y, () if self._method.straight else slopes)])
            for moment in leg.inside:
                saved.append(self._field.everything(self._between(leg, moment, x, y, slopes), moment, leg.start))
            entered = leg.end if leg.jumps else leg.start
            saved += [self._field.everything(y, moment, entered) for moment in leg.at_end]
            x, slope = y, self._field(y, leg.end, leg.end) if leg.jumps else slopes[-1]
        return x, slope, saved, past

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
        return self._field.confined(self._method.between(x, y, slopes, h, theta))

    def _gained(self, start: float, end: float) -> Tensor | None:
        """Return σ ΔW."""
        if self._noise is None:
            return None
        field, origin = self._field, self._field.system.timeline.origin
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
        blocks = by_name(field, states.detach()[place : place + 1])
        name = next(name for name, block in blocks.items() if not bool(torch.isfinite(block).all()))
        when = field.system.timeline.origin + moments[place]
        raise DivergenceError(
            f"population {name} became non-finite by time {when:g}, with {solver!r}; try a smaller step", when, name
        )
    return states
