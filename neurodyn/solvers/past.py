"""What a solver leaves of its steps for couplings with delays: the states between, at the order of its method."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.solvers.base import hermite
from neurodyn.system.delays import Past
from neurodyn.system.state import State
from neurodyn.system.system import System

_CUBIC = 4
"""The order of a method up to which a cubic between two states keeps it."""


class _Moment(NamedTuple):
    """Populations at the end of a step, and their slopes; none where steps are straight."""

    time: float
    activity: dict[str, Tensor]
    slopes: dict[str, Tensor]


class _Between(NamedTuple):
    """A step of fixed size: a cubic between its ends where their slopes are known, otherwise a straight line."""

    end: float
    first: _Moment
    last: _Moment

    def write(self, name: str, time: float, out: Tensor) -> None:
        """Write the activity of a population at a time of the step into `out`."""
        end, (start, activity, slopes), (_, activity_after, slopes_after) = self
        h = end - start
        if time > end - 1e-9 * h:
            out.copy_(activity_after[name])
            return
        theta = (time - start) / h
        if not slopes:
            torch.lerp(activity[name], activity_after[name], theta, out=out)
        else:
            slope, slope_after = slopes[name], slopes_after[name]
            hermite(activity[name], slope, activity_after[name], slope_after, h=h, theta=theta, out=out)


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
        self._names, self._device = tuple(system.timeline.past.names), system.device
        self._straight = order == 1 or bool(system.noisy)
        self._last: _Moment | None = None
        self._free: list[dict[str, Tensor]] = []
        """Memory of what has been forgotten: fresh memory costs more than what is written into it."""

    def reach(self, time: float, state: State, slope: State) -> None:
        """Take up the end of a step, with the slope by which it ends."""
        moment = _Moment(time, self._kept(state), {} if self._straight else self._kept(slope))
        if self._last is not None and time > self._last.time:
            self._past.extend(time, _Between(time, self._last, moment))
        self._last = moment

    def turn(self, slope: State) -> None:
        """Take up the slope by which the next step begins, where it is another one."""
        if self._last is not None and not self._straight:
            self._last = _Moment(self._last.time, self._last.activity, self._kept(slope))

    def forget(self, time: float) -> None:
        """Let go of what no step from a time on reads."""
        for piece in self._past.forget(time):
            assert isinstance(piece, _Between), "which it has extended the past by"
            self._free.append(piece.first.activity)
            if piece.first.slopes:
                self._free.append(piece.first.slopes)

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

    def _moment(self, time: float, *kept: dict[str, Tensor]) -> _Moment:
        return _Moment(time, *({name: block.to(self._device) for name, block in each.items()} for each in kept))

    def _kept(self, state: State) -> dict[str, Tensor]:
        if not self._free:
            return {name: state.activity[name].clone() for name in self._names}
        kept = self._free.pop()
        for name, block in kept.items():
            block.copy_(state.activity[name])
        return kept


@dataclass(frozen=True)
class Polynomials:
    """A step whose dense output is a polynomial in θ, from 0 to 1.

    Parameters
    ----------
    start, end
        When it starts, and when it ends.
    coefficients
        Those of θ⁰, θ¹, … of each population, shape (power, n).
    """

    start: float
    end: float
    coefficients: dict[str, Tensor]

    def write(self, name: str, time: float, out: Tensor) -> None:
        """Write the activity of a population at a time of the step into `out`."""
        theta = (time - self.start) / (self.end - self.start)
        *others, total = self.coefficients[name].unbind()
        flat = out.view(-1)
        for coefficient in reversed(others):  # Horner's scheme: a device would wait for a tensor of the powers
            total = torch.add(coefficient, total, alpha=theta, out=flat)


def refuse_order(system: System, what: str, order: int, *, dense: bool) -> None:
    """Refuse a method whose states between the steps are of a lower order than it is, where delays read them."""
    if system.echoes.dynamic and order > _CUBIC and not dense:
        raise InvalidValueError(
            f"solver: {what} is of order {order}, and the cubic between its steps, which the delay of coupling "
            f"{system.echoes.couplings[0]} reads, of order {_CUBIC}; take a method of that order at most, or Adaptive()"
        )
