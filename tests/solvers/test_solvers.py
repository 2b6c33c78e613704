"""Solvers: orders of convergence, tableaux, save points, stop conditions, statistics, and where a run diverges."""

import math
import pickle
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchdiffeq._impl.odeint import SOLVERS as TORCHDIFFEQ

import neurodyn as nd
from neurodyn.solvers import tableaux
from neurodyn.solvers.adaptive import PAIRS
from neurodyn.solvers.tableaux import Pair, Tableau
from tests.problems import PROBLEMS, Array, decay, hopfield, integrators, oscillator, stiff_pair, tensor, wilson_cowan

FIXED = {"Euler": (nd.Euler, 1), "Heun": (nd.Heun, 2), "RK4": (nd.RK4, 4)}
TABLEAUX: dict[str, Tableau] = {"Euler": tableaux.EULER, "Heun": tableaux.HEUN, "RK4": tableaux.RK4, **PAIRS}
Tree = tuple["Tree", ...]


# Tableaux


@cache
def trees(order: int) -> tuple[Tree, ...]:
    """Return the rooted trees of an order, each as the sorted tuple of what hangs from its root."""
    return tuple(sorted(set(_forests(order - 1, order - 1))))


def _forests(nodes: int, largest: int) -> Iterator[Tree]:
    if nodes == 0:
        yield ()
    for first in range(1, min(nodes, largest) + 1):
        for tree in trees(first):
            for rest in _forests(nodes - first, first):
                yield tuple(sorted((tree, *rest)))


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree))


def density(tree: Tree) -> int:
    return size(tree) * math.prod(map(density, tree))


def elementary_weights(tree: Tree, a: Array) -> Array:
    return np.prod([a @ elementary_weights(child, a) for child in tree], axis=0) if tree else np.ones(len(a))


def matrix(tableau: Tableau) -> Array:
    return np.array([[*row, *[0.0] * (len(tableau.b) - len(row))] for row in tableau.a])


def residuals(weights, tableau: Tableau, order: int) -> Array:
    """Return Σ b_i Φ_i(t) − 1/γ(t) for the trees of an order (J. C. Butcher)."""
    a = matrix(tableau)
    return np.array([np.dot(weights, elementary_weights(t, a)) - 1 / density(t) for t in trees(order)])


def test_there_are_as_many_trees_as_there_should_be() -> None:
    assert [len(trees(order)) for order in range(1, 7)] == [1, 1, 2, 4, 9, 20]


@pytest.mark.parametrize("tableau", TABLEAUX.values(), ids=TABLEAUX)
def test_a_method_has_its_order_and_no_more(tableau: Tableau) -> None:
    for order in range(1, tableau.order + 1):
        np.testing.assert_allclose(residuals(tableau.b, tableau, order), 0, atol=2e-14)
    assert np.abs(residuals(tableau.b, tableau, tableau.order + 1)).max() > 1e-5


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_the_second_method_of_a_pair_is_one_order_lower(pair: Pair) -> None:
    second = np.array(pair.b) - pair.error
    for order in range(1, pair.order):
        np.testing.assert_allclose(residuals(second, pair, order), 0, atol=2e-14)
    assert np.abs(residuals(second, pair, pair.order)).max() > 1e-5


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_the_last_stage_is_the_first_of_the_next_step(pair: Pair) -> None:
    assert pair.a[-1] == pair.b[:-1]
    assert pair.b[-1] == 0.0


@pytest.mark.parametrize(("name", "order"), [("heun_euler", 2), ("bosh3", 3), ("dopri5", 4), ("tsit5", 4)])
def test_dense_output_has_its_order_everywhere(name: str, order: int) -> None:
    """Σ b_i(θ) Φ_i(t) = θ^|t| / γ(t), the order conditions of continuous methods (Hairer et al., §II.6)."""
    pair = PAIRS[name]
    a = matrix(pair)
    for theta in (0.0, 0.1, 0.37, 0.5, 0.9, 1.0):
        weights = pair.dense @ theta ** np.arange(1, pair.dense.shape[1] + 1)
        for each in range(1, order + 1):
            for tree in trees(each):
                np.testing.assert_allclose(
                    weights @ elementary_weights(tree, a), theta**each / density(tree), rtol=0, atol=3e-14
                )


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_dense_output_meets_both_ends_and_both_slopes(pair: Pair) -> None:
    powers = np.arange(1, pair.dense.shape[1] + 1)
    first, last = np.eye(len(pair.b))[[0, -1]]
    np.testing.assert_allclose(pair.dense.sum(1), pair.b, atol=1e-13)
    np.testing.assert_allclose(pair.dense[:, 0], first, atol=1e-13)
    np.testing.assert_allclose(pair.dense @ powers, last, atol=1e-12)


