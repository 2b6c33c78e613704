"""What of a bound network varies in time by itself: signals, and what arrives late of these and of the populations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.network.signals import Course, breaks_of, jumps_of
from neurodyn.system.delays import Ahead, Past, distinct, kinks
from neurodyn.system.driven import Driven, check_span
from neurodyn.system.plan import Plan
from neurodyn.system.state import State

Time = float | Literal["held"] | None
"""A time, where there are signals."""


class Timeline:
    """What is given to a bound network as time goes on. Times are counted from the start of the run."""

    def __init__(self, network: str, plan: Plan) -> None:
        self._network, self._plan, self._clamped = network, plan, plan.batch.clamped
        self.origin = plan.batch.origin
        """The time at which the run starts, as signals and records count."""
        self._driven = plan.batch.driven
        self._jumping = {name: driven for name, driven in self._driven.items() if driven.jumps_alone}
        self._within: dict[str, Driven] | None = None
        """What moves within a step, where a solver says when each begins; None where none has."""
        self._echoes, self._echoed = plan.echoes, plan.echoed
        self._late = plan.echoes.shifted(self._driven) if self._echoed else {}
        self._moving_late = self._late
        """Those signals that arrive late and move within a step, where a solver says when each begins."""
        self.past: Past | None = None
        """Where couplings have delays, what they read of dynamic populations: a solver extends it by its steps."""
        self._recalled: float | None = None
        self._foreseen: dict[float, tuple[Tensor, ...]] = {}
        self.arrivals: tuple[Tensor, ...] = ()
        """What is constant in each equation with late entries, and these, at the time at hand, if it is foreseen."""
        self._settled = not self._echoes.settled
        """Whether the echoes of instantaneous populations are those of the present time."""
        self.entered = 0.0
        """When the present step began."""
        self.moves = bool(self._driven or self._echoed)
        """Whether anything varies."""

    @property
    def driven(self) -> Collection[str]:
        """The clamped populations that vary in time."""
        return self._driven.keys()

    @property
    def signals(self) -> tuple[Course, ...]:
        """What the network is driven by in time; signals that are constant are none."""
        return tuple(driven.signal.course for driven in self._driven.values())

    @property
    def late(self) -> Mapping[str, Driven]:
        """The signals that arrive late, by the keys of their echoes."""
        return self._late

    @property
    def _courses(self) -> tuple[Course, ...]:
        return (*self.signals, *(late.signal.course for late in self._late.values()))

    @property
    def moves_within_steps(self) -> bool:
        """Whether the network is driven by more than jumps."""
        return len(self._jumping) < len(self._driven)

    def check_span(self, duration: float) -> None:
        """Refuse a run that leaves the span of a signal."""
        for signal in self._plan.batch.signals:
            check_span(signal.what, signal.course, self.origin, self.origin + duration)

    def jumps(self, end: float) -> NDArray[np.float64]:
        """Return when signals jump between 0 and the end of a run, or their echoes do, increasing."""
        return jumps_of(self._courses, self.origin, self.origin + end) - self.origin

    def breaks(self, end: float) -> NDArray[np.float64]:
        """Return when signals, or their echoes, jump or bend between 0 and the end of a run, increasing."""
        return breaks_of(self._courses, self.origin, self.origin + end) - self.origin

    def cuts(self, end: float, order: int, *, adaptive: bool = False) -> NDArray[np.float64]:
        """Return when steps of a method of an order have to end: where signals jump, and at kinks that delays make."""
        if not self.moves:
            return np.empty(0)
        jumps = self.jumps(end)
        if not self._echoes:
            return jumps
        begins = [echo.delay for echo in self._echoes.driven]
        found = kinks(self._echoes.delays, jumps, begins, end, order, adaptive=adaptive)
        return distinct(np.union1d(found, jumps), end, self._echoes.delays)

    def ends(self, end: float, order: int) -> NDArray[np.float64]:
        """Return when steps of a method that adapts them have to end: at `cuts`, and where signals bend."""
        breaks = self.breaks(end)
        if not self._echoes:
            return breaks
        return distinct(np.union1d(breaks, self.cuts(end, order, adaptive=True)), end, self._echoes.delays)

    def start(self, state: State) -> None:
        """Bring what is driven to time 0, and begin the past with a state."""
        if self._driven:
            self._within = None
            self._move(self._driven, 0.0)
        if self._echoes:
            self.past = Past(state.flat, self._echoes.window, max(self._echoes.delays, default=0.0))
            self._moving_late = self._late
            self._forget_foreseen()

    def enter(self, time: float, *, idle: bool = False) -> None:
        """Say that a step begins at a time: what jumps is brought past its jump, and stands still up to the next call.

        So a step that ends where a signal jumps sees the value before, and the next one that after the jump. If `idle`,
        F is not asked for in this step, and what the signals contribute to it is not worked out.
        """
        self.entered = time
        if self._driven:
            self._within = self._between_jumps()
            if idle:
                for driven in self._jumping.values():
                    driven.move(self.origin + time)
            else:
                self._move(self._jumping, time)
        if self._echoes:
            self._moving_late = {key: late for key, late in self._late.items() if not late.jumps_alone}
            for late in self._late.values():
                late.move(self.origin + time)
            self._forget_foreseen()

    def bring(self, time: Time) -> None:
        """Bring what is driven or late to a time, but for what `settle` does; "held" leaves signals where they are.

        Raises
        ------
        ValueError
            If no time is given, or there are delays and no past.
        """
        if time == "held":
            if self._echoed:
                self.renew_echoes()
            return
        if time is None:
            why = "is driven by signals" if self._driven else "has delays"
            raise InvalidValueError(
                f"network {self._network!r} {why}: F depends on the time; give it, as in system.field(state, out, time)"
            )
        if self._driven:
            self._move(self._driven if self._within is None else self._within, time)
        if self._echoed and time != self._recalled:
            foreseen = self._foreseen.get(time)
            if foreseen is None:
                self._await_arrivals()
                self._recall(time)
                self.renew_echoes()
            else:
                both = zip(self._plan.late, foreseen, strict=True)
                self.arrivals = tuple([equation.arrive(value) for equation, value in both])
            self._recalled = time

    def look_ahead(self, times: Sequence[float], ahead: Ahead) -> None:
        """Write the echoes of what is dynamic, or driven, at some times, increasing, into memory."""
        past = self._known_past
        for each, memory, rows in zip(self._echoes.recalled, ahead.memories, ahead.rows, strict=True):
            past.write_over(each.part, [time - each.delay for time in times], memory, rows)
        if self._plan.bounds:
            for echo in self._echoes.dynamic:
                if echo.name in self._plan.bounds:
                    ahead.blocks[echo.key].clamp_(*self._plan.bounds[echo.name])
        for key, late in self._late.items():
            moves = key in self._moving_late
            ahead.blocks[key].copy_(late.over([self.origin + (time if moves else self.entered) for time in times]))

    def foresee(self, times: Sequence[float], arriving: Sequence[Tensor]) -> None:
        """Take what the late entries of each equation contribute at some times, shape (time, sample, …).

        It holds up to the next call of this or of `enter`.
        """
        self._forget_foreseen()
        self._foreseen = dict(zip(times, zip(*(each.unbind() for each in arriving), strict=True), strict=True))

    def kept(self) -> dict[float, tuple[Tensor, ...]]:
        """Return copies of what has been foreseen."""
        return {time: tuple(value.clone() for value in values) for time, values in self._foreseen.items()}

    def load(self, entered: float, foreseen: Mapping[float, tuple[Tensor, ...]]) -> None:
        """Go on from what `kept` returned, in a step that began at a time."""
        self.enter(entered)
        self._foreseen = {time: tuple(v.to(self._plan.device) for v in values) for time, values in foreseen.items()}

    def _forget_foreseen(self) -> None:
        self._await_arrivals()
        self._foreseen, self._recalled = {}, None

    def _await_arrivals(self) -> None:
        if self.arrivals:
            for equation in self._plan.late:
                equation.await_arrival()
            self.arrivals = ()

    def ahead(self, times: Sequence[float]) -> dict[str, Tensor]:
        """Return the activity of what moves within steps at some times, shape (time, sample, …)."""
        moving = self._between_jumps()
        found = {name: self._clamped[name].new_empty((len(times), *self._clamped[name].shape)) for name in moving}
        for name, each in moving.items():
            for place, time in enumerate(times):
                each.move(self.origin + time)
                found[name][place] = self._clamped[name]
        return found

    def take(self, ahead: Mapping[str, Tensor], place: int) -> None:
        """Bring what moves within steps to a place of what `ahead` returned."""
        for name, values in ahead.items():
            self._clamped[name].copy_(values[place])
        if ahead:
            self._renew(ahead)

    def over(self, moments: Sequence[tuple[float, float]]) -> dict[str, Tensor]:
        """Return the activity of what is driven at many moments, shape (moment, sample, …).

        Each is a time, after that at which the step that it is in begins.
        """
        starts, times = ([self.origin + moment[place] for moment in moments] for place in (0, 1))
        return {n: driven.over(starts if driven.jumps_alone else times) for n, driven in self._driven.items()}

    def _between_jumps(self) -> dict[str, Driven]:
        return {name: each for name, each in self._driven.items() if name not in self._jumping}

    def _move(self, driven: Mapping[str, Driven], time: float) -> None:
        """Bring populations to what they are given at a time, and what they contribute with them."""
        if driven:
            for each in driven.values():
                each.move(self.origin + time)
            self._renew(driven)

    def _renew(self, names: Collection[str]) -> None:
        """Say that the activity of populations that vary in time has been changed."""
        self._plan.points.expire(names)
        for equation in self._plan.equations.values():
            if equation.driven and any(name in names for entry in equation.driven for name in entry.reads):
                equation.drive(self._clamped)

    def _recall(self, time: float) -> None:
        """Bring the echoes of what is dynamic, or driven, to what it was so long before a time."""
        past = self._known_past
        for each in self._echoes.recalled:
            past.write(each.part, time - each.delay, each.memory)
        if self._plan.bounds:
            for echo in self._echoes.dynamic:
                if echo.name in self._plan.bounds:
                    echo.block.clamp_(*self._plan.bounds[echo.name])
        for late in self._moving_late.values():
            late.move(self.origin + time)

    @property
    def _known_past(self) -> Past:
        if self.past is None:
            raise InvalidValueError(
                f"network {self._network!r} has delays: F depends on the past, which begins with system.initial_state()"
            )
        return self.past

    def renew_echoes(self) -> None:
        """Say that what delayed couplings read has changed."""
        self._plan.points.expire_echoes()
        self._settled = False

    def settle(self, state: State) -> None:
        """Bring the echoes of instantaneous populations to what follows from the others, where these have changed."""
        if not self._settled:
            for echo, equation in self._echoes.settled:
                equation.evaluate(state.read, echo.block)
            self._settled = True
