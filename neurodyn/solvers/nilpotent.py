"""The closed form of linear, acyclic systems whose populations share one rate: a sum over powers of the coupling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.layers.repeated import constant, steered
from neurodyn.solvers.base import Recorder, products
from neurodyn.system.couplings import couple_each, coupling_norms
from neurodyn.system.state import State
from neurodyn.system.system import System

_DEEP = 64
"""From how many populations on it pays to find out which powers can matter."""
_SAVED = 4
"""A bound may take as long as one in so many of all products."""
_UNSCALED = 4
"""After how many products powers are scaled anew: each may make them larger or smaller by nine orders of magnitude."""
SHORT = 16
"""Up to how many populations the powers of the coupling stay within single precision without scaling."""


def nilpotent(
    system: System,
    state: State,
    slope: State | None,
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
        Where F at the end goes; None where it is not wanted.
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
    at_end = _at_end(duration, most, rate, step)
    weigh = _Weights(*at_end, state.flat)
    then = coefficients(moments, np.arange(most) + (rate == 0), rate, step)
    places, count = dict(system.places()), 0
    stakes = None
    if rate > 0 and most > _DEEP:
        steered()  # what can matter is a matter of numbers
        stakes = _stakes(system, fixed, start, np.concatenate([at_end[0] - [[0.0], [np.log(rate)]], then[0]]))
    for name, powers in _powers(system, start, stakes or {}):
        count = max(count, len(powers.rows))
        place = places[name]
        of_end = weigh(powers)
        torch.addmv(fixed.flat[place], powers.rows.flatten(1).t(), of_end[0], out=state.flat[place])
        if slope is not None:
            torch.mv(powers.rows.flatten(1).t(), of_end[1], out=slope.flat[place])
        if len(rows):
            rows[1 : 1 + len(powers.rows), place] = powers.rows.flatten(1)
            if powers.logs is not None:
                scales[name] = powers.logs
    if len(rows):
        rows[0] = fixed.flat
        rows = rows[: 1 + count]
        common = _in_common(rows[1:], scales, places)
        with np.errstate(over="ignore"):
            table = then[1][:, :count] * np.exp(then[0][:, :count] + common)
        table = np.concatenate([np.ones((len(moments), 1)), table], axis=1)
        weights = torch.as_tensor(table, dtype=system.dtype, device=system.device)
        recorder.fill(moments, products(weights, rows))
    return count


class _Powers(NamedTuple):
    """N^k e(0) of one population, k = 0, 1, …; or, without a leak, N^k F(x(0))."""

    rows: Tensor
    """Shape (k, sample, …), each row over its scale."""
    logs: Tensor | None = None
    """The logarithms of the scales, shape (k,); None where all are 1."""
    products: int = 0
    """How many products they have been through since they were scaled."""

    def first(self, count: int) -> _Powers:
        """Return no more than so many of them."""
        logs = None if self.logs is None else self.logs[:count]
        return _Powers(self.rows[:count], logs, self.products)


class _Weights:
    """What N^k e(0) weigh in x(t), and in F(x(t)): c_k = ± e^l, given l and the signs, shape (2, k) both."""

    def __init__(self, logs: NDArray[np.float64], signs: NDArray[np.float64], like: Tensor) -> None:
        with np.errstate(over="ignore"):
            plain = np.exp(logs) * signs
        self._logs = constant(lambda: torch.as_tensor(logs, device=like.device))
        self._signs = constant(lambda: torch.as_tensor(signs, device=like.device))
        self._plain = constant(lambda: torch.as_tensor(plain, dtype=like.dtype, device=like.device))

    def __call__(self, powers: _Powers) -> Tensor:
        """Return the weights of powers as they are scaled."""
        used = slice(len(powers.rows))
        if powers.logs is None:
            return self._plain[:, used]
        return ((self._logs[:, used] + powers.logs).exp() * self._signs[:, used]).to(self._plain.dtype)


def _stakes(
    system: System, fixed: State, start: State, logs: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]] | None:
    """Return log μ_p[k] of each population: what leaving out N^k e of it costs everywhere, in units of its size.

    With ‖·‖ over the units of a sample, and bounds s_qp on what a population p adds to ‖(N e)_q‖::

        μ_p[k] = max_t |c_k(t)| / σ_p + Σ_q s_qp μ_q[k + 1]
        σ_p = ½ε (‖x*_p‖ + min_t |c_0(t)| ‖e_p(0)‖), the least of any sample

    the sum of the changes of all populations, each over half the precision ε of what is sure to round in it. What is
    left out matters to no population, sample or time where Σ μ_p[k] ‖N^k e_p‖ ≤ 1.

    Parameters
    ----------
    system
        A system with a leak.
    fixed, start
        x* and e(0).
    logs
        log |c_k(t)| in x, and in F/λ, one row a time.

    Returns
    -------
    dict or None
        By population, shape (k,); None where a bound is not known.
    """
    norms = coupling_norms(system, start, system.samples * len(system.dynamic) // _SAVED)
    if norms is None:
        return None
    order = system.structure.order
    assert order is not None, "the network is acyclic"
    sizes = start.flat.new_empty(2, len(system.dynamic), system.samples)
    for state, size in zip((start, fixed), sizes, strict=True):
        for name, out in zip(system.dynamic, size, strict=True):
            torch.linalg.vector_norm(state.activity[name].flatten(1), dim=1, out=out)
    of_start, of_fixed = sizes.amin(2).double().cpu().numpy()
    with np.errstate(divide="ignore"):
        precision = np.log(0.5 * torch.finfo(system.dtype).eps * (of_fixed + np.exp(logs[:, 0].min()) * of_start))
    largest = logs.max(0)
    stakes = {name: np.full(len(largest), -np.inf) for name in order}
    for name, log in zip(system.dynamic, precision, strict=True):
        stakes[name] = largest - log
    for name in reversed(order):
        of_sources = stakes[name] if name in system.instantaneous else np.append(stakes[name][1:], -np.inf)
        for read, norm in norms[name].items():
            if norm:
                stakes[read] = np.logaddexp(stakes[read], np.log(norm) + of_sources)
    return stakes


def _powers(system: System, start: State, stakes: Mapping[str, NDArray[np.float64]]) -> Iterator[tuple[str, _Powers]]:
    """Yield the powers of each dynamic population, of those that matter by their stakes, after those that it reads.

    What a population makes of all powers of another is one product. In a deep network each power is scaled to a largest
    entry of 1 after some products, so that it neither overflows nor vanishes.
    """
    structure, deep = system.structure, len(system.dynamic) > SHORT
    order = structure.order
    assert order is not None, "the network is acyclic"
    readers = Counter(chain.from_iterable(structure.reads[name] for name in order))
    known: dict[str, _Powers] = {}
    for name in order:
        read = {other: known[other] for other in structure.reads[name] if other in known}
        rows, logs = _aligned(read)
        products = 1 + max((powers.products for powers in read.values()), default=0)
        value = couple_each(system, name, start, rows)
        if name in system.instantaneous:
            powers = None if value is None else _Powers(value, logs, products)
        else:
            powers = _next(start.activity[name], value, logs, products if deep else None)
            if name in stakes and powers.logs is not None and not powers.products:
                powers = powers.first(_mattering(powers, stakes[name], 1 / len(system.dynamic)))
            yield name, powers
        for other in structure.reads[name]:
            readers[other] -= 1
            if not readers[other]:
                known.pop(other, None)
        if powers is not None and readers[name]:
            known[name] = powers


def _mattering(powers: _Powers, stake: NDArray[np.float64], most: float) -> int:
    """Return how many powers, just scaled, are kept where leaving out the others may cost so much."""
    assert powers.logs is not None
    count, units = len(powers.logs), powers.rows[0, 0].numel()
    with np.errstate(over="ignore"):
        costs = np.exp(stake[1:count] + powers.logs[1:].cpu().numpy() + 0.5 * np.log(units))
    return 1 + int((~(np.cumsum(costs[::-1])[::-1] <= most)).sum())


def _next(start: Tensor, value: Tensor | None, logs: Tensor | None, products: int | None) -> _Powers:
    """Return the powers that begin with a start and go on with N times those of other populations.

    These, `value` of shape (k, sample, …), are over scales of the logarithms `logs`, and have been through some
    `products` since they were scaled; None where they are not to be.
    """
    if value is None:
        return _Powers(start[None], None if products is None else start.new_zeros(1, dtype=torch.float64))
    rows = start.new_empty(1 + value.shape[0], *start.shape)
    rows[0] = start
    if products is None:
        rows[1:] = value
        return _Powers(rows)
    assert logs is not None, "what is read is scaled, too"
    if products < _UNSCALED:
        rows[1:] = value
    else:
        products = 0
        largest = value.flatten(1).abs().amax(1).clamp_min(torch.finfo(value.dtype).tiny)
        torch.div(value, largest.view(-1, *[1] * start.ndim), out=rows[1:])
        logs = logs + largest.double().log()
    return _Powers(rows, torch.cat([logs.new_zeros(1), logs]), products)


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
