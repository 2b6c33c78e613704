"""The closed form of linear systems under signals: exact from one time at which they bend or jump to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.base import Recorder
from neurodyn.solvers.krylov import krylov
from neurodyn.solvers.linear import LinearPart
from neurodyn.system.system import State, System

_MOST_NUMBERS = 2**25
"""How many numbers the powers of the drives of a block of pieces hold at most."""
_TERMS = 24
"""How many terms the series of a coefficient takes where the rate times the time is at most 1."""


def refused_signals(system: System) -> str | None:
    """Say why signals leave a linear system without a closed form; None where they do not."""
    network, bending = system.network, set[str]()
    for name, course in zip(system.driven, system.signals, strict=True):
        if not course.piecewise_linear:
            return (
                f"population {name} is driven by a smooth signal, under which there is no closed form; use Adaptive(), "
                "or a Signal with interpolation 'linear' or 'previous'"
            )
        if not course.piecewise_constant:
            bending.add(name)
    for coupling in network.couplings:
        reads = coupling.reads
        if bending.intersection(reads) and not coupling.map.linear and coupling.target not in system.clamped:
            return (
                f"coupling {coupling} is not linear in its signal, which is linear in time, and leaves no closed form; "
                "use Adaptive()"
            )
    return None


def along_signals(
    system: System,
    state: State,
    slope: State,
    moments: NDArray[np.float64],
    duration: float,
    recorder: Recorder,
) -> int:
    """Record the closed form piece by piece, leave the end in `state` and F there in `slope`, and count evaluations.

    Parameters
    ----------
    system
        A linear system that `refused_signals` does not refuse.
    state
        x(0).
    slope
        Where F at the end goes.
    moments
        The times to record.
    duration
        The end.
    recorder
        Where the states go.
    """
    ends = np.unique(np.concatenate([[0.0, duration], system.breaks(duration)]))
    if system.structure.rate is not None:
        evaluations = _nilpotent(system, state, ends, moments, recorder)
    else:
        evaluations = sum(
            _by_krylov(system, state, start, end, _within(moments, start, end, duration), recorder)
            for start, end in pairwise(ends.tolist())
        )
    system.field(state, slope, duration)
    return evaluations + 1


def _within(moments: NDArray[np.float64], start: float, end: float, duration: float) -> NDArray[np.float64]:
    """Return the times in a piece; that at which the next one starts is that one's."""
    return moments[(moments >= start) & ((moments < end) | (end == duration))]


def _by_krylov(
    system: System, state: State, start: float, end: float, moments: NDArray[np.float64], recorder: Recorder
) -> int:
    system.enter(start)
    ramp: State | None = None
    if system.moves_within_steps:
        zero, ramp, then = system.new_state(torch.zeros_like(state.flat)), system.new_state(), system.new_state()
        system.field(zero, ramp, start)
        system.field(zero, then, end)
        torch.sub(then.flat, ramp.flat, out=ramp.flat).div_(end - start)
    return krylov(system, state, moments, end, None, recorder, start=start, ramp=ramp)


def _nilpotent(
    system: System, state: State, ends: NDArray[np.float64], moments: NDArray[np.float64], recorder: Recorder
) -> int:
    """Go from piece to piece by dx/dt = −λx + Nx + b + rt, Nᴸ = 0, so many units of time t after each start.

    With c_k(t) = e^{−λt} tᵏ/k!, d_k = ∫ c_k and g_k = ∫ d_k from 0 to t, and with the powers of x, b and r at a start,

        Nʲ x(t) = Σ_k c_k(t) N^{j+k} x + d_k(t) N^{j+k} b + g_k(t) N^{j+k} r

    so that no more products are needed than the powers of x(0) and, all pieces' at once, of b and r.
    """
    rate = system.structure.rate
    assert rate is not None, "along_signals comes here only with a common rate"
    powers = _Powers(system)
    rows: Tensor | None = None
    for starts, drives in _blocks(system, powers, ends):
        if rows is None:  # after the drives, which settle the scales
            rows = powers.of(system, state)
        for (start, end), drive in zip(starts, drives, strict=True):
            system.enter(start)
            rows = torch.cat([rows, drive])
            inside = _within(moments, start, end, float(ends[-1]))
            if len(inside):
                weights = powers.weights(inside - start, rate)[:, 0]
                recorder.combine(inside, torch.as_tensor(weights, dtype=rows.dtype, device=rows.device), rows)
            onwards = powers.weights(np.array([end - start]), rate)[0]
            rows = torch.as_tensor(onwards, dtype=rows.dtype, device=rows.device) @ rows
    assert rows is not None, "there is a piece"
    state.flat.copy_(rows[0])
    return powers.products


