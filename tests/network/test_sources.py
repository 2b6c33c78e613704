"""Couplings of several sources, functions unit by unit, and Jacobians at a population of one's choice."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neurodyn as nd
from tests.problems import random, tensor

START = {name: random(2, 3, seed=seed) for seed, name in enumerate("uxy", start=1)}


def multiply(u: Tensor, x: Tensor) -> Tensor:
    return u * x


@dataclass(frozen=True)
class Difference(nd.Map):
    """A map of one's own, jointly linear in its two sources."""

    linear = True

    def apply(self, u: Tensor, x: Tensor) -> Tensor:
        return 2 * u - x


def gated(gain: float = -0.5, **settings) -> nd.Network:
    return nd.Network(
        "gated",
        [nd.Population(name, 3) for name in "uxy"],
        [
            nd.Coupling(("u", "x"), "y", nd.Pointwise(multiply, text="{} · {}")),
            nd.Coupling("y", "u", nd.Pointwise(torch.tanh), gain),
            nd.Coupling(("y", "u"), "x", Difference()),
        ],
        **settings,
    )


def test_several_sources_enter_as_they_would_by_hand():
    def slope(t, flat, gain=-0.5):
        u, x, y = flat.reshape(3, 2, 3)
        return np.concatenate([-u + gain * np.tanh(y), -x + 2 * y - u, -y + u * x], axis=None)

    start = np.concatenate([START[name].ravel() for name in "uxy"])
    expected = solve_ivp(slope, (0.0, 2.0), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1].reshape(3, 2, 3)
    initial = {name: torch.tensor(value) for name, value in START.items()}
    for solver in (nd.RK4(0.01), nd.Adaptive(rtol=1e-9, atol=1e-10), nd.TorchDiffEq(rtol=1e-9, atol=1e-10), None):
        run = nd.simulate(gated(), None, duration=2.0, solver=solver, initial=initial, save_at=[2.0])
        for name, value in zip("uxy", expected, strict=True):
            np.testing.assert_allclose(run[name][0], value, atol=1e-6 if solver else 1e-3)
    both = nd.simulate([gated(), gated(0.3)], None, duration=2.0, solver=nd.RK4(0.01), initial=initial, save_at=[2.0])
    np.testing.assert_allclose(both.y.isel(network=0, time=0), expected[2], atol=1e-8)


def test_they_are_printed_as_they_are_written():
    assert gated().equations() == "du/dt = −u − 0.5 tanh(y)\ndx/dt = −x + Difference(y, u)\ndy/dt = −y + u · x"
    populations = [nd.Population(name, 3) for name in "ux"]
    unnamed = nd.Network("n", populations, [nd.Coupling("u", "x", nd.Pointwise(lambda u: u * u))])
    assert unnamed.equations().splitlines()[-1] == "dx/dt = −x + f(u)"
    twice = nd.Network("n", populations, [nd.Coupling("u", "x", nd.Pointwise(lambda u: u * u, text="{0} · {0}"))])
    assert twice.equations().splitlines()[-1] == "dx/dt = −x + u · u"


def test_structure_knows_what_a_coupling_reads():
    network = gated()
    assert network.couplings[0].sources == network.couplings[0].reads == ("u", "x")
    assert network.couplings[1].sources == ("y",)
    assert set(network.graph("uxy").edges) == {("u", "y"), ("x", "y"), ("y", "u"), ("y", "x"), ("u", "x")}
    structure = nd.System(network).structure
    assert (structure.linear, structure.acyclic, structure.gradient_flow) == (False, False, False)
    assert len([patch for patch in network.plot().patches if str(patch.get_gid()).startswith("coupling")]) == 5


def test_a_jointly_linear_map_has_the_closed_form():
    network = nd.Network(
        "linear",
        [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("y", 3)],
        [nd.Coupling(("u", "x"), "y", Difference()), nd.Coupling("u", "x")],
    )
    u = tensor(2, 3)
    run = nd.simulate(network, u, duration=2.0, save_at=[2.0])
    assert "Exact" in run.attrs["solver"]
    decay = np.exp(-2.0)  # x = (1 − e⁻ᵗ) u, and y = ∫ e^{s−t} (1 + e⁻ˢ) u ds
    np.testing.assert_allclose(run.y[0], u.numpy() * (1 - decay + 2 * decay), atol=1e-12)
    activity = nd.activity(network, u, duration=2.0, solver=nd.Exact(), save_at=[2.0])
    np.testing.assert_allclose(activity["y"].detach(), run.y, atol=1e-12)
    np.testing.assert_allclose(nd.equilibrium(network, u).y, u.numpy(), atol=1e-12)


def test_claims_of_linearity_are_tried_of_all_sources():
    @dataclass(frozen=True)
    class Product(nd.Map):
        linear = True

        def apply(self, u: Tensor, x: Tensor) -> Tensor:
            return u * x

    network = nd.Network("n", [nd.Population(name, 3) for name in "uxy"], [nd.Coupling(("u", "x"), "y", Product())])
    with pytest.raises(ValueError, match=r"Product.apply says linear = True, and is neither"):
        nd.simulate(network, None, duration=1.0, initial={"u": tensor(2, 3)})


