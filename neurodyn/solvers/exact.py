"""The closed form of linear systems: of the flow, and of its Euler iterates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurodyn.checks import positive
from neurodyn.errors import DivergenceError, InvalidValueError
from neurodyn.solvers.base import Progress, Recorder, Report, Solver, Unrecorded, Until
from neurodyn.solvers.krylov import krylov
from neurodyn.solvers.nilpotent import nilpotent
from neurodyn.solvers.pieces import along_signals, refused_signals
from neurodyn.solvers.steps import parts_of
from neurodyn.system.state import State
from neurodyn.system.system import System


@dataclass(frozen=True)
class Exact(Solver):
    """The closed form of a linear system dx/dt = A x + b, at any number of save points.

    Where the network is acyclic and its populations share one rate λ = leak/τ, A = −λ + N with N nilpotent: Nᴸ = 0 for
    L populations in a row. The deviation e = x − x* from the equilibrium then is, for every time t, and after every n
    Euler steps of size h::

        e(t) = e^{−λt} Σ_{k<L} t^k / k! N^k e(0)
        e_n  = Σ_{k<L} C(n, k) (1 − hλ)^{n−k} h^k N^k e(0)

    so that a whole trajectory costs the powers N^k e(0) and no steps; the coefficients are worked out in logarithms.
    A population takes all powers of those that it reads in one product. Of more than 64 populations, powers are left
    out where that changes no population, of no sample, at no time, by more than half the precision of the largest of
    what is added up there: with bounds s_qp ≥ ‖N_qp‖₂ on the couplings, N^k e of population p takes part in population
    q by at most Σ_j |c_{k+j}(t)| (Sʲ)_qp ‖N^k e_p‖.

    Other linear systems take the exponential of A on a Krylov space. Under signals that are piecewise constant or
    piecewise linear, in the state too, the closed form holds from one of their times to the next: of the powers where
    there are some; elsewhere, if all samples share a matrix A of a few thousand units at most, by its exponential for
    lengths of time that recur, and its Taylor series, on the states alone, for others.

    Parameters
    ----------
    euler_step
        The step h of the Euler iterates; None for the flow itself.

    Raises
    ------
    ValueError
        If the step is not positive.

    References
    ----------
    M. Hochbruck, C. Lubich, SIAM J. Numer. Anal. 34 (1997), for the Krylov exponential.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=1.0, solver=nd.Exact(), save_at=2)
    >>> round(float(run.x[-1].item()), 4)
    0.3679
    """

    euler_step: float | None = None

    def __post_init__(self) -> None:
        if self.euler_step is not None:
            object.__setattr__(self, "euler_step", positive("euler_step of Exact", self.euler_step))

    def steps_in(self, duration: float) -> int | None:
        if self.euler_step is None:
            return None
        steps = round(parts_of(duration, self.euler_step))
        if steps < 1 or abs(steps * self.euler_step - duration) > 1e-6 * self.euler_step:
            raise InvalidValueError(
                f"duration: {duration:g} is no whole number of Euler steps of {self.euler_step:g}, "
                f"and {max(1, steps) * self.euler_step:g} is"
            )
        return steps

    def check(self, system: System) -> None:
        system.refuse_loops("a closed form")
        system.refuse_bounds("a closed form", "use Adaptive()")
        if not system.structure.linear:
            raise InvalidValueError(
                f"solver: network {system.network.name!r} is not linear, so it has no closed form; use Adaptive()"
            )
        refused = refused_signals(system)
        if self.euler_step is not None and system.timeline.driven:
            refused = "Euler iterates have a closed form under data that stand still alone; use Euler(step)"
        if refused is not None:
            raise InvalidValueError(f"solver: {refused}")

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
        if until is not None:
            raise InvalidValueError(
                "until: a closed form takes no steps at which to stop; use Adaptive() or Euler(step)"
            )
        moments = self.moments(duration, recorder.times)
        slope = system.new_state()
        if system.timeline.driven:
            evaluations = along_signals(system, state, slope, moments, duration, recorder)
        elif system.structure.rate is not None:
            evaluations = nilpotent(system, state, slope, moments, duration, self.euler_step, recorder)
        else:
            evaluations = krylov(system, state, moments, duration, self.euler_step, recorder)
            system.field(state, slope)
        self._check_end(system, state, duration)
        if progress is not None:
            progress.update(duration)
        return self.report(system, slope, None, time=duration, evaluations=evaluations, accepted=0)

    def advance(self, system: System, state: State, duration: float, *, progress: Progress | None = None) -> int:
        if system.timeline.driven or system.structure.rate is None:
            return super().advance(system, state, duration, progress=progress)
        self.steps_in(duration)  # of which there has to be a whole number
        evaluations = nilpotent(system, state, None, np.empty(0), duration, self.euler_step, Unrecorded())
        self._check_end(system, state, duration)
        return evaluations

    def _check_end(self, system: System, state: State, duration: float) -> None:
        bad = None if system.seems_finite(state) else system.first_bad(state)
        if bad is not None:
            end = system.timeline.origin + duration
            raise DivergenceError(f"population {bad} is not finite at time {end:g}, with {self!r}", end, bad)

    def moments(self, duration: float, times: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return when to save, given the times asked for, or None for all iterates.

        Raises
        ------
        ValueError
            If there are no iterates, or times are between them.
        """
        if self.euler_step is None:
            if times is None:
                raise InvalidValueError(
                    "save_at: the closed form takes no steps; give a number of points or an array of times"
                )
            return times
        if times is None:
            iterates: NDArray[np.float64] = self.euler_step * np.arange(1.0 + (self.steps_in(duration) or 0))
            return iterates
        nearest = np.rint(times / self.euler_step) * self.euler_step
        if np.abs(nearest - times).max(initial=0.0) > 1e-6 * self.euler_step:
            raise InvalidValueError(
                f"save_at: Euler iterates exist at multiples of their step {self.euler_step:g} alone"
            )
        return times
