"""Datasets in files: NetCDF and Zarr, which give back what was saved."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurodyn.checks import file_path, needed
from neurodyn.errors import ExistingFileError, InvalidTypeError, InvalidValueError, MissingFileError, NeurodynError
from neurodyn.labelled import xr
from neurodyn.simulation.netcdf import read_netcdf, write_netcdf
from neurodyn.simulation.partial import replacing, system_errors

_RESERVED = {
    "CLASS", "DIMENSION_LIST", "NAME", "REFERENCE_LIST", "_NCProperties", "_Netcdf4Coordinates", "_Netcdf4Dimid",
    "_nc3_strict", "coordinates",
}  # fmt: skip
"""Attributes that the formats keep for themselves."""
_DECODED = {
    "_Encoding", "_FillValue", "_Unsigned", "add_offset", "dtype", "missing_value", "scale_factor",
}  # fmt: skip
"""Attributes of a variable by which a reader would change its values."""
_NO_NAMES = {"", ".", "..", "zarr.json"}


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
    ImportError
        If it should be Zarr, and that is not installed.

    Examples
    --------
    >>> import neurodyn as nd
    >>> run = nd.simulate(nd.Network("leak", [nd.Population("x", 1, initial=1.0)]), None, duration=1.0)
    >>> nd.save(run, "run.nc").name
    'run.nc'
    """
    path, kind = _format(path)
    if not isinstance(data, xr.Dataset):
        raise InvalidTypeError(f"data must be an xarray.Dataset, not {type(data).__name__}")
    to_write = storable(data)
    _refuse_loss(path, kind)
    try:
        with replacing(path) as partial:
            if kind == "netcdf":
                write_netcdf(to_write, partial)
            else:
                from neurodyn.simulation.stores import write_store  # imports zarr, as few runs need

                write_store(to_write, partial)
    except NeurodynError:
        raise
    except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        # What a format does not have, such as a MultiIndex.
        raise InvalidValueError(f"cannot write this dataset to {path}: {error}") from error
    return path


def storable(data: xr.Dataset) -> xr.Dataset:
    """Return a dataset with Python's numbers and lists for NumPy's among its attributes, if a file can give it back.

    Raises
    ------
    TypeError, ValueError
        If it cannot.
    """
    for name in {**data.variables, **data.sizes}:
        if not isinstance(name, str) or name in _NO_NAMES or "/" in name:
            raise InvalidValueError(
                f"{name!r} cannot be the name of a variable or dimension in a file; rename it to text without a slash"
            )
        if " " in name and name in data.coords and name not in data.dims:
            raise InvalidValueError(
                f"coordinate {name!r} has a space in its name, and a file would give it back as a variable; rename it"
            )
    own = data.drop_encoding()
    own.attrs = _storable("", data.attrs)
    for name, variable in own.variables.items():
        _check_values(name, variable)
        variable.attrs = _storable(f" of variable {name!r}", variable.attrs)
    return own


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
    ImportError
        If it is Zarr, and that or Dask is not installed.

    Examples
    --------
    >>> import neurodyn as nd
    >>> run = nd.simulate(nd.Network("leak", [nd.Population("x", 1, initial=1.0)]), None, duration=1.0)
    >>> nd.load(nd.save(run, "run.nc")).identical(run)
    True
    """
    path, kind = _format(path)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist")
    with system_errors(f"could not read {path}"):
        if kind == "netcdf":
            data = read_netcdf(path)
        else:
            from neurodyn.simulation.stores import read_store

            data = read_store(path)
    data.attrs = _plain_attributes(data.attrs)
    for variable in data.variables.values():
        variable.attrs = _plain_attributes(variable.attrs)
    return data


def _format(given: str | os.PathLike[str]) -> tuple[Path, Literal["netcdf", "zarr"]]:
    path = file_path("path", given)
    if "\0" in str(path):
        raise InvalidValueError(f"path: {str(path)!r} cannot be the name of a file")
    if path.suffix == ".nc":
        return path, "netcdf"
    if path.suffix == ".zarr":
        needed("zarr", extra="zarr")
        return path, "zarr"
    raise InvalidValueError(f"{path.name!r}: the name must end in .nc (NetCDF) or .zarr (Zarr)")


def _refuse_loss(path: Path, kind: Literal["netcdf", "zarr"]) -> None:
    """Refuse to replace what is not of the kind that is to be written."""
    if not path.exists() or (path.is_dir() and kind == "zarr" and not any(path.iterdir())):
        return
    if kind == "netcdf":
        if not path.is_file():
            raise ExistingFileError(f"{path} is no file, and would be lost; choose another name")
        return
    if not path.is_dir():
        raise ExistingFileError(f"{path} is no Zarr store, and would be lost; choose another name")
    from neurodyn.simulation.stores import foreign_file

    if (foreign := foreign_file(path)) is not None:
        raise ExistingFileError(f"{path} holds what is not part of a Zarr store, and would be lost: {foreign}")


def _check_values(name: Hashable, variable: xr.Variable) -> None:
    kind = variable.dtype.kind
    if kind == "c":
        raise InvalidTypeError(f"variable {name!r} is complex; save its .real and .imag as variables of their own")
    if kind == "M" and not np.array_equal(
        variable.values.astype("datetime64[ns]").astype(variable.dtype), variable.values, equal_nan=True
    ):
        raise InvalidValueError(
            f"variable {name!r} has dates outside of 1678 to 2261, which a file does not give back; store their years, "
            "say, as numbers"
        )
    if kind == "O" and not all(isinstance(value, str) for value in variable.values.flat):
        raise InvalidTypeError(
            f"variable {name!r} holds objects other than text; save numbers or text alone (of a MultiIndex, its "
            "levels, by reset_index)"
        )


def _storable(whose: str, attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes with Python's numbers and lists for NumPy's, if a file can give them back."""
    for name, value in attributes.items():
        what = f"attribute {name!r}{whose}"
        if not isinstance(name, str) or not name:
            raise InvalidTypeError(f"{what}: the name of an attribute is text")
        if name in _RESERVED or (whose and name in _DECODED):
            raise InvalidValueError(f"{what} is reserved: it tells readers how to decode a file; choose another name")
        if name == "units" and isinstance(value, str) and "since" in value:
            raise InvalidValueError(f"{what} is {value!r}: hold times as datetime64, of which a file makes such units")
        if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1):
            _check_list(what, list(value))
        else:
            _check_entry(what, value)
    return _plain_attributes(attributes)


def _check_list(what: str, entries: list[Any]) -> None:
    for entry in entries:
        _check_entry(what, entry)
    text, fractions = (sum(isinstance(each, kind) for each in entries) for kind in (str, (float, np.floating)))
    if len(entries) < 2 or 0 < text < len(entries):
        kind = "text and numbers" if text and len(entries) > 1 else f"{len(entries)} entries"
        raise InvalidTypeError(
            f"{what} is a list of {kind}, which a file would not give back; store text, a number, or a list of at "
            "least two of either"
        )
    if fractions and any(float(each) != int(each) for each in entries if isinstance(each, (int, np.integer))):
        raise InvalidValueError(f"{what} is {entries!r}: next to fractions, a file rounds so large integers")


def _check_entry(what: str, value: Any) -> None:
    if isinstance(value, str):
        fits = "\0" not in value and value.encode(errors="ignore").decode() == value
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
        raise InvalidValueError(f"{what} is {value!r}, which a file would not give back")


def _plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    """Return an attribute with Python's numbers, text and lists for NumPy's."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
