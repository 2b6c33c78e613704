"""Delays: polynomials of the method of steps, SciPy step by step, orders of convergence, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

import neurodyn as nd
from neurodyn.solvers.base import Unrecorded
from neurodyn.solvers.tableaux import RK4, TSIT5
from tests.problems import Array, random, tensor

W = random(3, 3, seed=1)
U = tensor(2, 3, seed=2)
START = {"x": tensor(2, 3, seed=3), "y": tensor(2, 3, seed=4)}


def echo(delay: float = 1.0, gain: float = -1.0) -> nd.Network:
    """dx/dt = gain · x(t − delay)."""
    return nd.Network(
        "echo", [nd.Population("x", 1, leak=0.0, initial=1.0)], [nd.Coupling("x", "x", gain=gain, delay=delay)]
    )


ONE = {"x": torch.ones(1, 1, dtype=torch.float64)}


def by_steps(times: Any) -> Array:
    """x(t) of dx/dt = −x(t − 1), x = 1 before: a polynomial on each unit of time."""
    return np.array(
        [sum((-1) ** k * (t - (k - 1)) ** k / math.factorial(k) for k in range(math.floor(t) + 2)) for t in times]
    )


def recurrent(**settings: Any) -> nd.Network:
    """Two delays, one of a source of two, and an instantaneous population that is read with and without a delay."""
    layer = nn.Linear(3, 3, bias=False, dtype=torch.float64)
    layer.weight.data = torch.tensor(W)
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("x", 3, tau=0.8, **settings),
        nd.Population("y", 3, leak=0.5),
        nd.Population("r", 3, tau=0.0),
    ]
    couplings = [
        nd.Coupling("u", "x"),
        nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), layer)), delay=0.7),
        nd.Coupling("x", "r", nd.Forward(nn.Tanh())),
        nd.Coupling("y", "r", gain=0.3, delay=0.25),
        nd.Coupling("r", "y", delay=1.1),
        nd.Coupling("r", "x", gain=-0.5),
        nd.Coupling(("x", "y"), "y", nd.Pointwise(lambda x, y: x * y, text="{} {}"), gain=-0.2, delay=0.7),
    ]
    return nd.Network("recurrent", populations, couplings)


DELAYS = (0.7, 0.25, 1.1, 1.1 + 0.25)


def stepwise(
    rhs: Callable[[float, Array, Callable[[float], Array]], Array], start: Array, times: Array, cuts: Array
) -> Array:
    """Solve a delay equation from cut to cut by SciPy, whose dense output is the past of the next pieces."""
    pieces: list[Any] = []

    def past(t: float) -> Array:
        if t <= 0:
            return start
        return next(piece.sol(t) for piece in pieces if t <= piece.t[-1] + 1e-12)

    state, found = start, {}
    for begin, end in zip([0.0, *cuts], [*cuts, times[-1]], strict=True):
        if end <= begin:
            continue
        piece = solve_ivp(
            lambda t, y: rhs(t, y, past), (begin, end), state, "DOP853", dense_output=True, rtol=1e-11, atol=1e-12
        )
        found.update({t: piece.sol(t) for t in times if begin <= t <= end})
        pieces.append(piece)
        state = piece.y[:, -1]
    return np.array([found[t] for t in times])


def sums(delays: tuple[float, ...], end: float, hops: int, firsts: tuple[float, ...] = (0.0,)) -> Array:
    times = set(firsts)
    for _ in range(hops):
        times |= {time + delay for time in times for delay in (*delays, min(delays))}
    grid = np.arange(0.0, end, 0.9 * min(delays))  # no piece reads its own end
    return np.array(sorted({round(t, 9) for t in (*times, *grid) if 0 < t < end}))


TIMES = np.array([0.3, 0.7, 1.0, 1.9, 2.5, 3.0])


@pytest.fixture(scope="module")
def reference() -> dict[str, Array]:
    u = U.numpy()

    def rhs(t: float, flat: Array, past: Callable[[float], Array]) -> Array:
        def at(delay: float) -> Array:
            return past(t - delay).reshape(2, 2, 3)

        x, y = flat.reshape(2, 2, 3)
        r = np.tanh(x) + 0.3 * at(0.25)[1]
        late = np.tanh(at(1.1)[0]) + 0.3 * at(1.1 + 0.25)[1]
        dx = (-x + u + np.tanh(at(0.7)[0]) @ W.T - 0.5 * r) / 0.8
        dy = -0.5 * y + late - 0.2 * at(0.7)[0] * at(0.7)[1]
        return np.stack([dx, dy]).ravel()

    start = np.stack([START["x"], START["y"]]).ravel()
    values = stepwise(rhs, start, TIMES, sums(DELAYS, 3.0, 4)).reshape(len(TIMES), 2, 2, 3)
    late = stepwise(rhs, start, TIMES[-1:] - 0.25, sums(DELAYS, 2.75, 4)).reshape(2, 2, 3)
    return {"x": values[:, 0], "y": values[:, 1], "r": np.tanh(values[-1, 0]) + 0.3 * late[1]}


@pytest.mark.parametrize(
    ("solver", "within"),
    [
        (nd.Heun(0.01), 1e-4),
        (nd.RK4(0.05), 2e-6),
        (nd.RK4(0.031), 3e-7),
        (nd.Adaptive(rtol=1e-8, atol=1e-9), 1e-7),
        (nd.Adaptive("tsit5", rtol=1e-8, atol=1e-9), 1e-7),
        (nd.Adaptive("bosh3", rtol=1e-7, atol=1e-8), 1e-6),
        (None, 1e-3),
    ],
    ids=str,
)
def test_solvers_meet_scipy_step_by_step(solver, within, reference):
    run = nd.simulate(recurrent(), U, duration=3.0, solver=solver, initial=START, save_at=TIMES)
    np.testing.assert_allclose(run.x, reference["x"], atol=within)
    np.testing.assert_allclose(run.y, reference["y"], atol=within)
    np.testing.assert_allclose(run.r[-1], reference["r"], atol=within)
    if solver is None:
        assert run.attrs["solver_reason"] == "delays: adaptive Runge–Kutta"


def test_the_method_of_steps():
    times = np.linspace(0.0, 5.0, 41)
    run = nd.simulate(echo(), None, duration=5.0, solver=nd.Adaptive(rtol=1e-9, atol=1e-10), initial=ONE, save_at=times)
    np.testing.assert_allclose(run.x[:, 0, 0], by_steps(times), atol=1e-8)
    assert run.attrs["accepted_steps"] < 60  # kinks end steps, and none has to be found


def test_a_run_may_end_at_a_multiple_of_the_delay():
    assert 0.7 + 0.7 + 0.7 < 2.1  # by rounding, so that a kink is a little before the end
    ends = [nd.simulate(echo(0.7), None, duration=end, initial=ONE, save_at=[2.1]).x.item() for end in (2.1, 2.2)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4)


@pytest.mark.parametrize(("solver", "order"), [(nd.Euler, 1), (nd.Heun, 2), (nd.RK4, 4)], ids=["Euler", "Heun", "RK4"])
@pytest.mark.parametrize("delay", [1.0, 0.83], ids=["on the grid", "off the grid"])
def test_fixed_steps_keep_their_order(solver, order, delay):
    """Against RK4 at a fine step that the delay is a multiple of."""
    fine = nd.simulate(echo(delay), None, duration=7.0, solver=nd.RK4(delay / 256), initial=ONE, save_at=[7.0])
    errors = [
        abs(nd.simulate(echo(delay), None, duration=7.0, solver=solver(h), initial=ONE, save_at=[7.0]) - fine).x.item()
        for h in (0.1, 0.05, 0.025)
    ]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert orders.mean() > order - 0.3


def test_an_oscillation_at_half_pi_neither_grows_nor_decays():
    run = nd.simulate(
        echo(math.pi / 2), None, duration=60.0, solver=nd.Adaptive(rtol=1e-8, atol=1e-9), save_at=601, initial=ONE
    )
    tops = [float(abs(run.x[start : start + 70]).max()) for start in (200, 400, 531)]
    np.testing.assert_allclose(tops, tops[0], rtol=1e-3)
    damped = nd.simulate(echo(1.4), None, duration=60.0, save_at=[60.0])
    grown = nd.simulate(echo(1.8), None, duration=60.0, save_at=[60.0, 59.0, 58.0][::-1])
    assert abs(damped.x.item()) < 0.1 * tops[0]
    assert float(abs(grown.x).max()) > 10 * tops[0]


@pytest.mark.parametrize("interpolation", ["previous", "linear", "cubic"])
@pytest.mark.parametrize("solver", [nd.RK4(0.02), nd.Adaptive(rtol=1e-8, atol=1e-9)], ids=["fixed", "adaptive"])
def test_signals_arrive_late(solver, interpolation):
    """dx/dt = −x + u(t − 0.4) + 2 r(t − 0.3), r = u − x(t − 0.1): with the signal's value at 0 before."""
    signal = nd.Signal([0.0, 0.5, 1.1, 2.0, 9.0], np.array([0.5, -1.0, 2.0, 0.0, 1.0]), interpolation)
    network = nd.Network(
        "late",
        [nd.Population("u", 1, clamp=nd.Input()), nd.Population("r", 1, tau=0.0), nd.Population("x", 1)],
        [
            nd.Coupling("u", "x", delay=0.4),
            nd.Coupling("u", "r"),
            nd.Coupling("x", "r", gain=-1.0, delay=0.1),
            nd.Coupling("r", "x", gain=2.0, delay=0.3),
        ],
    )

    def u(t: float, begin: float) -> float:
        inside = t if interpolation != "previous" else (t if t > begin else begin)
        return float(signal.at(max(inside, 0.0)))

    jumps = tuple(t + d for t in (0.0, 0.5, 1.1, 2.0) for d in (0.0, 0.3, 0.4))
    cuts = sums((0.4, 0.1), 3.0, 5, jumps)

    def rhs(t: float, x: Array, past: Callable[[float], Array]) -> Array:
        middle = cuts[np.searchsorted(cuts, t + 1e-9)] if t < cuts[-1] - 1e-9 else 3.0
        at = min(t, middle - 1e-9) if interpolation == "previous" else t
        return -x + u(at - 0.4, 0.0) + 2 * (u(at - 0.3, 0.0) - past(t - 0.4))

    times = np.array([0.2, 0.45, 0.9, 1.4, 1.5, 2.2, 3.0])
    expected = stepwise(rhs, np.zeros(1), times, cuts)
    run = nd.simulate(network, signal, duration=3.0, solver=solver, save_at=times, initial={"x": 0 * ONE["x"]})
    np.testing.assert_allclose(run.x[:, 0], expected, atol=2e-4 if interpolation == "linear" else 2e-6)


