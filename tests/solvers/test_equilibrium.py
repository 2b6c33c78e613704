"""Equilibria are those that the dynamics reach, judged by τ dx/dt, and stable or said not to be."""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from neurodyn.solvers.equilibrium import to_equilibrium
from neurodyn.solvers.rows import Rows
from neurodyn.system.binding import bound
from tests.problems import Array, mlp, random, tensor


def linear(weights: Array) -> nn.Linear:
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
    return layer


def inhibition(tau: float = 2.0, gain: float = -2.0, strength: float = 1.0) -> nd.Network:
    """The network of the README; with a weak gain and strong maps, one whose couplings look weak."""
    rate = nd.Forward(nn.Sequential(nn.ReLU(), linear(np.array([[strength]]))))
    populations = [nd.Population(f"s{name}", 1, clamp=nd.Input()) for name in "ab"]
    return nd.Network(
        "mutual inhibition",
        [*populations, nd.Population("a", 1), nd.Population("b", 1, tau=tau)],
        [
            nd.Coupling("sa", "a"),
            nd.Coupling("sb", "b"),
            nd.Coupling("a", "b", rate, gain=gain),
            nd.Coupling("b", "a", rate, gain=gain),
        ],
    )


def recurrent(seed: int, *, symmetric: bool, tau: float = 1.0, units: int = 5) -> nd.Network:
    weights = random(units, units, seed=seed)
    weights = 0.7 * (weights + weights.T) if symmetric else 0.5 * weights
    network = nd.Forward(nn.Sequential(nn.Tanh(), linear(weights)))
    populations = [nd.Population("s", units, clamp=nd.Input()), nd.Population("x", units, tau=tau)]
    return nd.Network("recurrent", populations, [nd.Coupling("s", "x", gain=0.3), nd.Coupling("x", "x", network)])


def loop(gain: float, tau: float = 1.0) -> nd.Network:
    return nd.Network(
        "loop",
        [nd.Population("s", 1, clamp=nd.Input()), nd.Population("x", 1, tau=tau)],
        [nd.Coupling("s", "x"), nd.Coupling("x", "x", nd.Forward(nn.Tanh()), gain=gain)],
    )


@torch.no_grad()
def relaxed(
    network: nd.Network,
    inputs: dict[str, Tensor],
    initial: dict[str, Tensor],
    duration: float,
    targets: Tensor | None = None,
) -> Array:
    """Return where SciPy says that one sample ends."""
    system = nd.System(network, inputs, targets, initial=initial)
    state, slope = system.initial_state(), system.new_state()

    def field(_: float, flat: Array) -> Array:
        state.flat.copy_(torch.from_numpy(flat))
        system.field(state, slope)
        return slope.flat.numpy().copy()

    return solve_ivp(field, (0.0, duration), state.flat.numpy().copy(), "LSODA", rtol=1e-10, atol=1e-12).y[:, -1]


MULTISTABLE: dict[str, Callable[[], nd.Network]] = {
    "mutual inhibition": inhibition,
    "of one time constant": lambda: inhibition(tau=1.0),
    "weak gains, strong maps": lambda: inhibition(gain=-0.2, strength=10.0),
    "Hopfield": lambda: recurrent(1, symmetric=True),
    "Hopfield, slow": lambda: recurrent(2, symmetric=True, tau=50.0),
    "without symmetry": lambda: recurrent(3, symmetric=False),
}


@pytest.mark.parametrize("name", MULTISTABLE)
def test_every_sample_ends_where_its_trajectory_does(name: str) -> None:
    network, samples = MULTISTABLE[name](), 6
    inputs = {
        each: 1.0 + 0.5 * tensor(samples, *(network[each].shape or ()), seed=i + 5)
        for i, each in enumerate(network.inputs)
    }
    dynamic = [p for p in network.populations if p.clamp is None]
    initial = {"x": tensor(samples, 5, seed=9)} if dynamic[0].name == "x" else {}
    found = nd.equilibrium(network, inputs, initial=initial)
    assert (found.converged, found.stable) == (1, 1)
    slowest = max(float(p.tau) for p in dynamic)
    for sample in range(samples):
        place = slice(sample, sample + 1)
        end = relaxed(
            network,
            {k: v[place] for k, v in inputs.items()},
            {k: v[place] for k, v in initial.items()},
            200.0 * slowest,
        )
        here = np.concatenate([found[p.name].values[sample] for p in dynamic])
        np.testing.assert_allclose(here, end, atol=1e-5)


