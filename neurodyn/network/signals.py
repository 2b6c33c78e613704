"""Signals: inputs and targets that vary in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neurodyn.checks import check_dense, native, one_of, users
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.axes import in_order

Given = TypeVar("Given")
_ROUNDING = 1e-12
"""How close two times are that are one, relative to the largest there are."""
Interpolation = Literal["linear", "previous", "cubic"]


class Signal:
    """Values in time, u(t), between given ones interpolated.

    Where a signal jumps, every solver ends a step.

    Parameters
    ----------
    times
        When the values are given, increasing; in units of time. A run must lie within them.
    values
        Shape (time,), the same for all units; (time, unit), the same for all samples; or (time, sample, unit). A
        population of other shape has its own axes in the place of `unit`. Their dtype is the network's: of NumPy's
        arrays, which are float64, `.astype(np.float32)` makes that of a network in single precision.
    interpolation
        "linear"; "previous", so that the value given last holds, up to the next one, where the signal jumps (at the end
        of a run, it is still before a jump there); or "cubic", a spline with two continuous derivatives.

    Raises
    ------
    TypeError, ValueError
        If times are no increasing finite numbers, or values are not as many, or not finite.

    Examples
    --------
    >>> import neurodyn as nd
    >>> leaky = nd.Network(
    ...     "leaky", [nd.Population("u", 1, clamp=nd.Input()), nd.Population("x", 1)], [nd.Coupling("u", "x")]
    ... )
    >>> step = nd.Signal([0.0, 1.0, 2.0], [0.0, 1.0, 1.0], interpolation="previous")
    >>> run = nd.simulate(leaky, step, duration=2.0, save_at=[1.0, 2.0])
    >>> run.x.values.ravel().astype(float).round(3).tolist()
    [0.0, 0.632]
    """

    by_network: bool = False
    """Whether the values have an axis for stacked networks, after that of time."""

    def __init__(self, times: ArrayLike | Tensor, values: ArrayLike | Tensor, interpolation: Interpolation = "linear"):
        one_of("interpolation of Signal", interpolation, ("linear", "previous", "cubic"))
        self.interpolation = interpolation
        self.times = _times(times)
        self.typed = isinstance(values, (Tensor, np.ndarray))
        """Whether the values have a dtype of their own, which has to be the run's."""
        self.values = _values(values)
        if self.values.ndim == 0 or len(self.values) != len(self.times):
            raise InvalidValueError(
                f"values of Signal have the shape {tuple(self.values.shape)}, and there are {len(self.times)} times: "
                "the first axis is that of time"
            )
        finite = math.isfinite(float(self.values.detach().sum()))  # a sum is quicker, and may overflow
        bad = 0 if finite else int((~torch.isfinite(self.values)).sum())
        if bad:
            raise InvalidValueError(f"values of Signal: {bad} are NaN or infinite; all must be finite")

    @cached_property
    def constant(self) -> bool:
        """Whether all values are the same, and remain so: ones that require a gradient may change."""
        if self.values.requires_grad or not torch.equal(self.values[0], self.values[-1]):  # which is quick to tell
            return False
        return bool((self.values == self.values[:1]).all())

    @property
    def piecewise_constant(self) -> bool:
        """Whether it moves in jumps alone."""
        return self.interpolation == "previous"

    @property
    def piecewise_linear(self) -> bool:
        """Whether it is linear in time between the times given, or constant."""
        return self.interpolation != "cubic"

    @property
    def span(self) -> tuple[float, float]:
        """From when to when it is given."""
        return float(self.times[0]), float(self.times[-1])

    @cached_property
    def jumps(self) -> NDArray[np.float64]:
        """When it jumps."""
        if self.interpolation != "previous":
            return np.empty(0)
        if self.values.requires_grad:
            return self.times[1:]
        changed = (self.values[1:] != self.values[:-1]).cpu().numpy()
        jumps: NDArray[np.float64] = self.times[1:][changed.any(tuple(range(1, changed.ndim)))]
        return jumps

    @property
    def breaks(self) -> NDArray[np.float64]:
        """When it jumps or bends."""
        return {"previous": self.jumps, "linear": self.times}.get(self.interpolation, np.empty(0))

    @cached_property
    def _begins(self) -> NDArray[np.float64]:
        """From when on each value counts: if it is a jump to it, from a rounding earlier, so that no jump is missed."""
        early = _ROUNDING * float(np.abs(self.times).max()) if self.piecewise_constant else 0.0
        return self.times - early

    def at(self, time: float) -> Tensor:
        """Return the value at a time, without the axis of time; where it jumps, the one after the jump."""
        place = int(np.searchsorted(self._begins, time, side="right")) - 1
        place = min(max(place, 0), len(self.times) - 1)
        if self.interpolation == "previous" or place == len(self.times) - 1:
            return self.values[place]
        start, end = float(self.times[place]), float(self.times[place + 1])
        if self.interpolation == "linear":
            return torch.lerp(self.values[place], self.values[place + 1], max(0.0, (time - start) / (end - start)))
        after = max(0.0, time - start)
        asked = self.values.requires_grad
        piece = torch.tensordot(self._basis[:, place], self.values, 1) if asked else self._spline[:, place]
        third, second, first, zeroth = piece
        value: Tensor = ((third * after + second) * after + first) * after + zeroth
        return value

    def over(self, times: Sequence[float]) -> Tensor:
        """Return the values at several times, shape (time, …), as `at` returns one; to be read."""
        if self.interpolation == "cubic":
            return torch.stack([self.at(time) for time in times])
        last = len(self.times) - 1
        places = np.clip(np.searchsorted(self._begins, times, side="right") - 1, 0, last)
        whole = np.array_equal(places, np.arange(len(self.times)))
        found = self.values if whole else self.values[places]
        if self.interpolation == "previous" or not last:
            return found
        starts, ends = self.times[places], self.times[np.minimum(places + 1, last)]
        weights = np.where(
            places < last, np.maximum(0.0, (times - starts) / np.where(ends > starts, ends - starts, 1.0)), 0.0
        )
        if not weights.any():  # at the signal's own times, between which a closed form goes
            return found
        weight = torch.from_numpy(weights).to(found).view(-1, *[1] * (found.ndim - 1))
        return torch.lerp(found, self.values[np.minimum(places + 1, last)], weight)

    @cached_property
    def _spline(self) -> Tensor:
        """The coefficients of the cubic between each two times, shape (power from 3 to 0, piece, …)."""
        from scipy.interpolate import CubicSpline  # here, because it takes long to import

        spline = CubicSpline(self.times, self.values.double().cpu().numpy())
        return torch.from_numpy(spline.c).to(self.values)

    @cached_property
    def _basis(self) -> Tensor:
        """What each value contributes to those coefficients, shape (power from 3 to 0, piece, time)."""
        from scipy.interpolate import CubicSpline

        return torch.from_numpy(CubicSpline(self.times, np.eye(len(self.times))).c).to(self.values.detach())

    def __repr__(self) -> str:
        start, end = self.span
        return (
            f"Signal({len(self.times)} times in [{start:g}, {end:g}], values of shape {tuple(self.values.shape)}, "
            f"interpolation={self.interpolation!r})"
        )


