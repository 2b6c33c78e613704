"""Runge–Kutta steps for units at whose 0 the vector field jumps: each crosses its kink, or slides along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.solvers.base import Recorder
from neurodyn.solvers.control import ErrorControlled, Stepper
from neurodyn.solvers.tableaux import BOSH3
from neurodyn.system.system import State, System


@dataclass(frozen=True)
class Sliding(ErrorControlled):
    """Bogacki–Shampine steps of Filippov's solution, where F jumps as a unit passes 0: its activation has a kink there.

    In predictive coding with ReLU, dx_i/dt jumps by (Wᵀe)_i at x_i = 0, and by nothing else: F_i = L_i below and R_i
    above, both continuous in the state. In each stage, and in the step, a unit goes by the weighted mean of the stages'
    L_i while it is below 0, and of R_i above. On arriving at 0 it goes on by the other one where that leads away, and
    stays at 0 where both lead there, L_i > 0 > R_i: Filippov's sliding mode, in which steps of any other method become
    as small as their tolerance. From 0 it leaves as soon as one of the two leads away. At 0, L_i = 0 keeps it there.

    Parameters
    ----------
    rtol, atol
        The relative tolerance, and the absolute one in units of activity.

    Raises
    ------
    ValueError
        If a tolerance is not positive; before a run, if F may jump elsewhere than where units pass 0.

    Notes
    -----
    Where a unit hardly reaches its kink, and F leads away from it on either side, L_i < 0 < R_i, the least error
    decides whether it passes. No tolerance protects against that, of this method or any other.

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
        if not (structure.smooth or structure.kinks_at_zero):
            raise InvalidValueError(
                f"solver: network {system.network.name!r} has kinks elsewhere than where a unit passes 0, along which "
                "Sliding() does not slide; use Adaptive('heun_euler')"
            )

    def stepper(self, system: System, start: Tensor) -> Stepper:
        return _SlidingStepper(system, self.rtol, self.atol, start)


def _advance(x: Tensor, below: Tensor, above: Tensor, h: float) -> Tensor:
    """Return where units are after a time h, given dx/dt while they are below and above 0.

    Parameters
    ----------
    x, below, above
        Shape (n,).
    h
        The time.
    """
    at_zero = torch.where(below > 0, above.clamp(min=0.0), below)
    velocity = torch.where(x > 0, above, torch.where(x < 0, below, at_zero))
    end = x + h * velocity
    onwards = torch.where(velocity < 0, below.clamp(max=0.0), above.clamp(min=0.0))
    return torch.where(x * end < 0, end * (onwards / velocity), end)


class _SlidingStepper(Stepper):
    """The slopes are Filippov's; those of either side, of each stage, have matrices of their own."""

    error_order = BOSH3.order

    def __init__(self, system: System, rtol: float, atol: float, start: Tensor) -> None:
        self._below = start.new_empty(len(BOSH3.b), len(start))
        self._above = torch.empty_like(self._below)
        self._stage = 0
        self._jump = system.new_state()
        super().__init__(system, rtol, atol, start, count=4)
        rows = [np.array(row) / sum(row) for row in BOSH3.a[1:]]
        self._weights = [start.new_tensor(row.tolist()) for row in rows]
        self._nodes = [sum(row) for row in BOSH3.a[1:]]
        self._embedded = start.new_tensor((np.array(BOSH3.b) - np.array(BOSH3.error)).tolist())
        self._other = torch.empty_like(start)

    def evaluate(self, x: State, out: State, after: float = 0.0) -> None:
        super().evaluate(x, out, after)
        below, above = self._below[self._stage], self._above[self._stage]
        self.system.jump(x, self._jump)
        positive = x.flat > 0
        torch.where(positive, out.flat - self._jump.flat, out.flat, out=below)
        torch.where(positive, out.flat, out.flat + self._jump.flat, out=above)
        at_zero = torch.where(below > 0, above.clamp(min=0.0), below)
        torch.where(x.flat == 0, at_zero, out.flat, out=out.flat)

    def acceleration(self, h: float) -> Tensor:
        self._stage = 1
        change = super().acceleration(h)
        self._stage = 0
        return change

    def attempt(self, h: float) -> float:
        for stage, (weights, node) in enumerate(zip(self._weights, self._nodes, strict=True), start=1):
            self.y.flat.copy_(self._at(weights, node * h))
            self._stage = stage
            self.evaluate(self.y, self.slope_after, node * h)
        self._stage = 0
        self._other = self._at(self._embedded, h)
        return self.scaled_error()

    def _at(self, weights: Tensor, h: float) -> Tensor:
        """Return the state after a time h by the weighted means of the first stages' slopes."""
        below, above = (torch.mv(each[: len(weights)].t(), weights) for each in (self._below, self._above))
        return _advance(self.x.flat, below, above, h)

    def error(self, out: Tensor) -> None:
        torch.sub(self.y.flat, self._other, out=out)

    def accept(self) -> None:
        super().accept()
        self._below[0], self._above[0] = self._below[-1], self._above[-1]

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        powers = np.power.outer(np.asarray(thetas), np.arange(BOSH3.dense.shape[1]))
        between = self.system.new_state()
        for weights, theta, moment in zip(powers @ BOSH3.dense.T, thetas, moments, strict=True):
            between.flat.copy_(self._at(between.flat.new_tensor(weights.tolist()), theta * h))
            recorder.record(moment, between)
