"""Steps that slide along kinks, against Filippov's solution by hand and against a great many of Euler's steps."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from tests.problems import tensor


def one_unit(activation: nn.Module, mismatch: float) -> tuple[nd.Network, torch.Tensor, torch.Tensor]:
    """PC of one hidden unit: dx/dt = 1/2 − x + f'(x) (m − f(x)) from 1/2, with the mismatch m of the target."""
    module = nn.Sequential(nn.Linear(1, 1), activation, nn.Linear(1, 1)).double()
    values = {"0.weight": 0.0, "0.bias": 0.5, "2.weight": 1.0, "2.bias": 0.25}
    for name, parameter in module.named_parameters():
        nn.init.constant_(parameter, values[name])
    ones = torch.ones(1, 1, dtype=torch.float64)
    return pc.network(module, steps="equilibrium"), ones, (mismatch + 0.25) * ones


def test_a_unit_that_both_sides_drive_to_its_kink_stays_there():
    network, x, t = one_unit(nn.ReLU(), -2.0)
    run = nd.simulate(network, x, t, duration=5.0, solver=nd.Sliding(1e-6, 1e-8), save_at=101)
    times = run.time.values
    expected = np.where(times < 0.5 * math.log(5 / 3), -0.75 + 1.25 * np.exp(-2 * times), 0.0)
    np.testing.assert_allclose(run.x1.values.ravel(), expected, rtol=0, atol=1e-5)
    assert (run.x1.values.ravel()[times > 0.5] == 0.0).all()
    assert run.evaluations < 200


def test_a_unit_that_both_sides_drive_one_way_crosses_its_kink():
    network, x, t = one_unit(nn.LeakyReLU(0.1), -8.0)
    run = nd.simulate(network, x, t, duration=5.0, solver=nd.Sliding(1e-7, 1e-9), save_at=101)
    times = run.time.values
    arrival = 0.5 * math.log(4.25 / 3.75)
    below = -0.3 / 1.01 * -np.expm1(-1.01 * (times - arrival))
    expected = np.where(times < arrival, -3.75 + 4.25 * np.exp(-2 * times), below)
    np.testing.assert_allclose(run.x1.values.ravel(), expected, rtol=0, atol=1e-5)


def sliding_for_a_while() -> nd.Network:
    """dx/dt = 1/2 + H(x) v with v = t − 2, from x = 1/2; y reads ReLU(x)."""
    stage = nd.Stage(nn.Sequential(nn.ReLU(), nn.Linear(1, 1, bias=False, dtype=torch.float64)))
    nn.init.ones_(stage.parameters[0])
    return nd.Network(
        "sliding",
        [
            nd.Population("one", 1, clamp=nd.Constant(1.0)),
            nd.Population("v", 1, leak=0.0, initial=-2.0),
            nd.Population("x", 1, leak=0.0, initial=0.5),
            nd.Population("y", 1),
        ],
        [
            nd.Coupling("one", "v"),
            nd.Coupling("one", "x", gain=0.5),
            nd.Coupling("v", "x", nd.Feedback(stage, "live")),
            nd.Coupling("x", "y", nd.Forward(stage)),
        ],
    )


def test_a_unit_leaves_its_kink_when_one_side_leads_away():
    network = sliding_for_a_while()
    times = np.linspace(0.0, 3.0, 61)
    start = {"v": torch.full((1, 1), -2.0, dtype=torch.float64)}
    run = nd.simulate(network, None, duration=3.0, initial=start, solver=nd.Sliding(1e-7, 1e-9), save_at=times)
    arrival = 1.5 - math.sqrt(1.25)
    expected = np.where(times < arrival, 0.5 - 1.5 * times + times**2 / 2, np.maximum(times - 1.5, 0.0) ** 2 / 2)
    np.testing.assert_allclose(run.x.values.ravel(), expected, rtol=0, atol=2e-4)


def relu_network(sizes: list[int], samples: int) -> tuple[nd.Network, torch.Tensor, torch.Tensor]:
    module = nd.mlp(sizes, activation="relu", seed=0, dtype=torch.float64)
    return pc.network(module, steps="equilibrium"), tensor(samples, sizes[0]), tensor(samples, sizes[-1], scale=0.3)


def euler(network: nd.Network, x: torch.Tensor, t: torch.Tensor, duration: float, steps: int) -> dict[str, np.ndarray]:
    """Euler's steps of PC written by hand, which chatter about the kinks within a step."""
    weights = [[p.detach().numpy() for p in stage.parameters] for stage in network.forward]
    activity = [x.numpy()]
    for w, b in weights:
        activity.append(w @ (np.maximum(activity[-1], 0.0) if len(activity) > 1 else activity[-1])[..., None])
        activity[-1] = activity[-1][..., 0] + b
    activity[-1] = t.numpy()
    for _ in range(steps):
        f = [activity[0], *(np.maximum(each, 0.0) for each in activity[1:])]
        errors = [a - below @ w.T - b for a, below, (w, b) in zip(activity[1:], f, weights, strict=False)]
        for place in range(1, len(activity) - 1):
            back = errors[place] @ weights[place][0]
            activity[place] = activity[place] + duration / steps * (-errors[place - 1] + (activity[place] > 0) * back)
    return {f"x{place}": value for place, value in enumerate(activity[1:-1], start=1)}


