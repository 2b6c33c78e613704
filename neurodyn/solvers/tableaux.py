"""Butcher tableaux of the explicit Runge–Kutta methods: x' = x + h Σ b_i k_i, k_i = F(x + h Σ_{j<i} a_ij k_j)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method.

    Parameters
    ----------
    order
        The order of the solution.
    a
        Row i holds a_ij, j < i; the first row is empty.
    b
        The weights of the solution.
    """

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


@dataclass(frozen=True)
class Pair(Tableau):
    """An embedded pair whose last stage is the first of the next step (first same as last).

    Parameters
    ----------
    error
        b − b̂, the weights of the error estimate.
    dense
        Row i holds the coefficients of θ, θ², … in b_i(θ), so that x(t + θh) ≈ x + h Σ b_i(θ) k_i.
    """

    error: tuple[float, ...]
    dense: NDArray[np.float64]


def hermite(b: tuple[float, ...], bubble: tuple[float, ...] | None = None) -> NDArray[np.float64]:
    """Return the dense output b_i(θ) of the cubic Hermite interpolant, plus `bubble`_i · θ²(1 − θ)².

    The interpolant meets both ends and both slopes; the bubble leaves them and raises the order inside.
    """
    weights = np.outer(b, [0.0, 3.0, -2.0, 0.0])
    weights[0] += [1.0, -2.0, 1.0, 0.0]
    weights[-1] += [0.0, -1.0, 1.0, 0.0]
    if bubble is None:
        return weights[:, :3]
    return weights + np.outer(bubble, [0.0, 1.0, -2.0, 1.0])


EULER = Tableau(1, ((),), (1.0,))
HEUN = Tableau(2, ((), (1.0,)), (0.5, 0.5))
RK4 = Tableau(4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))

_HEUN_EULER_B = (1 / 2, 1 / 2, 0.0)
HEUN_EULER = Pair(2, ((), (1.0,), (1 / 2, 1 / 2)), _HEUN_EULER_B, (-1 / 2, 1 / 2, 0.0), hermite(_HEUN_EULER_B))

_BOSH3_B = (2 / 9, 1 / 3, 4 / 9, 0.0)
BOSH3 = Pair(
    3,
    ((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    _BOSH3_B,
    (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    hermite(_BOSH3_B),
)
"""P. Bogacki, L. F. Shampine, "A 3(2) pair of Runge–Kutta formulas", Appl. Math. Lett. 2 (1989)."""

_DOPRI5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
DOPRI5 = Pair(
    5,
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    _DOPRI5_B,
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    hermite(
        _DOPRI5_B,
        (
            -12715105075 / 11282082432,
            0.0,
            87487479700 / 32700410799,
            -10690763975 / 1880347072,
            701980252875 / 199316789632,
            -1453857185 / 822651844,
            69997945 / 29380423,
        ),
    ),
)
"""J. R. Dormand, P. J. Prince (1980); dense output of order 4 from Hairer, Nørsett, Wanner, Solving ODEs I, §II.6."""

TSIT5 = Pair(
    5,
    (
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.0),
    (
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
    np.array(
        [
            [1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216],
            [0.0, 0.13169999999999998, -0.2234, 0.1017],
            [0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253],
            [0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902],
            [0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928],
            [0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661],
            [0.0, 1.5, -4.0, 2.5],
        ]
    ),
)
"""Ch. Tsitouras, "Runge–Kutta pairs of order 5(4) satisfying only the first column simplifying assumption" (2011)."""
