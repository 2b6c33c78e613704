"""Lyapunov exponents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.analysis.linearised import DECLARE_WITHOUT
from neurodyn.checks import flag, not_negative, positive, whole
from neurodyn.errors import InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.drives import Noisy
from neurodyn.network.network import Network
from neurodyn.network.signals import Signal
from neurodyn.progress import Bar
from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.base import Solver, Unrecorded
from neurodyn.solvers.choice import check_solver
from neurodyn.solvers.rows import Rows
from neurodyn.system.binding import bound
from neurodyn.system.bound import check_network
from neurodyn.system.continued import Starts
from neurodyn.system.driven import Placed
from neurodyn.system.inputs import Inputs, Targets, inputs_by_name

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

    Beside each trajectory run `count` others, a tiny distance apart; in float32, where it is less tiny, as many more on
    the other side. After each interval their deviations D = Q R are made orthonormal anew; λ_i is the mean of log R_ii
    over time (Benettin).

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
        system.refuse_delays("a Lyapunov exponent", DECLARE_WITHOUT)
        system.timeline.check_span((before + rounds) * interval)
        origin, samples = system.timeline.origin, system.samples
        state = system.initial_state()
        copies = 1 + count * len(_sides(state.flat.dtype))
        start = {name: state.activity[name].repeat(copies, *[1] * len(system.shapes[name])) for name in system.dynamic}
        signals = system.plan.batch.given.signals
    repeated = {
        name: _repeated(given, signals.get(name), copies) for name, given in inputs_by_name(network, inputs).items()
    }
    wanted = _repeated(targets, signals.get(""), copies)
    with bound(network, repeated, wanted, initial=start) as system:
        rows = Rows(system)
        x = rows.of(system.initial_state())[:samples]
        if x.shape[1] < count:
            raise InvalidValueError(f"count: a sample has {x.shape[1]} dynamic units, and so many exponents at most")
        if solver is None:
            rtol = 1e-9 if x.dtype == torch.float64 else 1e-5
            solver = Adaptive("dopri5", rtol=rtol, atol=0.1 * rtol)
        solver.check(system)
        generator = torch.Generator().manual_seed(0)
        first = torch.randn(x.shape[1], count, generator=generator, device="cpu", dtype=torch.float64)
        basis = torch.linalg.qr(first)[0].to(x).expand(samples, -1, -1)
        logs = np.zeros((before + rounds, samples, count))
        for place in Bar(range(before + rounds), wanted=progress, unit="interval", desc=network.name):
            system.timeline.origin = origin + place * interval
            x, basis, logs[place] = _parted(rows, solver, x, basis, interval)
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


def _parted(
    rows: Rows, solver: Solver, x: Tensor, basis: Tensor, interval: float
) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """Run for a while from trajectories x and, in directions beside each, others a tiny distance apart.

    Return where they end, shape (sample, unit), the directions made orthonormal anew, (sample, unit, mode), and
    log R_ii, (sample, mode).
    """
    state, apart, sides = rows.system.new_state(), torch.finfo(x.dtype).eps ** 0.5, _sides(x.dtype)
    size = apart * x.abs().amax().clamp_min(1.0)
    directions = size * basis.permute(2, 0, 1)
    rows.write(torch.cat([x, *(x + side * beside for side in sides for beside in directions)]), state)
    solver.integrate(rows.system, state, interval, Unrecorded())
    x, *others = torch.split(rows.of(state), len(x))
    ends = torch.stack(others, 2).chunk(len(sides), 2)
    deviations = ends[0] - x[:, :, None] if len(ends) == 1 else (ends[0] - ends[1]) / 2
    basis, triangle = torch.linalg.qr(deviations / size)
    growth = triangle.diagonal(dim1=1, dim2=2).abs().double().cpu().numpy()
    if growth.max() * apart > _FARTHEST or growth.min() < _CLOSEST * apart:
        raise InvalidValueError(
            f"interval: within {interval:g}, deviations grow by factors from {growth.min():.2g} to {growth.max():.2g}, "
            f"beyond what {x.dtype} resolves; take a shorter one"
        )
    return x, basis, np.log(growth)


def _sides(dtype: torch.dtype) -> tuple[float, ...]:
    """Return on which sides of a trajectory others run: on both where one would count its curvature, too."""
    return (1.0,) if dtype == torch.float64 else (1.0, -1.0)


def _repeated(given: Any, signal: Placed | None, copies: int) -> Any:
    """Repeat what is given for each sample, a tensor or a signal, so many times."""
    if isinstance(given, Tensor):
        return given.repeat(copies, *[1] * (given.ndim - 1))
    if signal is None or signal.samples is None:
        return given
    course, units = signal.course, [1] * len(signal.shape)
    if isinstance(course, Signal):
        return Signal(course.times, course.values.repeat(1, copies, *units), course.interpolation)
    return lambda time: course.at(time).repeat(copies, *units)
