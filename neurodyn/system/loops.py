"""Cycles of instantaneous populations: z = G(z), solved at each evaluation of the vector field.

Populations are torn out of the cycle until the others can be evaluated one after the other; z are those torn out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from neurodyn.network.maps import OperatingPoints
from neurodyn.system.contraction import contracts
from neurodyn.system.equation import Equation
from neurodyn.system.fixed_point import FixedPoint, Known


class Loop(FixedPoint):
    """One cycle, given the equations of the populations that are torn out and of the others, in their order."""

    def __init__(self, torn: Sequence[Equation], others: Sequence[Equation], points: OperatingPoints) -> None:
        super().__init__([equation.name for equation in torn], [equation.name for equation in others])
        self._torn, self._others, self._points = torn, others, points

    def known(self, activity: Mapping[str, Tensor]) -> Known:
        equations = (*self._torn, *self._others)
        within = [e for equation in equations for e in equation.moving if not set(self.names).isdisjoint(e.reads)]
        if all(entry.coupling.map.linear for entry in within):
            return "affine"
        return "unique" if contracts(equations, within, activity) else None

    def solve(self, activity: Mapping[str, Tensor]) -> None:
        """Bring the populations of the cycle, whose activity is written, to where they agree with what enters them."""
        self._blocks = activity
        self.fixed(self._map, torch.zeros_like(self._together(activity)))

    def _map(self, z: Tensor) -> Tensor:
        """Return G(z), with z in place of the torn populations and the others as they follow from it."""
        activity = self._blocks
        for name, block in self._apart(z).items():
            activity[name].copy_(block)
        self._points.expire(self.names)
        for equation in self._others:
            equation.evaluate(activity, activity[equation.name])
        made = {equation.name: torch.empty_like(activity[equation.name]) for equation in self._torn}
        for equation in self._torn:
            equation.evaluate(activity, made[equation.name])
        return self._together(made)


def loops_of(
    plan: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    equation: Callable[[str], Equation],
    points: OperatingPoints,
) -> dict[str, Loop]:
    """Return each cycle by the name of the first of its populations, given those torn out and the others of each."""
    return {
        (*torn, *others)[0]: Loop([equation(name) for name in torn], [equation(name) for name in others], points)
        for torn, others in plan
    }
