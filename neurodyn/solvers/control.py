"""Step control by an estimate of the error, for any method that gives one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neurodyn.checks import positive
from neurodyn.errors import DivergenceError, InvalidValueError
from neurodyn.layers.kernels import ScaledNorm
from neurodyn.solvers.base import Progress, Recorder, Report, SavePoints, Solver, Until, fastest, hermite, velocity
from neurodyn.system.state import State
from neurodyn.system.system import System


def row_weights(
    fixed: Sequence[Sequence[float]], by_h: Sequence[Sequence[float]], like: Tensor
) -> Callable[[float], Sequence[Tensor]]:
    """Return the function of h that gives the weights w + h v of rows side by side, given w and v of several sums.

    The weights are like a tensor, in dtype and device.
    """
    sizes = [len(row) for row in fixed]
    w, v = (like.new_tensor([*chain(*rows)]) for rows in (fixed, by_h))
    return lambda h: torch.add(w, v, alpha=h).split_with_sizes(sizes)


class Stepper(ABC):
    """One method's steps: the state x with its slope, and the candidate y for the end of the step under way.

    All states are rows of one matrix, so that a sum of them is one product; F(y) and y are the last two.

    Parameters
    ----------
    system
        The system.
    rtol, atol
        The relative tolerance, and the absolute one in units of activity.
    start
        The state to start from, shape (n,).
    count
        How many rows there are.
    first
        The row of x; F(x) is in the next one.
    """

    carried: ClassVar[tuple[str, ...]] = ("x", "slope", "_error_before", "evaluations", "time")
    """What the next step depends on."""
    error_order: int
    """The power of the step with which the error estimate shrinks."""
    finite: bool
    """Whether the candidate is finite."""

    def __init__(self, system: System, rtol: float, atol: float, start: Tensor, *, count: int, first: int = 0) -> None:
        self.system, self.rtol, self.atol = system, rtol, atol
        self._matrix = torch.empty(count, system.size, dtype=system.dtype, device=system.device)
        self.rows = [system.new_state(row) for row in self._matrix]
        self.x, self.slope = self.rows[first : first + 2]
        self.slope_after, self.y = self.rows[-2:]
        self.x.flat.copy_(start)
        self._error, self._scaled = torch.empty_like(start), ScaledNorm(start, atol / rtol)
        self._error_before = 1e-4
        self.evaluations = 0
        self.time = 0.0
        """The time at x."""
        system.timeline.enter(0.0)
        self.evaluate(self.x, self.slope)

    def evaluate(self, x: State, out: State, after: float = 0.0) -> None:
        """Write F(x) into `out`, so long after the step has begun, and count."""
        self.system.field(x, out, self.time + after)
        self.evaluations += 1

    def columns(self, start: int, stop: int) -> Tensor:
        """Return some rows side by side, shape (n, stop − start)."""
        return self._matrix[start:stop].t()

    def _norm(self, vector: Tensor) -> float:
        return float(torch.linalg.vector_norm(vector)) / math.sqrt(max(1, vector.numel()))

    def initial_size(self, duration: float) -> float:
        """Guess the first step from the size of x, F and its change (Hairer et al., §II.4)."""
        scale = self.atol + self.rtol * self.x.flat.abs()
        slope = self.slope.flat
        d0, d1 = self._norm(self.x.flat / scale), self._norm(slope / scale)
        if not math.isfinite(d1):
            return min(1e-6, duration)
        h = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
        h = min(h, duration)
        d2 = self._norm(self.acceleration(h) / scale)
        steepest = max(d1, d2) if math.isfinite(d2) else d1
        second = max(1e-6, h * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1 / self.error_order)
        first = min(100 * h, second, duration)
        return first if math.isfinite(first) else min(1e-6, duration)

    def acceleration(self, h: float) -> Tensor:
        """Return dF/dt at the start, shape (n,), from a difference over a time h."""
        torch.add(self.x.flat, self.slope.flat, alpha=h, out=self.y.flat)
        self.evaluate(self.y, self.slope_after, h)
        return (self.slope_after.flat - self.slope.flat).div_(h)

    def scaled_error(self) -> float:
        """Return ‖e / (atol + rtol · max(|x|, |y|))‖ in the root mean square, and look whether y is finite.

        A step waits for the device here alone, but where it estimates a spectral radius first.
        """
        self.error(self._error)
        norm, finite = self._scaled(self._error, self.x.flat, self.y.flat, self.system.instant)
        # the squares may have overflowed alone
        self.finite = finite or self.system.first_bad(self.y) is None
        return norm / (math.sqrt(max(1, self.x.flat.numel())) * self.rtol)

    @abstractmethod
    def error(self, out: Tensor) -> None:
        """Write the estimate of the step's error, shape (n,), into `out`."""

    def growth(self, h: float, error: float) -> float:
        """Return by which factor the next step differs from an accepted one of size h, given its scaled error.

        The controller is proportional–integral (Hairer et al., §IV.2).
        """
        before, self._error_before = self._error_before, max(error, 1e-4)
        return float(0.9 * error ** (-0.85 / self.error_order) * before ** (0.2 / self.error_order))

    def is_negligible(self, h: float) -> bool:
        """Tell whether a step of size h changes no activity by more than a little above its precision."""
        little = 100 * torch.finfo(self.x.flat.dtype).eps * self.x.flat.abs()
        return bool((h * self.slope.flat.abs() <= little).all())

    @abstractmethod
    def attempt(self, h: float) -> float:
        """Take a step of size h from x to the candidate y, with its slope, and return its scaled error."""

    @property
    def motion(self) -> State:
        """dx/dt at x, which is F(x) but where that is not followed."""
        return self.slope

    def accept(self) -> None:
        """Make the candidate, and its slope, the state."""
        self.x.flat.copy_(self.y.flat)
        self.slope.flat.copy_(self.slope_after.flat)

    def kept(self) -> dict[str, Any]:
        """Return copies of what the next step depends on."""
        own = ((name, getattr(self, name)) for name in self.carried)
        plain = ((name, each.flat if isinstance(each, State) else each) for name, each in own)
        return {name: each.clone() if isinstance(each, Tensor) else each for name, each in plain}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `kept` returned."""
        for name in self.carried:
            own, value = getattr(self, name), kept[name]
            if isinstance(own, State):
                own.flat.copy_(value)
            else:
                setattr(self, name, value.to(self.system.device) if isinstance(value, Tensor) else value)

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        """Record the dense output at the fractions θ of the step from x to y, before it is accepted.

        That of a method which has none of its own is the cubic Hermite interpolant.
        """
        between, ends = self.system.new_state(), (self.x, self.slope, self.y, self.slope_after)
        for theta, moment in zip(thetas, moments, strict=True):
            hermite(*(each.flat for each in ends), h=h, theta=theta, out=between.flat)
            recorder.record(moment, between)

    def remember(self, then: float, h: float) -> None:
        """Extend the past of a system with delays by the step from x to y at `then`, before it is accepted."""
        raise NotImplementedError(f"{type(self).__name__} takes no delays")


class ErrorControlled(Solver):
    """A method with step control.

    A step is accepted where ‖e / (atol + rtol · max(|x|, |x'|))‖ ≤ 1, in the root mean square over all units and
    samples, with e the estimate of its error.
    """

    rtol: float
    atol: float

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            object.__setattr__(self, name, positive(f"{name} of {type(self).__name__}", getattr(self, name)))

    def check(self, system: System) -> None:
        smallest = 4 * torch.finfo(system.dtype).eps
        if self.rtol < smallest:
            raise InvalidValueError(
                f"rtol of {type(self).__name__}: {self.rtol:g} is below what {system.dtype} can resolve; take at least "
                f"{smallest:.1g}, or give data of torch.float64"
            )

    @abstractmethod
    def stepper(self, system: System, start: Tensor) -> Stepper:
        """Return the method's steps from a flat state."""

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
        step = self.stepper(system, state.flat)
        save = SavePoints(recorder.times)
        longest = min(system.echoes.delays, default=math.inf)  # or else a step would read its own end
        order = step.error_order
        ends = [*system.timeline.ends(duration, order).tolist(), duration]
        jumps = system.timeline.jumps(duration).tolist()
        tolerance = 1e-12 * duration
        moments: list[float] = []
        stop = False
        if recorder.resumed is None:
            h = step.initial_size(min(duration, longest))
            time, accepted, rejected, grow_at_most = 0.0, 0, 0, 10.0
            moments = save.at(0.0, 0.0)
            for moment in moments:
                recorder.record(moment, step.x)
            if until is not None:
                system.settle(step.x, 0.0)
                stop = until(0.0, step.x.activity, velocity(system, step.motion))
        else:
            kept = recorder.resumed
            h, time, accepted, rejected, grow_at_most = kept["control"]
            ends, jumps = ([moment for moment in each if moment > time] for each in (ends, jumps))
            save.at(time, tolerance)  # up to where all is saved
            step.load(kept["step"])
            system.load(kept["system"])
            if progress is not None:
                progress.update(time)
        while not stop and time < duration:
            if recorder.due:
                control = (h, time, accepted, rejected, grow_at_most)
                recorder.keep({"control": control, "step": step.kept(), "system": system.kept()})
            h = min(h, longest)
            end, full = ends[0], h
            last = time + h >= end * (1 - 1e-12)
            h = end - time if last else h
            if h <= 16 * np.spacing(time) or not math.isfinite(h):
                self._give_up(system, step, time)
            error = step.attempt(h)
            if not error <= 1:
                rejected += 1
                if not math.isfinite(error) and step.is_negligible(h):
                    self._give_up(system, step, time)
                h *= max(0.2, 0.9 * error ** (-1 / order)) if math.isfinite(error) else 0.1
                grow_at_most = 1.0
                continue
            accepted += 1
            then = end if last else time + h
            if not step.finite:
                self._refuse(system, step, then)
            inside = save.before(then, tolerance)
            if inside:
                step.interpolate([(moment - time) / h for moment in inside], inside, h, recorder)
            if system.echoes:
                step.remember(then, h)
            step.accept()
            step.time = then
            if last and len(ends) > 1:
                ends.pop(0)
                if jumps and jumps[0] <= then:
                    jumps = [jump for jump in jumps if jump > then]
                    system.timeline.enter(then)
                    step.evaluate(step.x, step.slope)
            moments = save.at(then, tolerance)
            for moment in moments:
                recorder.record(moment, step.x)
            if progress is not None:
                progress.update(then - time)
            time = then
            if until is not None:
                system.settle(step.x, time)
                stop = until(time, step.x.activity, velocity(system, step.motion))
            h *= min(grow_at_most, max(0.2, step.growth(h, max(error, 1e-10))))
            h = max(h, full) if last and end < duration else h  # a step that a jump cut short tells little
            grow_at_most = 10.0
        if stop and not moments:
            recorder.record(time, step.x)
        state.flat.copy_(step.x.flat)
        return self.report(
            system, step.motion, until, time=time, evaluations=step.evaluations, accepted=accepted, rejected=rejected
        )

    def _refuse(self, system: System, step: Stepper, time: float) -> None:
        """Raise if a population is not finite at the end of a step whose error is: one that no other reads."""
        bad, time = system.first_bad(step.y), system.timeline.origin + time
        if bad is not None:
            raise DivergenceError(f"population {bad} became non-finite at time {time:g}, with {self!r}", time, bad)

    def _give_up(self, system: System, step: Stepper, time: float) -> None:
        system.field(step.x, step.slope, time)
        (bad, speed), time = fastest(system, step.slope), system.timeline.origin + time
        raise DivergenceError(
            f"population {bad} grows without bound at time {time:g}, where its |dx/dt| is {speed:.3g}: the step of "
            f"{self!r} shrank to nothing there; check the couplings' gains and time constants",
            time,
            bad,
        )