@pytest.mark.parametrize(("name", "peer"), [("dopri5", scipy.integrate.RK45), ("bosh3", scipy.integrate.RK23)])
def test_scipy_has_the_same_coefficients(name: str, peer) -> None:
    pair = PAIRS[name]
    np.testing.assert_allclose(matrix(pair)[: len(peer.A), : peer.A.shape[1]], peer.A, atol=1e-15)
    np.testing.assert_allclose(pair.b[:-1], peer.B, atol=1e-15)
    np.testing.assert_allclose(np.abs(pair.error), np.abs(peer.E), atol=1e-15)
    np.testing.assert_allclose(pair.dense, peer.P, atol=2e-13)


# Convergence


def observed_order(cost: Sequence[float], errors: Sequence[float]) -> float:
    """Return the slope of log error against −log cost."""
    return -float(np.polyfit(np.log(cost), np.log(errors), 1)[0])


@pytest.mark.parametrize(("solver", "order"), FIXED.values(), ids=FIXED)
@pytest.mark.parametrize("make", [oscillator, wilson_cowan, hopfield])
def test_fixed_steps_converge_with_their_order(solver, order: int, make) -> None:
    problem, steps = make(), [40, 80, 160]
    errors = [problem.error(problem.simulate(2.0, solver=solver(2.0 / n), save_at=[2.0])) for n in steps]
    assert observed_order(steps, errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("solver", "order"), FIXED.values(), ids=FIXED)
def test_fixed_steps_converge_between_the_steps_too(solver, order: int) -> None:
    problem, steps = hopfield(), [40, 80, 160]
    times = np.linspace(0.0, 2.0, 38)[1:-1]
    errors = [problem.error(problem.simulate(2.0, solver=solver(2.0 / n), save_at=times)) for n in steps]
    assert observed_order(steps, errors) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("make", [oscillator, wilson_cowan])
def test_pairs_converge_with_their_order(name, make) -> None:
    """The error of a run with error control falls as its cost to the power −order, at save points between the steps."""
    problem, order = make(), PAIRS[name].order
    times = np.linspace(0.0, 5.0, 24)
    runs = [
        problem.simulate(5.0, solver=nd.Adaptive(name, rtol=tolerance, atol=tolerance), save_at=times)
        for tolerance in 10.0 ** -(np.arange(3.0, 6.0) if order < 3 else np.arange(5.0, 9.0))
    ]
    observed = observed_order([run.evaluations for run in runs], [problem.error(run) for run in runs])
    assert observed == pytest.approx(order, abs=0.25 * order)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_the_error_keeps_to_the_tolerance(name, make) -> None:
    problem = make()
    for tolerance in (1e-3, 1e-5):
        run = problem.simulate(3.0, solver=nd.Adaptive(name, rtol=tolerance, atol=tolerance))
        assert problem.error(run) < 50 * tolerance


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_a_close_tolerance_gives_scipys_solution(make) -> None:
    problem = make()
    assert problem.error(problem.simulate(10.0, solver=nd.Adaptive("dopri5", 1e-9, 1e-10))) < 1e-7


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_euler_is_a_loop(make) -> None:
    problem, state = make(), None
    run = problem.simulate(2.0, solver=nd.Euler(0.01))
    state = problem.flat_start
    for n in range(201):
        for name, value in problem.unflatten(state).items():
            np.testing.assert_allclose(run[name][n], value, rtol=1e-12, atol=1e-12)
        state = state + 0.01 * problem.flat_rhs(0.0, state)


