"""Inputs and targets that vary in time, against SciPy's solutions from one jump to the next."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

import neurodyn as nd
from tests.problems import Array, random, tensor

TIMES = np.linspace(0.0, 2.0, 6)
VALUES = random(6, 2, 3, seed=1)
SAVED = np.array([0.0, 0.1, 0.4, 0.77, 1.2, 1.9, 2.0])
WEIGHTS = random(3, 3, seed=2, scale=0.8)


def module(weights: Array) -> nn.Linear:
    layer = nn.Linear(3, 3, bias=False).double()
    layer.weight.data = torch.tensor(weights)
    return layer


def network(*, linear: bool = False, gain: float = 1.0, chain: float = 0.5) -> nd.Network:
    """Return x' = −x + i + W f(x) + chain · f(u) with the instantaneous i = gain · u."""
    recurrent = module(WEIGHTS) if linear else nn.Sequential(module(WEIGHTS), nn.Tanh())
    drive = nd.Identity() if linear else nd.Forward(nn.Tanh())
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("i", 3, tau=0.0)]
    couplings = [
        nd.Coupling("u", "i", gain=gain),
        nd.Coupling("i", "x"),
        nd.Coupling("x", "x", nd.Forward(recurrent)),
        nd.Coupling("u", "x", drive, gain=chain),
    ]
    return nd.Network("driven", populations, couplings)


def given(kind: str) -> Callable[[float], Array]:
    """Return the signal of `TIMES` and `VALUES` as a function of the time; at its jumps, the value after."""
    if kind == "previous":
        return lambda t: VALUES[int(np.searchsorted(TIMES, t, side="right")) - 1]
    return (
        CubicSpline(TIMES, VALUES)
        if kind == "cubic"
        else lambda t: np.apply_along_axis(lambda values: np.interp(t, TIMES, values), 0, VALUES)
    )


def reference(kind: str, *, linear: bool = False, gain: float = 1.0) -> Array:
    """Return x at the save points, shape (time, sample, unit), integrated by SciPy from one time of a signal on."""
    f = (lambda x: x) if linear else np.tanh
    state, found = np.zeros(6), [np.zeros((2, 3))]
    ends = np.union1d(TIMES, SAVED)
    for start, end in pairwise(ends):
        held = given(kind)(start)

        def slope(t: float, flat: Array, held: Array = held) -> Array:
            u, x = held if kind == "previous" else given(kind)(t), flat.reshape(2, 3)
            return (-x + gain * u + f(x @ WEIGHTS.T) + 0.5 * f(u)).ravel()

        state = solve_ivp(slope, (start, end), state, method="DOP853", rtol=1e-10, atol=1e-11).y[:, -1]
        if end in SAVED:
            found.append(state.reshape(2, 3))
    return np.array(found)


@pytest.fixture(scope="module")
def expected() -> dict[str, Array]:
    return {kind: reference(kind) for kind in ("previous", "linear", "cubic")}


def signal(kind: Any) -> nd.Signal:
    return nd.Signal(TIMES, torch.tensor(VALUES), kind)


SOLVERS = (
    (nd.RK4(0.03), 1e-6),
    (nd.Heun(0.01), 2e-4),
    (nd.Adaptive(rtol=1e-8, atol=1e-9), 1e-7),
    (nd.Stabilized(rtol=1e-6, atol=1e-8), 1e-4),
    (nd.TorchDiffEq("dopri5", rtol=1e-8, atol=1e-9), 1e-6),
)


