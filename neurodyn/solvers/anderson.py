"""Anderson acceleration of the fixed-point iteration that an equilibrium is: F(x) = 0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neurodyn.solvers.rows import Rows

_MEMORY = 8
"""How many differences of iterates are combined; more gains little, and costs a larger least squares."""
_MIXING = 0.5
"""The step of the underlying iteration, in units of each population's own relaxation time."""
_PATIENCE = 10
"""After how many evaluations without progress the iteration gives up."""


@dataclass(frozen=True)
class Candidate:
    """What acceleration proposes as an equilibrium.

    Parameters
    ----------
    x
        Shape (sample, unit).
    arrived
        Which samples are at an equilibrium there, shape (sample,).
    before
        x and τF(x) at the start, shape (sample, unit) both.
    after
        The same about half a relaxation time ahead; τF may be left to be worked out.
    swept
        Whether sweeps found it.
    """

    x: Tensor
    arrived: Tensor
    before: tuple[Tensor, Tensor]
    after: tuple[Tensor, Tensor | None]
    swept: bool = False


def anderson(field: Rows, start: Tensor, tolerance: float, most: int = 200) -> Candidate:
    """Look for an equilibrium F(x) = 0 near `start`, each sample on its own.

    The iteration x ← x + β R with R = τ/leak F is accelerated: with the last differences ΔX and ΔR of iterates and
    residuals,  x ← x + β R − (ΔX + β ΔR) γ, where γ minimises ‖R − ΔR γ‖ (type II). A sample stops moving once it is
    within the tolerance. The iteration gives up where progress stops. It may end at another equilibrium than the one
    that the dynamics reach from the start, and at an unstable one: the caller looks.

    Parameters
    ----------
    field
        τF of the system.
    start
        Where to start, shape (sample, unit).
    tolerance
        On max |τ dx/dt|, in units of activity.
    most
        How many evaluations of the vector field at most.

    References
    ----------
    D. G. Anderson, J. ACM 12 (1965); H. F. Walker, P. Ni, SIAM J. Numer. Anal. 49 (2011).
    """
    iteration = _Iteration(field, start)
    before = after = start, iteration.velocity
    arrived = iteration.speed <= tolerance
    best, waited, taken, done = iteration.size, 0, 1, bool(arrived.all())
    while taken < most and waited < _PATIENCE and not done:
        moving = ~arrived
        iteration.step(moving)
        taken += 1
        if taken == 2:  # the first step is plain
            after = iteration.x, iteration.velocity
        closer = ((iteration.size < 0.9 * best) & moving).any()
        best = torch.minimum(best, iteration.size)
        arrived = iteration.speed <= tolerance
        # A device is waited for here alone.
        finite, progress, done = torch.stack([iteration.size.isfinite().all(), closer, arrived.all()]).tolist()
        if not finite:
            return Candidate(start, before[1].abs().amax(1) <= tolerance, before, after)
        waited = 0 if progress else waited + 1
    return Candidate(iteration.x, arrived, before, after)


class _Iteration:
    """The iterates, one row a sample: x, its residual R, and their last differences.

    These are kept as ΔR, ΔX + β ΔR and ΔRᵀ ΔR, so that a step adds one of each, in place of the oldest.
    """

    def __init__(self, field: Rows, x: Tensor) -> None:
        self._field = field
        self.x = x
        self._evaluate()
        samples, units = x.shape
        self._changes = x.new_empty(_MEMORY, samples, units)
        self._directions = x.new_empty(samples, _MEMORY, units)
        self._gram = x.new_zeros(samples, _MEMORY, _MEMORY)
        self._kept = 0

    def _evaluate(self) -> None:
        self.velocity = self._field(self.x)
        self.speed = self.velocity.abs().amax(1)
        self.residual = self.velocity * self._field.step
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
            # What is singular nevertheless leaves a step that is not finite, or leads nowhere: the iteration gives up.
            gamma, _ = torch.linalg.solve_ex(gram, self._overlaps(residual, kept)[:, :, None])
            change -= (gamma.transpose(1, 2) @ self._directions[:, :kept])[:, 0]
        self.x = torch.where(moving[:, None], x + change, x)
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