@pytest.mark.parametrize(("solver", "tableau"), [(nd.Heun, tableaux.HEUN), (nd.RK4, tableaux.RK4)])
def test_a_step_is_that_of_the_tableau(solver, tableau: Tableau) -> None:
    problem, h = wilson_cowan(), 0.3
    slopes: list[Array] = []
    for row in tableau.a:
        slopes.append(problem.flat_rhs(0.0, problem.flat_start + h * sum(map(np.multiply, row, slopes))))
    expected = problem.unflatten(problem.flat_start + h * np.dot(tableau.b, slopes))
    run = problem.simulate(h, solver=solver(h))
    for name, value in expected.items():
        np.testing.assert_allclose(run[name][-1], value, rtol=1e-13)


@pytest.mark.parametrize(
    ("solver", "degree"),
    [
        (nd.Euler(0.3), 1),
        (nd.Heun(0.3), 2),
        (nd.RK4(0.3), 3),
        (nd.Adaptive("heun_euler", 1e-3, 1e-3), 2),
        (nd.Adaptive("bosh3", 1e-3, 1e-3), 3),
        (nd.Adaptive("dopri5", 1e-3, 1e-3), 4),
        (nd.Adaptive("tsit5", 1e-3, 1e-3), 4),
    ],
    ids=repr,
)
def test_polynomials_are_exact_at_any_time(solver: nd.Solver, degree: int) -> None:
    times = np.array([0.0, 0.05, 0.3, 0.31, 1.23, 1.999, 2.0])
    run = integrators(degree).simulate(2.0, solver=solver, save_at=times)
    for k in range(degree + 1):
        np.testing.assert_allclose(run[f"x{k}"][:, 0, 0], times**k / math.factorial(k), rtol=0, atol=1e-13)


@pytest.mark.parametrize("solver", [nd.RK4(0.05), nd.Adaptive("tsit5", 1e-5, 1e-6)], ids=repr)
def test_single_precision_follows_double(solver: nd.Solver) -> None:
    problem = hopfield()
    double = problem.simulate(3.0, solver=solver)
    for parameter in problem.network.stages[0].parameters:
        parameter.data = parameter.data.float()
    assert problem.inputs is not None
    single = nd.simulate(
        problem.network,
        problem.inputs.float(),
        duration=3.0,
        solver=solver,
        initial={name: value.float() for name, value in problem.initial.items()},
    )
    assert single.x.dtype == np.float32
    np.testing.assert_allclose(single.x, double.x, rtol=1e-4, atol=2e-5)


# Save points


SOLVERS = [
    nd.Euler(0.1),
    nd.Heun(0.1),
    nd.RK4(0.1),
    nd.Adaptive("heun_euler", 1e-6, 1e-7),
    nd.Adaptive("bosh3", 1e-6, 1e-7),
    nd.Adaptive("dopri5", 1e-6, 1e-7),
    nd.Adaptive("tsit5", 1e-6, 1e-7),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize(
    "times",
    [
        [0.3],
        [0.0],
        [1.0],
        [0.25, 0.75],
        [0.1, 0.2, 0.30000000000000004, 0.7],
        [0.5, 0.5 + 1e-13, 0.5 + 2e-13],
        np.arange(11) * 0.1,
        torch.linspace(0.05, 0.95, 7),
        list(np.linspace(0.5, 0.50001, 20)),
        [5e-324, 1e-300, 1e-9],
    ],
    ids=str,
)
def test_saved_times_are_those_asked_for(solver: nd.Solver, times) -> None:
    problem = decay()
    run = problem.simulate(1.0, solver=solver, save_at=times)
    np.testing.assert_array_equal(run.time, np.asarray(times, dtype=float))
    order = solver.tableau.order if hasattr(solver, "tableau") else 5
    np.testing.assert_allclose(run.x[:, 0, 0], np.exp(-run.time), atol=0.02 if order == 1 else 1e-3)


@given(
    step=st.floats(0.01, 0.5),
    duration=st.floats(0.02, 1.0),
    fractions=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8, unique=True),
)
@settings(max_examples=40, deadline=None)
def test_any_times_are_kept_on_any_grid(step: float, duration: float, fractions: list[float]) -> None:
    times = np.unique(duration * np.array(sorted(fractions)))
    for solver in (nd.Heun(step), nd.Adaptive()):
        run = decay().simulate(duration, solver=solver, save_at=times)
        np.testing.assert_array_equal(run.time, times)
        np.testing.assert_allclose(run.x[:, 0, 0], np.exp(-times), atol=0.03)


