"""Delays: what couplings read of the past, and what is kept of it.

A delayed source is an *echo*: the activity that a population had a while ago. Echoes of dynamic populations are read
off the past that a solver leaves, those of signals off the signals, and those of instantaneous populations are worked
out from the echoes of what these read. Before time 0, everything was as it is then.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.network.coupling import Coupling
from neurodyn.network.signals import Delayed
from neurodyn.system.driven import Driven
from neurodyn.system.equation import Equation

_ROUNDING = 1e-9
"""How close two times are, in units of the shortest delay, that are one."""
_CROWDED = 20.0
"""How many kinks of one derivative, in a time as long as the shortest delay, end the steps of adaptive methods."""


@dataclass(frozen=True)
class Echo:
    """A population as it was a while ago."""

    name: str
    delay: float
    """How long ago, in units of time."""
    block: Tensor
    """Its activity then, shape (sample, …), wherever the run is."""

    @property
    def key(self) -> str:
        """What it is called among the populations' activities, which no population is."""
        return f"{self.name}(t − {self.delay!r})"


@dataclass(frozen=True)
class Recalled:
    """What is recalled at once: the echoes of one delay."""

    delay: float
    part: slice | None
    """Which part of the window; None for all of it."""
    memory: Tensor
    """Where it goes, shape (n,)."""
    places: dict[str, slice] = field(default_factory=dict)
    """Where each echo is in that, by key."""


class Ahead(NamedTuple):
    """Memory for the echoes at several times."""

    memories: list[Tensor]
    """Where what is recalled at once goes, shape (time, n) each."""
    rows: list[list[Tensor]]
    blocks: dict[str, Tensor]
    """The echoes by key, shape (time, sample, …): views of the memories, but for those of signals."""


@dataclass
class Echoes:
    """What the couplings of a plan read of the past."""

    couplings: list[Coupling] = field(default_factory=list)
    """The couplings that read it."""
    dynamic: list[Echo] = field(default_factory=list)
    driven: list[Echo] = field(default_factory=list)
    """The echoes of dynamic populations, and of those that signals drive."""
    settled: list[tuple[Echo, Equation]] = field(default_factory=list)
    """Those of instantaneous populations, with their equations, in the order of evaluation."""
    window: slice | None = None
    """Which part of a flat state the echoes of dynamic populations are read off; None for all of it."""
    recalled: list[Recalled] = field(default_factory=list)
    """What is recalled at once."""

    def __bool__(self) -> bool:
        return bool(self.couplings)

    @property
    def all(self) -> Iterable[Echo]:
        """All of them."""
        return (*self.dynamic, *self.driven, *(echo for echo, _ in self.settled))

    @property
    def blocks(self) -> dict[str, Tensor]:
        """The activity of each, by its key."""
        return {echo.key: echo.block for echo in self.all}

    @property
    def delays(self) -> tuple[float, ...]:
        """Those by which dynamic populations are read, increasing."""
        return tuple(sorted({echo.delay for echo in self.dynamic}))

    @property
    def shortest(self) -> float:
        """The shortest delay by which a dynamic population is read; infinity if there is none."""
        return min(self.delays, default=math.inf)

    def shortest_of(self, name: str) -> float:
        """Return that of one population."""
        return min((echo.delay for echo in self.dynamic if echo.name == name), default=math.inf)

    def lay_out(self, places: Mapping[str, slice]) -> None:
        """Let dynamic populations' echoes of one delay lie as the populations do in a flat state, by their places."""
        whole, window = _around(places.values()), _around(places[echo.name] for echo in self.dynamic)
        self.window = None if window == whole else window
        for delay in self.delays:
            own = _around(places[echo.name] for echo in self.dynamic if echo.delay == delay)
            memory = self.dynamic[0].block.new_empty(own.stop - own.start)
            recalled = Recalled(delay, None if own == window else _within(own, window), memory)
            self.recalled.append(recalled)
            for number, echo in enumerate(self.dynamic):
                if echo.delay == delay:
                    place = recalled.places[echo.key] = _within(places[echo.name], own)
                    self.dynamic[number] = replace(echo, block=memory[place].view_as(echo.block))

    def ahead(self, count: int) -> Ahead:
        """Return memory for the echoes at so many times."""
        memories = [each.memory.new_empty(count, len(each.memory)) for each in self.recalled]
        blocks = {echo.key: echo.block.new_empty(count, *echo.block.shape) for echo in self.driven}
        shapes = {echo.key: echo.block.shape for echo in self.dynamic}
        for each, memory in zip(self.recalled, memories, strict=True):
            for key, place in each.places.items():
                blocks[key] = memory[:, place].view(count, *shapes[key])
        return Ahead(memories, [list(memory) for memory in memories], blocks)

    def rest(self, activity: Mapping[str, Tensor]) -> None:
        """Make the past what the present is, as far as that is known."""
        for echo in self.all:
            if echo.name in activity:
                echo.block.copy_(activity[echo.name])

    def shifted(self, driven: Mapping[str, Driven]) -> dict[str, Driven]:
        """Return what the echoes of driven populations are given, by key."""
        return {
            echo.key: replace(
                driven[echo.name],
                signal=replace(driven[echo.name].signal, course=Delayed(driven[echo.name].signal.course, echo.delay)),
                block=echo.block,
            )
            for echo in self.driven
        }


