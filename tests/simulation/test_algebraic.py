"""Cycles of instantaneous populations, against root finding inside SciPy; prospective sources against closed forms."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import fsolve
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.system.fixed_point import FixedPoint
from tests.problems import Array, random, tensor

W1, W2, V = random(4, 3, seed=1, scale=0.5), random(2, 4, seed=2, scale=0.7), random(3, 3, seed=3, scale=0.6)
U = tensor(3, 3, seed=4)


def linear(weights: Array) -> nn.Linear:
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False, dtype=torch.float64)
    layer.weight.data = torch.tensor(weights)
    return layer


def cyclic(**settings: Any) -> nd.Network:
    """Three populations: a = tanh(V b) + u, b = x − 0.5 c, c = a + 0.1 b, dx/dt = −x + a."""
    return nd.Network(
        "cyclic",
        [
            nd.Population("u", 3, clamp=nd.Input()),
            nd.Population("x", 3),
            *(nd.Population(name, 3, tau=0.0) for name in "abc"),
            nd.Population("read", 3, tau=0.0),
        ],
        [
            nd.Coupling("u", "a"),
            nd.Coupling("b", "a", nd.Forward(nn.Sequential(linear(V), nn.Tanh()))),
            nd.Coupling("x", "b"),
            nd.Coupling("c", "b", gain=-0.5),
            nd.Coupling("a", "c"),
            nd.Coupling("b", "c", gain=0.1),
            nd.Coupling("a", "x"),
            nd.Coupling("c", "read", gain=2.0),
        ],
        **({"algebraic": "solve"} | settings),
    )


def agreed(x: Array, u: Array) -> tuple[Array, Array, Array]:
    def rest(b: Array) -> Array:
        return x - 0.5 * (np.tanh(V @ b) + u + 0.1 * b) - b

    b = fsolve(rest, x, xtol=1e-13)
    a = np.tanh(V @ b) + u
    return a, b, a + 0.1 * b


@pytest.mark.parametrize(
    ("solver", "within"),
    [(nd.RK4(0.05), 1e-6), (nd.Adaptive(rtol=1e-9, atol=1e-10), 1e-7), (nd.TorchDiffEq(rtol=1e-8, atol=1e-9), 1e-6)],
    ids=["fixed", "adaptive", "torchdiffeq"],
)
def test_a_cycle_is_solved_at_each_evaluation(solver, within):
    start = tensor(3, 3, seed=5)
    run = nd.simulate(cyclic(), U, duration=2.0, solver=solver, initial={"x": start}, save_at=[0.0, 1.0, 2.0])
    for sample in range(3):
        u = U[sample].numpy()
        path = solve_ivp(
            lambda t, x, u=u: -x + agreed(x, u)[0], (0, 2), start[sample], "DOP853", [1, 2], rtol=1e-9, atol=1e-10
        )
        np.testing.assert_allclose(run.x[1:, sample], path.y.T, atol=within)
    for time in range(3):
        for sample in range(3):
            a, b, c = agreed(run.x[time, sample].values, U[sample].numpy())
            for name, value in (("a", a), ("b", b), ("c", c), ("read", 2 * c)):
                np.testing.assert_allclose(run[name][time, sample], value, atol=1e-10)


def test_single_precision_and_the_default_solver():
    network = nd.Network(
        "linear",
        [nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2), *(nd.Population(n, 2, tau=0.0) for n in "ab")],
        [
            *(nd.Coupling("u", "a"), nd.Coupling("b", "a", gain=0.5)),
            *(nd.Coupling("x", "b"), nd.Coupling("a", "b", gain=-0.5), nd.Coupling("a", "x")),
        ],
        algebraic="solve",
    )
    run = nd.simulate(network, torch.ones(1, 2), duration=3.0)  # a = (u + x/2) / 1.25, and x tends to 4/3
    expected = 4 / 3 * (1 - np.exp(-0.6 * run.time))
    np.testing.assert_allclose(run.x[:, 0, 0], expected, atol=1e-3)
    np.testing.assert_allclose(run.a, (1 + run.x / 2).values / 1.25, rtol=1e-5)
    assert "Adaptive" in run.attrs["solver"]
    np.testing.assert_allclose(nd.equilibrium(network, torch.ones(1, 2)).x, 4 / 3, rtol=1e-5)


def test_samples_and_networks_do_not_mix():
    together = nd.simulate(cyclic(), U, duration=1.0, solver=nd.RK4(0.1))
    alone = nd.simulate(cyclic(), U[1:2], duration=1.0, solver=nd.RK4(0.1))
    np.testing.assert_allclose(together.a[:, 1:2], alone.a, atol=1e-10)
    other = cyclic()
    couplings = [*other.couplings[:3], nd.Coupling("c", "b", gain=-0.4), *other.couplings[4:]]
    other = nd.Network("cyclic", other.populations, couplings, algebraic="solve")
    stacked = nd.simulate([cyclic(), other], U, duration=1.0, solver=nd.RK4(0.1))
    np.testing.assert_allclose(stacked.a[0], together.a, atol=1e-10)
    np.testing.assert_allclose(stacked.a[1], nd.simulate(other, U, duration=1.0, solver=nd.RK4(0.1)).a, atol=1e-10)


def self_coupled(map_: nd.Map, gain: float = 1.0) -> nd.Network:
    return nd.Network(
        "self",
        [nd.Population("x", 1), nd.Population("z", 1, tau=0.0)],
        [nd.Coupling("x", "z"), nd.Coupling("z", "z", map_, gain), nd.Coupling("z", "x")],
        algebraic="solve",
    )


@pytest.mark.parametrize(
    ("network", "start", "message"),
    [
        (self_coupled(nd.Forward(nn.Tanh()), 3.0), 0.0, "z has several solutions"),
        (self_coupled(nd.Identity()), 1.0, "z has no solution"),
        (self_coupled(nd.Identity()), 0.0, "z has several solutions"),
        (self_coupled(nd.Pointwise(torch.exp)), 1.0, "z has no solution"),
    ],
    ids=["several", "none", "all", "none nearby"],
)
def test_none_and_several_solutions_are_refused(network, start, message):
    with pytest.raises(ValueError, match=message):
        nd.simulate(network, None, duration=1.0, initial={"x": torch.full((1, 1), start)}, solver=nd.RK4(0.1))


def test_a_second_solution_far_away_is_found_too():
    """The cycle z = x + z²/5 has two at x = 0, of which iterations from 0 find the one at 0."""
    network = self_coupled(nd.Pointwise(torch.square), 0.2)
    with pytest.raises(ValueError, match="z has several solutions"):
        nd.simulate(network, None, duration=1.0, initial={"x": torch.zeros(1, 1)}, solver=nd.RK4(0.05))


@pytest.mark.parametrize(
    ("map_", "start"),
    [
        (nd.Pointwise(lambda z: -10 * torch.sigmoid(-50 * (z + 5))), 0.0),
        (nd.Pointwise(lambda z: 10 * torch.sigmoid(50 * (z - 5))), 0.0),
        (nd.Pointwise(lambda z: 3 * torch.tanh(z)), 5.0),
    ],
    ids=["below", "above", "later in the run"],
)
def test_solutions_are_looked_for_on_both_sides_and_as_the_run_goes_on(map_, start):
    populations = [nd.Population("x", 1, initial=start), nd.Population("z", 1, tau=0.0)]
    network = nd.Network("z", populations, [nd.Coupling("x", "z"), nd.Coupling("z", "z", map_)], algebraic="solve")
    with pytest.raises(ValueError, match="z has several solutions"):
        nd.simulate(network, None, duration=4.0, solver=nd.RK4(0.1))


def alone(layer: nn.Module) -> nd.Network:
    """Return the network z = u + g(z), in which nothing is dynamic."""
    populations = [nd.Population("u", 1, clamp=nd.Input()), nd.Population("z", 1, tau=0.0)]
    couplings = [nd.Coupling("u", "z"), nd.Coupling("z", "z", nd.Forward(nd.Stage([layer, nn.Tanh()])))]
    return nd.Network("z", populations, couplings, algebraic="solve")


def test_the_equilibrium_of_a_cycle_alone_is_its_solution():
    found = nd.equilibrium(alone(linear(np.array([[0.3]]))), tensor(1, 1))
    u, z = tensor(1, 1).item(), found.z.item()
    np.testing.assert_allclose(z, fsolve(lambda z: u + np.tanh(0.3 * z) - z, 0.0)[0], rtol=1e-9)


@pytest.mark.parametrize("run", [nd.equilibrium, lambda *given: nd.simulate(*given, duration=1.0)])
def test_what_a_hook_makes_steep_is_not_taken_to_contract(run):
    layer = linear(np.array([[0.3]]))
    layer.register_forward_hook(lambda module, given, value: 10.0 * value)
    with pytest.raises(ValueError, match="z has several solutions"):
        run(alone(layer), torch.zeros(1, 1, dtype=torch.float64))


def test_what_contracts_is_proven_to_have_one_solution(monkeypatch):
    def fail(*_: Any) -> None:
        raise AssertionError("others are looked for")

    monkeypatch.setattr(FixedPoint, "_beside", fail)
    weights = random(20, 20, seed=1, scale=0.15)
    gain = 0.9 / float(np.abs(np.linalg.eigvals(np.abs(weights))).max())
    for factor in (1.0, -1.0):
        map_ = nd.Forward(nn.Sequential(linear(weights), nn.Tanh()))
        populations = [nd.Population("x", 20, initial=1.0), nd.Population("z", 20, tau=0.0)]
        couplings = [nd.Coupling("x", "z"), nd.Coupling("z", "z", map_, factor * gain)]
        network = nd.Network("z", populations, couplings, algebraic="solve")
        run = nd.simulate(network, None, duration=0.2, solver=nd.RK4(0.1), initial={"x": tensor(1, 20)})
        z = run.z.values[-1, 0]
        np.testing.assert_allclose(z, run.x.values[-1, 0] + factor * gain * np.tanh(weights @ z), atol=1e-10)


@pytest.mark.parametrize("sources", [("x", "z"), ("z", "x")])
def test_a_cycle_may_be_closed_by_a_map_that_reads_other_populations_too(sources):
    populations = [nd.Population("x", 2, initial=1.0), nd.Population("z", 2, tau=0.0)]
    closing = nd.Coupling(sources, "z", nd.Pointwise(lambda a, b: torch.cos(a + b)), gain=0.5)
    network = nd.Network("z", populations, [closing], algebraic="solve")
    run = nd.simulate(network, None, duration=0.2, solver=nd.RK4(0.1), initial={"x": tensor(3, 2)})
    np.testing.assert_allclose(run.z, 0.5 * np.cos(run.x + run.z.values), atol=1e-12)


def feedforward(rate: Any) -> nd.Network:
    """Two layers whose rates φ read their potentials, or what these are about to be."""
    return nd.Network(
        "layers",
        [nd.Population("i", 3, clamp=nd.Input()), nd.Population("u", 4, tau=5.0), nd.Population("v", 2, tau=5.0)],
        [
            nd.Coupling("i", "u", nd.Forward(linear(W1))),
            nd.Coupling(rate("u"), "v", nd.Forward(nn.Sequential(nn.Tanh(), linear(W2)))),
        ],
        observables=[],
    )


def wave(t: float) -> Tensor:
    return torch.sin(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) * t)


def test_prospective_activity_does_not_lag():
    """The prospective activity is W₁ i(t) at every moment, and v follows W₂ tanh(W₁ i(t)) alone."""
    network = feedforward(nd.Prospective)
    times = np.array([0.5, 1.0, 3.0])
    run = nd.simulate(network, wave, duration=3.0, solver=nd.Adaptive(rtol=1e-9, atol=1e-10), save_at=times)
    inputs = np.stack([wave(t).numpy() for t in times])
    np.testing.assert_allclose(run.u_prospective[:, 0], inputs @ W1.T, atol=1e-9)
    path = solve_ivp(
        lambda t, v: (-v + W2 @ np.tanh(W1 @ wave(t).numpy())) / 5,
        (0, 3),
        np.zeros(2),
        "DOP853",
        times,
        rtol=1e-10,
        atol=1e-12,
    )
    np.testing.assert_allclose(run.v[:, 0], path.y.T, atol=1e-8)
    lagging = nd.simulate(feedforward(str), wave, duration=3.0, save_at=times)
    assert float(abs(lagging.v - run.v).max()) > 0.05
    assert network.equations().splitlines()[2:] == [
        "5 dv/dt = −v + (Linear∘Tanh)(u + τ du/dt)",
        "u_prospective = u + 5 du/dt",
    ]
    assert "+1 · (Linear∘Tanh)(u + τ du/dt)" in str(network)


@pytest.mark.parametrize("leak", [1.0, 0.3, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)])
def test_prospective_activity_is_u_plus_its_slope(leak):
    """Against differences of a finely recorded run, whatever the leak, with delays and gains."""
    network = nd.Network(
        "u",
        [nd.Population("i", 3, clamp=nd.Input()), nd.Population("u", 3, tau=0.7, leak=leak), nd.Population("v", 3)],
        [
            nd.Coupling("i", "u", gain=2.0),
            nd.Coupling("u", "u", nd.Forward(nn.Tanh()), gain=-0.5, delay=0.2),
            nd.Coupling(("i", nd.Prospective("u")), "v", nd.Pointwise(lambda i, p: i * p, text="{} {}")),
        ],
    )
    run = nd.simulate(network, U, duration=2.0, solver=nd.RK4(0.005))
    slope = (run.u.values[2:] - run.u.values[:-2]) / 0.01
    inner = run.u_prospective.values[1:-1]
    smooth = np.abs(run.time.values[1:-1] % 0.2 - 0.1) < 0.09
    np.testing.assert_allclose(inner[smooth], (run.u.values[1:-1] + 0.7 * slope)[smooth], atol=1e-3)
    assert network.equations().splitlines()[2] == "dv/dt = −v + i (u + τ du/dt)"


def latent_equilibrium() -> nd.Network:
    """Haider et al. 2021: potentials whose prospective values are at the minimum of an energy for the present input."""
    stage = nd.Stage(nn.Sequential(nn.Tanh(), linear(W2)))
    p1, p2 = nd.Prospective("u1"), nd.Prospective("u2")
    return nd.Network(
        "latent equilibrium",
        [
            *(nd.Population("i", 3, clamp=nd.Input()), nd.Population("t", 2, clamp=nd.Target())),
            *(nd.Population("u1", 4, tau=5.0), nd.Population("u2", 2, tau=5.0), nd.Population("e", 2, tau=0.0)),
        ],
        [
            nd.Coupling("i", "u1", nd.Forward(linear(W1))),
            nd.Coupling("e", "u1", nd.Feedback(stage, at=p1)),
            nd.Coupling(p1, "u2", nd.Forward(stage)),
            *(nd.Coupling("t", "u2", gain=0.3), nd.Coupling(p2, "u2", gain=-0.3)),
            *(nd.Coupling(p2, "e"), nd.Coupling(p1, "e", nd.Forward(stage), gain=-1.0)),
        ],
        algebraic="solve",
    )


def test_latent_equilibrium_is_at_the_minimum_of_its_energy_at_all_times():
    network, target = latent_equilibrium(), tensor(1, 2, seed=6)
    times = np.array([0.0, 0.4, 1.7])
    run = nd.simulate(network, wave, target, duration=2.0, save_at=times, solver=nd.Adaptive(rtol=1e-7, atol=1e-8))
    for place, time in enumerate(times):

        def gradient(p: Array, time: float = time) -> Array:
            p1, p2 = torch.tensor(p[:4], requires_grad=True), torch.tensor(p[4:], requires_grad=True)
            energy = 0.5 * (p1 - torch.tensor(W1) @ wave(time)).square().sum()
            energy = energy + 0.5 * (p2 - torch.tensor(W2) @ torch.tanh(p1)).square().sum()
            energy = energy + 0.15 * (p2 - target[0]).square().sum()
            return torch.cat(torch.autograd.grad(energy, [p1, p2])).numpy()

        found = np.concatenate([run.u1_prospective[place, 0], run.u2_prospective[place, 0]])
        np.testing.assert_allclose(gradient(found), 0.0, atol=1e-10)
    assert "u1_prospective, u2_prospective form a cycle" in network.equations()


def test_a_cycle_without_leave_is_refused_with_its_couplings():
    message = r"form a cycle.*remove one of the couplings .*or say Network\(algebraic='solve'\)"
    with pytest.raises(ValueError, match=message):
        cyclic(algebraic=None)


def stage_learner(**settings: Any) -> nd.Network:
    network = cyclic()
    return nd.Network("learner", network.populations, network.couplings, algebraic="solve", **settings)


def prospective(populations: list[nd.Population], name: str = "u", **settings: Any) -> nd.Network:
    return nd.Network("n", [*populations, nd.Population("v", 3)], [nd.Coupling(nd.Prospective(name), "v", **settings)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cyclic(algebraic="yes"), "algebraic is 'solve', or None"),
        (lambda: nd.Prospective(cast(Any, 1)), "Prospective: the name of a population, not int"),
        (lambda: prospective([nd.Population("u", 3)], "w"), "population 'w': there is no such population"),
        (lambda: prospective([nd.Population("u", 3, noise=0.1)]), "population 'u': it has noise"),
        (lambda: prospective([nd.Population("u", 3, bounds=(0.0, 1.0))]), "population 'u': it has bounds"),
        (lambda: prospective([nd.Population("u", 3, tau=0.0)]), "population 'u': it is instantaneous"),
        (lambda: prospective([nd.Population("u", 3, clamp=nd.Input())]), "population 'u': it is clamped"),
        (lambda: prospective([nd.Population("u")]), "population 'u': its size is unknown"),
        (
            lambda: prospective([nd.Population("u", 3), nd.Population("u_prospective", 3)]),
            "two populations are called 'u_prospective'",
        ),
        (lambda: nd.simulate(cyclic(), U, duration=1.0, solver=nd.Exact()), "a closed form takes none"),
        (lambda: nd.infer(stage_learner(inference=nd.Inference(0.1, 2)), U), "discrete inference takes none"),
        (
            lambda: nd.simulate(cyclic(), U, duration=9.0, solver=nd.Euler(0.1, compile=True), save_at=[9.0]),
            "compile takes none",
        ),
        (
            lambda: nd.simulate(
                nd.Network(
                    "late",
                    cyclic().populations,
                    [*cyclic().couplings, nd.Coupling("c", "x", delay=1.0)],
                    algebraic="solve",
                ),
                U,
                duration=1.0,
            ),
            "population c is read with a delay, and is solved for in a cycle",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(nd.NeurodynError, match=message):
        call()


def test_prospective_sources_in_linear_networks_have_a_closed_form():
    network = nd.Network(
        "linear",
        [nd.Population("i", 3, clamp=nd.Input()), nd.Population("u", 3), nd.Population("v", 3)],
        [nd.Coupling("i", "u"), nd.Coupling(nd.Prospective("u"), "v")],
    )
    run = nd.simulate(network, U, duration=2.0, save_at=[2.0])
    assert "Exact" in run.attrs["solver"]
    np.testing.assert_allclose(run.v[0], U.numpy() * (1 - np.exp(-2.0)), atol=1e-12)
    np.testing.assert_allclose(nd.equilibrium(network, U).v, U)
    two = nd.simulate([network, feed(network)], U, duration=2.0, save_at=[2.0])
    np.testing.assert_allclose(two.v[1, 0], nd.simulate(feed(network), U, duration=2.0, save_at=[2.0]).v[0], atol=1e-12)


def feed(network: nd.Network) -> nd.Network:
    return nd.Network(
        "linear",
        [nd.Population("i", 3, clamp=nd.Input()), nd.Population("u", 3, tau=2.0), nd.Population("v", 3)],
        [nd.Coupling("i", "u", gain=0.5), nd.Coupling(nd.Prospective("u"), "v")],
    )
