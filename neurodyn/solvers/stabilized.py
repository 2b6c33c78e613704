"""A stabilised Runge–Kutta–Chebyshev method for gradient flows and other dissipative systems."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurodyn.solvers.chebyshev import ERROR, recursion
from neurodyn.solvers.control import ErrorControlled, Stepper, row_weights
from neurodyn.system.system import System

_MOST_STAGES = 200
_MOST_DIRECTIONS = 20
_RENEW_AFTER = 25
"""After how many accepted steps the spectral radius is estimated anew."""


@dataclass(frozen=True)
class Stabilized(ErrorControlled):
    """The second-order Runge–Kutta–Chebyshev method RKC2, with step control.

    s stages are stable up to h ρ ≈ 0.65 s² on the negative real axis, so that the cost of a long relaxation grows with
    the square root of its stiffness only. The spectral radius ρ of the Jacobian is estimated from a few differences of
    the vector field, or known from the declaration. Save points are interpolated by a cubic Hermite polynomial.
    Where activations have kinks, F jumps, and `Sliding` takes fewer evaluations for the same error.

    Parameters
    ----------
    rtol, atol
        The relative tolerance, and the absolute one in units of activity.

    Raises
    ------
    ValueError
        If a tolerance is not positive.

    References
    ----------
    B. P. Sommeijer, L. F. Shampine, J. G. Verwer, "RKC: an explicit solver for parabolic PDEs", J. Comput. Appl. Math.
    88 (1997).

    Examples
    --------
    >>> import neurodyn as nd
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=1.0, solver=nd.Stabilized(rtol=1e-5, atol=1e-7), save_at=2)
    >>> round(float(run.x[-1].item()), 3)
    0.368
    """

    rtol: float = 1e-3
    atol: float = 1e-4

    def stepper(self, system: System, start: Tensor) -> Stepper:
        return _ChebyshevStepper(system, self.rtol, self.atol, start)


class _Recursion(NamedTuple):
    """The recursion of Sommeijer et al. for a number of stages, as `chebyshev.Term` has it, and the error."""

    beta: float
    """β₁."""
    nodes: tuple[float, ...]
    """When in a step each stage but the last is taken."""
    nu: tuple[float, ...]
    """ν_2, ν_3, …; in stage 2, y_0 = x has its weight, and ν_2 is 0."""
    weights: Callable[[float], Sequence[Tensor]]
    """In each of these stages, and in the error, those of the four rows side by side in `_ChebyshevStepper`."""


@cache
def _recursion(stages: int, dtype: torch.dtype, device: torch.device) -> _Recursion:
    beta, terms = recursion(stages)
    nus, fixed, by_h = [], [], []
    for stage, term in enumerate(terms, start=2):
        nu = term.nu if stage > 2 else 0.0
        mu = float(torch.tensor(term.mu, dtype=dtype, device="cpu"))  # as rounded, so that a constant stays one
        nus.append(nu)
        slopes = (term.first, term.slope)
        into_y = (stages - stage) % 2 == 0
        fixed.append((mu, 1.0 - mu - nu, 0.0, 0.0) if into_y else (1.0 - mu - nu, 0.0, 0.0, mu))
        by_h.append((0.0, 0.0, *slopes) if into_y else (0.0, *slopes, 0.0))
    of_values, of_slopes = ERROR
    fixed.append((of_values, 0.0, 0.0, -of_values))
    by_h.append((0.0, of_slopes, of_slopes, 0.0))
    nodes = [beta, *(term.node for term in terms[:-1])]
    return _Recursion(
        beta, tuple(nodes), tuple(nus), row_weights(fixed, by_h, torch.empty(0, dtype=dtype, device=device))
    )


class _ChebyshevStepper(Stepper):
    """The rows are a stage, x, F(x), F(y) and another stage, which ends as y.

    A stage y_j takes the place of y_{j−2}, as a sum of itself and of the four rows beside it, in one pass.
    """

    carried = (*Stepper.carried, "_direction", "_accepted", "_radius", "_before")
    error_order = 3

    def __init__(self, system: System, rtol: float, atol: float, start: Tensor) -> None:
        super().__init__(system, rtol, atol, start, count=5, first=1)
        self._beside_y, self._with_y = self.columns(0, 4), self.columns(1, 5)
        self._direction: Tensor | None = None
        self._accepted = 0
        self._radius = 0.0
        self._before: tuple[float, float] | None = None
        """The size and the scaled error of the last accepted step."""

    def acceleration(self, h: float) -> Tensor:
        """Return dF/dt at the start; with the first estimate of ρ, which begins with the change of F along F."""
        if self.system.structure.spectral_bound is not None:
            return super().acceleration(h)
        self._radius, change = self._spectral_radius()
        return change

    def _spectral_radius(self) -> tuple[float, Tensor]:
        """Estimate ρ on the Krylov space of differences of F, from F or from where the last estimate ended.

        Arnoldi's iteration takes fewer evaluations than Sommeijer et al.'s power iteration. In a gradient flow, a Ritz
        value and its residual together are close to ρ before either settles, and come closer like a geometric series,
        of which the rest is added (Aitken). Beside ρ, the Jacobian's product with the first direction is returned.
        """
        x, slope = self.x.flat, self.slope.flat
        start = slope if self._direction is None else self._direction
        length = float(torch.linalg.vector_norm(start))
        basis = torch.empty(_MOST_DIRECTIONS + 1, len(x), dtype=x.dtype, device=x.device)
        basis[0] = start / length if length > 0.0 else len(x) ** -0.5
        scale = math.sqrt(torch.finfo(x.dtype).eps) * max(float(torch.linalg.vector_norm(x)), 1.0)
        hessenberg = np.zeros((_MOST_DIRECTIONS + 1, _MOST_DIRECTIONS))
        probe, image = self.rows[0], self.y
        radius, change, largest, vectors = 0.0, math.inf, 0, np.ones((1, 1))
        for k in range(_MOST_DIRECTIONS):
            torch.add(x, basis[k], alpha=scale, out=probe.flat)
            self.evaluate(probe, image)
            earlier, rest = basis[: k + 1], torch.sub(image.flat, slope, out=basis[k + 1])
            if k == 0:
                product = rest * (length / scale)
            overlaps = earlier @ rest
            rest.addmv_(earlier.t(), overlaps, alpha=-1.0)
            *column, residual = torch.cat([overlaps, torch.linalg.vector_norm(rest).view(1)]).tolist()
            if not math.isfinite(residual):
                break  # F ends beside x, which the step control has to find out
            hessenberg[: k + 2, k] = [*column, residual]
            values, vectors = np.linalg.eig(hessenberg[: k + 1, : k + 1])
            largest = int(np.abs(values).argmax())
            uncertain = residual * abs(vectors[k, largest])
            before, change_before, radius = radius, change, float(abs(values[largest]) + uncertain)
            change = radius - before
            remaining = change**2 / (change_before - change) if abs(change) < change_before else math.inf
            if uncertain <= 0.1 * radius:
                break
            if k > 1 and remaining <= 0.1 * radius:
                radius += remaining
                break
            rest.div_(residual)
        self._direction = basis[: len(vectors)].t() @ x.new_tensor(vectors[:, largest].real)
        return 1.1 * radius / scale, product

    def attempt(self, h: float) -> float:
        if self._radius == 0.0:
            known = self.system.structure.spectral_bound
            self._radius = self._spectral_radius()[0] if known is None else known
        stages = max(2, math.ceil(math.sqrt(1.54 * h * self._radius + 1.0)))
        if stages > _MOST_STAGES:
            return 8.0  # as if the error were too large: the step is then halved
        self._chebyshev(h, stages)
        self.evaluate(self.y, self.slope_after, h)
        scaled = self.scaled_error()
        if not scaled <= 1.0:
            # What is stiff may not be in sight of where the last estimate ended, and be small in F.
            self._radius, self._direction = 0.0, self.slope.flat.sign()
        return scaled

    def error(self, out: Tensor) -> None:
        torch.mv(self._with_y, self._of_error, out=out)

    def _chebyshev(self, h: float, stages: int) -> None:
        """Write x(t + h) into y."""
        recursion = _recursion(stages, self.system.dtype, self.system.device)
        *weights, self._of_error = recursion.weights(h)
        older, newer = (self.rows[0], self.y) if stages % 2 else (self.y, self.rows[0])
        newer.combine(self.x, [(recursion.beta * h, self.slope)])
        for nu, of_rows, node in zip(recursion.nu, weights, recursion.nodes, strict=True):
            self.evaluate(newer, self.slope_after, node * h)
            beside = self._with_y if newer is self.y else self._beside_y
            older.flat.addmv_(beside, of_rows, beta=nu)
            older, newer = newer, older

    def growth(self, h: float, error: float) -> float:
        """Predict the next step from how the last two and their errors compare, as Sommeijer et al. do."""
        before, self._before = self._before, (h, error)
        trend = 1.0 if before is None else h / before[0] * (before[1] / error) ** (1 / self.error_order)
        return float(0.8 * trend * error ** (-1 / self.error_order))

    def accept(self) -> None:
        super().accept()
        self._accepted += 1
        if self._accepted % _RENEW_AFTER == 0:
            self._radius = 0.0
