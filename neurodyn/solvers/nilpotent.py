"""The closed form of linear, acyclic systems whose populations share one rate: a sum over powers of the coupling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.base import Recorder
from neurodyn.system.system import State, System

_SHORT = 16
"""Up to how many populations the powers of the coupling stay within single precision without scaling."""


def nilpotent(
    system: System,
    state: State,
    slope: State,
    moments: NDArray[np.float64],
    duration: float,
    step: float | None,
    recorder: Recorder,
) -> int:
    """Record the closed form of an acyclic system of one rate λ, leave the end in `state`, and count powers.

    F at the end, a combination of the same powers, goes into `slope`.

    Parameters
    ----------
    system
        A linear, acyclic system of one rate.
    state
        x(0).
    slope
        Where F at the end goes.
    moments
        The times to record.
    duration
        The end.
    step
        The Euler step h, or None for the flow.
    recorder
        Where the states go.
    """
    rate = system.structure.rate
    assert rate is not None, "integrate comes here only with a common rate"
    fixed, start = system.new_state(), system.new_state()
    # Without a leak there is no equilibrium: x(t) = x(0) + Σ_k t^(k+1) / (k+1)! N^k F(x(0)) takes its place.
    if rate > 0:
        system.sweep(fixed)
        torch.sub(state.flat, fixed.flat, out=start.flat)
    else:
        fixed.flat.copy_(state.flat)
        system.field(state, start)
    most = len(system.dynamic)
    rows = state.flat.new_zeros(1 + most if len(moments) else 0, system.size)
    scales: dict[str, Tensor] = {}
    logs, signs = (torch.as_tensor(each, device=system.device) for each in _at_end(duration, most, rate, step))
    places, count = dict(system.places()), 0
    for name, powers in _powers(system, start):
        count = max(count, len(powers.rows))
        place, used = places[name], slice(len(powers.rows))
        weights = logs[:, used] if powers.logs is None else logs[:, used] + powers.logs
        of_end = (weights.exp() * signs[:, used]).to(system.dtype) @ powers.rows.flatten(1)
        torch.add(fixed.flat[place], of_end[0], out=state.flat[place])
        slope.flat[place] = of_end[1]
        if len(rows):
            rows[1 : 1 + len(powers.rows), place] = powers.rows.flatten(1)
            if powers.logs is not None:
                scales[name] = powers.logs
    if len(rows):
        rows[0] = fixed.flat
        rows = rows[: 1 + count]
        common = _in_common(rows[1:], scales, places)
        logs_then, signs_then = coefficients(moments, np.arange(count) + (rate == 0), rate, step)
        with np.errstate(over="ignore"):
            table = np.concatenate([np.ones((len(moments), 1)), signs_then * np.exp(logs_then + common)], axis=1)
        recorder.combine(moments, torch.as_tensor(table, dtype=system.dtype, device=system.device), rows)
    return count


@dataclass(frozen=True)
class _Powers:
    """N^k e(0) of one population, k = 0, 1, …; or, without a leak, N^k F(x(0)).

    Parameters
    ----------
    rows
        Shape (k, sample, …), each row over its scale.
    logs
        The logarithms of the scales, shape (k,); None where all are 1.
    """

    rows: Tensor
    logs: Tensor | None = None


def _powers(system: System, start: State) -> Iterator[tuple[str, _Powers]]:
    """Yield the powers of each dynamic population, after those that it reads.

    What a population makes of all powers of another is one product. In a deep network each power is scaled to a largest
    entry of 1, so that it neither overflows nor vanishes.
    """
    structure, deep = system.structure, len(system.dynamic) > _SHORT
    order = structure.order
    assert order is not None, "the network is acyclic"
    readers = {name: sum(name in structure.reads[other] for other in order) for name in order}
    known: dict[str, _Powers] = {}
    for name in order:
        read = {other: known[other] for other in structure.reads[name] if other in known}
        rows, logs = _aligned(read)
        value = system.couple_each(name, start, rows)
        if name in system.instantaneous:
            powers = None if value is None else _Powers(value, logs)
        else:
            powers = _next(start.activity[name], value, logs, scaled=deep)
            yield name, powers
        for other in structure.reads[name]:
            readers[other] -= 1
            if not readers[other]:
                known.pop(other, None)
        if powers is not None and readers[name]:
            known[name] = powers


def _next(start: Tensor, value: Tensor | None, logs: Tensor | None, *, scaled: bool) -> _Powers:
    """Return the powers that begin with a start and go on with N times those of other populations."""
    if value is None:
        return _Powers(start[None], start.new_zeros(1, dtype=torch.float64) if scaled else None)
    rows = start.new_empty(1 + len(value), *start.shape)
    rows[0] = start
    if not scaled:
        rows[1:] = value
        return _Powers(rows)
    assert logs is not None, "what is read is scaled, too"
    largest = value.flatten(1).abs().amax(1).clamp_min(torch.finfo(value.dtype).tiny)
    torch.div(value, largest.view(-1, *[1] * start.ndim), out=rows[1:])
    return _Powers(rows, torch.cat([logs.new_zeros(1), logs[: len(value)] + largest.double().log()]))


def _aligned(read: Mapping[str, _Powers]) -> tuple[dict[str, Tensor], Tensor | None]:
    """Bring the powers of several populations to common scales, and return these."""
    rows = {name: powers.rows for name, powers in read.items()}
    scales = [powers.logs for powers in read.values() if powers.logs is not None]
    if len(scales) < 2:
        return rows, scales[0] if scales else None
    common = torch.nn.utils.rnn.pad_sequence(scales, padding_value=-torch.inf).amax(1)
    for name, powers in read.items():
        assert powers.logs is not None, "all are scaled where one is"
        factors = (powers.logs - common[: len(powers.logs)]).exp().to(powers.rows.dtype)
        rows[name] = powers.rows * factors.view(-1, *[1] * (powers.rows.ndim - 1))
    return rows, common


def _in_common(rows: Tensor, scales: Mapping[str, Tensor], places: Mapping[str, slice]) -> NDArray[np.float64]:
    """Bring the powers of all populations, shape (k, n), to common scales, and return the logarithms of these."""
    if not scales:
        return np.zeros(len(rows))
    common = torch.nn.utils.rnn.pad_sequence([*scales.values()], padding_value=-torch.inf).amax(1)
    for name, logs in scales.items():
        rows[: len(logs), places[name]] *= (logs - common[: len(logs)]).exp().to(rows.dtype)[:, None]
    return common.cpu().numpy()


@lru_cache(maxsize=64)
def _at_end(
    duration: float, count: int, rate: float, step: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log |w| and the sign of w, shape (2, k) both, of what N^k e(0) weigh in x(t) and in F(x(t)).

    F(x) = −λ e + N e, or without a leak F(x(0)) + N (x − x(0)): each power becomes the next one.
    """
    first = int(rate == 0)
    k = np.arange(first - 1, first + count)
    logs, signs = coefficients(np.array([duration]), np.maximum(k, 0), rate, step)
    logs[0, k < 0] = -np.inf
    of_power, of_next = slice(1, None), slice(None, -1)
    largest = np.maximum(np.maximum(logs[0, of_power], logs[0, of_next]), -1e300)
    with np.errstate(divide="ignore"):
        change = signs[0, of_next] * np.exp(logs[0, of_next] - largest)
        change -= rate * signs[0, of_power] * np.exp(logs[0, of_power] - largest)
        of_change = np.log(np.abs(change)) + largest
    return np.stack([logs[0, of_power], of_change]), np.stack([signs[0, of_power], np.sign(change)])


def coefficients(
    times: NDArray[np.float64], k: NDArray[np.int64], rate: float, step: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log |c_k(t)| and the sign of c_k(t), shape (time, k) both."""
    from scipy.special import gammaln  # here, because it takes long to import

    with np.errstate(divide="ignore", invalid="ignore"):
        if step is None:
            t = times[:, None]
            flow: NDArray[np.float64] = np.where(k == 0, 0.0, k * np.log(t)) - rate * t - gammaln(k + 1)
            return flow, np.ones(flow.shape)
        n: NDArray[np.float64] = np.rint(times / step)[:, None]
        keep = 1.0 - step * rate
        left = np.maximum(n - k, 0.0)
        logs: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(left + 1) + k * np.log(step)
        logs += np.where(left == 0, 0.0, left * np.log(np.abs(keep)))
        logs[k > n] = -np.inf
        signs: NDArray[np.float64] = np.where(left % 2 == 0, 1.0, np.sign(keep))
        return logs, signs
