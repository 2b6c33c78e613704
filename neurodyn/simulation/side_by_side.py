"""Results of the points of a grid side by side: the points as the first dimension, and what happened at each."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.simulation.grid import Where, text

COMPUTED, ERROR = "computed", "error"
"""The variables that a sweep adds."""
POINTS = "points of a sweep"
"""The dimension along which results stand side by side."""


Attributes = Mapping[Any, Any] | None
"""What a result says of itself; None where there is none."""


def as_dataset(result: object, parameters: Sequence[str]) -> xr.Dataset:
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
    taken = [str(name) for name in parameters if name in data.variables or name in data.dims]
    if taken:
        raise InvalidValueError(
            f"sweep: the result already has {taken[0]!r}, which is a parameter of the grid; rename one"
        )
    if not data.data_vars:
        raise InvalidValueError("sweep: the result has no variables; return at least one")
    for name in data.data_vars:
        variable = data.variables[name]
        if len(set(variable.dims)) < len(variable.dims):
            raise InvalidValueError(f"sweep: a result's {name!r} has a dimension twice, {variable.dims}; rename one")
        objects = variable.dtype.kind == "O" and not all(isinstance(each, str) for each in variable.to_numpy().flat)
        if objects or variable.dtype.kind not in "biufcUTO":
            kind = "objects" if objects else variable.dtype
            raise InvalidTypeError(f"sweep: a result's {name!r} holds {kind}; return numbers or text")
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


def refuse_other(first: xr.Dataset, other: xr.Dataset, where: str, start: str) -> None:
    """Refuse a result whose variables, dimensions, coordinates or units are others than those of the first one.

    `where` and `start` say where it and the first one come from, such as "at a = 1".
    """
    at = f"sweep: {where}"
    for what, own, others in (
        ("variable", first.data_vars, other.data_vars),
        ("coordinate", first.coords, other.coords),
    ):
        for name in [*own, *others]:
            if (name in own) != (name in others):
                here, there = (at, start) if name in others else (f"sweep: {start}", where)
                raise InvalidValueError(f"{here} there is a {what} {name!r}, and {there} there is none")
    for name, variable in first.variables.items():
        same = other.variables[name]
        if same.dims != variable.dims:
            raise InvalidValueError(f"{at}, {name!r} has the dimensions {same.dims}, and {start} {variable.dims}")
        if same.shape != variable.shape:
            raise InvalidValueError(
                f"{at}, {name!r} has the sizes {dict(same.sizes)}, and {start} {dict(variable.sizes)}"
            )
        if _is_text(same.dtype) != _is_text(variable.dtype):
            raise InvalidValueError(f"{at}, {name!r} is {same.dtype}, and {start} {variable.dtype}")
        if name in first.coords and not alike(variable.to_numpy(), same.to_numpy()):
            raise InvalidValueError(
                f"{at}, the coordinate {name!r} is another one than {start}; give all results the same, e.g. by "
                "save_at="
            )
        units = variable.attrs.get("units"), same.attrs.get("units")
        if units[0] != units[1]:
            raise InvalidValueError(f"{at}, {name!r} is in units of {units[1]!r}, and {start} of {units[0]!r}")


def side_by_side(results: Sequence[xr.Dataset], there: NDArray[np.bool_] | None) -> xr.Dataset:
    """Put results, of which `refuse_other` has refused none, side by side along `POINTS`, or those of several each.

    Where some may be missing, they are as `spread` says. The results' own attributes are left out; a variable keeps
    those on which all agree.
    """
    first = results[0]
    variables: dict[Hashable, Any] = {}
    for name, variable in first.data_vars.items():
        theirs = [result.variables[name] for result in results]
        several = POINTS in variable.dims
        values = joined(str(name), [each.to_numpy() for each in theirs], new_axis=not several)
        dims = variable.dims if several else (POINTS, *variable.dims)
        attributes = agreed([each.attrs for each in theirs])
        variables[name] = (dims, values if there is None else spread(str(name), values, there), attributes)
    return xr.Dataset(variables, first.coords)


def joined(name: str, arrays: Sequence[NDArray[Any]], *, new_axis: bool = False) -> NDArray[Any]:
    """Return arrays of a variable one after the other, along a new first axis or the one they have.

    Raises
    ------
    ValueError
        If integers stand next to fractions, and one is so large that a float does not hold it.
    """
    whole = (np.stack if new_axis else np.concatenate)(arrays)
    if whole.dtype.kind in "fc":
        for each in arrays:
            refuse_rounding(name, each)
    return whole


def refuse_rounding(name: str, values: NDArray[Any]) -> None:
    """Refuse integers, of a variable or an attribute, that are to be floats, which do not hold them."""
    if values.dtype.kind in "iuO" and bool((np.abs(values.astype(np.float64)) >= 2**53).any()):
        raise InvalidValueError(
            f"sweep: {name!r} has integers of 2**53 or more, which floats would round, and has to hold floats, for NaN "
            "or fractions; give them as text"
        )


def agreed(attributes: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Return the attributes that are the same everywhere."""
    return {
        key: value
        for key, value in attributes[0].items()
        if all(key in each and alike(each[key], value) for each in attributes)
    }


