"""A stabilised Runge–Kutta–Chebyshev method for gradient flows and other dissipative systems."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurodyn.solvers.base import Recorder, hermite
from neurodyn.solvers.control import ErrorControlled, Stepper
from neurodyn.system import System

_DAMPING = 2.0 / 13.0
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
    """

    rtol: float = 1e-3
    atol: float = 1e-4

    def stepper(self, system: System, start: Tensor) -> Stepper:
        return _ChebyshevStepper(system, self.rtol, self.atol, start)


class _ChebyshevStepper(Stepper):
    error_order = 3

    def __init__(self, system: System, rtol: float, atol: float, start: Tensor) -> None:
        super().__init__(system, rtol, atol, start, system.new_state(), system.new_state())
        self._stages = [system.new_state() for _ in range(3)]
        self._direction: Tensor | None = None
        self._accepted = 0
        self._radius = 0.0
        self._before: tuple[float, float] | None = None
        """The size and the scaled error of the last accepted step."""

    def _spectral_radius(self) -> float:
        """Estimate ρ on the Krylov space of differences of F, from where the last estimate ended.

        Arnoldi's iteration takes fewer evaluations than Sommeijer et al.'s power iteration.
        """
        known = self.system.structure.spectral_bound
        if known is not None:
            return known
        x, slope = self.x.flat, self.slope.flat
        start = slope if self._direction is None else self._direction
        length = float(torch.linalg.vector_norm(start))
        basis = torch.empty(_MOST_DIRECTIONS + 1, len(x), dtype=x.dtype, device=x.device)
        basis[0] = start / length if length > 0.0 else len(x) ** -0.5
        scale = math.sqrt(torch.finfo(x.dtype).eps) * max(float(torch.linalg.vector_norm(x)), 1.0)
        hessenberg = np.zeros((_MOST_DIRECTIONS + 1, _MOST_DIRECTIONS))
        probe, image = self._stages[0], self._stages[1]
        radius, largest, vectors = 0.0, 0, np.ones((1, 1))
        for k in range(_MOST_DIRECTIONS):
            torch.add(x, basis[k], alpha=scale, out=probe.flat)
            self.evaluate(probe, image)
            rest = (image.flat - slope).div_(scale)
            overlaps = basis[: k + 1] @ rest
            if not bool(torch.isfinite(overlaps).all()):
                break  # F ends beside x, which the step control has to find out
            rest.addmv_(basis[: k + 1].t(), overlaps, alpha=-1.0)
            hessenberg[: k + 1, k] = overlaps.double().cpu()
            hessenberg[k + 1, k] = torch.linalg.vector_norm(rest)
            values, vectors = np.linalg.eig(hessenberg[: k + 1, : k + 1])
            largest = int(np.abs(values).argmax())
            uncertain = hessenberg[k + 1, k] * abs(vectors[k, largest])
            radius = abs(values[largest]) + uncertain
            if uncertain <= 0.1 * radius:
                break
            basis[k + 1] = rest / hessenberg[k + 1, k]
        self._direction = basis[: len(vectors)].t() @ torch.as_tensor(vectors[:, largest].real).to(x)
        return 1.1 * float(radius)

    def attempt(self, h: float) -> float:
        if self._radius == 0.0:
            self._radius = self._spectral_radius()
        stages = max(2, math.ceil(math.sqrt(1.54 * h * self._radius + 1.0)))
        if stages > _MOST_STAGES:
            return 8.0  # as if the error were too large: the step is then halved
        self._chebyshev(h, stages)
        self.evaluate(self.y, self.slope_after)
        error = torch.sub(self.x.flat, self.y.flat, out=self._stages[0].flat)
        error.add_(self.slope.flat, alpha=0.5 * h).add_(self.slope_after.flat, alpha=0.5 * h)
        scaled = 0.8 * self.scaled_norm(error)
        if not scaled <= 1.0:
            self._radius = 0.0
        return scaled

    def _chebyshev(self, h: float, stages: int) -> None:
        """Write x(t + h) into y, by the three-term recursion of Sommeijer et al."""
        w0 = 1.0 + _DAMPING / stages**2
        root = math.sqrt(w0 * w0 - 1.0)
        argument = stages * math.log(w0 + root)
        w1 = math.sinh(argument) * (w0 * w0 - 1.0)
        w1 /= math.cosh(argument) * stages * root - w0 * math.sinh(argument)
        b, b1, b2 = 0.0, 1.0 / (2.0 * w0) ** 2, 1.0 / (2.0 * w0) ** 2
        t1, t2, dt1, dt2, ddt1, ddt2 = w0, 1.0, 1.0, 0.0, 0.0, 0.0
        older, newer, other = self._stages
        older.flat.copy_(self.x.flat)
        torch.add(self.x.flat, self.slope.flat, alpha=h * w1 * b1, out=newer.flat)
        for stage in range(2, stages + 1):
            t = 2.0 * w0 * t1 - t2
            dt = 2.0 * w0 * dt1 - dt2 + 2.0 * t1
            ddt = 2.0 * w0 * ddt1 - ddt2 + 4.0 * dt1
            b = ddt / dt**2
            a = 1.0 - t1 * b1
            mu, nu = 2.0 * w0 * b / b1, -b / b2
            weight = h * mu * w1 / w0
            out = self.y if stage == stages else other
            slope = self.slope_after
            self.evaluate(newer, slope)
            torch.mul(newer.flat, mu, out=out.flat)
            out.flat.add_(older.flat, alpha=nu).add_(self.x.flat, alpha=1.0 - mu - nu)
            out.flat.add_(slope.flat, alpha=weight).add_(self.slope.flat, alpha=-weight * a)
            older, newer, other = newer, out, older
            t1, t2, dt1, dt2, ddt1, ddt2 = t, t1, dt, dt1, ddt, ddt1
            b1, b2 = b, b1

    def growth(self, h: float, error: float) -> float:
        """Predict the next step from how the last two and their errors compare, as Sommeijer et al. do."""
        before, self._before = self._before, (h, error)
        trend = 1.0 if before is None else h / before[0] * (before[1] / error) ** (1 / self.error_order)
        return float(0.8 * trend * error ** (-1 / self.error_order))

    def accept(self) -> None:
        self.x, self.y = self.y, self.x
        self.slope, self.slope_after = self.slope_after, self.slope
        self._accepted += 1
        if self._accepted % _RENEW_AFTER == 0:
            self._radius = 0.0

    def interpolate(self, thetas: list[float], moments: list[float], h: float, recorder: Recorder) -> None:
        between = self.system.new_state()
        for theta, moment in zip(thetas, moments, strict=True):
            hermite(
                self.x.flat, self.slope.flat, self.y.flat, self.slope_after.flat, h=h, theta=theta, out=between.flat
            )
            recorder.record(moment, between)
