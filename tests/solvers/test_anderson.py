"""Accelerated equilibria: they are those of the relaxation, per sample, and given up where steps do not contract."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from neurodyn.solvers.anderson import anderson
from neurodyn.solvers.rows import Rows
from neurodyn.system.system import System


def predictive(dtype=torch.float64, samples=5):
    module = nd.mlp([9, 8, 7, 5], dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 9, generator=generator, dtype=torch.float64).to(dtype)
    t = 0.3 * torch.randn(samples, 5, generator=generator, dtype=torch.float64).to(dtype)
    return pc.network(module, steps="equilibrium"), x, t


def test_equals_the_long_relaxation():
    network, x, t = predictive()
    found = nd.equilibrium(network, x, t, tolerance=1e-10)
    relaxed = nd.simulate(network, x, t, duration=200.0, solver=nd.Adaptive(rtol=1e-11, atol=1e-12), save_at=[200.0])
    assert found.attrs["solver"] == "Anderson acceleration"
    assert found.attrs["residual"] <= 1e-10
    for name in found.data_vars:
        np.testing.assert_allclose(found[name], relaxed[name].isel(time=0), atol=1e-8)


def test_takes_far_fewer_evaluations_than_relaxing():
    network, x, t = predictive()
    relaxed = nd.simulate(network, x, t, duration=100.0, solver=nd.Adaptive(), until=nd.steady(1e-6))
    assert nd.equilibrium(network, x, t, tolerance=1e-6).attrs["evaluations"] < relaxed.attrs["evaluations"] / 4


def test_a_sample_does_not_depend_on_its_batch():
    network, x, t = predictive()
    together = nd.equilibrium(network, x, t, tolerance=1e-9)
    for sample in range(len(x)):
        alone = nd.equilibrium(network, x[sample : sample + 1], t[sample : sample + 1], tolerance=1e-9)
        np.testing.assert_allclose(alone["x1"].values[0], together["x1"].values[sample], atol=1e-8)


def test_a_sample_already_there_stays_put():
    network, x, t = predictive(samples=2)
    t[1] = torch.from_numpy(nd.equilibrium(network, x)["x3"].values[1])  # its prediction: nothing to infer
    system = System(network, x, t)
    with torch.no_grad():
        field = Rows(system)
        start = field.of(system.initial_state())
        found = anderson(field, start, 1e-9)
    assert found.arrived.all()
    assert torch.equal(found.x[1], start[1])
    assert not torch.equal(found.x[0], start[0])


def test_gives_up_and_relaxes_where_steps_do_not_contract():
    """A bistable unit next to its unstable point 0 has to end in the attractor on its own side."""
    squash = nd.Stage([nn.Tanh()])
    network = nd.Network("bistable", [nd.Population("x", 1)], [nd.Coupling("x", "x", nd.Forward(squash), gain=3.0)])
    start = {"x": torch.tensor([[0.01], [-0.01], [2.0]], dtype=torch.float64)}
    found = nd.equilibrium(network, None, initial=start, tolerance=1e-9)
    assert found.attrs["solver"].startswith("Adaptive")
    attractor = brentq(lambda x: 3.0 * np.tanh(x) - x, 1.0, 4.0, xtol=1e-12)
    np.testing.assert_allclose(found["x"].values.ravel(), [attractor, -attractor, attractor], atol=1e-6)


def test_warns_when_nothing_converges():
    """A rotation without leak has an equilibrium that it never approaches."""
    network = nd.Network(
        "limit cycle",
        [nd.Population("x", 1, leak=0.0, initial=1.0), nd.Population("y", 1, leak=0.0)],
        [
            nd.Coupling("y", "x", nd.Forward(nn.Tanh()), gain=-1.0),
            nd.Coupling("x", "y", nd.Forward(nn.Tanh()), gain=1.0),
        ],
    )
    with pytest.warns(RuntimeWarning, match="has not reached its equilibrium after 5 units"):
        found = nd.equilibrium(network, None, max_duration=5.0)
    assert found.attrs["converged"] == 0


def test_float32_reaches_a_float32_tolerance():
    network, x, t = predictive(torch.float32)
    found = nd.equilibrium(network, x, t, tolerance=1e-5)
    exact = nd.equilibrium(*predictive(), tolerance=1e-10)
    np.testing.assert_allclose(found["x1"], exact["x1"], atol=1e-4)


def test_a_relaxation_that_slides_along_a_kink_is_given_up(monkeypatch):
    from neurodyn.solvers import equilibrium

    monkeypatch.setattr(equilibrium, "_MOST_STEPS", 30)
    module = nd.mlp([12, 9, 7, 5], activation="relu", dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    t = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match=r"and 30 steps in \d of 4 samples: .* where an activation has a kink"):
        found = nd.equilibrium(pc.network(module), x, t)
    assert found.attrs["converged"] == 0
