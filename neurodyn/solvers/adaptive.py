"""Embedded Runge–Kutta pairs with error control and dense output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
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
    fastest,
    velocity,
)
from neurodyn.solvers.tableaux import BOSH3, DOPRI5, HEUN_EULER, TSIT5, Pair
from neurodyn.system import State, System

PAIRS: dict[str, Pair] = {"heun_euler": HEUN_EULER, "bosh3": BOSH3, "dopri5": DOPRI5, "tsit5": TSIT5}


@dataclass(frozen=True)
class Adaptive(Solver):
    """An embedded Runge–Kutta pair with proportional–integral step control.

    A step is accepted where ‖e / (atol + rtol · max(|x|, |x'|))‖ ≤ 1, in the root mean square over all units and
    samples, with e the difference of the pair's two solutions. Save points are interpolated by the pair's dense output.

    Parameters
    ----------
    method
        "heun_euler" 2(1), "bosh3" 3(2) (Bogacki–Shampine), "dopri5" 5(4) (Dormand–Prince), "tsit5" 5(4) (Tsitouras).
    rtol, atol
        The relative tolerance, and the absolute one in units of activity.

    Raises
    ------
    ValueError
        If the method is unknown or a tolerance is not positive.

    References
    ----------
    E. Hairer, S. P. Nørsett, G. Wanner, Solving Ordinary Differential Equations I, §II.4 and II.6; for the control,
    K. Gustafsson, ACM Trans. Math. Softw. 17 (1991).
    """

    method: Literal["heun_euler", "bosh3", "dopri5", "tsit5"] = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-7

    def __post_init__(self) -> None:
        if self.method not in PAIRS:
            raise ValueError(f"method of Adaptive: there is no {self.method!r}; there are {', '.join(PAIRS)}")
        positive("rtol of Adaptive", self.rtol)
        positive("atol of Adaptive", self.atol)

    def check(self, system: System) -> None:
        smallest = 4 * torch.finfo(system.dtype).eps
        if self.rtol < smallest:
            raise ValueError(
                f"rtol of Adaptive: {self.rtol:g} is below what {system.dtype} can resolve; take at least "
                f"{smallest:.1g}, or float64"
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
        step = _Stepper(system, PAIRS[self.method], self.rtol, self.atol, state.flat)
        save = SavePoints(recorder.times)
        h, error_before = step.initial_size(duration), 1e-4
        time, accepted, rejected, grow_at_most = 0.0, 0, 0, 10.0
        order = step.pair.order
        moments = save.at(0.0, 0.0)
        for moment in moments:
            recorder.record(moment, step.x)
        stop = until is not None and until(0.0, step.x.activity, velocity(system, step.slopes[0]))
        while not stop and time < duration:
            last = time + h >= duration * (1 - 1e-12)
            h = duration - time if last else h
            if h <= 16 * np.spacing(time) or not math.isfinite(h):
                self._give_up(system, step, time)
            error = step.attempt(h)
            if not error <= 1:
                rejected += 1
                h *= max(0.2, 0.9 * error ** (-1 / order)) if math.isfinite(error) else 0.1
                grow_at_most = 1.0
                continue
            accepted += 1
            then = duration if last else time + h
            if not system.seems_finite(step.y):
                self._refuse(system, step, then)
            inside = save.before(then, 1e-12 * duration)
            if inside:
                step.interpolate([(moment - time) / h for moment in inside], inside, h, recorder)
            step.accept()
            moments = save.at(then, 1e-12 * duration)
            for moment in moments:
                recorder.record(moment, step.x)
            if progress is not None:
                progress.update(then - time)
            time = then
            if until is not None:
                system.settle(step.x)
                stop = until(time, step.x.activity, velocity(system, step.slopes[0]))
            error = max(error, 1e-10)
            growth = 0.9 * error ** (-0.85 / order) * error_before ** (0.2 / order)
            h *= min(grow_at_most, max(0.2, growth))
            error_before, grow_at_most = max(error, 1e-4), 10.0
        if stop and not moments:
            recorder.record(time, step.x)
        state.flat.copy_(step.x.flat)
        return self.report(
            step.slopes[0], until, time=time, evaluations=step.evaluations, accepted=accepted, rejected=rejected
        )

    def _refuse(self, system: System, step: _Stepper, time: float) -> None:
        """Raise if a population is not finite at the end of a step whose error is: one that no other reads."""
        bad = system.first_bad(step.y)
        if bad is not None:
            raise DivergenceError(f"population {bad} became non-finite at time {time:g}, with {self!r}", time, bad)

    def _give_up(self, system: System, step: _Stepper, time: float) -> None:
        system.field(step.x, step.slopes[0])
        bad, speed = fastest(system, step.slopes[0])
        raise DivergenceError(
            f"population {bad} grows without bound at time {time:g}, where its |dx/dt| is {speed:.3g}: the step of "
            f"{self!r} shrank to nothing there; check the couplings' gains and time constants",
            time,
            bad,
        )


class _Stepper:
    """The state x, the slopes k_i of the step under way as rows of one matrix, and the candidate y for its end."""

    def __init__(self, system: System, pair: Pair, rtol: float, atol: float, start: Tensor) -> None:
        self.system, self.pair, self.rtol, self.atol = system, pair, rtol, atol
        self.x, self.y = system.new_state(start.clone()), system.new_state()
        self._matrix = torch.empty(len(pair.b), system.size, dtype=system.dtype, device=system.device)
        self.slopes = [system.new_state(row) for row in self._matrix]
        self._rows = [self._tensor(row) for row in pair.a]
        self._error = self._tensor(pair.error)
        self._scale, self._work = torch.empty_like(start), torch.empty_like(start)
        self.evaluations = 0
        self._evaluate(self.x, self.slopes[0])

    def _tensor(self, values: tuple[float, ...] | NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=self.system.dtype, device=self.system.device)

    def _evaluate(self, x: State, out: State) -> None:
        self.system.field(x, out)
        self.evaluations += 1

    def _norm(self, vector: Tensor) -> float:
        return float(torch.linalg.vector_norm(vector)) / math.sqrt(max(1, vector.numel()))

    def initial_size(self, duration: float) -> float:
        """Guess the first step from the size of x, F and its change (Hairer et al., §II.4)."""
        scale = self.atol + self.rtol * self.x.flat.abs()
        slope = self.slopes[0].flat
        d0, d1 = self._norm(self.x.flat / scale), self._norm(slope / scale)
        h = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
        h = min(h, duration)
        torch.add(self.x.flat, slope, alpha=h, out=self.y.flat)
        self._evaluate(self.y, self.slopes[-1])
        d2 = self._norm((self.slopes[-1].flat - slope) / scale) / h
        steepest = max(d1, d2)
        second = max(1e-6, h * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1 / self.pair.order)
        first = min(100 * h, second, duration)
        return first if math.isfinite(first) else min(1e-6, duration)

    def attempt(self, h: float) -> float:
        """Take a step of size h from x to the candidate y, and return its scaled error."""
        for i in range(1, len(self.slopes)):
            torch.addmv(self.x.flat, self._matrix[:i].t(), self._rows[i], alpha=h, out=self.y.flat)
            self._evaluate(self.y, self.slopes[i])
        torch.maximum(torch.abs(self.x.flat, out=self._scale), torch.abs(self.y.flat, out=self._work), out=self._scale)
        self._scale.mul_(self.rtol).add_(self.atol)
        torch.mv(self._matrix.t(), self._error, out=self._work)
        return h * self._norm(self._work.div_(self._scale))

    def accept(self) -> None:
        """Make the candidate the state; its slope, the last stage, is the first of the next step."""
        self.x, self.y = self.y, self.x
        self.slopes[0].flat.copy_(self.slopes[-1].flat)

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        """Record the dense output at x + h Σ b_i(θ) k_i, before the step is accepted."""
        powers = np.power.outer(np.asarray(thetas), np.arange(1, self.pair.dense.shape[1] + 1))
        between = self.system.new_state()
        for weights, moment in zip(powers @ self.pair.dense.T, moments, strict=True):
            torch.addmv(self.x.flat, self._matrix.t(), self._tensor(weights), alpha=h, out=between.flat)
            recorder.record(moment, between)
