"""Cycles of instantaneous populations with a graph: z = G(z), differentiated by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from neurodyn.system.fixed_point import FixedPoint, Known
from neurodyn.system.loops import Loop

Blocks = dict[str, Tensor]
"""Activity by population, shape (sample, …)."""
Evaluate = Callable[[Mapping[str, Tensor], bool], Blocks]
"""What the populations of a cycle become, given those torn out: these as they are made, the others as they are.

And whether with the graph of what enters the cycle, which the Jacobian does not need.
"""


_AT_ONCE = 1024
"""How many rows of Jacobians, of all samples together, are found at once."""


class Agreement(FixedPoint):
    """Where the populations of a cycle agree, with its graph.

    With z* known, two steps of the chord method, z ← z + A (G(z) − z) with A = (1 − ∂G/∂z)⁻¹ at z* held constant, leave
    z* where it is, and give its first and second derivatives: an error O(δ) at a change δ of what enters the cycle
    becomes O(δ²), and then O(δ³).
    """

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.torn, loop.others)
        self._loop = loop

    def known(self, activity: Mapping[str, Tensor]) -> Known:
        return self._loop.known(activity)

    def reached(self, evaluate: Evaluate, zeros: Mapping[str, Tensor]) -> Blocks:
        """Return the activity of the populations of the cycle, given one turn of it, and blocks of their shapes."""
        self._blocks = zeros

        def turned(z: Tensor, traced: bool = False) -> Tensor:
            self._blocks = evaluate(self._apart(z), traced)
            return self._together(self._blocks)

        with torch.no_grad():
            z = self.fixed(turned, self._together(zeros))
        if torch.is_grad_enabled():
            # Within a checkpoint, whose hooks would take the way back for its own.
            with torch.enable_grad(), saved_tensors_hooks(_same, _same):
                z = z.clone().requires_grad_()
                made = turned(z)
                matrix = torch.eye(z.shape[1], dtype=z.dtype, device=z.device) - jacobian(made, z)
            z = z.detach()
            for _ in range(2):
                z = z + torch.linalg.solve(matrix, (turned(z, True) - z)[:, :, None])[:, :, 0]
        torn = self._apart(z)
        return {**evaluate(torn, True), **torn}


def _same(tensor: Tensor) -> Tensor:
    return tensor


def jacobian(made: Tensor, z: Tensor) -> Tensor:
    """Return ∂G/∂z of each sample, shape (sample, unit, unit), given G(z) with its graph; both shape (sample, unit)."""
    samples, units = z.shape
    if not made.requires_grad:
        return z.new_zeros(samples, units, units)
    rows = torch.eye(units, dtype=z.dtype, device=z.device)[:, None].expand(-1, samples, -1)
    several = max(1, _AT_ONCE // max(1, samples))
    try:
        parts = [_back(made, z, part, several=True) for part in torch.split(rows, several)]
    except RuntimeError:  # a map's own way back may be none for several rows at once
        parts = [_back(made, z, row, several=False)[None] for row in rows]
    return torch.cat(parts).transpose(0, 1).contiguous()


def _back(made: Tensor, z: Tensor, v: Tensor, *, several: bool) -> Tensor:
    """Return vᵀ ∂G/∂z of each sample, for one v of shape (sample, unit) or `several`."""
    (found,) = torch.autograd.grad(made, z, v, retain_graph=True, allow_unused=True, is_grads_batched=several)
    return torch.zeros_like(v) if found is None else found
