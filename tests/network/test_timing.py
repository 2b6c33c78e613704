"""When plasticity acts: the spike detector against its definition, and the settings that are refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import neurodyn as nd
from neurodyn.network.timing import SpikeDetector

# Half of the activities are exactly 0, of either sign.
courses = st.tuples(st.integers(1, 9), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, -0.0, 1e-300, 1.0, -2.0]))
)


def spikes_by_definition(course: NDArray[np.float64], window: int) -> NDArray[np.bool_]:
    """φ(ε_t) = 1 iff ε_{t−t_d} = … = ε_{t−1} = 0 and ε_t ≠ 0, with 0 before the start; course (time, unit)."""
    quiet_before = np.concatenate([np.zeros((window, course.shape[1])), course])
    return np.array([(activity != 0) & (quiet_before[t : t + window] == 0).all(0) for t, activity in enumerate(course)])


@given(courses, st.integers(1, 10))
def test_a_unit_spikes_when_it_leaves_a_silence_as_long_as_the_window(course, window) -> None:
    detector = SpikeDetector(window)
    found = np.array([detector.step(torch.tensor(activity)).numpy() for activity in course])
    np.testing.assert_array_equal(found, spikes_by_definition(course, window))


@given(courses, courses, st.integers(1, 10))
def test_no_spike_comes_sooner_than_announced_and_one_can_come_then(past, future, window) -> None:
    detector = SpikeDetector(window)
    assert detector.can_spike_within(1)
    assert not detector.can_spike_within(0)
    for activity in past:
        detector.step(torch.tensor(activity))
    soonest = next(steps for steps in range(window + 2) if detector.can_spike_within(steps))
    units = past.shape[1]
    silence = np.zeros((soonest - 1, units))
    earliest = spikes_by_definition(np.concatenate([past, silence, np.ones((1, units))]), window)
    assert earliest[-1].any()
    any_future = np.resize(future, (soonest - 1, units))
    assert not spikes_by_definition(np.concatenate([past, any_future]), window)[len(past) :].any()


@pytest.mark.parametrize("make", [nd.AtStep, nd.OnSpike, SpikeDetector, lambda n: nd.Inference(1.0, n)])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (2.0, TypeError), ("4", TypeError), (True, TypeError)])
def test_steps_and_windows_are_whole_numbers(make, value, error) -> None:
    with pytest.raises(error, match=r"must be an integer ≥ [01]"):
        make(value)


@pytest.mark.parametrize("make", [nd.OnSpike, SpikeDetector])
def test_a_window_is_at_least_one_step(make) -> None:
    with pytest.raises(ValueError, match="window of spikes must be an integer ≥ 1, not 0"):
        make(0)


def test_what_moves_a_unit_is_a_dynamic_population_of_the_same_size() -> None:
    def declare(moved_by: str) -> nd.Network:
        stage = nd.cut(nd.mlp([3, 2]))[0]
        populations = [
            nd.Population("s", 3, clamp=nd.Input()),
            nd.Population("x", 2, leak=0.0),
            nd.Population("e", 2, tau=0.0),
        ]
        rule = nd.Plasticity(stage, "s", "e", nd.OnSpike(2, moved_by), presynaptic="live")
        return nd.Network("spiking", populations, [nd.Coupling("x", "e")], [rule], inference=nd.Inference(1.0, 2))

    assert "(window 2, moved by x alone)" in str(declare("x").plasticity[0].when)
    with pytest.raises(ValueError, match="moved_by: there is no population 'y'; there are s, x, e"):
        declare("y")
    with pytest.raises(ValueError, match="moved_by 'e' is instantaneous, and takes no steps"):
        declare("e")
    with pytest.raises(ValueError, match="moved_by 's' has 3 units, and 'e' 2"):
        declare("s")
    with pytest.raises(TypeError, match="moved_by of OnSpike is the name of a population, or None, not int"):
        nd.OnSpike(2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0.0, -0.5, float("nan"), float("inf")])
def test_a_step_of_inference_is_positive(step) -> None:
    with pytest.raises(ValueError, match="step of inference must be positive and finite"):
        nd.Inference(step, 3)


def test_a_step_of_inference_is_a_number() -> None:
    with pytest.raises(TypeError, match="step of inference must be a number, not str"):
        nd.Inference("1", 3)  # type: ignore[arg-type]
