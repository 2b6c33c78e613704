"""Gauss–Seidel iteration for the equilibria of networks whose cycles weak couplings close: repeated sweeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurodyn.solvers.rows import Rows

_ROUNDING = 8
"""By how many machine epsilons a population may still change once the sweeps have arrived."""
_MOST = 200
"""How many sweeps at most."""
_PATIENCE = 5
"""After how many sweeps without progress the iteration ends."""
_SWEEPS_BACK = 3
"""How many sweeps have to lead back to an equilibrium: along the order, what is beside it may grow at first."""

_CLOSE = 1e-3
"""How close, relative to the activity, they have to lead whatever the distance."""


def gauss_seidel(field: Rows, x: Tensor) -> Tensor | None:
    """Look for an equilibrium F(x) = 0 near x, one population after another: x ← Σ gain · map / leak.

    Along the strong couplings, a sweep is exact; so the weak ones, against the order, alone leave an error, which each
    sweep multiplies by their strength (the nonlinear Gauss–Seidel iteration). It ends where the sweeps to come change
    nothing but the last digits of each population, and gives up where changes cease to shrink.

    Parameters
    ----------
    field
        τF of the system, whose structure has a `weak_order`.
    x
        Where to start, shape (sample, unit).

    Returns
    -------
    Tensor or None
        Where the sweeps arrived; None if they did not.
    """
    system, state = field.system, field.system.new_state()
    field.write(x, state)
    number = torch.finfo(system.dtype)
    before, best, last, waited = state.flat.clone(), float("inf"), 0.0, 0
    ratios: list[float] = []
    for _ in range(_MOST):
        field.sweep(state)
        changes = [
            (now - old).abs().max() / torch.maximum(now.abs().max(), old.abs().max()).clamp_min(number.tiny)
            for (_, now), (_, old) in zip(system.blocks(state.flat), system.blocks(before), strict=True)
        ]
        change = float(torch.stack(changes).max())
        waited = 0 if change < 0.9 * best else waited + 1
        # What two sweeps multiplied a change by, the next ones will: together they change no more than the rest.
        ratios = ratios[-1:] + ([change / last] if last else [])
        slowest = max(ratios) if len(ratios) == 2 else 1.0
        rest = change * slowest / (1.0 - slowest) if slowest < 1.0 else float("inf")
        small = change <= number.eps**0.5
        # Where an ill-conditioned map passes rounding errors on, changes cease to shrink before they are that small.
        if change <= _ROUNDING * number.eps or (small and (rest <= _ROUNDING * number.eps or waited == _PATIENCE)):
            return field.of(state)
        if waited == _PATIENCE or change != change:
            break
        before.copy_(state.flat)
        best, last = min(best, change), change
    return None


def sweeps_lead_back(field: Rows, found: Tensor, points: Sequence[Tensor]) -> Tensor:
    """Tell of each sample whether sweeps from some points, near and far, all lead to an equilibrium, shape (sample,).

    They then contract in the region of the points, where there is no other equilibrium, and the loops through the weak
    couplings have a gain below 1, so that it is stable.

    Parameters
    ----------
    field
        τF of the system.
    found
        The equilibrium, shape (sample, unit).
    points
        Where to start, likewise.
    """
    system = field.system
    goal, state = system.new_state(), system.new_state()
    field.write(found, goal)
    sizes = {name: block.flatten(1).abs().amax(1) for name, block in system.blocks(goal.flat)}
    rounding = 8 * _ROUNDING * torch.finfo(system.dtype).eps
    back = torch.ones(system.samples, dtype=torch.bool, device=system.device)

    def distance(name: str) -> Tensor:
        return (state.activity[name] - goal.activity[name]).flatten(1).abs().amax(1)

    for point in points:
        field.write(point, state)
        allowed = {name: 0.25 * distance(name) + _CLOSE * s + rounding * s.max() for name, s in sizes.items()}
        for _ in range(_SWEEPS_BACK):
            field.sweep(state)
        for name, limit in allowed.items():
            back &= distance(name) <= limit
    return back
