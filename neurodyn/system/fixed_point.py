"""Fixed points z = G(z), sample by sample: the one that iterations lead to, refused where another one is found.

z are the populations that are torn out of a cycle, and G is one turn of it. The iteration is Newton's, with a Jacobian
from differences that is kept for as long as it serves, and starts from the last solution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError

_TOLERANCE = 32.0
"""How far z may be from G(z), in machine epsilons times z."""
_ROUNDING = 1e4
"""Likewise, times the largest activity of the cycle, where iterations no longer come closer: what maps make of
rounding."""
_MOST_ITERATIONS = 60
_MOST_BESIDE = 15
"""Likewise, from where other solutions are looked for."""
_FEW = 4
"""How many iterations a Jacobian that serves well takes."""
_HALVINGS = 8
"""How often a step that does not come closer is halved."""
_CONTRACTION = 0.3
"""By how much a step has to come closer for the Jacobian to be kept."""
_MOST_NUMBERS = 2**27
"""How many numbers the Jacobians of all samples hold at most."""
_STARTS = (1.0, 4.0, 32.0)
"""How far on either side of a solution, relative to it, others are looked for."""
_SCANNED = np.geomspace(0.01, 1000.0, 96)
"""Likewise, where each unit is on its own."""
_SAME = 1e-3
"""How close two solutions are, relative to their size, that are one."""
_MOVED = 0.25
"""By how much a solution moves, relative to its size, until others are looked for anew."""

Map = Callable[[Tensor], Tensor]
"""G, on matrices (sample, unit); what it is evaluated at last is where the populations are."""
Known = Literal["unique", "affine", None]
"""What is known of G: that it has one fixed point, that it is affine, or nothing."""


class FixedPoint(ABC):
    """The fixed point of one map after the other, each close to the last one, given the populations of a cycle."""

    def __init__(self, torn: Sequence[str], others: Sequence[str]) -> None:
        self.torn, self.others, self.names = tuple(torn), tuple(others), (*torn, *others)
        self.text = f"the cycle of the instantaneous populations {', '.join(sorted(self.names))}"
        """The cycle, as messages call it."""
        self._blocks: Mapping[str, Tensor] = {}
        """The activity by population, as last evaluated; shape (sample, …)."""
        self._factors: tuple[Tensor, Tensor] | None = None
        self._spent = 0
        """How many iterations the Jacobian at hand has taken beyond a few each time."""
        self._last: Tensor | None = None
        """The last solution; None before the first."""
        self._known: Known = None
        self._seen: list[Tensor] = []
        """The solutions beside which others have been looked for."""

    @abstractmethod
    def known(self, activity: Mapping[str, Tensor]) -> Known:
        """Tell what is known of G beforehand, given any activity."""

    def _together(self, blocks: Mapping[str, Tensor]) -> Tensor:
        """Return the torn populations' activity side by side, shape (sample, unit)."""
        return torch.cat([blocks[name].flatten(1) for name in self.torn], 1)

    def _apart(self, z: Tensor) -> dict[str, Tensor]:
        """Return what `_together` has put side by side, by population."""
        parts = torch.split(z, [self._blocks[name][0].numel() for name in self.torn], dim=1)
        return {name: part.view_as(self._blocks[name]) for name, part in zip(self.torn, parts, strict=True)}

    def _largest(self) -> Tensor:
        return torch.stack([self._blocks[name].flatten(1).abs().amax(1) for name in self.names]).amax(0)

    def forget(self) -> None:
        """Say that a run begins: its first solution is looked at, whether it is the only one."""
        self._factors = self._last = None
        self._seen = []

    def kept(self) -> dict[str, Any]:
        """Return copies of what the next solution depends on, beside the map."""
        return {
            "last": None if self._last is None else self._last.clone(),
            "factors": None if self._factors is None else [factor.clone() for factor in self._factors],
            "spent": self._spent,
            "known": self._known,
            "seen": [seen.clone() for seen in self._seen],
        }

    def load(self, kept: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `kept` returned."""
        last, factors = kept["last"], kept["factors"]
        self._last = None if last is None else last.to(device)
        self._factors = None if factors is None else (factors[0].to(device), factors[1].to(device))
        self._spent, self._known = kept["spent"], kept["known"]
        self._seen = [seen.to(device) for seen in kept["seen"]]

    def fixed(self, map_: Map, start: Tensor) -> Tensor:
        """Return the fixed point of G, shape (sample, unit), at which it is evaluated last; refuse none and several.

        The first one is looked for from `start`.
        """
        last = start if self._last is None else self._last
        found = self._newton(map_, last)
        if self._last is None:
            self._known = self.known(self._blocks)
            found = self._only(map_, start, found)
        elif found is None:
            if not bool(torch.isfinite(map_(last)).all()):  # what enters the map diverges
                return last
            self._refuse("no solution that is found from the last one")
        elif self._known is None and self._is_new(found):
            found = self._only(map_, found, found)
        self._last = found
        return found

    def _only(self, map_: Map, start: Tensor, found: Tensor | None) -> Tensor:
        """Return the one solution, evaluated last, or refuse none and several."""
        if self._known == "affine" and self._singular(map_, start):
            self._refuse("no solution" if found is None else "several solutions")
        settled = self._known is not None and found is not None
        for other in () if settled else self._beside(map_, start, found):
            self._factors = None
            another = self._newton(map_, other, _MOST_ITERATIONS if found is None else _MOST_BESIDE)
            if found is None:
                found = another
            elif another is not None and self._differ(found, another):
                self._refuse("several solutions")
        if found is None:
            self._refuse("no solution that is found")
        self._factors = None
        self._seen.append(found)
        map_(found)
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise InvalidValueError(
            f"{self.text} has {what}; weaken a coupling of it, or give one of the populations a time constant tau > 0"
        )

    def _beside(self, map_: Map, start: Tensor, found: Tensor | None) -> Iterator[Tensor]:
        """Yield from where to look for other solutions."""
        z = start if found is None else found
        generator = torch.Generator().manual_seed(0)  # the same in each run, and apart from PyTorch's own
        size = z.abs().amax().clamp_min(1.0) if z.numel() else 1.0
        if found is not None:
            jacobian = self._jacobian(map_, z, map_(z) - z)
            diagonal = torch.diagonal(jacobian, dim1=1, dim2=2)
            if not bool((jacobian - torch.diag_embed(diagonal)).any()):
                yield from self._crossings(map_, z, size)
            elif bool(torch.isfinite(jacobian).all()):
                weakest = torch.linalg.svd(jacobian)[2][:, -1]  # along which z − G(z) changes least
                weakest = weakest / weakest.abs().amax(1, keepdim=True)
                for distance in _STARTS:
                    yield z + distance * size * weakest
                    yield z - distance * size * weakest
        if self._seen:  # the search farther away was at the first
            return
        for distance in _STARTS:
            yield z + distance * size * torch.rand(z.shape[1:], generator=generator, device="cpu").to(z)
            yield z - distance * size * torch.rand(z.shape[1:], generator=generator, device="cpu").to(z)
            yield z + distance * size * (2 * torch.rand(z.shape[1:], generator=generator, device="cpu") - 1).to(z)

    def _singular(self, map_: Map, z: Tensor) -> bool:
        """Tell whether I − ∂G/∂z of an affine map is singular in a sample."""
        values = torch.linalg.svdvals(self._jacobian(map_, z, map_(z) - z, 1.0))
        smallest, most = values.amin(1), values.amax(1)
        return bool((smallest <= 10 * z.shape[1] * torch.finfo(z.dtype).eps * most).any())

    def _crossings(self, map_: Map, z: Tensor, size: Tensor | float) -> Iterator[Tensor]:
        """Yield where G(z) − z of units that do not read one another changes its sign beside a solution."""
        for side in (1.0, -1.0):
            earlier = before = None
            for distance in _SCANNED.tolist():
                place = z + side * distance * size
                rest = map_(place) - place
                if before is not None and earlier is not None:
                    crossed = (before * rest <= 0) & torch.isfinite(rest) & torch.isfinite(before)
                    if bool(crossed.any()):
                        yield self._bisected(map_, z, earlier, place, crossed)
                earlier, before = place, rest

    def _bisected(self, map_: Map, z: Tensor, one: Tensor, other: Tensor, crossed: Tensor) -> Tensor:
        """Return z with the units that have crossed where they do so."""
        sign = map_(one) - one
        for _ in range(_MOST_ITERATIONS // 2):
            middle = 0.5 * (one + other)
            same = (map_(middle) - middle) * sign > 0
            one, other = torch.where(same, middle, one), torch.where(same, other, middle)
        return torch.where(crossed, 0.5 * (one + other), z)

    def _is_new(self, found: Tensor) -> bool:
        """Tell whether a solution is far, in some sample, from all beside which others have been looked for."""
        size = 1.0 + found.abs().amax(1)
        closest = torch.stack([(found - seen).abs().amax(1) for seen in self._seen]).amin(0)
        return bool((closest > _MOVED * size).any())

    def _differ(self, one: Tensor, other: Tensor) -> bool:
        size = 1.0 + one.abs().amax(1, keepdim=True)
        return bool(((one - other).abs() > _SAME * size).any())

    def _newton(self, map_: Map, z: Tensor, most: int = _MOST_ITERATIONS) -> Tensor | None:
        """Return the solution that iterations from z lead to, evaluated last; None where they fail."""
        eps = torch.finfo(z.dtype).eps
        rest, fresh = map_(z) - z, False
        for count in range(most):
            off = rest.abs().amax(1)
            done = off <= _TOLERANCE * eps * z.abs().amax(1)
            if bool(done.all()):
                self._spent += max(0, count - _FEW)
                if self._spent > z.shape[1]:  # a new Jacobian would have cost less
                    self._factors = None
                return z
            if self._factors is None:
                factors, pivots, _ = torch.linalg.lu_factor_ex(self._jacobian(map_, z, rest))
                self._factors, fresh, self._spent = (factors, pivots), True, 0
            step = torch.linalg.lu_solve(*self._factors, rest[:, :, None])[:, :, 0]
            moved = self._step(map_, z, step, off, done, _HALVINGS if fresh else 0)
            if moved is not None:
                z, rest = moved
                fresh = False
                if not bool((rest.abs().amax(1) <= _CONTRACTION * off)[~done].all()):
                    self._factors = None
            elif fresh:
                map_(z)
                return z if bool((off <= _ROUNDING * eps * self._largest()).all()) else None
            else:
                self._factors = None
        return None

    def _step(
        self, map_: Map, z: Tensor, step: Tensor, off: Tensor, done: Tensor, halvings: int
    ) -> tuple[Tensor, Tensor] | None:
        """Return z and G(z) − z after a step that comes closer in every sample that is not done, halved if need be."""
        share = torch.where(done, 0.0, 1.0).to(z)
        for _ in range(1 + halvings):
            ahead = z + share[:, None] * step
            rest = map_(ahead) - ahead
            closer = (rest.abs().amax(1) < off) | done
            if bool(closer.all()):
                return ahead, rest
            share = torch.where(closer, share, 0.5 * share)
        return None

    def _jacobian(self, map_: Map, z: Tensor, rest: Tensor, little: float | None = None) -> Tensor:
        """Return I − ∂G/∂z of each sample, by differences over a little, given G(z) − z."""
        samples, units = z.shape
        if samples * units * units > _MOST_NUMBERS:
            raise InvalidValueError(
                f"{self.text}: {units} units of it have to be solved for together in each of {samples} samples, whose "
                "Jacobians are too large; give one of the populations a time constant tau > 0, or take fewer samples"
            )
        matrix = z.new_empty(samples, units, units)
        share = torch.finfo(z.dtype).eps ** 0.5 if little is None else little
        apart = share * (1.0 + z.abs().amax(1))
        for unit in range(units):
            beside = z.clone()
            beside[:, unit] += apart
            own = map_(beside) - beside
            matrix[:, :, unit] = (rest - own) / (beside[:, unit] - z[:, unit])[:, None]
        return matrix
