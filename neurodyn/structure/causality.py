"""What discrete inference has to evaluate: only what has begun to move and can still reach pending plasticity.

Both causal cones are read off the declaration.

- From the start, onwards in time: after a forward pass x̄_l = g_l(x̄_{l−1}), an error e_l = x_l − g_l(x_{l−1}) is 0,
  and a value that only such errors enter rests. Whatever is not in balance moves, and the change spreads from there,
  from one dynamic population to the next in a step.
- From the plasticity, backwards in time: a rule that acts at step n reads two populations there; to advance those from
  step n − 1 takes what enters them, and so on down to the start. Nothing else is evaluated.

In Z-IL the two cones meet in one error population a step, so that it costs little more than backprop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from neurodyn.layers.forward import sources
from neurodyn.layers.stages import Stage
from neurodyn.network.coupling import Coupling
from neurodyn.network.drives import ForwardValue, Input, without_noise
from neurodyn.network.network import Network
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.pointwise import Identity
from neurodyn.network.population import Population
from neurodyn.network.stage_maps import Forward
from neurodyn.network.vectors import is_number

Symbol = Stage | Literal["input", "zero"] | None
"""What a population is known to hold: the forward pass's value after a stage, its input, 0, or nothing known."""


@dataclass(frozen=True)
class Start:
    """What the declaration tells of the state before the first step."""

    holds: Mapping[str, Symbol]
    """What each population is known to hold."""
    silent: frozenset[str]
    """The populations that are exactly 0."""
    resting: frozenset[str]
    """The dynamic populations whose dx/dt is exactly 0."""
    points: tuple[tuple[Stage, str], ...]
    """The stages that read in the forward pass what a population holds, each with that population."""


@dataclass(frozen=True)
class Step:
    """What one step of inference evaluates."""

    settle: tuple[str, ...]
    """The instantaneous populations to evaluate, in order."""
    advance: tuple[str, ...]
    """The dynamic populations to advance."""
    silent: frozenset[str]
    """The populations that are exactly 0, and whose couplings are skipped."""


def read_start(network: Network, clamped: Collection[str], overridden: Collection[str] = ()) -> Start:
    """Read off a declaration what balances before the first step.

    The instantaneous populations are followed symbolically: one that receives gain · x̄_l and −gain · x̄_l is 0.

    Parameters
    ----------
    network
        The declaration.
    clamped
        The populations that are held in this run.
    overridden
        The populations that start elsewhere than the declaration says.
    """
    before = input_of(network)
    holds = {p.name: None if p.name in overridden else _declared(network, p, clamped) for p in network.populations}

    def received(population: Population) -> dict[Symbol, float] | None:
        """Add up the gains of each symbol that enters a population, but for 0; None if something is not known."""
        gains: dict[Symbol, float] = {}
        for coupling in network.into(population.name):
            symbols = {holds[source] for source in coupling.sources}
            # Of several sources, all that are not 0 leave unknown what enters.
            held = next(iter(symbols)) if len(coupling.sources) == 1 or symbols == {"zero"} else None
            symbol = _through(coupling, held, before)
            if symbol is None or isinstance(coupling.gain, Tensor):
                return None
            if symbol != "zero":
                gains[symbol] = gains.get(symbol, 0.0) + coupling.gain
        return {symbol: gain for symbol, gain in gains.items() if gain}

    for name in network.instantaneous_order:
        if name not in clamped:
            gains = received(network[name])
            if gains == {}:
                holds[name] = "zero"
            elif gains is not None and len(gains) == 1 and is_number(network[name].leak, next(iter(gains.values()))):
                (holds[name],) = gains
    silent = frozenset(name for name, symbol in holds.items() if symbol == "zero")
    resting = frozenset(
        p.name
        for p in network.populations
        if not p.instantaneous
        and p.name not in clamped
        and (is_number(p.leak, 0) or p.name in silent)
        and received(p) == {}
    )
    points = tuple((stage, name) for stage, read in before.items() for name, held in holds.items() if held == read)
    return Start(holds, silent, resting, points)


def common_start(starts: Sequence[Start]) -> Start:
    """Return what holds at the start of several networks that differ in numbers."""
    first, *others = starts
    return Start(
        {name: held if all(o.holds[name] == held for o in others) else None for name, held in first.holds.items()},
        first.silent.intersection(*(other.silent for other in others)),
        first.resting.intersection(*(other.resting for other in others)),
        tuple(point for point in first.points if all(point in other.points for other in others)),
    )


def input_of(network: Network) -> dict[Stage, Symbol]:
    """Return what each stage of the forward pass reads that reads one value: the input, or another stage's value."""
    return {stage: read[0] for stage, read in sources(network.forward).items() if len(read) == 1}


