"""Explicit Runge–Kutta methods of a fixed step."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neurodyn.checks import positive
from neurodyn.solvers.base import (
    DivergenceError,
    Progress,
    Recorder,
    Report,
    SavePoints,
    Solver,
    Until,
    hermite,
    velocity,
)
from neurodyn.solvers.tableaux import EULER, HEUN, Tableau
from neurodyn.solvers.tableaux import RK4 as RK4_TABLEAU
from neurodyn.system import State, System

_STEPS_BETWEEN_CHECKS = 64
"""How many steps run before one looks whether the state is still finite; a look would otherwise stall a GPU."""


@dataclass(frozen=True)
class FixedStep(Solver):
    """An explicit Runge–Kutta method of a fixed step; the last step is shortened where the duration asks for it.

    Save points inside a step are interpolated by a cubic Hermite polynomial.

    Parameters
    ----------
    step
        The step h, in units of time.

    Raises
    ------
    ValueError
        If the step is not positive.
    """

    step: float
    tableau: ClassVar[Tableau]
    real_stability: ClassVar[float]
    """The largest h|λ| that is stable, for λ on the negative real axis."""

    def __post_init__(self) -> None:
        positive(f"step of {type(self).__name__}", self.step)

    def stability_limit(self, system: System) -> float | None:
        """Return the largest stable step, where the network's structure tells it."""
        bound = system.structure.spectral_bound
        return self.real_stability / bound if bound else None

    def steps_in(self, duration: float) -> int:
        return max(1, math.ceil(duration / self.step - 1e-9))

    def check(self, system: System) -> None:
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
        steps = self.steps_in(duration)
        slopes = [system.new_state() for _ in self.tableau.b]
        work = system.new_state() if len(slopes) > 1 else state
        save = SavePoints(recorder.times)
        inside: list[float] = []
        start, start_slope, rewind = state.flat.clone(), torch.empty_like(state.flat), state.flat.clone()
        tolerance = 1e-9 * self.step
        taken = 0
        while True:
            time = self._time(taken, steps, duration)
            system.field(state, slopes[0])
            if inside:
                earlier = self._time(taken - 1, steps, duration)
                h = time - earlier
                between = system.new_state()
                for moment in inside:
                    hermite(
                        start,
                        start_slope,
                        state.flat,
                        slopes[0].flat,
                        h=h,
                        theta=(moment - earlier) / h,
                        out=between.flat,
                    )
                    recorder.record(moment, between)
                system.settle(state)
            moments = save.at(time, tolerance)
            for moment in moments:
                recorder.record(moment, state, settled=True)
            stop = until is not None and until(time, state.activity, velocity(system, slopes[0]))
            if taken % _STEPS_BETWEEN_CHECKS == 0 or taken == steps or stop:
                if not system.seems_finite(state):
                    self._locate_divergence(system, state, rewind, taken, steps, duration, slopes, work)
                rewind.copy_(state.flat)
            if stop or taken == steps:
                break
            then = self._time(taken + 1, steps, duration)
            inside = save.before(then, tolerance)
            if inside:
                start.copy_(state.flat)
                start_slope.copy_(slopes[0].flat)
            self._advance(system, state, slopes, work, then - time)
            taken += 1
            if progress is not None:
                progress.update(then - time)
        if stop and not moments:
            recorder.record(time, state, settled=True)
        return self.report(slopes[0], until, time=time, evaluations=taken * len(slopes), accepted=taken)

    def _time(self, step: int, steps: int, duration: float) -> float:
        return duration if step == steps else step * self.step

    def _advance(self, system: System, state: State, slopes: list[State], work: State, h: float) -> None:
        """Take one step from `state`, whose slope stands in slopes[0]."""
        for row, slope in zip(self.tableau.a[1:], slopes[1:], strict=True):
            base = state.flat
            for weight, earlier in zip(row, slopes, strict=False):
                if weight:
                    torch.add(base, earlier.flat, alpha=h * weight, out=work.flat)
                    base = work.flat
            system.field(work, slope)
        for weight, slope in zip(self.tableau.b, slopes, strict=True):
            state.flat.add_(slope.flat, alpha=h * weight)

    def _locate_divergence(
        self,
        system: System,
        state: State,
        rewind: Tensor,
        taken: int,
        steps: int,
        duration: float,
        slopes: list[State],
        work: State,
    ) -> None:
        """Repeat the last steps one by one and raise at the first that is not finite; return if none is.

        The sum that sounded the alarm may have overflowed alone.
        """
        if system.first_bad(state) is None:
            return
        first = max(0, (taken - 1) // _STEPS_BETWEEN_CHECKS * _STEPS_BETWEEN_CHECKS)
        state.flat.copy_(rewind)
        for step in range(first, taken + 1):
            system.field(state, slopes[0])
            bad = system.first_bad(state)
            if bad is not None:
                time = self._time(step, steps, duration)
                limit = self.stability_limit(system)
                hint = (
                    f"the stability limit of {type(self).__name__} for this network is a step of {limit:g}"
                    if limit is not None
                    else "try a smaller step"
                )
                raise DivergenceError(
                    f"population {bad} became non-finite at time {time:g}, with {self!r}; {hint}", time, bad
                )
            self._advance(
                system, state, slopes, work, self._time(step + 1, steps, duration) - self._time(step, steps, duration)
            )


class Euler(FixedStep):
    """The explicit Euler method, order 1: x ← x + h F(x)."""

    tableau = EULER
    real_stability = 2.0


class Heun(FixedStep):
    """Heun's method, order 2: x ← x + h/2 (F(x) + F(x + h F(x)))."""

    tableau = HEUN
    real_stability = 2.0


class RK4(FixedStep):
    """The classical Runge–Kutta method, order 4."""

    tableau = RK4_TABLEAU
    real_stability = 2.7852935634052816
