"""Cycles of instantaneous populations: z = G(z), solved at each evaluation of the vector field.

Populations are torn out of the cycle until the others can be evaluated one after the other; z are those torn out. The
iteration is Newton's, sample by sample, with a Jacobian from differences that is kept for as long as it serves, and
starts from the last solution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.network.maps import OperatingPoints
from neurodyn.system.equation import Equation

_TOLERANCE = 32.0
"""How far z may be from G(z), in machine epsilons times z."""
_ROUNDING = 1e4
"""Likewise, times the largest activity of the cycle, where iterations no longer come closer: what maps make of
rounding."""
_MOST_ITERATIONS = 60
_FEW = 4
"""How many iterations a Jacobian that serves well takes."""
_HALVINGS = 8
"""How often a step that does not come closer is halved."""
_CONTRACTION = 0.3
"""By how much a step has to come closer for the Jacobian to be kept."""
_MOST_NUMBERS = 2**27
"""How many numbers the Jacobians of all samples hold at most."""
_STARTS = (1.0, -1.0, 4.0, 32.0)
"""How far beside a solution, relative to it, others are looked for."""
_SAME = 1e-3
"""How close two solutions are, relative to their size, that are one."""


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
        self.names = tuple(equation.name for equation in (*torn, *others))
        self._factors: tuple[Tensor, Tensor] | None = None
        self._spent = 0
        """How many iterations the Jacobian at hand has taken beyond a few each time."""
        self._last: Tensor | None = None
        """The last solution; None before the first, of which it has to be seen whether it is the only one."""

    @property
    def text(self) -> str:
        """The cycle, as messages call it."""
        return f"the cycle of the instantaneous populations {', '.join(sorted(self.names))}"

    def forget(self) -> None:
        """Say that a run begins: its first solution is looked at, whether it is the only one."""
        self._factors = self._last = None

    def kept(self) -> dict[str, Any]:
        """Return copies of what the next solution depends on, beside what enters the cycle."""
        factors = None if self._factors is None else [factor.clone() for factor in self._factors]
        return {
            "last": None if self._last is None else self._last.clone(),
            "factors": factors,
            "spent": self._spent,
        }

    def load(self, kept: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `kept` returned."""
        last, factors = kept["last"], kept["factors"]
        self._last = None if last is None else last.to(device)
        self._factors = None if factors is None else (factors[0].to(device), factors[1].to(device))
        self._spent = kept["spent"]

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
        if self._last is None:
            self._last = self._only(activity)
            return
        found = self._newton(activity, self._last)
        if found is not None:
            self._last = found
        elif bool(torch.isfinite(self._map(activity, self._last)).all()):  # otherwise, what enters the cycle diverges
            self._refuse("no solution that is found from the last one")

    def _only(self, activity: Mapping[str, Tensor]) -> Tensor:
        """Return the one solution, with the populations there, or refuse none and several."""
        start = torch.cat([torch.zeros_like(activity[equation.name]).flatten(1) for equation in self._torn], dim=1)
        found = self._newton(activity, start)
        for other in self._other_starts(start if found is None else found):
            self._factors = None
            another = self._newton(activity, other)
            if found is None:
                found = another
            elif another is not None and self._differ(found, another):
                self._refuse("several solutions")
        if found is None:
            self._refuse("no solution that is found")
        self._factors = None
        self._map(activity, found)
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise InvalidValueError(
            f"{self.text} has {what}; weaken a coupling of it, or give one of the populations a time constant tau > 0"
        )

    def _other_starts(self, z: Tensor) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)  # the same in each run, and apart from PyTorch's own
        size = z.abs().amax().clamp_min(1.0) if z.numel() else 1.0
        for distance in _STARTS:
            yield z + distance * size * torch.rand(z.shape[1:], generator=generator).to(z)

    def _differ(self, one: Tensor, other: Tensor) -> bool:
        size = 1.0 + one.abs().amax(1, keepdim=True)
        return bool(((one - other).abs() > _SAME * size).any())

    def _map(self, activity: Mapping[str, Tensor], z: Tensor) -> Tensor:
        """Return G(z), with z in place of the torn populations and the others as they follow from it."""
        sizes = [activity[equation.name][0].numel() for equation in self._torn]
        for equation, block in zip(self._torn, torch.split(z, sizes, dim=1), strict=True):
            activity[equation.name].copy_(block.view_as(activity[equation.name]))
        self._points.expire(self.names)
        for equation in self._others:
            equation.evaluate(activity, activity[equation.name])
        made = [torch.empty_like(activity[equation.name]) for equation in self._torn]
        for equation, out in zip(self._torn, made, strict=True):
            equation.evaluate(activity, out)
        return torch.cat([out.flatten(1) for out in made], dim=1)

    def _newton(self, activity: Mapping[str, Tensor], z: Tensor) -> Tensor | None:
        """Return the solution that iterations from z lead to, with the populations there; None where they fail."""
        eps = torch.finfo(z.dtype).eps
        rest, fresh = self._map(activity, z) - z, False
        for count in range(_MOST_ITERATIONS):
            off = rest.abs().amax(1)
            done = off <= _TOLERANCE * eps * z.abs().amax(1)
            if bool(done.all()):
                self._spent += max(0, count - _FEW)
                if self._spent > z.shape[1]:  # a new Jacobian would have cost less
                    self._factors = None
                return z
            if self._factors is None:
                self._factors, fresh, self._spent = self._jacobian(activity, z, rest), True, 0
            step = torch.linalg.lu_solve(*self._factors, rest[:, :, None])[:, :, 0]
            moved = self._step(activity, z, step, off, done, _HALVINGS if fresh else 0)
            if moved is not None:
                z, rest = moved
                fresh = False
                if not bool((rest.abs().amax(1) <= _CONTRACTION * off)[~done].all()):
                    self._factors = None
            elif fresh:
                self._map(activity, z)
                largest = torch.stack([activity[name].flatten(1).abs().amax(1) for name in self.names]).amax(0)
                return z if bool((off <= _ROUNDING * eps * largest).all()) else None
            else:
                self._factors = None
        return None

    def _step(
        self, activity: Mapping[str, Tensor], z: Tensor, step: Tensor, off: Tensor, done: Tensor, halvings: int
    ) -> tuple[Tensor, Tensor] | None:
        """Return z and G(z) − z after a step that comes closer in every sample that is not done, halved if need be."""
        share = torch.where(done, 0.0, 1.0).to(z)
        for _ in range(1 + halvings):
            ahead = z + share[:, None] * step
            rest = self._map(activity, ahead) - ahead
            closer = (rest.abs().amax(1) < off) | done
            if bool(closer.all()):
                return ahead, rest
            share = torch.where(closer, share, 0.5 * share)
        return None

    def _jacobian(self, activity: Mapping[str, Tensor], z: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of I − ∂G/∂z of each sample, by differences."""
        samples, units = z.shape
        if samples * units * units > _MOST_NUMBERS:
            raise InvalidValueError(
                f"{self.text}: {units} units of it have to be solved for together in each of {samples} samples, whose "
                "Jacobians are too large; give one of the populations a time constant tau > 0, or take fewer samples"
            )
        matrix = z.new_empty(samples, units, units)
        little = torch.finfo(z.dtype).eps ** 0.5 * (1.0 + z.abs().amax(1))
        for unit in range(units):
            beside = z.clone()
            beside[:, unit] += little
            own = self._map(activity, beside) - beside
            matrix[:, :, unit] = (rest - own) / (beside[:, unit] - z[:, unit])[:, None]
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return factors, pivots


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
