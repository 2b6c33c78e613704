"""Bounds: projected dynamics against loops and SciPy's events, and equilibria x = clip(x + F)."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import nnls
from torch import nn

import neurodyn as nd
from tests.problems import random, tensor

W = random(4, 4, seed=1)


def linear(weights: Any = W) -> nn.Linear:
    layer = nn.Linear(len(weights), len(weights), bias=False, dtype=torch.float64)
    layer.weight.data = torch.tensor(weights)
    return layer


def recurrent(bounds: Any = (-0.3, 0.5), **settings: Any) -> nd.Network:
    """dx/dt = −x + W tanh(x) + u inside the bounds, and y that follows x."""
    populations = [
        nd.Population("u", 4, clamp=nd.Input()),
        nd.Population("x", 4, bounds=bounds, **settings),
        nd.Population("y", 4, tau=0.5),
    ]
    couplings = [
        nd.Coupling("u", "x"),
        nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), linear()))),
        nd.Coupling("x", "y", nd.Forward(nn.Tanh())),
    ]
    return nd.Network("bounded", populations, couplings)


U = tensor(3, 4, seed=2)
START = {"x": torch.tensor(np.clip(random(3, 4, seed=3), -0.3, 0.5)), "y": tensor(3, 4, seed=4)}


def projected(x: np.ndarray, low: Any = -0.3, high: Any = 0.5) -> np.ndarray:
    slope = -x + np.tanh(x) @ W.T + U.numpy()
    return np.where(((x <= low) & (slope < 0)) | ((x >= high) & (slope > 0)), 0.0, slope)


def test_euler_is_the_clipped_loop():
    x, y, steps = START["x"].numpy(), START["y"].numpy(), []
    for _ in range(40):
        steps.append((x, y))
        x, y = (
            np.clip(x + 0.1 * (-x + np.tanh(x) @ W.T + U.numpy()), -0.3, 0.5),
            y + 0.2 * (-y + np.tanh(x)),
        )
    run = nd.simulate(recurrent(), U, duration=4.0, solver=nd.Euler(0.1), initial=START)
    np.testing.assert_allclose(run.x[:-1], [x for x, _ in steps], atol=1e-12)
    np.testing.assert_allclose(run.y[:-1], [y for _, y in steps], atol=1e-12)
    assert ((run.x == -0.3).any("time") & (run.x == 0.5).any("time").any()).any()  # both bounds were met


@pytest.fixture(scope="module")
def fine() -> np.ndarray:
    """Projected dynamics by small steps of Heun's method, x and y at 2 and 4."""
    x, y, h, found = START["x"].numpy(), START["y"].numpy(), 5e-4, []
    for step in range(1, 8001):
        k = projected(x)
        ahead = np.clip(x + h * k, -0.3, 0.5)
        after = np.clip(x + h / 2 * (k + projected(ahead)), -0.3, 0.5)
        m = 2 * (-y + np.tanh(x))
        y = y + h / 2 * (m + 2 * (-(y + h * m) + np.tanh(after)))
        x = after
        if step % 4000 == 0:
            found.append(np.stack([x, y]))
    return np.stack(found)


@pytest.mark.parametrize(
    "solver",
    [
        nd.Heun(0.01),
        nd.RK4(0.01),
        nd.Adaptive(rtol=1e-6, atol=1e-7),
        nd.Adaptive("heun_euler", rtol=1e-5, atol=1e-6),
        nd.Stabilized(1e-5, 1e-6),
        nd.TorchDiffEq(rtol=1e-6, atol=1e-7),
        None,
    ],
    ids=str,
)
def test_every_solver_integrates_the_projected_dynamics(solver, fine):
    run = nd.simulate(recurrent(), U, duration=4.0, solver=solver, initial=START, save_at=[2.0, 4.0])
    np.testing.assert_allclose(np.stack([run.x, run.y], 1), fine, atol=1e-3 if solver is None else 1e-4)
    assert float(run.x.min()) >= -0.3
    assert float(run.x.max()) <= 0.5
    if solver is None:
        assert "Adaptive" in run.attrs["solver"]


