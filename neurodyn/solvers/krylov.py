"""The exponential of a linear system on a Krylov space, for systems with cycles or several rates."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.base import Recorder, products
from neurodyn.solvers.linear import LinearPart
from neurodyn.system.state import State
from neurodyn.system.system import System

_DIMENSION = 40
"""The largest Krylov space; where it does not reach, the run is split."""


def krylov(
    system: System,
    state: State,
    moments: NDArray[np.float64],
    duration: float,
    step: float | None,
    recorder: Recorder,
    *,
    start: float = 0.0,
    ramp: State | None = None,
) -> int:
    """Record x(t) = x(0) + t φ₁(tA) F(x(0)), or the Euler iterates, leave `state` at the end, and count evaluations.

    With an orthonormal basis V of the Krylov space of F(x(0)) and H = Vᵀ A V, t φ₁(tA) F ≈ ‖F‖ V t φ₁(tH) e₁; for the
    Euler iterates, h Σ_{j<n} (1 + hA)^j takes the place of t φ₁(tA). A drive that grows as r t adds t² φ₂(tA) r.

    Parameters
    ----------
    system, state, moments, duration, step, recorder
        As of `nilpotent`, but for a system that is linear alone.
    start
        The time at x(0); moments count from 0 nevertheless.
    ramp
        r; None for a drive that stands still.

    References
    ----------
    R. B. Sidje, Expokit, ACM Trans. Math. Softw. 24 (1998), for the error estimate.
    """
    linear = LinearPart(system)
    evaluations, saved, time = 0, 0, 0.0
    accuracy = 1e-13 if system.dtype == torch.float64 else max(1e-7, 0.5 * torch.finfo(system.dtype).eps)
    ramped = None if ramp is None else _arnoldi(system, linear, ramp)
    rise = 0.0 if ramp is None else float(torch.linalg.vector_norm(ramp.flat))
    evaluations += 0 if ramped is None else len(ramped[1])
    while True:
        slope = system.new_state()
        system.field(state, slope, start + time)
        basis, small, tail = _arnoldi(system, linear, slope)
        evaluations += 1 + len(small)
        size = float(torch.linalg.vector_norm(slope.flat))
        bound = accuracy * max(float(torch.linalg.vector_norm(state.flat)), size)
        remaining = duration - start - time
        span = _reach(small, tail * size, remaining, step, bound)
        if ramped is not None:
            span = _reach(ramped[1], ramped[2] * rise, span, step, bound, ramp=True)
        last = span == remaining
        upto = len(moments) if last else int(np.searchsorted(moments, start + time + span, side="right"))
        rows = torch.cat([state.flat[None], basis, *(() if ramped is None else (ramped[0],))])

        def weights(after: NDArray[np.float64], small: NDArray[np.float64] = small, size: float = size) -> Tensor:
            table = size * _integrals(small, after, step)[0]
            if ramped is not None:
                table = np.concatenate([table, rise * _integrals(ramped[1], after, step)[1]], axis=1)
            return _weights(table, state.flat)

        if upto > saved:
            recorder.fill(moments[saved:upto], products(weights(moments[saved:upto] - start - time), rows))
        torch.mv(rows.t(), weights(np.array([span]))[0], out=slope.flat)
        state.flat.copy_(slope.flat)
        if last:
            return evaluations
        saved, time = upto, time + span


def _arnoldi(system: System, linear: LinearPart, start: State) -> tuple[Tensor, NDArray[np.float64], float]:
    """Return an orthonormal basis V (rows) of the Krylov space of `start`, H = Vᵀ A V, and how much it misses."""
    size = torch.linalg.vector_norm(start.flat)
    if float(size) == 0.0:
        return start.flat[None, :][:0], np.zeros((0, 0)), 0.0
    basis = torch.empty(_DIMENSION, len(start.flat), dtype=system.dtype, device=system.device)
    basis[0] = start.flat / size
    h = np.zeros((_DIMENSION + 1, _DIMENSION))
    image = system.new_state()
    for j in range(_DIMENSION):
        vector = system.new_state(basis[j])
        linear.apply(vector, image)
        scale = torch.linalg.vector_norm(image.flat)
        overlaps = []
        for _ in range(2):  # once more than Gram–Schmidt asks for, or rounding would spoil the orthogonality
            overlaps.append(basis[: j + 1] @ image.flat)
            image.flat.sub_(torch.mv(basis[: j + 1].t(), overlaps[-1]))
        rest = torch.linalg.vector_norm(image.flat)
        first, second, (whole, left) = _fetched(*overlaps, torch.stack([scale, rest]))
        h[: j + 1, j], h[j + 1, j] = first + second, left
        if left <= 4 * torch.finfo(system.dtype).eps * whole:
            return basis[: j + 1], h[: j + 1, : j + 1], 0.0
        if j + 1 < _DIMENSION:
            torch.div(image.flat, rest, out=basis[j + 1])
    return basis, h[:-1], float(h[-1, -1])


def _fetched(*vectors: Tensor) -> list[NDArray[np.float64]]:
    """Return vectors of a device, for which it is waited for once."""
    together = np.array(torch.cat(vectors).tolist())
    return np.split(together, np.cumsum([len(vector) for vector in vectors])[:-1])


def _integrals(
    small: NDArray[np.float64], times: NDArray[np.float64], step: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return t φ₁(tH) e₁, t² φ₂(tH) e₁ and t³ φ₃(tH) e₁ at each time, shape (time, m) each.

    Of Euler steps, the sums that take the place of the first two.
    """
    m = len(small)
    first = np.eye(m, 1)[:, 0]
    if m == 0:
        return (np.zeros((len(times), 0)),) * 3
    if step is None:
        padded = np.zeros((m + 3, m + 3))
        padded[:m, :m], padded[:m, m], padded[m, m + 1], padded[m + 1, m + 2] = small, first, 1.0, 1.0
        columns = _last_columns(padded, times)[:, :m]
        return columns[:, :, 0], columns[:, :, 1], columns[:, :, 2]
    steps = np.rint(times / step).astype(np.int64)
    inner, outer = np.zeros((steps.max(initial=0) + 1, m)), np.zeros((steps.max(initial=0) + 1, m))
    for n in range(len(inner) - 1):
        inner[n + 1] = inner[n] + step * (small @ inner[n] + first)
        outer[n + 1] = outer[n] + step * (small @ outer[n] + inner[n])
    return inner[steps], outer[steps], outer[steps]


