"""Units that compete for a maximum: how they move while the largest of a window is pulled on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neurodyn.layers.windows import Windows

_MOST_EVENTS = 12
"""How often the units of a window meet in one step; with what is left of it, they go on as they then do."""


class Maxima:
    """The windows of one population, in a step from its state x.

    F_i = L_i, but for the largest unit of each window, where it is F_i = L_i + v; of `Windows.rectified`, only if that
    is above 0. L and v are continuous in the state.

    Parameters
    ----------
    windows
        The windows.
    stages
        How many slopes a step has.
    """

    def __init__(self, windows: Windows, stages: int) -> None:
        self._windows = windows
        self._axes = len(windows.sizes)
        self._seen: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * stages
        """In each stage, the largest activity of each window, and its place."""
        self._meeting = self._positive = torch.empty(0, dtype=torch.bool)
        self._units = torch.empty(0, dtype=torch.int64)
        """Where the units of each window are among all of x, shape (window, unit)."""
        self._places = self._units
        """Likewise, as `Windows.maxima` tells places: within the axes of the windows."""

    def see(self, x: Tensor) -> None:
        """Look at the activity that a step starts from."""
        self._seen[0] = self._windows.maxima(x)
        if not len(self._units):
            units = self._windows.of(torch.arange(x.numel(), device=x.device).view(x.shape))
            self._units = units.flatten(-self._axes).flatten(0, -2)
            self._places = self._units % x.shape[-self._axes :].numel()

    def accept(self) -> None:
        """Take where the last slope was taken as what the next step starts from."""
        self._seen[0] = self._seen[-1]

    def begin(self, x: Tensor) -> None:
        """Begin a step at x: find the windows in which several units are the largest, or the largest is at its kink."""
        largest, places = self._seen[0]
        others = x.flatten(-self._axes).scatter(-1, places.flatten(-self._axes), -torch.inf).view(x.shape)
        tied = self._windows.maxima(others)[0] == largest
        self._positive = largest > 0.0
        self._meeting = tied & self._positive | (largest == 0.0) if self._windows.rectified else tied

    def align(self, x: Tensor, jump: Tensor, out: Tensor) -> None:
        """Give units that share the pull on a maximum at x the same value of `out`, their mean; 0 where that is 0.

        Shapes (sample, …), `jump` having v of each unit's window.
        """
        self.see(x)
        top = self._seen[0][0].view(-1, 1)
        sharing = (torch.take(x, self._units) == top) & (torch.take(jump, self._units) < 0.0)
        if self._windows.rectified:
            sharing &= top >= 0.0
        own = torch.take(out, self._units)
        mean = torch.where(sharing, own, 0.0).sum(1, keepdim=True) / sharing.sum(1, keepdim=True).clamp(min=1)
        if self._windows.rectified:
            mean = torch.where(top == 0.0, 0.0, mean)
        view = self._windows.of(out)
        view.copy_(torch.where(sharing, mean, own).view(view.shape))

    def gaps(self, x: Tensor, out: Tensor) -> None:
        """Write how far units are below the largest of their window, or that is from 0, into `out`; ∞ where at it."""
        self.see(x)
        top = self._seen[0][0].view(-1, 1)
        gap = top - torch.take(x, self._units)
        if self._windows.rectified:
            gap = torch.where(gap == 0.0, top.abs(), gap)
        view = self._windows.of(out)
        view.copy_(torch.where(gap == 0.0, torch.inf, gap).view(view.shape))

    def advance(
        self,
        x: Tensor,
        slopes: Sequence[tuple[float, Tensor, Tensor]],
        time: float,
        out: Tensor,
        stage: int | None = None,
    ) -> None:
        """Correct `out`, which holds x + time · Σ weight · slope, where the largest of a window changes on the way.

        Parameters
        ----------
        x, out
            Shape (sample, …).
        slopes
            Of each stage its weight, F, and v of each unit's window; the weights add up to 1.
        time
            For how long.
        stage
            Whose slope is taken at `out`, if any.
        """
        largest, places = self._windows.maxima(out)
        changed = places != self._seen[0][1]
        if self._windows.rectified:
            positive = largest > 0.0
            changed &= positive | self._positive
            changed |= positive ^ self._positive
        self._meeting |= changed
        # Where a device would have to be waited for, all are seen to.
        chosen = torch.from_numpy(np.flatnonzero(self._meeting.numpy())) if out.is_cpu else slice(None)
        units, unit_places = self._units[chosen], self._places[chosen]
        own = torch.take(x, units)
        rest, pull = torch.zeros_like(own), own.new_zeros(len(own), 1)
        for (weight, slope, jump), (top, place) in zip(slopes, self._seen, strict=False):
            if not weight:
                continue
            v = torch.take(jump, units[:, :1])
            pulled = self._pulled(unit_places, top.view(-1, 1)[chosen], place.view(-1, 1)[chosen])
            rest = rest + weight * (torch.take(slope, units) - torch.where(pulled, v, 0.0))
            pull = pull + weight * v
        end = _flow(own, rest, pull, time, rectified=self._windows.rectified)
        if out.is_cpu:
            out.put_(units, end)
            top, unit = end.max(1, keepdim=True)  # the first of equal ones, as `Windows.maxima`
            largest.view(-1, 1)[chosen], places.view(-1, 1)[chosen] = top, unit_places.gather(1, unit)
        else:
            view, meeting = self._windows.of(out), self._meeting[(..., *[None] * self._axes)]
            view.copy_(torch.where(meeting, end.view(view.shape), view))
            largest, places = self._windows.maxima(out)
        if stage is not None:
            self._seen[stage] = largest, places

    def _pulled(self, units: Tensor, top: Tensor, place: Tensor) -> Tensor:
        """Tell which units of windows v pulls on, given the places of all, and the largest and its place."""
        pulled = units == place
        return pulled & (top > 0.0) if self._windows.rectified else pulled

    def motion(self, x: Tensor, slope: Tensor, jump: Tensor, out: Tensor) -> None:
        """Write dx/dt at x into `out`, given F and v there."""
        top, place = self._seen[0]
        v = torch.take(jump, self._units[:, :1])
        pulled = self._pulled(self._places, top.view(-1, 1), place.view(-1, 1))
        rest = torch.take(slope, self._units) - torch.where(pulled, v, 0.0)
        velocity, _, _ = _velocity(torch.take(x, self._units), rest, v, rectified=self._windows.rectified)
        view = self._windows.of(out)
        view.copy_(velocity.view(view.shape))


def _velocity(x: Tensor, rest: Tensor, pull: Tensor, *, rectified: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx/dt of units, that of the largest of each window, and that largest activity.

    Where v < 0 and several are the largest, they share v as lets them fall side by side (Filippov's sliding mode):
    Σ (L_i − c)₊ = −v for their speed c, below which one falls behind. Where v > 0, the one that is ahead takes it all.

    Parameters
    ----------
    x, rest
        The activity, and L, shape (window, unit).
    pull
        v, shape (window, 1).
    rectified
        Whether a maximum below 0 is not pulled on, so that at 0 it is held there by a part of v.
    """
    largest = x.amax(1, keepdim=True)
    at_top = x == largest
    below = rest.new_tensor(-torch.inf)
    own = torch.where(at_top, rest, below)
    ahead, leader = own.max(1, keepdim=True)
    ordered = own.sort(1, descending=True).values
    counts = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    speeds = (ordered.cumsum(1) + pull) / counts
    sharing = (ordered >= speeds) & ordered.isfinite()
    speed = speeds.gather(1, sharing.sum(1, keepdim=True).clamp(min=1) - 1)
    if rectified:
        at_zero = largest == 0.0
        speed = torch.where(at_zero, speed.clamp(min=0.0), speed)
        pulled = (largest > 0.0) | at_zero & ((pull < 0.0) | (ahead > 0.0))
    else:
        pulled = torch.ones_like(pull, dtype=torch.bool)
    down = torch.where(at_top, torch.minimum(rest, speed), rest)
    leads = torch.zeros_like(at_top).scatter_(1, leader, True)
    up = torch.where(leads, rest + pull, rest)
    velocity = torch.where(pulled, torch.where(pull < 0.0, down, up), rest)
    return velocity, torch.where(at_top, velocity, below).amax(1, keepdim=True), largest


def _flow(x: Tensor, rest: Tensor, pull: Tensor, time: float, *, rectified: bool) -> Tensor:
    """Return where units are after a time, from one event to the next, L and v being constant; as `_velocity`."""
    left = torch.full_like(pull, time)
    never = x.new_tensor(torch.inf)
    for _ in range(_MOST_EVENTS):
        velocity, of_top, largest = _velocity(x, rest, pull, rectified=rectified)
        at_top = x == largest
        overtakes = ~at_top & (velocity > of_top)
        meeting, first = torch.where(overtakes, (largest - x) / (velocity - of_top), never).min(1, keepdim=True)
        # each sign of a maximum has its own law
        arrival = torch.where(largest * of_top < 0.0, -largest / of_top, never) if rectified else never
        step = torch.minimum(torch.minimum(meeting, arrival), left)
        top = torch.where(arrival <= step, 0.0, largest + step * of_top)
        joins = torch.zeros_like(at_top).scatter_(1, first, True) & (meeting <= step)
        x = torch.where(at_top & (velocity == of_top) | joins, top, x + step * velocity)
        left = left - step
        if x.is_cpu and not left.any():
            return x
    return x + left * _velocity(x, rest, pull, rectified=rectified)[0]