def test_a_function_of_time_arrives_late():
    network = nd.Network(
        "late",
        [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1, leak=0.0)],
        [nd.Coupling("u", "x", delay=0.5)],
    )
    run = nd.simulate(
        network, lambda t: 1.0 + t, duration=2.0, solver=nd.RK4(0.3), save_at=[0.3, 2.0], initial={"x": 0 * ONE["x"]}
    )
    np.testing.assert_allclose(run.x.values.ravel(), [0.3, 2.0 + 1.5**2 / 2], atol=1e-12)


def test_a_delay_of_what_stands_still_is_none():
    plain = nd.Network("n", [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3)], [nd.Coupling("u", "x")])
    late = nd.Network("n", plain.populations, [nd.Coupling("u", "x", delay=2.0)])
    run = nd.simulate(late, U, duration=1.0)
    np.testing.assert_array_equal(run.x, nd.simulate(plain, U, duration=1.0).x)
    assert "Exact" in run.attrs["solver"]


@pytest.mark.parametrize("solver", [nd.Heun(0.1), nd.Adaptive()], ids=["Heun", "Adaptive"])
def test_the_order_of_the_populations_does_not_matter(solver: nd.Solver) -> None:
    names, delays = "abcd", {("a", "b"): 0.3, ("c", "b"): 0.3, ("c", "a"): 0.5, ("b", "c"): 0.5, ("b", "d"): 0.0}
    start = {name: tensor(2, size, seed=size) for size, name in enumerate(names, start=1)}
    layers = {}
    for seed, (source, target) in enumerate(delays):
        layers[source, target] = layer = nn.Linear(start[source].shape[1], start[target].shape[1]).double()
        layer.weight.data = torch.tensor(random(*layer.weight.shape, seed=seed))

    def run(order: str) -> Any:
        populations = [nd.Population(name, start[name].shape[1]) for name in order]
        couplings = [nd.Coupling(*ends, nd.Forward(layers[ends]), delay=delay) for ends, delay in delays.items()]
        network = nd.Network(order, populations, couplings)
        return nd.simulate(network, None, duration=1.2, initial=start, solver=solver, save_at=5)

    expected = run("abcd")
    for order in ("dcba", "cdab"):
        found = run(order)
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)


