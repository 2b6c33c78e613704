"""The front door: simulate a network in time, or take it to its equilibrium."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from neurodyn.checks import positive
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.network import Network
from neurodyn.simulation.trajectory import TrajectoryRecorder, dataset, run_attributes, to_numpy
from neurodyn.simulation.watched import Watched
from neurodyn.solvers import Adaptive, Exact, Solver, Stabilized, steady
from neurodyn.solvers.base import Until
from neurodyn.solvers.equilibrium import to_equilibrium
from neurodyn.system.bound import Inputs
from neurodyn.system.stacking import together
from neurodyn.system.system import System

SaveAt = int | Literal["steps"] | ArrayLike | None


@torch.no_grad()
def simulate(
    network: Network | Sequence[Network],
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    duration: float,
    solver: Solver | None = None,
    save_at: SaveAt = None,
    record: Iterable[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    initial: Mapping[str, Tensor] | None = None,
    until: Until | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Integrate a network in time and return its trajectory.

    Parameters
    ----------
    network
        The declaration; or several that differ in weights, gains, leaks and time constants alone, such as those of
        several seeds or values of γ. These run at once, stacked, each with the same data, up to what the solver's
        tolerance allows as each would alone.
    inputs
        Shape (sample, units) or (sample, channel, row, column); a mapping by population where several are clamped to
        inputs; None where none is.
    targets
        Shape (sample, units), where the network needs or allows them.
    duration
        How long, in units of time.
    solver
        By default what suits the network's structure: `Exact()` for a linear one, where nothing asks for steps;
        `Stabilized()` for a gradient flow, or, where that has kinks, `Adaptive("heun_euler")` with its tolerances;
        `Adaptive()` otherwise.
    save_at
        A number of evenly spaced points, an array of times, or "steps"; by default every step of a solver of fixed
        step, and 101 points otherwise.
    record
        The populations and observables to record; by default all populations but those clamped to the inputs.
    store
        A Zarr store (`….zarr`) to stream the trajectory of one network to, in chunks, so that memory stays bounded.
    initial
        Where populations start instead of where the declaration says, by name.
    until
        A condition `until(time, activity, velocity)` that ends the run early, e.g. `steady(1e-6)`; activity and
        velocity (dx/dt) are mappings by population, to be read alone. The state at the end is always recorded.
    progress
        Whether to show a bar, on a terminal.

    Returns
    -------
    xarray.Dataset
        One variable a population, with dimensions `time`, `sample` and the population's own, after a dimension
        `network` where there are several; the attributes tell what ran and how it went (evaluations, steps, residual,
        converged).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it and what would be right.
    DivergenceError
        If the activity becomes non-finite.
    """
    if isinstance(network, Sequence):
        if store is not None:
            raise InvalidValueError(
                "store: several networks run at once in memory alone; leave store out, or run one by one"
            )
        with together(network, inputs, targets, initial) as (stacked, repeated, wanted, starts):
            run = simulate(
                stacked,
                repeated,
                wanted,
                duration=duration,
                solver=solver,
                save_at=save_at,
                record=record,
                initial=starts,
                until=until,
                progress=progress,
            )
        return _apart(run, network)
    positive("duration", duration)
    if solver is not None and not isinstance(solver, Solver):
        raise InvalidTypeError(f"solver must be a solver such as Euler(0.1), not {type(solver).__name__}")
    if until is not None and not callable(until):
        raise InvalidTypeError(f"until must be a condition such as steady(1e-6), not {type(until).__name__}")
    system = System(network, inputs, targets, initial=initial)
    names = _recorded(network, record)
    system.look_at(names)
    if solver is None:
        solver = _suitable(system, steps=until is not None or isinstance(save_at, str))
    times = _save_times(save_at, duration, solver)
    solver.check(system)
    steps = solver.steps_in(duration)
    expected = len(times) if times is not None else None if steps is None else steps + 1
    recorder = TrajectoryRecorder(system, names, times, expected, None if store is None else Path(store))
    bar = tqdm(total=duration, unit="τ", desc=network.name, disable=None if progress else True)
    try:
        with bar:
            report = solver.integrate(
                system,
                system.initial_state(),
                duration,
                recorder,
                until=until if until is None or isinstance(until, steady) else Watched(until),
                progress=_WithinTotal(bar) if progress else None,
            )
        return recorder.finish(run_attributes(system, report))
    except BaseException:
        recorder.discard()
        raise


