"""What the dimensions of a dataset mean to one who looks at it."""

from __future__ import annotations

import math
import re

import numpy as np

from neurodyn.errors import InvalidValueError
from neurodyn.labelled import xr

OWN_DIM = re.compile(r"(.+)_(unit|channel|row|column|axis\d+)")
"""A dimension of a population's own, and the population."""
ALONG = ("time", "step", "epoch")
"""Dimensions that run on."""


def numeric(data: xr.Dataset) -> xr.Dataset:
    """Return the variables that have real numbers.

    Raises
    ------
    ValueError
        If none has.
    """
    keep = [name for name, variable in data.data_vars.items() if variable.dtype.kind in "fiub" and variable.size]
    if not keep:
        raise InvalidValueError("data: no variable of the dataset has real numbers to show")
    return data[keep]


def words(data: xr.Dataset, along: str | None) -> list[str]:
    """Return the names of the variables that have a text wherever a run was made, such as its solver."""
    return [
        str(name)
        for name, variable in data.data_vars.items()
        if variable.dtype.kind in "OTU"
        and variable.size
        and not any(dim == along or is_own(str(dim)) for dim in variable.dims)
    ]


def along_of(data: xr.Dataset) -> str | None:
    """Return the dimension that runs on: time, step or epoch, or else the longest one that is not of units."""
    for name in ALONG:
        if name in data.dims:
            return name
    others = [str(dim) for dim in data.dims if not is_own(str(dim))]
    return max(others, key=lambda dim: data.sizes[dim], default=None)


def is_own(dim: str) -> bool:
    """Tell whether a dimension counts units, or rules of plasticity, which have a row each."""
    return dim == "rule" or OWN_DIM.fullmatch(dim) is not None


def numbers_of(variable: xr.DataArray, dim: str) -> list[float | str]:
    """Return how units are numbered along a dimension, or named; nothing where they are counted from 0."""
    if dim not in variable.coords or np.array_equal(variable[dim], np.arange(variable.sizes[dim])):
        return []
    values = variable[dim].values.tolist()
    # JSON has no NaN and no infinity.
    return [each if isinstance(each, (int, float)) and math.isfinite(each) else str(each) for each in values]
