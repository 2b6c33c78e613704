"""Sweeps against the function called point by point."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import dask
import distributed
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import neurodyn as nd
from neurodyn.errors import FileError, InsufficientMemoryError, InvalidTypeError
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
    with dask.config.set(num_workers=1):  # a process takes seconds to start
        swept = nd.sweep(point, {"a": [1, 2, 5], "b": range(4)}, scheduler=scheduler)
    assert dict(swept.sizes) == {"a": 3, "b": 4}
    for a in (1, 2, 5):
        for b in range(4):
            assert int(swept["sum"].sel(a=a, b=b)) == a + b
            assert int(swept["product"].sel(a=a, b=b)) == a * b


def test_a_running_cluster_takes_the_points():
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None):
        swept = nd.sweep(point, {"a": [1, 2, 5], "b": range(4)}, scheduler="distributed")
    xr.testing.assert_identical(swept, nd.sweep(point, {"a": [1, 2, 5], "b": range(4)}))


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


KINDS: dict[str, tuple[Any, type[Exception], str]] = {
    "1 and its text": ([1, "1"], ValueError, "values of several kinds, numbers and text"),
    "1 and True": ([1, True], ValueError, "values of several kinds, booleans and numbers"),
    "1 and 1.0": ([1, 1.0], ValueError, "has a value twice"),
    "one coordinate for two": ([2**53, 2**53 + 1, 0.5], ValueError, "has a value twice"),
    "NaN": ([np.nan, 1.0], ValueError, "has NaN among its values"),
    "NaN twice": ([np.nan, np.nan], ValueError, "has NaN among its values"),
    "None": ([None, 1.0], TypeError, "has None among its values; they are numbers, text or booleans"),
    "lists": ([[1], [2]], TypeError, r"has \[1\] among its values"),
    "a tensor": ([torch.tensor(1.0)], TypeError, r"has tensor\(1\.\) among its values"),
    "complex": ([1j], TypeError, "has 1j among its values"),
    "beyond 64 bits": ([10**30], ValueError, "64 bits do not hold"),
    "a text": ("abc", TypeError, "has several values; give a list of them, not 'abc'"),
    "a number": (3, TypeError, "has several values; give a list of them, not 3"),
    "an array of no dimension": (np.array(3.0), TypeError, r"has several values; give a list of them, not array\(3"),
    "a tensor of no dimension": (torch.tensor(3.0), TypeError, "has several values; give a list of them, not 3.0"),
    "large integers of either sign": ([2**63 + 1, -1], ValueError, "9223372036854775809 .* would be 9.22337"),
    "a NUL at the end": (["x\0", "y"], ValueError, r"'x\\x00' .* would be 'x'"),
    "fractions": ([Fraction(1, 3), 2], ValueError, "numbers that 64 bits do not hold"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_a_coordinate_does_not_keep_apart_are_refused(kind: str) -> None:
    values, error, message = KINDS[kind]
    with pytest.raises(error, match=rf"parameter 'a' .*{message}"):
        nd.sweep(lambda a: {"x": 1.0}, {"a": values})


@pytest.mark.parametrize(
    "values", [torch.linspace(0, 1, 3), np.arange(3), xr.DataArray([1.0, 2.0]), (True, False), {2, 3}], ids=str
)
def test_values_come_in_any_container(values: Any) -> None:
    swept = nd.sweep(lambda a: {"x": a}, {"a": values})
    np.testing.assert_array_equal(swept.x, swept.a)
    np.testing.assert_array_equal(swept.a, list(values))


RESULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "None": (lambda a: {"x": None}, TypeError, "a result's 'x' is a NoneType"),
    "a list": (lambda a: {"x": [1.0, 2.0]}, TypeError, r"a result's 'x' is a list; give .*'time', values"),
    "no dimensions": (lambda a: {"x": np.ones(2)}, TypeError, "a result's 'x' is a ndarray"),
    "no variables": (lambda a: xr.Dataset(coords={"t": [1.0]}), ValueError, "the result has no variables"),
    "objects": (lambda a: {"x": ("t", np.array(["a", 1], object))}, TypeError, "a result's 'x' holds objects"),
    "dates": (lambda a: {"x": np.datetime64("2020-01-01")}, TypeError, "a result's 'x' holds datetime64"),
    "other sizes": (lambda a: {"x": ("t", np.ones(a))}, ValueError, r"at a = 2, 'x' has the sizes .*2.*at a = 1 .*1"),
    "other dimensions": (
        lambda a: {"x": (f"t{a}", np.ones(2))},
        ValueError,
        r"at a = 2, 'x' has the dimensions \('t2',\), and at a = 1 \('t1',\)",
    ),
    "other variables": (lambda a: {f"x{a}": 1}, ValueError, "at a = 1 there is a variable 'x1', and at a = 2 there is"),
    "other kinds": (lambda a: {"x": a if a == 1 else "2"}, ValueError, "at a = 2, 'x' is <U1, and at a = 1 int64"),
    "other times": (
        lambda a: xr.Dataset({"x": ("time", [1.0, 2.0])}, {"time": [0.0, a]}),
        ValueError,
        "at a = 2, the coordinate 'time' is another one than at a = 1",
    ),
    "other units": (
        lambda a: xr.Dataset({"x": ((), 1.0, {"units": str(a)})}),
        ValueError,
        "at a = 2, 'x' is in units of '2', and at a = 1 of '1'",
    ),
    "attributes of other kinds": (
        lambda a: xr.Dataset({"x": 1.0}, attrs={"made": a if a == 1 else "b"}),
        TypeError,
        "the attribute 'made' differs from point to point, and at a = 2 it is a str",
    ),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_that_do_not_stand_side_by_side_are_refused(kind: str) -> None:
    function, error, message = RESULTS[kind]
    with pytest.raises(error, match=message):
        nd.sweep(function, {"a": [1, 2]})


def leaky(gain: float) -> nd.Network:
    return nd.Network("n", [nd.Population("x", 1)], [nd.Coupling("x", "x", nd.Forward(nn.Tanh()), gain=gain)])


def test_what_happened_at_each_point_stands_over_the_grid() -> None:
    def run(gain: float, solver: str) -> xr.Dataset:
        chosen = {"Euler": nd.Euler(0.1), "Heun": nd.Heun(0.1)}[solver]
        start = {"x": torch.full((1, 1), 0.5, dtype=torch.float64)}
        return nd.simulate(leaky(gain), None, duration=30.0, solver=chosen, initial=start, save_at=2)

    grid: dict[str, list[Any]] = {"gain": [0.1, 0.9], "solver": ["Euler", "Heun"]}
    swept = nd.sweep(run, grid)
    for gain in grid["gain"]:
        for solver in grid["solver"]:
            here, alone = swept.sel(gain=gain, solver=solver), run(gain, solver)
            for fact in ("converged", "residual", "evaluations", "equations"):
                assert here[fact].item() == alone.attrs[fact]
            assert here.solver_of_run.item() == alone.attrs["solver"]
    assert 0 < int(swept.converged.sum()) < 4
    assert swept.attrs["accepted_steps"] == 300
    assert not {"converged", "residual", "evaluations", "equations"} & set(swept.attrs)
    assert "solver" not in swept.x.attrs  # Euler here, Heun there
    assert swept.x.attrs["tau"] == 1.0


def test_what_some_points_alone_say_is_missing_at_the_others() -> None:
    def point(a: int) -> xr.Dataset:
        return xr.Dataset({"x": a}, attrs={"note": "odd", "count": a} if a % 2 else {"count": a})

    swept = nd.sweep(point, {"a": [1, 2]})
    assert swept.note.values.tolist() == ["odd", ""]
    assert swept["count"].values.tolist() == [1, 2]


@pytest.mark.parametrize("scheduler", ["thread", 3, "distributed"])
def test_a_scheduler_that_is_not_there_is_refused(scheduler: Any) -> None:
    with pytest.raises(ValueError, match=r"scheduler: (there is no|'distributed' needs a running cluster)"):
        nd.sweep(lambda a: {"x": 1.0}, {"a": [1]}, scheduler=scheduler)


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
    xr.testing.assert_allclose(at_once, alone.drop_vars(["equations", "residual"]), rtol=1e-12)
    assert at_once["x1"].dims == ("gain", "seed", "time", "sample", "x1_unit")


@pytest.mark.parametrize(
    ("function", "at_once", "error", "message"),
    [
        (point, lambda networks: xr.Dataset(), TypeError, "returns a Network, and returned a dict"),
        (lambda a, b: declare(1.0, 0), lambda networks: xr.Dataset({"x": 1.0}), ValueError, "of the 2 points"),
        (lambda a, b: declare(1.0, 0), lambda networks: None, TypeError, "returns a dataset, and returned a NoneType"),
    ],
)
def test_bad_runs_at_once(function, at_once, error, message):
    with pytest.raises(error, match=message):
        nd.sweep(function, {"a": [1, 2], "b": [0]}, at_once=at_once)


def test_blocks_of_networks_that_run_at_once_are_put_in_the_order_of_the_grid() -> None:
    grid: dict[str, list[Any]] = {"gain": [0.5, 1.0, 2.0], "seed": [0, 3, 4]}
    x, t = tensor(4, 6), tensor(4, 3, seed=1)

    def run(networks):
        return nd.simulate(networks, x, t, duration=2.0, solver=nd.Euler(0.1), save_at=3, record=["x1"])

    whole = nd.sweep(declare, grid, at_once=run)
    xr.testing.assert_allclose(nd.sweep(declare, grid, at_once=run, block=2).x1, whole.x1, rtol=1e-12)
    xr.testing.assert_allclose(nd.sweep(declare, grid, at_once=run, scheduler="threads", block=4).x1, whole.x1)


def columns(a: torch.Tensor, kind: list[str]) -> dict[str, Any]:
    if bool((a == 3.0).any()):
        raise ArithmeticError("three")
    return {"y": a * a, "z": (("network", "u"), torch.stack([a, -a], 1)), "length": torch.tensor([*map(len, kind)])}


def test_a_function_takes_a_block_as_tensors() -> None:
    grid: dict[str, Any] = {"kind": ["one", "four"], "a": [1.0, 2.0, 4.0]}
    swept = nd.sweep(columns, grid, at_once=True, block=2)
    np.testing.assert_array_equal(swept.y, [[1, 4, 16]] * 2)
    np.testing.assert_array_equal(swept.z.sel(kind="four", u=1, drop=True), [-1, -2, -4])
    np.testing.assert_array_equal(swept.length.sel(kind="four"), [4, 4, 4])


def test_what_fails_among_many_at_once_is_found_and_named() -> None:
    grid: dict[str, Any] = {"kind": ["one"], "a": [*map(float, range(1, 8))]}
    with pytest.raises(ArithmeticError, match="three") as raised:
        nd.sweep(columns, grid, at_once=True)
    assert "a = 3.0" in " ".join(raised.value.__notes__)
    assert raised.value.__context__ is None  # the halves that were tried on the way are not told of
    swept = nd.sweep(columns, grid, at_once=True, on_error="record")
    assert swept.error.sel(kind="one").values.tolist() == ["", "", "ArithmeticError: three", "", "", "", ""]
    np.testing.assert_array_equal(swept.y.sel(kind="one"), [1, 4, np.nan, 16, 25, 36, 49])


def inverse(a: int) -> dict[str, Any]:
    return {"x": 1 / a, "kind": "odd" if a % 2 else "even", "count": a}


@pytest.mark.parametrize("block", [1, 2, 4])
def test_results_unlike_the_first_are_recorded_whatever_the_blocks(block: int) -> None:
    def unlike(a: int) -> dict[str, Any]:
        return {"y": 1.0} if a == 2 else {"x": ("t", np.full(1 + a % 2, a))}

    swept = nd.sweep(unlike, {"a": [0, 2, 1, 4, 3, 6]}, on_error="record", block=block)
    np.testing.assert_array_equal(swept.x.isel(t=0), [0, np.nan, np.nan, 4, np.nan, 6])
    assert [bool(error) for error in swept.error.values] == [False, True, True, False, True, False]


def test_a_point_may_run_stacked_networks() -> None:
    def both(gain: float) -> xr.Dataset:
        networks = [leaky(gain), leaky(2 * gain)]
        return nd.simulate(networks, None, duration=1.0, solver=nd.Euler(0.1), initial={"x": torch.ones(1)})

    swept = nd.sweep(both, {"gain": [0.1, 0.2]})
    assert swept.x.dims == ("gain", "network", "time", "sample", "x_unit")
    np.testing.assert_allclose(swept.x[0, 1], swept.x[1, 0], rtol=1e-5)


def test_coordinates_of_networks_become_variables() -> None:
    def run(networks: list[nd.Network]) -> xr.Dataset:
        return nd.simulate(networks, None, duration=1.0).assign_coords(place=("network", np.arange(len(networks))))

    swept = nd.sweep(leaky, {"gain": [0.1, 0.2, 0.3]}, at_once=run, block=2)
    np.testing.assert_array_equal(swept.place, [0, 1, 0])


def test_what_a_result_says_leaves_the_names_of_the_sweep_alone() -> None:
    swept = nd.sweep(lambda a: xr.Dataset({"x": a}, attrs={"error": a, "computed": a}), {"a": [0, 1]})
    np.testing.assert_array_equal(swept.error_of_run, [0, 1])
    np.testing.assert_array_equal(swept.computed_of_run, [0, 1])


@pytest.mark.parametrize("scheduler", [None, "threads"])
def test_errors_are_recorded_with_their_points(scheduler: str | None) -> None:
    swept = nd.sweep(inverse, {"a": [2, 0, 1]}, on_error="record", scheduler=scheduler)
    assert swept.error.values.tolist() == ["", "ZeroDivisionError: division by zero", ""]
    np.testing.assert_array_equal(swept.x, [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(swept["count"], [2, np.nan, 1])
    assert swept.kind.values.tolist() == ["even", "", "odd"]


@pytest.mark.parametrize("kind", [InsufficientMemoryError, FileError, InvalidTypeError, OSError])
def test_an_error_of_a_point_keeps_its_kind(kind: type[Exception]) -> None:  # as `distributed` has tblib unpickle it
    def point(a: int) -> dict[str, Any]:
        raise kind("told")

    with pytest.raises(kind, match="told"):
        nd.sweep(point, {"a": [1]})


def test_an_error_is_raised_with_its_point() -> None:
    with pytest.raises(ZeroDivisionError, match="division") as raised:
        nd.sweep(inverse, {"a": [2, 0, 1]})
    assert raised.value.__notes__[-1] == "sweep: at a = 0"
    with pytest.raises(ValueError, match="every point failed; at a = 0: ZeroDivisionError"):
        nd.sweep(inverse, {"a": [0]}, on_error="record")


def drawn(a: int) -> dict[str, float]:
    import random

    return {"torch": float(torch.rand(())), "numpy": float(np.random.rand()), "python": random.random()}  # noqa: NPY002


def test_random_numbers_are_a_points_own() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    whole, apart = nd.sweep(drawn, {"a": range(6)}), nd.sweep(drawn, {"a": [5, 4]}, block=2)
    assert torch.equal(torch.get_rng_state(), before)
    xr.testing.assert_identical(apart, whole.sel(a=[5, 4]))
    assert len(np.unique(whole.to_array())) == 18


def test_random_numbers_that_points_would_share_are_refused() -> None:
    with pytest.raises(ValueError, match="draws random numbers"):
        nd.sweep(drawn, {"a": [1, 2]}, scheduler="threads")
    with pytest.raises(ValueError, match="draws random numbers"):
        nd.sweep(lambda a: {"x": torch.rand_like(a)}, {"a": [1.0, 2.0]}, at_once=True)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"share": (0, 2)}, ValueError, "give store="),
        ({"share": (2, 2), "store": "s.zarr"}, ValueError, r"the last one is \(1, 2\)"),
        ({"share": 1, "store": "s.zarr"}, TypeError, "share is a pair"),
        ({"block": 0}, ValueError, "block must be an integer ≥ 1"),
        ({"on_error": "skip"}, ValueError, "on_error is 'raise' or 'record'"),
        ({"store": "sweep.nc"}, ValueError, "must end in .zarr"),
        ({"store": "s3://bucket/sweep.zarr"}, ValueError, "not a URL such as 's3://bucket/sweep.zarr'"),
        ({"grid": {"b": [1]}}, TypeError, "point: it is called with b by name, and that does not fit"),
        ({"at_once": lambda: None}, TypeError, "at_once: it is called with a list of networks, and that does not fit"),
        ({"grid": {"error": [1]}, "on_error": "record"}, ValueError, "adds a variable 'error' of its own"),
        ({"grid": {"computed": [1]}, "store": "s.zarr"}, ValueError, "adds a variable 'computed' of its own"),
        ({"grid": {"a": (i for i in range(3))}}, TypeError, "a generator, which gives its values only once"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nd.sweep(inverse, **({"grid": {"a": [1, 2]}} | settings))