class FunctionOfTime:
    """A function of someone's own, u(t), as a signal: a smooth one.

    Parameters
    ----------
    what
        What messages call it.
    function
        The function of the time, a number, that returns a number, or a tensor of shape (unit,) or (sample, unit).
    """

    typed: bool
    constant = piecewise_constant = piecewise_linear = by_network = False
    span = (-np.inf, np.inf)
    jumps: NDArray[np.float64] = np.empty(0)
    breaks: NDArray[np.float64] = np.empty(0)

    def __init__(self, what: str, function: Callable[[float], Any]) -> None:
        self._what, self._function = what, function
        self.typed = False
        self.values = self.at(0.0)[None]
        """At time 0, shape (1, …)."""

    def at(self, time: float) -> Tensor:
        """Return the value at a time."""
        with users(self._what):
            value = self._function(time)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer, Tensor)):
            raise InvalidTypeError(
                f"{self._what}: a function of the time returns a number or a tensor, and this one returns a "
                f"{type(value).__name__} at time {time:g}"
            )
        self.typed = isinstance(value, Tensor)
        value = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64, device="cpu")
        first = getattr(self, "values", None)
        if first is not None and (value.shape, value.dtype, value.device) != (
            first.shape[1:],
            first.dtype,
            first.device,
        ):
            raise InvalidValueError(
                f"{self._what}: the function returns {value.dtype} of shape {tuple(value.shape)} on {value.device} at "
                f"time {time:g}, and {first.dtype} of shape {tuple(first.shape[1:])} on {first.device} at time 0"
            )
        # On a device, to look would be to wait; the activity's own error comes soon after. Sums may overflow alone.
        alarm = value.device.type == "cpu" and not math.isfinite(float(value.detach().sum()))
        if alarm and not bool(torch.isfinite(value).all()):
            raise InvalidValueError(f"{self._what}: the function returns what is not finite at time {time:g}")
        return value

    def over(self, times: Sequence[float]) -> Tensor:
        """Return the values at several times, shape (time, …)."""
        return torch.stack([self.at(time) for time in times])


