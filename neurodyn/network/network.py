"""The declaration: a network of populations, couplings and plasticity, without data."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

from torch import Tensor, nn

from neurodyn.checks import listed
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.losses import Loss, check_loss, squared_error
from neurodyn.layers.stages import Stage, sources
from neurodyn.network.drives import Constant, Drive, ForwardValue, Input, LossGradient, without_noise
from neurodyn.network.equations import network_equations, network_text, size_text
from neurodyn.network.maps import Feedback, Forward, Wrapping
from neurodyn.network.parts import Coupling, Observable, Plasticity, Population
from neurodyn.network.prospective import with_anticipations
from neurodyn.network.regularizers import Regularizer
from neurodyn.network.timing import AtStep, Inference, OnSpike
from neurodyn.network.vectors import Vector, text_of

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes

Part = TypeVar("Part")


class Network:
    """A network of populations, declared without data.

    Parameters
    ----------
    name
        What it is called.
    populations, couplings, plasticity
        The declaration.
    forward
        The stages of the forward pass, from the input to the output; empty for a network without one.
    loss
        The loss of the forward pass's output against the targets, one value per sample.
    inference
        The discrete inference by which the network learns; None for learning at the equilibrium.
    observables
        What may be recorded beside the populations.
    algebraic
        "solve" for instantaneous populations that form a cycle: what they agree on is solved for at each evaluation, to
        rounding. By default such a cycle is refused.

    Raises
    ------
    ValueError
        If names are unknown or duplicate, sizes do not fit, a coupling leads into a clamped population, instantaneous
        populations form a cycle, a stage is used at the forward pass but is not in `forward`, or plasticity acts at a
        step that the inference does not reach.

    Examples
    --------
    >>> import neurodyn as nd
    >>> u, x = nd.Population("u", 2, clamp=nd.Input()), nd.Population("x", 2, tau=2.0)
    >>> net = nd.Network("leaky", [u, x], [nd.Coupling("u", "x", gain=0.5)])
    >>> print(net.equations())
    u = input
    2 dx/dt = −x + 0.5 u
    """

    stacked: tuple[Network, ...] = ()
    """Of several networks stacked in this one, the declaration with the numbers of each."""
    paces: Mapping[str, tuple[Vector, ...]] = {}
    """How many times as fast as declared a population is in each of the stacked networks, where that differs."""

    def __init__(
        self,
        name: str,
        populations: Iterable[Population],
        couplings: Iterable[Coupling] = (),
        plasticity: Iterable[Plasticity] = (),
        *,
        forward: Iterable[Stage] = (),
        loss: Loss = squared_error,
        inference: Inference | None = None,
        observables: Iterable[Observable] = (),
        algebraic: Literal["solve"] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise InvalidTypeError(f"network {name!r}: its name is text, not {type(name).__name__}")
        self.name = name
        if algebraic is not None and not (isinstance(algebraic, str) and algebraic == "solve"):
            raise InvalidValueError(
                f"network {name!r}: algebraic is 'solve', or None to refuse cycles of instantaneous populations, not "
                f"{algebraic!r}"
            )
        self.algebraic = algebraic
        declared, couplings = _all(Population, name, populations), _all(Coupling, name, couplings)
        populations, self.couplings = with_anticipations(declared, couplings)
        self._populations = _by_name(name, populations)
        self.plasticity = _all(Plasticity, name, plasticity)
        self.forward = _all(Stage, name, forward)
        sources(self.forward)  # refuses a stage that reads what comes later
        check_loss(f"network {name!r}", loss)
        self.loss = loss
        if inference is not None and not isinstance(inference, Inference):
            raise InvalidTypeError(
                f"network {name!r}: inference is Inference(step, steps), or None, not {type(inference).__name__}"
            )
        self.inference = inference
        self.observables = self._observed(observables)
        for coupling in self.couplings:
            self._check_coupling(coupling)
        for rule in self.plasticity:
            pre, post = (self._known(end, f"plasticity of stage {rule.stage.name}") for end in (rule.pre, rule.post))
            if pre.shape is not None and post.shape is not None:
                check_plasticity_shapes(rule, pre.shape, post.shape)
            if rule.reads_forward:
                self._check_in_forward(rule.stage, f"plasticity of stage {rule.stage.name}")
            self._check_when(rule)
        for population in self.populations:
            for drive in (population.clamp, population.initial):
                self._check_drive(population, without_noise(drive))
        if len(set(self.forward)) < len(self.forward):
            raise InvalidValueError(
                f"network {name!r}: a stage stands twice in forward=; make a second Stage of the same layers"
            )
        if self.forward and len(self.inputs) != 1:
            raise InvalidValueError(
                f"network {name!r}: a forward pass starts from one population clamped to Input(), and there are "
                f"{len(self.inputs)}"
            )
        self.instantaneous_order, self.loops = self._order_instantaneous()
        """The instantaneous populations in the order of evaluation; and of each cycle of them those that are torn out
        of it, and the others, in the order of evaluation."""
        self.stages: tuple[Stage, ...] = tuple(
            dict.fromkeys(
                [
                    *self.forward,
                    *(stage for c in self.couplings for stage in c.map.stages),
                    *(r.stage for r in self.plasticity),
                ]
            )
        )
        """Every stage that the network uses, each once."""
        self.origins = tuple(dict.fromkeys(stage.origin for stage in self.stages))
        """What the stages were made of, each once."""

    @cached_property
    def populations(self) -> tuple[Population, ...]:
        """The populations, as declared."""
        return tuple(self._populations.values())

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the populations clamped to the inputs."""
        return tuple(p.name for p in self.populations if isinstance(without_noise(p.clamp), Input))

    @cached_property
    def target_drives(self) -> tuple[tuple[str, Drive], ...]:
        """Each drive that reads the targets, with its population's name before it."""
        drives = [(p.name, drive) for p in self.populations for drive in (p.clamp, p.initial)]
        return tuple((name, drive) for name, drive in drives if isinstance(drive, Drive) and drive.reads_targets)

    @cached_property
    def tensors(self) -> tuple[tuple[str, Tensor], ...]:
        """The tensors of the declaration that are no weights, each with its description before it."""
        found: list[tuple[str, object]] = []
        for population in self.populations:
            name = f"population {population.name}"
            for what in ("clamp", "initial", "tau", "leak", "noise"):
                drive = getattr(population, what)
                value = drive.constant if isinstance(drive, Constant) else drive
                found.append((f"{what} of {name}", value))
            found += [(f"bounds of {name}", bound) for bound in population.bounds or ()]
        found += [(f"gain of coupling {coupling}", coupling.gain) for coupling in self.couplings]
        return tuple((what, value) for what, value in found if isinstance(value, Tensor))

    @property
    def members(self) -> int:
        """How many networks are stacked in this one, each with its own block of the samples."""
        return len(self.stacked) or 1

    def __getitem__(self, name: str) -> Population:
        """Return the population called `name`."""
        return self._known(name, f"network {self.name!r}")

    def feedback_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all feedback weights ψ, each with the name of its stage; other parameters are the module's."""
        for each in dict.fromkeys(c.map.feedback_weights for c in self.couplings):
            if each is not None:
                for tensor in each.tensors.values():
                    yield each.stage.name, tensor

    def into(self, name: str) -> tuple[Coupling, ...]:
        """Return the couplings that lead into the population called `name`."""
        return self._into[self._known(name, f"network {self.name!r}").name]

    @cached_property
    def _into(self) -> dict[str, tuple[Coupling, ...]]:
        return {p.name: tuple(c for c in self.couplings if c.target == p.name) for p in self.populations}

    def regularized(self, regularizer: Regularizer) -> Network:
        """Return the same network with a regularizer of every stage's weights; feedback weights have none."""
        network = copy.copy(self)
        network.plasticity = tuple(
            replace(rule, regularizer=regularizer) if rule.weights is None else rule for rule in self.plasticity
        )
        return network

    def with_dynamics(self, populations: Iterable[Population], couplings: Iterable[Coupling]) -> Network:
        """Return the same network with other populations and couplings."""
        return Network(
            self.name,
            populations,
            couplings,
            self.plasticity,
            forward=self.forward,
            loss=self.loss,
            inference=self.inference,
            observables=self.observables.values(),
            algebraic=self.algebraic,
        )

    def with_numbers(self, populations: Iterable[Population], couplings: Iterable[Coupling]) -> Network:
        """Return the same network with populations and couplings that differ in numbers alone, which need no check."""
        network = copy.copy(self)
        for name in ("populations", "inputs", "target_drives", "_into"):
            vars(network).pop(name, None)
        network._populations = {population.name: population for population in populations}
        network.couplings = tuple(couplings)
        return network

    def equations(self) -> str:
        """Return the equations as text, one line a population."""
        return network_equations(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the populations as nodes and the couplings as arrows, coloured by their map.

        Parameters
        ----------
        ax
            The axes to draw in; new ones if None.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from neurodyn.plot import plot_network

        return plot_network(self, ax)

    def _repr_html_(self) -> str:
        """Show the diagram and the equations in a notebook."""
        from neurodyn.view.svg import network_html

        return network_html(self)

    def __repr__(self) -> str:
        return f"<Network {self.name!r}: {len(self.populations)} populations, {len(self.couplings)} couplings>"

    def __str__(self) -> str:
        return network_text(self)

    def _known(self, name: str, where: str) -> Population:
        if not isinstance(name, str) or name not in self._populations:
            raise InvalidValueError(
                f"{where}: there is no population {name!r}; there are {', '.join(self._populations)}"
            )
        return self._populations[name]

    def _observed(self, observables: Iterable[Observable]) -> dict[str, Observable]:
        by_name: dict[str, Observable] = {}
        for observable in _all(Observable, self.name, observables):
            name = observable.name
            if name in self._populations:
                raise InvalidValueError(f"network {self.name!r}: {name!r} names both a population and an observable")
            if name in by_name:
                raise InvalidValueError(
                    f"network {self.name!r}: two observables are called {name!r}; names must differ"
                )
            _refuse_dimension(self.name, f"observable {name}", name, self._populations)
            by_name[name] = observable
        return by_name

    def _check_coupling(self, coupling: Coupling) -> None:
        *sources, target = (self._known(end, f"coupling {coupling}") for end in (*coupling.sources, coupling.target))
        if target.clamp is not None and not target.clamp.optional:
            raise InvalidValueError(
                f"coupling {coupling}: population {target.name} is clamped to {target.clamp}, so nothing may enter it; "
                "remove the coupling or the clamp"
            )
        for source in sources:
            if isinstance(source.clamp, Input) and source.clamp.integer:
                raise InvalidValueError(
                    f"coupling {coupling}: population {source.name} holds integers, which the forward pass alone "
                    "reads; remove the coupling, or declare Input() without integer"
                )
        for stage in coupling.map.frozen_stages:
            self._check_in_forward(stage, f"coupling {coupling}")
        self._check_point(coupling)
        if isinstance(coupling.gain, Tensor) and tuple(coupling.gain.shape) not in ((), target.shape):
            raise InvalidValueError(
                f"coupling {coupling}: its gain has the shape {tuple(coupling.gain.shape)}, one for each unit of its "
                f"target, and population {target.name} has {size_text(target)} units"
            )
        shapes = {p.name: p.shape for p in (*sources, target) if p.shape is not None}
        if all(p.name in shapes for p in (*sources, target)):
            check_coupling_shapes(coupling, shapes)

    def _check_point(self, coupling: Coupling) -> None:
        """Refuse a live Jacobian whose place nothing tells."""
        map_ = coupling.map
        while isinstance(map_, Wrapping):
            map_ = map_.map
        if not isinstance(map_, Feedback) or map_.frozen:
            return
        stage, target = map_.stage, self._known(coupling.target, f"coupling {coupling}")
        if map_.at is not None:
            at = self._known(map_.at, f"coupling {coupling}: at")
            if None not in (at.shape, target.shape) and at.shape != target.shape:
                raise InvalidValueError(
                    f"coupling {coupling}: J is taken at population {at.name}, which has {size_text(at)} units, and "
                    f"population {target.name}, which Jᵀ leads to, has {size_text(target)}"
                )
            return
        forward = [c for c in self.couplings if isinstance(c.map, Forward) and c.map.stage is stage]
        places = dict.fromkeys([*(c.source for c in forward), *(r.pre for r in self.plasticity if r.stage is stage)])
        if target.name not in places and not stage.affine:
            found = f"; {' or '.join(f'at={name!r}' for name in places)} is where the network uses it" if places else ""
            raise InvalidValueError(
                f"coupling {coupling}: the Jacobian of stage {stage.name} ({stage.label}) is live, and population "
                f"{target.name} is not what the stage reads; say where it is taken with Feedback(stage, at=…){found}"
            )

    def _check_in_forward(self, stage: Stage, where: str) -> None:
        if stage not in self.forward:
            raise InvalidValueError(
                f"{where}: stage {stage.name} ({stage.label}) is used at the forward pass, which does not contain it; "
                "add it to forward=, or use the live activity"
            )

    def _check_when(self, rule: Plasticity) -> None:
        if rule.when == "end":
            return
        where = f"plasticity of stage {rule.stage.name}"
        if self.inference is None:
            raise InvalidValueError(
                f"{where}: it acts {rule.when}, and the network has no inference=Inference(step, steps)"
            )
        if isinstance(rule.when, AtStep) and rule.when.step > self.inference.steps:
            raise InvalidValueError(f"{where}: it acts {rule.when}, and inference takes {self.inference.steps} steps")
        if isinstance(rule.when, OnSpike) and rule.when.moved_by is not None:
            mover, post = self._known(rule.when.moved_by, f"{where}: moved_by"), self._populations[rule.post]
            if mover.instantaneous:
                raise InvalidValueError(
                    f"{where}: moved_by {mover.name!r} is instantaneous, and takes no steps; name a dynamic population"
                )
            if None not in (mover.shape, post.shape) and mover.shape != post.shape:
                raise InvalidValueError(
                    f"{where}: moved_by {mover.name!r} has {size_text(mover)} units, and {post.name!r} "
                    f"{size_text(post)}; the two are compared unit by unit"
                )

    def _check_drive(self, population: Population, drive: Vector | Drive | None) -> None:
        if isinstance(drive, Input) and population.name not in self.inputs:
            raise InvalidValueError(
                f"population {population.name}: inputs are given to populations that are clamped to them; declare "
                "clamp=Input(), or pass initial= to the run"
            )
        if isinstance(drive, ForwardValue):
            self._check_in_forward(drive.stage, f"population {population.name}")
            size = drive.stage.output_size
            if size is not None and population.shape not in (None, (size,)):
                raise InvalidValueError(
                    f"population {population.name}: it has {size_text(population)} units, and stage "
                    f"{drive.stage.name} ({drive.stage.label}) gives {size}"
                )
        elif isinstance(drive, LossGradient) and not self.forward:
            raise InvalidValueError(
                f"population {population.name}: a loss gradient needs a forward pass; give forward="
            )

    def _order_instantaneous(self) -> tuple[tuple[str, ...], tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]:
        instantaneous = [p.name for p in self.populations if p.instantaneous]
        if not instantaneous:
            return (), ()
        import networkx as nx  # here, because it takes long to import

        graph = self.graph(instantaneous)
        try:
            cycle = nx.find_cycle(graph)
        except nx.NetworkXNoCycle:
            return tuple(nx.lexicographical_topological_sort(graph)), ()
        if self.algebraic == "solve":
            return loops_in_order(graph)
        path = " → ".join([cycle[0][0], *(edge[1] for edge in cycle)])
        by = dict.fromkeys(self._dependence(read, reader) for read, reader, *_ in cycle)
        raise InvalidValueError(
            f"network {self.name!r}: the instantaneous populations {path} form a cycle, so that none can be evaluated "
            f"first; give one of them a time constant tau > 0, remove one of the couplings {', '.join(by)}, or say "
            "Network(algebraic='solve') to have them solved for"
        )

    def _dependence(self, read: str, reader: str) -> str:
        """Name the first coupling by which the equation of one population reads another."""
        coupling = next(c for c in self.into(reader) if read in c.reads)
        return f"{coupling} ({text_of(coupling.gain, '+g')} · {coupling.text})"

    def graph(self, names: Iterable[str]) -> nx.DiGraph[str]:
        """Return who depends on whom among the populations called `names`: an edge a → b where b's equation reads a."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(names)
        for coupling in self.couplings:
            for read in coupling.reads:
                if read in graph and coupling.target in graph:
                    graph.add_edge(read, coupling.target)
        return graph


def loops_in_order(
    graph: nx.DiGraph[str],
) -> tuple[tuple[str, ...], tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]:
    """Return the nodes of a graph, its cycles in one piece each, in the order of what they depend on; and the cycles.

    Of each cycle, or several that hang together, come the nodes that have to be torn out for the others to be in order,
    and the others in that order.
    """
    import networkx as nx

    order: list[str] = []
    loops: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    groups = nx.condensation(graph)
    for group in nx.lexicographical_topological_sort(groups, key=lambda group: min(groups.nodes[group]["members"])):
        rest = nx.DiGraph(graph.subgraph(groups.nodes[group]["members"]))
        torn: list[str] = []
        while not nx.is_directed_acyclic_graph(rest):
            knots = {edge[0] for edge in nx.find_cycle(rest)}
            torn.append(max(sorted(knots), key=lambda name: rest.in_degree(name) * rest.out_degree(name)))
            rest.remove_node(torn[-1])
        others = tuple(nx.lexicographical_topological_sort(rest))
        order += [*torn, *others]
        if torn:
            loops.append((tuple(torn), others))
    return tuple(order), tuple(loops)


def check_coupling_shapes(coupling: Coupling, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a coupling whose map does not lead from the sources' shapes to the target's.

    Raises
    ------
    ValueError
        If it does not.
    """
    each, target = tuple(shapes[name] for name in coupling.sources), shapes[coupling.target]
    try:
        given = coupling.map.output_shape(each if len(each) > 1 else each[0], target)
    except ValueError as error:
        raise InvalidValueError(f"coupling {coupling}: {error}") from error
    if given != target:
        raise InvalidValueError(
            f"coupling {coupling}: {coupling.text} has "
            f"{' × '.join(map(str, given))} units, and population {coupling.target} has {' × '.join(map(str, target))}"
        )


def check_plasticity_shapes(rule: Plasticity, pre: tuple[int, ...], post: tuple[int, ...]) -> None:
    """Refuse plasticity whose stage does not lead from the shape of `pre` to that of `post`.

    Raises
    ------
    ValueError
        If it does not.
    """
    given = rule.stage.output_shape(pre)
    if given != post:
        raise InvalidValueError(
            f"plasticity of stage {rule.stage.name}: {rule.stage.symbol}({rule.pre}) has "
            f"{' × '.join(map(str, given))} units, and population {rule.post} has {' × '.join(map(str, post))}"
        )


def _all(kind: type[Part], network: str, parts: Iterable[Part]) -> tuple[Part, ...]:
    parts = listed(f"network {network!r}: what it has of {kind.__name__}", parts)
    for part in parts:
        if not isinstance(part, kind):
            raise InvalidTypeError(f"network {network!r}: {part!r} is no {kind.__name__}")
    return parts


def _by_name(network: str, populations: Iterable[Population]) -> dict[str, Population]:
    by_name: dict[str, Population] = {}
    for population in _all(Population, network, populations):
        if population.name in by_name:
            raise InvalidValueError(
                f"network {network!r}: two populations are called {population.name!r}; names must differ"
            )
        by_name[population.name] = population
    if not by_name:
        raise InvalidValueError(f"network {network!r} has no populations")
    for name in by_name:
        _refuse_dimension(network, f"population {name}", name, by_name)
    return by_name


def _refuse_dimension(network: str, what: str, name: str, populations: Mapping[str, Population]) -> None:
    """Refuse a name that a dimension or a variable of a population has in a trajectory."""
    stem, _, kind = name.rpartition("_")
    if stem in populations and re.fullmatch(r"unit|channel|row|column|axis\d+|spikes(\d+)?", kind):
        raise InvalidValueError(
            f"network {network!r}: {what} is called like a dimension of population {stem} in a trajectory; choose "
            "another name"
        )