def test_equations_say_what_is_read_when():
    lines = recurrent().equations().splitlines()
    assert lines[1] == "0.8 dx/dt = −x + u + (Linear∘Tanh)(x(t − 0.7)) − 0.5 r"
    assert lines[2] == "dy/dt = −0.5 y + r(t − 1.1) − 0.2 x(t − 0.7) y(t − 0.7)"
    assert "  x → x          +1 · (Linear∘Tanh)(x(t − 0.7))" in str(recurrent()).splitlines()
    assert nd.Coupling("x", "y", delay=1) == nd.Coupling("x", "y", delay=1.0) != nd.Coupling("x", "y")


def test_runs_neither_depend_on_what_is_saved_nor_leave_anything_behind():
    network, settings = recurrent(), {"solver": nd.RK4(0.05), "initial": START}
    every = nd.simulate(network, U, duration=3.0, **cast(Any, settings))
    few = nd.simulate(network, U, duration=3.0, save_at=[0.333, 1.777, 3.0], **cast(Any, settings))
    np.testing.assert_allclose(few.x[-1], every.x[-1], atol=1e-13)
    other = nd.simulate(network, -U, duration=3.0, **cast(Any, settings))
    assert float(abs(other.x - every.x).max()) > 0.1
    again = nd.simulate(network, U, duration=3.0, **cast(Any, settings))
    np.testing.assert_array_equal(again.x, every.x)
    alone = nd.simulate(network, U[:1], duration=3.0, solver=nd.RK4(0.05), initial={k: v[:1] for k, v in START.items()})
    np.testing.assert_allclose(alone.x, every.x[:, :1], atol=1e-12)


