"""Explicit Runge–Kutta methods of a fixed step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import flag, positive
from neurodyn.errors import DivergenceError, InvalidTypeError, InvalidValueError
from neurodyn.network.network import Network
from neurodyn.solvers.base import (
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
from neurodyn.system.system import State, System

_STEPS_BETWEEN_CHECKS = 64
"""How many steps run before one looks whether the state is still finite; a look would otherwise stall a GPU."""
_STEPS_COMPILED = 20
"""How many steps are compiled into one function."""


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
    """

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
        if not isinstance(self.compile, bool):
            raise InvalidTypeError(f"compile of {type(self).__name__} is True or False, not {self.compile!r}")

    def stability_limit(self, system: System) -> float | None:
        """Return the largest stable step, where the network's structure tells it."""
        bound = system.structure.spectral_bound
        return self.tableau.real_stability / bound if bound else None

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
        taken = checked = 0
        compiled = self.compile
        if compiled:
            self._check_compilable(recorder.times, duration, until)
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
            if taken - checked >= _STEPS_BETWEEN_CHECKS or taken == steps or stop:
                if not system.seems_finite(state):
                    self._locate_divergence(system, state, rewind, range(checked, taken + 1), steps, duration)
                rewind.copy_(state.flat)
                checked = taken
            if stop or taken == steps:
                break
            if compiled and taken + _STEPS_COMPILED < min(steps, (save.next - tolerance) / self.step):
                compiled = self._advance_compiled(system, state, slopes, work)
                if compiled:
                    taken, inside = taken + _STEPS_COMPILED, []
                    if progress is not None:
                        progress.update(_STEPS_COMPILED * self.step)
                    continue
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
        return self.report(system, slopes[0], until, time=time, evaluations=taken * len(slopes), accepted=taken)

    def _check_compilable(self, times: NDArray[np.float64] | None, duration: float, until: Until | None) -> None:
        """Refuse a run in which no steps can be taken at once."""
        if until is not None:
            why = "until is asked after every step; leave one of the two out"
        elif times is None:
            why = "every step is saved; save fewer, e.g. save_at=[duration]"
        else:
            ends = np.concatenate([[0.0], times, [duration]])
            steps = math.floor(np.diff(ends).max() / self.step + 1e-9)
            if steps > _STEPS_COMPILED:
                return
            why = f"at most {steps} steps lie between what is saved; save fewer, or leave compile out"
        raise InvalidValueError(f"compile: it joins {_STEPS_COMPILED} steps into one function, and {why}")

    def _time(self, step: int, steps: int, duration: float) -> float:
        return duration if step == steps else step * self.step

    def _advance(self, system: System, state: State, slopes: list[State], work: State, h: float) -> None:
        """Take one step from `state`, whose slope stands in slopes[0]."""
        for row, slope in zip(self.tableau.a[1:], slopes[1:], strict=True):
            earlier = zip(row, slopes[: len(row)], strict=True)
            work.combine(state, [(h * weight, its) for weight, its in earlier])
            system.field(work, slope)
        state.combine(state, [(h * weight, slope) for weight, slope in zip(self.tableau.b, slopes, strict=True)])

    def _advance_compiled(self, system: System, state: State, slopes: list[State], work: State) -> bool:
        """Take several steps at once from `state`, whose slope stands in slopes[0]; False where that is impossible."""
        try:
            _compiled_steps(system.network)(self, system, state, slopes, work)
        except Exception as error:  # whatever the compiler raises
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                f"compile: network {system.network.name!r} cannot be compiled, and runs as it is ({reason})",
                RuntimeWarning,
                stacklevel=5,
            )
            return False
        return True

    def _locate_divergence(
        self, system: System, state: State, rewind: Tensor, taken: range, steps: int, duration: float
    ) -> None:
        """Repeat the last steps one by one and raise at the first that is not finite; return if none is.

        The sum that sounded the alarm may have overflowed alone.
        """
        if system.first_bad(state) is None:
            return
        again, work = system.new_state(rewind.clone()), system.new_state()
        slopes = [system.new_state() for _ in self.tableau.b]
        for step in taken:
            system.field(again, slopes[0])
            bad = system.first_bad(again)
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
            h = self._time(step + 1, steps, duration) - self._time(step, steps, duration)
            self._advance(system, again, slopes, work, h)


def _several_steps(solver: FixedStep, system: System, state: State, slopes: list[State], work: State) -> None:
    for _ in range(_STEPS_COMPILED - 1):
        solver._advance(system, state, slopes, work, solver.step)
        system.field(state, slopes[0])
    solver._advance(system, state, slopes, work, solver.step)


_COMPILED: WeakKeyDictionary[Network, Callable[..., None]] = WeakKeyDictionary()


def _compiled_steps(network: Network) -> Callable[..., None]:
    """Return `_several_steps`, compiled for a network.

    Each network has a code object of its own, because PyTorch keeps but a few compilations of one.
    """
    if network not in _COMPILED:
        own = FunctionType(_several_steps.__code__.replace(), globals())
        # PyTorch 2.8 would bring a reader forward, to before a step has written in place what it reads.
        _COMPILED[network] = torch.compile(own, fullgraph=True, dynamic=False, options={"reorder_for_locality": False})
    return _COMPILED[network]


@dataclass(frozen=True)
class Euler(FixedStep):
    """The explicit Euler method, order 1: x ← x + h F(x)."""

    tableau: Tableau = field(default=EULER, init=False, repr=False)


@dataclass(frozen=True)
class Heun(FixedStep):
    """Heun's method, order 2: x ← x + h/2 (F(x) + F(x + h F(x)))."""

    tableau: Tableau = field(default=HEUN, init=False, repr=False)


@dataclass(frozen=True)
class RK4(FixedStep):
    """The classical Runge–Kutta method, order 4."""

    tableau: Tableau = field(default=RK4_TABLEAU, init=False, repr=False)
