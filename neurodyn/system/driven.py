"""Signals bound to a network: what each population that varies in time is given, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.network.signals import Course


@dataclass(frozen=True)
class Placed:
    """A signal whose axes are known."""

    what: str
    """What messages call it."""
    course: Course
    shape: tuple[int, ...]
    """The shape of one sample."""
    samples: int | None
    """How many it has itself; None where all are given the same."""

    def write(self, time: float, out: Tensor, members: int) -> None:
        """Write its value at a time into `out`, shape (member · sample, …)."""
        value = self.course.at(time).detach()
        if self.course.by_network:
            self.spread(value[None], out[None], members)
        else:
            out.view(members, -1, *self.shape).copy_(value)

    def spread(self, values: Tensor, out: Tensor, members: int) -> None:
        """Write values at several times, shape (time, …), to all networks, samples and units, in `out`."""
        missing = len(self.shape) + 3 - values.ndim
        own = values.shape[1:2] if self.course.by_network else ()
        rest = values.shape[1 + len(own) :]
        out.view(len(out), members, -1, *self.shape).copy_(values.view(len(values), *own, *[1] * missing, *rest))

    def start(self, samples: int, members: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return its value at time 0 for so many samples of all networks together."""
        out = torch.empty((samples, *self.shape), dtype=dtype, device=device)
        self.write(0.0, out, members)
        return out


def placed(what: str, course: Course, shape: tuple[int, ...] | None, members: int) -> Placed:
    """Tell the axes of a signal apart, given the shape of one sample; None if its values are to tell.

    Raises
    ------
    ValueError
        If it does not fit; the message says what would.
    """
    whole = tuple(course.values.shape[1:])
    own = whole
    if course.by_network:
        if own[0] != members or members == 1:
            raise InvalidValueError(f"{what}: the signal is of {own[0]} networks, and the run has {members}")
        own = own[1:]
    if shape is None:
        if not own:
            raise InvalidValueError(
                f"{what}: the values are numbers, and the population's size is unknown; declare size="
            )
        return Placed(what, course, own if len(own) == 1 else own[1:], None if len(own) == 1 else own[0])
    if own in ((), shape):
        return Placed(what, course, shape, None)
    if own[1:] == shape and own[0]:
        return Placed(what, course, shape, own[0])
    units = ", ".join(map(str, shape))
    raise InvalidValueError(
        f"{what}: the signal's values have the shape {own} at each time, and the population {shape}: the values have "
        f"the shape (time,), (time, {units}), or (time, sample, {units})"
    )


def check_span(what: str, course: Course, begins: float, ends: float) -> None:
    """Refuse a run that leaves the span of a signal."""
    start, end = course.span
    rounding = 1e-6 * (ends - begins)
    if start > begins + rounding or end < ends - rounding:
        raise InvalidValueError(
            f"{what}: the signal is given from {start:g} to {end:g}, and the run goes from {begins:g} to {ends:g}; "
            "give it for all of that"
        )


@dataclass(frozen=True)
class Driven:
    """What a clamped population that varies in time is given."""

    signal: Placed
    noise: Tensor | None
    """What is added to it, frozen, shape (sample, …); None if there is none."""
    block: Tensor
    """The population's activity, which `move` writes into."""
    members: int
    """How many networks are stacked."""

    @property
    def jumps_alone(self) -> bool:
        """Whether it stands still between jumps, at which steps end."""
        return self.signal.course.piecewise_constant

    def move(self, time: float) -> None:
        """Bring the population to its activity at a time."""
        self.signal.write(time, self.block, self.members)
        if self.noise is not None:
            self.block.add_(self.noise)

    def over(self, times: Sequence[float]) -> Tensor:
        """Return its activity at several times, shape (time, sample, …), to be read."""
        values = self.signal.course.over(times).detach()
        own = (self.block.shape, self.block.dtype, self.block.device)
        if (values.shape[1:], values.dtype, values.device) == own and not self.signal.course.by_network:
            return values if self.noise is None else values + self.noise
        found = self.block.new_empty(len(times), *self.block.shape)
        self.signal.spread(values, found, self.members)
        return found if self.noise is None else found.add_(self.noise)
