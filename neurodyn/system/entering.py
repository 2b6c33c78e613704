"""What enters a linear system under signals: F at a state of 0, at the ends of many pieces of time at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurodyn.system.couplings import constants, driven_alone
from neurodyn.system.moments import first_of, repeated_at, take_off
from neurodyn.system.state import State
from neurodyn.system.system import System


class Entering:
    """F at a state of 0: as the run starts, and by how much it is another one later."""

    def __init__(self, system: System, duration: float) -> None:
        self._system = system
        self.names = driven_alone(system)
        """The dynamic populations that signals enter; None where they pass through instantaneous ones."""
        self.ramped = system.timeline.moves_within_steps
        """Whether signals move within pieces."""
        self._jumps = len(system.timeline.jumps(duration)) > 0
        self.still = system.new_state()
        """F at a state of 0 as the run starts."""
        system.timeline.enter(0.0)
        system.field(system.new_state(torch.zeros_like(self.still.flat)), self.still, 0.0)
        self._reference: Tensor | None = None

    def over(self, pieces: Sequence[tuple[float, float]]) -> tuple[System, State, int]:
        """Return by how much F is another one at the starts of pieces, side by side; and then at ends, if it is ramped.

        Where nothing jumps, the end of a piece is the start of the next one, and only that of the last is added.

        Returns
        -------
        repeated, change, count
            The system `repeated_at` so many moments, and its state.
        """
        moments = [(start, start) for start, _ in pieces]
        if self.ramped:
            moments += pieces if self._jumps else pieces[-1:]
        repeated = repeated_at(self._system, moments)
        change = repeated.new_state()
        if self.names is None:
            repeated.field(repeated.new_state(torch.zeros_like(change.flat)), change)
        else:  # no product of what is 0
            constants(repeated, self.names, change)
        if self._reference is None:
            self._reference = first_of(self._system, change.flat, len(moments))
        take_off(self._system, self._reference, change, len(moments))
        return repeated, change, len(moments)
