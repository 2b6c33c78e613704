"""What discrete inference has to evaluate: only what has begun to move and can still reach pending plasticity.

Both cones are read off the declaration. From the start, a change spreads by one coupling a step: a population whose
equation is still in balance rests, exactly. And what no pending update depends on, through the couplings of the steps
in between, need not be evaluated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurodyn.drives import ForwardValue, Input
from neurodyn.maps import Forward, Identity
from neurodyn.stages import Stage
from neurodyn.timing import OnSpike

if TYPE_CHECKING:
    from neurodyn.network import Coupling, Network, Population

Symbol = Stage | str | None
"""What a population is known to hold: the forward pass's value after a stage, "input", "zero", or nothing known."""


@dataclass(frozen=True)
class Start:
    """What the declaration tells of the state before the first step.

    Parameters
    ----------
    holds
        What each population is known to hold.
    silent
        The populations that are exactly 0.
    resting
        The dynamic populations whose dx/dt is exactly 0.
    """

    holds: Mapping[str, Symbol]
    silent: frozenset[str]
    resting: frozenset[str]


@dataclass(frozen=True)
class Step:
    """What one step of inference evaluates.

    Parameters
    ----------
    settle
        The instantaneous populations to evaluate, in order.
    advance
        The dynamic populations to advance.
    silent
        The populations that are exactly 0, and whose couplings are skipped.
    """

    settle: tuple[str, ...]
    advance: tuple[str, ...]
    silent: frozenset[str]


def read_start(network: Network, clamped: Collection[str], overridden: Collection[str] = ()) -> Start:
    """Read off a declaration what balances before the first step.

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
    holds: dict[str, Symbol] = {}
    balanced: set[str] = set()
    free = [p for p in network.populations if p.name not in clamped]
    for population in network.populations:
        drive = population.clamp if population.name in clamped else population.initial
        if population.name in overridden:
            holds[population.name] = None
        elif isinstance(drive, ForwardValue):
            holds[population.name] = drive.stage
        elif isinstance(drive, Input) and network.forward:
            holds[population.name] = "input"
        elif population.name not in clamped and population.tau > 0 and drive == 0.0:
            holds[population.name] = "zero"
        else:
            holds[population.name] = None

    def total(population: Population) -> dict[Symbol, float] | None:
        """Add up gain · map by what it is known to be; None if something is not known."""
        result: dict[Symbol, float] = {}
        for coupling in network.into(population.name):
            symbol = _through(coupling, holds[coupling.source], before)
            if symbol is None:
                return None
            if symbol != "zero":
                result[symbol] = result.get(symbol, 0.0) + coupling.gain
        return {symbol: gain for symbol, gain in result.items() if gain}

    instantaneous = {p.name: p for p in free if p.tau == 0}
    for name in network.instantaneous_order:
        balance = total(instantaneous[name]) if name in instantaneous else None
        if balance == {}:
            holds[name] = "zero"
        elif balance is not None and list(balance.values()) == [instantaneous[name].leak]:
            holds[name] = next(iter(balance))
    for population in free:
        still = population.leak == 0 or holds[population.name] == "zero"
        if population.tau > 0 and still and total(population) == {}:
            balanced.add(population.name)
    return Start(holds, frozenset(n for n, symbol in holds.items() if symbol == "zero"), frozenset(balanced))


def input_of(network: Network) -> dict[Stage, Symbol]:
    """Return what each stage of the forward pass reads: "input", or the stage before it."""
    return dict(zip(network.forward, ("input", *network.forward), strict=False))


def _through(coupling: Coupling, symbol: Symbol, before: Mapping[Stage, Symbol]) -> Symbol:
    if symbol == "zero" and coupling.map.homogeneous:
        return "zero"
    if isinstance(coupling.map, Identity):
        return symbol
    if isinstance(coupling.map, Forward) and symbol is not None and before.get(coupling.map.stage) == symbol:
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
        self._network, self._steps = network, steps
        free = [p for p in network.populations if p.name not in clamped]
        self._dynamic = [p.name for p in free if p.tau > 0]
        self._instantaneous = [n for n in network.instantaneous_order if n not in clamped]
        self._reads = {p.name: {r for c in network.into(p.name) for r in c.map.reads(c.source, c.target)} for p in free}
        self._silent, self._moves = self._spread(begins)
        self._plans: dict[tuple[int, tuple[tuple[int, int], ...]], dict[int, Step]] = {}

    def _spread(self, begins: Start) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
        """For each step, work out who is still exactly 0, and who moves in it."""
        silent: list[frozenset[str]] = []
        moves: list[frozenset[str]] = []
        changed: set[str] = set()
        for _ in range(self._steps + 1):
            for name in self._instantaneous:
                if self._reads[name] & changed:
                    changed.add(name)
            silent.append(begins.silent - changed)
            moves.append(
                frozenset(
                    name
                    for name in self._dynamic
                    if name not in begins.resting or name in changed or self._reads[name] & changed
                )
            )
            changed |= moves[-1]
        return silent, moves

    def plan(self, first: int, pending: Mapping[int, int]) -> Mapping[int, Step]:
        """Return what each step from `first` on evaluates.

        Parameters
        ----------
        first
            The step at hand.
        pending
            The rules that may still act, by their index in the network's plasticity, and the first step at which each
            may: at that one only, or, for a rule that acts on spikes, from then on.

        Returns
        -------
        mapping of int to Step
            By step, up to the last one at which a rule may act; there, nothing advances.
        """
        key = (first, tuple(pending.items()))
        if key not in self._plans:
            self._plans[key] = self._plan(first, pending)
        return self._plans[key]

    def _plan(self, first: int, pending: Mapping[int, int]) -> dict[int, Step]:
        plan: dict[int, Step] = {}
        later: set[str] = set()
        for step in range(self._steps, first - 1, -1):
            acting = self._acting(step, pending)
            if not (acting or plan):
                continue
            advance = tuple(name for name in self._dynamic if name in later and name in self._moves[step])
            needed = self._closure(later | acting, advance)
            settle = tuple(n for n in self._instantaneous if n in needed and n not in self._silent[step])
            plan[step] = Step(settle, advance, self._silent[step])
            later = needed.intersection(self._dynamic)
        return plan

    def _acting(self, step: int, pending: Mapping[int, int]) -> set[str]:
        names: set[str] = set()
        for index, earliest in pending.items():
            rule = self._network.plasticity[index]
            if step == earliest or (step > earliest and isinstance(rule.when, OnSpike)):
                names |= {rule.post, rule.pre} if rule.presynaptic == "live" else {rule.post}
        return names

    def _closure(self, names: Iterable[str], advance: Iterable[str]) -> set[str]:
        needed = set(names).union(*(self._reads[name] for name in advance))
        for name in reversed(self._instantaneous):
            if name in needed:
                needed |= self._reads[name]
        return needed
