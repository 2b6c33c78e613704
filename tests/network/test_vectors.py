"""Time constants, leaks, gains and starts that every unit has of its own, against the equations written by hand."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

import neurodyn as nd
from tests.problems import Array, random, tensor

TAU, LEAK, GAIN, START = (np.abs(random(3, seed=seed)) + 0.3 for seed in range(4))


def _population(**numbers: Any) -> nd.Population:
    return nd.Population("a", 3, **numbers)


WEIGHTS = random(3, 3, seed=5, scale=0.4)
U = random(2, 3, seed=6)


def network(*, linear: bool = False, cyclic: bool = True, scale: float = 1.0, **own: Any) -> nd.Network:
    """Return τ dx/dt = −leak x + gain ⊙ (u + e), and y driven by x, with an instantaneous e = (y − x) / leak."""
    layer = nn.Linear(3, 3, bias=False).double()
    layer.weight.data = torch.tensor(WEIGHTS)
    numbers = {"tau": TAU, "leak": LEAK, "gain": GAIN * scale, "start": START} | own
    tau, leak, gain, start = (torch.as_tensor(value) for value in numbers.values())
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("x", 3, tau, leak, initial=start),
        nd.Population("e", 3, 0.0, leak),
        nd.Population("y", 3, 0.5),
    ]
    through = layer if linear else nn.Sequential(layer, nn.Tanh())
    couplings = [
        nd.Coupling("u", "x", gain=gain),
        *([nd.Coupling("e", "x", gain=-gain)] if cyclic else []),
        nd.Coupling("x", "e"),
        nd.Coupling("u", "e", gain=-0.5),
        nd.Coupling("e", "y", nd.Forward(through), gain=gain),
    ]
    return nd.Network("vectors", populations, couplings)


def reference(duration: float, *, linear: bool = False, cyclic: bool = True, scale: float = 1.0) -> dict[str, Array]:
    f = (lambda x: x) if linear else np.tanh
    gain = GAIN * scale

    def slope(_: float, flat: Array) -> Array:
        x, y = flat.reshape(2, 2, 3)
        e = (x - 0.5 * U) / LEAK
        dx = (-LEAK * x + gain * U - cyclic * gain * e) / TAU
        return np.concatenate([dx, 2 * (-y + gain * f(e @ WEIGHTS.T))], axis=None)

    start = np.concatenate([np.broadcast_to(START, (2, 3)), np.zeros((2, 3))], axis=None)
    found = solve_ivp(slope, (0.0, duration), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    return dict(zip("xy", found.reshape(2, 2, 3), strict=True))


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [
        (nd.Euler(1e-3), 2e-3),
        (nd.RK4(0.02), 1e-5),
        (nd.Adaptive(rtol=1e-8, atol=1e-9), 1e-6),
        (nd.Stabilized(rtol=1e-5, atol=1e-7), 1e-4),
        (nd.TorchDiffEq(rtol=1e-8, atol=1e-9), 1e-6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_solver_takes_them(solver, tolerance):
    run = nd.simulate(network(), torch.tensor(U), duration=1.0, solver=solver, save_at=[1.0])
    for name, value in reference(1.0).items():
        np.testing.assert_allclose(run[name][0], value, atol=tolerance)


@pytest.mark.parametrize("cyclic", [False, True])
def test_linear_networks_keep_their_closed_form(cyclic):
    run = nd.simulate(network(linear=True, cyclic=cyclic), torch.tensor(U), duration=1.0, save_at=[1.0])
    assert "Exact" in run.attrs["solver"]
    for name, value in reference(1.0, linear=True, cyclic=cyclic).items():
        np.testing.assert_allclose(run[name][0], value, atol=1e-8)


def test_gains_and_starts_stay_in_the_nilpotent_form(monkeypatch):
    monkeypatch.setattr("neurodyn.solvers.exact.krylov", None)
    gain, start = tensor(3), tensor(3, seed=2)
    populations = [nd.Population("a", 3, initial=start), nd.Population("b", 3)]
    chain = nd.Network("chain", populations, [nd.Coupling("a", "b", gain=gain)])
    run = nd.simulate(chain, None, duration=2.0, save_at=[2.0])
    np.testing.assert_allclose(run.b[0, 0], 2.0 * np.exp(-2.0) * (gain * start).numpy(), atol=1e-12)


def test_equilibria_are_those_of_the_equations():
    for linear in (False, True):
        found = nd.equilibrium(network(linear=linear), torch.tensor(U))
        e = (found.x.values - 0.5 * U) / LEAK
        np.testing.assert_allclose(found.e, e, atol=1e-10)
        np.testing.assert_allclose(LEAK * found.x, GAIN * (U - e), atol=1e-6)
        assert found.attrs["stable"]


def test_stacked_networks_differ_in_them():
    networks = [network(scale=scale) for scale in (1.0, 0.5)]
    both = nd.simulate(networks, torch.tensor(U), duration=1.0, solver=nd.RK4(0.02), save_at=[1.0])
    for place, scale in enumerate((1.0, 0.5)):
        for name, value in reference(1.0, scale=scale).items():
            np.testing.assert_allclose(both[name].isel(network=place, time=0), value, atol=1e-5)
    others = [network(), network(tau=2 * TAU, leak=LEAK + 0.1), network(tau=np.full(3, 0.7), leak=np.ones(3))]
    settings: dict[str, Any] = {"duration": 1.0, "solver": nd.RK4(0.02), "save_at": [1.0]}
    together = nd.simulate(others, torch.tensor(U), **settings)
    for place, each in enumerate(others):
        alone = nd.simulate(each, torch.tensor(U), **settings)
        np.testing.assert_allclose(together.y.isel(network=place), alone.y, atol=1e-12)


def test_an_unequal_gain_is_no_gradient_flow():
    def pair(gain: object) -> nd.Network:
        populations = [nd.Population(name, 3) for name in "ab"]
        both = [nd.Coupling("a", "b", gain=gain), nd.Coupling("b", "a", gain=gain)]  # type: ignore[arg-type]
        return nd.Network("pair", populations, both)

    initial = {"a": torch.ones(3).double()}
    flows = [nd.System(pair(gain), initial=initial).structure.gradient_flow for gain in (0.5, torch.tensor(GAIN))]
    assert flows == [True, False]
    assert nd.System(pair(torch.full((3,), 0.5).double())).structure.gradient_flow


def test_declarations_compare_by_value():
    one, same, other = (nd.Population("x", 3, tau=torch.tensor(value)) for value in (TAU, TAU.copy(), TAU + 1))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert nd.Population("x", 3, tau=torch.full((3,), 2.0)) == nd.Population("x", 3, tau=2.0)
    gains = [nd.Coupling("a", "b", gain=torch.tensor(value)) for value in (GAIN, GAIN.copy(), GAIN + 1)]
    assert (gains[0] == gains[1], gains[0] == gains[2]) == (True, False)


def test_they_are_printed_as_ranges():
    low, high = f"{GAIN.min():g}", f"{GAIN.max():g}"
    line = network().equations().splitlines()[1]
    assert line.startswith(f"[{TAU.min():g} … {TAU.max():g}] dx/dt = −[{LEAK.min():g} … {LEAK.max():g}] x + ")
    assert f"+ [{low} … {high}] u − [{low} … {high}] e" in line
    assert f"from [{START.min():g} … {START.max():g}]" in str(network())


def test_a_trajectory_is_kept_in_files(tmp_path):
    run = nd.simulate(network(), torch.tensor(U), duration=0.2, solver=nd.RK4(0.1))
    nd.save(run, tmp_path / "run.nc")
    assert nd.load(tmp_path / "run.nc").identical(run)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: nd.Population("x", 3, tau=torch.ones(2)), r"tau has the shape \(2,\), and the population \(3,\)"),
        (lambda: nd.Population("x", tau=torch.ones(2)), "their number is unknown; declare size="),
        (lambda: nd.Population("x", 2, tau=torch.tensor([1.0, -1.0])), r"tau must be ≥ 0, not \[-1 … 1\]"),
        (lambda: nd.Population("x", 2, tau=torch.tensor([1.0, 0.0])), "tau is 0 for some units"),
        (lambda: nd.Population("x", 2, tau=0.0, leak=torch.tensor([1.0, 0.0])), "needs a leak > 0"),
        (lambda: nd.Population("x", 2, leak=torch.tensor([1.0, np.nan])), "leak must be finite"),
        (lambda: nd.Population("x", 2, initial=torch.tensor([1, 2])), "a floating-point tensor"),
        (lambda: nd.Coupling("a", "b", gain=torch.zeros(3)), "must be finite and not 0"),
        *((partial(_population, **{what: nd.Input()}), f"{what}.*not Input") for what in ("tau", "leak", "noise")),
        (
            lambda: nd.Network(
                "n",
                [nd.Population("a", 3), nd.Population("b", 3)],
                [nd.Coupling("a", "b", gain=torch.ones(2))],
            ),
            r"its gain has the shape \(2,\).*population b has 3 units",
        ),
        (
            lambda: nd.simulate(
                nd.Network("n", [nd.Population("a", 3, torch.tensor(TAU))]),
                None,
                duration=1.0,
                initial={"a": torch.ones(3)},
            ),
            "initial value of population a is torch.float32 and tau of population a torch.float64",
        ),
    ],
)
def test_what_does_not_fit_is_refused(declare, message):
    with pytest.raises(nd.NeurodynError, match=message):
        declare()
