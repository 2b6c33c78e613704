"""The flow of dx/dt = xA + b + rt, of matrices of states in rows: by exponentials of A, or by its Taylor series."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_REACH = 2.0
"""How large the norm of tA is at most in a series: cancellation then costs less than one digit."""
_THIN = 8
"""A product with few rows takes as long as one with so many."""
_DEGREE = 16
"""That of the polynomial of an exponential, of a norm of 1 at most."""
_BEFORE_SQUARES = 8
"""How many products the polynomial and the functions that follow from it take."""


class Exponentials(NamedTuple):
    """What x, b and r weigh in x(t): e^{tA}, t φ₁(tA) and t² φ₂(tA), shape (…, d, d) each."""

    of_state: Tensor
    of_drive: Tensor
    of_rise: Tensor | None


class Flow:
    """The flow of dx/dt = xA + b + rt.

    Parameters
    ----------
    matrix
        A, shape (d, d) or (member, d, d).
    dtype
        That of the states.
    ramped
        Whether there is an r.
    """

    def __init__(self, matrix: Tensor, dtype: torch.dtype, *, ramped: bool) -> None:
        self._double, self._matrix, self._ramped = matrix.double(), matrix.to(dtype), ramped
        self._norm = _norm_bound(self._double)
        self._known: dict[float, Exponentials] = {}
        self.products = 0
        """How many products with A, or of matrices of its size, there have been."""

    def recurring(self, times: NDArray[np.float64], counts: NDArray[np.int64], rows: int, *, apart: bool) -> list[bool]:
        """Tell of each time whether its exponentials pay, which take products of matrices and then one a state.

        Parameters
        ----------
        times, counts
            The times, and how many states go each as far.
        rows
            How many rows a state has.
        apart
            Whether each state follows from the one before, so that they do not go together.
        """
        pay = []
        own = max(rows, _THIN) if apart else rows
        for time, count in zip(times.tolist(), counts.tolist(), strict=True):
            squares = (2 + self._ramped) * self._squarings(time)
            once = 0 if time in self._known else (_BEFORE_SQUARES + squares) * self._matrix.shape[-1]
            steps, degree = self._steps(time)
            pay.append(once + (2 + self._ramped) * count * own < count * own * steps * degree)
        return pay

    def exponentials(self, time: float) -> Exponentials:
        """Return what x, b and r weigh so much later.

        φ₁(z) = (e^z − 1)/z and φ₂(z) = (φ₁(z) − 1)/z, of z = tA/2ˢ by their Taylor series, and by doubling s times::

            e^{2z} = (e^z)², φ₁(2z) = (e^z + 1) φ₁(z) / 2, φ₂(2z) = (φ₁(z)² + 2 φ₂(z)) / 4

        which holds of all matrices, singular and defective ones, too.
        """
        if time not in self._known:
            squarings = self._squarings(time)
            z = self._double * (time / 2.0**squarings)
            highest = _polynomial(z, 1 + self._ramped)
            second = highest if self._ramped else None
            first = _one_added(highest @ z) if self._ramped else highest
            whole = _one_added(first @ z)
            for _ in range(squarings):
                if second is not None:
                    second = torch.add(first @ first, second, alpha=2.0).div_(4.0)
                first = _one_added(whole.clone()) @ first / 2.0
                whole = whole @ whole
            self.products += _BEFORE_SQUARES + (2 + self._ramped) * squarings
            dtype = self._matrix.dtype
            of_rise = None if second is None else (second * time**2).to(dtype)
            self._known[time] = Exponentials(whole.to(dtype), (first * time).to(dtype), of_rise)
        return self._known[time]

    def series(self, x: Tensor, drive: Tensor, rise: Tensor | None, times: Tensor, longest: float) -> Tensor:
        """Return x(t) by Taylor's series, in steps that are short enough.

        With w = xA + b and u = wA + r, x(t) = x + t w + t² (u/2! + t uA/3! + …), products with the states alone.

        Parameters
        ----------
        x, drive, rise
            The states, b and r, shape (…, row, d).
        times
            t of each row, shape (row, 1), or of all, shape (1, 1).
        longest
            The longest of them.
        """
        steps, degree = self._steps(longest)
        h = times / steps
        factors = (h / torch.arange(degree, 0, -1, dtype=h.dtype, device=h.device)[:, None, None]).unbind()
        for step in range(steps):
            w = x @ self._matrix
            w += drive
            if rise is not None:
                w.addcmul_(rise, h, value=step)
            u = w @ self._matrix
            if rise is not None:
                u += rise
            total = u
            for factor in factors[:-2]:
                total = torch.addcmul(u, total @ self._matrix, factor)
            x = torch.addcmul(x, h, w).addcmul_(h * factors[-2], total)
            self.products += degree
        return x

    def _squarings(self, time: float) -> int:
        return max(0, math.ceil(math.log2(max(1.0, self._norm * time))))

    def _steps(self, time: float) -> tuple[int, int]:
        """Return how many steps of a series a time takes, and the degree."""
        steps = max(1, math.ceil(self._norm * time / _REACH))
        size, degree, term = self._norm * time / steps, 2, (self._norm * time / steps) ** 2 / 2.0
        while term > torch.finfo(self._matrix.dtype).eps / 16:
            degree += 1
            term *= size / degree
        return steps, degree


def _norm_bound(matrix: Tensor) -> float:
    """Return a bound on ‖A‖₂: the least of ‖A‖₁, ‖A‖_∞ and, as B = AAᵀ is symmetric, ‖B²‖₁^(1/4)."""
    columns, rows = matrix.abs().sum(-2).amax(), matrix.abs().sum(-1).amax()
    scale = columns.clamp_min(torch.finfo(matrix.dtype).tiny)
    square = matrix / scale @ (matrix / scale).mT
    fourth = (square @ square).abs().sum(-1).amax().sqrt().sqrt() * scale
    return float(torch.stack([columns, rows, fourth]).amin())


def _polynomial(z: Tensor, order: int) -> Tensor:
    """Return φ_p(z) = Σ_k z^k / (k + p)!, by powers of z⁴ (Paterson and Stockmeyer, 1973)."""
    square = z @ z
    powers = [z, square, square @ z]
    fourth = square @ square
    total = fourth / math.factorial(_DEGREE + order)
    for block in range(_DEGREE - 4, -1, -4):
        if block < _DEGREE - 4:
            total = total @ fourth
        for place, power in enumerate(powers, block + 1):
            total.add_(power, alpha=1.0 / math.factorial(place + order))
        total.diagonal(dim1=-2, dim2=-1).add_(1.0 / math.factorial(block + order))
    return total


def _one_added(matrix: Tensor) -> Tensor:
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return matrix
