"""Gauss–Seidel iteration for the equilibria of networks whose cycles weak couplings close: repeated sweeps."""

from __future__ import annotations

import torch

from neurodyn.system.system import State, System

_ROUNDING = 8
"""By how many machine epsilons a population may still change once the sweeps have arrived."""
_PATIENCE = 5
"""After how many sweeps without progress the iteration ends."""


def gauss_seidel(system: System, state: State, most: int = 200) -> tuple[int, bool]:
    """Look for the equilibrium F(x) = 0 near `state`, one population after another: x ← Σ gain · map / leak.

    Along the strong couplings, a sweep is exact; so the weak ones, against the order, alone leave an error, which each
    sweep multiplies by their strength (the nonlinear Gauss–Seidel iteration). It ends where a sweep changes nothing but
    the last digits of each population, and gives up where changes cease to shrink.

    Parameters
    ----------
    system
        The system; its structure has a `weak_order`.
    state
        Where to start; on return the equilibrium, or the start if the iteration gave up.
    most
        How many sweeps at most.

    Returns
    -------
    int
        Sweeps.
    bool
        Whether they arrived.
    """
    order = system.structure.weak_order
    assert order is not None, "the caller looks"
    number = torch.finfo(system.dtype)
    start = state.flat.clone()
    before, best, waited = start.clone(), float("inf"), 0
    for count in range(1, most + 1):
        system.sweep(state, order)
        change = max(
            float((now - old).abs().max() / now.abs().max().clamp_min(number.tiny))
            for (_, now), (_, old) in zip(system.blocks(state.flat), system.blocks(before), strict=True)
        )
        waited = 0 if change < 0.9 * best else waited + 1
        # Where an ill-conditioned map passes rounding errors on, changes cease to shrink before they are that small.
        if change <= _ROUNDING * number.eps or (waited == _PATIENCE and change <= number.eps**0.5):
            return count, True
        if waited == _PATIENCE:
            break
        before.copy_(state.flat)
        best = min(best, change)
    state.flat.copy_(start)
    system.settle(state)
    return count, False