def _around(places: Iterable[slice]) -> slice:
    """Return the part of a flat state that holds some places."""
    ends = [(place.start, place.stop) for place in places]
    return slice(min((start for start, _ in ends), default=0), max((stop for _, stop in ends), default=0))


def _within(place: slice, window: slice) -> slice:
    """Return a place in what a window shows."""
    return slice(place.start - window.start, place.stop - window.start)


def part(flat: Tensor, place: slice | None) -> Tensor:
    """Return a part of a flat tensor; itself, which is quicker than a view, for None."""
    return flat if place is None else flat[place]


class Piece(Protocol):
    """A step of a run, between whose ends the states are interpolated."""

    def write(self, place: slice | None, time: float, out: Tensor) -> None:
        """Write a place of what is kept of the state, at a time of the step, into `out`."""

    def write_over(self, place: slice | None, times: Sequence[float], out: Tensor, rows: Sequence[Tensor]) -> None:
        """Do so for several times of the step, into `out`, shape (time, n), whose rows are given, too."""


class Past:
    """What the dynamic populations that are read with a delay have been since time 0, as far back as is needed.

    Parameters
    ----------
    state
        The flat state at time 0, and before, shape (n,).
    window
        Which part of it is kept; None for all.
    longest
        The longest delay.
    """

    def __init__(self, state: Tensor, window: slice | None, longest: float) -> None:
        self.window = window
        self._start, self._longest = part(state, window).clone(), longest
        self._pieces: list[Piece] = []
        self._ends: list[float] = []

    def __len__(self) -> int:
        """Return how many steps are kept."""
        return len(self._pieces)

    def write(self, place: slice | None, time: float, out: Tensor) -> None:
        """Write a place of what is kept of the state, at a time up to the last step's end, into `out`."""
        if time <= 0.0 or not self._ends:
            out.copy_(part(self._start, place))
            return
        self._pieces[self._at(time)].write(place, time, out)

    def write_over(self, place: slice | None, times: Sequence[float], out: Tensor, rows: Sequence[Tensor]) -> None:
        """Do as `write` for several times, into `out`, shape (time, n), whose rows are given, too."""
        if times[0] <= 0.0 or not self._ends:
            for time, row in zip(times, rows, strict=True):
                self.write(place, time, row)
            return
        steps = [self._at(time) for time in times]
        if steps[0] == steps[-1]:
            self._pieces[steps[0]].write_over(place, times, out, rows)
            return
        first = 0
        for step, of_step in groupby(steps):
            last = first + len(list(of_step))
            if last == first + 1:
                self._pieces[step].write(place, times[first], rows[first])
            else:
                self._pieces[step].write_over(place, times[first:last], out[first:last], rows[first:last])
            first = last

    def _at(self, time: float) -> int:
        return min(bisect_left(self._ends, time), len(self._pieces) - 1)

    def steps(self) -> list[tuple[float, Piece]]:
        """Return the steps that are kept, with their ends."""
        return list(zip(self._ends, self._pieces, strict=True))

    def extend(self, end: float, piece: Piece) -> None:
        """Take up the next step, which ends at a time."""
        self._pieces.append(piece)
        self._ends.append(end)

    def forget(self, time: float) -> list[Piece]:
        """Let go of the steps that none from a time on reads, and return them."""
        over = bisect_left(self._ends, time - self._longest)
        forgotten = self._pieces[:over]
        del self._pieces[:over], self._ends[:over]
        return forgotten


def kinks(
    delays: Sequence[float],
    jumps: NDArray[np.float64],
    begins: Iterable[float],
    end: float,
    order: int,
    *,
    adaptive: bool,
) -> NDArray[np.float64]:
    """Return when the activity has a kink that a method of an order sees, between 0 and the end, increasing.

    At time 0, and where a signal jumps, the first derivative jumps, and where one begins to move, the second; a delay
    hands the jump of a derivative on to the next one, that delay later. Those up to the method's order count.

    Parameters
    ----------
    delays
        Those by which dynamic populations are read.
    jumps
        When signals jump, also as they arrive with a delay.
    begins
        When signals begin to arrive that have a delay.
    end
        The end of the run.
    order
        The order of the method.
    adaptive
        Whether it adapts its steps to their errors: then, where there are many delays, the highest derivatives whose
        jumps would lie too close are left to that.
    """
    levels: dict[int, set[float]] = {1: {0.0, *jumps.tolist()}, 2: {time for time in begins if time < end}}
    for level in range(1, order):
        after = {time + delay for time in levels.get(level, ()) for delay in delays}
        if adaptive and len(after) > _CROWDED * end / min(delays, default=end):
            break
        levels.setdefault(level + 1, set()).update(time for time in after if time < end)
    found = [time for level in range(1, order + 1) for time in levels.get(level, ()) if 0.0 < time < end]
    return np.unique(np.array(found, dtype=np.float64))


def distinct(times: NDArray[np.float64], end: float, delays: Sequence[float]) -> NDArray[np.float64]:
    """Return increasing times without those that are the next one, or the end of the run, but for rounding."""
    return times[np.diff(times, append=end) > _ROUNDING * min(delays, default=1.0)]
