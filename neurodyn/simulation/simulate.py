"""The front door: simulate a network in time, or take it to its equilibrium."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from neurodyn.checks import file_path, flag, needed, positive
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.network import Network
from neurodyn.progress import Bar, Late
from neurodyn.randomness import drawing_from, seeded
from neurodyn.simulation.apart import apart
from neurodyn.simulation.chosen import Record, chosen_of, recorded_names
from neurodyn.simulation.fingerprint import UNTIL, of_run
from neurodyn.simulation.inference import refuse_to_set_aside
from neurodyn.simulation.memory import refuse_too_large
from neurodyn.simulation.save_at import SaveAt, save_times
from neurodyn.simulation.seeds import take_seed
from neurodyn.simulation.trajectory import TrajectoryRecorder, dataset, row_bytes, run_attributes, to_numpy
from neurodyn.simulation.watched import Lasting, Watched
from neurodyn.solvers import Solver, steady
from neurodyn.solvers.base import Until, refuse_delays
from neurodyn.solvers.choice import check_solver, for_trajectory
from neurodyn.solvers.equilibrium import to_equilibrium
from neurodyn.solvers.fixed import FixedStep
from neurodyn.system.binding import bound
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets, refuse_gradients
from neurodyn.system.noise import Seed, entropy_of, seed_text
from neurodyn.system.stacking import together
from neurodyn.system.system import System

if TYPE_CHECKING:
    from neurodyn.simulation.stream import ZarrStream


@torch.no_grad()
def simulate(
    network: Network | Sequence[Network],
    inputs: Inputs,
    targets: Targets = None,
    *,
    duration: float,
    solver: Solver | None = None,
    save_at: SaveAt = None,
    record: Record = None,
    reduce: Mapping[str, Literal["mean", "std", "min", "max"]] | None = None,
    store: str | os.PathLike[str] | None = None,
    resume: bool = False,
    initial: Starts | None = None,
    until: Until | None = None,
    progress: bool | None = None,
    seed: Seed = None,
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
        inputs; None where none is. What varies in time is a `Signal`; an `xarray.DataArray` with a dimension `time`,
        such as a variable of a run, interpolated linearly, and of dimensions `sample` and the population's own, if it
        has them, read by their names and labels; or a smooth function of the time, a float, that returns a number, or
        a tensor of shape (unit,) or (sample, unit). Stacked networks share it, unless a DataArray has a dimension
        `network`.
    targets
        Likewise, shape (sample, units), where the network needs or allows them.
    duration
        How long, in units of time.
    solver
        By default what suits the network's structure: `Exact` for a linear one, where nothing asks for steps;
        `Stabilized` for a gradient flow, or, where that has kinks, `Sliding` or `Adaptive("heun_euler")`; `Adaptive`
        otherwise; with tolerances that aim at an error of 1e-3 of the trajectory's scale, as far as the dtype resolves
        it. It was up to 8e-3 in predictive coding with weights twice as large and targets ten times as far as usual,
        and is larger where neighbouring trajectories part, as in chaos, or after very many periods of an oscillation:
        there, a solver with a smaller `rtol` tells. The attributes `solver` and `solver_reason` say which, and why.
    save_at
        A number of evenly spaced points, an array of times, or "steps"; by default every step of a solver of fixed
        step, and 101 points otherwise.
    record
        The populations and observables to record; by default all populations but those clamped to the inputs. Or a
        mapping from their names to the numbers of the units to keep, {"x1": [0, 5, 7], "x2": None}; None for all.
    reduce
        What to keep of the samples of a population, "mean", "std", "min" or "max", by name, so that neither memory nor
        `store` has to hold each of them; of stacked networks, those of each.
    store
        A Zarr store (`….zarr`) to stream the trajectory to, in chunks, so that memory stays bounded. A run that is
        interrupted leaves what it has written under a hidden name beside it.
    resume
        Whether to go on from there: from the last part that was written, 8 MiB of whole chunks at most, to the same
        bits as an unbroken run. Without one to go on from, the run begins; where the store is complete, it is
        returned. Without `resume`, a run begins anew. Network, data and settings have to be those of the interrupted
        run, but for `until`, which is asked from there on, and `progress`; `seed=None` is the state of PyTorch's
        generator as that run began. Closed forms, and solvers that do not `keep` where they stand, compute again what
        has been written, and write the rest.
    initial
        Where populations start instead of where the declaration says, by name, shape (sample, …) or that of a sample;
        without inputs, this tells how many samples there are. Or one moment of a run, such as `run.isel(time=-1)`, to
        go on from there: the times of this run follow, those of `save_at` too, and signals are read at them.
    until
        A condition `until(time, activity, velocity)` that ends the run early, e.g. `steady(1e-6)`; activity and
        velocity (dx/dt) are mappings by population, to be read alone; `steady` judges τ dx/dt. The state at the end is
        always recorded. With delays, `steady` has to hold for as long as the longest of them.
    progress
        Whether to show a bar, or in a log file a line every ten seconds, of a run over two seconds; by default on a
        terminal only.
    seed
        Of the noise: an integer ≥ 0, so that sample k draws from the seed and k; or one for each sample. Stacked
        networks share the paths, unless it has the shape (network, sample). `Noisy` drives draw from it, too. By
        default PyTorch's global random state gives one; the attribute `seed` says which. A path is a function of the
        absolute time: neither the batch, nor save points, nor where a run was interrupted changes it, and half the
        step refines it.

    Returns
    -------
    xarray.Dataset
        One variable a population, with dimensions `time`, `sample` and the population's own, after a dimension
        `network` where there are several; the attributes tell what ran and how it went: `solver`, `solver_reason`,
        `evaluations`, steps, `residual` (max |τ dx/dt| at the end, in units of activity) and `converged` (1 if that is
        within the tolerance of `until`, or of `steady()`).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it and what would be right.
        Or if the store to resume is of another run; the message says in what they differ.
    FileExistsError
        If the store exists, but to `resume`; is something else; or is being written by another run.
    OSError
        If the store cannot be written; what has been written is kept, to `resume`.
    MemoryError
        If memory cannot hold the trajectory.
    DivergenceError
        If the activity becomes non-finite.

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, tau=2.0, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=2.0, save_at=3)
    >>> run.x.values.ravel().astype(float).round(3).tolist()
    [1.0, 0.607, 0.368]
    >>> run.attrs["solver"]
    'Exact(euler_step=None)'
    """
    refuse_gradients(inputs, targets, initial)
    if flag("resume", resume) and store is None:
        raise InvalidValueError("resume: a run goes on from what it has streamed; give store=, or leave resume out")
    duration = positive("duration", duration)
    if solver is not None:
        check_solver(solver)
    if until is not None and not callable(until):
        raise InvalidTypeError(f"until must be a condition such as steady(1e-6), not {type(until).__name__}")
    path = None if store is None else file_path("store", store)
    if progress is not None:
        flag("progress", progress)
    members = list(network) if isinstance(network, Sequence) else None
    with nullcontext() if path is None else _streaming(path, resume=resume) as stream:
        with ExitStack() as stack:
            if isinstance(network, Sequence):
                one, given, wanted, starts = stack.enter_context(together(network, inputs, targets, initial))
            else:
                one, given, wanted, starts = network, inputs, targets, initial
            with _numbers(seed, stream):  # from which Noisy drives draw
                system = stack.enter_context(bound(one, given, wanted, initial=starts))
                drawn = take_seed(system, seed, solver)
            chosen = chosen_of(system, record, reduce, members=1 if members is None else len(members))
            system.look_at(chosen)
            system.timeline.check_span(duration)
            reason = "as given"
            if solver is None:
                for each in (network,) if isinstance(network, Network) else network:
                    refuse_to_set_aside(each, "simulate without solver=")
                choice = for_trajectory(system, steps=until is not None or isinstance(save_at, str))
                solver, reason = choice.solver, choice.reason
            times = save_times(save_at, duration, solver, system.timeline.origin)
            refuse_delays(system, solver)
            solver.check(system)
            steps = solver.steps_in(duration)
            expected = len(times) if times is not None else None if steps is None else steps + 1
            if times is None and expected is not None:
                expected += len(
                    system.timeline.cuts(duration, solver.tableau.order) if isinstance(solver, FixedStep) else ()
                )
            if until is not None:
                expected = None  # it may end long before
            if stream is not None:
                data: dict[str, object] = {"inputs": inputs, "targets": targets, "initial": initial, "seed": seed}
                data |= {"solver": solver, "save_at": times, UNTIL: until}
                what = {name: (each.units, each.reduction) for name, each in chosen.items()}
                settings = {"duration": duration, "what is recorded": what}
                stream.refuse_other(of_run(network, data, settings, system.new_state().flat))
                if stream.complete:
                    return _in_order(stream.close({}), members)
            watched = _watched(until, system)
            recorder = TrajectoryRecorder(system, chosen, times, expected, stream, solver, watched, members)
            bar = Bar(total=duration, unit="τ", desc=system.network.name, wanted=progress)
            with bar:
                report = solver.integrate(
                    system,
                    system.initial_state(),
                    duration,
                    recorder,
                    until=watched,
                    progress=None if bar.disable else bar,
                )
            attributes = run_attributes(system, replace(report, reason=reason))
        run = recorder.finish(attributes if drawn is None else {**attributes, "seed": seed_text(drawn)})
    return _in_order(run, members)


