"""A trajectory: the labelled xarray dataset of a run, in memory, in NetCDF, or streamed to Zarr."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import ExistingFileError, InvalidValueError, MissingFileError
from neurodyn.solvers.base import Report
from neurodyn.system.system import State, System

_IMAGE = ("channel", "row", "column")
_AXIS_NAMES = {"unit": "unit", "channel": "channel", "row": "row of units", "column": "column of units"}
_CHUNK_BYTES = 64 * 2**20
"""How much of a streamed trajectory is held in memory."""
_ORDER = "variable_order"
"""The attribute of a Zarr store that keeps the order of the variables, as Zarr lists them in none."""


def unit_dims(name: str, shape: Sequence[int]) -> tuple[str, ...]:
    """Return the names of a population's own dimensions.

    Parameters
    ----------
    name
        The population's name.
    shape
        The shape of one sample: (units,), (channels, rows, columns), or of any other number of axes.

    Returns
    -------
    tuple of str
        `<name>_unit`; `<name>_channel`, `<name>_row`, `<name>_column`; or `<name>_axis0`, ….
    """
    if len(shape) == 1:
        return (f"{name}_unit",)
    kinds = _IMAGE if len(shape) == 3 else tuple(f"axis{i}" for i in range(len(shape)))
    return tuple(f"{name}_{kind}" for kind in kinds)


class TrajectoryRecorder:
    """Collects the states that a solver saves, in memory or, with a store, in chunks streamed to Zarr.

    Parameters
    ----------
    system
        The system that runs.
    names
        The populations and observables to record.
    times
        The times to save at, or None for every step.
    expected
        How many states will come, where that is known.
    store
        A Zarr store to stream to, or None.
    """

    def __init__(
        self,
        system: System,
        names: Sequence[str],
        times: NDArray[np.float64] | None,
        expected: int | None,
        store: Path | None,
    ) -> None:
        self.times = times
        self._system = system
        self._names = [name for name in names if name not in system.clamped]
        # Copied, because a clamp may be the caller's own tensor.
        self._held = {name: to_numpy(system.clamped[name]).copy() for name in names if name in system.clamped}
        self._order = list(names)
        self._dynamic_alone = set(self._names) <= set(system.dynamic)
        sample_bytes = sum(prod(system.shape(name)) for name in names) * system.samples * system.dtype.itemsize
        self._capacity = expected or 64
        if store is not None:
            self._capacity = max(1, min(self._capacity, _CHUNK_BYTES // max(1, sample_bytes)))
        self._store = None if store is None else ZarrStream(store)
        self._buffers = {name: self._buffer(name, self._capacity) for name in self._names}
        self._moments: list[float] = []

    def _buffer(self, name: str, capacity: int) -> Tensor:
        shape = (capacity, self._system.samples, *self._system.shape(name))
        if self._system.device.type == "cpu":
            # NumPy asks for huge pages, which makes the first write to a large buffer several times faster.
            return torch.from_numpy(np.empty(shape, to_numpy(torch.empty(0, dtype=self._system.dtype)).dtype))
        return torch.empty(shape, dtype=self._system.dtype, device=self._system.device)

    def record(self, time: float, state: State, *, settled: bool = False) -> None:
        """Save a state; `settled` if the instantaneous populations are already at their activity there."""
        if not (settled or self._dynamic_alone):
            self._system.settle(state)
        if len(self._moments) == self._capacity:
            self._make_room()
        for name in self._names:
            self._buffers[name][len(self._moments)].copy_(self._system.read(name, state))
        self._moments.append(time)

    def combine(self, times: NDArray[np.float64], weights: Tensor, rows: Tensor) -> None:
        """Save the states weights @ rows; weights (time, row), and rows (row, n) of flat states."""
        if not self._dynamic_alone:
            for time, weight in zip(times.tolist(), weights, strict=True):
                self.record(time, self._system.new_state(torch.mv(rows.t(), weight)))
            return
        saved = 0
        while saved < len(times):
            if len(self._moments) == self._capacity:
                self._make_room()
            here = len(self._moments)
            count = min(self._capacity - here, len(times) - saved)
            for name, place in self._system.places():
                if name in self._buffers:
                    out = self._buffers[name][here : here + count].view(count, -1)
                    if out.dtype == rows.dtype:
                        torch.mm(weights[saved : saved + count], rows[:, place], out=out)
                    else:  # NumPy lacks bfloat16
                        out.copy_(weights[saved : saved + count] @ rows[:, place])
            self._moments.extend(times[saved : saved + count].tolist())
            saved += count

    def _make_room(self) -> None:
        if self._store is not None:
            self._store.append(self._dataset())
            self._moments.clear()
            return
        self._capacity *= 2
        for name, buffer in self._buffers.items():
            larger = self._buffer(name, self._capacity)
            larger[: len(buffer)].copy_(buffer)
            self._buffers[name] = larger

    def _dataset(self, attributes: Mapping[str, Any] | None = None) -> xr.Dataset:
        count = len(self._moments)
        values: dict[str, NDArray[Any]] = {}
        for name in self._order:
            if name in self._held:
                values[name] = np.broadcast_to(self._held[name], (count, *self._held[name].shape))
            else:
                values[name] = to_numpy(self._buffers[name][:count])
        return dataset(self._system, values, np.array(self._moments), attributes)

    def finish(self, attributes: dict[str, Any]) -> xr.Dataset:
        """Return the trajectory, with the attributes that tell what ran; a streamed one is reopened from its store."""
        if self._store is None:
            return self._dataset(attributes)
        if self._moments:
            self._store.append(self._dataset())
        return self._store.close(attributes)

    def discard(self) -> None:
        """Remove what was streamed of a run that failed."""
        if self._store is not None:
            self._store.discard()


def dataset(
    system: System,
    values: dict[str, NDArray[Any]],
    times: NDArray[np.float64] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Label the activity of populations, and observables.

    Parameters
    ----------
    system
        The system that they belong to.
    values
        What they hold by name, shape (time, sample, …), or (sample, …) where `times` is None.
    times
        The times, shape (time,).
    attributes
        Those of the dataset.

    Returns
    -------
    xarray.Dataset
        One variable a population, with dimensions `time`, `sample` and the population's own.
    """
    coordinates: dict[str, Any] = {
        "sample": ("sample", np.arange(system.samples), {"units": "1", "long_name": "sample of the batch"})
    }
    leading: tuple[str, ...] = ("sample",)
    if times is not None:
        coordinates["time"] = ("time", times, {"units": "tau", "long_name": "time, in units of a time constant of 1"})
        leading = ("time", "sample")
    variables: dict[str, Any] = {}
    for name, value in values.items():
        if name in system.network.observables:
            long_name = system.network.observables[name].long_name
            variables[name] = (leading, value, {"units": "1", "long_name": long_name})
            continue
        population, shape = system.network[name], system.shape(name)
        dims = unit_dims(name, shape)
        for dim, length in zip(dims, shape, strict=True):
            kind = dim.removeprefix(f"{name}_")
            coordinates[dim] = (
                dim,
                np.arange(length),
                {"units": "1", "long_name": f"{_AXIS_NAMES.get(kind, kind)} of {name}"},
            )
        role = "clamped" if name in system.clamped else "instantaneous" if population.tau == 0 else "dynamic"
        described = {"units": "1", "long_name": f"activity of population {name}", "role": role}
        variables[name] = ((*leading, *dims), value, {**described, "tau": population.tau, "leak": population.leak})
    return xr.Dataset(variables, coordinates, attributes)