def test_where_nothing_meets_a_bound_the_order_is_kept():
    free = nd.Network("free", [nd.Population("x", 1, initial=0.9, bounds=(0.0, 1.0))], [])
    errors = [
        abs(float(nd.simulate(free, None, duration=1.0, solver=nd.RK4(h)).x[-1, 0, 0]) - 0.9 * math.exp(-1))
        for h in (0.5, 0.25)
    ]
    assert errors[0] / max(errors[1], 1e-7) > 8


def test_resting_at_a_bound_keeps_the_order_of_the_others():
    """While x rests at 1, y, which it drives, is integrated at the method's own order."""
    network = nd.Network(
        "resting",
        [nd.Population("x", 1, initial=1.0, bounds=(0.0, 1.0)), nd.Population("y", 1)],
        [nd.Coupling("x", "x", gain=3.0), nd.Coupling("x", "y")],
    )
    start = {"x": torch.ones(1, 1, dtype=torch.float64), "y": torch.zeros(1, 1, dtype=torch.float64)}
    run = nd.simulate(network, None, duration=1.0, solver=nd.RK4(0.1), initial=start)
    np.testing.assert_allclose(run.y[-1], 1 - math.exp(-1), atol=1e-6)
    np.testing.assert_array_equal(run.x, 1.0)


def test_a_unit_leaves_its_bound_when_it_is_driven_back():
    """dx/dt = 2 cos t with x in [−1, 1], against SciPy with an event where x meets a bound or leaves it."""
    network = nd.Network(
        "swing",
        [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1, leak=0.0, bounds=(-1.0, 1.0))],
        [nd.Coupling("u", "x", gain=2.0)],
    )
    run = nd.simulate(
        network,
        lambda t: torch.tensor([math.cos(t)], dtype=torch.float64),
        duration=6.0,
        solver=nd.Adaptive(rtol=1e-8, atol=1e-9),
        save_at=[0.3, 1.0, 2.0, 4.0, 5.5],
    )
    rise = solve_ivp(lambda t, x: [2 * math.cos(t)], (0, 0.3), [0.0], rtol=1e-10).y[0, -1]
    fall = 1 + 2 * (math.sin(2.0) - 1)  # x leaves 1 at π/2
    back = -1 + 2 * (math.sin(5.5) + 1)  # and −1 at 3π/2
    np.testing.assert_allclose(run.x.values.ravel(), [rise, 1.0, fall, -1.0, back], atol=1e-6)


def test_an_equilibrium_is_a_fixed_point_of_the_clipped_step():
    for network in (recurrent(), recurrent((-0.3, math.inf))):
        high = 0.5 if network["x"].bounds == (-0.3, 0.5) else math.inf
        found = nd.equilibrium(network, U, initial=START)
        x = found.x.values
        np.testing.assert_allclose(x, np.clip(x - x + np.tanh(x) @ W.T + U.numpy(), -0.3, high), atol=1e-6)
        np.testing.assert_allclose(found.y, np.tanh(x), atol=1e-6)
        run = nd.simulate(network, U, duration=40.0, initial=START, save_at=[40.0], solver=nd.RK4(0.2))
        np.testing.assert_allclose(x, run.x[0], atol=1e-5)
        assert (found.attrs["converged"], found.attrs["stable"]) == (1, 1)
        assert (x == -0.3).any()