def _last_columns(matrix: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the last three columns of exp(tM) at each time, shape (time, m, 3).

    At evenly spaced times, exp((s + t)M) = exp(sM) exp(tM) of 2√n exponentials gives n.
    """
    from scipy.linalg import expm  # here, because it takes long to import

    def exponentials(times: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = expm(times[:, None, None] * matrix)
        return found

    size = math.isqrt(len(times))
    if size > 1:
        starts, after = times[::size], times[:size] - times[0]
        grid = (starts[:, None] + after).reshape(-1)[: len(times)]
        if np.abs(grid - times).max() <= 8 * np.finfo(np.float64).eps * np.abs(times).max():
            columns = exponentials(starts)[:, None] @ exponentials(after)[:, :, -3:]
            return columns.reshape(-1, len(matrix), 3)[: len(times)]
    return exponentials(times)[:, :, -3:]


def _reach(
    small: NDArray[np.float64], tail: float, remaining: float, step: float | None, bound: float, *, ramp: bool = False
) -> float:
    """Return how far the Krylov space reaches within the bound on the error, by halving the remaining time."""
    span = remaining
    while tail > 0:
        error = tail * abs(float(_integrals(small, np.array([span]), step)[1 + ramp][0, -1]))
        if error <= bound or (step is not None and span <= step * (1 + 1e-9)):
            break
        span = span / 2 if step is None else max(1.0, np.floor(span / step / 2 + 1e-9)) * step
    return span


def _weights(table: NDArray[np.float64], like: Tensor) -> Tensor:
    ones = np.ones((len(table), 1))
    return torch.as_tensor(np.concatenate([ones, table], axis=1), dtype=like.dtype, device=like.device)
