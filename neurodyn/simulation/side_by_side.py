"""Results of many runs side by side: one dataset with the parameters of a grid as its first dimensions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError

Where = Mapping[str, Any]
"""A point of a grid: the values of its parameters."""


def side_by_side(results: Sequence[xr.Dataset], points: Sequence[Where], values: dict[str, NDArray[Any]]) -> xr.Dataset:
    """Put the results of all points of a grid into one dataset.

    What the dataset's attributes say is kept where it is the same at every point, and becomes a variable over the grid
    where it differs: `converged`, say, or `residual`. An attribute of a variable that differs is left out.

    Parameters
    ----------
    results
        One a point, the last parameter running fastest.
    points
        Likewise.
    values
        The values of each parameter, as its coordinate.

    Raises
    ------
    ValueError
        If variables, dimensions, coordinates or units differ between points; the message names what, and where.
    """
    first = results[0]
    for result, where in zip(results[1:], points[1:], strict=True):
        _refuse_other(first, result, where, points[0])
    facts = _facts(results, points, taken=[*first.variables, *first.dims, *values])
    together = [result.drop_attrs(deep=False) for result in results]
    for name, given in reversed(values.items()):
        index = xr.DataArray(given, dims=name, name=name)
        rows = [together[i : i + len(given)] for i in range(0, len(together), len(given))]
        together = [
            xr.concat(row, index, coords="minimal", compat="override", join="exact", combine_attrs="drop_conflicts")
            for row in rows
        ]
    sizes = [len(given) for given in values.values()]
    constant = {name: fact[0] for name, fact in facts.items() if _all_alike(fact)}
    varying = {
        name: (tuple(values), _array(name, fact, points).reshape(sizes))
        for name, fact in facts.items()
        if name not in constant
    }
    return together[0].assign(varying).assign_attrs(constant)


def as_dataset(result: object, where: Where) -> xr.Dataset:
    """Return what a function of a point returned as a dataset.

    Raises
    ------
    TypeError, ValueError
        If it is neither a dataset nor a mapping of names to numbers, text, or arrays with their dimensions; or a
        parameter's name is taken in it.
    """
    if not isinstance(result, (xr.Dataset, Mapping)):
        raise InvalidTypeError(
            f"sweep: the function returns a dataset or a mapping, and returned a {type(result).__name__}"
        )
    data = result if isinstance(result, xr.Dataset) else xr.Dataset({k: _variable(k, v) for k, v in result.items()})
    taken = [str(name) for name in where if name in data.variables or name in data.dims]
    if taken:
        raise InvalidValueError(
            f"sweep: the result already has {taken[0]!r}, which is a parameter of the grid; rename one"
        )
    return data


def _variable(name: Hashable, value: Any) -> Any:
    if not isinstance(name, str):
        raise InvalidTypeError(f"sweep: a result's names are text, and one is {name!r}")
    if isinstance(value, (xr.DataArray, xr.Variable)):
        return value
    if isinstance(value, tuple) and 2 <= len(value) <= 3:
        dims, numbers, *attributes = value
        return (dims, _numbers(numbers), *attributes)
    value = _numbers(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, int, float, complex, str, np.generic)):
        return value
    raise InvalidTypeError(
        f"sweep: a result's {name!r} is a {type(value).__name__}; give a number, a text, a DataArray, or an array with "
        "the names of its dimensions, such as ('time', values)"
    )


def _numbers(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    return value


def _refuse_other(first: xr.Dataset, other: xr.Dataset, where: Where, start: Where) -> None:
    """Refuse a result whose variables, dimensions, coordinates or units are others than those of the first one."""
    at, beside = f"sweep: at {_text(where)}", f"at {_text(start)}"
    for what, own, others in (
        ("variable", first.data_vars, other.data_vars),
        ("coordinate", first.coords, other.coords),
    ):
        for name in [*own, *others]:
            if (name in own) != (name in others):
                here, there = (at, beside) if name in others else (f"sweep: {beside}", f"at {_text(where)}")
                raise InvalidValueError(f"{here} there is a {what} {name!r}, and {there} there is none")
    for name, variable in first.variables.items():
        same = other.variables[name]
        if same.dims != variable.dims:
            raise InvalidValueError(f"{at}, {name!r} has the dimensions {same.dims}, and {beside} {variable.dims}")
        if same.shape != variable.shape:
            raise InvalidValueError(
                f"{at}, {name!r} has the sizes {dict(same.sizes)}, and {beside} {dict(variable.sizes)}"
            )
        if (same.dtype.kind in "OSU") != (variable.dtype.kind in "OSU"):
            raise InvalidValueError(f"{at}, {name!r} is {same.dtype}, and {beside} {variable.dtype}")
        if name in first.coords and not _alike(variable.to_numpy(), same.to_numpy()):
            raise InvalidValueError(
                f"{at}, the coordinate {name!r} is another one than {beside}; give all results the same, e.g. by "
                "save_at="
            )
        units = variable.attrs.get("units"), same.attrs.get("units")
        if units[0] != units[1]:
            raise InvalidValueError(f"{at}, {name!r} is in units of {units[1]!r}, and {beside} of {units[0]!r}")


def _facts(results: Sequence[xr.Dataset], points: Sequence[Where], taken: Sequence[Hashable]) -> dict[str, list[Any]]:
    """Return what the attributes of the datasets say at each point, None where one says nothing, by their names.

    One whose name something else has, such as a parameter of the grid, and that differs, is called `<name>_of_run`.
    """
    names = dict.fromkeys(str(name) for result in results for name in result.attrs)
    facts = {name: [result.attrs.get(name) for result in results] for name in names}
    clashing = [name for name, fact in facts.items() if name in taken and not _all_alike(fact)]
    return {f"{name}_of_run" if name in clashing else name: fact for name, fact in facts.items()}


def _array(name: str, fact: list[Any], points: Sequence[Where]) -> NDArray[Any]:
    """Return a fact that differs from point to point as an array; what is missing is NaN, or no text."""
    present = [each for each in fact if each is not None]
    if all(isinstance(each, str) for each in present):
        return np.asarray(["" if each is None else each for each in fact])
    kinds = (bool, int, float, np.generic)
    for each, where in zip(fact, points, strict=True):
        if each is not None and (not isinstance(each, kinds) or isinstance(each, np.str_)):
            raise InvalidTypeError(
                f"sweep: the attribute {name!r} differs from point to point, and at {_text(where)} it is a "
                f"{type(each).__name__}; give all points a number, or all a text"
            )
    return np.asarray([np.nan if each is None else each for each in fact])


def _all_alike(fact: Sequence[Any]) -> bool:
    return all(_alike(fact[0], each) for each in fact[1:])


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, NaN and NaN too."""
    if (one is None) != (other is None):
        return False
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape or (a.dtype.kind in "OSU") != (b.dtype.kind in "OSU"):
        return False
    same = a == b
    if a.dtype.kind in "fc" and b.dtype.kind in "fc":
        same |= np.isnan(a) & np.isnan(b)
    return bool(np.all(same))


def _text(where: Where) -> str:
    return ", ".join(f"{name} = {value}" for name, value in where.items())