class _Powers:
    """Powers of N, each scaled by one factor for all that it is applied to, so that none overflows nor vanishes.

    Parameters
    ----------
    system
        The system; it moves within pieces or jumps between them.
    """

    def __init__(self, system: System) -> None:
        self._ramped = system.moves_within_steps
        self._logs: list[float] = []
        """The logarithm of the scale of each power."""
        self.products = 0

    def of(self, system: System, power: State) -> Tensor:
        """Return the powers of N times a state, shape (power, n)."""
        linear, moving, rows = LinearPart(system), set(system.dynamic), [power.flat.clone()]
        known = bool(self._logs)
        if not known:
            self._logs.append(0.0)
        while True:
            reached, moving = moving, linear.readers(moving)
            if not moving:
                return torch.stack(rows)
            after = system.new_state(torch.zeros_like(power.flat))
            linear.apply(power, after, reached)
            self.products += 1
            if not known:
                self._logs.append(self._logs[-1] + math.log(_size(after.flat)))
            after.flat.div_(math.exp(self._logs[len(rows)] - self._logs[len(rows) - 1]))
            rows.append(after.flat)
            power = after

    def weights(self, times: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
        """Return what the powers of x, of b and of r weigh in those of x(t), shape (time, power, 3 · power or 2 ·)."""
        count = len(self._logs)
        kinds = _coefficients(times, count, rate)[: 2 + self._ramped]
        logs = np.array(self._logs)
        table = np.zeros((len(times), count, len(kinds), count))
        for power in range(count):
            scales = np.exp(logs[power:] - logs[power])
            for kind, values in enumerate(kinds):
                table[:, power, kind, power:] = values[:, : count - power] * scales
        return table.reshape(len(times), count, -1)


def _coefficients(times: NDArray[np.float64], count: int, rate: float) -> list[NDArray[np.float64]]:
    """Return c_k(t), d_k(t) and g_k(t), shape (time, k) each."""
    from scipy.special import gammainc, gammaln  # here, because it takes long to import

    t, k = times[:, None], np.arange(count + 1)
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        c = np.exp(np.where(k == 0, 0.0, k * np.log(t)) - rate * t - gammaln(k + 1))
        # ∫ c_k = t^{k+1} / k! · Σ_m (−λt)^m / (m! (k + 1 + m)), where that series is short.
        m = np.arange(_TERMS)
        z = np.minimum(rate * t, 1.0)[:, :, None]
        series = ((-z) ** m / (np.exp(gammaln(m + 1)) * (k[:, None] + 1 + m))).sum(2)
        d = np.exp((k + 1) * np.log(t) - gammaln(k + 1)) * series
        if rate:
            d = np.where(rate * t > 1.0, gammainc(k + 1, rate * t) / rate ** (k + 1.0), d)
    g = t * d[:, :-1] - (k[:-1] + 1) * d[:, 1:]
    return [c[:, :-1], d[:, :-1], g]


def _blocks(
    system: System, powers: _Powers, ends: NDArray[np.float64]
) -> Iterator[tuple[list[tuple[float, float]], Tensor]]:
    """Yield some pieces at a time, and of each the powers of b, and of r if there is one, shape (piece, row, n)."""
    pieces = list(pairwise(ends.tolist()))
    most = max(1, _MOST_NUMBERS // (2 * max(1, len(system.dynamic)) * max(1, system.size)))
    for first in range(0, len(pieces), most):
        some = pieces[first : first + most]
        at_starts = [(start, start) for start, _ in some]
        at_ends = [(start, end) for start, end in some] if system.moves_within_steps else []
        moments = [*at_starts, *at_ends]
        repeated = system.repeated(moments)
        zero, drive = repeated.new_state(torch.zeros(repeated.size).to(system.instant)), repeated.new_state()
        repeated.field(zero, drive)
        powers.products += 1
        apart = system.taken_apart(powers.of(repeated, drive), len(moments))
        if at_ends:
            spans = torch.tensor([end - start for start, end in some]).to(apart)
            at_start, at_end = torch.chunk(apart, 2)
            apart = torch.cat([at_start, (at_end - at_start) / spans[:, None, None]], dim=1)
        yield some, apart


def _size(flat: Tensor) -> float:
    size = float(flat.abs().amax()) if flat.numel() else 0.0
    return size if size > 0 and math.isfinite(size) else 1.0
