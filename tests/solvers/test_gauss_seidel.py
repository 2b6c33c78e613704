"""Gauss–Seidel iteration: equilibria of networks whose cycles weak couplings close."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import root
from torch import nn

import neurodyn as nd
from neurodyn.structure.cache import structure_of
from tests.problems import tensor


def linear(units: int, seed: int) -> nn.Linear:
    layer = nn.Linear(units, units, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(0.7 * tensor(units, units, seed=seed))
        layer.bias.copy_(tensor(units, seed=seed))
    return layer


def chain(weak: float, maps=None, units: int = 4, depth: int = 4, tau: float = 1.0) -> nd.Network:
    """x0 … x3, each driven strongly by the next and weakly by the one before; the last also by the input."""
    maps = maps or [nd.Forward(linear(units, seed=i)) for i in range(2 * depth)]
    names = [f"x{i}" for i in range(depth)]
    couplings = [nd.Coupling("s", names[-1])]
    couplings += [nd.Coupling(b, a, maps[i]) for i, (a, b) in enumerate(pairwise(names))]
    couplings += [nd.Coupling(a, b, maps[depth + i], gain=weak) for i, (a, b) in enumerate(pairwise(names))]
    populations = [nd.Population("s", units, clamp=nd.Input())]
    populations += [nd.Population(name, units, tau=tau, leak=1.5) for name in names]
    return nd.Network("chain", populations, couplings)


def equilibrium_by_newton(network: nd.Network, inputs: torch.Tensor) -> torch.Tensor:
    system = nd.System(network, inputs)
    state, slope = system.initial_state(), system.new_state()

    def field(flat):
        state.flat.copy_(torch.tensor(flat))
        system.field(state, slope)
        return slope.flat.numpy()

    with torch.no_grad():
        return root(field, state.flat.numpy().copy(), method="hybr", tol=1e-14).x


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("activation", [nn.Identity, nn.Tanh])
@pytest.mark.parametrize("weak", [1e-3, -0.1])
def test_sweeps_find_the_equilibrium(weak: float, activation: type[nn.Module], tau: float) -> None:
    maps = [nd.Forward(nn.Sequential(linear(4, seed=i), activation())) for i in range(8)]
    network = chain(weak, maps, tau=tau)
    s = tensor(3, 4)
    found = nd.equilibrium(network, s)
    assert found.attrs["solver"] == "Gauss–Seidel sweeps"
    assert found.attrs["converged"] == 1
    assert found.attrs["residual"] < 1e-12
    assert found.attrs["evaluations"] < 30
    flat = np.concatenate([found[f"x{i}"].values.ravel() for i in range(4)])
    np.testing.assert_allclose(flat, equilibrium_by_newton(network, s), rtol=1e-6, atol=1e-7)


def test_float32_arrives_whatever_the_size_of_the_activity() -> None:
    maps = [nd.Forward(linear(4, seed=i).float()) for i in range(8)]
    network = chain(1e-3, maps)
    s = 1e9 * tensor(3, 4).float()
    found = nd.equilibrium(network, s)
    assert found.attrs["converged"] == 1
    double = nd.equilibrium(chain(1e-3), s.double())
    for name in ("x0", "x1", "x2", "x3"):
        np.testing.assert_allclose(found[name], double[name], rtol=1e-4, atol=1e-5 * float(abs(double[name]).max()))


@given(gains=st.lists(st.floats(0.01, 2.0), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_order_follows_the_strong_couplings(gains: list[float]) -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("a", "c"), ("c", "c")]
    network = nd.Network(
        "n",
        [nd.Population(name, 1) for name in "abc"],
        [nd.Coupling(*pair, gain=gain) for pair, gain in zip(pairs, gains, strict=True)],
    )
    order = structure_of(network, frozenset()).weak_order
    strong = [pair for pair, gain in zip(pairs, gains, strict=True) if gain > 0.25]
    possible = [
        names
        for names in (
            ("a", "b", "c"),
            ("a", "c", "b"),
            ("b", "a", "c"),
            ("b", "c", "a"),
            ("c", "a", "b"),
            ("c", "b", "a"),
        )
        if all(names.index(source) < names.index(target) for source, target in strong)
    ]
    assert order in possible if possible else order is None


@pytest.mark.parametrize(("leaks", "order"), [((1.0, 1.0), ("a", "b")), ((0.5, 1.0), None), ((1.0, 0.0), None)])
def test_strength_is_measured_against_the_leak(leaks: tuple[float, float], order: tuple[str, ...] | None) -> None:
    populations = [nd.Population(name, 1, leak=leak) for name, leak in zip("ab", leaks, strict=True)]
    network = nd.Network("n", populations, [nd.Coupling("a", "b"), nd.Coupling("b", "a", gain=0.2)])
    assert structure_of(network, frozenset()).weak_order == order


def test_sweeps_that_do_not_shrink_give_way_to_relaxation() -> None:
    # The weak coupling's map is strong: a sweep multiplies errors by −2, while the relaxation is stable.
    grows = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(grows.weight, -10.0)
    network = nd.Network(
        "n",
        [nd.Population("s", 1, clamp=nd.Input()), nd.Population("a", 1), nd.Population("b", 1)],
        [nd.Coupling("s", "a"), nd.Coupling("a", "b"), nd.Coupling("b", "a", nd.Forward(grows), gain=0.2)],
    )
    assert structure_of(network, frozenset({"s"})).weak_order == ("a", "b")
    found = nd.equilibrium(network, torch.ones(2, 1, dtype=torch.float64), tolerance=1e-10)
    assert found.attrs["solver"] != "Gauss–Seidel sweeps"
    np.testing.assert_allclose(found.a, 1 / 3, rtol=1e-8)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("own", ["identity", "linear", "live"])
def test_a_population_that_reads_itself(own: str, order: tuple[int, ...]) -> None:
    """Whatever stands before in its sum, the coupling from itself reads the activity before the sweep."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(4, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(0.3 * torch.randn(4, 4, generator=generator))
    stage = nd.Stage([layer, nn.Tanh()])
    maps = {"identity": nd.Identity(), "linear": nd.Feedback(layer, "live"), "live": nd.Feedback(stage, at="x")}
    into = [nd.Coupling("s", "x"), nd.Coupling("y", "x", gain=-0.4), nd.Coupling("x", "x", maps[own], gain=0.5)]
    network = nd.Network(
        "recurrent",
        [nd.Population("s", 4, clamp=nd.Input()), nd.Population("x", 4), nd.Population("y", 4)],
        [*(into[place] for place in order), nd.Coupling("x", "y", gain=0.2)],
    )
    s = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    found = nd.equilibrium(network, s)
    x, y = (torch.from_numpy(found[name].values) for name in ("x", "y"))

    def back(v: torch.Tensor) -> torch.Tensor:
        weight = layer.weight.detach()
        if own == "identity":
            return v
        slope = 1.0 if own == "linear" else 1.0 - torch.tanh(layer(v).detach()) ** 2
        return (slope * v) @ weight

    assert found.attrs["converged"] == 1
    torch.testing.assert_close(y, 0.2 * x, rtol=0, atol=1e-7)
    torch.testing.assert_close(x, s - 0.4 * y + 0.5 * back(x), rtol=0, atol=1e-7)