@pytest.mark.parametrize(("solver", "tolerance"), SOLVERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("kind", ["previous", "cubic"])
def test_every_solver_follows_a_signal(expected, kind, solver, tolerance):
    run = nd.simulate(network(), signal(kind), duration=2.0, solver=solver, save_at=SAVED)
    np.testing.assert_allclose(run.x.values, expected[kind], atol=100 * tolerance if kind == "cubic" else tolerance)


def test_kinks_end_an_adaptive_step(expected):
    run = nd.simulate(network(), signal("linear"), duration=2.0, solver=nd.Adaptive("tsit5", 1e-8, 1e-9), save_at=SAVED)
    np.testing.assert_allclose(run.x.values, expected["linear"], atol=1e-7)


def test_by_default_a_trajectory_keeps_its_accuracy(expected):
    for kind, values in expected.items():
        run = nd.simulate(network(), signal(kind), duration=2.0, save_at=SAVED)
        assert np.abs(run.x.values - values).max() < 1e-3 * np.abs(values).max()


def test_the_order_holds_across_jumps_off_the_grid(expected):
    errors = []
    for step in (0.08, 0.04, 0.02):
        run = nd.simulate(network(), signal("previous"), duration=2.0, solver=nd.RK4(step), save_at=[2.0])
        errors.append(np.abs(run.x.values[-1] - expected["previous"][-1]).max())
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (orders > 3.7).all()


@pytest.mark.parametrize("solver", [nd.RK4(0.1), nd.Adaptive(), nd.Stabilized(), nd.TorchDiffEq()], ids=str)
@pytest.mark.parametrize("kind", ["previous", "linear"])
def test_times_that_rounding_tells_apart_are_one(kind, solver):
    populations = [*(nd.Population(name, 1, clamp=nd.Input()) for name in "uv"), nd.Population("x", 1)]
    couplings = [*(nd.Coupling(name, "x") for name in "uv"), nd.Coupling("x", "x", nd.Pointwise(torch.tanh), gain=0.5)]
    runs = []
    for later, end in ((0.3, 0.7), (0.1 + 0.2, np.nextafter(0.7, 0.0))):
        signals = {
            "u": nd.Signal([0.0, 0.3, 0.7, 2.0], np.array([1.0, -1.0, 2.0, 3.0]), kind),
            "v": nd.Signal([0.0, later, end, 2.0], np.array([0.5, 2.0, -1.0, 0.0]), kind),
        }
        runs += [nd.simulate(nd.Network("two", populations, couplings), signals, duration=0.7, solver=solver)]
    assert runs[0].sizes == runs[1].sizes
    np.testing.assert_allclose(runs[0].x, runs[1].x, atol=1e-12)


def test_a_step_ends_at_a_jump_alone():
    for kind, more in (("previous", 3), ("linear", 0), ("cubic", 0)):  # of 0.4, …, 1.6, 1.2 is a multiple of 0.3
        run = nd.simulate(network(), signal(kind), duration=2.0, solver=nd.Euler(0.3))
        assert run.attrs["accepted_steps"] == 7 + more
    steps = nd.simulate(network(), signal("previous"), duration=2.0, solver=nd.Euler(0.3)).time
    assert set(TIMES.round(9)) <= set(steps.values.round(9))


@pytest.mark.parametrize("kind", ["previous", "linear"])
@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.0])
def test_linear_networks_have_a_closed_form(kind, cyclic, leak):
    layers = [nn.Linear(3, 3).double() for _ in range(2)]
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("t", 3, clamp=nd.Target()),
        *(nd.Population(name, 3, leak=leak, initial=0.5) for name in "abc"),
        nd.Population("i", 3, tau=0.0),
    ]
    couplings = [
        nd.Coupling("u", "a", nd.Forward(layers[0])),
        nd.Coupling("a", "i", nd.Forward(layers[1])),
        nd.Coupling("i", "b", gain=-0.7),
        nd.Coupling("b", "c", gain=1.3),
        nd.Coupling("t", "i"),
        *([nd.Coupling("c", "a", gain=-0.5)] if cyclic else []),
    ]
    declared = nd.Network("linear", populations, couplings)
    targets = nd.Signal([0.0, 0.5, 2.0], random(3, 3, seed=3), "previous")
    run, beside = (
        nd.simulate(declared, signal(kind), targets, duration=2.0, save_at=SAVED, solver=solver)
        for solver in (None, nd.Adaptive("tsit5", rtol=1e-10, atol=1e-11))
    )
    assert "Exact" in run.attrs["solver"]
    for name in "abcit":
        np.testing.assert_allclose(run[name], beside[name], atol=1e-8)
    np.testing.assert_allclose(run.attrs["residual"], beside.attrs["residual"], atol=1e-8)


