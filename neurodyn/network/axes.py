"""The axes of labelled data: what a trajectory calls them, and their order."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodyn.checks import native
from neurodyn.errors import InvalidValueError
from neurodyn.labelled import xr

_IMAGE = ("channel", "row", "column")


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


def in_order(what: str, array: xr.DataArray, leading: Sequence[str]) -> NDArray[Any]:
    """Return the values of a population's activity as a new array, whatever the order of its dimensions and units.

    Parameters
    ----------
    what
        What messages call it.
    array
        The activity; a dimension whose labels are the numbers of its units, in another order, is put in theirs.
    leading
        The dimensions before the population's own, in order, those that the array has.

    Raises
    ------
    TypeError
        If it holds no numbers that PyTorch has.
    ValueError
        If samples or networks are in another order than that of their labels, for which of the two is meant is unknown.
    """
    leading = [dim for dim in leading if dim in array.dims]
    own = [dim for dim in array.dims if dim not in leading]
    places = [_place(str(dim)) for dim in own]
    if None not in places:
        own = [dim for _, dim in sorted(zip(places, own, strict=True), key=lambda each: each[0] or 0)]
    array = array.transpose(*leading, *own)
    for dim in array.dims:
        if not _disordered(array, dim):
            continue
        if dim in leading:
            raise InvalidValueError(
                f"{what}: its {dim}s are in another order than their labels; .sortby({dim!r}) follows the labels, and "
                f".drop_vars({dim!r}) the order"
            )
        array = array.sortby(dim)
    return native(what, array.to_numpy())


def _disordered(array: xr.DataArray, dim: Hashable) -> bool:
    """Tell whether a dimension's labels are 0, 1, … in another order."""
    if dim == "time" or dim not in array.coords or array[dim].dtype.kind not in "iuf":
        return False
    labels, numbers = array[dim].to_numpy(), np.arange(array.sizes[dim])
    return not np.array_equal(labels, numbers) and np.array_equal(np.sort(labels), numbers)


def _place(dim: str) -> int | None:
    """Return the place of a dimension among a population's own, if its name tells."""
    kind = dim.rpartition("_")[2]
    if kind in _IMAGE:
        return _IMAGE.index(kind)
    return int(kind.removeprefix("axis")) if re.fullmatch(r"axis\d+", kind) else None