def test_units_at_their_bounds_take_no_part_in_stability():
    """Two units that excite themselves leave 0, the unstable equilibrium, and rest at their bounds."""
    network = nd.Network(
        "flip-flop",
        [nd.Population("x", 2, bounds=(-1.0, 1.0)), nd.Population("y", 2)],
        [nd.Coupling("x", "x", gain=3.0), nd.Coupling("x", "y")],
    )
    start = {"x": torch.tensor([[0.1, -0.2], [0.3, 1.0]]), "y": torch.zeros(2, 2)}
    found = nd.equilibrium(network, None, initial=start)
    np.testing.assert_array_equal(found.x, [[1, -1], [1, 1]])
    assert (found.attrs["converged"], found.attrs["stable"]) == (1, 1)
    with pytest.warns(RuntimeWarning, match="rests at an unstable equilibrium"):
        resting = nd.equilibrium(network, None, initial={"x": torch.zeros(1, 2), "y": torch.zeros(1, 2)})
    assert resting.attrs["stable"] == 0


def test_where_every_unit_is_at_a_bound_nothing_grows():
    """Winner-take-all: all units rest at 0 or 1 in one sample, and two units are free in the other."""
    lateral = linear(2.2 * np.eye(4) - 1.0)
    network = nd.Network(
        "winner-take-all",
        [nd.Population("u", 4, clamp=nd.Input()), nd.Population("x", 4, bounds=(0.0, 1.0))],
        [nd.Coupling("u", "x"), nd.Coupling("x", "x", nd.Forward(lateral))],
    )
    u = torch.tensor([[0.5, 0.6, 0.55, 0.2]], dtype=torch.float64)
    held = nd.analysis.stability(network, u)
    assert (held.sizes["mode"], held.abscissa.item(), held.euler_step.item()) == (0, -math.inf, math.inf)
    assert held.stable.item()
    ends = {"x": torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5]], dtype=torch.float64)}
    both = nd.analysis.stability(network, torch.cat([u, u.new_tensor([[-1.0, -1.0, -1.0, -0.1]])]), at=ends)
    np.testing.assert_allclose(both.abscissa, [-math.inf, 0.2])
    assert both.stable.values.tolist() == [True, False]


def test_projected_gradient_descent_solves_non_negative_least_squares():
    a, b = random(6, 4, seed=5), random(6, seed=6)
    network = nd.Network(
        "least squares",
        [nd.Population("b", 4, clamp=nd.Input()), nd.Population("x", 4, leak=0.0, bounds=(0.0, math.inf))],
        [nd.Coupling("b", "x"), nd.Coupling("x", "x", nd.Forward(linear(a.T @ a)), gain=-1.0)],
    )
    found = nd.equilibrium(network, torch.tensor(a.T @ b)[None], tolerance=1e-9)
    np.testing.assert_allclose(found.x[0], nnls(a, b)[0], atol=1e-6)


def test_an_acyclic_equilibrium_is_clipped_on_the_way():
    network = nd.Network(
        "chain",
        [
            nd.Population("u", 4, clamp=nd.Input()),
            nd.Population("x", 4, leak=2.0, bounds=(-0.1, 0.2)),
            nd.Population("y", 4),
        ],
        [nd.Coupling("u", "x"), nd.Coupling("x", "y")],
    )
    found = nd.equilibrium(network, U)
    np.testing.assert_allclose(found.y, np.clip(U.numpy() / 2, -0.1, 0.2))
    leakless = nd.Network(
        "integrator",
        [nd.Population("u", 4, clamp=nd.Input()), nd.Population("x", 4, leak=0.0, bounds=(-1.0, 2.0))],
        [nd.Coupling("u", "x")],
    )
    np.testing.assert_allclose(nd.equilibrium(leakless, U).x, np.where(U > 0, 2.0, -1.0))


