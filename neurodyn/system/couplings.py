"""What the couplings of a bound network make of its states, without leaks: the parts that a closed form is made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neurodyn.system.state import State
from neurodyn.system.system import System


def couple(system: System, state: State, out: State) -> None:
    """Write what the couplings alone make of `state` into `out`, without leaks and constants.

    The instantaneous populations pass it on likewise.
    """
    system.points.expire()
    for name in system.instantaneous:
        system.equations[name].couple(state.activity, state.activity[name])
    for name in system.dynamic:
        system.equations[name].couple(state.activity, out.activity[name])


def couple_rows(system: System, state: State, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what several states side by side contribute to dx/dt by the couplings alone, without offsets.

    Of populations that signals drive, which `rows` may have as well, it is all that they contribute.

    Parameters
    ----------
    state, rows
        As of `couple_each`, of dynamic and driven populations.

    Returns
    -------
    dict
        By dynamic population, those left out to which nothing comes; to be read.
    """
    known = dict(rows)
    for name in system.instantaneous:
        value = couple_each(system, name, state, known)
        if value is not None:
            known[name] = value
    made = {name: couple_each(system, name, state, known) for name in system.dynamic}
    return {name: value for name, value in made.items() if value is not None}


def couple_each(system: System, name: str, state: State, rows: Mapping[str, Tensor]) -> Tensor | None:
    """Return what the couplings alone make of several states side by side for one population, without offsets.

    Parameters
    ----------
    name
        The population.
    state
        A state, of which the held populations, and the shapes of the others, count.
    rows
        The activity of the populations that may not be 0, shape (row, sample, …); what rows lack at the end is 0.

    Returns
    -------
    Tensor or None
        To be read; as many rows as may not be 0, None where none is.
    """
    return system.equations[name].each(state.activity, rows, system.points)


def coupling_norms(system: System, state: State, rows: int) -> dict[str, dict[str, float]] | None:
    """Return a bound on what ‖·‖₂ of each population adds to that of each other by the couplings, of any sample.

    Parameters
    ----------
    state
        A state, of which the shapes count.
    rows
        How many samples the couplings are applied to: the bounds take no longer than that.

    Returns
    -------
    dict or None
        By the target and the population that it reads; None where one is not known.
    """
    found: dict[str, dict[str, float | Tensor]] = {}
    for name, equation in system.equations.items():
        norms = equation.norms(state.activity, rows)
        if norms is None:
            return None
        found[name] = norms
    every = [torch.as_tensor(norm, device=system.device) for norms in found.values() for norm in norms.values()]
    values = iter(torch.stack([norm.double() for norm in every]).tolist() if every else [])
    return {name: {read: next(values) for read in norms} for name, norms in found.items()}