def test_a_long_signal_is_taken_in_blocks(monkeypatch):
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("y", 3)]
    declared = nd.Network("chain", populations, [nd.Coupling("u", "x"), nd.Coupling("x", "y")])
    whole = nd.simulate(declared, signal("linear"), duration=2.0, save_at=SAVED, solver=nd.Exact())
    monkeypatch.setattr("neurodyn.solvers.pieces._MOST_NUMBERS", 100)
    monkeypatch.setattr("neurodyn.solvers.pieces._FEW_NUMBERS", 1)  # each population by itself
    parts = nd.simulate(declared, signal("linear"), duration=2.0, save_at=SAVED, solver=nd.Exact())
    np.testing.assert_allclose(whole.y, parts.y, atol=1e-12)
    end = nd.simulate(declared, signal("linear"), duration=2.0, save_at=[2.0], solver=nd.Exact())
    np.testing.assert_allclose(whole.y[-1:], end.y, atol=1e-12)  # most blocks then save nothing


@pytest.mark.parametrize("interpolation", ["linear", "previous"])
def test_a_closed_form_from_rest_and_from_elsewhere_through_pieces_of_a_tenth(interpolation: Any) -> None:
    """Whose lengths differ by rounding: dx/dt = −x + Ay + Bu, dy/dt = −y + Cr, r = u, by SciPy piece by piece."""
    a, b, c = (random(3, 3, seed=seed) for seed in range(3))
    count = 24
    times, values = np.arange(count + 1) * 0.1, random(count + 1, 2, 3, seed=4)
    assert len(np.unique(np.diff(times))) > 1
    declared = nd.Network(
        "chain",
        [nd.Population("u", 3, clamp=nd.Input()), *(nd.Population(n, 3, tau=float(n != "r")) for n in "xyr")],
        [
            nd.Coupling("y", "x", nd.Forward(module(a))),
            nd.Coupling("u", "x", nd.Forward(module(b))),
            nd.Coupling("u", "r"),
            nd.Coupling("r", "y", nd.Forward(module(c))),
        ],
    )

    def f(time: float, state: Array, start: int) -> Array:
        x, y = state.reshape(2, 2, 3)
        part = (time - times[start]) / (times[start + 1] - times[start]) if interpolation == "linear" else 0.0
        u = values[start] + part * (values[start + 1] - values[start])
        return np.stack([-x + y @ a.T + u @ b.T, -y + u @ c.T]).ravel()

    kept = torch.tensor(values)
    signal, evaluations = nd.Signal(times, kept, interpolation=interpolation), []
    for begin in (np.zeros((2, 2, 3)), random(2, 2, 3, seed=5)):
        state = begin.ravel()
        for start in range(count):
            state = solve_ivp(f, times[start : start + 2], state, args=(start,), rtol=1e-11, atol=1e-12).y[:, -1]
        initial = {name: torch.tensor(block) for name, block in zip("xy", begin, strict=True)}
        run = nd.simulate(
            declared, signal, duration=float(times[-1]), solver=nd.Exact(), save_at=[times[-1]], initial=initial
        )
        np.testing.assert_allclose(np.stack([run.x[0], run.y[0]]).ravel(), state, atol=1e-9)
        evaluations.append(run.attrs["evaluations"])
    np.testing.assert_array_equal(kept.numpy(), values)  # which are read where they are
    assert evaluations[0] < evaluations[1]  # a start at rest takes no products


def test_a_signal_that_ends_where_it_starts_is_not_constant() -> None:
    assert not nd.Signal([0.0, 1.0, 2.0], [1.0, 3.0, 1.0]).constant
    assert nd.Signal([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]).constant


@pytest.mark.parametrize("solver", [None, nd.Euler(0.1), nd.TorchDiffEq()])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_function_that_is_not_finite_is_told_apart_from_growth(solver, shape):
    network = nd.Network(
        "driven", [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1)], [nd.Coupling("u", "x")]
    )
    with pytest.raises(ValueError, match=r"u: the function returns what is not finite at time 1\.5") as refused:
        nd.simulate(network, lambda t: torch.full(shape, 1.5 - t).log(), duration=3.0, solver=solver)
    assert not isinstance(refused.value, nd.DivergenceError)


def test_data_arrays_and_functions_are_signals():
    array = xr.DataArray(VALUES, {"time": TIMES}, ("time", "sample", "u_unit"))
    solver = nd.RK4(0.05)
    as_signal, as_array, as_function = (
        nd.simulate(network(), given, duration=2.0, solver=solver)
        for given in (signal("linear"), array.transpose("u_unit", "sample", "time"), lambda t: signal("linear").at(t))
    )
    np.testing.assert_array_equal(as_signal.x, as_array.x)
    np.testing.assert_array_equal(as_signal.x, as_function.x)
    run = nd.simulate(network(), as_signal.x, duration=1.0, solver=solver)  # a trajectory drives another network
    assert run.sizes["sample"] == 2


