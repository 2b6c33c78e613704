"""Lyapunov exponents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.analysis.linearised import DECLARE_WITHOUT
from neurodyn.checks import flag, not_negative, positive, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.drives import Noisy
from neurodyn.network.network import Network
from neurodyn.network.signals import Signal, as_course
from neurodyn.progress import Bar
from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.base import Solver, Unrecorded
from neurodyn.solvers.choice import check_solver
from neurodyn.solvers.rows import Rows
from neurodyn.system.binding import bound
from neurodyn.system.bound import check_network
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets

_FARTHEST = 0.01
"""How far deviations may grow, relative to the activity, and still be small."""
_CLOSEST = 100.0
"""How many times rounding, relative to their size, they have to remain."""


@torch.no_grad()
def lyapunov(
    network: Network,
    inputs: Inputs = None,
    targets: Targets = None,
    *,
    duration: float,
    count: int = 1,
    transient: float = 0.0,
    interval: float = 1.0,
    solver: Solver | None = None,
    initial: Starts | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Return the largest Lyapunov exponents, the mean rates at which nearby trajectories part.

    Beside each trajectory run `count` others, a tiny distance apart. After each interval their deviations
    D = Q R are made orthonormal anew; λ_i is the mean of log R_ii over time (Benettin).

    Parameters
    ----------
    network, inputs, targets, initial
        As for `nd.simulate`, of one network; without noise.
    duration
        Over which to average, in units of time.
    count
        How many exponents.
    transient
        How long to run before, for the trajectory and the deviations to settle.
    interval
        How long deviations grow before they are made orthonormal; short beside 1/λ.
    solver
        By default `Adaptive` with tight tolerances; all trajectories take the same steps.
    progress
        As for `nd.simulate`.

    Returns
    -------
    xarray.Dataset
        `exponent`, over `sample` and `mode`, the largest first; and `running`, the average up to each `time`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    DivergenceError
        If the activity becomes non-finite.

    References
    ----------
    G. Benettin et al., Meccanica 15 (1980); K. Geist, U. Parlitz, W. Lauterborn, Prog. Theor. Phys. 83 (1990).

    Examples
    --------
    >>> import neurodyn as nd
    >>> decay = nd.Network("decay", [nd.Population("x", 1, tau=2.0, initial=1.0)])
    >>> round(nd.analysis.lyapunov(decay, duration=5.0).exponent.item(), 3)
    -0.5
    """
    check_network(network)
    duration, interval = positive("duration", duration), positive("interval", interval)
    transient, count = not_negative("transient", transient), whole("count", count, least=1)
    if solver is not None:
        check_solver(solver)
    if progress is not None:
        flag("progress", progress)
    rounds, before = max(1, round(duration / interval)), round(transient / interval)
    if abs(rounds * interval - duration) > 1e-9 * duration or abs(before * interval - transient) > 1e-9 * interval:
        raise InvalidValueError(
            f"interval: duration and transient are whole numbers of it, and {duration:g} and {transient:g} are not "
            f"of {interval:g}"
        )
    for population in network.populations:
        if population.noisy or isinstance(population.clamp, Noisy):
            raise InvalidValueError(f"population {population.name} has noise, and Lyapunov exponents take none")
    with bound(network, inputs, targets, initial=initial) as system:
        if not system.dynamic:
            raise InvalidValueError(f"network {network.name!r} has no dynamic population, so nothing parts")
        system.refuse_delays("Lyapunov exponents", DECLARE_WITHOUT)
        system.timeline.check_span((before + rounds) * interval)
        origin, samples = system.timeline.origin, system.samples
        state = system.initial_state()
        start = {
            name: state.activity[name].repeat(count + 1, *[1] * len(system.shapes[name])) for name in system.dynamic
        }
    repeated = [_repeated(what, given, count + 1) for what, given in (("inputs", inputs), ("targets", targets))]
    with bound(network, *repeated, initial=start) as system:
        rows = Rows(system)
        x = rows.of(system.initial_state())
        if x.shape[1] < count:
            raise InvalidValueError(f"count: a sample has {x.shape[1]} dynamic units, and so many exponents at most")
        if solver is None:
            rtol = 1e-9 if x.dtype == torch.float64 else 1e-5
            solver = Adaptive("dopri5", rtol=rtol, atol=0.1 * rtol)
        solver.check(system)
        parting = _Parting(rows, solver, samples, count)
        logs = np.zeros((before + rounds, samples, count))
        for place in Bar(range(before + rounds), wanted=progress, unit="interval", desc=network.name):
            system.timeline.origin = origin + place * interval
            x, logs[place] = parting.over(x, interval)
        system.timeline.origin = origin
    logs = logs[before:]
    times = interval * np.arange(1, rounds + 1)
    running = logs.cumsum(0) / times[:, None, None]
    order = {"units": "1/tau", "long_name": "Lyapunov exponent"}
    return xr.Dataset(
        {
            "exponent": (("sample", "mode"), running[-1], order),
            "running": (("time", "sample", "mode"), running, {**order, "long_name": "Lyapunov exponent up to a time"}),
        },
        {"time": ("time", times, {"units": "tau", "long_name": "time"})},
        {"network": network.name, "equations": network.equations(), "solver": repr(solver)},
    )


