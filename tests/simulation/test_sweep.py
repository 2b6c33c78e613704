"""Sweeps against the function called point by point."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from tests.problems import tensor


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


def declare(gain: float, seed: int) -> nd.Network:
    module = nd.mlp([6, 5, 4, 3], seed=seed, dtype=torch.float64)
    network = pc.network(module, steps="equilibrium")
    couplings = [replace(c, gain=gain * c.gain) if c.target.startswith("x") else c for c in network.couplings]
    return network.with_dynamics(network.populations, couplings)


def test_points_run_at_once_are_those_run_alone():
    grid: dict[str, list[Any]] = {"gain": [0.5, 1.0, 2.0], "seed": [0, 3]}
    x, t = tensor(4, 6), tensor(4, 3, seed=1)

    def run(network):
        return nd.simulate(network, x, t, duration=2.0, solver=nd.Euler(0.1), save_at=3, record=["x1", "energy"])

    at_once = nd.sweep(declare, grid, at_once=run)
    alone = nd.sweep(lambda **where: run(declare(**where)), grid)
    xr.testing.assert_allclose(at_once, alone, rtol=1e-12)
    assert at_once["x1"].dims == ("gain", "seed", "time", "sample", "x1_unit")


@pytest.mark.parametrize(
    ("function", "at_once", "error", "message"),
    [
        (point, lambda networks: xr.Dataset(), TypeError, "returns a Network, and returned a dict"),
        (lambda a, b: declare(1.0, 0), lambda networks: xr.Dataset(), ValueError, "of the 2 points"),
        (lambda a, b: declare(1.0, 0), lambda networks: None, TypeError, "returns a dataset, and returned a NoneType"),
    ],
)
def test_bad_runs_at_once(function, at_once, error, message):
    with pytest.raises(error, match=message):
        nd.sweep(function, {"a": [1, 2], "b": [0]}, at_once=at_once)


def test_a_run_at_once_has_no_scheduler():
    with pytest.raises(ValueError, match="without a scheduler or progress"):
        nd.sweep(declare, {"gain": [1.0], "seed": [0]}, at_once=lambda networks: xr.Dataset(), scheduler="threads")
