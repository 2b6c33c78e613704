"""Datasets in files: NetCDF and Zarr, which give back what was saved."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from neurodyn.errors import ExistingFileError, FileError, InvalidTypeError, InvalidValueError, MissingFileError, NeurodynError
from neurodyn.simulation.netcdf import read_netcdf, write_netcdf
from neurodyn.simulation.partial import Partial
from neurodyn.simulation.stores import foreign_file, read_store, write_store

_CONVENTIONS = {
    "_FillValue", "_Unsigned", "add_offset", "coordinates", "dtype", "grid_mapping", "missing_value", "scale_factor",
}  # fmt: skip
"""Attributes that tell a reader to change the values, or that it keeps for itself."""


def save(data: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a dataset to NetCDF (`.nc`) or Zarr (`.zarr`), under a temporary name until it is complete.

    Both hold checksums, so that `load` notices damage. The values are stored as they are, in chunks of at most 16 MiB.

    Parameters
    ----------
    data
        A trajectory, or any dataset; attributes are text, numbers, and lists of at least two of either.
    path
        Where; an existing file or store is replaced, and a symbolic link stays one.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    TypeError
        If it is no dataset, or has an attribute that the file could not give back.
    ValueError
        If the path ends in neither, or an attribute would not be given back as it is.
    FileExistsError
        If a folder that is not a Zarr store, or a file that should be one, would be lost.
    OSError
        If the file could not be written; what was there before stays.
    """
    path = Path(path)
    kind = _format(path)
    if not isinstance(data, xr.Dataset):
        raise InvalidTypeError(f"data must be an xarray.Dataset, not {type(data).__name__}")
    _check_attributes("", data.attrs)
    for name, variable in data.variables.items():
        if variable.dtype.kind == "c":
            raise InvalidTypeError(f"variable {name!r} is complex; save its .real and .imag as variables of their own")
        _check_attributes(f" of variable {name!r}", variable.attrs)
    _refuse_loss(path, kind)
    write = write_netcdf if kind == "netcdf" else write_store
    try:
        partial = Partial(path)
        try:
            write(data.drop_encoding(), partial.path)
            partial.commit()
        except BaseException:
            partial.discard()
            raise
    except NeurodynError:
        raise
    except OSError as error:
        failed = FileError(f"could not write {path}: {error}")
        failed.errno = error.errno
        raise failed from error
    except (NotImplementedError, TypeError, ValueError) as error:  # what neither format has: other objects, MultiIndex
        raise InvalidValueError(f"cannot write this dataset to {path}: {error}") from error
    return path


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a dataset written by `save` or streamed by `simulate(store=…)`.

    No file can run code. Files of other programs are opened, too, without the checks that only `save` makes possible.

    Parameters
    ----------
    path
        A NetCDF file (`.nc`), read whole, or a store of Zarr format 3 (`.zarr`), whose variables are Dask arrays, read
        chunk by chunk as they are used.

    Returns
    -------
    xarray.Dataset
        Numbers among the attributes are Python's, and arrays lists.

    Raises
    ------
    ValueError
        If the path ends in neither.
    FileNotFoundError
        If it does not exist.
    OSError
        If it is damaged, or not what its name says; what a chunk of a store holds is checked when it is read.
    """
    path = Path(path)
    kind = _format(path)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist")
    data = read_netcdf(path) if kind == "netcdf" else read_store(path)
    for each in (data, *data.variables.values()):
        each.attrs = {name: _plain(value) for name, value in each.attrs.items()}
    return data


def _format(path: Path) -> Literal["netcdf", "zarr"]:
    if path.suffix == ".nc":
        return "netcdf"
    if path.suffix == ".zarr":
        return "zarr"
    raise InvalidValueError(f"{path.name!r}: the name must end in .nc (NetCDF) or .zarr (Zarr)")


def _refuse_loss(path: Path, kind: Literal["netcdf", "zarr"]) -> None:
    """Refuse to replace what is not of the kind that is to be written."""
    if not path.exists() or (path.is_dir() and kind == "zarr" and not any(path.iterdir())):
        return
    if kind == "netcdf":
        if not path.is_file():
            raise ExistingFileError(f"{path} is no file, and would be lost; choose another name")
    elif not path.is_dir():
        raise ExistingFileError(f"{path} is no Zarr store, and would be lost; choose another name")
    elif (foreign := foreign_file(path)) is not None:
        raise ExistingFileError(f"{path} holds what is not part of a Zarr store, and would be lost: {foreign}")


def _check_attributes(whose: str, attributes: Mapping[Any, Any]) -> None:
    for name, value in attributes.items():
        what = f"attribute {name!r}{whose}"
        if not isinstance(name, str) or not name:
            raise InvalidTypeError(f"{what}: names of attributes are text")
        if name in _CONVENTIONS:
            raise InvalidValueError(f"{what} is reserved: on loading, it would change the values; choose another name")
        if name == "units" and isinstance(value, str) and " since " in value:
            raise InvalidValueError(f"{what} is {value!r}: store times as datetime64, from which files make such units")
        many = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1)
        entries = list(value) if many else [value]
        for entry in entries:
            _check_entry(what, entry)
        if many and (len(entries) < 2 or len({isinstance(entry, str) for entry in entries}) > 1):
            raise InvalidTypeError(
                f"{what} is a list of {'nothing' if not entries else 'one' if len(entries) < 2 else 'text and numbers'}, "
                "which a file cannot give back; store a number or text, or a list of at least two of either"
            )


def _check_entry(what: str, value: Any) -> None:
    if isinstance(value, str):
        try:
            fits = "\0" not in value and bool(value.encode() or True)
        except UnicodeEncodeError:
            fits = False
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        fits = -(2**63) <= int(value) < 2**63
    elif isinstance(value, (float, np.floating)):
        fits = math.isnan(value) or float(value) == value
    else:
        raise InvalidTypeError(
            f"{what} is {value!r}, of type {type(value).__name__}; files hold text, numbers, and lists of them: store "
            "True and False as 1 and 0, leave None out, and make text of anything else"
        )
    if not fits:
        raise InvalidValueError(f"{what} is {value!r}, which a file cannot give back")


def _plain(value: Any) -> Any:
    """Return an attribute with Python's numbers and lists for NumPy's."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