class _Parting:
    """Trajectories that part from others, and are brought back beside them.

    Parameters
    ----------
    rows, solver
        Of the system, whose samples are those of the trajectories, and then of each of the others.
    samples, count
        How many trajectories there are, and others beside each.
    """

    def __init__(self, rows: Rows, solver: Solver, samples: int, count: int) -> None:
        self._rows, self._solver, self._samples = rows, solver, samples
        self._state = rows.system.new_state()
        tau = rows.tau
        self._apart = torch.finfo(tau.dtype).eps ** 0.5
        generator = torch.Generator().manual_seed(0)
        first = torch.randn(tau.shape[-1], count, generator=generator, device="cpu", dtype=torch.float64)
        self._basis = torch.linalg.qr(first)[0].to(tau).expand(samples, -1, -1)

    def over(self, x: Tensor, interval: float) -> tuple[Tensor, NDArray[np.float64]]:
        """Run for a while from x, shape (copy · sample, unit); return where it ends, and log R_ii, (sample, mode)."""
        base = x[: self._samples]
        size = self._apart * base.abs().amax().clamp_min(1.0)
        self._rows.write(torch.cat([base, *(base + size * self._basis.permute(2, 0, 1))]), self._state)
        self._solver.integrate(self._rows.system, self._state, interval, Unrecorded())
        x = self._rows.of(self._state)
        base, *others = torch.split(x, self._samples)
        self._basis, triangle = torch.linalg.qr((torch.stack(others, 2) - base[:, :, None]) / size)
        growth = triangle.diagonal(dim1=1, dim2=2).abs().double().cpu().numpy()
        if growth.max() * self._apart > _FARTHEST or growth.min() < _CLOSEST * self._apart:
            raise InvalidValueError(
                f"interval: within {interval:g}, deviations grow by factors from {growth.min():.2g} to "
                f"{growth.max():.2g}, beyond what {x.dtype} resolves; take a shorter one"
            )
        return x, np.log(growth)


def _repeated(what: str, given: Any, copies: int) -> Any:
    """Repeat what is given for each sample, so many times."""
    if isinstance(given, Mapping):
        return {name: _repeated(f"{what} of population {name}", value, copies) for name, value in given.items()}
    if isinstance(given, Tensor):
        return given.repeat(copies, *[1] * (given.ndim - 1))
    course = None if given is None else as_course(what, given)
    if isinstance(course, Signal) and course.values.ndim > 2:
        raise InvalidTypeError(f"{what}: signals of each sample's own; take one sample at a time, values (time, unit)")
    return given
