"""Sweeps: a function of parameters at every point of a grid, as one dataset with the parameters as dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from neurodyn.checks import flag, needed, users
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.network import Network
from neurodyn.simulation.side_by_side import as_dataset, side_by_side

Point = Callable[..., xr.Dataset | Mapping[str, Any] | Network]
"""A function of the parameters by name, that returns a dataset, numbers and arrays by name, or a declaration."""

_SCHEDULERS = ("synchronous", "threads", "processes", "distributed")


def sweep(
    point: Point,
    grid: Mapping[str, Iterable[Any]],
    *,
    at_once: Callable[[list[Network]], xr.Dataset] | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Call a function at every point of a grid, and put the results side by side.

    Parameters
    ----------
    point
        A function of the grid's parameters, by name. It returns an `xarray.Dataset`, or a mapping of names to numbers,
        or to pairs (dimensions, array); of the same variables, dimensions and coordinates at every point. With
        `at_once`, it returns the network of that point.
    grid
        The values of each parameter: numbers, text or booleans, all of one kind and each once.
    at_once
        A function that runs the networks of all points together, and returns a dataset with a dimension `network`, such
        as `lambda networks: nd.simulate(networks, inputs, targets, duration=10.0)`.
    scheduler
        Dask's: None or "synchronous" one after the other, "threads", "processes", or that of a running
        `dask.distributed` cluster, "distributed".
    progress
        Whether to show a bar, on a terminal.

    Returns
    -------
    xarray.Dataset
        With the parameters as the first dimensions, in the order of the grid, and their values as coordinates. What a
        result's attributes say (`solver`, `converged`, `residual`, …) stays an attribute where it is the same at every
        point, and is a variable over the grid where it differs, called `<name>_of_run` where the name is taken.

    Raises
    ------
    ValueError
        If the grid is empty; a parameter has no values, one twice, NaN, or values of several kinds; a parameter's name
        is a dimension of a result; variables, dimensions, coordinates or units differ between points; the scheduler is
        unknown; or `at_once` returns a dataset without the networks' dimension, or comes with a scheduler or progress.
    TypeError
        If a value of a parameter is neither number nor text nor boolean, `point` returns neither a dataset nor a
        mapping, or with `at_once` no network, or `at_once` no dataset.
    """
    values = _grid(grid)
    for what, function in (("point", point), ("at_once", at_once)):
        if not callable(function) and not (function is None and what == "at_once"):
            raise InvalidTypeError(f"{what}: a function, not a {type(function).__name__}")
    flag("progress", progress)
    points = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    if at_once is not None:
        if scheduler is not None or progress:
            raise InvalidValueError(
                "sweep: with at_once there is one run, without a scheduler or progress; leave them out"
            )
        results = _together(point, at_once, points)
    else:
        results = _one_by_one(point, points, scheduler, progress)
    return side_by_side(results, points, {name: np.asarray(given) for name, given in values.items()})


def _grid(grid: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    """Return the values of each parameter.

    Raises
    ------
    TypeError, ValueError
        If there are none, or they would not make a coordinate in which each is found again.
    """
    if not isinstance(grid, Mapping):
        raise InvalidTypeError(f"grid: a mapping of parameters to their values, not a {type(grid).__name__}")
    if not grid:
        raise InvalidValueError("grid: name at least one parameter and its values")
    return {name: _values(name, given) for name, given in grid.items()}


def _values(name: str, given: Iterable[Any]) -> list[Any]:
    if not isinstance(name, str):
        raise InvalidTypeError(f"grid: the name of a parameter is text, not {name!r}")
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InvalidTypeError(f"grid: parameter {name!r} has several values; give a list of them, not {given!r}")
    if isinstance(given, (Tensor, xr.DataArray)):
        given = given.tolist() if isinstance(given, Tensor) else given.to_numpy()
    values = list(given)
    if not values:
        raise InvalidValueError(f"grid: parameter {name!r} has no values")
    kinds = {_kind(name, value) for value in values}
    if len(kinds) > 1:
        raise InvalidValueError(
            f"grid: parameter {name!r} has values of several kinds, {' and '.join(sorted(kinds))}, which one "
            "coordinate does not keep apart; give all as one kind"
        )
    coordinate = np.asarray(values)
    if coordinate.dtype.kind not in "biufU":
        raise InvalidValueError(f"grid: parameter {name!r} has integers that 64 bits do not hold; give others")
    if len(np.unique(coordinate)) < len(values):
        raise InvalidValueError(f"grid: parameter {name!r} has a value twice; give each once")
    return values


def _kind(name: str, value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "booleans"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Real):
        if math.isnan(value):
            raise InvalidValueError(
                f"grid: parameter {name!r} has NaN among its values, which no coordinate finds again; leave it out"
            )
        return "numbers"
    raise InvalidTypeError(
        f"grid: parameter {name!r} has {value!r} among its values; they are numbers, text or booleans, of which a "
        "function of your own may make anything else"
    )


def _one_by_one(point: Point, points: list[dict[str, Any]], scheduler: str | None, progress: bool) -> list[xr.Dataset]:
    if scheduler is not None and not (isinstance(scheduler, str) and scheduler in _SCHEDULERS):
        raise InvalidValueError(
            f"scheduler: there is no {scheduler!r}; there are None, {', '.join(map(repr, _SCHEDULERS))}"
        )
    bar = tqdm(total=len(points), unit="point", disable=None if progress else True)
    if scheduler is None:
        results = []
        with bar:
            for where in points:
                results.append(_alone(point, where))
                bar.update()
        return results
    base, delayed = needed("dask.base", extra="sweep"), needed("dask.delayed", extra="sweep").delayed
    callback = needed("dask.callbacks", extra="sweep").Callback
    if scheduler == "distributed":
        needed("distributed", extra="sweep")
    try:
        run = base.get_scheduler(scheduler=scheduler)
    except RuntimeError as error:
        raise InvalidValueError(
            "scheduler: 'distributed' needs a running cluster: make a dask.distributed.Client first"
        ) from error
    tasks = [delayed(_alone, pure=False)(point, where) for where in points]
    with bar, callback(posttask=lambda *_: bar.update()):
        return list(base.compute(*tasks, scheduler=run))


def _together(
    point: Point, at_once: Callable[[list[Network]], xr.Dataset], points: list[dict[str, Any]]
) -> list[xr.Dataset]:
    networks = []
    for where in points:
        network = point(**where)
        if not isinstance(network, Network):
            raise InvalidTypeError(
                f"sweep: with at_once the function returns a Network, and returned a {type(network).__name__}"
            )
        networks.append(network)
    with users("at_once"):
        run = at_once(networks)
    if not isinstance(run, xr.Dataset):
        raise InvalidTypeError(f"sweep: at_once returns a dataset, and returned a {type(run).__name__}")
    if run.sizes.get("network") != len(points):
        raise InvalidValueError(
            f"sweep: at_once returns a dataset with a dimension 'network' of the {len(points)} points; its sizes are "
            f"{dict(run.sizes)}"
        )
    return [as_dataset(run.isel(network=place, drop=True), where) for place, where in enumerate(points)]


def _alone(point: Point, where: dict[str, Any]) -> xr.Dataset:
    return as_dataset(point(**where), where)
