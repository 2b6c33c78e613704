"""The flow of linear systems that share a matrix, against SciPy's exponential of one large matrix."""

from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy.linalg import expm

import neurodyn as nd
from neurodyn.solvers.flow import Flow
from tests.problems import Array, random


def matrices() -> dict[str, Array]:
    jordan = -np.eye(5) + np.diag(np.ones(4), 1)
    return {
        "defective": jordan,
        "nilpotent": jordan + np.eye(5),
        "zero": np.zeros((5, 5)),
        "singular": np.outer(random(5, seed=1), random(5, seed=2)) - np.diag([0.0, 1, 1, 1, 1]),
        "rotating": np.diag([4.0, 0.0, 4.0, 0.0], 1) - np.diag([4.0, 0.0, 4.0, 0.0], -1),
        "stiff": -np.diag(10.0 ** np.arange(5)) + random(5, 5, seed=3),
        "far from normal": -np.eye(5) + 30.0 * np.triu(random(5, 5, seed=4), 1),
    }


def augmented(matrix: Array, x: Array, drive: Array, rise: Array, time: float) -> Array:
    """Return x(t) of dx/dt = xA + b + rt, by the exponential of the linear system of x, b + rt and r."""
    n = len(matrix)
    whole = np.zeros((3 * n, 3 * n))
    whole[:n, :n], whole[n : 2 * n, :n], whole[2 * n :, n : 2 * n] = matrix, np.eye(n), np.eye(n)
    found: Array = (np.concatenate([x, drive, rise], axis=1) @ expm(time * whole))[:, :n]
    return found


@pytest.mark.parametrize("kind", matrices())
@hypothesis.given(time=st.floats(1e-6, 20.0), seed=st.integers(0, 9))
@hypothesis.settings(max_examples=15, deadline=None)
def test_exponentials_and_series_equal_the_augmented_exponential(kind, time, seed):
    matrix = matrices()[kind]
    x, drive, rise = (random(2, 5, seed=seed + place) for place in range(3))
    flow = Flow(torch.tensor(matrix), torch.float64, ramped=True)
    its = flow.exponentials(time)
    assert its.of_rise is not None
    one, two, three = (torch.tensor(each) for each in (x, drive, rise))
    closed = one @ its.of_state + two @ its.of_drive + three @ its.of_rise
    expected = augmented(matrix, x, drive, rise, time)
    growth = np.abs(expm(time * np.abs(matrix - np.diag(np.diag(matrix))))).max() if kind != "stiff" else 1e2
    tolerance = 1e-11 * (1.0 + time**2) * max(1.0, min(growth, 1e6))
    np.testing.assert_allclose(closed, expected, rtol=1e-9, atol=tolerance)
    if kind != "stiff":
        short = min(time, 2.0)
        series = flow.series(one, two, three, torch.full((1, 1), short, dtype=torch.float64), short)
        np.testing.assert_allclose(
            series, augmented(matrix, x, drive, rise, short), rtol=1e-9, atol=1e-11 * max(1.0, min(growth, 1e6))
        )


def recurrent(bias: float = 0.0, dtype: torch.dtype = torch.float64) -> nd.Network:
    layer = torch.nn.Linear(6, 6, dtype=dtype)
    layer.weight.data = torch.tensor(random(6, 6, seed=5, scale=0.3)).to(dtype)
    layer.bias.data.fill_(bias)
    populations = [nd.Population("u", 6, clamp=nd.Input()), nd.Population("x", 6, initial=0.2)]
    couplings = [nd.Coupling("u", "x"), nd.Coupling("x", "x", nd.Forward(layer))]
    return nd.Network("recurrent", populations, couplings)


@pytest.mark.parametrize("interpolation", ["previous", "linear"])
@pytest.mark.parametrize("equal", [True, False])
def test_a_recurrent_network_takes_few_products_under_a_long_signal(interpolation, equal):
    """However many pieces there are: equal ones share what is made of matrices, and others take a short series."""
    count = 200
    lengths = np.full(count, 0.1) if equal else np.random.default_rng(0).uniform(0.02, 0.1, count)
    times = np.concatenate([[0.0], np.cumsum(lengths)])
    signal = nd.Signal(times, torch.tensor(random(count + 1, 2, 6, seed=6)), interpolation)
    duration = float(times[-1])
    run, beside = (
        nd.simulate(recurrent(), signal, duration=duration, solver=solver, save_at=[0.0, 0.055, duration / 3, duration])
        for solver in (nd.Exact(), nd.Adaptive("tsit5", rtol=1e-9, atol=1e-10))
    )
    np.testing.assert_allclose(run.x, beside.x, atol=1e-8)
    assert run.attrs["evaluations"] < (count / 4 if equal else 15 * count)


