"""Delays: what couplings read of the past, and what is kept of it.

A delayed source is an *echo*: the activity that a population had a while ago. Echoes of dynamic populations are read
off the past that a solver leaves, those of signals off the signals, and those of instantaneous populations are worked
out from the echoes of what these read. Before time 0, everything was as it is then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

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
    """A population as it was a while ago.

    Parameters
    ----------
    name
        The population.
    delay
        How long ago, in units of time.
    block
        Its activity then, shape (sample, …), wherever the run is.
    """

    name: str
    delay: float
    block: Tensor

    @property
    def key(self) -> str:
        """What it is called among the populations' activities, which no population is."""
        return key_of(self.name, self.delay)


def key_of(name: str, delay: float) -> str:
    """Return what the echo of a population is called."""
    return f"{name}(t − {delay!r})"


@dataclass
class Echoes:
    """What the couplings of a plan read of the past.

    Parameters
    ----------
    couplings
        The couplings that read it.
    dynamic, driven
        The echoes of dynamic populations, and of those that signals drive.
    settled
        Those of instantaneous populations, with their equations, in the order of evaluation.
    """

    couplings: list[Coupling] = field(default_factory=list)
    dynamic: list[Echo] = field(default_factory=list)
    driven: list[Echo] = field(default_factory=list)
    settled: list[tuple[Echo, Equation]] = field(default_factory=list)

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


class Piece(Protocol):
    """A step of a run, between whose ends the states are interpolated."""

    def write(self, name: str, time: float, out: Tensor) -> None:
        """Write the activity of a population at a time of the step into `out`."""


class Past:
    """What the dynamic populations that are read with a delay have been since time 0, as far back as is needed.

    Parameters
    ----------
    starts
        Their activity at time 0, and before, by name.
    longest
        The longest delay.
    """

    def __init__(self, starts: Mapping[str, Tensor], longest: float) -> None:
        self._starts = {name: value.clone() for name, value in starts.items()}
        self._longest = longest
        self._pieces: list[Piece] = []
        self._ends: list[float] = []

    def __len__(self) -> int:
        """Return how many steps are kept."""
        return len(self._pieces)

    @property
    def names(self) -> Collection[str]:
        """The populations."""
        return self._starts.keys()

    def write(self, name: str, time: float, out: Tensor) -> None:
        """Write the activity of a population at a time, at most that of the last step's end, into `out`."""
        if time <= 0.0 or not self._ends:
            out.copy_(self._starts[name])
            return
        place = bisect_left(self._ends, time)
        self._pieces[min(place, len(self._pieces) - 1)].write(name, time, out)

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


def distinct(times: NDArray[np.float64], delays: Sequence[float]) -> NDArray[np.float64]:
    """Return increasing times without those that are the next one but for rounding."""
    close = np.diff(times) <= _ROUNDING * min(delays, default=1.0)
    kept: NDArray[np.float64] = times[~np.append(close, np.zeros(min(1, len(times)), dtype=bool))]
    return kept
