"""The examples of CONTRIBUTING.md run as they stand, and do what they say."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

import neurodyn as nd

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    defined: dict[str, Any] = {"__name__": "contributing", "nd": nd}
    for block in BLOCKS:
        exec(compile(block, "CONTRIBUTING.md", "exec"), defined)
    return defined


def test_feedback_alignment_is_its_recursion(names: dict[str, Any]) -> None:
    module = nd.mlp([5, 4, 6, 3], dtype=torch.float64)
    x, t = torch.rand(7, 5, dtype=torch.float64), torch.rand(7, 3, dtype=torch.float64)
    network = names["feedback_alignment"](module, seed=2)
    nd.backward(network, x, t)
    psi = [c.map.weights.tensors for c in network.couplings if isinstance(c.map, nd.Feedback) and c.map.weights]
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    values = [x]
    for place, layer in enumerate(linear):
        h = layer(values[-1])
        values.append(torch.tanh(h) if place < 2 else h)
    delta = (values[3] - t).detach()
    for place in (2, 1, 0):
        post = delta if place == 2 else (1 - values[place + 1] ** 2).detach() * delta
        grad = linear[place].weight.grad
        assert grad is not None
        torch.testing.assert_close(grad, post.T @ values[place].detach() / len(x))
        if place:
            (weights,) = psi[place - 1].values()
            assert not torch.allclose(weights, linear[place].weight.T)
            delta = post @ weights.T


def test_the_map_is_its_formula(names: dict[str, Any]) -> None:
    population = nd.Population("x", 1, initial=2.0)
    network = nd.Network("naka", [population], [nd.Coupling("x", "x", names["Saturating"](0.5), gain=2.0)])
    run = nd.simulate(network, None, duration=3.0, solver=nd.RK4(0.01))
    exact = solve_ivp(lambda _, x: -x + 2 * x / (0.5 + x), (0, 3), [2.0], rtol=1e-10, atol=1e-12)
    assert float(run.x[-1].squeeze()) == pytest.approx(exact.y[0, -1], rel=1e-5)
    assert "x / (0.5 + x)" in network.equations()
    assert names["Saturating"](0.5) == names["Saturating"](0.5) != names["Saturating"](0.6)


def test_the_drive_is_its_formula_and_asks_for_targets(names: dict[str, Any]) -> None:
    network = nd.Network("smoothed", [nd.Population("t", 4, clamp=names["Smoothed"](0.2))])
    run = nd.equilibrium(network, None, torch.eye(4))
    np.testing.assert_allclose(run.t, 0.8 * np.eye(4) + 0.05, rtol=1e-6)
    with pytest.raises(ValueError, match=r"target, smoothed by 0\.2, which needs targets"):
        nd.equilibrium(network, None)


def test_the_regularizer_adds_its_formula(names: dict[str, Any]) -> None:
    module = nd.mlp([3, 2])
    x = torch.ones(2, 3)
    network = nd.models.activation_relaxation.network(module).regularized(names["Lasso"](0.1))
    nd.backward(network, x, module(x).detach())  # no error to learn from
    weight, bias = module.parameters()
    torch.testing.assert_close(weight.grad, 0.1 * weight.detach().sign())
    torch.testing.assert_close(bias.grad, torch.zeros(2))


@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
def test_the_solver_keeps_its_tolerance(names: dict[str, Any], rtol: float) -> None:
    turn = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        turn.weight.copy_(torch.tensor([[0.0, -3.0], [3.0, 0.0]]))
    network = nd.Network("turn", [nd.Population("x", 2, leak=0.2)], [nd.Coupling("x", "x", nd.Forward(turn))])
    times = np.linspace(0, 4, 23)
    start = {"x": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    solver = names["Midpoint"](rtol=rtol, atol=1e-9)
    run = nd.simulate(network, None, duration=4.0, initial=start, solver=solver, save_at=times)
    expected = np.exp(-0.2 * times)[:, None] * np.stack([np.cos(3 * times), np.sin(3 * times)], 1)
    error = np.abs(run.x.values[:, 0] - expected).max()
    assert error < 100 * rtol
    assert run.attrs["solver"].startswith("Midpoint(")
    assert run.attrs["evaluations"] == 2 * (run.attrs["accepted_steps"] + run.attrs["rejected_steps"]) + 2


def test_the_study_writes_what_the_closed_form_says(names: dict[str, Any], tmp_path: Path) -> None:
    gains = (0.5, 0.75)
    names["main"](names["Slowness"](out=tmp_path, gains=gains, quiet=True))
    assert {path.name for path in tmp_path.iterdir()} == {"slowness.nc", "slowness.png", "slowness.pdf"}
    np.testing.assert_allclose(nd.load(tmp_path / "slowness.nc").time, 1 / (1 - np.array(gains)), rtol=1e-6)
