"""Plans: what a declaration and the shapes of its data decide, worked out once and used for every batch of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.layers.forward import ForwardPass
from neurodyn.layers.repeated import Repeated
from neurodyn.layers.stacked import of_samples
from neurodyn.network.consistency import check_coupling_shapes, check_plasticity_shapes
from neurodyn.network.coupling import Coupling
from neurodyn.network.maps import OperatingPoints
from neurodyn.network.network import Network
from neurodyn.network.order import loops_in_order
from neurodyn.network.population import Population
from neurodyn.network.vectors import Vector, plain
from neurodyn.network.wrapping import unwrapped
from neurodyn.structure.cache import start_of, structure_of
from neurodyn.system.batch import Batch, brought, shape_of_source
from neurodyn.system.bound import Given
from neurodyn.system.delays import Ahead, Echo, Echoes
from neurodyn.system.equation import Entry, Equation
from neurodyn.system.loops import Loop, loops_of
from neurodyn.system.numbers import weights_of
from neurodyn.system.own import has_own_parts, look_at_couplings

_MOST_WAYS = 4
"""In how many ways of computing a batch the operations are kept; the last ones used stay."""
_BEFORE_NOTES = 100
"""After how many evaluations of a vector field its operations are noted, which takes as long as so many save."""
_BEFORE_LATE_NOTES = 10
"""Likewise, of what delayed couplings contribute at several times at once."""

FieldWay = Literal["alone", "foreseen", "with jump"]
"""The vector field; where what delayed couplings contribute is given; and with its jumps at the units' kinks."""


