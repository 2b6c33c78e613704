"""The linear part of a linear system: dx/dt = A x + b, with A = −leak/τ + N."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.network.vectors import Vector
from neurodyn.system.couplings import couple
from neurodyn.system.state import State
from neurodyn.system.system import System


def rates(system: System) -> dict[str, Vector]:
    """Return leak/τ of each dynamic population."""
    return {p.name: p.leak / p.tau * system.pace(p.name) for p in system.free if not p.instantaneous}


class LinearPart:
    """A of a system that is linear in its state, without the constants b and the maps' offsets.

    Parameters
    ----------
    system
        A linear system.
    """

    def __init__(self, system: System) -> None:
        self._system, self._rates = system, rates(system)
        self.offset: Tensor | None = None
        """What the maps make of a state of 0, shape (n,), where there are any that have an offset."""
        if system.has_offsets:
            zero, made = system.new_state(torch.zeros_like(system.new_state().flat)), system.new_state()
            couple(system, zero, made)
            self.offset = made.flat

    def apply(self, state: State, out: State) -> None:
        """Write A x into `out`."""
        couple(self._system, state, out)
        if self.offset is not None:
            out.flat.sub_(self.offset)
        for name, rate in self._rates.items():
            if isinstance(rate, Tensor):
                out.activity[name].addcmul_(state.activity[name], rate, value=-1.0)
            else:
                out.activity[name].sub_(state.activity[name], alpha=rate)