def test_learning_takes_the_equilibrium_that_the_dynamics_reach() -> None:
    stage = nd.Stage([nn.ReLU(), linear(np.array([[1.0]]))], "inhibition")
    declared = inhibition()
    network = nd.Network(
        "learns",
        declared.populations,
        [
            *declared.couplings[:2],
            nd.Coupling("a", "b", nd.Forward(stage), gain=-2.0),
            nd.Coupling("b", "a", nd.Forward(stage), gain=-2.0),
        ],
        [nd.Plasticity(stage, "a", "b", presynaptic="live")],
    )
    inputs = {"sa": torch.tensor([[1.0]], dtype=torch.float64), "sb": torch.tensor([[0.9]], dtype=torch.float64)}
    nd.backward(network, inputs)
    (weight,) = stage.parameters
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor([[-1.1]], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("weak", [False, True])
def test_a_start_on_an_unstable_equilibrium_stays_and_says_so(weak: bool) -> None:
    network = inhibition(tau=1.0, gain=-0.2, strength=10.0) if weak else inhibition(tau=1.0)
    third = torch.full((1, 1), 1 / 3, dtype=torch.float64)
    inputs = {name: torch.ones(1, 1, dtype=torch.float64) for name in ("sa", "sb")}
    with pytest.warns(RuntimeWarning, match="rests at an unstable equilibrium in 1 of 1 samples, .* at a rate of 1;"):
        found = nd.equilibrium(network, inputs, initial={"a": third, "b": third})
    assert (found.converged, found.stable) == (1, 0)
    np.testing.assert_allclose(found.a, found.b)


@pytest.mark.parametrize("tau", [1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convergence_does_not_depend_on_the_unit_of_time(tau: float, dtype: torch.dtype) -> None:
    network, inputs = loop(0.9, tau), torch.full((1, 1), 0.5, dtype=dtype)
    exact = brentq(lambda x: 0.5 + 0.9 * np.tanh(x) - x, 0.0, 3.0)
    found = nd.equilibrium(network, inputs)
    assert (found.converged, found.stable) == (1, 1)
    np.testing.assert_allclose(found.x, exact, atol=1e-3)
    run = nd.simulate(network, inputs, duration=1000 * tau, until=nd.steady(1e-4))
    assert 5 * tau < run.time[-1] < 100 * tau
    assert run.converged == 1
    np.testing.assert_allclose(run.x[-1], exact, atol=1e-3)
    last = float(run.x[-1, 0, 0])
    np.testing.assert_allclose(run.residual, abs(0.5 + 0.9 * np.tanh(last) - last), atol=1e-6)


def test_steady_within_a_condition_of_ones_own() -> None:
    network, inputs = loop(0.9, 10.0), torch.full((1, 1), 0.5)
    settled = nd.steady(1e-3)
    speeds = []

    def condition(time, activity, velocity) -> bool:
        speeds.append(float(velocity["x"].abs().max()))
        return time > 1.0 and settled(time, activity, velocity)

    run = nd.simulate(network, inputs, duration=1000.0, until=condition)
    assert run.residual <= 1e-3
    assert speeds[0] == pytest.approx(0.05)  # dx/dt itself
    with pytest.raises(nd.NeurodynError, match="steady judges τ dx/dt, and a plain mapping has no time constants"):
        settled(0.0, {}, {"x": torch.zeros(1)})


def test_a_slow_mode_is_taken_to_its_end() -> None:
    """A gain of 0.999 leaves a rate of 0.001: the residual is small long before the equilibrium is near."""
    network = loop(0.999)
    inputs = torch.full((1, 1), 1e-4, dtype=torch.float64)
    exact = brentq(lambda x: 1e-4 + 0.999 * np.tanh(x) - x, 0.0, 1.0, xtol=1e-14)
    found = nd.equilibrium(network, inputs, tolerance=1e-8)
    np.testing.assert_allclose(found.x, exact, atol=1e-4)


def test_predictive_coding_is_still_accelerated_from_the_start() -> None:
    example = mlp()
    network = pc.network(example.module, steps="equilibrium")
    found = nd.equilibrium(network, example.inputs, 0.3 * example.targets)
    assert found.solver == "Anderson acceleration"
    assert found.solver_reason == "close to linear from the start, and stable: accelerated"
    assert found.evaluations < 60


def test_deep_predictive_coding_is_taken_down_its_slow_valley() -> None:
    """Errors take hundreds of units of time to pass ten layers, which steps of a bounded size would follow in vain."""
    network = pc.network(nd.mlp([6] * 11, seed=0, dtype=torch.float64), steps="equilibrium")
    inputs, targets = tensor(1, 6, seed=1), tensor(1, 6, seed=2)
    found = nd.equilibrium(network, inputs, targets, tolerance=1e-9)
    assert found.solver.startswith("Stabilized")
    assert (found.converged, found.evaluations < 3000) == (1, True)
    end = relaxed(network, {"s": inputs}, {}, 3000.0, targets)
    np.testing.assert_allclose(np.concatenate([found[f"x{layer}"].values[0] for layer in range(1, 10)]), end, atol=1e-5)


def test_an_overflow_is_refused_and_leaves_the_gradients_alone() -> None:
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    stage = nd.Stage([module[1]], "second")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1e25)
    network = nd.Network(
        "overflow",
        [nd.Population("s", 1, clamp=nd.Input()), nd.Population("a", 1), nd.Population("b", 1)],
        [nd.Coupling("s", "a", gain=1e15), nd.Coupling("a", "b", nd.Forward(stage))],
        [nd.Plasticity(stage, "a", "b", presynaptic="live")],
    )
    with pytest.raises(nd.DivergenceError, match="population b is not finite at the equilibrium"):
        nd.backward(network, torch.full((1, 1), 1e5))
    assert stage.parameters[0].grad is None
    stage.parameters[0].data.fill_(1.0)
    with pytest.raises(nd.DivergenceError, match="the gradients of stage second are not finite"):
        nd.backward(network, torch.full((1, 1), 1e10))
    assert stage.parameters[0].grad is None


@pytest.mark.filterwarnings("ignore:network .* has not reached its equilibrium")
@pytest.mark.parametrize(("x", "t"), [(1.0, 3e38), (3e38, 1.0), (1e38, -3e38)])
def test_predictive_coding_at_the_end_of_the_range_is_finite_or_refused(x: float, t: float) -> None:
    module = nd.mlp([3, 4, 2])
    network = pc.network(module, steps="equilibrium")
    inputs, targets = torch.full((2, 3), x), torch.full((2, 2), t)
    with contextlib.suppress(nd.NeurodynError):
        found = nd.equilibrium(network, inputs, targets)
        assert all(np.isfinite(value).all() for value in found.data_vars.values())
    with contextlib.suppress(nd.NeurodynError):
        nd.backward(network, inputs, targets)
    assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)


def identity(layer: nn.Linear | nn.Conv1d) -> nn.Linear | nn.Conv1d:
    weight = torch.eye(layer.weight.shape[0], layer.weight.shape[1]).view_as(layer.weight)
    layer.load_state_dict({"weight": weight, "bias": torch.zeros(len(weight))})
    return layer


def test_a_unit_that_both_sides_of_its_kink_hold_is_at_rest_there() -> None:
    """E = ½(x − μ)² + ½(t − w ReLU(x))², from x = μ."""
    weight = 1.5
    top = identity(nn.Linear(1, 1))
    with torch.no_grad():
        top.weight.fill_(weight)
    network = pc.network(nn.Sequential(identity(nn.Linear(1, 1)), nn.ReLU(), top).double(), steps="equilibrium")
    mu, target = tensor(60, 1, seed=0), tensor(60, 1, seed=1)
    found = nd.equilibrium(network, mu, target)
    inside = (mu + weight * target) / (1 + weight**2)
    expected = torch.where(mu > 0, inside.clamp(min=0.0), mu)
    assert int((expected == 0).sum()) > 5
    assert found.converged
    assert found.stable
    np.testing.assert_allclose(found.x1, expected, atol=1e-7)


def test_units_that_fall_side_by_side_from_a_maximum_are_at_rest_together() -> None:
    """E = ½ Σ (x_i − μ_i)² + ½(t − max(x_1, x_2))², from x = μ, where all are above 0."""
    layers = [identity(nn.Conv1d(1, 1, 1)), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), identity(nn.Linear(1, 1))]
    network = pc.network(nn.Sequential(*layers).double(), steps="equilibrium")
    mu, target = 6.0 + tensor(60, 2, seed=0), 6.0 + tensor(60, 1, seed=1)
    found = nd.equilibrium(network, mu[:, None], target)
    low, high = mu.sort(dim=1).values.unbind(1)
    alone, together = (high + target[:, 0]) / 2, (low + high + target[:, 0]) / 3
    assert int((alone < low).sum()) > 5
    highest = torch.where(alone >= low, alone, together)
    expected = torch.where(mu == high[:, None], highest[:, None], torch.minimum(mu, highest[:, None]))
    expected = torch.where((alone < low)[:, None], together[:, None], expected)
    assert found.converged
    np.testing.assert_allclose(found.x1.values.reshape(60, 2), expected, atol=1e-7)