def test_save_points_do_not_move_the_steps() -> None:
    problem = wilson_cowan()
    for solver in (nd.RK4(0.21), nd.Adaptive("bosh3", 1e-4, 1e-5)):
        end = problem.simulate(3.0, solver=solver, save_at=[3.0])
        dense = problem.simulate(3.0, solver=solver, save_at=200)
        assert end.evaluations == dense.evaluations
        np.testing.assert_array_equal(end.E[-1], dense.E[-1])


def test_every_step_of_a_pair_can_be_saved() -> None:
    run = wilson_cowan().simulate(3.0, solver=nd.Adaptive("tsit5"), save_at="steps")
    assert len(run.time) == run.accepted_steps + 1
    assert (run.time[0], run.time[-1]) == (0.0, 3.0)
    assert (np.diff(run.time) > 0).all()


@pytest.mark.parametrize("solver", FIXED.values(), ids=FIXED)
@pytest.mark.parametrize(
    ("step", "duration", "steps"),
    [(0.1, 1.0, 10), (0.3, 1.0, 4), (1.0, 0.25, 1), (0.1, 0.3, 3), (1 / 3, 1.0, 3), (0.1, 0.30001, 4)],
)
def test_the_last_step_is_shortened(solver, step: float, duration: float, steps: int) -> None:
    run = decay().simulate(duration, solver=solver[0](step))
    assert len(run.time) == steps + 1
    assert run.time[-1] == duration
    assert run.accepted_steps == steps
    np.testing.assert_allclose(run.time[:-1], step * np.arange(steps), rtol=1e-14)
    x, expected = 1.0, [1.0]
    for h in np.diff(run.time):
        x *= sum((-h) ** k / math.factorial(k) for k in range(solver[1] + 1))
        expected.append(x)
    np.testing.assert_allclose(run.x[:, 0, 0], expected, rtol=1e-13)


# Stop conditions and statistics


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_run_stops_when_it_is_steady(solver: nd.Solver) -> None:
    run = decay().simulate(100.0, solver=solver, until=nd.steady(1e-3), save_at="steps")
    speed = np.abs(run.x.values[:, 0, 0])
    assert run.converged == 1
    assert run.residual == pytest.approx(speed[-1])
    assert speed[-1] <= 1e-3 < speed[-2]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("save_at", [[0.05, 0.55, 2.0], "steps", 11, [3.0]], ids=str)
def test_the_end_of_a_stopped_run_is_recorded_once(solver: nd.Solver, save_at) -> None:
    times: list[float] = []

    def until(time: float, activity, velocity) -> bool:
        times.append(time)
        assert set(activity) == {"x"}
        torch.testing.assert_close(velocity["x"], -activity["x"])
        return time > 0.5

    run = decay().simulate(3.0, solver=solver, save_at=save_at, until=until)
    assert run.time[-1] == pytest.approx(times[-1], rel=1e-12)
    assert all(time <= 0.5 for time in times[:-1])
    assert (np.diff(run.time) > 0).all()
    assert run.x[-1, 0, 0] == pytest.approx(math.exp(-times[-1]), abs=0.03)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("save_at", ["steps", 11, [0.0, 1.0], [1.0]], ids=str)
def test_a_run_may_stop_before_it_begins(solver: nd.Solver, save_at) -> None:
    run = decay().simulate(3.0, solver=solver, save_at=save_at, until=lambda *_: True)
    assert run.time.values.tolist() == [0.0]
    assert run.x.values.tolist() == [[[1.0]]]
    assert (run.accepted_steps, run.rejected_steps) == (0, 0)


def test_instantaneous_populations_are_settled_for_the_stop_condition() -> None:
    network = nd.Network(
        "n",
        [nd.Population("x", 1, initial=1.0), nd.Population("e", 1, tau=0.0)],
        [nd.Coupling("x", "e", gain=2.0)],
    )

    def until(time: float, activity, velocity) -> bool:
        torch.testing.assert_close(activity["e"], 2 * activity["x"])
        return False

    for solver in (nd.Heun(0.25), nd.Adaptive("dopri5")):
        nd.simulate(network, None, duration=2.0, solver=solver, until=until)


