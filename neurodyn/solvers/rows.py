"""The vector field sample by sample: states as matrices of one row a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neurodyn.network.vectors import Vector
from neurodyn.solvers.base import Progress
from neurodyn.solvers.maxima import Maxima
from neurodyn.solvers.sliding import solution
from neurodyn.system.state import State
from neurodyn.system.system import System


class Rows:
    """τ dx/dt = τ F(x) of a system, as a function of matrices (sample, unit) of the dynamic populations side by side.

    Where F jumps at units' kinks it is Filippov's solution, in which units slide along them. Of populations with bounds
    it is clip(x + τF(x)) − x, which is 0 at the same places, and does not jump where F leads
    outside: there, x rests at the bound whatever the others do.

    Parameters
    ----------
    system
        The system.
    progress
        A bar over the time that it has relaxed, which stands still at each evaluation.
    """

    def __init__(self, system: System, progress: Progress | None = None) -> None:
        self._progress = progress
        self.system, self._state, self._slope = system, system.new_state(), system.new_state()
        free = [p for p in system.free if not p.instantaneous]
        self._widths = [self._state.activity[p.name][0].numel() for p in free]
        self.tau = self._of_populations([p.tau / system.pace(p.name) for p in free])
        """τ of each unit, shape (unit,) or, of stacked networks, (sample, unit)."""
        self.step = self._of_populations([1.0 / _or_one(p.leak) for p in free])
        """What x ← x + step · τF(x) takes for a full step, 1/leak, shape (unit,)."""
        structure = system.structure
        self._jump = system.new_state() if structure.kinks_at_units else None
        self._beside = system.new_state() if structure.kinks_at_units else self._slope
        """F, of which Filippov's solution is made."""
        self._maxima = {name: Maxima(windows, stages=1) for name, windows in structure.windows.items()}
        self._single = torch.cat(
            [torch.full((n,), p.name not in self._maxima) for p, n in zip(free, self._widths, strict=True)]
        ).to(system.device)
        """Which units have a kink of their own, if any."""
        self.bounds = self._of_bounds()
        """Where each unit stays, shape (unit,) both; None where no population has bounds."""
        self.evaluations = 0

    def _of_bounds(self) -> tuple[Tensor, Tensor] | None:
        if not self.system.bounds:
            return None
        unbounded = (-math.inf, math.inf)
        each = [self.system.bounds.get(name, unbounded) for name in self.system.dynamic]
        low, high = (self._of_populations([bounds[end] for bounds in each]) for end in (0, 1))
        return low, high

    def resting(self, x: Tensor) -> Tensor:
        """Return states with each unit that F leads beyond its bound at that bound, where it rests."""
        if self.bounds is None:
            return x
        slope, (low, high) = self._slope_at(x), self.bounds
        ahead = self.of(self._state) + slope
        return torch.where((ahead <= low) | (ahead >= high), ahead.clamp(low, high), x)

    def _of_populations(self, values: Sequence[float | Tensor]) -> Tensor:
        names = self.system.dynamic
        blocks = []
        for name, value in zip(names, values, strict=True):
            tensor = torch.as_tensor(value, dtype=self.system.dtype, device=self.system.device)
            by_sample = tensor.ndim > len(self.system.shapes[name])
            whole = tensor.expand(len(tensor) if by_sample else 1, *self.system.shapes[name])
            blocks.append(whole.flatten(1))
        rows = max(map(len, blocks))
        return torch.cat([block.expand(rows, -1) for block in blocks], 1).squeeze(0)

    def of(self, state: State) -> Tensor:
        """Return a state as a matrix."""
        return torch.cat([state.activity[name].flatten(1) for name in self.system.dynamic], dim=1)

    def write(self, x: Tensor, state: State) -> None:
        """Write a matrix into a state."""
        for name, block in zip(self.system.dynamic, torch.split(x, self._widths, dim=1), strict=True):
            state.activity[name].copy_(block.view_as(state.activity[name]))

    def __call__(self, x: Tensor) -> Tensor:
        """Return τ F(x), or what takes its place under bounds."""
        slope = self._slope_at(x)
        if self.bounds is None:
            return slope
        inside = self.of(self._state)
        ahead, (low, high) = inside + slope, self.bounds
        return torch.where((low < ahead) & (ahead < high), slope + (inside - x), ahead.clamp(low, high) - x)

    def _slope_at(self, x: Tensor) -> Tensor:
        """Return τ F at x, which is brought inside its bounds in `_state`."""
        self.write(x, self._state)
        if self._jump is None:
            self.system.field(self._state, self._slope)
        else:
            self.system.field_with_jump(self._state, self._beside, self._jump)
            for name, maxima in self._maxima.items():
                maxima.see(self._state.activity[name])
            solution(self._state, self._beside, self._jump, self._slope, self._maxima)
        self._count()
        return self.of(self._slope).mul_(self.tau)

    def near(self, x: Tensor, at: Tensor) -> Tensor:
        """Return τ F(x) for differences from a state: units that are beside their kinks there keep to their side."""
        slope = self(x)
        if self._jump is None or self._maxima:
            return slope
        crossed = ((at > 0).to(x) - (x > 0).to(x)) * (at != 0)
        return slope + crossed * self.of(self._jump).mul_(self.tau)

    def held(self, x: Tensor) -> Tensor:
        """Tell which units F holds at kinks of their own, shape (sample, unit)."""
        if self._jump is None:
            return torch.zeros_like(x, dtype=torch.bool)
        below, jump = self._sides(x)
        return (x == 0) & (below >= 0) & (below + jump <= 0) & (jump != 0) & self._single

    def repelled(self, x: Tensor) -> Tensor:
        """Tell which samples rest where F leads a unit away as soon as it is above its kink, shape (sample,)."""
        if self._jump is None:
            return torch.zeros_like(x[:, 0], dtype=torch.bool)
        below, jump = self._sides(x)
        return ((x == 0) & (below == 0) & (jump > 0) & self._single).any(1)

    def clearance(self, x: Tensor) -> Tensor:
        """Return how far away the nearest kink is that x is not at, where each unit counts √τ, shape (sample,)."""
        if self._jump is None:
            return torch.full_like(x[:, 0], math.inf)
        _, jump = self._sides(x)
        self.write(torch.where((jump != 0) & (x != 0), x.abs(), math.inf), self._slope)
        for name, maxima in self._maxima.items():
            maxima.gaps(self._state.activity[name], self._slope.activity[name])
        return (self.of(self._slope) * self.tau.sqrt()).amin(1)

    def _sides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return F as it is at x, and by how much it jumps at the kink of each unit."""
        assert self._jump is not None, "the caller looks"
        self._slope_at(x)
        return self.of(self._beside), self.of(self._jump)

    def tangent(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what projects directions, shape (sample, unit), on those in which F leaves units of x at their kinks.

        A unit stays at 0 where F holds it there, and those that share the pull on a maximum stay side by side.
        """
        if self._jump is None:
            return lambda directions: directions
        held = self.held(x)
        at, jump = (
            {name: state.activity[name].clone() for name in self._maxima} for state in (self._state, self._jump)
        )

        def project(directions: Tensor) -> Tensor:
            self.write(directions.masked_fill(held, 0.0), self._slope)
            for name, maxima in self._maxima.items():
                maxima.align(at[name], jump[name], self._slope.activity[name])
            return self.of(self._slope)

        return project

    def sweep(self, state: State) -> None:
        """Balance one population of a state after another, along the strong couplings."""
        order = self.system.structure.weak_order
        assert order is not None, "the caller looks"
        self.system.sweep(state, order)
        self._count()

    def _count(self) -> None:
        self.evaluations += 1
        if self._progress is not None:
            self._progress.update(0.0)


def _or_one(leak: Vector) -> Vector:
    """Return a leak, 1 where there is none."""
    return torch.where(leak == 0, 1.0, leak) if isinstance(leak, Tensor) else leak or 1.0


def lengths(rows: Tensor) -> Tensor:
    """Return the Euclidean length of each row, shape (sample, 1), whose squares may be beyond the largest number."""
    largest = rows.abs().amax(1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    length: Tensor = scale * torch.linalg.vector_norm(rows / scale, dim=1, keepdim=True)
    return length.clamp_max(torch.finfo(rows.dtype).max)
