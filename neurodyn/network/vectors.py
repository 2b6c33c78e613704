"""Numbers of a declaration that may be tensors, one for each unit; declarations compare by value nevertheless."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neurodyn.checks import check_dense, number, tensor_hint
from neurodyn.errors import InvalidTypeError, InvalidValueError

Vector = float | Tensor
"""A number for all units, or a tensor of a population's shape, one for each unit."""


class ByValue:
    """Declarations that are equal if all that they hold is, tensors value by value."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        own, its = vars(self), vars(other)
        return own.keys() == its.keys() and all(same(value, its[name]) for name, value in own.items())

    def __hash__(self) -> int:
        return hash((type(self), *(_hashable(value) for value in vars(self).values())))


def vector(what: str, value: Vector) -> Vector:
    """Return a setting as Python's number, or as a tensor with axes, and refuse what is not finite.

    Raises
    ------
    TypeError
        If it is neither a number nor a floating-point tensor.
    ValueError
        If it is NaN or infinite somewhere, or empty.
    """
    if isinstance(value, (list, tuple)) or (not isinstance(value, Tensor) and getattr(value, "ndim", 0) > 0):
        raise InvalidTypeError(
            f"{what} must be a number, or a tensor with one for each unit, not a {type(value).__name__}"
            f"{tensor_hint(value)}"
        )
    if not isinstance(value, Tensor) or (value.ndim == 0 and not value.requires_grad):
        return number(what, value)  # type: ignore[arg-type]
    check_dense(what, value)
    if not value.is_floating_point():
        raise InvalidTypeError(f"{what} must be a number, or a floating-point tensor, not one of {value.dtype}")
    if not value.numel() or not bool(torch.isfinite(value).all()):
        raise InvalidValueError(f"{what} must be finite, and hold a number for each unit")
    return value


def uniform(value: Vector) -> Vector:
    """Return a tensor whose numbers are all the same as that number, unless it requires a gradient."""
    if isinstance(value, Tensor) and not value.requires_grad and bool((value == value.flatten()[0]).all()):
        return float(value.flatten()[0])
    return value


def plain(value: Vector) -> Vector:
    """Return a tensor without its graph, or the number."""
    return value.detach() if isinstance(value, Tensor) else value


def is_number(value: object, wanted: float) -> bool:
    """Tell whether a value is a certain number, for all units."""
    return not isinstance(value, Tensor) and value == wanted


def least_of(value: Vector) -> float:
    """Return the smallest of a tensor's numbers, or the number."""
    return float(value.detach().min()) if isinstance(value, Tensor) else value


def largest_of(value: Vector) -> float:
    """Return the largest of a tensor's numbers, or the number."""
    return float(value.detach().max()) if isinstance(value, Tensor) else value


def magnitude(value: Vector) -> Vector:
    """Return the absolute value."""
    return value.detach().abs() if isinstance(value, Tensor) else abs(value)


def text_of(value: Vector, digits: str = "g") -> str:
    """Return a number, or the range of a tensor's, as text."""
    if not isinstance(value, Tensor):
        return format(value, digits)
    low, high = least_of(value), largest_of(value)
    return format(low, digits) if low == high else f"[{low:{digits}} … {high:{digits}}]"


def bounds_text(bounds: tuple[Vector, Vector]) -> str:
    """Return bounds as an interval, ends that differ from unit to unit as ranges."""
    low, high = (text_of(end) if isinstance(end, Tensor) or abs(end) != math.inf else None for end in bounds)
    return f"{'(−∞' if low is None else f'[{low}'}, {'∞)' if high is None else f'{high}]'}"


def same(one: object, other: object) -> bool:
    """Tell whether two values are equal, tensors number by number."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
        return alike and torch.equal(one, other)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return False
    return bool(one == other)


def _hashable(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    return (value.shape, value.dtype, *value.flatten()[:8].tolist()) if isinstance(value, Tensor) else value