class Delayed:
    """A signal that arrives late: u(t − d), and u(0) before.

    Parameters
    ----------
    course
        The signal u.
    delay
        d, in units of time.
    """

    typed = constant = False

    def __init__(self, course: Course, delay: float) -> None:
        self._course, self._delay = course, delay
        self.values: Tensor = course.values
        self.by_network: bool = course.by_network
        self.piecewise_constant: bool = course.piecewise_constant
        self.piecewise_linear: bool = course.piecewise_linear
        self.span: tuple[float, float] = (-np.inf, course.span[1] + delay)
        self.jumps: NDArray[np.float64] = course.jumps[course.jumps > 0] + delay
        breaks = course.breaks[course.breaks > 0] + delay
        self.breaks: NDArray[np.float64] = breaks if course.piecewise_constant else np.append(delay, breaks)
        """It bends, too, where it begins to move."""

    def at(self, time: float) -> Tensor:
        """Return the value at a time."""
        return self._course.at(max(time - self._delay, 0.0))

    def over(self, times: Sequence[float]) -> Tensor:
        """Return the values at several times, shape (time, …)."""
        return torch.stack([self.at(time) for time in times])


Course = Signal | FunctionOfTime | Delayed
"""What varies in time."""


def as_course(what: str, given: object) -> Course | None:
    """Return what varies in time as a signal; None for what stands still, such as a tensor.

    Raises
    ------
    TypeError, ValueError
        If an array has no dimension `time`, or its times are not as those of a `Signal`.
    """
    if isinstance(given, Signal):
        return given
    if isinstance(given, xr.DataArray):
        return _of_array(what, given)
    if callable(given) and not isinstance(given, (Tensor, type, torch.nn.Module)):
        return FunctionOfTime(what, given)
    return None


def _of_array(what: str, array: xr.DataArray) -> Signal:
    if "time" not in array.dims or "time" not in array.coords:
        raise InvalidValueError(
            f"{what}: a DataArray is a signal, with a dimension and a coordinate 'time', and this one has the "
            f"dimensions {array.dims}; pass what stands still as a tensor"
        )
    if array.dtype.kind != "f":
        raise InvalidTypeError(f"{what}: a DataArray of {array.dtype}; convert it with .astype('float32')")
    values = in_order(what, array, ("time", "network", "sample"))
    signal = Signal(array["time"].to_numpy(), torch.from_numpy(values))
    signal.by_network = "network" in array.dims
    return signal


def member_of_signal(given: Given, member: int) -> Given:
    """Return what one of several networks is given of a signal that has an axis for them; all else as it is."""
    if isinstance(given, xr.DataArray) and "network" in given.dims:
        return given.isel(network=member)
    return given


def _times(given: ArrayLike | Tensor) -> NDArray[np.float64]:
    if isinstance(given, Tensor):
        check_dense("times of Signal", given)
        given = given.detach().cpu().numpy()
    times = _numbers("times of Signal: an array of increasing numbers", given).astype(np.float64)
    if times.ndim != 1 or len(times) == 0:
        raise InvalidValueError(f"times of Signal: one axis, and at least one time, not the shape {times.shape}")
    if not np.isfinite(times).all():
        raise InvalidValueError("times of Signal must be finite")
    if not (np.diff(times) > 0).all():
        raise InvalidValueError(
            "times of Signal must increase, each later than the one before; sort them, and drop repeated ones"
        )
    return times


def _numbers(wanted: str, given: ArrayLike) -> NDArray[Any]:
    """Return an array of numbers, or refuse what is none by saying what is wanted."""
    try:
        numbers = np.asarray(given)
        if numbers.dtype.kind not in "iuf":
            raise TypeError(f"{numbers.dtype} is no type of numbers")
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{wanted} ({error})") from error
    return numbers


def _values(given: ArrayLike | Tensor) -> Tensor:
    if not isinstance(given, Tensor):
        numbers = _numbers("values of Signal: a tensor or an array of numbers", given)
        if isinstance(given, (np.ndarray, np.generic)):
            own = native("values of Signal", numbers)
            return torch.from_numpy(own if own.dtype.kind == "f" else own.astype(np.float64))
        return torch.tensor(numbers, dtype=torch.float64, device="cpu")
    check_dense("values of Signal", given)
    if not given.is_floating_point():
        raise InvalidTypeError(f"values of Signal must be floating-point, not {given.dtype}; convert with .to()")
    return given


def inside(begins: float, ends: float, several: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return those of several times that are within a run, increasing; once what is at one time but for rounding."""
    rounding = _ROUNDING * max(abs(begins), abs(ends))
    times = np.unique(np.concatenate([np.empty(0), *several]))
    times = times[(times > begins + rounding) & (times < ends - rounding)]
    return times[np.diff(times, append=np.inf) > rounding]  # the last of several, when all have jumped