def _declared(network: Network, population: Population, clamped: Collection[str]) -> Symbol:
    """Return what a population holds at the start by its own declaration."""
    drive = population.clamp if population.name in clamped else population.initial
    if type(drive) is ForwardValue:
        return drive.stage
    if (
        type(without_noise(drive)) is Input and network.forward
    ):  # which has one input, where other networks may have several
        return "input"
    return "zero" if is_number(drive, 0.0) and not population.instantaneous else None


def _through(coupling: Coupling, symbol: Symbol, before: Mapping[Stage, Symbol]) -> Symbol:
    """Return what a coupling's map makes of a symbol."""
    if symbol == "zero" and coupling.map.homogeneous:
        return "zero"
    if type(coupling.map) is Identity:
        return symbol
    if type(coupling.map) is Forward and symbol is not None and before.get(coupling.map.stage) == symbol:
        return coupling.map.stage
    return None


class Schedule:
    """The steps of discrete inference, and what each has to evaluate for the plasticity still pending.

    Parameters
    ----------
    network
        The declaration.
    clamped
        The populations that are held in this run.
    begins
        The state before the first step.
    steps
        How many steps the inference takes at most.
    """

    def __init__(self, network: Network, clamped: frozenset[str], begins: Start, steps: int) -> None:
        self._rules, self._steps = network.plasticity, steps
        free = [p for p in network.populations if p.name not in clamped]
        self._dynamic = [p.name for p in free if not p.instantaneous]
        self._instantaneous = [n for n in network.instantaneous_order if n not in clamped]
        self._reads = {p.name: {r for c in network.into(p.name) for r in c.reads} for p in free}
        self._place = {name: place for place, name in enumerate((*self._dynamic, *self._instantaneous))}
        self._behind: dict[str, set[str]] = {}
        """What the activity of each instantaneous population depends on at the same time, it included."""
        for name in self._instantaneous:
            self._behind[name] = {name, *self._reads[name]}.union(*(self._behind.get(r, ()) for r in self._reads[name]))
        self._silent, self._moves = self._spread(begins)
        self._plans: dict[tuple[int, tuple[tuple[int, range], ...]], Mapping[int, Step]] = {}

    def _spread(self, begins: Start) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
        """Follow the change onwards: for each step, who is still exactly 0, and who moves in it."""
        silent: list[frozenset[str]] = []
        moves: list[frozenset[str]] = []
        changed: set[str] = set()
        for _ in range(self._steps + 1):
            for name in self._instantaneous:
                if self._reads[name] & changed:
                    changed.add(name)
            silent.append(begins.silent - changed)
            resting = {n for n in begins.resting - changed if not self._reads[n] & changed}
            moves.append(frozenset(self._dynamic) - resting)
            changed |= moves[-1]
        return silent, moves

    def wakes(self, population: str) -> int | None:
        """Return the first step at which a population may be other than 0; None if it is 0 throughout."""
        return next((step for step, silent in enumerate(self._silent) if population not in silent), None)

    def whole(self) -> Mapping[int, Step]:
        """Return what each step evaluates where all that moves is wanted, up to the last; there, nothing advances."""
        everything = {}
        for step, (silent, moves) in enumerate(zip(self._silent, self._moves, strict=True)):
            settle = tuple(n for n in self._instantaneous if n not in silent)
            advance = tuple(n for n in self._dynamic if n in moves and step < self._steps)
            everything[step] = Step(settle, advance, silent)
        return everything

    def plan(self, pending: Mapping[int, range], begin: int = 0) -> Mapping[int, Step]:
        """Return what each step evaluates, up to the last at which a rule may act; there, nothing advances.

        Parameters
        ----------
        pending
            The steps at which each rule may act, by its index in the network's plasticity.
        begin
            The first step that is asked for.
        """
        key = begin, tuple(pending.items())
        if key not in self._plans:
            self._plans[key] = self._plan(pending, begin)
        return self._plans[key]

    def _plan(self, pending: Mapping[int, range], begin: int) -> Mapping[int, Step]:
        """Follow the dependencies backwards, from the last step at which a rule may act to the first asked for."""
        acting: dict[int, list[Plasticity]] = {}
        for i, steps in pending.items():
            for step in steps:
                acting.setdefault(step, []).append(self._rules[i])
        plan: dict[int, Step] = {}
        needed_later: set[str] = set()
        for step in reversed(range(begin, max((steps.stop for steps in pending.values()), default=0))):
            # What does not move yet has not moved before: it is left out of all earlier steps.
            moving = needed_later & self._moves[step]
            read = moving.union(*(rule.reads for rule in acting.get(step, ())), *(self._reads[n] for n in moving))
            needed = read.union(*(self._behind[name] for name in read if name in self._behind))
            settling = {name for name in needed if name in self._behind} - self._silent[step]
            plan[step] = Step(self._in_order(settling), self._in_order(moving), self._silent[step])
            needed_later = {name for name in needed if name in self._place and name not in self._behind}
        return dict(sorted(plan.items()))

    def _in_order(self, names: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=self._place.__getitem__))
