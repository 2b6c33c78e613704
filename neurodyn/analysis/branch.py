"""A branch of equilibria 0 = F(x, p), followed by its arclength, round folds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.analysis.linearised import Linearised
from neurodyn.analysis.spectrum import Spectrum, spectra
from neurodyn.errors import DivergenceError

Vector = NDArray[np.float64]

_NEWTON = 12
"""The most iterations of Newton's method."""
_QUICK = 7
"""With how many iterations a step may grow: the border is extrapolated, so that each gains a few digits."""
_FEW = 6
"""How many eigenvalues Arnoldi's method is asked for."""
_TURN = 0.95
"""The least cosine between the tangents of neighbouring points, and between these and the way from one to the other."""


@dataclass(frozen=True)
class Point:
    """A point of a branch."""

    arc: float
    """The arclength from the start."""
    place: Vector
    """(x, p), with p in units of the interval that is scanned; shape (unit + 1,)."""
    border: Vector
    """∂F/∂p."""
    turning: Vector
    """Its derivative by the arclength; 0 at the start."""
    tangent: Vector
    """d(x, p)/d arc."""
    spectrum: Spectrum
    """Of J."""


class Branch:
    """The zeros of F(x, p), which are followed in the metric ds² = |dx|²/n + dp².

    Parameters
    ----------
    field
        `field(p)` gives the linearisation of the network at the parameter p, in units of the interval that is scanned.
    like
        A tensor (1, unit), of the run's dtype on its device.
    """

    def __init__(self, field: Callable[[float], Linearised], like: Tensor) -> None:
        self._field, self._like = field, like
        self._units = like.shape[1]
        self._weights = np.append(np.full(self._units, 1.0 / self._units), 1.0)
        self.resolution = max(1e-13, float(torch.finfo(like.dtype).eps))
        """How closely a place between two points can be told, as a share of the way."""
        self._step = float(torch.finfo(like.dtype).eps) ** (1 / 3)
        self._tolerance = float(torch.finfo(like.dtype).eps) ** 0.5 * (1e-3 if like.dtype == torch.float64 else 0.1)

    def _tensor(self, x: Vector) -> Tensor:
        return torch.from_numpy(x[: self._units]).to(self._like)[None]

    def _numbers(self, x: Tensor) -> Vector:
        numbers: Vector = x[0].double().cpu().numpy()
        return numbers

    def slope(self, place: Vector) -> Vector:
        """Return F."""
        return self._numbers(self._field(float(place[-1])).slope(self._tensor(place)))

    def _by_parameter(self, place: Vector) -> Vector:
        """Return ∂F/∂p, by a central difference."""
        self.slope(place)  # which looks for all solutions of cycles
        up, down = place.copy(), place.copy()
        up[-1] += self._step
        down[-1] -= self._step
        for beside in (up, down):
            self._field(float(beside[-1])).field.follow(self._field(float(place[-1])).field)
        change: Vector = (self.slope(up) - self.slope(down)) / (up[-1] - down[-1])
        return change

    def _solve(self, place: Vector, border: Vector, row: Vector, right: Vector) -> Vector:
        """Solve [J border; row] d = right."""
        about, x = self._field(float(place[-1])), self._tensor(place)
        if about.small:
            jacobian = about.matrix(x)[0].double().cpu().numpy()
            matrix = np.block([[jacobian, border[:, None]], [row[None]]])
            try:
                solution: Vector = np.linalg.solve(matrix, right)
                rounding = np.finfo(np.float64).eps * np.abs(matrix).sum(1).max() * np.abs(solution).max()
                singular = not rounding <= np.abs(right).max()
            except np.linalg.LinAlgError:
                singular = True
            return np.linalg.lstsq(matrix, right)[0] if singular else solution  # it is singular where branches cross
        from scipy.sparse.linalg import LinearOperator, gmres  # here, because it takes long to import

        def product(d: NDArray[Any]) -> Vector:
            d = d.reshape(-1)
            image = self._numbers(about.product(x, self._tensor(d)))
            return np.append(image + border * d[-1], row @ d)

        size = self._units + 1
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        found, failed = gmres(operator, right, rtol=max(1e-10, self._tolerance), restart=min(size, 200), maxiter=20)
        if failed:
            raise np.linalg.LinAlgError("GMRES has not converged")
        solution = found
        return solution

    def _tangent(self, place: Vector, border: Vector, along: Vector) -> Vector:
        """Return the unit tangent there that points along another one."""
        found = self._solve(place, border, self._weights * along, np.append(np.zeros(self._units), 1.0))
        return found / math.sqrt(self._weights @ found**2)

    def _corrected(self, start: Vector, border: Vector, row: Vector) -> tuple[Vector, int] | None:
        """Return the zero of F on the plane through `start` that `row` is normal to, and the iterations; None if none.

        With row = (0, …, 0, 1) the parameter stays. The border ∂F/∂p may be about right.
        """
        place = start.copy()
        for iteration in range(_NEWTON):
            right = np.append(self.slope(place), row @ (place - start))
            try:
                change = self._solve(place, border, row, -right)
            except np.linalg.LinAlgError:
                return None
            place = place + change
            if not np.isfinite(place).all():
                return None
            if np.abs(change).max() <= self._tolerance * max(1.0, float(np.abs(place).max())):
                about = self._field(float(place[-1]))
                off = self._numbers(about.tau) * self.slope(place)
                # Where the matrix is singular, a change of 0 is no zero of F.
                at_zero = np.abs(off).max() <= 1e3 * self._tolerance * max(1.0, float(np.abs(place).max()))
                return (place, iteration + 1) if at_zero else None
        return None

    def _point(self, place: Vector, along: Vector, before: Point | None = None, distance: float = 0.0) -> Point:
        """Return the point at a place, which is the start, or so far along the branch from another one."""
        about = self._field(float(place[-1]))
        (modes,) = spectra(about, self._tensor(place), min(_FEW, about.units))
        border = self._by_parameter(place)
        arc, turning = 0.0, np.zeros_like(border)
        if before is not None:
            arc, turning = before.arc + distance, (border - before.border) / distance if distance else before.turning
        return Point(arc, place, border, turning, self._tangent(place, border, along), modes)

    def first(self, x: Vector, direction: float) -> Point | None:
        """Return the start at p = 0, from x or near it; None where Newton's method finds none."""
        fixed = np.append(np.zeros(self._units), 1.0)
        start = np.append(x, 0.0)
        found = self._corrected(start, self._by_parameter(start), fixed)
        return None if found is None else self._point(found[0], direction * fixed)

    def at(self, before: Point, distance: float) -> tuple[Point, int] | None:
        """Return the point at about a distance along the branch from another; None where it is not found."""
        guess = before.place + distance * before.tangent
        border = before.border + distance * before.turning
        found = self._corrected(guess, border, self._weights * before.tangent)
        if found is None:
            return None
        try:
            return self._point(found[0], before.tangent, before, distance), found[1]
        except np.linalg.LinAlgError:
            return None

    def ended(self, before: Point, p: float) -> Point | None:
        """Return the point at a parameter, close to another one."""
        fixed = np.append(np.zeros(self._units), 1.0)
        share = (p - before.place[-1]) / (before.tangent[-1] or 1.0)
        guess = before.place + share * before.tangent
        guess[-1] = p
        found = self._corrected(guess, before.border + share * before.turning, fixed)
        if found is None:
            return None
        way = found[0] - before.place
        return self._point(found[0], before.tangent, before, math.sqrt(self._weights @ way**2))

    def _turned(self, point: Point, after: Point) -> bool:
        """Tell whether the branch turns by too much between two points, or they lie on different ones."""
        way = after.place - point.place
        way /= math.sqrt(self._weights @ way**2)
        pairs = (point.tangent, after.tangent), (point.tangent, way), (way, after.tangent)
        return any(one @ (self._weights * two) < _TURN for one, two in pairs)

    def points(self, start: Point, longest: float, most: int) -> Iterator[Point]:
        """Yield the points from a start on, until the parameter leaves [0, 1] or there are too many.

        Raises
        ------
        DivergenceError
            If the step shrinks to nothing.
        """
        yield start
        point, step = start, 0.1 * longest
        for _ in range(most - 1):
            while (found := self.at(point, step)) is None or self._turned(point, found[0]):
                step *= 0.5
                if step < 1e-7:
                    raise DivergenceError(
                        f"continuation: no step leads on from where the parameter is {point.place[-1]:.6g} of its way; "
                        "the right side may have a kink or end there",
                        None,
                        None,
                    )
            after, iterations = found
            out = next((end for end in (0.0, 1.0) if (end - 0.5) * (after.place[-1] - end) > 0), None)
            if out is not None:
                last = self.ended(point, out)
                if last is not None:
                    yield last
                return
            yield after
            point, step = after, min(longest, step * (1.5 if iterations <= _QUICK else 0.8))
