"""Noise: statistics in closed form, strong order, and paths that nothing but the seed and the time changes."""

from typing import Any

import numpy as np
import pytest
import torch

import neurodyn as nd
from neurodyn.system import noise
from tests.problems import tensor

DOUBLE = torch.zeros(1, dtype=torch.float64)


def wiener(units: int = 1, sigma: Any = 1.0) -> nd.Network:
    return nd.Network("Wiener", [nd.Population("x", units, leak=0.0, noise=sigma)])


def bistable(**settings: Any) -> nd.Network:
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("x", 3, tau=0.7, noise=0.5, **settings),
        nd.Population("y", 3, noise=0.2),
    ]
    couplings = [
        nd.Coupling("u", "x"),
        nd.Coupling("x", "x", nd.Pointwise(lambda x: 2 * torch.sin(3 * x), text="2 sin(3 {})")),
        nd.Coupling("x", "y", nd.Pointwise(torch.tanh)),
    ]
    return nd.Network("bistable", populations, couplings)


U = tensor(4, 3)
JUMPS = nd.Signal([0.0, 0.33, 0.8, 10.0], np.array([0.0, 1.0, -1.0, 0.0]), "previous")


def run(data: Any = U, duration: float = 2.0, solver: nd.Solver | None = None, **settings: Any) -> Any:
    settings = {"seed": 3} | settings
    return nd.simulate(bistable(), data, duration=duration, solver=solver or nd.Euler(0.1), **settings)


def test_an_ornstein_uhlenbeck_process_has_its_variance_and_correlation():
    tau, sigma, step = 0.5, 0.4, 0.02
    ou = nd.Network("OU", [nd.Population("x", 400, tau=tau, noise=sigma)])
    trajectory = nd.simulate(ou, None, duration=10.0, solver=nd.Heun(step), seed=0).x.values[150:, 0]
    np.testing.assert_allclose(trajectory.var(), sigma**2 * tau / 2, rtol=0.05)
    lagged = np.corrcoef(trajectory[:-25].ravel(), trajectory[25:].ravel())[0, 1]
    np.testing.assert_allclose(lagged, np.exp(-25 * step / tau), atol=0.03)


def test_a_path_is_proportional_to_its_sigma():
    start = {"x": torch.zeros(1, 1, dtype=torch.float64)}
    whole, third = (
        nd.simulate(wiener(sigma=sigma), None, duration=1.0, initial=start, solver=nd.Euler(0.1), seed=1).x
        for sigma in (1.0, 0.3)  # which single precision does not hold
    )
    np.testing.assert_allclose(third, 0.3 * whole, rtol=1e-14)


def test_increments_are_independent_and_normal():
    path = nd.simulate(wiener(2000), None, duration=1.6, solver=nd.Euler(0.1), seed=1).x.values[:, 0]
    gains = np.diff(path, axis=0) / np.sqrt(0.1)
    np.testing.assert_allclose([gains.mean(), gains.var(), (gains**4).mean()], [0, 1, 3], atol=0.1)
    overlaps = np.corrcoef(gains) - np.eye(16)  # neighbours, whether or not they share a cell
    assert np.abs(overlaps).max() < 0.1
    assert np.abs(np.corrcoef(gains.T[:50]) - np.eye(50)).max() < 0.99


@pytest.mark.parametrize("solver", [nd.Euler, nd.Heun])
def test_the_strong_order_is_one(solver):
    ends = {
        step: run(duration=1.0, solver=solver(step), save_at=[1.0], initial={"x": U}).x.values
        for step in (0.1, 0.05, 0.025, 0.1 / 64)
    }
    fine = ends.pop(0.1 / 64)
    errors = [np.sqrt(np.square(end - fine).mean()) for end in ends.values()]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (orders > 0.8).all()


def test_half_the_step_refines_the_path():
    start = {"x": torch.zeros(2, 1, dtype=torch.float64)}
    coarse = nd.simulate(wiener(), None, duration=1.0, solver=nd.Euler(0.1), seed=1, initial=start)
    for step in (0.05, 0.0125):
        fine = nd.simulate(
            wiener(), None, duration=1.0, solver=nd.Euler(step), seed=1, initial=start, save_at=coarse.time.values
        )
        np.testing.assert_allclose(fine.x, coarse.x, atol=1e-12)


