"""Checks of settings, with messages that say what would be right."""

from __future__ import annotations

import math

import numpy as np

from neurodyn.errors import InvalidTypeError, InvalidValueError


def positive(what: str, value: float) -> None:
    """Refuse a setting that is not a positive finite number.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is not positive and finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise InvalidTypeError(f"{what} must be a number, not {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise InvalidValueError(f"{what} must be positive and finite, not {value!r}")


def whole(what: str, value: int, *, least: int) -> None:
    """Refuse a setting that is no integer, or less than `least`.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is less.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"{what} must be an integer ≥ {least}, not {value!r}")
    if value < least:
        raise InvalidValueError(f"{what} must be an integer ≥ {least}, not {value!r}")
