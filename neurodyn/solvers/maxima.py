"""Units that compete for a maximum: how they move while the largest of a window is pulled on."""

from __future__ import annotations

from collections.abc import Sequence

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

    def see(self, x: Tensor) -> None:
        """Look at the activity that a step starts from."""
        self._seen[0] = self._windows.maxima(x)

    def accept(self) -> None:
        """Take where the last slope was taken as what the next step starts from."""
        self._seen[0] = self._seen[-1]

    def begin(self, x: Tensor) -> None:
        """Begin a step at x: find the windows in which several units are the largest, or the largest is at its kink."""
        largest, _ = self._seen[0]
        units = self._windows.of(x)
        tied = (units == largest[(..., *[None] * self._axes)]).flatten(-self._axes).sum(-1) > 1
        self._positive = largest > 0.0
        self._meeting = tied & self._positive | (largest == 0.0) if self._windows.rectified else tied

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
        chosen = self._meeting.nonzero(as_tuple=True) if out.is_cpu else (slice(None),)
        unit_places, units = self._units(x, chosen)
        own = torch.take(x, units)
        rest, pull = torch.zeros_like(own), own.new_zeros(len(own), 1)
        for (weight, slope, jump), (top, place) in zip(slopes, self._seen, strict=False):
            if not weight:
                continue
            v = torch.take(jump, units[:, :1])
            pulled = unit_places == place[chosen].reshape(-1, 1)
            if self._windows.rectified:
                pulled &= top[chosen].reshape(-1, 1) > 0.0
            rest = rest + weight * (torch.take(slope, units) - torch.where(pulled, v, 0.0))
            pull = pull + weight * v
        end = _flow(own, rest, pull, time, rectified=self._windows.rectified)
        if out.is_cpu:
            out.put_(units, end)
            top, unit = end.max(1, keepdim=True)  # the first of equal ones, as `Windows.maxima`
            largest[chosen], places[chosen] = top[:, 0], unit_places.gather(1, unit)[:, 0]
        else:
            view, meeting = self._windows.of(out), self._meeting[(..., *[None] * self._axes)]
            view.copy_(torch.where(meeting, end.view(view.shape), view))
            largest, places = self._windows.maxima(out)
        if stage is not None:
            self._seen[stage] = largest, places

    def motion(self, x: Tensor, slope: Tensor, jump: Tensor, out: Tensor) -> None:
        """Write dx/dt at x into `out`, given F and v there."""
        top, place = self._seen[0]
        unit_places, units = self._units(x, (slice(None),))
        v = torch.take(jump, units[:, :1])
        pulled = unit_places == place.reshape(-1, 1)
        if self._windows.rectified:
            pulled &= top.reshape(-1, 1) > 0.0
        rest = torch.take(slope, units) - torch.where(pulled, v, 0.0)
        velocity, _, _ = _velocity(torch.take(x, units), rest, v, rectified=self._windows.rectified)
        view = self._windows.of(out)
        view.copy_(velocity.view(view.shape))

    def _units(self, x: Tensor, chosen: tuple[Tensor | slice, ...]) -> tuple[Tensor, Tensor]:
        """Return the places of the units of windows as `Windows.places`, and among all of x, shape (window, unit)."""
        *before, size = x.flatten(-self._axes).shape
        places = self._windows.places(x)
        first = torch.arange(0, x.numel(), size, device=x.device).view(*before, *[1] * self._axes)
        windows = (*before, *places.shape[:-1])
        own = places.expand(*windows, -1)[chosen].flatten(0, -2)
        return own, own + first.expand(windows)[chosen].reshape(-1, 1)


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