def test_a_unit_at_rest_below_a_kink_that_f_leads_away_from_is_unstable() -> None:
    """dx/dt = −x + ReLU'(x) from x = 0, where it stays unless something moves it."""
    stage = nd.Stage(nn.Sequential(nn.ReLU(), identity(nn.Linear(1, 1))).double())
    populations = [nd.Population("c", 1, clamp=nd.Input()), nd.Population("x", 1), nd.Population("y", 1)]
    couplings = [nd.Coupling("c", "x", nd.Feedback(stage, "live")), nd.Coupling("x", "y", nd.Forward(stage))]
    network = nd.Network("at its kink", populations, couplings)
    with pytest.warns(RuntimeWarning, match="unstable"):
        found = nd.equilibrium(network, torch.ones(1, 1, dtype=torch.float64))
    assert found.x.item() == 0
    assert not found.stable
    with pytest.raises(ValueError, match="leads away: the equilibrium is unstable"):
        nd.analysis.stability(network, torch.ones(1, 1, dtype=torch.float64), at=found)


def pulled_window(recurrent: list[list[float]]) -> nd.Network:
    """dx/dt = −x + W x + b + v at the largest of three units."""
    stage = nd.Stage(nn.Sequential(nn.MaxPool1d(3), identity(nn.Linear(1, 1))).double())
    weights = nn.Linear(3, 3, bias=False).double()
    weights.load_state_dict({"weight": torch.tensor(recurrent)})
    populations = [nd.Population("b", (1, 3), clamp=nd.Input()), nd.Population("v", (1, 1), clamp=nd.Input())]
    populations += [nd.Population("x", (1, 3)), nd.Population("y", (1, 1))]
    couplings = [nd.Coupling("b", "x"), nd.Coupling("v", "x", nd.Feedback(stage, "live"))]
    couplings += [nd.Coupling("x", "y", nd.Forward(stage)), nd.Coupling("x", "x", nd.Forward(weights))]
    return nd.Network("pulled", populations, couplings)


