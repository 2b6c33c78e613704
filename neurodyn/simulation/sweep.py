"""Sweeps: a function of parameters at every point of a grid, as one dataset with the parameters as dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from tqdm import tqdm

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.network import Network

Point = Callable[..., xr.Dataset | Mapping[str, Any] | Network]
"""A function of the parameters by name, that returns a dataset, numbers and arrays by name, or a declaration."""


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
        A function of the grid's parameters, by name. It returns an `xarray.Dataset`, or a mapping of names to numbers;
        of the same variables and dimensions at every point. With `at_once`, it returns the network of that point.
    grid
        The values of each parameter: numbers, text or booleans, each once.
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
        With the parameters as the first dimensions, in the order of the grid, and their values as coordinates.

    Raises
    ------
    ValueError
        If the grid is empty, a parameter has no values or one twice, a parameter's name is a dimension of a result, or
        `at_once` returns a dataset without the networks' dimension, or comes with a scheduler or progress.
    TypeError
        If `point` returns neither a dataset nor a mapping, or with `at_once` no network, or `at_once` no dataset.
    """
    values = {name: list(given) for name, given in grid.items()}
    if not values:
        raise InvalidValueError("grid: name at least one parameter and its values")
    for name, given in values.items():
        if not given:
            raise InvalidValueError(f"grid: parameter {name!r} has no values")
        if len(set(given)) != len(given):
            raise InvalidValueError(f"grid: parameter {name!r} has a value twice; give each once")
    points = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    if at_once is not None:
        if scheduler is not None or progress:
            raise InvalidValueError(
                "sweep: with at_once there is one run, without a scheduler or progress; leave them out"
            )
        return _side_by_side(_together(point, at_once, points), values)
    tasks = [delayed(_alone, pure=False)(point, where) for where in points]
    bar = tqdm(total=len(points), unit="point", disable=None if progress else True)
    with bar, Callback(posttask=lambda *_: bar.update()):  # type: ignore[no-untyped-call]
        results = compute(*tasks, scheduler=scheduler or "synchronous")  # type: ignore[no-untyped-call]
    return _side_by_side(list(results), values)


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
    run = at_once(networks)
    if not isinstance(run, xr.Dataset):
        raise InvalidTypeError(f"sweep: at_once returns a dataset, and returned a {type(run).__name__}")
    if run.sizes.get("network") != len(points):
        raise InvalidValueError(
            f"sweep: at_once returns a dataset with a dimension 'network' of the {len(points)} points; its sizes are "
            f"{dict(run.sizes)}"
        )
    return [_labelled(run.isel(network=place, drop=True), where) for place, where in enumerate(points)]


def _alone(point: Point, where: dict[str, Any]) -> xr.Dataset:
    return _labelled(point(**where), where)


def _labelled(result: object, where: dict[str, Any]) -> xr.Dataset:
    if not isinstance(result, (xr.Dataset, Mapping)):
        raise InvalidTypeError(
            f"sweep: the function returns a dataset or a mapping, and returned a {type(result).__name__}"
        )
    data = result if isinstance(result, xr.Dataset) else xr.Dataset(result)
    taken = [str(name) for name in where if name in data.variables or name in data.dims]
    if taken:
        raise InvalidValueError(
            f"sweep: the result already has {taken[0]!r}, which is a parameter of the grid; rename one"
        )
    return data


def _side_by_side(results: list[xr.Dataset], values: dict[str, list[Any]]) -> xr.Dataset:
    for name, given in reversed(values.items()):
        index = xr.DataArray(np.asarray(given), dims=name, name=name)
        rows = [results[i : i + len(given)] for i in range(0, len(results), len(given))]
        results = [xr.concat(row, index, coords="minimal", compat="override", join="exact") for row in rows]
    return results[0]