def test_a_data_array_is_read_by_its_labels():
    populations = [nd.Population("u", (2, 2), clamp=nd.Input()), nd.Population("x", (2, 2))]
    images = nd.Network("images", populations, [nd.Coupling("u", "x")])
    array = nd.simulate(images, tensor(3, 2, 2), duration=2.0, initial={"x": tensor(3, 2, 2, seed=1)}, save_at=5).x
    expected = nd.simulate(images, array, duration=2.0).x
    turned = array.transpose("x_axis1", "time", "sample", "x_axis0")
    for other in (turned, array.isel(x_axis0=[1, 0]), array.astype(">f8")):
        np.testing.assert_allclose(nd.simulate(images, other, duration=2.0).x, expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"inputs of population u: its samples are in another order than their labels"):
        nd.simulate(images, array.isel(sample=[2, 1, 0]), duration=2.0)
    again = nd.simulate(images, array.isel(sample=[2, 2]), duration=2.0).x  # a choice of samples is no other order
    np.testing.assert_allclose(again, expected[:, [2, 2]], atol=1e-12)


def test_arrays_of_another_byte_order_are_signals():
    values = np.array([1.0, 2.0])
    signal = nd.Signal([0.0, 1.0], values.astype(">f4"))
    assert signal.values.tolist() == [1.0, 2.0]
    assert signal.values.dtype == torch.float32


def test_values_may_be_shared_by_units_and_samples():
    shapes = (VALUES[:, 0, 0], VALUES[:, 0], np.broadcast_to(VALUES[:, :1], VALUES.shape))
    one, per_unit, per_sample = (
        nd.simulate(network(), nd.Signal(TIMES, values), duration=2.0, solver=nd.RK4(0.1), initial={"x": tensor(2, 3)})
        for values in shapes
    )
    assert (one.sizes["sample"], per_unit.sizes["sample"]) == (2, 2)
    np.testing.assert_array_equal(per_unit.x, per_sample.x)
    assert float(np.abs(one.x - per_unit.x).max()) > 0.01
    number = nd.simulate(network(), nd.Signal([0, 2], [1.0, 3.0]), duration=2.0, solver=nd.RK4(0.1))
    ramp = nd.simulate(network(), lambda t: 1 + t, duration=2.0, solver=nd.RK4(0.1))
    np.testing.assert_allclose(number.x, ramp.x, atol=1e-12)


def test_what_varies_is_recorded_if_asked():
    run = nd.simulate(network(), signal("previous"), duration=2.0, solver=nd.RK4(0.3), record=["u", "i"])
    expected = np.array([given("previous")(min(t + 1e-9, 1.99)) for t in run.time.values])
    np.testing.assert_allclose(run.u.values, expected)
    np.testing.assert_allclose(run.i.values, expected)
    exact = nd.simulate(network(linear=True), signal("linear"), duration=2.0, save_at=SAVED, record=["u", "i", "x"])
    np.testing.assert_allclose(exact.u.values, [given("linear")(t) for t in SAVED], atol=1e-12)


@pytest.mark.parametrize("units", [1, 3])
def test_a_closed_form_follows_a_signal_of_one_sample(units):
    pair = [nd.Population("u", units, clamp=nd.Input()), nd.Population("x", units)]
    net = nd.Network("leaky", pair, [nd.Coupling("u", "x")])
    values = torch.arange(3.0 * units, dtype=torch.float64).reshape(3, 1, units)
    for interpolation in ("linear", "previous"):
        signal = nd.Signal([0.0, 1.0, 2.0], values, interpolation=interpolation)
        exact = nd.simulate(net, signal, duration=2.0, save_at=[0.5, 1.5, 2.0])
        stepped = nd.simulate(net, signal, duration=2.0, save_at=[0.5, 1.5, 2.0], solver=nd.RK4(0.01))
        xr.testing.assert_allclose(exact.x, stepped.x, rtol=1e-6)


