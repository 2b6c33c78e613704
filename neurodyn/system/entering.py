"""What enters a linear system under signals: F at a state of 0, at the ends of many pieces of time at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.system.couplings import couple_rows
from neurodyn.system.system import System


class Entering:
    """F at a state of 0: what signals contribute to it, at many moments, and the rest, which stands still.

    Parameters
    ----------
    system
        A linear system under signals.
    duration
        The end of the run.
    """

    def __init__(self, system: System, duration: float) -> None:
        self._system = system
        self.zero = system.new_state(torch.zeros(system.size, dtype=system.dtype, device=system.device))
        """A state of 0, to be read."""
        self.ramped = system.timeline.moves_within_steps
        """Whether signals move within pieces, which then have two moments: their start and their end."""
        self.stride = 2 if self.ramped and len(system.timeline.jumps(duration)) else 1
        """How many moments later the next piece starts: at the end of this one, where nothing jumps."""
        self.still = system.new_state()
        """What does not change."""
        if system.has_offsets or system.instantaneous:
            system.timeline.enter(0.0)
            system.field(self.zero, self.still, 0.0)
            for name, (change,) in self.at([(0.0, 0.0)]).items():
                self.still.activity[name].sub_(change)
        else:
            for name in system.dynamic:
                system.equations[name].stand(self.still.activity[name])

    def moments(self, ends: NDArray[np.float64]) -> list[tuple[float, float]]:
        """Return the moments of pieces in a row, given when they begin and end; those of piece p from p · `stride` on.

        Each is a time, after that at which its piece begins.
        """
        pieces = list(pairwise(ends.tolist()))
        starts = [(start, start) for start, _ in pieces]
        if self.stride == 2:
            return [moment for both in zip(starts, pieces, strict=True) for moment in both]
        return starts + pieces[-1:] if self.ramped else starts

    def at(self, moments: Sequence[tuple[float, float]]) -> dict[str, Tensor]:
        """Return what signals contribute at some moments to each population that they enter, shape (moment, sample, …).

        It is to be read.
        """
        return couple_rows(self._system, self.zero, self._system.timeline.over(moments))