def test_neither_save_points_nor_cuts_nor_records_change_the_path():
    whole = run(JUMPS, initial={"x": U})
    for settings in ({"save_at": [0.05, 0.5, 1.0, 2.0]}, {"record": ["x"], "save_at": [2.0]}):
        np.testing.assert_allclose(run(JUMPS, initial={"x": U}, **settings).x[-1], whole.x[-1], atol=1e-12)
    start = {"x": torch.zeros(2, 1, dtype=torch.float64)}
    grid = nd.simulate(wiener(), None, duration=1.0, solver=nd.Euler(0.1), seed=1, initial=start)
    driven = nd.Network("cut", [nd.Population("u", 1, clamp=nd.Input()), *wiener().populations])
    cut = nd.simulate(driven, JUMPS, duration=1.0, solver=nd.Euler(0.1), seed=1, initial=start)
    assert cut.sizes["time"] == grid.sizes["time"] + 1  # at 0.33
    np.testing.assert_allclose(cut.x.sel(time=grid.time, method="nearest"), grid.x, atol=1e-6)
    # between the steps, it is that of finer ones
    between = nd.simulate(
        wiener(), None, duration=1.0, solver=nd.Euler(0.1), seed=1, initial=start, save_at=[0.125, 0.475]
    )
    fine = nd.simulate(
        wiener(), None, duration=1.0, solver=nd.Euler(0.0125), seed=1, initial=start, save_at=[0.125, 0.475]
    )
    np.testing.assert_allclose(between.x, fine.x, atol=1e-6)


def test_a_path_within_a_step_does_not_depend_on_how_many_numbers_are_drawn_at_once(monkeypatch):
    def within() -> Any:
        start = {"x": torch.zeros(2, 3)}
        times = [0.1234, 0.5, 0.98765]
        return nd.simulate(
            wiener(3), None, duration=1.0, initial=start, seed=[1, 2], solver=nd.Euler(0.1), save_at=times
        )

    whole = within()
    for most in (1, 50):
        monkeypatch.setattr(noise, "_MOST_TOGETHER", most)
        np.testing.assert_allclose(within().x, whole.x, rtol=1e-6)


def test_a_path_survives_an_interruption():
    for solver in (nd.Euler(0.1), nd.Heun(0.1)):
        whole, first = run(solver=solver), run(duration=0.7, solver=solver)
        then = run(duration=1.3, solver=solver, initial=first.isel(time=-1))
        np.testing.assert_allclose(then.x[-1], whole.x[-1], atol=1e-10)
    assert whole.attrs["seed"] == 3


def test_a_sample_draws_from_the_seed_and_its_place_alone():
    both = run()
    np.testing.assert_allclose(run(U[:2]).x, both.x[:, :2], atol=1e-12)
    assert np.abs(run(U[:1].expand(4, 3)).x[-1].std("sample")).min() > 1e-3
    own = run(seed=[5, 6, 7, 8])
    np.testing.assert_allclose(run(U[2:3], seed=[7]).x[:, 0], own.x[:, 2], atol=1e-12)
    assert float(np.abs(run(seed=4).x - both.x).max()) > 0.01
    again = nd.simulate(bistable(), U, duration=1.0, solver=nd.Euler(0.1))
    same = nd.simulate(bistable(), U, duration=1.0, solver=nd.Euler(0.1), seed=again.attrs["seed"])
    np.testing.assert_array_equal(again.x, same.x)


def test_a_unit_draws_from_its_population_alone():
    alone = nd.Network("alone", [nd.Population("y", 3, noise=0.2)])
    with_x = nd.Network("both", [nd.Population("x", 3, noise=0.5), nd.Population("y", 3, noise=0.2)])
    settings: dict[str, Any] = {"duration": 1.0, "solver": nd.Euler(0.1), "seed": 0, "initial": {"y": tensor(2, 3)}}
    np.testing.assert_array_equal(nd.simulate(alone, None, **settings).y, nd.simulate(with_x, None, **settings).y)


