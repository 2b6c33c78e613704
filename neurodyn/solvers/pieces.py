"""The closed form of linear systems under signals: exact from one time at which they bend or jump to the next."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.base import Recorder
from neurodyn.solvers.krylov import krylov
from neurodyn.solvers.linear import LinearPart
from neurodyn.solvers.matrices import by_matrix, matrix_of
from neurodyn.system.entering import Entering
from neurodyn.system.moments import put_together, write_apart
from neurodyn.system.state import State
from neurodyn.system.system import System

_MOST_NUMBERS = 2**22
"""How many numbers the powers of the drives of a block of pieces hold at most."""
_TERMS = 24
"""How many terms the series of a coefficient takes where the rate times the time is at most 1."""


def refused_signals(system: System) -> str | None:
    """Say why signals leave a linear system without a closed form; None where they do not."""
    network, bending = system.network, set[str]()
    for name, course in zip(system.timeline.driven, system.timeline.signals, strict=True):
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
    ends = np.unique(np.concatenate([[0.0, duration], system.timeline.breaks(duration)]))
    if system.structure.rate is not None:
        evaluations = _nilpotent(system, state, ends, moments, recorder)
    elif (matrix := matrix_of(system)) is not None:
        evaluations = by_matrix(system, matrix, state, ends, moments, recorder)
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
    system.timeline.enter(start)
    ramp: State | None = None
    if system.timeline.moves_within_steps:
        zero, ramp, then = system.new_state(torch.zeros_like(state.flat)), system.new_state(), system.new_state()
        system.field(zero, ramp, start)
        system.field(zero, then, end)
        torch.sub(then.flat, ramp.flat, out=ramp.flat).div_(end - start)
    return krylov(system, state, moments, end, None, recorder, start=start, ramp=ramp)


def _nilpotent(
    system: System, state: State, ends: NDArray[np.float64], moments: NDArray[np.float64], recorder: Recorder
) -> int:
    """Go from piece to piece by dx/dt = −λx + Nx + b + (b′ − b) t/T, Nᴸ = 0, so much time t of T after each start.

    With c_k(t) = e^{−λt} tᵏ/k!, d_k = ∫ c_k and g_k = ∫ d_k from 0 to t, and with the powers of x, b and b′,

        Nʲ x(t) = Σ_k c_k(t) N^{j+k} x + (d_k(t) − g_k(t)/T) N^{j+k} b + g_k(t)/T N^{j+k} b′

    so that no more products are needed than the powers of x(0) and, all pieces' at once, of b and b′.
    """
    rate = system.structure.rate
    assert rate is not None, "along_signals comes here only with a common rate"
    entering = Entering(system, float(ends[-1]))
    powers = _Powers(system)
    weights = _Weights(powers, rate, ramped=entering.ramped)
    rows: Tensor | None = None
    for pieces, table in _blocks(system, entering, powers, ends):
        if rows is None:  # after the drive, which settles the scales
            rows = powers.of(LinearPart(system), state)
        last = pieces[-1][1]
        starts = np.array([start for start, _ in pieces])
        lengths = np.array([end - start for start, end in pieces])
        onwards = weights.onwards(lengths, rows)
        own = moments[slice(*np.searchsorted(moments, [pieces[0][0], np.inf if last == ends[-1] else last]))]
        places = np.searchsorted(starts, own, side="right") - 1
        of_states = weights.of_states(own - starts[places], lengths[places], rows)
        within = np.bincount(places, minlength=len(pieces))
        states = rows.new_empty(len(own), system.size)
        table[0, 1] = rows
        every, stride = table.flatten(0, 2), table[0, ..., 0].numel()
        saved = 0
        for place, (further, inside) in enumerate(zip(onwards, within.tolist(), strict=True)):
            given = every[place * stride :][: further.shape[1]]
            if inside:
                torch.mm(of_states[saved : saved + inside], given, out=states[saved : saved + inside])
                saved += inside
            torch.mm(further, given, out=table[place + 1, 1])
        rows = table[-1, 1]
        if saved:
            recorder.take(own, starts[places], states)
    assert rows is not None, "there is a piece"
    system.timeline.enter(float(ends[-2]))
    state.flat.copy_(rows[0])
    return powers.products


def _tensor(table: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.as_tensor(table, dtype=like.dtype, device=like.device)


class _Powers:
    """Powers of N, each scaled by one factor for all that it is applied to, so that none overflows nor vanishes.

    Parameters
    ----------
    system
        The system.
    """

    def __init__(self, system: System) -> None:
        self.logs: list[float] = []
        """The logarithm of the scale of each power."""
        self.products = 0

    @property
    def count(self) -> int:
        """How many there are, as soon as they have been worked out once."""
        return len(self.logs)

    def of(self, linear: LinearPart, power: State) -> Tensor:
        """Return the powers of N times a state, shape (power, n)."""
        rows = [row.clone() for row in self.each(linear, power)]
        return torch.stack(rows + [torch.zeros_like(power.flat)] * (self.count - len(rows)))

    def each(self, linear: LinearPart, power: State, moving: Collection[str] | None = None) -> Iterator[Tensor]:
        """Yield the powers of N times a state, shape (n,), each good until the next one.

        Parameters
        ----------
        linear
            N, of the system or of a `repeated` one.
        power
            The state, which is overwritten.
        moving
            The populations of it that may not be 0; all if None.
        """
        system, place = linear.system, 0
        reached = set(system.dynamic if moving is None else moving)
        known = bool(self.logs)
        if not known:
            self.logs.append(0.0)
        yield power.flat
        after = system.new_state()
        while readers := linear.readers(reached):
            linear.apply(power, after, reached)
            self.products += 1
            place += 1
            if not known:
                self.logs.append(self.logs[-1] + math.log(_size(after.flat)))
            scale = math.exp(self.logs[place] - self.logs[place - 1])
            if scale != 1.0:
                after.flat.div_(scale)
            power, after, reached = after, power, readers
            yield power.flat


class _Weights:
    """What the powers of b, x and b′ weigh in x(t) and in its powers.

    Parameters
    ----------
    powers
        The powers.
    rate
        λ.
    ramped
        Whether signals move within pieces; elsewhere, there is no b′.
    """

    def __init__(self, powers: _Powers, rate: float, *, ramped: bool) -> None:
        self._powers, self._rate, self._ramped = powers, rate, ramped
        self._onwards: dict[float, Tensor] = {}

    def of_states(self, times: NDArray[np.float64], lengths: NDArray[np.float64], like: Tensor) -> Tensor:
        """Return those in x at some times of pieces of some lengths, shape (time, 3 · power or 2 ·)."""
        kinds = self._kinds(times, lengths) * np.exp(self._powers.logs)
        return _tensor(kinds.transpose(1, 0, 2).reshape(len(times), kinds.shape[0] * kinds.shape[2]), like)

    def onwards(self, lengths: NDArray[np.float64], like: Tensor) -> list[Tensor]:
        """Return those in the powers of x at the ends of pieces, shape (power, 3 · power or 2 ·) each."""
        new = np.array([length for length in np.unique(lengths) if length not in self._onwards])
        count, logs = self._powers.count, np.array(self._powers.logs)
        for place, length in enumerate(new.tolist()):
            if not place:
                every = self._kinds(new, new)
            table = np.zeros((count, len(every), count))
            for power in range(count):
                table[power, :, power:] = every[:, place, : count - power] * np.exp(logs[power:] - logs[power])
            self._onwards[length] = _tensor(table.reshape(count, -1), like)
        return [self._onwards[length] for length in lengths.tolist()]

    def _kinds(self, times: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        c, d, g = _coefficients(times, self._powers.count, self._rate)
        if not self._ramped:
            return np.stack([d, c])
        risen = g / lengths[:, None]
        return np.stack([d - risen, c, risen])


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
    system: System, entering: Entering, powers: _Powers, ends: NDArray[np.float64]
) -> Iterator[tuple[list[tuple[float, float]], Tensor]]:
    """Yield some pieces at a time, and a table of powers, shape (piece + 1, kind, power, n).

    Of each piece, it holds those of b as it starts, and has room for those of x then; where signals bend, those of b at
    its end follow: as the next piece's, or, where they may jump, as a third kind.
    """
    pieces = list(pairwise(ends.tolist()))
    most = max(1, _MOST_NUMBERS // (2 * max(1, len(system.dynamic)) * max(1, system.size)))
    linear = LinearPart(system)
    still = powers.of(linear, system.new_state(entering.still.flat.clone()))
    for first in range(0, len(pieces), most):
        some = pieces[first : first + most]
        repeated, drive, moments = entering.over(some)
        powers.products += 1
        offset = None
        if linear.offset is not None:
            offset = repeated.new_state()
            put_together(system, linear.offset.expand(moments, -1), offset)
        of_all = LinearPart(repeated, None if offset is None else offset.flat)
        apart = moments > len(some) + 1
        table = still.new_empty(len(some) + 1, 2 + apart, powers.count, system.size)
        starts = table[: len(some) if apart else moments, 0]
        for place, row in enumerate(powers.each(of_all, drive, entering.names)):
            write_apart(system, row, moments, still[place], starts[:, place])
            if apart:
                write_apart(system, row, moments, still[place], table[:-1, 2, place], first=len(some))
        for kind in (0, 2)[: 1 + apart]:
            table[:, kind, place + 1 :] = still[place + 1 :]
        yield some, table


def _size(flat: Tensor) -> float:
    size = float(flat.abs().amax()) if flat.numel() else 0.0
    return size if size > 0 and math.isfinite(size) else 1.0