def test_observables_and_conditions_see_the_populations_alone():
    network = echo()
    whole = nd.Network(
        "echo",
        network.populations,
        network.couplings,
        observables=[
            nd.Observable("sum", lambda a: torch.cat([v.flatten(1) for v in a.values()], 1).sum(1), "sum of all")
        ],
    )
    run = nd.simulate(whole, None, duration=2.0, record=["x", "sum"], save_at=5, initial=ONE)
    np.testing.assert_allclose(run["sum"], run.x[..., 0])


def test_a_live_jacobian_is_that_of_the_present():
    stage = nd.Stage(nn.Sequential(nn.Linear(3, 3, dtype=torch.float64), nn.Tanh()))
    network = nd.Network(
        "adjoint",
        [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("z", 3)],
        [nd.Coupling("u", "x"), nd.Coupling("u", "z"), nd.Coupling("z", "z", nd.Feedback(stage, at="x"), delay=0.2)],
    )
    assert network.equations().splitlines()[-1] == "dz/dt = −z + u + J(Tanh∘Linear)(x)ᵀ z(t − 0.2)"
    run = nd.simulate(network, U, duration=1.0, solver=nd.Euler(0.1))
    x, z = torch.zeros(2, 3, dtype=torch.float64), [torch.zeros(2, 3, dtype=torch.float64)]
    for step in range(10):
        (pulled,) = torch.autograd.functional.vjp(stage.apply, x, z[max(step - 2, 0)])[1:]
        z.append(z[-1] + 0.1 * (-z[-1] + U + pulled))
        x = x + 0.1 * (-x + U)
    np.testing.assert_allclose(run.z[:, :], torch.stack(z), atol=1e-12)


