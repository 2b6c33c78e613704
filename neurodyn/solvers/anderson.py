"""Anderson acceleration of the fixed-point iteration that an equilibrium is: F(x) = 0."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.system.system import State, System

_MEMORY = 8
"""How many differences of iterates are combined; more gains little, and costs a larger least squares."""
_MIXING = 0.5
"""The step of the underlying iteration, in units of each population's own relaxation time."""
_PATIENCE = 10
"""After how many evaluations without progress the iteration gives up."""


def anderson(system: System, state: State, tolerance: float, most: int = 200) -> tuple[int, bool]:
    """Look for the equilibrium F(x) = 0 near `state`, each sample on its own.

    The iteration x ← x + β τ/leak F(x) is accelerated: with the last differences ΔX and ΔR of iterates and residuals
    R = τ/leak F,  x ← x + β R − (ΔX + β ΔR) γ, where γ minimises ‖R − ΔR γ‖ (type II). A sample stops moving once it is
    within the tolerance. Where plain steps do not contract at the start, or progress stops, the iteration gives up, as
    it may then lead elsewhere than the relaxation would.

    Parameters
    ----------
    system
        The system.
    state
        Where to start; on return the equilibrium, or the start if the iteration gave up.
    tolerance
        On max |dx/dt|, in units of activity per unit of time.
    most
        How many evaluations of the vector field at most.

    Returns
    -------
    int
        Evaluations of the vector field.
    bool
        Whether every sample is within the tolerance.

    References
    ----------
    D. G. Anderson, J. ACM 12 (1965); H. F. Walker, P. Ni, SIAM J. Numer. Anal. 49 (2011).
    """
    iteration = _Iteration(system, state)
    start = iteration.x.clone()
    best, waited = iteration.size.clone(), 0
    plain = iteration.size.clone()
    while iteration.evaluations < most and waited < _PATIENCE:
        moving = iteration.velocity > tolerance
        if not bool(moving.any()):
            iteration.write()
            return iteration.evaluations, True
        iteration.step(moving)
        if not bool(torch.isfinite(iteration.size).all()):
            break
        if iteration.evaluations == 2 and bool((iteration.size > plain)[moving].any()):
            break
        waited = 0 if bool((iteration.size < 0.9 * best)[moving].any()) else waited + 1
        best = torch.minimum(best, iteration.size)
    iteration.x = start
    iteration.write()
    return iteration.evaluations, False


class _Iteration:
    """The iterates, one row a sample: x, its residual R, and their last differences.

    These are kept as ΔR, ΔX + β ΔR and ΔRᵀ ΔR, so that a step adds one of each, in place of the oldest.
    """

    def __init__(self, system: System, state: State) -> None:
        self._system, self._state, self._slope = system, state, system.new_state()
        scales = [p.tau / ((p.leak or 1.0) * system.pace(p.name)) for p in system.free if p.tau > 0]
        self._widths = [state.activity[name][0].numel() for name in system.dynamic]
        each = [torch.as_tensor(scale).to(state.flat).flatten().view(-1, 1) for scale in scales]
        columns = [own.expand(system.samples, width) for own, width in zip(each, self._widths, strict=True)]
        self._scale = torch.cat(columns, 1)
        self.evaluations = 0
        self.x = self._rows(state)
        self._evaluate()
        samples, units = self.x.shape
        self._changes = self.x.new_empty(_MEMORY, samples, units)
        self._directions = self.x.new_empty(samples, _MEMORY, units)
        self._gram = self.x.new_zeros(samples, _MEMORY, _MEMORY)
        self._kept = 0

    def _rows(self, state: State) -> Tensor:
        return torch.cat([state.activity[name].flatten(1) for name in self._system.dynamic], dim=1)

    def write(self) -> None:
        """Write x into the system's state."""
        for name, block in zip(self._system.dynamic, torch.split(self.x, self._widths, dim=1), strict=True):
            self._state.activity[name].copy_(block.view_as(self._state.activity[name]))

    def _evaluate(self) -> None:
        self.write()
        self._system.field(self._state, self._slope)
        self.evaluations += 1
        slopes = self._rows(self._slope)
        self.velocity = slopes.abs().amax(1)
        self.residual = slopes.mul_(self._scale)
        self.size = torch.linalg.vector_norm(self.residual, dim=1)

    def step(self, moving: Tensor) -> None:
        """Advance the samples that are moving, shape (sample,), by one accelerated step."""
        x, residual = self.x, self.residual
        change = _MIXING * residual
        kept = min(self._kept, _MEMORY)
        if kept:
            gram = self._gram[:, :kept, :kept].clone()
            # A ridge far below the largest direction keeps nearly dependent differences from blowing up; a sample that
            # no longer moves has none.
            largest = gram.diagonal(dim1=1, dim2=2).amax(1)
            ridge = torch.where(largest > 0, torch.finfo(x.dtype).eps * largest, 1.0)
            gram.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
            gamma = torch.linalg.solve(gram, self._overlaps(residual, kept)[:, :, None])
            change -= (gamma.transpose(1, 2) @ self._directions[:, :kept])[:, 0]
        self.x = x + change * moving[:, None]
        self._evaluate()
        place = self._kept % _MEMORY
        self._kept += 1
        kept = min(self._kept, _MEMORY)
        torch.sub(self.residual, residual, out=self._changes[place])
        torch.add(self.x - x, self._changes[place], alpha=_MIXING, out=self._directions[:, place])
        overlaps = self._overlaps(self._changes[place], kept)
        self._gram[:, place, :kept] = overlaps
        self._gram[:, :kept, place] = overlaps

    def _overlaps(self, vector: Tensor, kept: int) -> Tensor:
        """Return ΔRᵀ v for each sample, shape (sample, kept); v of shape (sample, unit)."""
        # Several times as fast on a CPU as products of a small matrix and a vector for each sample.
        return (self._changes[:kept] * vector).sum(2).t()