@pytest.mark.parametrize("sizes", [[8, 8, 8, 4], [6, 16, 12, 8, 3]])
def test_relaxation_of_relu_networks_is_filippovs_in_few_evaluations(sizes):
    network, x, t = relu_network(sizes, 3)
    run = nd.simulate(network, x, t, duration=20.0, save_at=[20.0])
    assert run.solver.startswith("Sliding")
    assert run.evaluations <= 300
    expected = euler(network, x, t, 20.0, 20_000)
    scale = max(float(abs(value).max()) for value in expected.values())
    for name, value in expected.items():
        np.testing.assert_allclose(run[name].values[0], value, rtol=0, atol=2e-3 * scale)


def test_errors_with_a_time_constant_slide_as_well():
    module = nd.mlp([8, 8, 8, 4], activation="relu", seed=0, dtype=torch.float64)
    network = pc.network(module, steps="equilibrium", error_tau=0.5)
    x, t = tensor(3, 8), tensor(3, 4, scale=0.3)
    run = nd.simulate(network, x, t, duration=5.0, save_at=[5.0])
    assert run.solver.startswith("Sliding")
    assert run.evaluations <= 300
    expected = nd.simulate(network, x, t, duration=5.0, save_at=[5.0], solver=nd.Euler(5e-4))
    for name in ("x1", "x2", "e1", "e2"):
        scale = float(abs(expected[name]).max())
        assert float(abs(run[name] - expected[name]).max()) <= 3e-3 * max(scale, 1.0)


def test_what_slides_counts_as_at_rest():
    network, x, t = one_unit(nn.ReLU(), -2.0)
    run = nd.simulate(network, x, t, duration=100.0, solver=nd.Sliding(), save_at=[0.0], until=nd.steady(1e-6))
    assert run.attrs["converged"] == 1
    assert float(run.x1[-1].item()) == 0.0


def test_without_kinks_it_is_a_method_like_others():
    module = nd.mlp([4, 6, 5, 3], seed=0, dtype=torch.float64)
    network, x, t = pc.network(module, steps="equilibrium"), tensor(3, 4), tensor(3, 3)
    times = [0.0, 0.7, 2.0]
    runs = [
        nd.simulate(network, x, t, duration=2.0, solver=solver, save_at=times)
        for solver in (nd.Sliding(1e-6, 1e-8), nd.Adaptive(rtol=1e-9, atol=1e-11))
    ]
    np.testing.assert_allclose(runs[0].x1.values, runs[1].x1.values, rtol=0, atol=2e-5)


def pooled_network(activation: nn.Module, pooling: nn.Module) -> nn.Sequential:
    """Return a network with a window among whose units a maximum is taken, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 3, padding=3), activation, pooling, nn.Flatten()]
        sizes = nn.Sequential(*layers)(torch.zeros(1, 4)).shape[1]
        return nn.Sequential(*layers, nn.Linear(sizes, 2))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh()])
@pytest.mark.parametrize("pooling", [nn.MaxPool1d(2), nn.MaxPool1d(3, stride=4)])
def test_relaxation_under_max_pooling_is_filippovs(activation, pooling):
    """Against Euler's steps, each of which goes a little beyond a meeting of units, and back."""
    network = pc.network(pooled_network(activation, pooling).double(), steps="equilibrium")
    x, t = tensor(4, 4), 3.0 * tensor(4, 2, seed=1)
    run = nd.simulate(network, x, t, duration=6.0, save_at=[6.0], solver=nd.Sliding(1e-5, 1e-6))
    expected = nd.simulate(network, x, t, duration=6.0, save_at=[6.0], solver=nd.Euler(2e-3))
    assert nd.simulate(network, x, t, duration=0.1).solver.startswith("Sliding")
    scale = float(abs(expected.x1).max())
    assert float(abs(run.x1 - expected.x1).max()) <= 5e-3 * scale


def test_images_of_several_channels_relax_in_few_evaluations():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3)]
        module = nn.Sequential(*layers).double()
    network = pc.network(module, steps="equilibrium")
    x, t = tensor(3, 2, 8, 8), tensor(3, 3)
    run = nd.simulate(network, x, t, duration=20.0, save_at=[20.0])
    expected = nd.simulate(network, x, t, duration=20.0, save_at=[20.0], solver=nd.Euler(0.01))
    assert run.solver.startswith("Sliding")
    assert run.evaluations <= 300
    for name in ("x1", "x2"):
        scale = float(abs(expected[name]).max())
        assert float(np.quantile(abs(run[name] - expected[name]), 0.99)) <= 2e-3 * scale


def test_kinks_elsewhere_than_at_zero_are_refused_and_not_chosen():
    pooled = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Unflatten(1, (1, 8)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4, 2)
    )
    network = pc.network(pooled, steps="equilibrium")
    x, t = torch.rand(2, 4), torch.rand(2, 2)
    with pytest.raises(ValueError, match=r"kinks elsewhere than where a unit passes 0"):
        nd.simulate(network, x, t, duration=1.0, solver=nd.Sliding())
    assert nd.simulate(network, x, t, duration=0.1).solver.startswith("Adaptive")
    network = pc.network(pooled_network(nn.ReLU(), nn.MaxPool1d(3, stride=2)), steps="equilibrium")
    assert nd.simulate(network, x, torch.rand(2, 2), duration=0.1).solver.startswith("Adaptive")
    bounded = nd.Network("bounded", [nd.Population("x", 1, initial=0.5, bounds=(0.0, 1.0))])
    with pytest.raises(ValueError, match=r"has bounds"):
        nd.simulate(bounded, None, duration=1.0, solver=nd.Sliding())
    with pytest.raises(ValueError, match=r"rtol of Sliding"):
        nd.Sliding(rtol=0.0)
