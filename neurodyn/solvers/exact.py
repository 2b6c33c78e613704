"""The closed form of linear systems: of the flow, and of its Euler iterates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import positive
from neurodyn.errors import DivergenceError, InvalidValueError
from neurodyn.solvers.base import Progress, Recorder, Report, Solver, Until
from neurodyn.solvers.krylov import krylov
from neurodyn.solvers.linear import LinearPart
from neurodyn.solvers.pieces import along_signals, refused_signals
from neurodyn.system.system import State, System

_SHORT = 16
"""Up to how many populations the powers of the coupling stay within single precision without scaling."""


@dataclass(frozen=True)
class Exact(Solver):
    """The closed form of a linear system dx/dt = A x + b, at any number of save points.

    Where the network is acyclic and its populations share one rate λ = leak/τ, A = −λ + N with N nilpotent: Nᴸ = 0 for
    L populations in a row. The deviation e = x − x* from the equilibrium then is, for every time t, and after every n
    Euler steps of size h::

        e(t) = e^{−λt} Σ_{k<L} t^k / k! N^k e(0)
        e_n  = Σ_{k<L} C(n, k) (1 − hλ)^{n−k} h^k N^k e(0)

    so that a whole trajectory costs the powers N^k e(0) and no steps; the coefficients are worked out in logarithms.
    Other linear systems take the exponential of A on a Krylov space. Under signals that are piecewise constant or
    piecewise linear, in the state too, either holds from one of their times to the next.

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
        steps = round(duration / self.euler_step)
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
        refused = refused_signals(system) if self.euler_step is None else _refused_iterates(system)
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
        if system.driven:
            evaluations = along_signals(system, state, slope, moments, duration, recorder)
        elif system.structure.rate is not None:
            evaluations = _nilpotent(system, state, slope, moments, duration, self.euler_step, recorder)
        else:
            evaluations = krylov(system, state, moments, duration, self.euler_step, recorder)
            system.field(state, slope)
        bad = None if system.seems_finite(state) else system.first_bad(state)
        if bad is not None:
            end = system.origin + duration
            raise DivergenceError(f"population {bad} is not finite at time {end:g}, with {self!r}", end, bad)
        if progress is not None:
            progress.update(duration)
        return self.report(system, slope, None, time=duration, evaluations=evaluations, accepted=0)

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
        iterates: NDArray[np.float64] = self.euler_step * np.arange(1.0 + (self.steps_in(duration) or 0))
        if times is None:
            return iterates
        self._check_iterates("save_at", times)
        return times

    def _check_iterates(self, what: str, times: NDArray[np.float64]) -> None:
        if self.euler_step is not None:
            nearest = np.rint(times / self.euler_step) * self.euler_step
            if np.abs(nearest - times).max(initial=0.0) > 1e-6 * self.euler_step:
                raise InvalidValueError(
                    f"{what}: Euler iterates exist at multiples of their step {self.euler_step:g} alone"
                )


def _refused_iterates(system: System) -> str | None:
    if not system.driven:
        return None
    return "Euler iterates have a closed form under data that stand still alone; use Euler(step)"


def _nilpotent(
    system: System,
    state: State,
    slope: State,
    moments: NDArray[np.float64],
    duration: float,
    step: float | None,
    recorder: Recorder,
) -> int:
    """Record the closed form of an acyclic system of one rate λ, leave the end in `state`, and count evaluations.

    F at the end, a combination of the same powers, goes into `slope`.
    """
    rate = system.structure.rate
    assert rate is not None, "integrate comes here only with a common rate"
    rows, scales = _powers(system, state, rate)
    # Without a leak there is no equilibrium: x(t) = x(0) + Σ_k t^(k+1) / (k+1)! N^k F(x(0)) takes its place.
    first = 0 if rate > 0 else 1

    def weights(times: NDArray[np.float64]) -> NDArray[np.float64]:
        logs, signs = coefficients(times, np.arange(first, first + len(scales)), rate, step)
        with np.errstate(over="ignore"):
            return np.concatenate([np.ones((len(times), 1)), signs * np.exp(logs + scales)], axis=1)

    def tensor(table: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(table, dtype=system.dtype, device=system.device)

    if len(moments):
        recorder.combine(moments, tensor(weights(moments)), rows)
    # F(x) = −λ e + N e, or without a leak F(x(0)) + N (x − x(0)): each power becomes the next one.
    end = weights(np.array([duration]))[0]
    change = -rate * end
    change[0], change[1] = 0.0, change[1] + (rate == 0)
    change[2:] += end[1:-1] * np.exp(np.diff(scales))
    torch.mv(rows.t(), tensor(end), out=state.flat)
    torch.mv(rows.t(), tensor(change), out=slope.flat)
    return len(scales)


def _powers(system: System, state: State, rate: float) -> tuple[Tensor, NDArray[np.float64]]:
    """Return x* and N^k e(0), or without a leak x(0) and N^k F(x(0)), as rows, and the logarithms of their scales.

    In a deep network each power is scaled to a largest entry of 1, so that it neither overflows nor vanishes.
    """
    rows = torch.empty(len(system.dynamic) + 2, system.size, dtype=system.dtype, device=system.device)
    fixed, power = system.new_state(rows[0]), system.new_state(rows[1])
    if rate > 0:
        system.sweep(fixed)
        torch.sub(state.flat, fixed.flat, out=power.flat)
    else:
        fixed.flat.copy_(state.flat)
        system.field(state, power)
    scale = torch.zeros((), dtype=torch.float64, device=system.device)
    scales: list[Tensor] = []
    coupling = LinearPart(system)
    moving = set(system.dynamic)
    while moving:
        if len(system.dynamic) > _SHORT:
            largest = power.flat.abs().amax().clamp_min(torch.finfo(system.dtype).tiny)
            power.flat.div_(largest)
            scale = scale + largest.double().log()
        scales.append(scale)
        moving, reached = coupling.readers(moving), moving
        if moving:
            after = system.new_state(rows[len(scales) + 1])
            coupling.apply(power, after, reached)
            power = after
    return rows[: len(scales) + 1], torch.stack(scales).cpu().numpy()


def coefficients(
    times: NDArray[np.float64], k: NDArray[np.int64], rate: float, step: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log |c_k(t)| and the sign of c_k(t), shape (time, k) both."""
    from scipy.special import gammaln  # here, because it takes long to import

    with np.errstate(divide="ignore", invalid="ignore"):
        if step is None:
            t = times[:, None]
            flow: NDArray[np.float64] = np.where(k == 0, 0.0, k * np.log(t)) - rate * t - gammaln(k + 1)
            return flow, np.ones(flow.shape)
        n: NDArray[np.float64] = np.rint(times / step)[:, None]
        keep = 1.0 - step * rate
        left = np.maximum(n - k, 0.0)
        logs: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(left + 1) + k * np.log(step)
        logs += np.where(left == 0, 0.0, left * np.log(np.abs(keep)))
        logs[k > n] = -np.inf
        signs: NDArray[np.float64] = np.where(left % 2 == 0, 1.0, np.sign(keep))
        return logs, signs