def test_a_stop_condition_of_all_samples() -> None:
    network = nd.Network("n", [nd.Population("x", 1)])
    start = torch.tensor([[1e-9], [1.0]], dtype=torch.float64)
    run = nd.simulate(network, None, duration=50.0, initial={"x": start}, until=nd.steady(1e-3))
    assert np.abs(run.x[-1]).max() <= 1e-3


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
def test_the_tolerance_of_steady_is_positive(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance of steady must be positive and finite"):
        nd.steady(tolerance)


class Counting(nd.Map):
    """The identity, which counts how often it is asked."""

    count = 0

    def apply(self, source: Tensor) -> Tensor:
        self.count += 1
        return source


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_evaluations_are_counted(solver) -> None:
    counting = Counting()
    network = nd.Network(
        "n", [nd.Population("x", 1, leak=0.0, initial=1.0)], [nd.Coupling("x", "x", counting, gain=-1.0)]
    )
    run = nd.simulate(network, None, duration=1.05, solver=solver, save_at=[1.05])
    last = 1 if hasattr(solver, "step") else 0  # for the residual at the end
    assert run.evaluations == counting.count - last
    if hasattr(solver, "step"):
        assert run.evaluations == run.accepted_steps * len(solver.tableau.b)
    else:
        stages = len(PAIRS[solver.method].b) - 1
        assert run.evaluations == 2 + stages * (run.accepted_steps + run.rejected_steps)


def test_first_same_as_last_saves_an_evaluation_a_step() -> None:
    run = decay().simulate(10.0, solver=nd.Adaptive("dopri5", 1e-8, 1e-9))
    assert run.evaluations == 2 + 6 * (run.accepted_steps + run.rejected_steps)


def test_steps_are_rejected_where_they_fail() -> None:
    run = stiff_pair(2000.0).simulate(2.0, solver=nd.Adaptive("dopri5", 1e-3, 1e-6))
    assert run.rejected_steps > 0
    assert run.accepted_steps > 1000  # stability, not accuracy, sets the step
    assert run.evaluations < 1.5 * 6 * run.accepted_steps


def test_a_smooth_run_grows_its_step() -> None:
    """Steps follow the decay: they must not stay at the first guess."""
    run = decay().simulate(20.0, solver=nd.Adaptive("dopri5", 1e-6, 1e-6), save_at="steps")
    steps = np.diff(run.time)
    assert steps.max() > 20 * steps[0]
    assert run.accepted_steps < 60


@pytest.mark.parametrize("solver", [nd.RK4(0.1), nd.Adaptive()], ids=repr)
def test_a_population_at_rest_stays_there(solver: nd.Solver) -> None:
    run = nd.simulate(nd.Network("rest", [nd.Population("x", 3)]), None, duration=5.0, solver=solver)
    assert not run.x.any()
    assert (run.converged, run.residual) == (1, 0.0)
    assert run.accepted_steps <= 50


def test_the_report_says_whether_it_converged() -> None:
    run = decay().simulate(1.0, solver=nd.RK4(0.1))
    assert run.converged == 0
    assert run.residual == pytest.approx(math.exp(-1.0), rel=1e-5)
    assert run.solver == "RK4(step=0.1)"


# Divergence


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def explosion(start: float) -> tuple[nd.Network, dict[str, Tensor]]:
    """Return y = ¼x² at every moment, dx/dt = 4y and dz/dt = −z: x blows up at time 1 / x(0), and y before it."""
    network = nd.Network(
        "explosion",
        [nd.Population("z", 2), nd.Population("y", 2, tau=0.0), nd.Population("x", 2, leak=0.0)],
        [nd.Coupling("x", "y", nd.Forward(Square()), gain=0.25), nd.Coupling("y", "x", gain=4.0)],
    )
    return network, {"x": torch.tensor([[0.01, start]], dtype=torch.float64), "z": torch.ones(1, 2).double()}


def overflow(tableau: Tableau, x: float, h: float, duration: float) -> float | None:
    """Return the first time of dx/dt = x² in steps of h at which x² is not finite, found in a loop."""
    steps = math.ceil(duration / h - 1e-9)
    with np.errstate(over="ignore", invalid="ignore"):
        for n in range(steps + 1):
            time = duration if n == steps else n * h
            if not np.isfinite(np.square(x)):
                return time
            step = (duration if n == steps - 1 else (n + 1) * h) - time
            slopes: list[float] = []
            for row in tableau.a:
                slopes.append(np.square(x + step * np.dot(row, slopes)))
            x = float(x + step * np.dot(tableau.b, slopes))
    return None


@pytest.mark.parametrize(("solver", "order"), FIXED.values(), ids=FIXED)
@given(start=st.floats(0.02, 2.0), steps=st.floats(0.5, 200.0))
@settings(max_examples=30, deadline=None)
def test_divergence_is_found_at_its_step(solver, order: int, start: float, steps: float) -> None:
    """Also where one looks only every so many steps whether all is finite."""
    network, initial = explosion(start)
    h = 0.3
    expected = overflow(solver.tableau, start, h, steps * h)
    if expected is None:
        run = nd.simulate(network, None, duration=steps * h, initial=initial, solver=solver(h))
        assert np.isfinite(run.x).all()
        assert np.isfinite(run.y).all()
        return
    with pytest.raises(
        nd.DivergenceError, match=r"population y became non-finite at time .*; try a smaller step"
    ) as caught:
        nd.simulate(network, None, duration=steps * h, initial=initial, solver=solver(h))
    assert caught.value.time == pytest.approx(expected, abs=1e-9)
    assert caught.value.population == "y"


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_gives_up_where_the_solution_ends(name) -> None:
    network, initial = explosion(0.5)
    with pytest.raises(nd.DivergenceError, match=r"grows without bound at time 2.*: the step of Adaptive") as caught:
        nd.simulate(network, None, duration=5.0, initial=initial, solver=nd.Adaptive(name, 1e-4, 1e-6))
    assert caught.value.time == pytest.approx(2.0, abs=1e-3)
    assert caught.value.population == "x"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_gives_up_where_the_numbers_end(name, dtype: torch.dtype) -> None:
    """Next to the largest number any step overflows that is not too small to change anything."""
    network = nd.Network(
        "runaway",
        [nd.Population("z", 1), nd.Population("x", 1, leak=0.0)],
        [nd.Coupling("x", "x", gain=2.0), nd.Coupling("x", "z", gain=1e-9)],
    )
    initial = {"x": torch.full((1, 1), 1e-15 * torch.finfo(dtype).max, dtype=dtype)}
    with pytest.raises(nd.DivergenceError, match="population x") as caught:
        nd.simulate(network, None, duration=1000.0, initial=initial, solver=nd.Adaptive(name, 1e-3, 1e-3))
    assert caught.value.time == pytest.approx(math.log(1e15) / 2, abs=0.5)


@pytest.mark.parametrize("solver", [nd.RK4(0.01), nd.Adaptive()], ids=repr)
def test_divergence_of_a_population_that_nothing_reads_is_found(solver: nd.Solver) -> None:
    network = nd.Network(
        "read-out",
        [nd.Population("x", 1, leak=0.0, initial=1.0), nd.Population("y", 1, tau=0.0)],
        [nd.Coupling("x", "x"), nd.Coupling("x", "y", gain=1e37)],
    )
    with pytest.raises(nd.DivergenceError, match="population y became non-finite") as caught:
        nd.simulate(network, None, duration=5.0, solver=solver)
    assert caught.value.time == pytest.approx(math.log(float(torch.finfo(torch.float32).max) / 1e37), rel=0.3)


def test_a_divergence_passes_from_process_to_process() -> None:
    error = nd.DivergenceError("population x became non-finite", 1.5, "x")
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.time, copied.population) == (str(error), 1.5, "x")


