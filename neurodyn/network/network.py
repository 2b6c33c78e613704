"""The declaration: a network of populations, couplings and plasticity, without data."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

from torch import Tensor, nn

from neurodyn.checks import listed
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.forward import sources
from neurodyn.layers.losses import Loss, check_loss, squared_error
from neurodyn.layers.stages import Stage
from neurodyn.network.consistency import check_network, known
from neurodyn.network.coupling import Coupling
from neurodyn.network.drives import Constant, Drive, Input, without_noise
from neurodyn.network.equations import network_equations, network_text
from neurodyn.network.names import refuse_dimension
from neurodyn.network.observable import Observable
from neurodyn.network.order import instantaneous_order
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.population import Population
from neurodyn.network.prospective import with_anticipations
from neurodyn.network.regularizers import Regularizer
from neurodyn.network.timing import Inference
from neurodyn.network.vectors import Vector

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes

Part = TypeVar("Part")
Named = TypeVar("Named", Population, Observable)


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
            raise InvalidTypeError(
                f"name of Network must be text, not {type(name).__name__}; it comes first, as in "
                "Network(name, populations, …)"
            )
        self.name = name
        where = f"network {name!r}"
        if algebraic is not None and not (isinstance(algebraic, str) and algebraic == "solve"):
            raise InvalidValueError(
                f"{where}: algebraic is 'solve', or None to refuse cycles of instantaneous populations, not "
                f"{algebraic!r}"
            )
        self.algebraic = algebraic
        declared, couplings = _all(Population, name, populations), _all(Coupling, name, couplings)
        populations, self.couplings = with_anticipations(declared, couplings)
        self._populations = _by_name(Population, name, populations)
        self.plasticity = _all(Plasticity, name, plasticity)
        self.forward = _all(Stage, name, forward)
        sources(self.forward)  # refuses a stage that reads what comes later
        check_loss(where, loss)
        self.loss = loss
        if inference is not None and not isinstance(inference, Inference):
            raise InvalidTypeError(
                f"{where}: inference is Inference(step, steps), or None, not {type(inference).__name__}"
            )
        self.inference = inference
        self.observables = _by_name(Observable, name, observables)
        self._check_names()
        check_network(self)
        self.instantaneous_order, self.loops = instantaneous_order(self)
        """The instantaneous populations in the order of evaluation; and of each cycle of them those that are torn out
        of it, and the others, in the order of evaluation."""
        of_maps = (stage for c in self.couplings for stage in c.map.stages)
        self.stages: tuple[Stage, ...] = tuple(
            dict.fromkeys([*self.forward, *of_maps, *(rule.stage for rule in self.plasticity)])
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
        return known(self._populations, name, f"network {self.name!r}")

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a population called `name`."""
        return name in self._populations

    def feedback_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all feedback weights ψ, each with the name of its stage; other parameters are the module's."""
        for each in dict.fromkeys(c.map.feedback_weights for c in self.couplings):
            if each is not None:
                for tensor in each.tensors.values():
                    yield each.stage.name, tensor

    def into(self, name: str) -> tuple[Coupling, ...]:
        """Return the couplings that lead into the population called `name`."""
        return self._into[known(self._populations, name, f"network {self.name!r}").name]

    @cached_property
    def _into(self) -> dict[str, tuple[Coupling, ...]]:
        return {p.name: tuple(c for c in self.couplings if c.target == p.name) for p in self.populations}

    def regularized(self, regularizer: Regularizer | None) -> Network:
        """Return the same network with a regularizer of every stage's weights, or none; feedback weights have none."""
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

    def _check_names(self) -> None:
        if not self._populations:
            raise InvalidValueError(f"network {self.name!r} has no populations")
        for name in self._populations:
            refuse_dimension(self.name, f"population {name}", name, self._populations)
        for name in self.observables:
            if name in self._populations:
                raise InvalidValueError(f"network {self.name!r}: {name!r} names both a population and an observable")
            refuse_dimension(self.name, f"observable {name}", name, self._populations)

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


def _all(kind: type[Part], network: str, parts: Iterable[Part]) -> tuple[Part, ...]:
    if isinstance(parts, kind):
        raise InvalidTypeError(
            f"network {network!r}: one {kind.__name__} is given where a list is; write [{kind.__name__}(…)]"
        )
    parts = listed(f"network {network!r}: what it has of {kind.__name__}", parts)
    for part in parts:
        if not isinstance(part, kind):
            hint = "; nd.cut(module) returns its stages" if kind is Stage and isinstance(part, nn.Module) else ""
            raise InvalidTypeError(f"network {network!r}: {part!r} is no {kind.__name__}{hint}")
    return parts


def _by_name(kind: type[Named], network: str, parts: Iterable[Named]) -> dict[str, Named]:
    by_name: dict[str, Named] = {}
    for part in _all(kind, network, parts):
        if part.name in by_name:
            what = f"{kind.__name__.lower()}s"
            raise InvalidValueError(f"network {network!r}: two {what} are called {part.name!r}; names must differ")
        by_name[part.name] = part
    return by_name