class Plan:
    """A network's shapes, order of evaluation, bound equations and buffers.

    It serves one batch at a time, and does not refer to its network.

    Raises
    ------
    ValueError
        If shapes do not fit, or something that the batch leads to is not finite.
    """

    def __init__(self, network: Network, given: Given) -> None:
        self.dtype, self.device, self.samples = given.dtype, given.device, given.samples
        _check_range(network, given.dtype)
        self._forward = ForwardPass(network.forward) if network.forward else None
        self.points = OperatingPoints(self._forward)
        self._repeated: OrderedDict[Hashable, Repeated[Any]] = OrderedDict()
        self._fields: dict[FieldWay, Repeated[None]] = {}
        self._ahead: OrderedDict[int, tuple[Ahead, Repeated[None]]] = OrderedDict()
        batch = brought(network, given, self._forward)
        self._batch: Batch | None = batch
        self.free = tuple(p for p in network.populations if p.name not in batch.clamped)
        self.bounds = {p.name: self._ends(p.bounds) for p in self.free if p.bounds is not None}
        """Of each population that has them, (low, high), tensors of no axes or of the shape of a sample."""
        self.floors, self.ceilings = self._walls(0), self._walls(1)
        """Of these, low where a population's dx/dt is 0 as it leads below, and high likewise; all but infinite ones."""
        self.dynamic, self._held, self._driven = tuple(batch.starts), tuple(batch.clamped), tuple(batch.driven)
        self.shapes = {name: tuple(value.shape[1:]) for name, value in (batch.clamped | batch.starts).items()}
        for population in self.free:
            if population.instantaneous:
                self.shapes[population.name] = population.shape or shape_of_source(network, population, self.shapes)
        _check_shapes(network, self.shapes)
        self.structure = structure_of(network, frozenset(batch.clamped))
        self.sizes = {p.name: self.samples * prod(self.shapes[p.name]) for p in self.free}
        self._take_from_forward(network)
        self.echoes = Echoes()
        """What delayed couplings read."""
        self.equations = {p.name: self._equation(network, p) for p in self.free}
        # Those that are read late lie side by side, so that nothing else is kept of the past.
        self.dynamic = tuple(sorted(self.dynamic, key=self.echoes.shortest_of))
        self.echoes.lay_out(dict(self.places()))
        self.echoed = self.echoes.blocks
        late = [equation for equation in self.equations.values() if equation.late]
        alone = sum(len(equation.late) for equation in late) == len(self.echoes.couplings)
        self.late = late if alone and not self.echoes.settled else []
        """The equations with delayed couplings, where all of these read nothing but the past: they can be foreseen."""
        self.instantaneous = tuple(name for name in network.instantaneous_order if name in self.equations)
        self.loops: dict[str, Loop] = {}
        """Cycles of instantaneous populations, each by the first of them in the order of evaluation."""
        if network.loops:  # of which a clamp may have opened one
            self.instantaneous, cycles = loops_in_order(network.graph(self.instantaneous))
            self.loops = loops_of(cycles, self.equations.__getitem__, self.points)
        size = sum(self.sizes[name] for name in self.instantaneous)
        self.instant = torch.empty(size, dtype=self.dtype, device=self.device)
        """The instantaneous populations' activity, as last settled, shape (m,)."""
        blocks = self.instant.split_with_sizes([self.sizes[name] for name in self.instantaneous])
        self.instant_blocks = {
            name: block.view(self.samples, *self.shapes[name])
            for name, block in zip(self.instantaneous, blocks, strict=True)
        }
        """Views of `instant`, each shape (sample, …)."""
        self.instantaneous_equations = [self.equations[name] for name in self.instantaneous]
        self.dynamic_equations = [self.equations[name] for name in self.dynamic]
        self.in_loops = {name for loop in self.loops.values() for name in loop.names}
        self.has_offsets = any(e.silenced_by is None for each in self.equations.values() for e in each.moving)
        self.size = sum(self.sizes[name] for name in self.dynamic)
        self._check_history(given)
        if has_own_parts(network):
            self._look_at_couplings(network)
        else:
            self._hold()
        self.points.echoes = self.echoed.keys()

    def _look_at_couplings(self, network: Network) -> None:
        """Look at the maps of what is held, work out what they contribute, and look at the others."""
        known = self.batch.clamped | self.batch.starts
        self.echoes.rest(known)
        look_at_couplings(network, known, frozenset(known), self.shapes, self.points)
        self._hold()
        settled: dict[str, Tensor] = {}
        for name in self.instantaneous:
            settled[name] = torch.zeros((self.samples, *self.shapes[name]), dtype=self.dtype, device=self.device)
            self.points.expire()
            with suppress(Exception):  # it has no value at the start, where an equilibrium need not be
                self.equations[name].evaluate(known | settled | self.echoes.blocks, settled[name])
            self.echoes.rest(settled)
        look_at_couplings(network, known | settled, frozenset(settled), self.shapes, self.points)
        self._take_from_forward(network)

    def bind(self, network: Network, given: Given) -> bool:
        """Bring in another batch of the same shapes; False if its drives give other shapes, and it needs another plan.

        Raises
        ------
        ValueError
            If something that the batch leads to is not finite.
        """
        self._check_history(given)
        batch = brought(network, given, self._forward)
        values = batch.clamped | batch.starts
        if tuple(batch.clamped) != self._held or tuple(batch.starts) != self.dynamic:
            return False
        if tuple(batch.driven) != self._driven:
            return False
        if any(tuple(value.shape[1:]) != self.shapes[name] for name, value in values.items()):
            return False
        self._batch = batch
        self._take_from_forward(network)
        for equation in (*self.equations.values(), *(equation for _, equation in self.echoes.settled)):
            equation.renew(self.points)
        self._hold()
        return True

    def _check_history(self, given: Given) -> None:
        """Refuse to go on, with delays, from a moment of a run: what was before it is not known."""
        if self.echoes and given.origin:
            coupling = self.echoes.couplings[0]
            raise InvalidValueError(
                f"initial: the moment at time {given.origin:g} of a run holds nothing of what was before, which the "
                f"delay {coupling.delay:g} of coupling {coupling} reads; run all of the time at once, or start anew "
                "from {name: tensor}, as if all had been at rest there"
            )

    def release(self) -> None:
        """Let go of the batch, if there is one."""
        if self._batch is None:
            return
        self._batch = None
        for equation in self.late:
            equation.await_arrival()
        self.points.forget()
        if self._forward is not None:
            self._forward.forget()

    def places(self) -> Iterator[tuple[str, slice]]:
        """Yield each dynamic population's name and the place of its block in a flat state."""
        start = 0
        for name in self.dynamic:
            end = start + self.sizes[name]
            yield name, slice(start, end)
            start = end

    def repeated(self, network: Network, way: Hashable) -> Repeated[Any]:
        """Return what is computed of a network for one batch after the other, in one of several ways."""
        repeated = self._repeated.pop(way, None)
        self._repeated[way] = Repeated(self._known(network)) if repeated is None else repeated
        while len(self._repeated) > _MOST_WAYS:
            self._repeated.popitem(last=False)
        return self._repeated[way]

    def repeated_fields(self, network: Network) -> Mapping[FieldWay, Repeated[None]]:
        """Return the vector field at one state after the other, of a plan that is bound, in each way of making it."""
        if not self._fields:
            known = self._known(network)
            self._fields = {way: Repeated(known, _BEFORE_NOTES) for way in get_args(FieldWay)}
        return self._fields

    def ahead(self, network: Network, count: int) -> tuple[Ahead, Repeated[None]]:
        """Return memory for the echoes at so many times, and what delayed couplings make of them."""
        known = self._ahead.pop(count, None)
        if known is None:
            ahead = self.echoes.ahead(count)
            known = ahead, Repeated([*self._known(network), *ahead.blocks.values()], _BEFORE_LATE_NOTES)
        self._ahead[count] = known
        while len(self._ahead) > _MOST_WAYS:
            self._ahead.popitem(last=False)
        return known

    def _known(self, network: Network) -> list[Tensor]:
        """Return what computations read that stays where it is, and what they fill."""
        own = [each for equation in self.equations.values() for each in (equation.constant, equation.scale)]
        own += [*(end for ends in self.bounds.values() for end in ends), *self.echoed.values()]
        return [*weights_of(network), self.instant, *(each for each in own if isinstance(each, Tensor))]

    @property
    def batch(self) -> Batch:
        """The batch at hand."""
        assert self._batch is not None, "a plan without a batch is idle"
        return self._batch

    def rest(self, network: Network) -> None:
        """Say that populations hold again what they held before the first step."""
        for loop in self.loops.values():
            loop.forget()
        self.instant.zero_()  # and stays so where inference does not evaluate it
        self._take_from_forward(network)

    def _take_from_forward(self, network: Network) -> None:
        self.points.forget()
        clamped = self.batch.clamped
        for stage, name in start_of(network, frozenset(clamped), frozenset(self.batch.given.initial)).points:
            if name not in self.batch.driven:
                self.points.take_from_forward(stage, name, lasting=name in clamped)

    def _equation(self, network: Network, population: Population) -> Equation:
        held: list[Entry] = []
        moving: list[Entry] = []
        driven: list[Entry] = []
        late: list[Entry] = []
        for coupling in network.into(population.name):
            if coupling.delay and any(map(self._moves, coupling.sources)):
                moving.append(self._delayed(network, coupling, population.name))
                self.echoes.couplings.append(coupling)
                if not any(name in self.shapes and self._moves(name) for name in moving[-1].reads):
                    late.append(moving[-1])
                continue
            entry = self._entry(coupling, coupling.sources, coupling.target)
            if not all(name in self.batch.clamped for name in entry.reads):
                moving.append(entry)
            elif any(name in self.batch.driven for name in entry.reads):
                driven.append(entry)
            else:
                held.append(entry)
        constant = None
        if held or driven:
            shape = (self.samples, *self.shapes[population.name])
            constant = torch.empty(shape, dtype=self.dtype, device=self.device)
        leak = plain(population.leak)
        if population.instantaneous:
            return Equation(population.name, 1.0 / leak, 0.0, constant, held, moving, driven, late)
        scale = self.pace(network, population.name) / plain(population.tau)
        return Equation(population.name, scale, leak, constant, held, moving, driven, late)

    def _entry(self, coupling: Coupling, sources: tuple[str, ...], target: str) -> Entry:
        source = sources if len(sources) > 1 else sources[0]
        return Entry(coupling, coupling.map.bind(self.points, source, target), source, target)

    def _moves(self, name: str) -> bool:
        """Tell whether a population is anything else than constant, so that a delay matters."""
        return name not in self.batch.clamped or name in self.batch.driven

    def _delayed(self, network: Network, coupling: Coupling, target: str, earlier: float = 0.0) -> Entry:
        """Return a coupling's entry into a population, or into its echo that is so much earlier."""
        delay = earlier + coupling.delay
        sources = tuple(
            self._echo(network, name, delay) if delay and self._moves(name) else name for name in coupling.sources
        )
        return self._entry(coupling, sources, target)

    def _echo(self, network: Network, name: str, delay: float) -> str:
        """Return the key of a population's echo, which is made where there is none yet."""
        echoes = self.echoes
        block = torch.empty((self.samples, *self.shapes[name]), dtype=self.dtype, device=self.device)
        echo = Echo(name, delay, block)
        if any(each.key == echo.key for each in echoes.all):
            return echo.key
        if name in self.batch.driven:
            echoes.driven.append(echo)
        elif name in self.batch.starts:
            echoes.dynamic.append(echo)
        else:
            if any(name in (*torn, *others) for torn, others in network.loops):
                raise InvalidValueError(
                    f"population {name} is read with a delay, and is solved for in a cycle of instantaneous "
                    "populations, which has no past; give one of the cycle a time constant tau > 0"
                )
            entries = []
            for coupling in network.into(name):
                at = getattr(unwrapped(coupling.map), "at", None)
                if not set(coupling.reads) <= set(coupling.sources) or (at is not None and not coupling.map.linear):
                    raise InvalidValueError(
                        f"coupling {coupling}: its map reads more than its sources, and population {name} is read with "
                        "a delay; give it a time constant tau > 0, or take its Jacobian at the forward pass"
                    )
                entries.append(self._delayed(network, coupling, echo.key, delay))
            scale = 1.0 / network[name].leak
            echoes.settled.append((echo, Equation(echo.key, scale, 0.0, None, [], entries)))
        return echo.key

    def _walls(self, side: int) -> dict[str, Tensor]:
        walls = {}
        for population in self.free:
            if population.bounds is not None and not population.noisy:  # with noise, a step is clipped as a whole
                end = population.bounds[side]
                if isinstance(end, Tensor) or math.isfinite(end):
                    walls[population.name] = self.bounds[population.name][side]
        return walls

    def _ends(self, bounds: tuple[Vector, Vector]) -> tuple[Tensor, Tensor]:
        low, high = (torch.as_tensor(end, dtype=self.dtype, device=self.device) for end in bounds)
        return low, high

    def pace(self, network: Network, name: str) -> float | Tensor:
        """Return how many times as fast as declared a population is: 1, or of stacked networks that of each sample."""
        if name not in network.paces:
            return 1.0
        like = torch.empty((self.samples, *self.shapes[name]), dtype=self.dtype, device=self.device)
        return of_samples(network.paces[name], like)

    def _hold(self) -> None:
        """Work out what the held populations contribute."""
        for equation in self.equations.values():
            equation.hold(self.batch.clamped)