def test_the_stability_limit_is_told() -> None:
    network = nd.Network("n", [nd.Population("x", 1, tau=0.5, initial=1.0)])
    with (
        pytest.warns(UserWarning, match=r"step 1\.5 is beyond the stability limit 1 of Euler for network 'n'"),
        pytest.raises(nd.DivergenceError, match="stability limit of Euler for this network is a step of 1"),
    ):
        nd.simulate(network, None, duration=1000.0, solver=nd.Euler(1.5))


@pytest.mark.parametrize(("solver", "order"), FIXED.values(), ids=FIXED)
def test_the_stability_limit_is_where_growth_begins(solver, order: int) -> None:
    problem = decay(tau=0.25, leak=2.0)
    limit = solver(1.0).stability_limit(nd.System(problem.network))
    below, above = ((1 - 1e-3) * limit, (1 + 1e-3) * limit)
    assert abs(problem.simulate(2000 * below, solver=solver(below)).x[-1, 0, 0]) < 0.3
    with pytest.warns(UserWarning, match="beyond the stability limit"):
        assert abs(problem.simulate(2000 * above, solver=solver(above)).x[-1, 0, 0]) > 3


def test_large_numbers_are_no_divergence() -> None:
    """The sum by which one looks for what is not finite overflows, and nothing else does."""
    network = nd.Network("n", [nd.Population("x", 4, initial=3e38)])
    run = nd.simulate(network, None, duration=1.0, solver=nd.Euler(0.1))
    assert np.isfinite(run.x).all()


