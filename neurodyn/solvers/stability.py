"""Stability of equilibria: the rightmost eigenvalues of the Jacobian, sample by sample, by Arnoldi's method."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.solvers.rows import Rows, lengths

_WHOLE = 24
"""Up to how many units the whole spectrum of a sample is worked out."""
_FEW = 6
"""The directions that a symmetric Jacobian of more units is projected on; each Ritz value is a bound there."""
_NOISE = 8.0
"""How large, in roots of the machine epsilon times the spectral radius, an eigenvalue is that differences resolve."""


def growth_rate(field: Rows, x: Tensor, slope: Tensor, along: Tensor, *, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return the rate at which the fastest growing perturbation of an equilibrium grows, and which are centres.

    The rates have shape (sample,), 0 where no perturbation grows; a centre is an equilibrium that a perturbation turns
    around without decaying, as far as can be told.

    J is that of F, projected on the Krylov space of a vector that is partly `along`, partly random but always the same.
    Up to 24 units, its spectrum is whole; beyond, a growth that does not show in so many directions is missed.

    Parameters
    ----------
    field
        τF of the system.
    x, slope
        The equilibrium and τF(x), shape (sample, unit).
    along
        A direction to look along, likewise; 0 for none.
    symmetric
        Whether F is a gradient flow, with τ as its metric, so that J is symmetric in it.

    References
    ----------
    Y. Saad, Numerical Methods for Large Eigenvalue Problems (2011), §6.2.
    """
    samples, units = x.shape
    count = min(units, _FEW if symmetric and units > _WHOLE else _WHOLE)
    root = field.tau.sqrt()
    # In √τ x, the Jacobian has the same eigenvalues, and that of a gradient flow is symmetric.
    basis = x.new_empty(count + 1, samples, units)
    basis[0] = _unit(random_direction(field).expand(samples, units).clone()) + _unit(along * root)
    tangent = field.tangent(x)
    basis[0] = _unit(root * tangent(basis[0] / root))
    hessenberg = torch.zeros(count + 1, count, samples, dtype=torch.float64, device="cpu")
    size = lengths(x)
    size = torch.where(size > torch.finfo(x.dtype).tiny ** 0.5, size, 1.0)
    little = torch.finfo(x.dtype).eps ** 0.5
    for k in range(count):
        direction = tangent(basis[k] / root)  # once more, as rounding would part units that move side by side
        length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        step = little * size / torch.where(length > 0, length, 1.0)
        image = (field.near(x + step * direction, x) - slope).div_(step).div_(root)
        image = root * tangent(image / root)  # a unit that hardly any change would free stays at its kink
        for _ in range(2):  # once more than Gram–Schmidt asks for, or rounding would spoil the orthogonality
            overlaps = (basis[: k + 1] * image).sum(2)
            image -= (basis[: k + 1] * overlaps[:, :, None]).sum(0)
            hessenberg[: k + 1, k] += overlaps.double().cpu()
        rest = torch.linalg.vector_norm(image, dim=1)
        hessenberg[k + 1, k] = rest.double().cpu()
        basis[k + 1] = image / rest.clamp_min(torch.finfo(x.dtype).tiny)[:, None]
    rates, turns = _rightmost(hessenberg.permute(2, 0, 1).numpy(), symmetric=symmetric, noise=_NOISE * little)
    found = torch.as_tensor(rates, dtype=x.dtype, device=x.device)
    # Beside a kink that F leads away from, a perturbation grows at once.
    found = torch.where(field.repelled(x), torch.maximum(found, (1.0 / field.tau).amax(-1)), found)
    return found, torch.as_tensor(turns, device=x.device)


def random_direction(field: Rows) -> Tensor:
    """Return a random direction that is always the same, shape (unit,), without touching the global random state."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(field.tau.shape[-1], generator=generator, device="cpu").to(field.tau)


def _unit(rows: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(size > 0, size, 1.0)


def _rightmost(
    hessenberg: NDArray[np.float64], *, symmetric: bool, noise: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the largest positive real part of a Ritz value that holds, of each H of shape (m + 1, m), and centres."""
    rates, turns = np.zeros(len(hessenberg)), np.zeros(len(hessenberg), dtype=bool)
    for sample, whole in enumerate(hessenberg):
        square = whole[:-1]
        if not np.isfinite(whole).all():
            continue
        rest, scale = np.abs(np.diag(whole, -1)), np.abs(square).max()
        ends = np.flatnonzero(rest <= noise * scale)
        if len(ends):  # the space is invariant, and what comes after is rounding
            square = square[: ends[0] + 1, : ends[0] + 1]
        left = 0.0 if len(ends) else rest[-1]
        if symmetric:
            values, vectors = np.linalg.eigh(0.5 * (square + square.T))
            uncertain = np.zeros(len(values))
        else:
            values, vectors = np.linalg.eig(square)
            uncertain = left * np.abs(vectors[-1])
        holds = (values.real > noise * scale) & (uncertain <= 0.5 * values.real)
        rates[sample] = values.real[holds].max(initial=0.0)
        neutral = (np.abs(values.real) <= noise * scale) & (np.abs(values.imag) > 2 * noise * scale)
        turns[sample] = bool((neutral & (uncertain <= noise * scale)).any())
    return rates, turns