def test_stacked_networks_share_the_paths_unless_given_seeds_each():
    networks = [bistable(), bistable()]
    networks[1] = nd.Network("bistable", networks[0].populations, networks[0].couplings)
    networks[0] = nd.Network("bistable", networks[0].populations, networks[0].couplings)
    settings: dict[str, Any] = {"duration": 1.0, "solver": nd.Euler(0.1)}
    shared = nd.simulate(networks, U, seed=3, **settings)
    for place in (0, 1):
        np.testing.assert_allclose(shared.x[place], run(duration=1.0).x, atol=1e-12)
    apart = nd.simulate(networks, U, seed=[[1, 2, 3, 4], [5, 6, 7, 8]], **settings)
    np.testing.assert_allclose(apart.x[1], run(duration=1.0, seed=[5, 6, 7, 8]).x, atol=1e-12)


def test_sigma_may_be_one_for_each_unit():
    sigma = torch.tensor([0.0, 1.0, 2.0])
    path = nd.simulate(wiener(3, sigma), None, duration=1.0, solver=nd.Euler(0.1), seed=1).x.values[-1, 0]
    each = nd.simulate(wiener(3), None, duration=1.0, solver=nd.Euler(0.1), seed=1).x.values[-1, 0]
    np.testing.assert_allclose(path, sigma.numpy() * each, rtol=1e-5)
    assert wiener(3, sigma).equations() == "dx/dt = 0        ([0 … 2] dW added to dx)"


def test_noisy_drives_draw_from_the_seed():
    noisy = nd.Network("frozen", [nd.Population("u", 3, clamp=nd.Noisy(nd.Input(), 1.0))])
    torch.manual_seed(0)
    first, second, other = (
        nd.simulate(noisy, U, duration=1.0, solver=nd.Euler(0.5), seed=seed, record="u").u for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert float(np.abs(first - other).max()) > 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nd.Population("x", 3, noise=-0.1), "noise must be ≥ 0"),
        (lambda: nd.Population("x", 3, tau=0.0, noise=0.1), "it is instantaneous, and noise enters"),
        (lambda: nd.Population("x", 3, clamp=nd.Input(), noise=0.1), "it is clamped, and noise enters"),
        (lambda: nd.simulate(bistable(), U, duration=1.0), "under which no step can be chosen for you"),
        (lambda: run(solver=nd.RK4(0.1)), r"which RK4\(step=0.1\) does not integrate; give nd.Euler"),
        (lambda: run(solver=nd.Adaptive()), "Adaptive.* does not integrate"),
        (lambda: run(solver=nd.TorchDiffEq()), "TorchDiffEq.* does not integrate"),
        (lambda: nd.simulate(wiener(), None, duration=1.0, solver=nd.Exact()), "Exact.* does not integrate"),
        (lambda: run(solver=nd.Euler(0.01, compile=True), save_at=[1.0]), "compile: noise is drawn between the steps"),
        (lambda: run(solver=nd.Euler(2000.0), duration=4000.0), "2000 is too long for noise"),
        (lambda: nd.equilibrium(bistable(), U), "population x has noise, and an equilibrium takes none"),
        (lambda: run(seed=-1), "seed must be an integer ≥ 0"),
        (lambda: run(seed=torch.zeros(3, dtype=torch.long, device="meta")), "seed must be an integer ≥ 0"),
        (lambda: run(seed=1.5), "seed must be an integer ≥ 0"),
        (lambda: run(seed="x"), "seed must be an integer ≥ 0"),
        (lambda: run(seed=True), "seed must be an integer ≥ 0"),
        (lambda: run(seed=[1, 2]), r"seed has the shape \(2,\), and the run 4 samples"),
        (lambda: run(seed=[1, 2, 3, -1]), "seed must be an integer ≥ 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(nd.NeurodynError, match=message):
        call()
