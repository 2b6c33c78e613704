"""The vector field of a bound network with its graph, for `torch.autograd` to differentiate.

`System` writes into buffers, and takes the weights as constants. Here the graph reaches back to the inputs, the
targets, the starts, the parameters of every stage, the feedback weights, and the numbers of the declaration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neurodyn.errors import InvalidValueError
from neurodyn.layers.forward import ForwardPass, evaluated, sources
from neurodyn.layers.inverses import forward_difference, inverse_value
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.stage_point import StagePoint
from neurodyn.layers.stages import Stage
from neurodyn.network.coupling import Coupling
from neurodyn.network.deviations import ForwardDeviation, InverseDeviation
from neurodyn.network.drives import Constant, Data, Drive
from neurodyn.network.maps import Map, names_of
from neurodyn.network.stage_maps import Feedback, Forward, Inverse
from neurodyn.network.vectors import Vector
from neurodyn.network.wrapping import Modulated, modulating
from neurodyn.system.agreement import Agreement
from neurodyn.system.continued import Starts
from neurodyn.system.driven import Driven
from neurodyn.system.equation import Entry
from neurodyn.system.inputs import Inputs, Targets, inputs_by_name
from neurodyn.system.system import System
from neurodyn.system.transposed import Product, transposed, transposed_anew

Blocks = dict[str, Tensor]
"""Activity by population, shape (sample, …)."""
Take = Callable[[Tensor], Tensor]
"""What a tensor that requires a gradient is taken by: itself, or a leaf in its place."""


class TracedField:
    """dx/dt = F(x, t) as a function of matrices (sample, unit) of the dynamic populations side by side, with its graph.

    Parameters
    ----------
    system
        The system, which has checked what follows, without a graph.
    inputs, targets, initial
        What the system is bound to.
    take
        What to take for a tensor of the data or the declaration that requires a gradient.
    checkpointed
        Whether F is evaluated within checkpoints.

    Raises
    ------
    ValueError
        If a map has no form that can be differentiated.
    """

    def __init__(
        self,
        system: System,
        inputs: Inputs,
        targets: Targets,
        initial: Starts | None,
        *,
        take: Take = lambda tensor: tensor,
        checkpointed: bool = False,
    ) -> None:
        self.system, self.network, self._take = system, system.network, take
        network = self.network
        for coupling in network.couplings:
            check_traceable(coupling)
        given = {name: x for name, x in inputs_by_name(network, inputs).items() if isinstance(x, Tensor)}
        by_name = dict(system.data.inputs)
        for name, tensor in given.items():
            by_name[name] = _like(self._taken(tensor), by_name[name])
        still = targets if isinstance(targets, Tensor) else None
        wanted = system.data.targets if still is None else self._taken(still)
        forward = _Pass(network.forward, by_name[network.inputs[0]]) if network.forward else None
        data = Data(by_name, wanted, forward, network.loss)
        self._frozen = {} if forward is None else forward.points
        self._slopes = {stage: self._frozen[stage].slope for c in network.couplings for stage in modulating(c.map)}
        # Cycles are differentiated as if they were in a checkpoint.
        self._product: Product = transposed_anew if checkpointed or system.loops else transposed
        self._numbers = {
            what: {p.name: self._vector(getattr(p, what)) for p in network.populations}
            for what in ("tau", "leak", "noise")
        }
        self._gains = {id(c): self._vector(c.gain) for c in network.couplings}
        self.zeros = {p.name: self._filled(p.name) for p in network.populations if p.name in system.shapes}
        self._driven = system.plan.batch.driven
        self._clamped = {
            name: self._value(name, network[name].clamp, data, bound)
            for name, bound in system.clamped.items()
            if name not in self._driven
        }
        starts = initial if isinstance(initial, Mapping) and not hasattr(initial, "data_vars") else {}
        own = system.initial_state().activity
        self.start = {
            name: self._value(name, starts.get(name, network[name].initial), data, own[name]) for name in system.dynamic
        }
        """Where the dynamic populations start, shape (sample, …)."""
        self.widths = [prod(system.shapes[name]) for name in system.dynamic]
        equations = system.plan.equations
        self._moving = {name: (*each.moving, *each.driven) for name, each in equations.items()}
        self._constant = {
            name: self._total(name, each.held, self.zeros[name], self._clamped, {}) for name, each in equations.items()
        }
        """What the populations contribute that stand still."""
        self._agreements = {name: Agreement(loop) for name, loop in system.loops.items()}
        self.recall: Callable[[str, float], Tensor] | None = None
        """Gives what a dynamic population was at a time of the run, where couplings have delays."""

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Where each unit stays, shape (unit,) both; None where no population has bounds."""
        return self._ends(self.system.bounds)

    @cached_property
    def _walls(self) -> tuple[Tensor, Tensor] | None:
        """Likewise, where dx/dt is 0 as it leads outside."""
        return self._ends(self.system.walls)

    def _ends(self, bounds: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        if not bounds:
            return None
        ends = []
        for place, unbounded in enumerate((-math.inf, math.inf)):
            blocks = {name: zeros[:1] + unbounded for name, zeros in self.zeros.items()}
            blocks |= {name: self.zeros[name][:1] + both[place] for name, both in bounds.items()}
            ends.append(self.rows(blocks)[0])
        return ends[0], ends[1]

    def confined(self, x: Tensor) -> Tensor:
        """Return a state brought inside its bounds."""
        return x if self.bounds is None else x.clamp(*self.bounds)

    def _taken(self, tensor: Tensor) -> Tensor:
        return self._take(tensor) if tensor.requires_grad and torch.is_grad_enabled() else tensor

    def _vector(self, value: Vector) -> Vector:
        return self._taken(value) if isinstance(value, Tensor) else value

    def _filled(self, name: str) -> Tensor:
        shape = (self.system.samples, *self.system.shapes[name])
        return torch.zeros(shape, dtype=self.system.dtype, device=self.system.device)

    def _value(self, name: str, given: Tensor | Drive | float | None, data: Data, bound: Tensor) -> Tensor:
        if isinstance(given, Constant):
            given = given.constant
        value = given.value(name, data) if isinstance(given, Drive) else given
        if not isinstance(value, Tensor) or not value.requires_grad:
            return bound
        return _like((value if isinstance(given, Drive) else self._taken(value)).expand(bound.shape), bound)

    def number(self, what: str, name: str) -> Vector:
        """Return a number of a population, `tau`, `leak` or `noise`, with its graph."""
        return self._numbers[what][name]

    def gain(self, coupling: Coupling) -> Vector:
        """Return the gain of a coupling, with its graph."""
        return self._gains[id(coupling)]

    def rows(self, blocks: Mapping[str, Tensor]) -> Tensor:
        """Return the dynamic populations' activity side by side, shape (sample, unit)."""
        return torch.cat([blocks[name].flatten(1) for name in self.system.dynamic], 1)

    def everything(self, x: Tensor, time: float, entered: float | None = None) -> Tensor:
        """Return the free populations' activity side by side, the instantaneous ones' after the dynamic ones'.

        The parameters are as of `__call__`.
        """
        if not self.system.instantaneous:
            return x
        settled = self.settled(x, time, entered)
        return torch.cat([x, *(settled[name].flatten(1) for name in self.system.instantaneous)], 1)

    def blocks(self, rows: Tensor) -> Blocks:
        """Return the dynamic populations' blocks of a matrix (sample, unit), or of several, (…, sample, unit)."""
        parts = torch.split(rows, self.widths, -1)
        return {
            name: part.reshape(*rows.shape[:-1], *self.system.shapes[name])
            for name, part in zip(self.system.dynamic, parts, strict=True)
        }

    def clamped(self, time: float, entered: float) -> Blocks:
        """Return the activity of the clamped populations at a time, in a step that begins at `entered`."""
        varying = {
            name: self._driven_at(name, driven, entered if driven.jumps_alone else time)
            for name, driven in self._driven.items()
        }
        return {**self._clamped, **varying}

    def _driven_at(self, name: str, driven: Driven, time: float) -> Tensor:
        value = driven.signal.course.at(self.system.timeline.origin + time).to(self.zeros[name])
        value = value + self.zeros[name]
        return value if driven.noise is None else value + driven.noise

    def settled(
        self,
        x: Tensor,
        time: float = 0.0,
        entered: float | None = None,
        points: dict[tuple[int, str], _Point] | None = None,
    ) -> Blocks:
        """Return every population's activity, the instantaneous ones' and echoes too; parameters as of `__call__`."""
        entered = time if entered is None else entered
        activity = {**self.clamped(time, entered), **self.blocks(x)}
        points = {} if points is None else points
        if self.system.echoes:
            self._recall(activity, time, entered)
        for name in self.system.instantaneous:
            if name in self._agreements:
                self._agree(self._agreements[name], activity, points)
            elif name not in self.system.plan.in_loops:
                activity[name] = self._balanced(name, activity, points)
        return activity

    def _balanced(self, name: str, activity: Mapping[str, Tensor], points: dict[tuple[int, str], _Point]) -> Tensor:
        """Return the activity of an instantaneous population, given what it reads."""
        total = self._total(name, self._moving[name], self._constant[name], activity, points)
        return total / self.number("leak", name)

    def _agree(self, agreement: Agreement, activity: Blocks, points: dict[tuple[int, str], _Point]) -> None:
        """Bring the populations of a cycle to where they agree with what enters them."""
        still = {name: block.detach() for name, block in activity.items()}

        def evaluate(torn: Mapping[str, Tensor], traced: bool) -> Blocks:
            known, own = {**(activity if traced else still), **torn}, dict[tuple[int, str], _Point]()
            for name in agreement.others:
                known[name] = self._balanced(name, known, own)
            made = {name: self._balanced(name, known, own) for name in agreement.torn}
            return {**made, **{name: known[name] for name in agreement.others}}

        activity |= agreement.reached(evaluate, {name: self.zeros[name] for name in agreement.names})

    def follow(self, other: TracedField) -> None:
        """Solve cycles from where those of another field were solved, whose numbers differ by next to nothing.

        Other solutions are then not looked for anew.
        """
        for name, agreement in self._agreements.items():
            agreement.load(other._agreements[name].kept(), self.system.device)

    def _recall(self, activity: Blocks, time: float, entered: float) -> None:
        """Add the echoes: what populations were so long before a time."""
        echoes = self.system.echoes
        assert self.recall is not None, "who runs a network with delays keeps its past"
        for echo in echoes.dynamic:
            then = self.recall(echo.name, time - echo.delay)
            activity[echo.key] = then.clamp(*self.system.bounds[echo.name]) if echo.name in self.system.bounds else then
        for echo in echoes.driven:
            late = self.system.timeline.late[echo.key]
            activity[echo.key] = self._driven_at(echo.name, late, entered if late.jumps_alone else time)
        for echo, equation in echoes.settled:
            total = self._total(echo.name, equation.moving, self.zeros[echo.name], activity, {})
            activity[echo.key] = total / self.number("leak", echo.name)

    def __call__(self, x: Tensor, time: float = 0.0, entered: float | None = None) -> Tensor:
        """Return F(x, t), shape (sample, unit); under bounds of x brought inside, and 0 where F leads outside.

        Parameters
        ----------
        x
            Shape (sample, unit).
        time
            t, counted from the start of the run.
        entered
            When the step began that this is in; what moves in jumps alone stands still since then. By default now.
        """
        points: dict[tuple[int, str], _Point] = {}
        x = self.confined(x)
        activity = self.settled(x, time, entered, points)
        slopes = {}
        for name in self.system.dynamic:
            total = self._total(name, self._moving[name], self._constant[name], activity, points)
            slopes[name] = (total - self.number("leak", name) * activity[name]) / self.number("tau", name)
        slope = self.rows(slopes)
        if self._walls is None:
            return slope
        low, high = self._walls
        return slope.masked_fill(((x <= low) & (slope < 0)) | ((x >= high) & (slope > 0)), 0.0)

    def _total(
        self,
        name: str,
        entries: Iterable[Entry],
        total: Tensor,
        activity: Mapping[str, Tensor],
        points: dict[tuple[int, str], _Point],
    ) -> Tensor:
        """Add to a total what enters a population, or its echo, by some entries."""
        for entry in entries:
            inputs = [activity[source] for source in names_of(entry.sources)]
            total = total + self.gain(entry.coupling) * self._map(entry.coupling.map, inputs, name, activity, points)
        return total

    def through(self, coupling: Coupling, activity: Mapping[str, Tensor]) -> Tensor:
        """Return map(source) of a coupling, given the activity by population, where one that is absent is 0."""
        inputs = [activity.get(source, self.zeros[source]) for source in names_of(coupling.source)]
        return self._map(coupling.map, inputs, coupling.target, activity, {})

    def _map(
        self,
        map_: Map,
        inputs: Sequence[Tensor],
        target: str,
        activity: Mapping[str, Tensor],
        points: dict[tuple[int, str], _Point],
    ) -> Tensor:
        source = inputs[0]
        if isinstance(map_, Modulated):
            return self._slopes[map_.stage] ** map_.power * self._map(map_.map, inputs, target, activity, points)
        if isinstance(map_, Feedback):
            return self._point(map_, target, activity, points).pull_back(map_, source, self._product)
        if isinstance(map_, Forward):
            return map_.stage.apply(source)
        if isinstance(map_, ForwardDeviation):
            at = self.system.points.frozen(map_.stage).values
            return forward_difference(map_.stage.layers, source, cast(float, map_.scale), at)
        if isinstance(map_, InverseDeviation):
            at = self.system.points.frozen(map_.stage).values
            return map_.stage.inverted().difference(source, cast(float, map_.scale), at)
        if isinstance(map_, Inverse):
            at = self._frozen[map_.stage].values if map_.frozen else ()
            return inverse_value(map_.stage.layers, map_.stage.name, source, at)
        return map_.apply(*inputs)

    def _point(
        self, map_: Feedback, target: str, activity: Mapping[str, Tensor], points: dict[tuple[int, str], _Point]
    ) -> _Point:
        if map_.frozen:
            return self._frozen[map_.stage]
        at = map_.at or target
        key = (id(map_.stage), at)
        if key not in points:
            # That of an affine stage is the same everywhere.
            points[key] = _Point(map_.stage, self.zeros[at] if map_.linear else activity[at])
        return points[key]


def all_activity(field: TracedField, times: Sequence[float], states: Tensor) -> Blocks:
    """Return the activity of every free population at some times, shape (time, sample, …).

    Parameters
    ----------
    field
        The field, of a network without delays.
    times
        When.
    states
        The states then, shape (time, sample, unit).
    """
    if field.system.instantaneous:
        states = torch.stack([field.everything(x, time) for x, time in zip(states, times, strict=True)])
    return by_name(field, states)


def by_name(field: TracedField, states: Tensor) -> Blocks:
    """Return each free population's activity, shape (time, sample, …), of what `everything` gives at each time."""
    width = sum(field.widths)
    found = field.blocks(states[:, :, :width])
    for name in field.system.instantaneous:
        shape = field.system.shapes[name]
        found[name] = states[:, :, width : width + prod(shape)].reshape(*states.shape[:2], *shape)
        width += prod(shape)
    return {population.name: found[population.name] for population in field.system.free}


def _like(tensor: Tensor, bound: Tensor) -> Tensor:
    """Return a tensor's graph at what the system is bound to, which may have noise of its own."""
    return tensor + (bound - tensor.detach()) if tensor.requires_grad else bound


def check_traceable(coupling: Coupling) -> None:
    """Refuse a map of someone's own that binds itself, and has no form to differentiate."""
    map_ = coupling.map.map if isinstance(coupling.map, Modulated) else coupling.map
    known = (Feedback, Forward, Inverse, ForwardDeviation)
    if not isinstance(map_, known) and type(map_).apply is Map.apply:
        raise InvalidValueError(
            f"coupling {coupling}: {type(map_).__name__} defines no apply, which is what is differentiated; define it "
            "beside bind"
        )


class _Point(StagePoint):
    """A stage at an operating point, with a graph."""

    def __init__(self, stage: Stage, *x: Tensor) -> None:
        self.stage = stage
        self._x = x
        self._known: list[Tensor] = []

    @property
    def value(self) -> Tensor:
        return self.values[-1]

    @property
    def values(self) -> list[Tensor]:
        """x, and then the value of each layer; g(x) is the last."""
        if not self._known:
            # Copies, because a layer that works in place would overwrite what it reads.
            self._known = [self._x[0], self.stage.layers[0](*(each.clone() for each in self._x))]
            for layer in self.stage.layers[1:]:
                self._known.append(layer(self._known[-1].clone()))
        return self._known

    @property
    def slope(self) -> Tensor:
        first = self.stage.first_of_output
        slope = torch.ones_like(self.values[first])
        for place in range(first, len(self.stage.layers)):
            layer = self.stage.layers[place]
            if isinstance(layer, (FirstUnits, nn.Flatten)):
                slope = layer(slope)
            else:
                slope = _back_through(layer, {}, (self.values[place],), slope, transposed)
        return slope

    def pull_back(self, map_: Feedback, v: Tensor, product: Product) -> Tensor:
        """Return Jᵀ v, as the map takes it, by products with the layers' Jacobians."""
        for place in reversed(range(len(self.stage.layers))):
            layer, psi = self.stage.layers[place], {}
            if map_.weights is not None and place in map_.weights.tensors:
                tensor = map_.weights.tensors[place]
                psi = {"weight": tensor.t() if isinstance(layer, nn.Linear) else tensor}
            if map_.derivative or place not in self.stage.activations:
                x = (self.values[place],) if place else self._x
                v = _back_through(layer, psi, x, v, product, map_.argument)
        return v


def _back_through(
    layer: nn.Module, psi: Mapping[str, Tensor], x: Sequence[Tensor], v: Tensor, product: Product, argument: int = 0
) -> Tensor:
    """Return Jᵀ v of a layer by one of what it reads, x, with weights in place of its own."""
    weights = {**dict(layer.named_parameters()), **psi}
    argument = min(argument, len(x) - 1)  # the layers after the first read one value
    others = (*x[:argument], *x[argument + 1 :])

    def function(at: Tensor, *given: Tensor) -> Tensor:
        read = [each.clone() for each in given[: len(others)]]
        read.insert(argument, at.clone())
        value: Tensor = functional_call(layer, dict(zip(weights, given[len(others) :], strict=True)), tuple(read))
        return value

    return product(function, x[argument], (*others, *weights.values()), v)


class _Pass(ForwardPass):
    """The forward pass, with a graph."""

    points: dict[Stage, _Point]  # type: ignore[assignment]

    def __init__(self, stages: Sequence[Stage], inputs: Tensor) -> None:
        self.points = {}
        *_, self.output = evaluated(sources(stages), inputs, self._value).values()

    def _value(self, stage: Stage, *x: Tensor) -> Tensor:
        self.points[stage] = _Point(stage, *x)
        return self.points[stage].value
