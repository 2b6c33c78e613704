"""Noise: Brownian paths over absolute time, that neither steps nor batches nor what is recorded change.

Time is cut into cells, each of these into halves, and so on down to the step. What the path gains over a cell is drawn,
and what of it the left half gains is drawn by Lévy's construction: half of it, plus √length / 2 · N(0, 1). Every number
is a function of the seed, the sample, the population, the unit and the cell, so that a path can be entered anywhere,
and half the step cuts the same cells once more.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neurodyn.checks import whole
from neurodyn.errors import InvalidTypeError, InvalidValueError

Seed = int | Sequence[int] | ArrayLike | Tensor | None
"""A number; one for each sample; or shape (network, sample), where stacked networks have paths of their own."""

_COARSEST = 10
"""The first cells are less than two to this power of units of time long, and at least half as long."""
_FINEST = 40
"""How often the cell of a step is halved to find where the path is within."""
_ON_GRID = 1e-6
"""How close to a step's end, in steps, a time is there."""
_TOGETHER = 6
"""The steps of a cell that many halvings above them are drawn at once, where they are few numbers."""
_MOST_TOGETHER = 2**17
"""How many numbers are drawn at once at most, where one step takes fewer."""
_MASK = 2**64 - 1


def seeds_of(seed: Seed, members: int, samples: int) -> np.ndarray:
    """Return a number for each sample, shape (member · sample,), from which alone it draws.

    Parameters
    ----------
    seed
        A number, of which and its place each sample makes its own; one for each sample; or likewise for each network.
    members
        How many networks there are.
    samples
        How many samples each has.

    Raises
    ------
    TypeError, ValueError
        If they are no integers ≥ 0, or not as many.
    """
    if isinstance(seed, (int, np.integer)):
        number = whole("seed", seed, least=0)  # type: ignore[arg-type]
        own = np.array([_mixed(_mixed(number) ^ place) for place in range(samples)], dtype=np.uint64)
        return np.tile(own, members)
    given = _integers(seed)
    if given.shape not in ((samples,), (members, samples)) or (given.ndim == 2 and members == 1):
        raise InvalidValueError(
            f"seed has the shape {given.shape}, and the run {samples} samples"
            + (f" of {members} networks: a number, ({samples},), or ({members}, {samples})" if members > 1 else "")
        )
    if (given < 0).any():
        raise InvalidValueError("seed: each must be ≥ 0")
    own = np.array([_mixed(int(each)) for each in given.ravel()], dtype=np.uint64)
    return own if given.ndim == 2 else np.tile(own, members)


def _integers(seed: Seed) -> np.ndarray:
    """Return the numbers of a seed that is not one number."""
    refused = InvalidTypeError(f"seed must be an integer ≥ 0, or one for each sample, not {seed!r}")
    try:
        given = np.asarray(seed.cpu() if isinstance(seed, Tensor) else seed)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise refused from error
    if given.dtype.kind not in "iu" or not given.size:
        raise refused
    return given


def entropy_of(seed: Seed) -> int:
    """Return one number for all that a run draws from PyTorch's, NumPy's and Python's generators.

    Raises
    ------
    TypeError, ValueError
        If the seed is none.
    """
    if isinstance(seed, (int, np.integer)):
        return whole("seed", seed, least=0)  # type: ignore[arg-type]
    entropy = 0
    for each in _integers(seed).ravel().tolist():
        entropy = _mixed(entropy ^ whole("seed", each, least=0))
    return entropy >> 1


def seed_text(seed: Seed) -> int | str:
    """Return a seed as an attribute of a dataset."""
    return int(seed) if isinstance(seed, (int, np.integer)) else str(np.asarray(seed).tolist())