def test_stacked_networks_share_a_signal_or_have_one_each():
    networks = [network(gain=gain) for gain in (1.0, 0.5)]
    settings: dict[str, Any] = {"duration": 2.0, "solver": nd.RK4(0.05), "save_at": SAVED}
    both = nd.simulate(networks, signal("cubic"), **settings)
    for place, each in enumerate(networks):
        alone = nd.simulate(each, signal("cubic"), **settings)
        np.testing.assert_allclose(both.x.isel(network=place), alone.x, atol=1e-12)
    own = xr.DataArray(np.stack([VALUES, 2 * VALUES]), {"time": TIMES}, ("network", "time", "sample", "unit"))
    both = nd.simulate(networks, own, **settings)
    for place, each in enumerate(networks):
        alone = nd.simulate(each, own.isel(network=place), **settings)
        np.testing.assert_allclose(both.x.isel(network=place), alone.x, atol=1e-12)


@pytest.mark.parametrize("kind", ["previous", "linear"])
def test_stacked_linear_networks_share_the_closed_form(kind):
    def chain(seed: int, gain: float) -> nd.Network:
        layers = [nn.Linear(3, 3).double() for _ in range(2)]
        for place, layer in enumerate(layers):
            layer.weight.data = tensor(3, 3, seed=seed + place)
        populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("y", 3)]
        couplings = [
            nd.Coupling("u", "x", nd.Forward(layers[0]), gain=gain),
            nd.Coupling("x", "y", nd.Forward(layers[1])),
        ]
        return nd.Network("chain", populations, couplings)

    networks = [chain(0, 1.0), chain(2, 0.5)]
    both = nd.simulate(networks, signal(kind), duration=2.0, save_at=SAVED)
    assert "Exact" in both.attrs["solver"]
    for place, each in enumerate(networks):
        alone = nd.simulate(each, signal(kind), duration=2.0, save_at=SAVED)
        np.testing.assert_allclose(both.y.isel(network=place), alone.y, atol=1e-12)


@dataclass(frozen=True)
class _Shifted(nd.Map):
    """u + x/2 + 1."""

    linear = True

    def apply(self, u: Tensor, x: Tensor) -> Tensor:
        return u + 0.5 * x + 1.0


@dataclass(frozen=True)
class _Mirrored(nd.Map):
    """1 − x, from the last unit to the first."""

    linear = True

    def apply(self, x: Tensor) -> Tensor:
        return 1.0 - x.flip(1)


@pytest.mark.parametrize("kind", ["previous", "linear"])
@pytest.mark.parametrize("cyclic", [False, True])
def test_a_closed_form_follows_maps_of_ones_own_of_signals_states_and_both(kind, cyclic):
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3, initial=0.3), nd.Population("y", 3)]
    couplings = [nd.Coupling("u", "x", _Mirrored(), gain=0.5), nd.Coupling(("u", "x"), "y", _Shifted())]
    couplings += [nd.Coupling("x", "y", _Mirrored(), gain=2.0)]
    couplings += [nd.Coupling("y", "x", gain=-0.3)] if cyclic else []
    declared = nd.Network("both", populations, couplings)
    run, beside = (
        nd.simulate(declared, signal(kind), duration=2.0, save_at=SAVED, solver=solver)
        for solver in (nd.Exact(), nd.Adaptive("tsit5", rtol=1e-10, atol=1e-11))
    )
    np.testing.assert_allclose(run.y, beside.y, atol=1e-8)


def test_a_closed_form_follows_a_jacobian_that_jumps_with_a_signal():
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("v", 3, clamp=nd.Constant(2.0)),
        nd.Population("x", 3),
    ]
    declared = nd.Network("gated", populations, [nd.Coupling("v", "x", nd.Feedback(nn.Tanh(), at="u"))])
    run = nd.simulate(declared, signal("previous"), duration=2.0, save_at=TIMES, solver=nd.Exact())
    kept, expected = np.exp(-np.diff(TIMES)), [np.zeros((2, 3))]
    for decay, value in zip(kept, VALUES, strict=False):
        expected.append(decay * expected[-1] + (1 - decay) * 2.0 / np.cosh(value) ** 2)
    np.testing.assert_allclose(run.x, expected, atol=1e-12)


