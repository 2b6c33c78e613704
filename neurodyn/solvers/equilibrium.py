"""Equilibria dx/dt = 0."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace

import torch

from neurodyn.errors import DivergenceError
from neurodyn.network.maps import Activity
from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.anderson import anderson
from neurodyn.solvers.base import Report, Solver, Unrecorded, residual, steady
from neurodyn.solvers.gauss_seidel import gauss_seidel
from neurodyn.solvers.stabilized import Stabilized
from neurodyn.system.system import State, System

_MOST_STEPS = 20_000
"""After how many steps a relaxation is given up: where it slides along a kink, such as ReLU's, it may never end."""


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
    # The stabilised method stays stable by its stages; a pair is so by its tolerance alone, which has to be tighter.
    smallest = 4 * torch.finfo(system.dtype).eps
    if system.structure.gradient_flow:
        solver: Solver = Stabilized(rtol=max(min(1e-3, bound), smallest), atol=0.1 * bound)
    else:
        solver = Adaptive(rtol=max(1e-4 * min(1.0, bound), smallest), atol=0.01 * bound)
    steps = itertools.count(1)

    def arrived_or_tired(time: float, activity: Activity, velocity: Activity) -> bool:
        return stop(time, activity, velocity) or next(steps) > _MOST_STEPS

    report = solver.integrate(system, state, max_duration, Unrecorded(), until=arrived_or_tired)
    report = replace(report, converged=report.residual <= bound)
    system.settle(state)
    if not report.converged:
        why = "; the steps stay small where an activation has a kink" if report.time < max_duration else ""
        warnings.warn(
            f"network {system.network.name!r} has not reached its equilibrium after {report.time:g} units of time and "
            f"{report.accepted} steps: max |dx/dt| is {report.residual:.3g}, and the tolerance {bound:.3g}{why}",
            RuntimeWarning,
            stacklevel=4,
        )
    return state, report