@torch.no_grad()
def equilibrium(
    network: Network | Sequence[Network],
    inputs: Inputs,
    targets: Targets = None,
    *,
    record: Iterable[str] | None = None,
    initial: Starts | None = None,
    tolerance: float | None = None,
    max_duration: float = 1000.0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Take a network to the equilibrium dx/dt = 0 that its dynamics reach from their start, and return the activity.

    An acyclic network takes one sweep, each population in the order of its dependencies, which is exact. In a cyclic
    one accelerated iterations propose an equilibrium, from the start where the structure suggests it, or from where a
    relaxation in time has come. It is taken, sample by sample, if F is nearly linear from there to it and no small
    perturbation of it grows, so that the dynamics end there; otherwise the relaxation goes on. Where F jumps at units'
    kinks, dx/dt is that of Filippov's solution, in which units may rest there, as `Sliding` follows it.

    Parameters
    ----------
    network, inputs, targets, record, initial
        As for `simulate`.
    tolerance
        The residual max |τ dx/dt| to reach, in units of activity; by default the square root of the dtype's machine
        epsilon. Where the slowest mode decays at a rate of μ/τ, the activity may still be tolerance/μ away.
    max_duration
        How long to relax at most, in units of the slowest population's time constant τ.
    progress
        As for `simulate`; how long it has relaxed.

    Returns
    -------
    xarray.Dataset
        As of `simulate`, without the dimension `time`. The attribute `converged` is 1 if every sample is at an
        equilibrium: within the tolerance, or, after repeated sweeps, within rounding; and `stable` is 1 if no
        perturbation of one was found that grows: among all in a small network, and in a large one among those that
        the start and a fixed random direction excite within a few powers of the Jacobian.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the network has no equilibrium.
    MemoryError
        If memory cannot hold it.
    DivergenceError
        If the relaxation grows without bound, or the equilibrium is not finite.

    Warns
    -----
    RuntimeWarning
        If a sample has not converged within `max_duration`, or has started exactly at an equilibrium that is not
        stable, and rests there.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> populations = [nd.Population("s", 1, clamp=nd.Input()), nd.Population("x", 1)]
    >>> net = nd.Network("leaky", populations, [nd.Coupling("s", "x", gain=0.5)])
    >>> nd.equilibrium(net, torch.tensor([[3.0]])).x.item()
    1.5
    """
    refuse_gradients(inputs, targets, initial)
    if isinstance(network, Sequence):
        with together(network, inputs, targets, initial) as (stacked, repeated, wanted, starts):
            found = equilibrium(
                stacked,
                repeated,
                wanted,
                record=record,
                initial=starts,
                tolerance=tolerance,
                max_duration=max_duration,
                progress=progress,
            )
        return _in_order(apart(found, network), network)
    max_duration = positive("max_duration", max_duration)
    if progress is not None:
        flag("progress", progress)
    with bound(network, inputs, targets, initial=initial, still="an equilibrium") as system:
        names = recorded_names(network, record)
        states = row_bytes(system, [p.name for p in system.free])
        refuse_too_large(
            "the equilibrium", states + row_bytes(system, names), "record= fewer populations, or take fewer samples"
        )
        system.look_at(names)
        with Late(wanted=progress, unit="τ", desc=network.name) as bar:
            state, report = to_equilibrium(system, steady(tolerance), max_duration, bar)
        values = {name: to_numpy(system.read(name, state)).copy() for name in names}
        return dataset(system, values, attributes=run_attributes(system, report))


def _in_order(run: xr.Dataset, members: Sequence[Network] | None) -> xr.Dataset:
    """Return a run with the dimension `network` first, where it has one; time is, as a store grows along it."""
    return run if members is None else run.transpose("network", ...)


def _streaming(store: Path, *, resume: bool) -> ZarrStream:
    for module in ("zarr", "google_crc32c"):
        needed(module, extra="zarr")
    from neurodyn.simulation.stream import ZarrStream  # imports these, which few runs need

    return ZarrStream(store, resume=resume)


def _numbers(seed: Seed, stream: ZarrStream | None) -> AbstractContextManager[None]:
    """Draw from the seed; or without one as the interrupted run did that goes on, if there is one."""
    if seed is not None:
        return seeded(entropy_of(seed))
    return nullcontext() if stream is None or stream.random is None else drawing_from(stream.random)


def _watched(until: Until | None, system: System) -> Until | None:
    if isinstance(until, steady) and system.echoes:
        return Lasting(until.tolerance, duration=max(echo.delay for echo in system.echoes.all))
    return until if until is None or isinstance(until, steady) else Watched(until, system.timeline.origin)
