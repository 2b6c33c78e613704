"""The linear part of a linear system: dx/dt = A x + b, with A = −leak/τ + N."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from neurodyn.system.couplings import couple
from neurodyn.system.state import State
from neurodyn.system.system import System


class LinearPart:
    """A and N of a system that is linear in its state, without the constants b and the maps' offsets.

    Parameters
    ----------
    system
        A linear system.
    offset
        What the maps make of a state of 0, shape (n,), where that is known already.
    """

    def __init__(self, system: System, offset: Tensor | None = None) -> None:
        self.system = system
        self._reads = system.structure.reads
        self._free = frozenset(p.name for p in system.free)
        self._rates = {p.name: p.leak / p.tau * system.pace(p.name) for p in system.free if not p.instantaneous}
        self.offset = offset
        if system.has_offsets and offset is None:
            zero, made = system.new_state(torch.zeros_like(system.new_state().flat)), system.new_state()
            couple(system, zero, made)
            self.offset = made.flat

    def apply(self, state: State, out: State, moving: Collection[str] | None = None) -> None:
        """Write N x into `out`.

        Parameters
        ----------
        state
            x.
        out
            Where N x goes.
        moving
            The dynamic populations of x that may not be 0; all if None.
        """
        targets = set(self.system.dynamic) if moving is None else self.readers(moving)
        if moving is not None:
            out.flat.zero_()
        silent = self._free - self._active(moving) if moving is not None else frozenset()
        if self.offset is not None:
            silent = silent.difference(self.system.instantaneous)  # which pass offsets on
        couple(self.system, state, out, silent, targets)
        if self.offset is not None:
            for name, place in self.system.places():
                if name in targets:
                    out.flat[place].sub_(self.offset[place])

    def readers(self, moving: Collection[str]) -> set[str]:
        """Return which dynamic populations N carries the populations called `moving` to."""
        active = self._active(moving)
        return {name for name in self.system.dynamic if active & self._reads[name]}

    def _active(self, moving: Collection[str]) -> set[str]:
        active = set(moving)
        for name in self.system.instantaneous:
            if active & self._reads[name]:
                active.add(name)
        return active

    def decay(self, state: State, out: State) -> None:
        """Subtract leak/τ · x from `out`, which makes A x of N x."""
        for name, rate in self._rates.items():
            if isinstance(rate, Tensor):
                out.activity[name].addcmul_(state.activity[name], rate, value=-1.0)
            else:
                out.activity[name].sub_(state.activity[name], alpha=rate)
