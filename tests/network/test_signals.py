"""Signals: what they are between the times given, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

import neurodyn as nd

TIMES = np.array([0.0, 0.5, 2.0, 3.0])
VALUES = np.array([[1.0, -1.0], [2.0, 0.0], [2.0, 0.0], [0.0, 4.0]])


@pytest.mark.parametrize("kind", ["linear", "previous", "cubic"])
def test_values_between_the_times_given(kind):
    signal = nd.Signal(TIMES, VALUES, kind)
    for time in (0.0, 0.2, 0.5, 1.9999, 2.5, 3.0):
        expected = {
            "linear": [np.interp(time, TIMES, column) for column in VALUES.T],
            "previous": VALUES[np.searchsorted(TIMES, time, side="right") - 1],
            "cubic": CubicSpline(TIMES, VALUES)(time),
        }[kind]
        np.testing.assert_allclose(signal.at(time), expected, atol=1e-12)


def test_a_signal_jumps_where_its_value_changes():
    np.testing.assert_array_equal(nd.Signal(TIMES, VALUES, "previous").jumps, [0.5, 3.0])
    np.testing.assert_array_equal(nd.Signal(TIMES, VALUES[:, 0], "previous").jumps, [0.5, 3.0])
    for still in (nd.Signal(TIMES, VALUES, "linear"), nd.Signal([0.0], [1.0], "previous")):
        assert not len(still.jumps)


@pytest.mark.parametrize(
    ("times", "values", "kind", "message"),
    [
        ([0.0, 2.0, 1.0], [1.0, 2.0, 3.0], "linear", "times of Signal must increase"),
        ([0.0, 1.0, 1.0], [1.0, 2.0, 3.0], "linear", "drop repeated ones"),
        ([0.0, np.nan], [1.0, 2.0], "linear", "times of Signal must be finite"),
        ([], [], "linear", "at least one time"),
        (["a"], [1.0], "linear", "increasing numbers"),
        ([0.0, 1.0], [1.0, 2.0, 3.0], "linear", "there are 2 times"),
        ([0.0, 1.0], 1.0, "linear", r"have the shape \(\)"),
        ([0.0, 1.0], [1.0, np.inf], "linear", "1 are NaN or infinite"),
        ([0.0, 1.0], torch.tensor([0, 1]), "linear", "floating-point"),
        ([0.0, 1.0], ["a", "b"], "linear", "a tensor or an array of numbers"),
        ([0.0, 1.0], [0.0, 1.0], "nearest", "interpolation of Signal is 'linear', 'previous' or 'cubic'"),
    ],
)
def test_what_is_no_signal_is_refused(times, values, kind, message):
    with pytest.raises(nd.NeurodynError, match=message):
        nd.Signal(times, values, kind)


def test_constants_compare_by_value():
    assert nd.Constant(1.0) == nd.Constant(1)
    assert nd.Constant(torch.ones(3)) == nd.Constant(torch.ones(3))
    assert nd.Constant(torch.ones(3)) != nd.Constant(torch.zeros(3))
    assert hash(nd.Constant(torch.ones(3))) == hash(nd.Constant(torch.ones(3)))
    values: list[Any] = ["x", None, True, torch.tensor([1, 2]), torch.tensor([np.nan])]
    for wrong in values:
        with pytest.raises(nd.NeurodynError, match="value of Constant"):
            nd.Constant(wrong)
    with pytest.raises(ValueError, match=r"the constant has the shape \(2,\), and the population \(3,\)"):
        nd.simulate(nd.Network("n", [nd.Population("b", 3, clamp=nd.Constant(torch.ones(2)))]), None, duration=1.0)
