"""The steps of a fixed size: when they end, and what noise adds in each."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.system.system import System


class Steps:
    """When steps end: at multiples of h, where signals jump, and at the end of the run."""

    def __init__(self, step: float, duration: float, jumps: NDArray[np.float64]) -> None:
        self._step, self._duration, self._jumps = step, duration, jumps.tolist()
        self._count = steps_of(duration, step)
        self._taken = self._passed = 0
        self.at_jump = False
        """Whether the last step ended where a signal jumps."""
        self._cut = False

    def kept(self) -> tuple[int, int, bool, bool]:
        """Return how far they have come."""
        return self._taken, self._passed, self.at_jump, self._cut

    def load(self, kept: tuple[int, int, bool, bool]) -> None:
        """Go on from what `kept` returned."""
        self._taken, self._passed, self.at_jump, self._cut = kept

    def next(self) -> float:
        """Return when the next step ends."""
        after = self._duration if self._taken + 1 == self._count else (self._taken + 1) * self._step
        jump = self._jumps[self._passed] if self._passed < len(self._jumps) else math.inf
        self.at_jump = jump <= after + 1e-9 * self._step
        self._passed += self.at_jump
        self._cut = jump < after - 1e-9 * self._step
        if self._cut:
            return float(jump)
        self._taken += 1
        return float(jump) if self.at_jump and after < self._duration else after

    def ahead(self, time: float, count: int) -> list[float]:
        """Return when the next steps end, given when the last one has: so many, or those up to a jump or the end."""
        kept, ends = self.kept(), [time]
        while len(ends) <= count and ends[-1] < self._duration:
            ends.append(self.next())
            if self.at_jump:
                break
        self.load(kept)
        return ends[1:]

    def whole(self, count: int, before: float) -> bool:
        """Tell whether so many steps to come are of size h, and end before a time, without a jump."""
        ends = self._taken + count
        jump = self._jumps[self._passed] if self._passed < len(self._jumps) else math.inf
        return not self._cut and ends < self._count and ends * self._step < min(before, jump - 1e-9 * self._step)


def steps_of(duration: float, step: float) -> int:
    """Return how many steps of a size it takes, the last of them shortened where need be."""
    return max(1, math.ceil(parts_of(duration, step) - 1e-9))


def parts_of(duration: float, step: float) -> float:
    """Return duration / step.

    Raises
    ------
    ValueError
        If steps are so many that they do not end at times of their own.
    """
    parts = duration / step
    if parts > 2**53:
        raise InvalidValueError(
            f"step: {step:g} is too short beside a duration of {duration:g}, in which double precision tells no such "
            "times apart; take a longer one"
        )
    return parts


class StepNoise:
    """What the noise adds in the steps of a run, whose times count from its start."""

    def __init__(self, system: System, step: float) -> None:
        self.paths, self._origin = system.paths(step), system.timeline.origin
        self._last: Tensor | None = None

    def gained(self, start: float, end: float) -> Tensor | None:
        """Return σ ΔW of a step; None where there is no noise."""
        if self.paths is None or end <= start:
            return None
        self._last = self.paths.gained(self._origin + start, self._origin + end)
        return self._last

    def between(self, x: Tensor, y: Tensor, time: float, moment: float, theta: float, out: Tensor) -> None:
        """Write the state at a moment within the last step, from x to y, into `out`."""
        assert self.paths is not None
        assert self._last is not None
        torch.lerp(x, y - self._last, theta, out=out)
        out.add_(self.paths.gained(self._origin + time, self._origin + moment))