def run_attributes(system: System, report: Report) -> dict[str, Any]:
    """Return what ran, as the attributes of a dataset: text and numbers that NetCDF and Zarr keep unchanged."""
    stable = {} if report.stable is None else {"stable": int(report.stable)}
    return {
        "network": system.network.name,
        "equations": system.network.equations(),
        "solver": report.solver,
        "solver_reason": report.reason,
        "evaluations": report.evaluations,
        "accepted_steps": report.accepted,
        "rejected_steps": report.rejected,
        "residual": report.residual,
        "converged": int(report.converged),
        **stable,
        "neurodyn_version": version("neurodyn"),
        "torch_version": str(torch.__version__),
    }


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values as an array on the host, sharing memory where it can; bfloat16 becomes float32."""
    if tensor.dtype == torch.bfloat16:  # which NumPy lacks
        tensor = tensor.float()
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def save(data: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a dataset to NetCDF (`.nc`) or Zarr (`.zarr`), under a temporary name until it is complete.

    Parameters
    ----------
    data
        A trajectory, or any dataset.
    path
        Where; an existing file or store is replaced.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    ValueError
        If the path ends in neither.
    """
    path = Path(path)
    kind = _format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        if kind == "netcdf":
            data.to_netcdf(partial, engine="h5netcdf")
        else:
            ordered = data.assign_attrs({_ORDER: list(map(str, data.data_vars))})
            ordered.to_zarr(partial, mode="w", consolidated=False, zarr_format=3)
        _replace(partial, path)
    finally:
        _remove(partial)
    return path


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a dataset written by `save` or streamed by `simulate(store=…)`.

    Parameters
    ----------
    path
        A NetCDF file (`.nc`), read whole, or a Zarr store (`.zarr`), read as it is used.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    ValueError
        If the path ends in neither.
    FileNotFoundError
        If it does not exist.
    """
    path = Path(path)
    kind = _format(path)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist")
    if kind == "netcdf":
        return xr.load_dataset(path, engine="h5netcdf")
    data = xr.open_dataset(path, engine="zarr", consolidated=False)
    order = data.attrs.pop(_ORDER, [])
    return data[sorted(data.data_vars, key=lambda name: order.index(name) if name in order else len(order))]


class ZarrStream:
    """A Zarr store that grows along `time` under a temporary name, and takes its own name when it is closed.

    Parameters
    ----------
    path
        The store; must end in `.zarr` and not exist.

    Raises
    ------
    ValueError
        If the name does not end in `.zarr`.
    FileExistsError
        If it exists.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".zarr":
            raise InvalidValueError(
                f"store must end in .zarr, not {path.name!r}: only Zarr can grow while a run goes on"
            )
        if path.exists():
            raise ExistingFileError(f"store {path} exists; remove it or choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._partial = path, _partial(path)
        self._started = False

    def append(self, chunk: xr.Dataset) -> None:
        """Write the next chunk along `time`."""
        write: Callable[..., Any] = chunk.assign_attrs({_ORDER: list(chunk.data_vars)}).to_zarr
        if self._started:
            write(self._partial, append_dim="time", consolidated=False, zarr_format=3)
        else:
            write(self._partial, mode="w", consolidated=False, zarr_format=3)
        self._started = True

    def close(self, attributes: dict[str, Any]) -> xr.Dataset:
        """Add the attributes, move the store to its name and reopen it."""
        import zarr

        zarr.open_group(self._partial, mode="a").attrs.update(attributes)
        _replace(self._partial, self._path)
        return load(self._path)

    def discard(self) -> None:
        """Remove the unfinished store."""
        _remove(self._partial)


def _format(path: Path) -> Literal["netcdf", "zarr"]:
    if path.suffix == ".nc":
        return "netcdf"
    if path.suffix == ".zarr":
        return "zarr"
    raise InvalidValueError(f"{path.name!r}: the name must end in .nc (NetCDF) or .zarr (Zarr)")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")


def _replace(partial: Path, path: Path) -> None:
    # A folder can only be moved onto an empty name: what has it is set aside first, so that a crash loses neither.
    if not (path.is_dir() or (partial.is_dir() and path.exists())):
        os.replace(partial, path)
        return
    aside = _partial(path)
    os.replace(path, aside)
    try:
        os.replace(partial, path)
    except BaseException:
        os.replace(aside, path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
