"""What a solver leaves of its steps for couplings with delays: the states between, at the order of its method."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import accumulate, repeat
from operator import mul
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.solvers.base import hermite
from neurodyn.system.delays import Past, part
from neurodyn.system.state import State
from neurodyn.system.system import System

_CUBIC = 4
"""The order of a method up to which a cubic between two states keeps it."""


class _Moment(NamedTuple):
    """What is kept of the state at the end of a step, and of its slope; None where steps are straight."""

    time: float
    x: Tensor
    slope: Tensor | None


class _Between(NamedTuple):
    """A step of fixed size: a cubic between its ends where their slopes are known, otherwise a straight line."""

    end: float
    first: _Moment
    last: _Moment

    def write(self, place: slice | None, time: float, out: Tensor) -> None:
        """Write a place of what is kept of the state, at a time of the step, into `out`."""
        end, (start, x, slope), (_, after, slope_after) = self
        h = end - start
        if time > end - 1e-9 * h:
            out.copy_(part(after, place))
        elif slope is None or slope_after is None:
            torch.lerp(part(x, place), part(after, place), (time - start) / h, out=out)
        else:
            ends = (part(each, place) for each in (x, slope, after, slope_after))
            hermite(*ends, h=h, theta=(time - start) / h, out=out)

    def write_over(self, place: slice | None, times: Sequence[float], out: Tensor, rows: Sequence[Tensor]) -> None:
        for time, row in zip(times, rows, strict=True):
            self.write(place, time, row)


class FixedPast:
    """The past that a method of fixed step leaves.

    Parameters
    ----------
    system
        The system, at its start.
    order
        The order of the method; one of order 1, and noise, take straight lines.
    """

    def __init__(self, system: System, order: int) -> None:
        assert system.timeline.past is not None, "a system with delays has one from its start on"
        self._past: Past = system.timeline.past
        self._device = system.device
        self._straight = order == 1 or bool(system.noisy)
        self._last: _Moment | None = None

    def reach(self, time: float, state: State, slope: State) -> None:
        """Take up the end of a step, with the slope by which it ends."""
        moment = _Moment(time, self._kept(state), None if self._straight else self._kept(slope))
        if self._last is not None and time > self._last.time:
            self._past.extend(time, _Between(time, self._last, moment))
        self._last = moment

    def turn(self, slope: State) -> None:
        """Take up the slope by which the next step begins, where it is another one."""
        if self._last is not None and not self._straight:
            self._last = self._last._replace(slope=self._kept(slope))

    def forget(self, time: float) -> None:
        """Let go of what no step from a time on reads."""
        self._past.forget(time)

    def kept(self) -> dict[str, Any]:
        """Return copies of the steps that are kept, and of the last end."""
        pieces = []
        for _, piece in self._past.steps():
            assert isinstance(piece, _Between), "which it has extended the past by"
            pieces.append((tuple(piece.first), tuple(piece.last)))
        last = None if self._last is None else tuple(self._last)
        return copy.deepcopy({"pieces": pieces, "last": last})  # what steps share is copied once

    def load(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `kept` returned."""
        for first, last in kept["pieces"]:
            self._past.extend(last[0], _Between(last[0], self._moment(*first), self._moment(*last)))
        self._last = None if kept["last"] is None else self._moment(*kept["last"])

    def _moment(self, time: float, x: Tensor, slope: Tensor | None) -> _Moment:
        return _Moment(time, x.to(self._device), None if slope is None else slope.to(self._device))

    def _kept(self, state: State) -> Tensor:
        return part(state.flat, self._past.window).clone()


class Polynomials(NamedTuple):
    """A step whose dense output is a polynomial in θ, from 0 to 1.

    Parameters
    ----------
    start, end
        When it starts, and when it ends.
    coefficients
        Those of θ⁰, θ¹, … of what is kept of the state, shape (power, n).
    """

    start: float
    end: float
    coefficients: Tensor

    def write(self, place: slice | None, time: float, out: Tensor) -> None:
        """Write a place of what is kept of the state, at a time of the step, into `out`."""
        theta = (time - self.start) / (self.end - self.start)
        *others, total = (part(each, place) for each in self.coefficients.unbind())
        for coefficient in reversed(others):  # Horner's scheme: a device would wait for a tensor of the powers
            total = torch.add(coefficient, total, alpha=theta, out=out)

    def write_over(self, place: slice | None, times: Sequence[float], out: Tensor, rows: Sequence[Tensor]) -> None:
        start, end, coefficients = self
        powers = []  # of several times in one product, though a device waits for them
        for time in times:
            theta = (time - start) / (end - start)
            powers.append(list(accumulate(repeat(theta, coefficients.shape[0] - 1), mul, initial=1.0)))
        torch.mm(out.new_tensor(powers), coefficients if place is None else coefficients[:, place], out=out)


def refuse_order(system: System, what: str, order: int, *, dense: bool) -> None:
    """Refuse a method whose states between the steps are of a lower order than it is, where delays read them."""
    if system.echoes.dynamic and order > _CUBIC and not dense:
        raise InvalidValueError(
            f"solver: {what} is of order {order}, and the cubic between its steps, which the delay of coupling "
            f"{system.echoes.couplings[0]} reads, of order {_CUBIC}; take a method of that order at most, or Adaptive()"
        )
