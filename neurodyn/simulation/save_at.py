"""When the states of a run are saved."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neurodyn.checks import check_dense
from neurodyn.errors import InvalidValueError
from neurodyn.simulation.memory import refuse_too_large
from neurodyn.simulation.trajectory import to_numpy
from neurodyn.solvers import Solver

SaveAt = int | Literal["steps"] | ArrayLike | None


def save_times(save_at: SaveAt, duration: float, solver: Solver, begins: float) -> NDArray[np.float64] | None:
    """Return the times to save at, counted from the start of the run; None for every step."""
    if save_at is None:
        save_at = 101 if solver.steps_in(duration) is None else "steps"
    if isinstance(save_at, str):
        if save_at != "steps":
            raise InvalidValueError(f"save_at is a number of points, an array of times, or 'steps', not {save_at!r}")
        return None
    if isinstance(save_at, (int, np.integer)) and not isinstance(save_at, bool):
        if save_at < 2:
            raise InvalidValueError(f"save_at: at least 2 points (the start and the end), not {save_at}")
        refuse_too_large(f"save_at: {save_at:,} times alone", 8 * int(save_at), "take fewer")
        return np.linspace(0.0, duration, int(save_at))
    if isinstance(save_at, Tensor):
        check_dense("save_at", save_at)
        save_at = to_numpy(save_at)
    try:
        times = np.asarray(save_at)
        if times.ndim and times.dtype.kind in "bcmMSUV":
            raise TypeError(f"{times.dtype} is no type of times")
        times = times.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"save_at is a number of points, an array of times, or 'steps': {error}") from error
    if times.ndim == 0:
        raise InvalidValueError(
            f"save_at={save_at!r}: a number of points is an integer, and times are an array; points that are h apart "
            "are np.arange(0, duration, h)"
        )
    if times.ndim != 1 or len(times) == 0:
        raise InvalidValueError(
            f"save_at: an array of times has one axis and at least one time, not the shape {times.shape}"
        )
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise InvalidValueError("save_at: the times must be finite and increase")
    # A time computed as n · h, or in single precision, may exceed the end by rounding.
    rounding = 1e-6 * duration
    if times[0] < begins - (rounding if begins else 0) or times[-1] > begins + duration + rounding:
        raise InvalidValueError(
            f"save_at: the times must lie within the run [{begins:g}, {begins + duration:g}], and span [{times[0]:g}, "
            f"{times[-1]:g}]"
        )
    return np.unique(np.clip(times - begins, 0.0, duration))