@pytest.mark.parametrize(("start", "drive"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1e-38)])
def test_a_deep_chain_keeps_its_digits_in_single_precision(start, drive):
    """N²⁹ of the start and the drive, 10⁵⁸, is beyond single precision, and x_29 is not."""
    names = [f"x{place}" for place in range(30)]
    first, *others = names
    declared = nd.Network(
        "deep",
        [
            nd.Population("u", 1, clamp=nd.Input()),
            nd.Population(first, 1, initial=start),
            *(nd.Population(name, 1) for name in others),
        ],
        [nd.Coupling(source, target, gain=100.0) for source, target in zip(("u", *names), names, strict=False)],
    )
    single, double = (
        nd.simulate(declared, nd.Signal([0.0, 1.0, 2.0], torch.tensor(values).to(dtype)), duration=2.0, save_at=[2.0])
        for values, dtype in (([0.0, drive, -drive], torch.float32), ([0.0, drive, -drive], torch.float64))
    )
    assert np.isfinite(double.x29).all()
    np.testing.assert_allclose(single.x29, double.x29, rtol=1e-4)


def test_a_streamed_run_is_the_one_in_memory(tmp_path):
    settings: dict[str, Any] = {"duration": 2.0, "solver": nd.RK4(0.05), "record": ["u", "x"]}
    streamed = nd.simulate(network(), signal("cubic"), store=tmp_path / "run.zarr", **settings)
    np.testing.assert_array_equal(streamed.x, nd.simulate(network(), signal("cubic"), **settings).x)


@pytest.mark.parametrize("kind", ["previous", "cubic"])
def test_compiled_steps_follow_a_signal(kind, monkeypatch):
    monkeypatch.setattr("torch.compile", lambda function, **_: function)  # the steps themselves, without the compiler
    settings: dict[str, Any] = {"duration": 2.0, "save_at": [2.0]}
    fast, plain = (
        nd.simulate(network(), signal(kind), solver=nd.RK4(0.01, compile=compile), **settings)
        for compile in (True, False)
    )
    np.testing.assert_allclose(fast.x, plain.x, atol=1e-12)


def test_noise_on_a_signal_is_frozen():
    populations = [nd.Population("u", 3, clamp=nd.Noisy(nd.Input(), 0.1)), nd.Population("x", 3)]
    noisy = nd.Network("noisy", populations, [nd.Coupling("u", "x")])
    run = nd.simulate(noisy, signal("linear"), duration=2.0, save_at=TIMES, record="u")
    noise = run.u.values - VALUES
    np.testing.assert_allclose(noise, np.broadcast_to(noise[0], noise.shape), atol=1e-12)
    assert 0.01 < noise[0].std() < 0.5


def test_a_constant_drives_like_an_input_and_a_constant_signal_stands_still():
    value = tensor(3)
    populations = [nd.Population("b", 3, clamp=nd.Constant(value)), nd.Population("x", 3, initial=nd.Constant(2.0))]
    run = nd.simulate(nd.Network("background", populations, [nd.Coupling("b", "x")]), None, duration=1.0)
    expected = value.numpy() + (2 - value.numpy()) * np.exp(-run.time.values[:, None])
    np.testing.assert_allclose(run.x.values[:, 0], expected, atol=1e-12)
    still = nd.Signal(TIMES, np.broadcast_to(VALUES[0], VALUES.shape))
    found, beside = (nd.equilibrium(network(), data) for data in (still, torch.tensor(VALUES[0])))
    np.testing.assert_allclose(found.x, beside.x, atol=1e-12)


def test_a_clock_does_not_drift():
    clock = nd.Network("clock", [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1)], [])
    run = nd.simulate(clock, lambda t: t, duration=1000.0, solver=nd.Euler(0.5), save_at=[1000.0], record="u")
    assert run.u.item() == 1000.0


def frozen(**settings) -> nd.Network:
    stage = nd.Stage(module(WEIGHTS))
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3, initial=nd.ForwardValue(stage))]
    return nd.Network("frozen", populations, [nd.Coupling("u", "x")], forward=[stage], **settings)


