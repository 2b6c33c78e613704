"""Equilibria dx/dt = 0."""

from __future__ import annotations

import math
import warnings

import torch

from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.anderson import anderson
from neurodyn.solvers.base import DivergenceError, Report, Unrecorded, residual, steady
from neurodyn.solvers.gauss_seidel import gauss_seidel
from neurodyn.solvers.stabilized import Stabilized
from neurodyn.system import State, System


def to_equilibrium(system: System, stop: steady, max_duration: float = 1000.0) -> tuple[State, Report]:
    """Take a system to its equilibrium.

    By one sweep if it is acyclic, and by repeated sweeps if weak couplings close its cycles; otherwise by Anderson's
    accelerated iteration, or by relaxation where that gives up.

    Parameters
    ----------
    system
        The system.
    stop
        When a relaxation has arrived.
    max_duration
        How long to relax at most.

    Returns
    -------
    State
        The equilibrium, the instantaneous populations included.
    Report
        What happened.
    """
    state = system.initial_state()
    if system.structure.acyclic:
        system.sweep(state)
        bad = system.first_bad(state)
        if bad is not None:
            raise DivergenceError(f"population {bad} is not finite at the equilibrium", math.inf, bad)
        slope = system.new_state()
        system.field(state, slope)
        remaining = residual(slope)
        converged = remaining <= stop.bound(system.dtype)
        return state, Report("sweep", 1, 0, 0, remaining, converged, 0.0)
    if system.structure.weak_order is not None:
        count, arrived = gauss_seidel(system, state)
        if arrived:
            slope = system.new_state()
            system.field(state, slope)
            return state, Report("Gauss–Seidel sweeps", count, 0, 0, residual(slope), True, 0.0)
    bound = stop.bound(system.dtype)
    evaluations, arrived = anderson(system, state, bound)
    if arrived:
        slope = system.new_state()
        system.field(state, slope)
        return state, Report("Anderson acceleration", evaluations, 0, 0, residual(slope), True, 0.0)
    rtol, atol = max(1e-4 * min(1.0, bound), 4 * torch.finfo(system.dtype).eps), 0.01 * bound
    solver = Stabilized(rtol, atol) if system.structure.gradient_flow else Adaptive(rtol=rtol, atol=atol)
    report = solver.integrate(system, state, max_duration, Unrecorded(), until=stop)
    system.settle(state)
    if not report.converged:
        warnings.warn(
            f"network {system.network.name!r} has not reached its equilibrium after {max_duration:g} units of time: "
            f"max |dx/dt| is {report.residual:.3g}, and the tolerance {bound:.3g}",
            RuntimeWarning,
            stacklevel=4,
        )
    return state, report