# torchdiffeq


@pytest.mark.parametrize("method", TORCHDIFFEQ)
def test_any_method_of_torchdiffeq_solves_the_same_system(method: str) -> None:
    problem = wilson_cowan()
    options: dict = {"step_size": 0.01}
    if method == "scipy_solver":
        options = {"solver": "LSODA"}
    elif method in ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun"):
        options = {}
    elif method in ("explicit_adams", "implicit_adams", "fixed_adams"):
        options["max_order"] = 4
    tolerance = 0.02 if method == "euler" else 1e-3
    run = problem.simulate(3.0, solver=nd.TorchDiffEq(method, rtol=1e-5, atol=1e-6, **options), save_at=[0.5, 1.7, 3.0])
    assert run.time.values.tolist() == [0.5, 1.7, 3.0]
    assert problem.error(run) < tolerance
    assert run.evaluations > 10


def test_torchdiffeq_takes_the_same_steps() -> None:
    problem = hopfield()
    own = problem.simulate(2.0, solver=nd.RK4(0.1), save_at=[2.0])
    peer = problem.simulate(2.0, solver=nd.TorchDiffEq("euler", step_size=0.1), save_at=[2.0])
    euler = problem.simulate(2.0, solver=nd.Euler(0.1), save_at=[2.0])
    np.testing.assert_allclose(peer.x, euler.x, rtol=1e-12)
    assert (peer.evaluations, peer.accepted_steps) == (euler.evaluations, euler.accepted_steps) == (20, 20)
    assert own.evaluations == 80


def test_torchdiffeq_counts_its_steps() -> None:
    run = stiff_pair(500.0).simulate(2.0, solver=nd.TorchDiffEq("dopri5", 1e-3, 1e-6), save_at=3)
    assert run.accepted_steps > 200
    assert run.rejected_steps > 0
    assert run.evaluations >= 6 * (run.accepted_steps + run.rejected_steps)