REFUSED = (
    ({"inputs": nd.Signal([0.0, 1.0], [0.0, 1.0])}, "the signal is given from 0 to 1, and the run goes from 0 to 2"),
    ({"inputs": nd.Signal([0.5, 3.0], [0.0, 1.0])}, "the signal is given from 0.5 to 3"),
    ({"inputs": nd.Signal(TIMES, VALUES.astype(np.float32))}, "values is torch.float32"),
    ({"inputs": nd.Signal(TIMES, VALUES[:, :, :2])}, r"the signal's values have the shape \(2, 2\) at each time"),
    ({"inputs": signal("linear"), "initial": {"x": tensor(5, 3)}}, "the signal has 2 samples, and the rest 5"),
    ({"inputs": xr.DataArray(VALUES)}, "with a dimension and a coordinate 'time'"),
    ({"inputs": lambda t: None}, "returns a NoneType at time 0"),
    ({"inputs": lambda t: tensor(3 + (t > 0.1))}, r"of shape \(4,\) on cpu at time"),
    ({"inputs": signal("cubic"), "solver": nd.Exact()}, "network 'driven' is not linear"),
)


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_signals_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(nd.NeurodynError, match=message):
        nd.simulate(network(), **{"duration": 2.0, "solver": nd.RK4(0.1), **settings})


def test_a_closed_form_refuses_other_signals():
    for kind in ("cubic", "function"):
        data = signal(kind) if kind == "cubic" else lambda t: t
        with pytest.raises(ValueError, match=r"driven by a smooth signal, under which there is no closed form"):
            nd.simulate(network(linear=True), data, duration=1.0, solver=nd.Exact())
    bent = nd.Network(
        "bent",
        [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3)],
        [nd.Coupling("u", "x", nd.Forward(nn.Tanh()))],
    )
    with pytest.raises(ValueError, match=r"coupling u → x is not linear in its signal"):
        nd.simulate(bent, signal("linear"), duration=1.0, solver=nd.Exact())
    assert "Exact" in nd.simulate(bent, signal("previous"), duration=1.0).attrs["solver"]
    with pytest.raises(ValueError, match=r"Euler iterates have a closed form under data that stand still"):
        nd.simulate(bent, signal("previous"), duration=1.0, solver=nd.Exact(euler_step=0.1))


def test_what_is_frozen_takes_no_signal():
    with pytest.raises(ValueError, match=re.escape("population x is given ḡLinear, which the forward pass freezes")):
        nd.simulate(frozen(), signal("linear"), duration=1.0)
    live = [nd.Coupling("u", "x", nd.Forward(nn.Tanh()))]
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("e", 3)]
    for coupling in (nd.Coupling("x", "e", nd.Feedback(stage := nd.Stage(module(WEIGHTS)))),):
        declared = nd.Network("frozen", populations, [*live, coupling], forward=[stage])
        with pytest.raises(ValueError, match=r"map of coupling x → e is taken at the frozen forward pass"):
            nd.simulate(declared, signal("linear"), duration=1.0)
    with pytest.raises(ValueError, match=r"inputs of population u vary in time, and an equilibrium takes"):
        nd.equilibrium(network(), signal("linear"))
    with pytest.raises(ValueError, match=r"discrete inference takes what stands still"):
        nd.infer(nd.Network("inferring", populations, live, inference=nd.Inference(0.1, 2)), signal("linear"))
    learning = nd.Network("learning", populations, live, [nd.Plasticity(stage, "u", "x", presynaptic="live")])
    with pytest.raises(ValueError, match=r"learning at the end of a relaxation takes what stands still"):
        nd.backward(learning, signal("linear"))


def test_a_vector_field_in_time_asks_for_the_time():
    system = nd.System(network(), signal("linear"))
    state, out = system.initial_state(), system.new_state()
    with pytest.raises(ValueError, match="F depends on the time"):
        system.field(state, out)
    system.field(state, out, 1.0)
    u = given("linear")(1.0)
    np.testing.assert_allclose(out.activity["x"], u + 0.5 * np.tanh(u), atol=1e-12)


def test_a_plan_is_not_reused_for_other_kinds_of_data():
    declared, still = network(), torch.tensor(VALUES[0])
    settings: dict[str, Any] = {"duration": 1.0, "solver": nd.RK4(0.1)}
    first = nd.simulate(declared, still, **settings)
    nd.simulate(declared, signal("previous"), **settings)
    nd.simulate(declared, signal("cubic"), **settings)
    with warnings.catch_warnings():
        np.testing.assert_array_equal(nd.simulate(declared, still, **settings).x, first.x)
