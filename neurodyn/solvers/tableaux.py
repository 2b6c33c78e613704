"""Butcher tableaux of the explicit Runge–Kutta methods: x' = x + h Σ b_i k_i, k_i = F(x + h Σ_{j<i} a_ij k_j)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neurodyn.checks import whole
from neurodyn.errors import InvalidTypeError, InvalidValueError

_ROUNDING = 1e-10
"""How far coefficients, given as decimals, may be from what they have to meet."""

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method, as data for `FixedStep(step, tableau)`.

    Parameters
    ----------
    order
        The order of the solution.
    a
        Row i holds a_ij, j < i; the first row is empty.
    b
        The weights of the solution.

    Raises
    ------
    TypeError, ValueError
        If rows have other lengths, or the coefficients do not meet the conditions of the order (which are checked up to
        order 4).

    References
    ----------
    E. Hairer, S. P. Nørsett, G. Wanner, Solving Ordinary Differential Equations I, §II.2.

    Examples
    --------
    The midpoint rule, and a run by it:

    >>> import neurodyn as nd
    >>> midpoint = nd.Tableau(order=2, a=((), (0.5,)), b=(0.0, 1.0))
    >>> decay = nd.Network("decay", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(decay, None, duration=1.0, solver=nd.FixedStep(0.1, midpoint))
    >>> round(run.x[-1].item(), 3)
    0.369
    """

    order: int
    a: tuple[Numbers, ...]
    b: Numbers

    def __post_init__(self) -> None:
        what = f"{type(self).__name__}: "
        whole(f"{what}order", self.order, least=1)
        _check_rows(f"{what}a", self.a)
        _check_row(f"{what}b", self.b)
        if not self.b or [len(row) for row in self.a] != list(range(len(self.b))):
            raise InvalidValueError(
                f"{what}row i of a holds i numbers, i from 0 to {len(self.b) - 1}, for as many weights b; the rows "
                f"have {', '.join(str(len(row)) for row in self.a)}"
            )
        for order, residuals in enumerate(self._residuals(), start=1):
            if order <= self.order and not np.abs(residuals).max() <= _ROUNDING:
                raise InvalidValueError(
                    f"{what}order {self.order} is declared, and the coefficients do not meet the conditions of order "
                    f"{order}: they are off by {np.abs(residuals).max():.2g}"
                )

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """The square matrix of the a_ij."""
        return np.array([[*row, *[0.0] * (len(self.b) - len(row))] for row in self.a], dtype=np.float64)

    @cached_property
    def nodes(self) -> Numbers:
        """c_i, when in a step each slope is taken."""
        return tuple(float(sum(row)) for row in self.a)

    def _residuals(self) -> list[list[float]]:
        """By how much the conditions of the orders 1 to 4 are missed."""
        a, b = self.matrix, np.array(self.b, dtype=np.float64)
        c = a.sum(1)
        return [
            [b.sum() - 1],
            [b @ c - 1 / 2],
            [b @ c**2 - 1 / 3, b @ a @ c - 1 / 6],
            [b @ c**3 - 1 / 4, b @ (c * (a @ c)) - 1 / 8, b @ a @ c**2 - 1 / 12, b @ a @ a @ c - 1 / 24],
        ]

    @cached_property
    def real_stability(self) -> float:
        """The largest stable h|λ| for λ on the negative real axis: |R(hλ)| ≤ 1, R(z) = 1 + Σ_k z^k bᵀA^{k−1}1."""
        power, coefficients = np.ones(len(self.b)), [1.0]
        for _ in self.b:
            coefficients.append(float(np.dot(self.b, power)))
            power = self.matrix @ power
        growth = np.polynomial.Polynomial([(-1) ** k * each for k, each in enumerate(coefficients)])
        crossings = np.concatenate([(growth - 1).roots(), (growth + 1).roots()])
        real = np.sort(crossings[np.abs(crossings.imag) < 1e-9].real)
        for x in real[real > 1e-6]:
            if abs(growth(x * (1 + 1e-6))) > 1:
                return float(x)
        return 0.0  # unstable from the start