@pytest.mark.parametrize("solver", [nd.TorchDiffEq("dopri5"), nd.TorchDiffEq("euler", step_size=0.1)], ids=repr)
def test_torchdiffeq_says_where_it_diverges(solver: nd.Solver) -> None:
    network, initial = explosion(0.5)
    with pytest.raises(nd.DivergenceError) as caught:
        nd.simulate(network, None, duration=20.0, initial=initial, solver=solver, save_at=200)
    assert caught.value.population in ("x", "y")
    assert caught.value.time is not None
    assert 1.5 < caught.value.time < 5.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"save_at": "steps"}, "save_at: torchdiffeq does not show its steps; give a number of points"),
        ({"until": nd.steady()}, r"until: torchdiffeq cannot stop early; use a solver of neurodyn"),
    ],
)
def test_what_torchdiffeq_cannot_do_is_said(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decay().simulate(1.0, solver=nd.TorchDiffEq(), **settings)


def test_torchdiffeq_needs_something_to_integrate() -> None:
    network = nd.Network("n", [nd.Population("e", 1, tau=0.0)])
    with pytest.raises(ValueError, match="solver: network 'n' has no dynamic population"):
        nd.simulate(network, None, duration=1.0, solver=nd.TorchDiffEq())


# Systems without a state


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_network_without_dynamic_populations_runs(solver: nd.Solver) -> None:
    network = nd.Network(
        "n",
        [nd.Population("s", 3, clamp=nd.Input()), nd.Population("e", 3, tau=0.0)],
        [nd.Coupling("s", "e", gain=3.0)],
    )
    inputs = tensor(2, 3)
    run = nd.simulate(network, inputs, duration=1.0, solver=solver, save_at=5)
    assert len(run.time) == 5
    for moment in run.e.values:
        np.testing.assert_allclose(moment, 3 * inputs)
    assert (run.residual, run.converged) == (0.0, 1)


# Settings


@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (nd.Euler, "step of Euler"),
        (nd.Heun, "step of Heun"),
        (nd.RK4, "step of RK4"),
        (lambda v: nd.Adaptive(rtol=v), "rtol of Adaptive"),
        (lambda v: nd.Adaptive(atol=v), "atol of Adaptive"),
        (lambda v: nd.TorchDiffEq(rtol=v), "rtol of TorchDiffEq"),
        (lambda v: nd.TorchDiffEq(atol=v), "atol of TorchDiffEq"),
    ],
)
def test_steps_and_tolerances_are_positive(make, what: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{what} must be positive and finite, not {value}"):
        make(value)


@pytest.mark.parametrize("value", ["0.1", None, True, torch.tensor(0.1)], ids=repr)
def test_a_step_is_a_number(value) -> None:
    with pytest.raises(TypeError, match="step of Euler must be a number"):
        nd.Euler(value)


@pytest.mark.parametrize("solver", [nd.Euler(1e-20), nd.RK4(5e-324), nd.Exact(euler_step=1e-310)], ids=repr)
def test_a_step_that_no_time_resolves_is_refused(solver) -> None:
    leak = nd.Network("leak", [nd.Population("x", 1)])
    with pytest.raises(ValueError, match=r"step: \S+ is too short beside a duration of 1, in which double precision"):
        nd.simulate(leak, None, duration=1.0, solver=solver, save_at=2)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(ValueError, match="method of Adaptive: there is no 'rk45'; there are heun_euler, bosh3, dopri5"):
        nd.Adaptive("rk45")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method of TorchDiffEq: there is no 'rk45'; there are dopri8, dopri5"):
        nd.TorchDiffEq("rk45")


def test_an_option_that_a_method_of_torchdiffeq_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'dopri5' has no 'step_size'; it has .*first_step"):
        nd.TorchDiffEq("dopri5", step_size=0.1)
    with pytest.raises(ValueError, match=r"'euler' has no 'first_step'; it has .*step_size"):
        nd.TorchDiffEq("euler", first_step=0.1)


def test_a_tolerance_below_the_precision_is_refused() -> None:
    network = nd.Network("n", [nd.Population("x", 1)])
    with pytest.raises(ValueError, match=r"rtol of Adaptive: 1e-08 is below what torch.float32 can resolve; .*float64"):
        nd.simulate(network, None, duration=1.0, solver=nd.Adaptive(rtol=1e-8))


def test_solvers_are_read_and_compared_by_their_settings() -> None:
    assert repr(nd.Euler(0.1)) == "Euler(step=0.1)"
    assert nd.Adaptive("bosh3", 1e-3) == nd.Adaptive("bosh3", rtol=1e-3)
    assert nd.Euler(0.1) != nd.Euler(0.2)
    assert repr(nd.TorchDiffEq("rk4", step_size=0.1)) == (
        "TorchDiffEq(method='rk4', rtol=1e-05, atol=1e-07, step_size=0.1)"
    )


@pytest.mark.parametrize("solver", [nd.Euler(0.1), nd.Adaptive(), nd.Stabilized()])
@pytest.mark.parametrize("save_at", [[1.0], "steps"])
def test_a_stop_condition_sees_every_population_where_it_is(solver: nd.Solver, save_at) -> None:
    populations = [nd.Population("x", 3, initial=1.0), nd.Population("e", 3, tau=0.0)]
    network = nd.Network("lag", populations, [nd.Coupling("x", "e", gain=-2.0)])
    seen: list[float] = []

    def look(time, activity, velocity) -> bool:
        seen.append(float((activity["e"] + 2.0 * activity["x"]).abs().max()))
        return False

    nd.simulate(network, None, duration=1.0, solver=solver, save_at=save_at, record=["x"], until=look)
    assert len(seen) > 1
    assert max(seen) == 0.0