class BrownianPaths:
    """σ W(t) of the noisy populations of a system, one path a unit and sample.

    Parameters
    ----------
    sigmas
        σ of each noisy population, a number or a tensor of its shape.
    places
        Where the block of each dynamic population is in a flat state, and the shape of a sample.
    seeds
        What `seeds_of` gives.
    step
        The step h.
    like
        A flat state.
    """

    def __init__(
        self,
        sigmas: Mapping[str, float | Tensor],
        places: Mapping[str, tuple[slice, tuple[int, ...]]],
        seeds: np.ndarray,
        step: float,
        like: Tensor,
    ) -> None:
        self._step = step
        fraction, exponent = math.frexp(step)
        self._levels = _COARSEST - exponent
        if self._levels < 0:
            raise InvalidValueError(f"step: {step:g} is too long for noise, whose steps are below {2**_COARSEST}")
        self._coarsest = fraction * 2.0**_COARSEST
        self._sigma = torch.zeros_like(like, dtype=torch.float64)
        keys = np.zeros(like.numel(), dtype=np.uint64)
        for name, sigma in sigmas.items():
            place, shape = places[name]
            units = math.prod(shape)
            own = torch.as_tensor(sigma, device=like.device).detach().to(self._sigma).expand(shape).reshape(-1)
            self._sigma[place] = own.repeat(len(seeds))
            of_units = np.arange(units, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            of_name = np.uint64(_mixed(zlib.crc32(name.encode())))
            keys[place] = ((seeds[:, None] ^ of_name) + of_units).ravel()
        self._keys = torch.from_numpy(keys.view(np.int64)).to(like.device)
        self._like = like
        few = _MOST_TOGETHER // max(1, like.numel())
        self._together = min(_TOGETHER, self._levels, max(1, few).bit_length() - 1)
        """How many halvings above the steps those cells are whose steps are drawn at once."""
        self._cells: list[tuple[int, tuple[Tensor, Tensor]] | None] = [None] * (self._levels - self._together + 1)
        """Of each level, the last cell that was cut, and what the path gains over its halves; the first is not cut."""
        self._drawn: tuple[int, Tensor, Tensor] | None = None
        """The last of those cells, and what the path gains in its steps, before and after σ."""

    def gained(self, start: float, end: float) -> Tensor:
        """Return what each unit's path gains between two times, shape (n,)."""
        first, last = start / self._step, end / self._step
        whole_first, whole_last = round(first), round(last)
        starts_on, ends_on = abs(first - whole_first) < _ON_GRID, abs(last - whole_last) < _ON_GRID
        if starts_on and ends_on and whole_last == whole_first + 1:
            place, _, scaled = self._steps(whole_first)
            return scaled[place]
        total = torch.zeros_like(self._sigma)
        begin = whole_first if starts_on else math.floor(first)
        stop = whole_last if ends_on else math.floor(last)
        for cell in range(begin, stop):
            total += self._step_gain(cell)
        if not ends_on:
            total += self._within(stop, last - stop)
        if not starts_on:
            total -= self._within(begin, first - begin)
        return self._scaled(total)

    def _scaled(self, gain: Tensor) -> Tensor:
        return (gain * self._sigma).to(self._like)

    def _step_gain(self, index: int) -> Tensor:
        """Return what the paths gain in a step, before σ."""
        place, gains, _ = self._steps(index)
        return gains[place]

    def _steps(self, index: int) -> tuple[int, Tensor, Tensor]:
        """Return the place of a step among those drawn with it, and what the paths gain in these, before and after σ.

        The levels below their common cell are cut one after the other, with numbers that are drawn at once.
        """
        top, place = divmod(index, 2**self._together)
        if self._drawn is None or self._drawn[0] != top:
            level = self._levels - self._together
            gains = self._cell(level, top)[None]
            parents = [
                (level + 1 + below, (top << below) + parent)
                for below in range(self._together)
                for parent in range(2**below)
            ]
            widths = [2**below for below in range(self._together)]
            drawn = torch.split(self._normal(parents), widths) if parents else ()
            for below, normal in enumerate(drawn):
                halves = self._cut(level + 1 + below, gains, normal)
                gains = torch.stack(halves, dim=1).flatten(0, 1)
            self._drawn = top, gains, self._scaled(gains)
        return place, *self._drawn[1:]

    def _cell(self, level: int, index: int) -> Tensor:
        """Return what the paths gain over a cell, before σ."""
        if level == 0:
            kept = self._cells[0]
            if kept is None or kept[0] != index:
                gain = math.sqrt(self._coarsest) * self._normal([(0, index)])[0]
                kept = self._cells[0] = (index, (gain, gain))
            return kept[1][0]
        parent, half = divmod(index, 2)
        kept = self._cells[level]
        if kept is None or kept[0] != parent:
            normal = self._normal([(level, parent)])[0]
            kept = self._cells[level] = (parent, self._cut(level, self._cell(level - 1, parent), normal))
        return kept[1][half]

    def _cut(self, level: int, gain: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the paths gain over the halves of cells, given over the whole, by standard normal numbers."""
        left = torch.mul(gain, 0.5).add_(normal, alpha=0.5 * math.sqrt(self._coarsest * 2.0 ** (1 - level)))
        return left, gain - left

    def _within(self, index: int, fraction: float) -> Tensor:
        """Return what the paths gain from the start of a step's cell to a fraction of it."""
        gain, total = self._step_gain(index), torch.zeros_like(self._sigma)
        cells: list[tuple[int, int]] = []
        beyond: list[bool] = []
        for level in range(self._levels + 1, self._levels + _FINEST + 1):
            cells.append((level, index))
            beyond.append(fraction >= 0.5)
            index, fraction = 2 * index + beyond[-1], 2 * fraction - beyond[-1]
            if fraction == 0.0:
                break
        at_once = max(1, _MOST_TOGETHER // max(1, total.numel()))
        for first in range(0, len(cells), at_once):
            some = cells[first : first + at_once]
            for (level, _), in_right, normal in zip(some, beyond[first:], self._normal(some), strict=False):
                left, right = self._cut(level, gain, normal)
                if in_right:
                    total += left
                gain = right if in_right else left
        return total + fraction * gain

    def _normal(self, cells: Sequence[tuple[int, int]]) -> Tensor:
        """Return a standard normal number for each unit and sample, shape (cell, n), given level and index of each."""
        mixed = [_signed(_mixed(_mixed(level + 1) ^ (index & _MASK))) for level, index in cells]
        own = torch.tensor(mixed, device=self._keys.device)[:, None]
        bits = _mix(_mix(self._keys ^ own).add_(own))
        spread = bits.bitwise_right_shift_(11).bitwise_and_(2**53 - 1).double().add_(0.5).mul_(2.0**-52)
        return spread.sub_(1.0).erfinv_().mul_(math.sqrt(2.0))


def _mixed(value: int) -> int:
    """Return a number of 64 bits that looks random (the finaliser of splitmix64)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _mix(value: Tensor) -> Tensor:
    """Mix integers of 64 bits likewise, in place, whose products wrap around."""
    value.bitwise_xor_((value >> 30).bitwise_and_(2**34 - 1)).mul_(_signed(0xBF58476D1CE4E5B9))
    value.bitwise_xor_((value >> 27).bitwise_and_(2**37 - 1)).mul_(_signed(0x94D049BB133111EB))
    return value.bitwise_xor_((value >> 31).bitwise_and_(2**33 - 1))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