def test_each_unit_may_have_bounds_of_its_own():
    low, high = torch.tensor([-0.3, -0.2, 0.0, -0.1], dtype=torch.float64), 0.5
    network = recurrent((low, high))
    start = {"x": torch.zeros(3, 4, dtype=torch.float64)}
    run = nd.simulate(network, U, duration=3.0, solver=nd.Euler(0.1), initial=start)
    x = np.zeros((3, 4))
    for _ in range(30):
        x = np.clip(x + 0.1 * (-x + np.tanh(x) @ W.T + U.numpy()), low.numpy(), high)
    np.testing.assert_allclose(run.x[-1], x, atol=1e-12)
    assert "dx/dt = −x + u + (Linear∘Tanh)(x)        (x stays in [[-0.3 … 0], 0.5])" in network.equations()
    assert "in [[-0.3 … 0], 0.5]" in str(network)
    assert network["x"] == recurrent((low.clone(), high))["x"]
    assert hash(network["x"]) == hash(recurrent((low.clone(), high))["x"])
    assert nd.Network("n", [nd.Population("x", 1, bounds=(0, math.inf))]).equations() == (
        "dx/dt = −x        (x stays in [0, ∞))"
    )


def test_discrete_inference_and_what_is_learned_from_it_are_clipped():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4, dtype=torch.float64)
    stage = nd.Stage(layer)

    def declare(**settings: Any) -> nd.Network:
        return nd.Network(
            "learner",
            [
                nd.Population("u", 4, clamp=nd.Input()),
                nd.Population("x", 4, bounds=(0.0, 0.3)),
                nd.Population("e", 4, tau=0.0),
            ],
            [nd.Coupling("u", "x"), nd.Coupling("x", "e"), nd.Coupling("u", "e", gain=-1.0)],
            [nd.Plasticity(stage, "u", "e", presynaptic="live")],
            **settings,
        )

    x = np.zeros((3, 4))
    for _ in range(5):
        x = np.clip(x + 0.5 * (-x + U.numpy()), 0.0, 0.3)
    inferred = nd.infer(declare(inference=nd.Inference(0.5, 5)), U)
    np.testing.assert_allclose(inferred.x[-1], x)

    def gradient(network: nd.Network, **settings: Any) -> np.ndarray:
        layer.weight.grad = None
        nd.backward(network, U, **settings)
        assert layer.weight.grad is not None
        return layer.weight.grad.numpy()

    expected = (x - U.numpy()).T @ U.numpy() / 3
    np.testing.assert_allclose(gradient(declare(inference=nd.Inference(0.5, 5))), expected)
    np.testing.assert_allclose(gradient(declare(), duration=2.5, solver=nd.Euler(0.5)), expected)
    rest = np.clip(U.numpy(), 0.0, 0.3)
    np.testing.assert_allclose(gradient(declare()), (rest - U.numpy()).T @ U.numpy() / 3)


def test_stacked_networks_are_each_within_theirs():
    one, other = recurrent(), recurrent(tau=2.0)
    run = nd.simulate([one, other], U, duration=2.0, solver=nd.RK4(0.1), initial=START)
    for place, network in enumerate((one, other)):
        alone = nd.simulate(network, U, duration=2.0, solver=nd.RK4(0.1), initial=START)
        np.testing.assert_allclose(run.x[place], alone.x, atol=1e-12)
    both = nd.equilibrium([one, other], U, initial=START)
    np.testing.assert_allclose(both.x[1], nd.equilibrium(other, U, initial=START).x, atol=1e-6)
    with pytest.raises(ValueError, match="bounds of population x"):
        nd.simulate([one, recurrent((-0.3, 0.6))], U, duration=1.0)


def test_noise_is_clipped_too():
    network = nd.Network("walk", [nd.Population("x", 50, leak=0.0, noise=1.0, bounds=(0.0, 1.0), initial=0.5)])
    run = nd.simulate(network, None, duration=20.0, solver=nd.Euler(0.01), seed=0, save_at=np.linspace(5, 20, 151))
    assert float(run.x.min()) >= 0.0
    assert float(run.x.max()) <= 1.0
    np.testing.assert_allclose(run.x.mean(), 0.5, atol=0.05)
    np.testing.assert_allclose(run.x.var(), 1 / 12, rtol=0.25)  # nearly uniform between reflecting walls


