"""Runge–Kutta methods as data: one's own integrate as their order says; coefficients that do not fit are refused."""

import math

import numpy as np
import pytest
import torch

import neurodyn as nd
from neurodyn.solvers import tableaux

MIDPOINT = nd.Tableau(2, ((), (0.5,)), (0.0, 1.0))
KUTTA3 = nd.Tableau(3, ((), (0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6))
# Zonneveld's 4(3) would have five stages; this is Kutta's third-order rule with the midpoint rule inside it.
KUTTA_PAIR = nd.Pair(
    3, ((), (0.5,), (-1.0, 2.0), (1 / 6, 2 / 3, 1 / 6)), (1 / 6, 2 / 3, 1 / 6, 0.0), (1 / 6, -1 / 3, 1 / 6, 0.0)
)


def logistic(start: float = 0.1) -> tuple[nd.Network, dict[str, torch.Tensor]]:
    """dx/dt = x − x², whose solution is 1 / (1 + (1/x₀ − 1) e^{−t})."""

    class Square(nd.Map):
        def apply(self, source: torch.Tensor) -> torch.Tensor:
            return source**2

    network = nd.Network(
        "logistic", [nd.Population("x", 1, leak=0.0)], [nd.Coupling("x", "x"), nd.Coupling("x", "x", Square(), gain=-1)]
    )
    return network, {"x": torch.full((1, 1), start, dtype=torch.float64)}


def errors(solver: nd.Solver, times: np.ndarray | None = None) -> np.ndarray:
    network, initial = logistic()
    run = nd.simulate(network, None, duration=4.0, solver=solver, save_at=times, initial=initial)
    exact = 1 / (1 + 9 * np.exp(-run.time.values))
    return np.abs(run.x.values[:, 0, 0] - exact)


@pytest.mark.parametrize("tableau", [MIDPOINT, KUTTA3], ids=["midpoint", "Kutta"])
def test_a_method_of_ones_own_converges_with_its_order(tableau: nd.Tableau) -> None:
    coarse, fine = (errors(nd.FixedStep(h, tableau)).max() for h in (0.1, 0.05))
    assert math.log2(coarse / fine) == pytest.approx(tableau.order, abs=0.3)


def test_a_pair_of_ones_own_keeps_its_tolerance_inside_steps_too() -> None:
    assert errors(nd.Adaptive(KUTTA_PAIR, rtol=1e-6, atol=1e-8), np.linspace(0, 4, 37)).max() < 2e-5


def test_a_named_method_is_that_of_its_tableau() -> None:
    by_name, by_data = errors(nd.RK4(0.1)), errors(nd.FixedStep(0.1, tableaux.RK4))
    np.testing.assert_array_equal(by_name, by_data)


@pytest.mark.parametrize(
    ("tableau", "limit"), [(tableaux.EULER, 2.0), (MIDPOINT, 2.0), (KUTTA3, 2.5127453266), (tableaux.RK4, 2.7852935634)]
)
def test_the_stability_limit_is_where_a_decay_ceases_to_decay(tableau: nd.Tableau, limit: float) -> None:
    assert tableau.real_stability == pytest.approx(limit, rel=1e-9)  # Hairer and Wanner, Solving ODEs II, §IV.2
    for step, grows in ((0.99 * limit, False), (1.01 * limit, True)):
        x = 1.0
        for _ in range(2000):
            slopes: list[float] = []
            for row in tableau.a:
                slopes.append(-(x + step * float(np.dot(row, slopes))))
            x += step * float(np.dot(tableau.b, slopes))
        assert (abs(x) > 1) == grows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, ((), (1.0,)), (0.4, 0.5)), "do not meet the conditions of order 1"),
        ((3, ((), (1.0,)), (0.5, 0.5)), "do not meet the conditions of order 3"),
        ((2, ((), (1.0, 2.0)), (0.5, 0.5)), "row i of a holds i numbers"),
        ((2, ((),), (0.5, 0.5)), "row i of a holds i numbers"),
        ((0, ((),), (1.0,)), "order must be an integer ≥ 1"),
        ((1, ((),), (math.nan,)), "b holds finite numbers"),
    ],
)
def test_coefficients_that_do_not_fit_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nd.Tableau(*arguments)


@pytest.mark.parametrize("b", [[1.0], "1", (None,)])
def test_what_is_no_tuple_of_numbers_is_refused(b) -> None:
    with pytest.raises(TypeError, match="a tuple of numbers"):
        nd.Tableau(1, ((),), b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": KUTTA_PAIR.a[:3], "b": KUTTA_PAIR.b[:3]}, "last stage is the first one of the next step"),
        ({"error": (0.1, 0.0, 0.0, 0.0)}, "whose sum is 0"),
        ({"error": (0.0, 0.0, 0.0, 0.0)}, "not all 0"),
        ({"interpolant": ((1.0,), (0.0,), (0.0,), (0.0,))}, "whose sums are b"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(changes, message: str) -> None:
    fields = {"order": 3, "a": KUTTA_PAIR.a, "b": KUTTA_PAIR.b, "error": KUTTA_PAIR.error}
    with pytest.raises(ValueError, match=message):
        nd.Pair(**(fields | changes))


def test_a_fixed_step_takes_a_tableau() -> None:
    with pytest.raises(TypeError, match="tableau of FixedStep: a Tableau of coefficients, not str"):
        nd.FixedStep(0.1, "rk4")  # type: ignore[arg-type]
