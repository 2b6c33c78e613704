"""The coefficients of the Runge–Kutta–Chebyshev method RKC2, as a recursion and as a pair.

B. P. Sommeijer, L. F. Shampine, J. G. Verwer, "RKC: an explicit solver for parabolic PDEs", J. Comput. Appl. Math. 88
(1997).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from neurodyn.solvers.tableaux import Pair

_DAMPING = 2.0 / 13.0
ERROR = (0.8, 0.4)
"""The error is e = 0.8 (x − y) + 0.4 h (F(x) + F(y))."""


class Term(NamedTuple):
    """Stage j ≥ 2: y_j = ν y_{j−2} + μ y_{j−1} + (1 − μ − ν) x + h (slope · F(y_{j−1}) + first · F(x)).

    Parameters
    ----------
    mu, nu, slope, first
        The weights; y_0 = x, and y_1 = x + β₁ h F(x).
    node
        When in a step it is taken.
    """

    mu: float
    nu: float
    slope: float
    first: float
    node: float


def recursion(stages: int) -> tuple[float, list[Term]]:
    """Return β₁, and the three-term recursion of the stages from the second on."""
    w0 = 1.0 + _DAMPING / stages**2
    root = math.sqrt(w0 * w0 - 1.0)
    argument = stages * math.log(w0 + root)
    w1 = math.sinh(argument) * (w0 * w0 - 1.0)
    w1 /= math.cosh(argument) * stages * root - w0 * math.sinh(argument)
    b1 = b2 = 1.0 / (2.0 * w0) ** 2
    beta = w1 * b1
    t1, t2, dt1, dt2, ddt1, ddt2 = w0, 1.0, 1.0, 0.0, 0.0, 0.0
    terms = []
    for _ in range(2, stages + 1):
        t = 2.0 * w0 * t1 - t2
        dt = 2.0 * w0 * dt1 - dt2 + 2.0 * t1
        ddt = 2.0 * w0 * ddt1 - ddt2 + 4.0 * dt1
        b = ddt / dt**2
        mu = 2.0 * w0 * b / b1
        slope = mu * w1 / w0
        # c_j follows from the order conditions; the first stage, an Euler step, is β₁ h long.
        terms.append(Term(mu, -b / b2, slope, -slope * (1.0 - t1 * b1), w1 * ddt / dt))
        t1, t2, dt1, dt2, ddt1, ddt2 = t, t1, dt, dt1, ddt, ddt1
        b1, b2 = b, b1
    return beta, terms


def chebyshev(stages: int) -> Pair:
    """Return the method of a few stages as a pair; of many, sums of slopes would magnify rounding.

    Parameters
    ----------
    stages
        How many there are, at least 2.
    """
    beta, terms = recursion(stages)
    rows = np.zeros((stages + 1, stages + 1))
    rows[1, 0] = beta
    for number, term in enumerate(terms, start=2):
        rows[number] = term.nu * rows[number - 2] + term.mu * rows[number - 1]
        rows[number, number - 1] += term.slope
        rows[number, 0] += term.first
    of_values, of_slopes = ERROR
    error = -of_values * rows[-1]
    error[[0, -1]] += of_slopes
    a = tuple(tuple(row[:number]) for number, row in enumerate(rows.tolist()))
    return Pair(2, a, tuple(rows[-1].tolist()), tuple(error.tolist()))