def test_stacked_networks_share_their_delays():
    one, other = recurrent(), recurrent()
    other = nd.Network("recurrent", other.populations, [*other.couplings[:-1], one.couplings[-1]])
    run = nd.simulate([one, other], U, duration=2.0, solver=nd.RK4(0.1), initial=START)
    for place, network in enumerate((one, other)):
        alone = nd.simulate(network, U, duration=2.0, solver=nd.RK4(0.1), initial=START)
        np.testing.assert_allclose(run.x[place], alone.x, atol=1e-12)
    gains = nd.simulate([echo(gain=-1.0), echo(gain=-0.5)], None, duration=2.0, solver=nd.RK4(0.1), initial=ONE)
    alone = nd.simulate(echo(gain=-0.5), None, duration=2.0, solver=nd.RK4(0.1), initial=ONE)
    np.testing.assert_allclose(gains.x[1], alone.x, atol=1e-12)
    with pytest.raises(ValueError, match=r"the list of delays is \[2.0\], and \[1.0\] in the first"):
        nd.simulate([echo(), echo(2.0)], None, duration=1.0)


def test_noise_with_a_delay():
    """Dx = −x(t − 1) dt + dW by Euler–Maruyama, against a loop on the same path; off the grid, of order 1."""
    network = nd.Network(
        "noisy", [nd.Population("x", 1, leak=0.0, noise=0.5)], [nd.Coupling("x", "x", gain=-1.0, delay=1.0)]
    )
    walk = nd.Network("walk", [nd.Population("x", 1, leak=0.0, noise=0.5)])
    zero = {"x": torch.zeros(20, 1, dtype=torch.float64)}
    settings: dict[str, Any] = {"duration": 4.0, "seed": 0, "initial": zero}
    w = nd.simulate(walk, None, solver=nd.Euler(0.1), **settings).x.values
    x = [w[0]]
    for step in range(40):
        x.append(x[-1] - 0.1 * x[max(step - 10, 0)] + w[step + 1] - w[step])
    run = nd.simulate(network, None, solver=nd.Euler(0.1), **settings)
    np.testing.assert_allclose(run.x, x, atol=1e-12)
    off = nd.Network("noisy", network.populations, [nd.Coupling("x", "x", gain=-1.0, delay=0.43)])
    for solver in (nd.Euler, nd.Heun):
        ends = [nd.simulate(off, None, solver=solver(h), save_at=[4.0], **settings) for h in (0.2, 0.05, 0.1 / 32)]
        errors = [float(np.sqrt(((end - ends[-1]) ** 2).mean().x)) for end in ends[:-1]]
        assert errors[0] / errors[1] > 3.0


def test_bounds_and_delays():
    """dx/dt = 4 x(t − 0.5) − 6 x(t − 1), clipped to [−1, 1], by a loop."""
    network = nd.Network(
        "bounded",
        [nd.Population("x", 1, leak=0.0, initial=0.1, bounds=(-1.0, 1.0))],
        [nd.Coupling("x", "x", gain=4.0, delay=0.5), nd.Coupling("x", "x", gain=-6.0, delay=1.0)],
    )
    x = [0.1]
    for step in range(100):
        x.append(min(max(x[-1] + 0.05 * (4 * x[max(step - 10, 0)] - 6 * x[max(step - 20, 0)]), -1.0), 1.0))
    start = {"x": torch.full((1, 1), 0.1, dtype=torch.float64)}
    run = nd.simulate(network, None, duration=5.0, solver=nd.Euler(0.05), initial=start)
    np.testing.assert_allclose(run.x[:, 0, 0], x, atol=1e-12)
    assert max(x) == 1.0
    assert min(x) == -1.0


def chain(delay: float) -> nd.Network:
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("y", 3)]
    return nd.Network(
        "chain",
        [*populations, nd.Population("r", 3, tau=0.0)],
        [
            nd.Coupling("u", "x", delay=delay),
            nd.Coupling("x", "r", nd.Forward(nn.Tanh()), delay=delay),
            nd.Coupling("r", "y", delay=2 * delay),
        ],
    )