@dataclass(frozen=True)
class Pair(Tableau):
    """An embedded pair whose last stage is the first of the next step (first same as last), for `Adaptive(pair)`.

    Parameters
    ----------
    order, a, b
        As for `Tableau`, of the solution that is kept; the last row of a is b.
    error
        b − b̂, the weights of the error estimate.
    interpolant
        Row i holds the coefficients of θ, θ², … in b_i(θ), so that x(t + θh) ≈ x + h Σ b_i(θ) k_i. By default the cubic
        Hermite interpolant.

    Raises
    ------
    TypeError, ValueError
        As for `Tableau`; if the last stage is not the first of the next step, or the error or the interpolant does not
        fit the solution.

    Examples
    --------
    >>> import neurodyn as nd
    >>> heun_euler = nd.Pair(2, ((), (1.0,), (0.5, 0.5)), (0.5, 0.5, 0.0), error=(0.0, 0.5, -0.5))
    >>> net = nd.Network("leak", [nd.Population("x", 1, initial=1.0)])
    >>> run = nd.simulate(net, None, duration=1.0, solver=nd.Adaptive(heun_euler, rtol=1e-5), save_at=2)
    >>> round(float(run.x[-1].item()), 3)
    0.368
    """

    error: Numbers
    interpolant: tuple[Numbers, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_row("Pair: error", self.error)
        if self.interpolant is not None:
            _check_rows("Pair: interpolant", self.interpolant)
        stages = len(self.b)
        if self.b[-1] != 0 or self.a[-1] != self.b[:-1]:
            raise InvalidValueError(
                "Pair: its last stage is the first one of the next step: the last row of a is b without its last "
                "weight, which is 0; append such a stage"
            )
        if len(self.error) != stages or not any(self.error) or abs(sum(self.error)) > _ROUNDING:
            raise InvalidValueError(f"Pair: error is b − b̂: {stages} numbers, not all 0, whose sum is 0")
        widths = {len(row) for row in self.interpolant or ()}
        if len(widths) > 1 or len(self.dense) != stages or np.abs(self.dense.sum(1) - self.b).max() > _ROUNDING:
            raise InvalidValueError(f"Pair: interpolant has {stages} rows of coefficients, whose sums are b")

    @cached_property
    def dense(self) -> NDArray[np.float64]:
        """The coefficients of the dense output, shape (stage, power of θ from 1)."""
        return hermite(self.b) if self.interpolant is None else np.array(self.interpolant, dtype=np.float64)


def hermite(b: Numbers, bubble: Numbers | None = None) -> NDArray[np.float64]:
    """Return the dense output b_i(θ) of the cubic Hermite interpolant, plus `bubble`_i · θ²(1 − θ)².

    The interpolant meets both ends and both slopes; the bubble leaves them and raises the order inside.
    """
    weights = np.outer(b, [0.0, 3.0, -2.0, 0.0])
    weights[0] += [1.0, -2.0, 1.0, 0.0]
    weights[-1] += [0.0, -1.0, 1.0, 0.0]
    if bubble is None:
        return weights[:, :3]
    return weights + np.outer(bubble, [0.0, 1.0, -2.0, 1.0])


def _check_row(what: str, row: Numbers) -> None:
    if not isinstance(row, tuple) or any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in row):
        raise InvalidTypeError(f"{what} is a tuple of numbers, not {row!r}")
    if not all(map(math.isfinite, row)):
        raise InvalidValueError(f"{what} holds finite numbers, not {row!r}")


def _check_rows(what: str, rows: tuple[Numbers, ...]) -> None:
    if not isinstance(rows, tuple):
        raise InvalidTypeError(f"{what} is a tuple of rows, each a tuple of numbers, not {rows!r}")
    for i, row in enumerate(rows):
        _check_row(f"{what}, row {i},", row)


def _rows(matrix: NDArray[np.float64]) -> tuple[Numbers, ...]:
    return tuple(tuple(row) for row in matrix.tolist())


EULER = Tableau(1, ((),), (1.0,))
HEUN = Tableau(2, ((), (1.0,)), (0.5, 0.5))
RK4 = Tableau(4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))

HEUN_EULER = Pair(2, ((), (1.0,), (1 / 2, 1 / 2)), (1 / 2, 1 / 2, 0.0), (-1 / 2, 1 / 2, 0.0))

BOSH3 = Pair(
    3,
    ((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    (2 / 9, 1 / 3, 4 / 9, 0.0),
    (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
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
    _rows(
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
        )
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
    (
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.13169999999999998, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
)
"""Ch. Tsitouras, "Runge–Kutta pairs of order 5(4) satisfying only the first column simplifying assumption" (2011)."""
