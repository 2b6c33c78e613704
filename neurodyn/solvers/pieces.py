"""The closed form of linear systems under signals: exact from one time at which they bend or jump to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.base import Recorder, copies, in_pieces
from neurodyn.solvers.krylov import krylov
from neurodyn.solvers.matrices import ROUNDING, alike, by_matrix, matrix_of
from neurodyn.solvers.nilpotent import SHORT
from neurodyn.system.couplings import couple_rows
from neurodyn.system.entering import Entering
from neurodyn.system.state import State
from neurodyn.system.system import System

_MOST_NUMBERS = 2**22
"""How many numbers the powers of the drives of a block of pieces hold at most."""
_FEW_NUMBERS = 2**11
"""Up to how many numbers of several populations are summed together."""
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
        evaluations = sum(_by_krylov(system, state, *piece, recorder) for piece in in_pieces(ends, moments))
    system.field(state, slope, duration)
    return evaluations + 1


def _by_krylov(
    system: System, state: State, bounds: NDArray[np.float64], moments: NDArray[np.float64], recorder: Recorder
) -> int:
    start, end = bounds.tolist()
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
    """Go from piece to piece by dx/dt = −λx + Nx + a + b + (b′ − b) t/T, Nᴸ = 0, so much time t of T after each start.

    With c_k(t) = e^{−λt} tᵏ/k!, d_k = ∫ c_k and g_k = ∫ d_k from 0 to t, and with the powers of x, of a, which stands
    still, and of what signals contribute, b at the start and b′ at the end,

        Nʲ x(t) = Σ_k c_k(t) N^{j+k} x + d_k(t) N^{j+k} a + (d_k(t) − g_k(t)/T) N^{j+k} b + g_k(t)/T N^{j+k} b′

    so that no more products are needed than the powers of x(0) and a and, all pieces' at once, of b and b′. Each
    population has a sum of its own, of the powers that reach it.
    """
    rate = system.structure.rate
    assert rate is not None, "along_signals comes here only with a common rate"
    entering, groups = Entering(system, float(ends[-1])), _groups(system)
    powers = _Powers(system, entering.zero)
    depth = max(1, len(system.dynamic))
    most = max(1, _MOST_NUMBERS // (depth * max(system.size, 4 * depth)))
    for bounds, own in in_pieces(ends, moments, most):
        starts, lengths = bounds[:-1], np.diff(bounds)
        both = zip(system.blocks(state.flat), system.blocks(entering.still.flat), strict=True)
        first = starts[0] == 0.0
        start = {name: torch.stack([x, a]) for (name, x), (_, a) in both} if first else {}
        both_powers = list(powers.of(entering.at(entering.moments(bounds)), start))
        drives = [of_drives for of_drives, _ in both_powers]
        if first:
            for group in groups:
                group.begin([of_start for _, of_start in both_powers])
        places = np.searchsorted(starts, own, side="right") - 1
        weights = _Weights(powers.logs, rate, state.flat, ramped=entering.ramped)
        different, kinds = alike(lengths, ROUNDING * float(ends[-1]))
        block = _Block(
            weights.of_powers(different),
            weights.of_states(own - starts[places], lengths[places]),
            kinds.tolist(),
            np.bincount(places, minlength=len(starts)).tolist(),
            [slice(at, at + 1 + entering.ramped) for at in range(0, len(starts) * entering.stride, entering.stride)],
        )
        states = state.flat.new_empty(len(own), system.size)
        for group in groups:
            group.follow(drives, block, states[:, group.place])
        if len(own):
            recorder.fill(own, copies(states), starts[places])
    system.timeline.enter(float(ends[-2]))
    for group in groups:
        state.flat[group.place] = group.state
    return powers.products


class _Block(NamedTuple):
    """Some pieces in a row."""

    onwards: Tensor
    """The weights in the powers of x at the end of a piece, shape (kind of piece, power of x, kind, power)."""
    inside: Tensor
    """The weights in x at the times to record, shape (time, kind, power)."""
    kinds: list[int]
    """Of which kind each piece is."""
    recorded: list[int]
    """How many times to record are in each piece."""
    moments: list[slice]
    """Which moments each piece has."""


class _Group:
    """Populations side by side in a state, whose sums are taken together.

    Parameters
    ----------
    sizes
        How many numbers each has.
    start
        Where the first one begins.
    """

    def __init__(self, sizes: Mapping[str, int], start: int) -> None:
        self._sizes, self.place = sizes, slice(start, start + sum(sizes.values()))

    @property
    def state(self) -> Tensor:
        """Where the group is, shape (number,)."""
        return self._carried[0, 0]

    def begin(self, powers: Sequence[Mapping[str, Tensor]]) -> None:
        """Take up the powers of x(0) and of a, side by side."""
        self._carried, _ = self._reaching(powers)

    def follow(self, drives: Sequence[Mapping[str, Tensor]], block: _Block, out: Tensor) -> None:
        """Go on through some pieces.

        Parameters
        ----------
        drives
            The powers of b and b′ of all moments, side by side.
        block
            The pieces.
        out
            Where x at the times to record goes, shape (time, number).
        """
        driven, reaching = self._reaching(drives)
        rows, (kinds, count, _), recorded = driven.flatten(0, 1), self._carried.shape, 0
        here, there = ((each.flatten(0, 1), each[0]) for each in (self._carried.contiguous(), self._carried.clone()))
        inside_x, inside_drives = block.inside[:, :2, :count].flatten(1), block.inside[:, 2:, reaching].flatten(1)
        of_own = block.onwards[:, :count]
        onwards = list(zip(of_own[:, :, :2, :count].flatten(2), of_own[:, :, 2:, reaching].flatten(2), strict=True))
        for kind, times, moments in zip(block.kinds, block.recorded, block.moments, strict=True):
            given, drive = here[0], rows[moments.start * len(reaching) : moments.stop * len(reaching)]
            if times:
                those = slice(recorded, recorded + times)
                torch.mm(inside_x[those], given, out=out[those]).addmm_(inside_drives[those], drive)
                recorded += times
            of_x, of_drive = onwards[kind]
            torch.mm(of_x, given, out=there[1]).addmm_(of_drive, drive)
            here, there = there, here
        self._carried = here[0].view(kinds, count, -1)

    def _reaching(self, powers: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, list[int]]:
        """Return the powers that reach the group, shape (row, power, number), and which ones these are."""
        reaching = [power for power, rows in enumerate(powers) if not self._sizes.keys().isdisjoint(rows)]
        every = [self._together(powers[power]) for power in reaching]
        if not every:
            return self._carried[:0, :0], reaching
        return every[0][:, None] if len(every) == 1 else torch.stack(every, dim=1), reaching

    def _together(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return the group's part of states side by side, shape (row, number)."""
        like = next(iter(rows.values()))
        parts = [
            rows[name].flatten(1) if name in rows else like.new_zeros(len(like), size)
            for name, size in self._sizes.items()
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _groups(system: System) -> list[_Group]:
    """Return groups of all populations, small ones together: calls for sums of few numbers take longer than these."""
    sizes: list[dict[str, int]] = []
    for name, place in system.places():
        size = place.stop - place.start
        if sizes and sum(sizes[-1].values()) + size <= _FEW_NUMBERS:
            sizes[-1][name] = size
        else:
            sizes.append({name: size})
    starts = accumulate((sum(each.values()) for each in sizes), initial=0)
    return [_Group(each, start) for each, start in zip(sizes, starts, strict=False)]


class _Powers:
    """Powers of N of several states side by side, by population.

    In a deep network, each is scaled by one factor for all that it is applied to, so that none overflows nor vanishes.

    Parameters
    ----------
    system
        The system.
    zero
        A state of 0, to be read.
    """

    def __init__(self, system: System, zero: State) -> None:
        self._system, self._zero = system, zero
        self.logs = [0.0]
        """The logarithm of the scale of each power."""
        self.products = 0

    def of(self, drives: dict[str, Tensor], start: dict[str, Tensor]) -> Iterator[Sequence[dict[str, Tensor]]]:
        """Yield the powers of N times drives and a start, shape (row, sample, …), without the populations not reached.

        The scales are those of the first states that have such a power, of all together. A start at rest takes no
        products.
        """
        deep, power = len(self._system.dynamic) > SHORT, 0
        several = drives, start
        rest = not any(bool(each.any()) for each in start.values())
        while any(several):
            if power == len(self.logs):
                size = max(_size(rows) for rows in several) if deep else 0.0
                self.logs.append(self.logs[-1] + (math.log(size) if size > 0.0 else 0.0))
            if power and deep:
                scale = math.exp(self.logs[power] - self.logs[power - 1])
                drives, start = ({name: each / scale for name, each in rows.items()} for rows in several)
                several = drives, start
            yield several
            drives, start = several
            several = self._image(drives), self._reached(start) if rest else self._image(start)
            power += 1

    def _image(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        self.products += bool(rows)
        return couple_rows(self._system, self._zero, rows) if rows else rows

    def _reached(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return N times states of 0, which is 0 where these reach."""
        system, read = self._system, set(rows)
        for name in system.instantaneous:
            if any(not read.isdisjoint(entry.reads) for entry in system.equations[name].moving):
                read.add(name)
        reached = [n for n in system.dynamic if any(not read.isdisjoint(e.reads) for e in system.equations[n].moving)]
        count = max(map(len, rows.values()), default=0)
        zeros = {name: self._zero.activity[name] for name in reached}
        return {name: zero.expand(count, *zero.shape) for name, zero in zeros.items()}


class _Weights:
    """What the powers of x, a, b and, of signals that move within pieces, b′ weigh in x(t) and in its powers.

    Parameters
    ----------
    logs
        The logarithms of the scales of the powers.
    rate
        λ.
    like
        A tensor of the weights' dtype and device.
    ramped
        Whether there is a b′.
    """

    def __init__(self, logs: Sequence[float], rate: float, like: Tensor, *, ramped: bool) -> None:
        self._logs, self._rate, self._like, self._ramped = np.array(logs), rate, like, ramped

    def of_states(self, times: NDArray[np.float64], lengths: NDArray[np.float64]) -> Tensor:
        """Return those in x at some times of pieces of some lengths, shape (time, kind, power)."""
        return self._tensor(self._kinds(times, lengths) * np.exp(self._logs))

    def of_powers(self, lengths: NDArray[np.float64]) -> Tensor:
        """Return those in the powers of x at the ends of pieces, shape (length, power of x, kind, power)."""
        kinds, logs = self._kinds(lengths, lengths), self._logs
        table = np.zeros((len(kinds), len(logs), *kinds.shape[1:]))
        for power in range(len(logs)):
            table[:, power, :, power:] = kinds[..., : len(logs) - power] * np.exp(logs[power:] - logs[power])
        return self._tensor(table)

    def _kinds(self, times: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        c, d, g = _coefficients(times, len(self._logs), self._rate)
        risen = g / lengths[:, None]
        return np.stack([c, d, d - risen, risen] if self._ramped else [c, d, d], axis=1)

    def _tensor(self, table: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(table, dtype=self._like.dtype, device=self._like.device)


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


def _size(rows: Mapping[str, Tensor]) -> float:
    """Return the largest number of several blocks; 0 where that is no scale."""
    size = max((float(torch.linalg.vector_norm(each, ord=math.inf)) for each in rows.values()), default=0.0)
    return size if math.isfinite(size) else 0.0