def test_an_acyclic_equilibrium_does_not_depend_on_delays():
    found = nd.equilibrium(chain(0.5), U)
    np.testing.assert_allclose(found.y, torch.tanh(U))
    assert found.attrs["residual"] < 1e-12
    run = nd.simulate(chain(0.5), U, duration=30.0, save_at=[30.0])
    np.testing.assert_allclose(run.y[0], torch.tanh(U), atol=1e-3)


def test_rest_is_waited_for_as_long_as_the_delay():
    """From 1 to 3, nothing moves: what x did is on its way to y, which is no rest."""
    network = nd.Network(
        "late",
        [nd.Population("x", 1, tau=0.1, initial=1.0), nd.Population("y", 1, initial=1.0)],
        [nd.Coupling("x", "y", delay=3.0)],
    )
    run = nd.simulate(network, None, duration=60.0, solver=nd.RK4(0.1), until=nd.steady(1e-3))
    assert 10.0 < float(run.time[-1]) < 16.0
    assert abs(run.y[-1].item()) < 2e-3


def test_what_a_duration_with_delays_leads_to_is_learned_from():
    layer = nn.Linear(3, 3, bias=False, dtype=torch.float64)
    stage = nd.Stage(layer)

    def declare(**settings: Any) -> nd.Network:
        return nd.Network(
            "learner",
            [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("e", 3, tau=0.0)],
            [nd.Coupling("u", "x"), nd.Coupling("x", "x", gain=-1.0, delay=0.4), nd.Coupling("x", "e", delay=0.2)],
            [nd.Plasticity(stage, "u", "e", presynaptic="live")],
            **settings,
        )

    nd.backward(declare(), U, duration=2.0, solver=nd.Euler(0.1))
    x = [np.zeros((2, 3))]
    for step in range(20):
        x.append(x[-1] + 0.1 * (-x[-1] + U.numpy() - x[max(step - 4, 0)]))
    assert layer.weight.grad is not None
    np.testing.assert_allclose(layer.weight.grad, x[-3].T @ U.numpy() / 2, atol=1e-12)
    message = "x → x has the delay 0.4, and "
    with pytest.raises(ValueError, match=f"{message}the equilibrium of a cyclic network"):
        nd.backward(declare(), U)
    with pytest.raises(ValueError, match=f"{message}discrete inference takes none"):
        nd.backward(declare(inference=nd.Inference(0.1, 5)), U)
    with pytest.raises(ValueError, match=f"{message}discrete inference takes none"):
        nd.infer(declare(inference=nd.Inference(0.1, 5)), U)


def test_divergence_is_found_where_it_is():
    with pytest.raises(nd.DivergenceError, match="population x became non-finite at time") as caught:
        nd.simulate(echo(1.0, 1e30), None, duration=40.0, solver=nd.RK4(0.5))
    assert caught.value.time is not None
    assert 1.0 < caught.value.time < 6.0


def live(at: str = "u") -> nd.Network:
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("r", 3, tau=0.0)]
    back = nd.Feedback(nn.Sequential(nn.Linear(3, 3, dtype=torch.float64), nn.Tanh()), at=at)
    return nd.Network("live", populations, [nd.Coupling("x", "r", back), nd.Coupling("r", "x", delay=0.5)])