def test_offsets_of_maps_do_not_round_the_matrix():
    signal = nd.Signal([0.0, 1.0, 2.0], torch.tensor(random(3, 2, 6, seed=7)), "previous")
    double = nd.simulate(recurrent(1000.0), signal, duration=2.0, solver=nd.Exact(), save_at=5)
    single = nd.Signal([0.0, 1.0, 2.0], torch.tensor(random(3, 2, 6, seed=7)).float(), "previous")
    run = nd.simulate(recurrent(1000.0, torch.float32), single, duration=2.0, solver=nd.Exact(), save_at=5)
    assert float(abs(run.x - double.x).max()) < 2e-6 * float(abs(double.x).max())


def test_samples_of_matrices_of_their_own_keep_them():
    """The Jacobian of the forward pass differs from sample to sample."""
    stage = nd.cut(nd.mlp([4, 4], activation="tanh", seed=0, dtype=torch.float64))
    populations = [
        nd.Population("s", 4, clamp=nd.Input()),
        nd.Population("u", 4, clamp=nd.Target()),
        nd.Population("x", 4, initial=1.0),
        nd.Population("y", 4, tau=2.0),
    ]
    couplings = [
        nd.Coupling("x", "y"),
        nd.Coupling("y", "x", nd.Feedback(stage[0]), gain=0.5),
        nd.Coupling("u", "y"),
    ]
    net = nd.Network("fed back", populations, couplings, forward=stage)
    targets = nd.Signal([0.0, 0.5, 2.0], torch.tensor(random(3, 3, 4, seed=9)), "linear")
    inputs = torch.tensor(random(3, 4, seed=8))
    run, beside = (
        nd.simulate(net, inputs, targets, duration=2.0, save_at=5, solver=solver)
        for solver in (nd.Exact(), nd.Adaptive("tsit5", rtol=1e-10, atol=1e-11))
    )
    np.testing.assert_allclose(run.x, beside.x, atol=1e-8)


def test_stacked_networks_have_a_matrix_each():
    def net(gain: float) -> nd.Network:
        populations = [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2), nd.Population("y", 2, tau=3.0)]
        couplings = [nd.Coupling("u", "x"), nd.Coupling("x", "y", gain=gain), nd.Coupling("y", "x", gain=-gain)]
        return nd.Network("pair", populations, couplings)

    times = np.array([0.0, 0.5, 1.0, 1.7, 4.0])
    signal = nd.Signal(times, torch.tensor(random(5, 3, 2, seed=8)), "linear")
    options: dict[str, Any] = {"duration": 4.0, "solver": nd.Exact(), "save_at": 9}
    both = nd.simulate([net(1.0), net(0.4)], signal, **options)
    for place, gain in enumerate((1.0, 0.4)):
        alone = nd.simulate(net(gain), signal, **options)
        np.testing.assert_allclose(both.y.isel(network=place), alone.y, atol=1e-12)


def test_a_long_signal_is_taken_in_blocks(monkeypatch):
    signal = nd.Signal(np.linspace(0.0, 2.0, 11), torch.tensor(random(11, 2, 6, seed=6)), "linear")
    options: dict[str, Any] = {"duration": 2.0, "solver": nd.Exact(), "save_at": 17}
    whole = nd.simulate(recurrent(), signal, **options)
    monkeypatch.setattr("neurodyn.solvers.matrices._MOST_NUMBERS", 150)
    parts = nd.simulate(recurrent(), signal, **options)
    np.testing.assert_allclose(whole.x, parts.x, atol=1e-12)
    end = nd.simulate(recurrent(), signal, **(options | {"save_at": [2.0]}))
    np.testing.assert_allclose(whole.x[-1:], end.x, atol=1e-12)  # most blocks then save nothing