@torch.no_grad()
def equilibrium(
    network: Network | Sequence[Network],
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    record: Iterable[str] | None = None,
    initial: Mapping[str, Tensor] | None = None,
    tolerance: float | None = None,
    max_duration: float = 1000.0,
) -> xr.Dataset:
    """Take a network to its equilibrium dx/dt = 0 and return the activity there.

    An acyclic network takes one sweep, each population in the order of its dependencies, which is exact. A cyclic one
    takes accelerated fixed-point iterations, or, where these do not contract, relaxes until max |dx/dt| is within the
    tolerance.

    Parameters
    ----------
    network, inputs, targets, record, initial
        As for `simulate`.
    tolerance
        The residual max |dx/dt| to reach, in units of activity per unit of time; by default the square root of the
        dtype's machine epsilon.
    max_duration
        How long to relax at most, in units of time.

    Returns
    -------
    xarray.Dataset
        As of `simulate`, without the dimension `time`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the network has no equilibrium.
    DivergenceError
        If the relaxation grows without bound.

    Warns
    -----
    RuntimeWarning
        If the relaxation has not converged within `max_duration`.
    """
    if isinstance(network, Sequence):
        with together(network, inputs, targets, initial) as (stacked, repeated, wanted, starts):
            found = equilibrium(
                stacked, repeated, wanted, record=record, initial=starts, tolerance=tolerance, max_duration=max_duration
            )
        return _apart(found, network)
    positive("max_duration", max_duration)
    system = System(network, inputs, targets, initial=initial)
    names = _recorded(network, record)
    system.look_at(names)
    state, report = to_equilibrium(system, steady(tolerance), max_duration)
    values = {name: to_numpy(system.read(name, state)).copy() for name in names}
    return dataset(system, values, attributes=run_attributes(system, report))


def _apart(run: xr.Dataset, networks: Sequence[Network]) -> xr.Dataset:
    """Give a run of stacked networks a dimension `network`."""
    samples = run.sizes["sample"] // len(networks)
    own = run["sample"][:samples]
    members = [
        run.isel(sample=slice(first, first + samples)).assign_coords(sample=own)
        for first in range(0, run.sizes["sample"], samples)
    ]
    places = xr.DataArray(np.arange(len(networks)), dims="network", name="network")
    apart = xr.concat(members, places.assign_attrs(units="1", long_name="network"), coords="minimal", join="exact")
    for name, variable in apart.data_vars.items():
        for number in ("tau", "leak"):
            values = {getattr(network[str(name)], number) for network in networks if number in variable.attrs}
            variable.attrs.pop(number, None)
            if len(values) == 1:
                variable.attrs[number] = values.pop()
    equations = dict.fromkeys(network.equations() for network in networks)
    return apart.assign_attrs(run.attrs, equations="\n\n".join(equations))


def _suitable(system: System, *, steps: bool) -> Solver:
    if system.structure.linear and not steps:
        return Exact()
    if not system.structure.gradient_flow:
        return Adaptive()
    if system.structure.smooth:
        return Stabilized()
    # Where F jumps, the error of the jump decides on the step, which more stages do not make longer.
    return Adaptive("heun_euler", rtol=Stabilized.rtol, atol=Stabilized.atol)


class _WithinTotal:
    """A bar that does not run over where steps do: by rounding, or those of a solver that steps beyond the end."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, n: float) -> None:
        self._bar.update(min(n, self._bar.total - self._bar.n))


def _recorded(network: Network, record: Iterable[str] | None) -> list[str]:
    if record is None:
        return [p.name for p in network.populations if p.name not in network.inputs]
    if not isinstance(record, Iterable):
        raise InvalidTypeError(f"record must be names of populations, not {type(record).__name__}")
    names = [record] if isinstance(record, str) else list(record)
    known = [*(p.name for p in network.populations), *network.observables]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidValueError(
            f"record: there is no population or observable {unknown[0]!r} in network {network.name!r}; there are "
            f"{', '.join(known)}"
        )
    if not names:
        raise InvalidValueError("record: name at least one population, or leave it out to record all")
    return list(dict.fromkeys(names))


def _save_times(save_at: SaveAt, duration: float, solver: Solver) -> NDArray[np.float64] | None:
    if save_at is None:
        save_at = 101 if solver.steps_in(duration) is None else "steps"
    if isinstance(save_at, str):
        if save_at != "steps":
            raise InvalidValueError(f"save_at is a number of points, an array of times, or 'steps', not {save_at!r}")
        return None
    if isinstance(save_at, (int, np.integer)) and not isinstance(save_at, bool):
        if save_at < 2:
            raise InvalidValueError(f"save_at: at least 2 points (the start and the end), not {save_at}")
        return np.linspace(0.0, duration, int(save_at))
    try:
        times = np.asarray(save_at.cpu() if isinstance(save_at, Tensor) else save_at, dtype=np.float64)
    except ValueError as error:
        raise InvalidValueError(f"save_at is a number of points, an array of times, or 'steps': {error}") from error
    if times.ndim != 1 or len(times) == 0:
        raise InvalidValueError(
            f"save_at: an array of times has one axis and at least one time, not the shape {times.shape}"
        )
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise InvalidValueError("save_at: the times must be finite and increase")
    if times[0] < 0 or times[-1] > duration * (1 + 1e-6):
        raise InvalidValueError(
            f"save_at: the times must lie within the run [0, {duration:g}], and span [{times[0]:g}, {times[-1]:g}]"
        )
    # A time computed as n · h, or in single precision, may exceed the end by rounding.
    return np.unique(np.minimum(times, duration))