@pytest.mark.parametrize(
    ("recurrent", "b", "start", "growth"),
    [
        ([[0.0, 0, 0], [0, 0, 0], [0, 0, 1.5]], [1.0, 1.2, 0.0], [0.35, 0.35, 0.0], 0.5),  # the third unit grows
        ([[1.5, 0, 0], [0, 1.5, 0], [0, 0, 0]], [0.25, 0.25, -5.0], [1.0, 1.0, -5.0], 0.5),  # the two together
        ([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0]], [1.25, 1.25, -5.0], [1.0, 1.0, -5.0], 0.0),
    ],
)
@pytest.mark.filterwarnings("ignore:network 'pulled' rests:RuntimeWarning")
def test_beside_a_shared_maximum_what_else_moves_tells_stability(
    recurrent: list[list[float]], b: list[float], start: list[float], growth: float
) -> None:
    inputs = {"b": torch.tensor([[b]], dtype=torch.float64), "v": torch.full((1, 1, 1), -1.5, dtype=torch.float64)}
    start_x = torch.tensor([[start]], dtype=torch.float64)
    found = nd.equilibrium(pulled_window(recurrent), inputs, initial={"x": start_x})
    assert found.converged
    assert bool(found.stable) == (growth == 0)
    np.testing.assert_allclose(found.x, start_x, atol=1e-6)