def test_an_adjoint_takes_its_jacobian_where_one_says():
    """Almeida and Pineda: z = J(x*)ᵀ z + x* − t relaxed beside x gives the gradient at the equilibrium x*."""
    layer = nn.Linear(3, 3).double()
    layer.weight.data = torch.tensor(random(3, 3, scale=0.3))
    stage = nd.Stage(nn.Sequential(layer, nn.Tanh()))
    network = nd.Network(
        "adjoint",
        [
            *(nd.Population("u", 3, clamp=nd.Input()), nd.Population("t", 3, clamp=nd.Target())),
            *(nd.Population("x", 3), nd.Population("z", 3)),
        ],
        [
            *(nd.Coupling("u", "x"), nd.Coupling("x", "x", nd.Forward(stage))),
            *(nd.Coupling("x", "z"), nd.Coupling("t", "z", gain=-1.0)),
            nd.Coupling("z", "z", nd.Feedback(stage, at="x")),
        ],
        [nd.Plasticity(stage, "x", "z", presynaptic="live")],
    )
    u, t = tensor(4, 3, seed=5), tensor(4, 3, seed=6)
    x = u.clone()
    for _ in range(200):
        x = u + torch.tanh(layer(x))
    (0.5 * (x - t).square().sum(1).mean()).backward()
    expected = layer.weight.grad
    layer.weight.grad = None
    nd.backward(network, u, t, duration=40.0, solver=nd.RK4(0.1))
    torch.testing.assert_close(layer.weight.grad, expected, atol=1e-6, rtol=1e-5)
    assert network.equations().splitlines()[-1] == "dz/dt = −z + x − t + J(Tanh∘Linear)(x)ᵀ z"


def test_a_live_jacobian_asks_where_it_is_taken():
    stage = nd.Stage(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    populations = [nd.Population("x", 3), nd.Population("z", 3), nd.Population("w", 2)]
    couplings = [nd.Coupling("x", "x", nd.Forward(stage))]

    def declare(map_: nd.Map, source: str = "z") -> nd.Network:
        return nd.Network("n", populations, [*couplings, nd.Coupling(source, "z", map_)])

    with pytest.raises(ValueError, match=r"population z is not what the stage reads.*at='x' is where"):
        declare(nd.Feedback(stage, "live"))
    with pytest.raises(ValueError, match=r"at: there is no population 'v'"):
        declare(nd.Feedback(stage, at="v"))
    with pytest.raises(ValueError, match=r"taken at population w, which has 2 units, and population z.* has 3"):
        declare(nd.Feedback(stage, at="w"))
    with pytest.raises(ValueError, match=r"at='x' is where a live J is taken, and point is 'frozen'"):
        nd.Feedback(stage, "frozen", at="x")
    with pytest.raises(TypeError, match="at is the name of a population"):
        nd.Feedback(stage, at=1)  # type: ignore[arg-type]
    declare(nd.Feedback(nn.Linear(3, 3), "live"))  # whose Jacobian is the same everywhere


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: nd.Coupling(("u", "x"), "y"), "Identity takes one source"),
        (lambda: nd.Coupling(("u", "x"), "y", nd.Forward(nn.Tanh())), "Forward takes one source"),
        (lambda: nd.Coupling((), "y", nd.Pointwise(multiply)), "at least one source"),
        (lambda: nd.Coupling(("u", "u"), "y", nd.Pointwise(multiply)), "a source stands twice"),
        (lambda: nd.Coupling(cast(Any, ("u", 1)), "y", nd.Pointwise(multiply)), "names of populations, not int"),
        (
            lambda: nd.Coupling(("u", "x"), "y", nd.Pointwise(multiply, text="{}")),
            "must have a place {} for each source, here u, x",
        ),
        (lambda: nd.Coupling(("u", "x"), "y", nd.Pointwise(multiply, text="{} {} {}")), "a place {} for each"),
        (lambda: nd.Pointwise(nn.Tanh()), r"is nd.Forward\(module\)"),
        (lambda: nd.Pointwise(cast(Any, 1.0)), "a function of tensors, not float"),
        (
            lambda: nd.Network("n", [nd.Population("u", 3)], [nd.Coupling(("u", "v"), "u", nd.Pointwise(multiply))]),
            "there is no population 'v'",
        ),
        (
            lambda: nd.Network(
                "n",
                [nd.Population("u", 3), nd.Population("v", 2)],
                [nd.Coupling(("u", "v"), "u", nd.Pointwise(multiply))],
            ),
            "Pointwise takes sources of one shape, and these have 3, 2 units",
        ),
        (
            lambda: nd.Coupling("u", "x", nd.Pointwise(multiply)),
            r"coupling u → x: Pointwise is given one tensor for each source, 1 in all, and its function takes \(",
        ),
        (
            lambda: nd.Coupling(("u", "v"), "x", nd.Pointwise(lambda u: 2 * u)),
            r"2 in all, and its function takes \(u\)",
        ),
    ],
)
def test_sources_that_do_not_fit_are_refused(declare, message):
    with pytest.raises(nd.NeurodynError, match=message):
        declare()


def test_a_function_that_mixes_samples_is_refused():
    mixing = nd.Pointwise(lambda u, x: u * x.mean(0))
    network = nd.Network("n", [nd.Population(name, 3) for name in "uxy"], [nd.Coupling(("u", "x"), "y", mixing)])
    with pytest.raises(ValueError, match=r"coupling u, x → y: Pointwise.apply mixes samples"):
        nd.simulate(network, None, duration=1.0, initial={"u": tensor(2, 3), "x": tensor(2, 3, seed=3)})
