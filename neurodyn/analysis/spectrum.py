"""The rightmost eigenvalues of a Jacobian, of the whole matrix or by Arnoldi's method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.analysis.linearised import DENSE, Linearised
from neurodyn.errors import InvalidValueError

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of one sample's Jacobian.

    Parameters
    ----------
    values
        The rightmost first.
    largest
        Those of the largest modulus.
    residual
        max ‖Jᵀ v − λ v‖ / ‖λ v‖ of the values; 0 of a whole spectrum, which LAPACK gives to rounding.
    """

    values: Complex
    largest: Complex
    residual: float

    @property
    def abscissa(self) -> float:
        """The largest real part; −∞ where there is no mode, as bounds hold every unit."""
        return float(self.values.real.max(initial=-np.inf))

    @property
    def euler_step(self) -> float:
        """The largest h with |1 + hλ| ≤ 1, 0 where a mode does not decay; ∞ where there is no mode."""
        every = np.concatenate([self.values, self.largest])
        if not (every.real < 0).all():
            return 0.0
        return float((-2 * every.real / np.abs(every) ** 2).min(initial=np.inf))


def spectra(about: Linearised, x: Tensor, count: int) -> list[Spectrum]:
    """Return the eigenvalues of each sample's Jacobian at x, shape (sample, unit): `count` of them beyond 500 units.

    Raises
    ------
    ValueError
        If Arnoldi's method does not converge.
    """
    if about.small:
        free, matrices = about.free(x).cpu().numpy(), about.matrix(x).double().cpu().numpy()
        return [of_matrix(matrix[np.ix_(own, own)]) for own, matrix in zip(free, matrices, strict=True)]
    if about.field.bounds is not None:
        raise InvalidValueError(
            f"population {next(iter(about.system.bounds))} has bounds, and beyond {DENSE} units eigenvalues are found "
            "of networks without them alone"
        )
    transposed = about.transposed(x)
    return [_by_arnoldi(about, transposed, x, sample, count) for sample in range(len(x))]


def _by_arnoldi(
    about: Linearised, transposed: Callable[[Tensor], Tensor], x: Tensor, sample: int, count: int
) -> Spectrum:
    """Return the rightmost eigenvalues of one sample's Jacobian, and those of the largest modulus, given v ↦ Jᵀ v.

    References
    ----------
    R. B. Lehoucq, D. C. Sorensen, C. Yang, ARPACK Users' Guide (1998).
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs  # here, because it takes long to import

    # That of Jᵀ is that of J, and costs one way back through F; other samples' rows of it are left at 0.
    def pulled(v: NDArray[Any]) -> NDArray[np.float64]:
        rows = torch.zeros_like(x)
        rows[sample] = torch.from_numpy(v.reshape(-1)).to(x)
        found: NDArray[np.float64] = transposed(rows)[sample].double().cpu().numpy()
        return found

    operator = LinearOperator((about.units, about.units), matvec=pulled, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(about.units)
    tolerance, width = 10 * torch.finfo(x.dtype).eps, min(about.units, max(60, 6 * count))
    known: dict[str, tuple[Complex, Complex]] = {}
    for which in ("LR", "LM"):
        try:
            known[which] = eigs(operator, k=count, which=which, v0=start, ncv=width, tol=tolerance)
        except ArpackNoConvergence as error:
            raise InvalidValueError(
                f"network {about.system.network.name!r}: Arnoldi's method has found {len(error.eigenvalues)} of "
                f"{count} eigenvalues; ask for fewer or more by count="
            ) from error
    values, vectors = known["LR"]
    images = np.stack([pulled(v.real) + 1j * pulled(v.imag) for v in vectors.T], 1)
    off = np.linalg.norm(images - values * vectors, axis=0) / np.maximum(np.abs(values), np.finfo(float).tiny)
    order = np.argsort(-values.real, kind="stable")
    return Spectrum(values[order], known["LM"][0], float(off.max()))


def variables(dim: str, spectra: Sequence[Spectrum], modes: int) -> dict[str, Any]:
    """Return what several spectra tell, as variables of a dataset along a dimension, the rightmost modes first."""
    values = np.stack([each.values[:modes] for each in spectra])
    abscissae = np.array([each.abscissa for each in spectra])
    residuals = [each.residual for each in spectra]
    rate = {"units": "1/tau"}
    return {
        "growth": ((dim, "mode"), values.real, {**rate, "long_name": "growth rate Re λ"}),
        "frequency": ((dim, "mode"), values.imag, {**rate, "long_name": "angular frequency Im λ"}),
        "abscissa": (dim, abscissae, {**rate, "long_name": "spectral abscissa"}),
        "stable": (dim, abscissae < 0, {"units": "1", "long_name": "stable"}),
        "eigenvalue_residual": (dim, residuals, {"units": "1", "long_name": "residual of the eigenvalues"}),
    }


def of_matrix(jacobian: NDArray[Any]) -> Spectrum:
    """Return the whole spectrum of a matrix, the rightmost first."""
    values = np.linalg.eigvals(jacobian).astype(np.complex128)
    values = values[np.lexsort((-values.imag, -values.real))]
    return Spectrum(values, values[:0], 0.0)