def _check_range(network: Network, dtype: torch.dtype) -> None:
    """Refuse numbers of the declaration that the run's dtype cannot hold; tensors are of that dtype."""
    numbers: list[tuple[str, object]] = [(f"coupling {each}: its gain", each.gain) for each in network.couplings]
    numbers += [(f"plasticity of stage {rule.stage.name}: its gain", rule.gain) for rule in network.plasticity]
    for population in network.populations:
        own = {"leak": population.leak, "initial value": population.initial, "noise": population.noise}
        numbers += [(f"population {population.name}: its {what}", value) for what, value in own.items()]
        if isinstance(population.tau, (int, float)) and population.tau:
            numbers.append((f"population {population.name}: its rate 1/τ", 1.0 / population.tau))
    most = torch.finfo(dtype).max
    for what, number in numbers:
        if isinstance(number, (int, float)) and abs(number) > most:
            raise InvalidValueError(
                f"{what}, {number:g}, is beyond the range of {dtype}, {most:.2g}; scale it down, or compute in another "
                "dtype"
            )


def _check_shapes(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> None:
    unsized = {p.name for p in network.populations if p.shape is None}
    if not unsized:
        return  # what has sizes was checked as it was declared
    for coupling in network.couplings:
        if not unsized.isdisjoint((*coupling.sources, coupling.target)):
            check_coupling_shapes(coupling, shapes)
    for rule in network.plasticity:
        if not unsized.isdisjoint((rule.pre, rule.post)):
            check_plasticity_shapes(rule, shapes[rule.pre], shapes[rule.post])
