"""Sweeps against the function called point by point."""

import numpy as np
import pytest
import xarray as xr

import neurodyn as nd


def point(a, b):
    return {"sum": a + b, "product": a * b}


def series(scale, kind):
    time = np.arange(4.0)
    data = xr.Dataset({"x": ("time", scale * time, {"units": "1"})}, {"time": ("time", time, {"units": "tau"})})
    return data.assign_attrs(made="here") if kind == "up" else -data


@pytest.mark.parametrize("scheduler", [None, "threads", "processes"])
def test_every_point_is_the_function_there(scheduler):
    swept = nd.sweep(point, {"a": [1, 2, 5], "b": range(4)}, scheduler=scheduler)
    assert dict(swept.sizes) == {"a": 3, "b": 4}
    for a in (1, 2, 5):
        for b in range(4):
            assert int(swept["sum"].sel(a=a, b=b)) == a + b
            assert int(swept["product"].sel(a=a, b=b)) == a * b


def test_datasets_keep_their_dimensions_and_attributes():
    swept = nd.sweep(series, {"kind": ["up", "down"], "scale": [0.5, 2.0]})
    assert swept["x"].dims == ("kind", "scale", "time")
    np.testing.assert_array_equal(swept["x"].sel(kind="down", scale=2.0), -2.0 * np.arange(4.0))
    assert swept["time"].attrs == {"units": "tau"}
    assert swept["x"].attrs == {"units": "1"}


def test_a_sweep_is_saved_and_reopened(tmp_path):
    swept = nd.sweep(series, {"kind": ["up", "down"], "scale": [0.5, 2.0]})
    xr.testing.assert_identical(nd.load(nd.save(swept, tmp_path / "sweep.nc")), swept)


def test_a_failing_point_fails_the_sweep():
    with pytest.raises(ZeroDivisionError):
        nd.sweep(lambda a: {"x": 1 / a}, {"a": [1, 0]})


@pytest.mark.parametrize(
    ("function", "grid", "error", "message"),
    [
        (point, {}, ValueError, "at least one parameter"),
        (point, {"a": [], "b": [1]}, ValueError, "'a' has no values"),
        (point, {"a": [1, 1], "b": [1]}, ValueError, "'a' has a value twice"),
        (lambda a: 3.0, {"a": [1]}, TypeError, "returned a float"),
        (lambda time: series(1.0, "up"), {"time": [1]}, ValueError, "already has 'time'"),
    ],
)
def test_bad_input(function, grid, error, message):
    with pytest.raises(error, match=message):
        nd.sweep(function, grid)
