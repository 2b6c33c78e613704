"""What every solver takes and returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import positive
from neurodyn.errors import InvalidTypeError
from neurodyn.layers.repeated import steered
from neurodyn.network.maps import Activity
from neurodyn.system.state import State
from neurodyn.system.system import System

Until = Callable[[float, Activity, Activity], bool]
"""A stop condition: a function of the time, every population's activity, and dx/dt of the dynamic populations."""


@dataclass(frozen=True)
class Report:
    """What happened in a run.

    Parameters
    ----------
    solver
        The solver and its settings.
    evaluations
        Evaluations of the vector field that the steps took (the one for the residual at the end is not counted).
    accepted, rejected
        Steps.
    residual
        max |τ dx/dt| over units and samples at the end, in units of activity.
    converged
        Whether the residual is within the tolerance of `steady`, or of the stop condition where that is one.
    time
        Where the run ended.
    reason
        Why it was this solver.
    stable
        For an equilibrium, whether no small perturbation was found that grows there; None otherwise.
    """

    solver: str
    evaluations: int
    accepted: int
    rejected: int
    residual: float
    converged: bool
    time: float
    reason: str = ""
    stable: bool | None = None


class Velocity(dict[str, Tensor]):
    """dx/dt of each dynamic population by name, which knows their time constants.

    Parameters
    ----------
    velocity
        dx/dt, shape (sample, …), by population.
    tau
        The time constants τ; of stacked networks, those of each sample.
    """

    def __init__(self, velocity: Mapping[str, Tensor], tau: Mapping[str, float | Tensor]) -> None:
        super().__init__(velocity)
        self.tau = tau

    def below(self, bound: float, samples: Tensor | None = None) -> bool:
        """Tell whether max |τ dx/dt| ≤ bound over all units and samples, or those that count, shape (sample,).

        A device is waited for once.
        """
        if samples is None:
            largest = self.largest()
        else:
            slowed = [(v * self.tau[name]).flatten(1).abs().amax(1) for name, v in self.items()]
            largest = torch.stack(slowed).masked_fill(~samples, 0.0)
        return bool((largest <= bound).all())

    def largest(self) -> Tensor:
        """Return max |τ dx/dt| over all units and samples of each population, shape (population,)."""
        # PyTorch's maximum norm takes up to eight times as long.
        return torch.stack([(v * self.tau[name]).abs_().amax() for name, v in self.items()])


@dataclass(frozen=True)
class steady:
    """The stop condition max |τ dx/dt| ≤ tolerance, over all units and samples.

    With τ the population's time constant, so that slow populations are not taken for resting ones. The condition bounds
    how fast the activity still moves, not how far it has to go: where the slowest mode decays at a rate of μ/τ, the
    equilibrium may still be tolerance/μ away.

    Parameters
    ----------
    tolerance
        In units of activity; None takes the square root of the dtype's machine epsilon.

    Raises
    ------
    TypeError
        If the velocity that it is given, in a condition of one's own, is not the one that the run hands out.
    ValueError
        If the tolerance is not positive.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=100.0, solver=nd.Euler(0.5), until=nd.steady(0.01))
    >>> float(run.time[-1]), run.attrs["converged"]
    (3.5, 1)
    """

    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", positive("tolerance of steady", self.tolerance))

    def bound(self, dtype: torch.dtype) -> float:
        """Return the tolerance for activity of a dtype."""
        return self.tolerance if self.tolerance is not None else math.sqrt(torch.finfo(dtype).eps)

    def __call__(self, time: float, activity: Activity, velocity: Activity) -> bool:
        """Tell whether the run may stop."""
        if not isinstance(velocity, Velocity):
            raise InvalidTypeError(
                "steady judges τ dx/dt, and a plain mapping has no time constants: hand it the velocity as the run does"
            )
        return velocity.below(self.bound(next(iter(velocity.values())).dtype))


