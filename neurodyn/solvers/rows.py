"""The vector field sample by sample: states as matrices of one row a sample."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.system.system import State, System


class Rows:
    """τ dx/dt = τ F(x) of a system, as a function of matrices (sample, unit) of the dynamic populations side by side.

    Parameters
    ----------
    system
        The system.
    """

    def __init__(self, system: System) -> None:
        self.system, self._state, self._slope = system, system.new_state(), system.new_state()
        free = [p for p in system.free if p.tau > 0]
        self._widths = [self._state.activity[p.name][0].numel() for p in free]
        self.tau = self._of_populations([p.tau for p in free])
        """τ of each unit, shape (unit,)."""
        self.step = self._of_populations([1.0 / (p.leak or 1.0) for p in free])
        """What x ← x + step · τF(x) takes for a full step, 1/leak, shape (unit,)."""
        self.evaluations = 0

    def _of_populations(self, values: list[float]) -> Tensor:
        return torch.cat(
            [self._state.flat.new_full((width,), value) for width, value in zip(self._widths, values, strict=True)]
        )

    def of(self, state: State) -> Tensor:
        """Return a state as a matrix."""
        return torch.cat([state.activity[name].flatten(1) for name in self.system.dynamic], dim=1)

    def write(self, x: Tensor, state: State) -> None:
        """Write a matrix into a state."""
        for name, block in zip(self.system.dynamic, torch.split(x, self._widths, dim=1), strict=True):
            state.activity[name].copy_(block.view_as(state.activity[name]))

    def __call__(self, x: Tensor) -> Tensor:
        """Return τ F(x)."""
        self.write(x, self._state)
        self.system.field(self._state, self._slope)
        self.evaluations += 1
        return self.of(self._slope).mul_(self.tau)
