"""Runge–Kutta steps for units at whose kinks the vector field jumps: each crosses its kink, or slides along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.solvers.base import Recorder
from neurodyn.solvers.chebyshev import chebyshev
from neurodyn.solvers.control import ErrorControlled, Stepper
from neurodyn.solvers.maxima import Maxima
from neurodyn.system.state import State
from neurodyn.system.system import System

STABLE = chebyshev(3)
"""What the steps are made of. Most are as long as is stable: on the real axis, 2.1 for each stage."""


@dataclass(frozen=True)
class Sliding(ErrorControlled):
    """Runge–Kutta–Chebyshev steps of Filippov's solution, where F jumps as a unit passes 0, a kink of its activation.

    In predictive coding with ReLU, dx_i/dt jumps by (Wᵀe)_i at x_i = 0, and by nothing else: F_i = L_i below and R_i
    above, both continuous in the state. In each stage, and in the step, a unit goes by the weighted mean of the stages'
    L_i while it is below 0, and of R_i above. On arriving at 0 it goes on by the other one where that leads away, and
    stays at 0 where both lead there, L_i > 0 > R_i: Filippov's sliding mode, in which steps of any other method become
    as small as their tolerance. From 0 it leaves as soon as one of the two leads away. At 0, L_i = 0 keeps it there.

    Where a layer of max pooling is the first one of a stage, or follows its activation, and its windows have no unit in
    common, dx_i/dt jumps as well as a unit becomes the largest of its window. Units then overtake each other; and where
    the largest is pulled down to the next, the two fall side by side, and share the pull.

    Parameters
    ----------
    rtol, atol
        The relative tolerance, and the absolute one in units of activity.

    Raises
    ------
    ValueError
        If a tolerance is not positive; before a run, if F may jump elsewhere.

    Notes
    -----
    Where a unit hardly reaches its kink, and F leads away from it on either side, L_i < 0 < R_i, the least error
    decides whether it passes, or which of two units wins, and tightening the tolerance helps little. In predictive
    coding of ReLU networks (8 to 128 units a layer, 3 to 13 layers), up to 7 in 10,000 values of a trajectory are off
    by more than 1e-3 of its scale, at worst by 3e-2, in 130 to 480 evaluations; ``Adaptive("heun_euler", 1e-4, 1e-5)``
    has none, in 4,000 to 140,000.

    References
    ----------
    A. F. Filippov, Differential Equations with Discontinuous Righthand Sides (1988), §4, definition a.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> module = nd.mlp([3, 4, 2], activation="relu", seed=0)
    >>> network = nd.models.predictive_coding.network(module, steps="equilibrium")
    >>> x, t = torch.ones(2, 3), torch.ones(2, 2)
    >>> nd.simulate(network, x, t, duration=20.0, solver=nd.Sliding(), save_at=[20.0]).evaluations < 300
    True
    """

    rtol: float = 1e-4
    atol: float = 1e-5

    def check(self, system: System) -> None:
        super().check(system)
        system.refuse_bounds(type(self).__name__, "use Adaptive()")
        structure = system.structure
        if not (structure.smooth or structure.kinks_at_units):
            raise InvalidValueError(
                f"solver: network {system.network.name!r} has kinks elsewhere than where a unit passes 0, or becomes "
                "the largest of a window that shares no unit with another, along which Sliding() does not slide; use "
                "Adaptive('heun_euler')"
            )

    def stepper(self, system: System, start: Tensor) -> Stepper:
        return _SlidingStepper(system, self.rtol, self.atol, start)


def solution(x: State, slope: State, jump: State, out: State, maxima: Mapping[str, Maxima]) -> None:
    """Write dx/dt of Filippov's solution, which is not F where a unit is at its kink, into `out`.

    Parameters
    ----------
    x, slope, jump
        A state, F there, and by how much F jumps at each unit's kink.
    maxima
        Of the populations whose units compete for maxima, which have seen x.
    """
    below = slope.flat
    at_zero = torch.where(below > 0, (below + jump.flat).clamp(min=0.0), below)
    torch.where(x.flat == 0, at_zero, below, out=out.flat)
    for name, its in maxima.items():
        its.motion(x.activity[name], slope.activity[name], jump.activity[name], out.activity[name])


class _Sum(NamedTuple):
    """A state of a step, as the sum of the first slopes that it is."""

    weights: Tensor
    node: float
    """At what fraction of the step it is."""
    slopes: Tensor
    """F in the first stages, as rows."""
    sides: tuple[Any, ...]
    """F, by how much it jumps at 0, and whether it was taken above 0, likewise."""
    means: Any
    """The weights, of which the sum is 1."""


class _SlidingStepper(Stepper):
    """The rows are x, the slopes of the stages as F is where they are, and y.

    Most units stay on their side of 0, and take the pair's steps; for the others the slopes of either side are found
    from F and its jumps.
    """

    error_order = STABLE.order + 1

    def __init__(self, system: System, rtol: float, atol: float, start: Tensor) -> None:
        stages = len(STABLE.b)
        self._jump_rows = start.new_empty(stages, len(start))
        self._jumps = [system.new_state(row) for row in self._jump_rows]
        self._positive = torch.empty_like(self._jump_rows, dtype=torch.bool)
        self._sides = self._positive.unbind()
        self._zero = start.new_zeros(())  # a number would be made a tensor at each call
        # Of the few units that pass, NumPy's functions take a third of the time.
        self._library: Any = np if start.is_cpu and start.dtype in (torch.float32, torch.float64) else torch
        self._stage = 0
        self._maxima = {name: Maxima(windows, stages) for name, windows in system.structure.windows.items()}
        self._single = torch.ones_like(start, dtype=torch.bool)
        """Which units have a kink by themselves, if any."""
        for name, place in system.places():
            self._single[place] = name not in self._maxima
        super().__init__(system, rtol, atol, start, count=stages + 2)
        embedded = tuple(b - e for b, e in zip(STABLE.b, STABLE.error, strict=True))
        self._sums = [*map(self._sum, (*STABLE.a[1:], embedded), (*STABLE.nodes[1:], 1.0))]
        self._passing, self._above = (torch.empty_like(start, dtype=torch.bool) for _ in range(2))
        self._x_and_passing = self._array(self.x.flat), self._array(self._passing)
        self._other = system.new_state()

    def _array(self, tensor: Tensor) -> Any:
        return tensor.numpy() if self._library is np else tensor

    def _sum(self, weights: Sequence[float], node: float) -> _Sum:
        own, count = self.x.flat.new_tensor(weights), len(weights)
        slopes = self._matrix[1 : 1 + count]
        sides = (slopes, self._jump_rows[:count], self._positive[:count])
        return _Sum(own, node, slopes, tuple(map(self._array, sides)), self._array(own / node))

    def evaluate(self, x: State, out: State, after: float = 0.0) -> None:
        self.system.field_with_jump(x, out, self._jumps[self._stage], self.time + after)
        self.evaluations += 1
        torch.gt(x.flat, self._zero, out=self._sides[self._stage])
        if not self._stage:
            for name, maxima in self._maxima.items():
                maxima.see(x.activity[name])

    def acceleration(self, h: float) -> Tensor:
        self._stage = 1
        change = super().acceleration(h)
        self._stage = 0
        return change

    def attempt(self, h: float) -> float:
        torch.eq(self.x.flat, self._zero, out=self._passing)
        for name, maxima in self._maxima.items():
            maxima.begin(self.x.activity[name])
        *stages, embedded = self._sums
        for stage, its in enumerate(stages, start=1):
            self._stage = stage
            self._advanced(its, h, self.y, stage)
            self.evaluate(self.y, self.rows[1 + stage], its.node * h)
        self._stage = 0
        self._advanced(embedded, h, self._other)
        return self.scaled_error()

    def _advanced(self, its: _Sum, h: float, end: State, stage: int | None = None) -> None:
        """Write the state at a fraction of a step into `end`, where the slope of a stage is taken, if one is given."""
        out, time = end.flat, its.node * h
        torch.addmv(self.x.flat, its.slopes.t(), its.weights, alpha=h, out=out)
        for name, maxima in self._maxima.items():
            slopes = [
                (weight, self.rows[1 + earlier].activity[name], self._jumps[earlier].activity[name])
                for earlier, weight in enumerate(its.means.tolist())
            ]
            maxima.advance(self.x.activity[name], slopes, time, end.activity[name], stage)
        self._passing |= torch.gt(out, self._zero, out=self._above).ne_(self._sides[0])
        if self._maxima:
            self._passing &= self._single
        x, passing = self._x_and_passing
        if self._library is np:
            chosen = np.flatnonzero(passing)
            if len(chosen):
                sides = [rows.take(chosen, -1) for rows in its.sides]
                with np.errstate(divide="ignore", invalid="ignore"):
                    there = self._by_sides(x[chosen], sides, its.means, time)
                out.put_(torch.from_numpy(chosen), torch.from_numpy(there))
        else:  # where a device would have to be waited for, all are seen to
            torch.where(passing, self._by_sides(x, its.sides, its.means, time), out, out=out)

    def _by_sides(self, x: Any, sides: Sequence[Any], means: Any, time: float) -> Any:
        """Return where units x, shape (unit,), are after a time, given what a `_Sum` tells of them."""
        where, (slopes, jumps, positive) = self._library.where, sides
        below = means @ (slopes - where(positive, jumps, 0.0))
        above = below + means @ jumps
        down = positive[0]  # to 0, if they pass it; from 0 itself they go on by L, unless that leads up
        velocity = where(down, above, below)
        end = x + time * velocity
        onwards = where(down, below.clip(max=0.0), above.clip(min=0.0))
        return where((end > 0.0) ^ down, end / velocity * onwards, end)

    def error(self, out: Tensor) -> None:
        torch.sub(self.y.flat, self._other.flat, out=out)

    def accept(self) -> None:
        super().accept()
        self._jump_rows[0].copy_(self._jump_rows[-1])
        self._sides[0].copy_(self._sides[-1])
        for maxima in self._maxima.values():
            maxima.accept()

    def kept(self) -> dict[str, Any]:
        return {**super().kept(), "jump": self._jumps[0].flat.clone()}

    def load(self, kept: Mapping[str, Any]) -> None:
        super().load(kept)
        self._jumps[0].flat.copy_(kept["jump"])
        torch.gt(self.x.flat, self._zero, out=self._sides[0])
        for name, maxima in self._maxima.items():
            maxima.see(self.x.activity[name])

    @property
    def motion(self) -> State:
        motion = self.system.new_state()
        solution(self.x, self.slope, self._jumps[0], motion, self._maxima)
        return motion

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        powers = np.power.outer(np.asarray(thetas), np.arange(1, STABLE.dense.shape[1] + 1))
        between = self.system.new_state()
        for weights, theta, moment in zip(powers @ STABLE.dense.T, thetas, moments, strict=True):
            self._advanced(self._sum(weights.tolist(), theta), h, between)
            recorder.record(moment, between)
