"""Going on from a run, against one run of the whole time."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import neurodyn as nd
from tests.problems import random, tensor

TIMES = np.linspace(0.0, 2.0, 6)
SIGNAL = nd.Signal(TIMES, random(6, 2, 3), "previous")


def network(gain: float = 1.0) -> nd.Network:
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("i", 3, tau=0.0)]
    couplings = [nd.Coupling("u", "i"), nd.Coupling("i", "x", nd.Forward(nn.Tanh()), gain), nd.Coupling("x", "i")]
    return nd.Network("driven", populations, couplings)


@pytest.mark.parametrize("solver", [nd.RK4(0.1), nd.Adaptive(rtol=1e-9, atol=1e-10)], ids=["fixed", "adaptive"])
def test_two_halves_are_the_whole(solver):
    settings: dict[str, Any] = {"solver": solver, "record": ["u", "x", "i"]}
    whole = nd.simulate(network(), SIGNAL, duration=2.0, save_at=[0.0, 0.5, 1.0, 1.3, 2.0], **settings)
    first = nd.simulate(network(), SIGNAL, duration=1.0, save_at=[0.0, 0.5, 1.0], **settings)
    then = nd.simulate(
        network(), SIGNAL, duration=1.0, save_at=[1.0, 1.3, 2.0], initial=first.isel(time=-1), **settings
    )
    np.testing.assert_allclose(then.time, [1.0, 1.3, 2.0])
    for name in ("u", "x", "i"):
        np.testing.assert_allclose(then[name], whole[name][2:], atol=1e-7)


def test_a_linear_run_goes_on_in_its_closed_form():
    chain = nd.Network(
        "chain", [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3)], [nd.Coupling("u", "x")]
    )
    whole, first = (nd.simulate(chain, SIGNAL, duration=end, save_at=[end]) for end in (2.0, 1.1))
    then = nd.simulate(chain, SIGNAL, duration=0.9, initial=first.isel(time=-1))
    np.testing.assert_allclose(then.x[-1], whole.x[-1], atol=1e-12)
    assert (float(then.time[0]), float(then.time[-1])) == (1.1, 2.0)


@pytest.mark.parametrize("solver", [None, nd.RK4(0.1), nd.TorchDiffEq()], ids=["closed form", "fixed", "torchdiffeq"])
@pytest.mark.parametrize(("begins", "jump"), [(0.2, 0.9), (0.4, 1.7)])
def test_a_jump_is_met_that_rounding_puts_a_little_later(begins, jump, solver):
    assert begins + (jump - begins) < jump
    pulse = nd.Signal([0.0, jump, 5.0], np.array([0.0, 1.0, 1.0]), "previous")
    leaky = nd.Network(
        "leaky", [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1)], [nd.Coupling("u", "x")]
    )
    first = nd.simulate(leaky, pulse, duration=begins, save_at=2, solver=solver)
    then = nd.simulate(leaky, pulse, duration=1.5, save_at=2, solver=solver, initial=first.isel(time=-1))
    np.testing.assert_allclose(then.x[-1].item(), 1 - np.exp(jump - begins - 1.5), atol=1e-5)


def test_stacked_networks_go_on_together():
    networks = [network(), network(0.5)]
    settings: dict[str, Any] = {"solver": nd.RK4(0.1)}
    whole = nd.simulate(networks, SIGNAL, duration=2.0, save_at=[2.0], **settings)
    first = nd.simulate(networks, SIGNAL, duration=1.0, **settings)
    then = nd.simulate(networks, SIGNAL, duration=1.0, save_at=[2.0], initial=first.isel(time=-1), **settings)
    np.testing.assert_allclose(then.x, whole.x, atol=1e-12)
    shared = nd.simulate(networks, SIGNAL, duration=1.0, initial=first.isel(time=-1, network=0), **settings)
    np.testing.assert_allclose(shared.x[:, 0], np.broadcast_to(first.x[0, -1], shared.x[:, 0].shape))
    one = nd.simulate(networks, SIGNAL, duration=1.0, initial=first.isel(time=-1, sample=0), **settings)
    np.testing.assert_allclose(one.x[:, 0], np.broadcast_to(first.x[:, -1, :1], one.x[:, 0].shape))
    with pytest.raises(ValueError, match="the run is of 2 networks, and this one of 1"):
        nd.simulate(network(), SIGNAL, duration=1.0, initial=first.isel(time=-1), **settings)


def test_a_stop_condition_is_given_the_time_of_the_run():
    u, solver = tensor(2, 3), nd.Euler(0.25)
    first = nd.simulate(network(), u, duration=1.0, solver=solver)
    then = nd.simulate(
        network(), u, duration=1.0, solver=solver, initial=first.isel(time=-1), until=lambda time, x, v: time >= 1.5
    )
    np.testing.assert_allclose(then.time, [1.0, 1.25, 1.5])


def test_other_moments_are_starts_too():
    u = tensor(2, 3)
    found = nd.equilibrium(network(0.5), u)
    rest = nd.simulate(network(0.5), u, duration=1.0, initial=found, solver=nd.Euler(0.5))
    np.testing.assert_allclose(rest.x, np.broadcast_to(found.x, rest.x.shape), atol=1e-6)
    assert float(rest.time[0]) == 0.0
    run = nd.simulate(network(), u, duration=1.0, solver=nd.Euler(0.5))
    one = nd.simulate(network(), u, duration=1.0, initial=run.isel(time=-1, sample=0), solver=nd.Euler(0.5))
    np.testing.assert_allclose(one.x[0], np.broadcast_to(run.x[-1, 0], (2, 3)))


@pytest.mark.parametrize("shape", [(2, 3, 3), (3, 3)])
def test_a_moment_is_read_by_its_labels(shape):
    network = nd.Network("decay", [nd.Population("x", shape)])
    start = nd.simulate(network, None, duration=1.0, initial={"x": tensor(2, *shape)}, save_at=[1.0]).isel(time=0)
    own = start.x.dims[1:]
    expected = nd.simulate(network, None, duration=1.0, initial=start).x
    others = (
        start.transpose(*reversed(start.x.dims)),
        start.isel({dim: slice(None, None, -1) for dim in own}),
        start.astype(">f8"),
    )
    for other in others:
        np.testing.assert_array_equal(nd.simulate(network, None, duration=1.0, initial=other).x, expected)
    backwards = start.isel(sample=slice(None, None, -1))
    with pytest.raises(ValueError, match=r"population x: its samples are in another order .*\.sortby\('sample'\)"):
        nd.simulate(network, None, duration=1.0, initial=backwards)
    as_they_are = nd.simulate(network, None, duration=1.0, initial=backwards.drop_vars("sample"))
    np.testing.assert_array_equal(as_they_are.x, expected[:, ::-1])
    with pytest.raises(TypeError, match=r"x: an array of object; convert it with"):
        nd.simulate(network, None, duration=1.0, initial=start.astype(object))


def test_half_precision_goes_on():
    u = tensor(2, 3).bfloat16()
    run = nd.simulate(network(), u, duration=1.0, solver=nd.Euler(0.5))
    then = nd.simulate(network(), u, duration=1.0, initial=run.isel(time=-1), solver=nd.Euler(0.5))
    np.testing.assert_array_equal(then.x[0], run.x[-1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"initial: the run has 3 moments along 'time'; choose one, such as .isel\(time=-1\)"),
        ({"record": "i"}, "initial: the run has not recorded population x"),
        ({"dtype": torch.float32}, "initial value of population x"),
        ({"samples": 5}, "initial value of population x has 5 samples"),
    ],
)
def test_runs_that_do_not_fit_are_refused(settings, message):
    settings = {"dtype": torch.float64, "samples": 2, "record": None} | settings
    u = tensor(settings["samples"], 3).to(settings["dtype"])
    run = nd.simulate(network(), u, duration=1.0, solver=nd.Euler(0.5), record=settings["record"])
    moment = run if "time" in message else run.isel(time=-1)
    with pytest.raises(nd.NeurodynError, match=message):
        nd.simulate(network(), tensor(2, 3), duration=1.0, initial=moment, solver=nd.Euler(0.5))


def test_what_is_saved_lies_within_the_run():
    first = nd.simulate(network(), tensor(2, 3), duration=1.0, solver=nd.Euler(0.5)).isel(time=-1)
    with pytest.raises(ValueError, match=r"save_at: the times must lie within the run \[1, 2\]"):
        nd.simulate(network(), tensor(2, 3), duration=1.0, initial=first, save_at=[0.5, 1.0])


@pytest.mark.parametrize(
    ("solver", "call"),
    [
        (nd.Euler(0.1), nd.simulate),
        (nd.Adaptive(), nd.simulate),
        (nd.TorchDiffEq(), nd.simulate),
        (nd.Euler(0.1), nd.activity),
    ],
    ids=["fixed", "adaptive", "torchdiffeq", "activity"],
)
def test_divergence_is_told_in_the_time_of_the_run(solver, call):
    """From x = 1 at time 5, dx/dt = x² is infinite at time 6, and Euler's steps some time after that."""
    square = nd.Coupling("x", "x", nd.Pointwise(torch.square))
    explosive = nd.Network("explosive", [nd.Population("x", 1, leak=0.0, initial=1.0)], [square])
    rest = nd.Network("rest", [nd.Population("x", 1, leak=0.0, initial=1.0)])
    start = nd.simulate(rest, None, duration=5.0, save_at=[5.0]).isel(time=-1)
    with pytest.raises(nd.DivergenceError, match=r"time (6|7)") as caught:
        call(explosive, None, duration=5.0, solver=solver, initial=start)
    assert caught.value.time is not None
    assert 5.9 < caught.value.time < 8.0


def test_a_closed_form_tells_the_time_of_the_run_too():
    growing = nd.Network("growing", [nd.Population("x", 1, initial=1.0)], [nd.Coupling("x", "x", gain=2.0)])
    start = nd.simulate(growing, None, duration=5.0, save_at=[5.0], solver=nd.Exact()).isel(time=-1)
    with pytest.raises(nd.DivergenceError, match=r"not finite at time 205") as caught:
        nd.simulate(growing, None, duration=200.0, solver=nd.Exact(), initial=start)
    assert caught.value.time == 205.0