@pytest.mark.parametrize("rectified", [False, True])
def test_units_that_leave_0_side_by_side_share_the_pull(rectified: bool) -> None:
    layers = [*([nn.ReLU()] if rectified else []), nn.MaxPool1d(2), identity(nn.Linear(1, 1))]
    stage = nd.Stage(nn.Sequential(*layers).double())
    populations = [nd.Population("b", (1, 2), clamp=nd.Input()), nd.Population("v", (1, 1), clamp=nd.Input())]
    populations += [nd.Population("x", (1, 2)), nd.Population("y", (1, 1))]
    couplings = [nd.Coupling("b", "x"), nd.Coupling("v", "x", nd.Feedback(stage, "live"))]
    network = nd.Network("window", populations, [*couplings, nd.Coupling("x", "y", nd.Forward(stage))])
    b, v = torch.tensor([[[1.0, 1.2]]], dtype=torch.float64), torch.full((1, 1, 1), -1.5, dtype=torch.float64)
    with bound(network, {"b": b, "v": v}, None) as system:
        field = Rows(system)(torch.zeros(1, 3, dtype=torch.float64))
    np.testing.assert_allclose(field[0, :2], [0.35, 0.35], atol=1e-12)


@pytest.mark.parametrize(
    ("slope", "w", "gain", "b", "t", "taus"),
    [(1.7, 1.14, 1.52, 1.9, -0.97, (0.87, 1.48, 1.33)), (0.1, -1.25, 0.31, -0.05, -0.72, (0.36, 1.59, 1.53))],
)
def test_a_cycle_through_a_kink_is_not_taken_for_the_stable_equilibrium_inside_it(
    slope: float, w: float, gain: float, b: float, t: float, taus: tuple[float, float, float]
) -> None:
    """τ dx/dt = −e₀ + gain f'(x) w e₁ with errors e₀ of x − b, and e₁ of t − w f(x), that lag."""
    state, ends = np.array([0.5, 0.0, 0.0]), []
    for _ in range(10_000):
        x, below, above = state
        f = 1.0 if x > 0 else slope
        slopes = np.array([-below + gain * f * w * above, -below + x - b, -above + t - w * f * x])
        state = state + 0.01 * slopes / taus
        ends.append(state[0])
    assert np.ptp(ends[-2000:]) > 0.3
    layer = linear(np.array([[w]]))
    stage = nd.Stage(nn.Sequential(nn.LeakyReLU(slope), layer))
    populations = [nd.Population(name, 1, clamp=nd.Input()) for name in "bt"]
    populations += [nd.Population("x", 1, tau=taus[0], leak=0.0, initial=0.5)]
    populations += [nd.Population(name, 1, tau=tau) for name, tau in zip("ef", taus[1:], strict=True)]
    couplings = [nd.Coupling("x", "e"), nd.Coupling("b", "e", gain=-1.0), nd.Coupling("e", "x", gain=-1.0)]
    couplings += [nd.Coupling("t", "f"), nd.Coupling("x", "f", nd.Forward(stage), gain=-1.0)]
    couplings += [nd.Coupling("f", "x", nd.Feedback(stage, "live"), gain=gain)]
    inputs = {name: torch.full((1, 1), value, dtype=torch.float64) for name, value in (("b", b), ("t", t))}
    network = nd.Network("lagging", populations, couplings)
    with bound(network, inputs, None) as system, pytest.warns(RuntimeWarning, match="not reached"):
        _, report = to_equilibrium(system, nd.steady(), max_duration=20.0)
    assert not report.converged


@pytest.mark.filterwarnings("ignore:network 'apart' rests:RuntimeWarning")
def test_what_grows_apart_from_a_unit_that_is_held_at_its_kink_is_found() -> None:
    """dx/dt = 1 − x − 2 ReLU'(x) holds x at 0, and dz/dt = z + y² grows from 0, where dy/dt = −y + ReLU(x)."""
    stage = nd.Stage(nn.Sequential(nn.ReLU(), identity(nn.Linear(1, 1))).double())
    populations = [nd.Population(name, 1, clamp=nd.Input()) for name in "bv"]
    populations += [nd.Population(name, 1) for name in "xzy"]
    couplings = [nd.Coupling("b", "x"), nd.Coupling("v", "x", nd.Feedback(stage, "live"))]
    couplings += [nd.Coupling("x", "y", nd.Forward(stage)), nd.Coupling("z", "z", gain=2.0)]
    network = nd.Network("apart", populations, [*couplings, nd.Coupling("y", "z", nd.Pointwise(torch.square))])
    inputs = {name: torch.full((1, 1), value, dtype=torch.float64) for name, value in (("b", 1.0), ("v", -2.0))}
    found = nd.equilibrium(network, inputs)
    assert found.converged
    assert not found.stable