@pytest.mark.parametrize("solver", [nd.Euler, nd.Heun])
def test_a_noisy_step_is_clipped_as_a_whole(solver):
    """The loop is x ← clip(x + h F + σ ΔW), with the drift into the wall that the noise has to overcome."""
    step, low, high, sigma = 0.05, -0.3, 0.5, 0.3
    seeds, noisy = [5, 6, 7], recurrent(noise=sigma)
    run = nd.simulate(noisy, U, duration=4.0, solver=solver(step), initial=START, seed=seeds)
    wiener = nd.Network("Wiener", [nd.Population("x", 4, leak=0.0, noise=sigma)])
    start = {"x": torch.zeros(3, 4, dtype=torch.float64)}
    gains = np.diff(nd.simulate(wiener, None, duration=4.0, solver=nd.Euler(step), initial=start, seed=seeds).x, axis=0)

    def drift(x: np.ndarray) -> np.ndarray:
        return -x + np.tanh(x) @ W.T + U.numpy()

    x = START["x"].numpy()
    for gain in gains:
        ahead = np.clip(x + step * drift(x) + gain, low, high)
        mean = drift(x) if solver is nd.Euler else 0.5 * (drift(x) + drift(ahead))
        x = np.clip(x + step * mean + gain, low, high)
    np.testing.assert_allclose(run.x[-1], x, atol=1e-10)
    graph = nd.activity(noisy, U, duration=4.0, solver=solver(step), initial=START, seed=seeds)
    np.testing.assert_allclose(graph["x"][-1].detach(), x, atol=1e-10)


def test_single_precision_starts_at_its_bound():
    network = nd.Network("n", [nd.Population("x", 2, initial=0.1, bounds=(0.1, 1.0))], [])
    np.testing.assert_array_equal(nd.simulate(network, None, duration=1.0).x, np.float32(0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nd.Population("x", 3, bounds=(1.0, 0.0)), r"low must be below high, and they are \[1, 0\]"),
        (lambda: nd.Population("x", 3, bounds=(1.0, 1.0)), "low must be below high"),
        (lambda: nd.Population("x", 3, bounds=(0.0, 1.0), initial=1 + 1e-9), "its start has 1 values outside"),
        (lambda: nd.Population("x", 3, bounds=cast(Any, 1.0)), r"bounds are \(low, high\), not 1.0"),
        (lambda: nd.Population("x", 3, bounds=cast(Any, (0.0, 1.0, 2.0))), r"bounds are \(low, high\)"),
        (lambda: nd.Population("x", 3, bounds=cast(Any, ("a", 1.0))), "bounds, low must be a number"),
        (lambda: nd.Population("x", 3, bounds=(math.nan, 1.0)), "bounds, low must be finite"),
        (lambda: nd.Population("x", 3, bounds=(math.inf, math.inf)), "bounds, low must be finite"),
        (lambda: nd.Population("x", 3, bounds=(torch.zeros(2), 1.0)), r"has the shape \(2,\)"),
        (lambda: nd.Population("x", 3, initial=2.0, bounds=(0.0, 1.0)), r"its start has 1 values outside .* \[0, 1\]"),
        (lambda: nd.Population("x", 3, tau=0.0, bounds=(0.0, 1.0)), "it is instantaneous, and bounds are for"),
        (lambda: nd.Population("x", 3, clamp=nd.Input(), bounds=(0.0, 1.0)), "it is clamped, and bounds are for"),
        (lambda: nd.simulate(recurrent(), U, duration=1.0, initial={"x": U}), "its start has .* outside its bounds"),
        (lambda: nd.equilibrium(recurrent(), U, initial={"x": U}), "its start has .* outside its bounds"),
        (
            lambda: nd.simulate(recurrent(), U, duration=1.0, solver=nd.Exact()),
            "population x has bounds, and a closed form takes none; use Adaptive",
        ),
        (
            lambda: nd.simulate(recurrent((-torch.arange(4.0), 1.0)), U, duration=1.0),
            "bounds of population x is torch.float32 and a weight",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(nd.NeurodynError, match=message):
        call()
