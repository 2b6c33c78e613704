"""Cycles of instantaneous populations: z = G(z), solved at each evaluation of the vector field.

Populations are torn out of the cycle until the others can be evaluated one after the other; z are those torn out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neurodyn.network.maps import OperatingPoints
from neurodyn.system.contraction import contracts
from neurodyn.system.equation import Equation
from neurodyn.system.fixed_point import FixedPoint, Known


class Loop:
    """One cycle, with the memory of its iteration.

    Parameters
    ----------
    torn
        The equations of the populations that are torn out.
    others
        Those of the others of the cycle, in the order of evaluation.
    points
        The network's operating points.
    """

    def __init__(self, torn: Sequence[Equation], others: Sequence[Equation], points: OperatingPoints) -> None:
        self._torn, self._others, self._points = torn, others, points
        self.torn = tuple(equation.name for equation in torn)
        self.others = tuple(equation.name for equation in others)
        self.names = (*self.torn, *self.others)
        self._activity: Mapping[str, Tensor] = {}
        self._solution = FixedPoint(self.text, self._largest, lambda: self.known(self._activity))

    @property
    def text(self) -> str:
        """The cycle, as messages call it."""
        return f"the cycle of the instantaneous populations {', '.join(sorted(self.names))}"

    def known(self, activity: Mapping[str, Tensor]) -> Known:
        """Tell what is known of G beforehand, given any activity: that it is affine, or a contraction."""
        equations = (*self._torn, *self._others)
        within = [e for equation in equations for e in equation.moving if not set(self.names).isdisjoint(e.reads)]
        if all(entry.coupling.map.linear for entry in within):
            return "affine"
        return "unique" if contracts(equations, within, activity) else None

    def forget(self) -> None:
        """Say that a run begins: its first solution is looked at, whether it is the only one."""
        self._solution.forget()

    def kept(self) -> dict[str, Any]:
        """Return copies of what the next solution depends on, beside what enters the cycle."""
        return self._solution.kept()

    def load(self, kept: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `kept` returned."""
        self._solution.load(kept, device)

    def solve(self, activity: Mapping[str, Tensor]) -> None:
        """Bring the populations of the cycle to where they agree with what enters them.

        Parameters
        ----------
        activity
            What the couplings read; that of the cycle's own populations is written.

        Raises
        ------
        ValueError
            If there is no solution, or more than one is found.
        """
        self._activity = activity
        self._solution.solve(
            self._map, torch.cat([torch.zeros_like(activity[name]).flatten(1) for name in self.torn], 1)
        )

    def _largest(self) -> Tensor:
        return torch.stack([self._activity[name].flatten(1).abs().amax(1) for name in self.names]).amax(0)

    def _map(self, z: Tensor) -> Tensor:
        """Return G(z), with z in place of the torn populations and the others as they follow from it."""
        activity = self._activity
        sizes = [activity[name][0].numel() for name in self.torn]
        for name, block in zip(self.torn, torch.split(z, sizes, dim=1), strict=True):
            activity[name].copy_(block.view_as(activity[name]))
        self._points.expire(self.names)
        for equation in self._others:
            equation.evaluate(activity, activity[equation.name])
        made = [torch.empty_like(activity[name]) for name in self.torn]
        for equation, out in zip(self._torn, made, strict=True):
            equation.evaluate(activity, out)
        return torch.cat([out.flatten(1) for out in made], dim=1)


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
