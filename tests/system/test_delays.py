"""Delays: when steps end under them, and what they bring in the steps to come."""

from itertools import combinations_with_replacement, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import neurodyn as nd
from neurodyn.solvers.base import Unrecorded
from neurodyn.solvers.steps import Steps
from neurodyn.system.delays import distinct, kinks
from tests.problems import tensor

NONE = np.empty(0)


def test_kinks_lie_at_sums_of_delays_after_the_start_and_after_jumps():
    delays, jumps, end = (0.7, 1.1), np.array([0.4]), 3.0
    for order in range(1, 6):
        found = kinks(delays, jumps, [], end, order, adaptive=False)
        sums = [0.0, *(sum(each) for n in range(1, order) for each in combinations_with_replacement(delays, n))]
        expected = {round(first + each, 9) for first in (0.0, 0.4) for each in sums}
        assert {round(time, 9) for time in found} == {time for time in expected if 0 < time < end}


def test_a_signal_that_begins_to_arrive_bends_the_slope():
    assert kinks((0.5,), NONE, [0.2], 2.0, 1, adaptive=False).tolist() == []
    np.testing.assert_allclose(kinks((0.5,), NONE, [0.2], 2.0, 3, adaptive=False), [0.2, 0.5, 0.7, 1.0])


def test_crowded_kinks_are_left_to_error_control():
    delays = tuple(np.random.default_rng(0).uniform(0.5, 2.0, 20).tolist())
    every = kinks(delays, NONE, [], 5.0, 5, adaptive=False)
    fewer = kinks(delays, NONE, [], 5.0, 5, adaptive=True)
    assert set(fewer) < set(every)
    assert set(delays) <= set(fewer)
    few = (0.5, 0.71)
    np.testing.assert_array_equal(
        kinks(few, NONE, [], 5.0, 5, adaptive=True), kinks(few, NONE, [], 5.0, 5, adaptive=False)
    )


def test_times_that_differ_by_rounding_are_one_the_later():
    times = np.array([0.1, 0.1 + 0.2, np.nextafter(0.1 + 0.2, 1.0), 0.5])
    np.testing.assert_array_equal(distinct(times, 1.0, (0.1,)), times[[0, 2, 3]])
    np.testing.assert_array_equal(distinct(times, np.nextafter(0.5, 1.0), (0.1,)), times[[0, 2]])
    assert distinct(NONE, 1.0, (0.1,)).tolist() == []


def late(**settings: Any) -> nd.Network:
    """Delayed couplings of all kinds that read nothing but the past, beside couplings that have none."""
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("v", 3, clamp=nd.Input()),
        nd.Population("x", 3, bounds=(-0.4, 0.5), initial=0.3, **settings),
        nd.Population("y", 3, leak=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), initial=-0.2),
        nd.Population("r", 3, tau=0.0),
    ]
    couplings = [
        nd.Coupling("u", "x"),
        nd.Coupling("u", "y", gain=0.7, delay=0.4),
        nd.Coupling("x", "y", nd.Forward(nn.Tanh()), gain=2.0, delay=0.7),
        nd.Coupling(("x", "v"), "x", nd.Pointwise(lambda x, v: x * v, text="{} {}"), gain=-3.0, delay=0.7),
        nd.Coupling("y", "r", nd.Forward(nn.Sequential(nn.Tanh())), gain=-1.5, delay=0.5),
        nd.Coupling("r", "x"),
        nd.Coupling("y", "x", gain=torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)),
    ]
    return nd.Network("late", populations, couplings)


@pytest.mark.parametrize("solver", [nd.RK4(0.1), nd.Adaptive("bosh3")])
@pytest.mark.parametrize("interpolation", ["linear", "previous"])
def test_what_is_foreseen_of_steps_to_come_is_what_arrives_in_them(solver: nd.Solver, interpolation: Any) -> None:
    signal = nd.Signal(np.linspace(0.0, 4.0, 9), tensor(9, 3, seed=5), interpolation=interpolation)
    system = nd.System(late(), {"u": signal, "v": tensor(2, 3, seed=6)})
    state, out = system.initial_state(), system.new_state()
    solver.integrate(system, state, 2.03, Unrecorded())
    times = [2.05, 2.1, 2.2, 2.4]

    def fields() -> list[dict[str, torch.Tensor]]:
        found = []
        for time in times:
            system.field(state, out, time)
            found.append({name: (out if name in system.dynamic else state).activity[name].clone() for name in "xyr"})
        return found

    asked = fields()
    system.foresee(state, times)
    assert not system.timeline.arrivals
    for one, other in zip(fields(), asked, strict=True):
        assert system.timeline.arrivals
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-13, atol=1e-13)
    assert all(not torch.allclose(one[name], other[name]) for one, other in pairwise(asked) for name in "yr")
    system.timeline.enter(2.2)  # after which signals are others
    assert not system.timeline.arrivals


def test_a_coupling_that_reads_the_present_too_lets_nothing_be_foreseen():
    stage = nd.Stage(nn.Tanh())
    populations = [nd.Population("e", 2, initial=1.0), nd.Population("x", 2, initial=0.5)]
    couplings = [nd.Coupling("x", "e", nd.Forward(stage)), nd.Coupling("e", "x", nd.Feedback(stage, "live"), delay=0.5)]
    system = nd.System(nd.Network("live", populations, couplings))
    state, out = system.initial_state(), system.new_state()
    system.foresee(state, [0.1, 0.2])
    for x in (0.0, 1.0):
        state.activity["x"].fill_(x)
        system.field(state, out, 0.1)
        torch.testing.assert_close(out.activity["x"], -state.activity["x"] + 1.0 - np.tanh(x) ** 2)


def test_steps_to_come_end_when_they_then_do():
    steps = Steps(0.3, 2.0, np.array([0.75, 1.2]))
    time, every = 0.0, []
    while time < 2.0:
        several = steps.ahead(time, 3)
        assert 1 <= len(several) <= 3
        assert steps.ahead(time, 1) == several[:1]
        assert not any(several[0] <= jump < several[-1] for jump in (0.75, 1.2))
        for then in several:
            time = steps.next()
            assert time == then
            every.append(time)
    np.testing.assert_allclose(every, [0.3, 0.6, 0.75, 0.9, 1.2, 1.5, 1.8, 2.0])