def spread(name: str, values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[Any]:
    """Return values of a variable at those of several points where there are some; elsewhere NaN, or no text.

    Integers and booleans become floats, whether any is missing or not.

    Raises
    ------
    ValueError
        If an integer is so large that a float does not hold it.
    """
    if _is_text(values.dtype):
        whole = np.full((len(there), *values.shape[1:]), "", object)
    else:
        kind = values.dtype if values.dtype.kind in "fc" else np.dtype(np.float64)
        refuse_rounding(name, values)
        whole = np.full((len(there), *values.shape[1:]), np.nan, kind)
    whole[there] = values
    return whole


def with_facts(together: xr.Dataset, attributes: Sequence[Attributes], points: Sequence[Where]) -> xr.Dataset:
    """Give results side by side what their attributes say: as attributes where all say the same, or else as variables.

    One that differs, and whose name something else has, such as a parameter of the grid, is called `<name>_of_run`.
    """
    runs = [each for each in attributes if each is not None]
    names = dict.fromkeys(str(name) for each in {id(each): each for each in runs}.values() for name in each)
    constant: dict[str, Any] = {}
    varying: dict[str, tuple[str, NDArray[Any]]] = {}
    for name in names:
        said = [each.get(name) for each in runs]
        if all(alike(said[0], each) for each in said[1:]):
            constant[name] = said[0]
        else:
            fact = [None if each is None else each.get(name) for each in attributes]
            varying[fact_name(name, together, points[0])] = (POINTS, _array(name, fact, points))
    return together.assign(varying).assign_attrs(constant)


def fact_name(name: str, together: xr.Dataset, parameters: Iterable[str]) -> str:
    """Return what to call the variable of what an attribute says."""
    taken = name in {*together.variables, *together.dims, *parameters, COMPUTED, ERROR}
    return f"{name}_of_run" if taken else name


def _array(name: str, fact: list[Any], points: Sequence[Where]) -> NDArray[Any]:
    """Return a fact that differs from point to point as an array; what is missing is NaN, or no text."""
    present = [each for each in fact if each is not None]
    if all(isinstance(each, str) for each in present):
        return np.asarray(["" if each is None else each for each in fact])
    kinds = (bool, int, float, np.generic)
    for each, where in zip(fact, points, strict=True):
        if each is not None and (not isinstance(each, kinds) or isinstance(each, np.str_)):
            raise InvalidTypeError(
                f"sweep: the attribute {name!r} differs from point to point, and at {text(where)} it is a "
                f"{type(each).__name__}; give all points a number, or all a text"
            )
    found = np.asarray([np.nan if each is None else each for each in fact])
    if found.dtype.kind not in "iu":
        refuse_rounding(name, np.array([each for each in present if isinstance(each, (int, np.integer))], object))
    return found


def alike(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, NaN and NaN too."""
    if one is other:
        return True
    if (one is None) != (other is None):
        return False
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape or _is_text(a.dtype) != _is_text(b.dtype):
        return False
    same = a == b
    if a.dtype.kind in "fc" and b.dtype.kind in "fc":
        same |= np.isnan(a) & np.isnan(b)
    return bool(np.all(same))


def _is_text(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "OSTU"