def first() -> Any:
    return nd.simulate(echo(), None, duration=1.0, solver=nd.RK4(0.1)).isel(time=-1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nd.Coupling("x", "y", delay=-1.0), "coupling x → y: its delay must be ≥ 0"),
        (lambda: nd.Coupling("x", "y", delay=math.inf), "its delay must be finite"),
        (lambda: nd.Coupling("x", "y", delay=cast(Any, "1")), "its delay must be a number"),
        (lambda: nd.Coupling("x", "y", delay=cast(Any, torch.ones(3))), "its delay must be a number"),
        (
            lambda: nd.simulate(echo(0.05), None, duration=1.0, solver=nd.Euler(0.1)),
            "step of Euler: 0.1 is longer than the shortest delay 0.05",
        ),
        (
            lambda: nd.simulate(echo(), None, duration=1.0, solver=nd.Exact()),
            r"x → x has the delay 1, and the solver Exact\(.*\) takes none; give nd.Adaptive",
        ),
        (lambda: nd.simulate(echo(), None, duration=1.0, solver=nd.Stabilized()), r"the solver Stabilized\(.*none"),
        (lambda: nd.simulate(echo(), None, duration=1.0, solver=nd.TorchDiffEq()), r"the solver TorchDiffEq\(.*none"),
        (
            lambda: nd.simulate(echo(), None, duration=1.0, solver=nd.FixedStep(0.1, replace(RK4, order=5))),
            "FixedStep is of order 5, and the cubic between its steps, .* of order 4",
        ),
        (
            lambda: nd.simulate(echo(), None, duration=1.0, solver=nd.Adaptive(replace(TSIT5, interpolant=None))),
            "the Pair is of order 5, and the cubic between its steps",
        ),
        (
            lambda: nd.simulate(live(), U, duration=1.0),
            "x → r: its map reads more than its sources, and population r is read with a delay",
        ),
        (
            lambda: nd.simulate(live("x"), U, duration=1.0),  # at what x is now, beside what it was
            "x → r: its map reads more than its sources, and population r is read with a delay",
        ),
        (lambda: nd.equilibrium(echo(), None), "x → x has the delay 1, and the equilibrium of a cyclic network"),
        (
            lambda: nd.simulate(echo(), None, duration=30.0, solver=nd.Euler(0.1, compile=True), save_at=[30.0]),
            "x → x has the delay 1, and compile takes none",
        ),
        (
            lambda: nd.simulate(echo(), None, duration=1.0, solver=nd.RK4(0.1), initial=first()),
            "initial: the moment at time 1 of a run holds nothing of what was before",
        ),
        (
            lambda: nd.System(echo(), None).settle(nd.System(echo(), None).new_state()),
            "has delays: F depends on the time",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(nd.NeurodynError, match=message):
        call()


def test_memory_does_not_grow_with_the_run():
    """Of the past, as many steps are kept as the longest delay has, and those between two looks at the state."""
    system = nd.System(echo(0.5), None)
    kept = []
    for duration in (10.0, 40.0):
        solver = nd.Euler(0.01)
        solver.integrate(system, system.initial_state(), duration, Unrecorded())
        assert system.timeline.past is not None
        kept.append(len(system.timeline.past))
    assert kept[0] == kept[1] < 200


def test_of_the_past_only_what_is_read_late_is_kept():
    populations = [nd.Population(name, size) for name, size in (("a", 2), ("between", 500), ("b", 3))]
    couplings = [nd.Coupling(name, name, gain=-1.0, delay=delay) for name, delay in (("a", 0.3), ("b", 0.5))]
    system = nd.System(nd.Network("few", populations, couplings), None)
    nd.Euler(0.1).integrate(system, system.initial_state(), 1.0, Unrecorded())
    assert system.timeline.past is not None
    piece: Any = system.timeline.past.steps()[0][1]
    assert piece.first.x.numel() == 5


def test_a_delayed_product_is_computed_once_for_all_stages_at_a_time(monkeypatch):
    """RK4 evaluates F four times a step, at three times of which the first is the last one of the step before."""
    counted = []
    apply = torch.nn.functional.linear

    def count(*arguments: Any) -> torch.Tensor:
        counted.append(1)
        return apply(*arguments)

    def products(delay: float) -> int:
        layer = nn.Linear(3, 3, bias=False, dtype=torch.float64)
        network = nd.Network("n", [nd.Population("x", 3)], [nd.Coupling("x", "x", nd.Forward(layer), delay=delay)])
        counted.clear()
        nd.simulate(network, None, duration=2.0, solver=nd.RK4(0.1), initial={"x": tensor(1, 3)}, save_at=[2.0])
        return len(counted)

    monkeypatch.setattr(torch.nn.functional, "linear", count)
    assert products(0.5) <= products(0.0) / 2 + 5