Kept = Mapping[str, Any]
"""Where a run stands between two steps: tensors, numbers, text and containers of them, all copies."""


Write = Callable[[slice, slice, Tensor], object]
"""Writes the states at some of several times, and a part of each flat state, into a tensor, shape (time, number)."""


def products(weights: Tensor, rows: Tensor) -> Write:
    """Return what writes weights @ rows; weights (time, row), and rows (row, n) of flat states."""
    return lambda some, place, out: torch.mm(weights[some], rows[:, place], out=out)


def copies(states: Tensor) -> Write:
    """Return what writes flat states, shape (time, n)."""
    return lambda some, place, out: out.copy_(states[some, place])


class Recorder(Protocol):
    """Where a solver puts what is to be saved."""

    times: NDArray[np.float64] | None
    """The times to save at, increasing; None for every step, the initial state included."""
    resumed: Kept | None = None
    """Where an interrupted run stood that is to go on, as the same solver kept it; None for one from the start."""

    @property
    def due(self) -> bool:
        """Whether the solver is to `keep` where it stands, before its next step; one that cannot need not."""
        return False

    def keep(self, kept: Kept) -> None:
        """Take where the run stands, after what has been recorded so far."""
        return

    def record(self, time: float, state: State, *, settled: bool = False) -> None:
        """Save a state; `settled` if the instantaneous populations are already at their activity there."""
        return

    def fill(self, times: NDArray[np.float64], write: Write, starts: NDArray[np.float64] | None = None) -> None:
        """Save the states at several times, in steps that start at times of `starts`, where signals drive them."""
        return


class Unrecorded(Recorder):
    """A recorder that saves nothing, for a run of which only the end is wanted."""

    times: NDArray[np.float64] | None = np.empty(0)


class Progress(Protocol):
    """A progress bar, over simulated time or steps."""

    def update(self, n: float) -> object:
        """Move on by `n`."""


class Solver(ABC):
    """An integrator of dx/dt = F(x). Subclasses are frozen dataclasses of their settings.

    Examples
    --------
    >>> import neurodyn as nd
    >>> isinstance(nd.Euler(0.1), nd.Solver)
    True
    >>> nd.Euler(0.1).steps_in(1.0)
    10
    """

    takes_noise: ClassVar[bool] = False
    """Whether it integrates populations with noise."""
    takes_delays: ClassVar[bool] = False
    """Whether it integrates couplings with delays, of which it extends the `past` of the system."""

    @abstractmethod
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
        """Integrate from `state` over `duration`, and leave `state` at the end.

        Parameters
        ----------
        system
            F: `system.field(state, slope, time)` writes dx/dt into `slope`, which `system.new_state()` makes.
        state
            Where the run starts, changed in place: `state.flat` is the activity of all dynamic populations, of which
            `system.blocks` tells whose is where.
        duration
            How long, in units of time.
        recorder
            Takes a state for each of its `times`, in order; where they are None, for the start and each step's end.
        until
            The stop condition, to be asked after each step; a solver that cannot stop refuses one.
        progress
            To be moved on by what has been integrated.

        Returns
        -------
        Report
            What `self.report` makes of the slope at the end.

        Raises
        ------
        DivergenceError
            If the state becomes non-finite.
        """

    def advance(self, system: System, state: State, duration: float, *, progress: Progress | None = None) -> int:
        """Integrate from `state` over `duration`, leave `state` at the end, and return the evaluations alone.

        Raises
        ------
        DivergenceError
            If the state becomes non-finite.
        """
        steered()
        return self.integrate(system, state, duration, Unrecorded(), progress=progress).evaluations

    def report(
        self,
        system: System,
        slope: State,
        until: Until | None,
        *,
        time: float,
        evaluations: int,
        accepted: int,
        rejected: int = 0,
    ) -> Report:
        """Say what happened in a run, given the slope at its end."""
        remaining = residual(system, slope)
        converged = remaining <= tolerance_of(until, slope.flat.dtype)
        return Report(repr(self), evaluations, accepted, rejected, remaining, converged, time)

    def steps_in(self, duration: float) -> int | None:
        """Return the number of steps that a run takes, or None where the solver finds it as it goes."""
        return None

    def check(self, system: System) -> None:
        """Warn about or refuse settings that do not suit a system, before a run."""
        return


