"""The closed form of linear, acyclic systems as a function, for `torch.autograd` to differentiate."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.nilpotent import coefficients
from neurodyn.system.system import System
from neurodyn.system.traced import Blocks, TracedField


def refused_closed_form(system: System) -> str | None:
    """Say why a system has no differentiable closed form; None if it has one."""
    network = system.network
    if not (system.structure.linear and system.structure.acyclic):
        return f"network {network.name!r} has no differentiable closed form: that takes a linear, acyclic network"
    if system.echoes:
        return f"coupling {system.echoes.couplings[0]} has a delay, with which there is no closed form"
    if system.bounds:
        return f"population {next(iter(system.bounds))} has bounds, under which there is no closed form"
    if system.timeline.driven:
        return f"network {network.name!r} is driven by signals, and the differentiable closed form takes tensors alone"
    for name in system.dynamic:
        for what in ("tau", "leak"):
            if isinstance(getattr(network[name], what), Tensor):
                return (
                    f"population {name}: its {what} is a tensor, and the differentiable closed form takes rates "
                    "leak/tau that are numbers"
                )
    return None


def closed_form(field: TracedField, times: NDArray[np.float64], step: float | None) -> Tensor:
    """Return the states at some times, shape (time, sample, unit).

    Parameters
    ----------
    field
        That of a system which `refused_closed_form` does not refuse.
    times
        The times.
    step
        The Euler step h, of which the times are multiples; None for the flow.
    """
    rate = field.system.structure.rate
    activity = _of_one_rate(field, times, step, rate) if rate else _of_several_rates(field, times, step)
    return torch.cat([activity[name].flatten(2) for name in field.system.dynamic], 2)


def _of_one_rate(field: TracedField, times: NDArray[np.float64], step: float | None, rate: float) -> Blocks:
    """Return the activity, shape (time, sample, …), of an acyclic linear system whose populations share a rate."""
    system = field.system
    fixed = _equilibrium(field)
    activity = {name: block.expand(len(times), *block.shape) for name, block in fixed.items()}
    power = {name: field.start[name] - block for name, block in fixed.items()}
    k, log_scale = 0, 0.0
    while power:
        # Each power is scaled to a largest entry of 1, so that a deep network's neither overflow nor vanish.
        scale = max(float(block.detach().abs().amax()) for block in power.values()) or 1.0
        power = {name: block / scale for name, block in power.items()}
        log_scale += np.log(scale)
        logs, signs = coefficients(times, np.array([k]), rate, step)
        weights = torch.as_tensor(signs * np.exp(logs + log_scale), dtype=system.dtype, device=system.device)
        for name, block in power.items():
            activity[name] = activity[name] + torch.tensordot(weights, block[None], 1)
        power = _coupled(field, power)
        k += 1
    return activity


def _equilibrium(field: TracedField) -> Blocks:
    """Return x*, one population after the other."""
    activity = field.clamped(0.0, 0.0)
    for name in field.system.structure.order or ():
        terms = [field.gain(c) * field.through(c, activity) for c in field.network.into(name)]
        activity[name] = sum(terms, field.zeros[name]) / field.number("leak", name)
    return {name: activity[name] for name in field.system.dynamic}


def _coupled(field: TracedField, deviation: Blocks) -> Blocks:
    """Return N e, of a deviation e that is 0 where a population is absent; absent where it is 0.

    The instantaneous populations pass it on.
    """
    network, instantaneous = field.network, field.system.instantaneous
    passed = dict(deviation)
    coupled: Blocks = {}
    for name in (*instantaneous, *field.system.dynamic):
        divisor = field.number("leak" if name in instantaneous else "tau", name)
        terms = []
        for coupling in network.into(name):
            if any(source in passed for source in coupling.sources):
                term = field.through(coupling, passed)
                if not coupling.map.homogeneous:
                    term = term - field.through(coupling, {})
                terms.append(field.gain(coupling) / divisor * term)
        if terms:
            (passed if name in instantaneous else coupled)[name] = sum(terms, field.zeros[name])
    return coupled


def _of_several_rates(field: TracedField, times: NDArray[np.float64], step: float | None) -> Blocks:
    """Return the activity, shape (time, sample, …), of an acyclic linear system whose populations have rates λ_i.

    With N_ij what j passes on to i, and b the drive, the activity is a sum over the ways through the network::

        x_i(t) = Σ f[−λ_j, …, −λ_i] N_i… ⋯ N_…j x_j(0) + Σ f[0, −λ_j, …, −λ_i] N_i… ⋯ N_…j b_j

    with the divided differences f[…] of f(z) = e^{zt}, or (1 + hz)^n for n Euler steps. They do not depend on the order
    of the rates, so that ways that meet the same ones are added up.
    """
    system, network = field.system, field.network
    rates = {name: float(network[name].leak / network[name].tau) for name in system.dynamic}
    drive = field.blocks(field(field.rows(field.zeros)))
    parts: dict[str, dict[tuple[float, ...], Tensor]] = {name: {} for name in system.dynamic}
    activity: Blocks = {}
    for name in (name for name in system.structure.order or () if name in rates):
        _add(parts[name], (rates[name],), field.start[name])
        _add(parts[name], (0.0, rates[name]), drive[name])
        activity[name] = drive[name].new_zeros(len(times), *drive[name].shape)
        for met, block in parts[name].items():
            weights = torch.as_tensor(_divided_differences(met, times, step), dtype=system.dtype, device=system.device)
            activity[name] = activity[name] + torch.tensordot(weights[:, None], block[None], 1)
            for target, passed in _coupled(field, {name: block}).items():
                _add(parts[target], (*met, rates[target]), passed)
    return activity


def _add(parts: dict[tuple[float, ...], Tensor], met: tuple[float, ...], block: Tensor) -> None:
    key = tuple(sorted(met))
    parts[key] = parts[key] + block if key in parts else block


def _divided_differences(
    rates: tuple[float, ...], times: NDArray[np.float64], step: float | None
) -> NDArray[np.float64]:
    """Return f[−λ_0, …, −λ_k] at each time, the corner of f of a bidiagonal matrix (Opitz' theorem)."""
    decay, shift = np.diag(-np.array(rates)), np.eye(len(rates), k=1)
    if step is None:
        # Where t < k the corner would be lost beside the other entries; weighted by (k/t)^k it is not.
        k = len(rates) - 1
        above = np.maximum(times, k)
        from scipy.linalg import expm  # here, because it takes long to import

        values = expm(times[:, None, None] * decay + above[:, None, None] * shift)
        corner: NDArray[np.float64] = values[:, 0, -1] * (times / np.maximum(above, 1.0)) ** k
        return corner
    iterate = np.eye(len(rates)) + step * (decay + shift)
    return np.array([np.linalg.matrix_power(iterate, round(time / step))[0, -1] for time in times])