def refuse_delays(system: System, solver: Solver) -> None:
    """Refuse a solver that takes no delays, for a system that has some."""
    if not solver.takes_delays:
        system.refuse_delays(f"the solver {solver!r}", "give nd.Adaptive(), or one of fixed step such as nd.RK4(step)")


def in_pieces(
    ends: NDArray[np.float64], moments: NDArray[np.float64], most: int = 1
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the ends of so many pieces of time in a row, and the moments in them; that of an end is the next one's."""
    for first in range(0, len(ends) - 1, most):
        own = ends[first : first + most + 1]
        until = np.inf if own[-1] == ends[-1] else own[-1]
        yield own, moments[slice(*np.searchsorted(moments, [own[0], until]))]


class SavePoints:
    """The save times still to come in a run, taken off as the run passes them.

    Parameters
    ----------
    times
        Increasing times, or None for every step.
    """

    def __init__(self, times: NDArray[np.float64] | None) -> None:
        self._times = times
        self._next = 0

    @property
    def next(self) -> float:
        """The earliest time still to come; that of the next step, whenever it is, where every step is saved."""
        if self._times is None:
            return -math.inf
        return float(self._times[self._next]) if self._next < len(self._times) else math.inf

    def before(self, time: float, tolerance: float) -> list[float]:
        """Take off and return the times earlier than `time` by more than the tolerance."""
        return self._take(time - tolerance)

    def at(self, time: float, tolerance: float) -> list[float]:
        """Take off and return the times equal to `time` within the tolerance; `time` itself if every step is saved."""
        return [time] if self._times is None else self._take(time + tolerance)

    def _take(self, limit: float) -> list[float]:
        if self._times is None or limit < self.next:
            return []
        end = int(np.searchsorted(self._times, limit, side="right"))
        taken: list[float] = self._times[self._next : end].tolist()
        self._next = max(self._next, end)
        return taken


def velocity(system: System, out: State) -> Velocity:
    """Return dx/dt of each dynamic population, views of `out`."""
    tau = {name: system.network[name].tau / system.pace(name) for name in system.dynamic}
    return Velocity({name: out.activity[name] for name in system.dynamic}, tau)


def residual(system: System, out: State) -> float:
    """Return max |τ dx/dt| over units and samples, given dx/dt; 0 for a system without dynamic populations."""
    return float(velocity(system, out).largest().max()) if system.dynamic else 0.0


def fastest(system: System, out: State) -> tuple[str, float]:
    """Name the dynamic population whose max |dx/dt| is the largest, or the first whose is not a number, and say it."""
    speeds = {name: float(out.activity[name].abs().max()) for name in system.dynamic}
    name = max(speeds, key=lambda name: math.inf if math.isnan(speeds[name]) else speeds[name])
    return name, speeds[name]


def tolerance_of(until: Until | None, dtype: torch.dtype) -> float:
    """Return the residual under which a run counts as converged."""
    return (until if isinstance(until, steady) else steady()).bound(dtype)


def hermite(a: Tensor, slope_a: Tensor, b: Tensor, slope_b: Tensor, *, h: float, theta: float, out: Tensor) -> None:
    """Write the cubic Hermite interpolant at a + θh into `out`, between the states a and b that are h apart."""
    torch.lerp(a, b, theta * theta * (3 - 2 * theta), out=out)
    out.add_(slope_a, alpha=h * theta * (1 - theta) ** 2).sub_(slope_b, alpha=h * theta**2 * (1 - theta))
