"""The declaration: populations, couplings and plasticity, without data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal, TypeVar

import networkx as nx
from torch import Tensor, nn

from neurodyn.causality import Schedule, Start, read_start
from neurodyn.drives import Drive, ForwardValue, Input, LossGradient, Noisy
from neurodyn.feedback import FeedbackWeights
from neurodyn.losses import Loss, squared_error
from neurodyn.maps import Activity, Feedback, Identity, Map
from neurodyn.regularizers import Regularizer
from neurodyn.stages import Stage, sources
from neurodyn.structure import Structure, read_structure
from neurodyn.timing import AtStep, Inference, OnSpike, When

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Size = int | tuple[int, ...]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Population:
    """A population of units, which obeys τ dx/dt = −leak · x + Σ gain · map(source).

    It is *dynamic*; or *instantaneous* with τ = 0, where it equals Σ gain · map(source) / leak at every moment; or
    *clamped* to a drive.

    Parameters
    ----------
    name
        Letters, digits and underscores; the name of its variable in a trajectory.
    size
        The number of units, or the shape (channels, rows, columns) of an image; None takes it from the data.
    tau
        The time constant τ ≥ 0, in units of time.
    leak
        The leak, ≥ 0.
    initial
        Where a dynamic population starts: a number, or a drive such as `ForwardValue(stage)`.
    clamp
        The drive that holds it, e.g. `Input()`. A drive that is absent (`Target(optional=True)` in a run without
        targets) leaves the population free.

    Raises
    ------
    ValueError
        If the name, the size, τ or the leak is not as above.
    """

    name: str
    size: Size | None = None
    tau: float = 1.0
    leak: float = 1.0
    initial: float | Drive = 0.0
    clamp: Drive | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ValueError(f"population {self.name!r}: a name consists of letters, digits and underscores")
        if self.name in ("time", "sample"):
            raise ValueError(f"population {self.name!r}: a trajectory has a dimension of that name; choose another")
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        if self.size is not None and (not sizes or any(not isinstance(n, Integral) or n < 1 for n in sizes)):
            raise ValueError(
                f"population {self.name}: its size is a positive number of units, or a tuple of them, not {self.size!r}"
            )
        if self.clamp is not None and not isinstance(self.clamp, Drive):
            raise TypeError(
                f"population {self.name}: clamp must be a drive such as Input(), not {type(self.clamp).__name__}"
            )
        for what, value in (("tau", self.tau), ("leak", self.leak), ("initial", self.initial)):
            if not isinstance(value, (Real, Drive)):
                raise TypeError(f"population {self.name}: {what} must be a number, not {type(value).__name__}")
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise ValueError(f"population {self.name}: tau must be ≥ 0 (0 makes it instantaneous), not {self.tau!r}")
        if not (math.isfinite(self.leak) and self.leak >= 0):
            raise ValueError(f"population {self.name}: leak must be ≥ 0, not {self.leak!r}")
        if self.tau == 0 and self.leak == 0:
            raise ValueError(f"population {self.name}: an instantaneous population needs a leak > 0")
        if self.tau == 0 and self.initial != 0.0:
            raise ValueError(
                f"population {self.name}: it is instantaneous, and equals its input from the start; leave initial out"
            )
        if not isinstance(self.initial, Drive) and not math.isfinite(self.initial):
            raise ValueError(f"population {self.name}: it cannot start from {self.initial!r}; give a finite number")

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, e.g. (300,) or (32, 14, 14); None if the data are to tell."""
        return self.size if self.size is None or isinstance(self.size, tuple) else (self.size,)

    @property
    def role(self) -> Literal["dynamic", "instantaneous", "clamped"]:
        """What becomes of it in time, when every drive is present."""
        if self.clamp is not None:
            return "clamped"
        return "dynamic" if self.tau > 0 else "instantaneous"


@dataclass(frozen=True)
class Coupling:
    """A coupling: gain · map(source) enters the target.

    Parameters
    ----------
    source, target
        The names of the two populations.
    map
        What the target receives of the source's activity.
    gain
        The factor.
    """

    source: str
    target: str
    map: Map = field(default_factory=Identity)
    gain: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.map, Map):
            raise TypeError(
                f"coupling {self}: its map is a neurodyn Map such as Forward(stage), not {type(self.map).__name__}"
            )
        if not isinstance(self.gain, Real):
            raise TypeError(f"coupling {self}: its gain must be a number, not {type(self.gain).__name__}")
        if not (math.isfinite(self.gain) and self.gain != 0):
            raise ValueError(f"coupling {self}: its gain must be finite and not 0, not {self.gain!r}")

    def __str__(self) -> str:
        return f"{self.source} → {self.target}"


@dataclass(frozen=True)
class Plasticity:
    """A stage's parameters θ learn from a presynaptic and a postsynaptic population.

    The gradient that an optimiser subtracts is gain · (∂g/∂θ)ᵀ post, averaged over the samples, with the stage g at
    its operating point: for θ = W, gain · (post ⊙ f'(h)) preᵀ.

    Parameters
    ----------
    stage
        The stage that learns.
    pre, post
        The names of the populations before and after it; before a stage that reads several, the first of them.
    when
        At the "end" of the relaxation; `AtStep(n)` of discrete inference; or `OnSpike(window)`, for the units of `post`
        that spike.
    presynaptic
        Where the presynaptic activity is taken: at the "frozen" forward pass, or at the "live" activity of `pre`.
    derivative
        Where the derivative f' is taken, likewise; "none" drops it. By default where the presynaptic activity is.
    gain
        The factor; negative where `post` points down the loss, as a prediction error does.
    weights
        Feedback weights ψ of the stage that learn in place of its parameters, by (ΔW)ᵀ.
    regularizer
        Adds its gradient to that of the weights, once an update.
    """

    stage: Stage
    pre: str
    post: str
    when: When = "end"
    presynaptic: Literal["frozen", "live"] = "frozen"
    derivative: Literal["frozen", "live", "none"] | None = None
    gain: float = 1.0
    weights: FeedbackWeights | None = None
    regularizer: Regularizer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stage, Stage):
            raise TypeError(f"plasticity: its stage is a neurodyn Stage, not {type(self.stage).__name__}")
        if not self.stage.parameters:
            raise ValueError(
                f"plasticity of stage {self.stage.name} ({self.stage.label}): it has no parameters to learn"
            )
        if self.when != "end" and not isinstance(self.when, (AtStep, OnSpike)):
            raise ValueError(
                f"plasticity of stage {self.stage.name}: when is 'end', AtStep(n) or OnSpike(window), not {self.when!r}"
            )
        if self.presynaptic not in ("frozen", "live"):
            raise ValueError(
                f"plasticity of stage {self.stage.name}: presynaptic is 'frozen' or 'live', not {self.presynaptic!r}"
            )
        if self.derivative not in ("frozen", "live", "none", None):
            raise ValueError(
                f"plasticity of stage {self.stage.name}: derivative is 'frozen', 'live' or 'none', not "
                f"{self.derivative!r}"
            )
        if self.stage.arguments > 1 and (self.presynaptic, self.derivative or "frozen") != ("frozen", "frozen"):
            raise ValueError(
                f"plasticity of stage {self.stage.name} ({self.stage.label}): it reads {self.stage.arguments} values, "
                "which are known at the frozen forward pass alone; leave presynaptic and derivative out"
            )
        if self.weights is not None and self.weights.stage is not self.stage:
            raise ValueError(f"plasticity of stage {self.stage.name}: {self.weights} belong to another stage")
        if self.regularizer is not None and not isinstance(self.regularizer, Regularizer):
            raise TypeError(
                f"plasticity of stage {self.stage.name}: its regularizer is a Regularizer such as Orthogonality(0.1), "
                f"not {self.regularizer!r}"
            )

    @property
    def learns(self) -> tuple[nn.Parameter, ...]:
        """The parameters that the rule changes."""
        return self.stage.parameters if self.weights is None else tuple(self.weights.tensors.values())

    @property
    def reads(self) -> frozenset[str]:
        """The populations whose live activity the rule depends on."""
        live = "live" in (self.presynaptic, self.derivative)
        return frozenset({self.post, self.pre} if live else {self.post})

    @property
    def reads_forward(self) -> bool:
        """Whether the rule depends on its stage at the forward pass."""
        return "frozen" in (self.presynaptic, self.derivative)


@dataclass(frozen=True)
class Observable:
    """A number a sample that is read off the activity, such as an energy; recorded where `record` names it.

    Parameters
    ----------
    name
        The name of its variable in a trajectory.
    value
        A function of every population's activity, a mapping by name, that returns shape (sample,).
    long_name
        What it is, for axes and tables.
    """

    name: str
    value: Callable[[Activity], Tensor]
    long_name: str


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

    Raises
    ------
    ValueError
        If names are unknown or duplicate, sizes do not fit, a coupling leads into a clamped population, instantaneous
        populations form a cycle, a stage is used at the forward pass but is not in `forward`, or plasticity acts at a
        step that the inference does not reach.
    """

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
    ) -> None:
        self.name = name
        self._populations = _by_name(name, populations)
        self.couplings = _all(Coupling, name, couplings)
        self.plasticity = _all(Plasticity, name, plasticity)
        self.forward = _all(Stage, name, forward)
        sources(self.forward)  # refuses a stage that reads what comes later
        self.loss = loss
        self.inference = inference
        self.observables = {observable.name: observable for observable in observables}
        for observable in self.observables:
            if observable in self._populations:
                raise ValueError(f"network {name!r}: {observable!r} names both a population and an observable")
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
                self._check_drive(population, drive.drive if isinstance(drive, Noisy) else drive)
        if len(set(self.forward)) < len(self.forward):
            raise ValueError(
                f"network {name!r}: a stage stands twice in forward=; make a second Stage of the same layers"
            )
        if self.forward and len(self.inputs) != 1:
            raise ValueError(
                f"network {name!r}: a forward pass starts from one population clamped to Input(), and there are "
                f"{len(self.inputs)}"
            )
        self.instantaneous_order = self._order_instantaneous()
        self._structures: dict[frozenset[str], Structure] = {}
        self._starts: dict[tuple[frozenset[str], frozenset[str]], Start] = {}
        self._schedules: dict[tuple[frozenset[str], frozenset[str], int], Schedule] = {}

    @property
    def populations(self) -> tuple[Population, ...]:
        """The populations, as declared."""
        return tuple(self._populations.values())

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the populations clamped to the inputs."""
        return tuple(p.name for p in self.populations if isinstance(p.clamp, Input))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage that the network uses, each once."""
        stages = [
            *self.forward,
            *(stage for c in self.couplings for stage in c.map.stages),
            *(r.stage for r in self.plasticity),
        ]
        return tuple(dict.fromkeys(stages))

    def __getitem__(self, name: str) -> Population:
        """Return the population called `name`."""
        return self._known(name, f"network {self.name!r}")

    def feedback_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all feedback weights ψ, each with the name of its stage; other parameters are the module's."""
        weights = [c.map.weights for c in self.couplings if isinstance(c.map, Feedback) and c.map.weights is not None]
        for each in dict.fromkeys(weights):
            for tensor in each.tensors.values():
                yield each.stage.name, tensor

    def into(self, name: str) -> tuple[Coupling, ...]:
        """Return the couplings that lead into the population called `name`."""
        return tuple(c for c in self.couplings if c.target == name)

    def regularized(self, regularizer: Regularizer) -> Network:
        """Return the same network with a regularizer of every stage's weights; feedback weights have none."""
        network = copy.copy(self)
        network.plasticity = tuple(
            replace(rule, regularizer=regularizer) if rule.weights is None else rule for rule in self.plasticity
        )
        return network

    def structure(self, clamped: frozenset[str]) -> Structure:
        """Return the structure of the dynamics with the populations called `clamped` held."""
        if clamped not in self._structures:
            self._structures[clamped] = read_structure(self, clamped)
        return self._structures[clamped]

    def start(self, clamped: frozenset[str], overridden: frozenset[str]) -> Start:
        """Return what balances before the first step, with `clamped` held and `overridden` starting elsewhere."""
        key = (clamped, overridden)
        if key not in self._starts:
            self._starts[key] = read_start(self, clamped, overridden)
        return self._starts[key]

    def schedule(self, clamped: frozenset[str], overridden: frozenset[str], steps: int) -> Schedule:
        """Return what each step of discrete inference has to evaluate."""
        key = (clamped, overridden, steps)
        if key not in self._schedules:
            self._schedules[key] = Schedule(self, clamped, self.start(clamped, overridden), steps)
        return self._schedules[key]

    def equations(self) -> str:
        """Return the equations as text, one line a population."""
        return "\n".join(_equation(population, self.into(population.name)) for population in self.populations)

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

    def __repr__(self) -> str:
        return f"<Network {self.name!r}: {len(self.populations)} populations, {len(self.couplings)} couplings>"

    def __str__(self) -> str:
        rows = [
            f"  {p.name:<8} {_size_text(p):>12}  {p.role:<13}"
            + (
                f" held at {p.clamp}"
                if p.clamp
                else f" τ = {p.tau:g}, leak = {p.leak:g}, from {_start_text(p.initial)}"
            )
            for p in self.populations
        ]
        text = [f"Network {self.name!r}", "", f"populations ({len(self.populations)})", *rows]
        text += ["", f"couplings ({len(self.couplings)})"]
        text += [f"  {c!s:<14} {c.gain:+g} · {c.map.describe(c.source, c.target)}" for c in self.couplings]
        text += ["", "equations", *(f"  {line}" for line in self.equations().splitlines())]
        if self.plasticity:
            text += [
                "",
                f"plasticity ({len(self.plasticity)})",
                *(f"  {_plasticity_text(rule)}" for rule in self.plasticity),
            ]
        if self.stages:
            text += ["", "stages (J is the Jacobian of g; a bar marks a value of the forward pass)"]
            text += dict.fromkeys(f"  {stage.symbol} = {stage.label}" for stage in self.stages)
        return "\n".join(text)

    def _known(self, name: str, where: str) -> Population:
        try:
            return self._populations[name]
        except KeyError:
            raise ValueError(
                f"{where}: there is no population {name!r}; there are {', '.join(self._populations)}"
            ) from None

    def _check_coupling(self, coupling: Coupling) -> None:
        source, target = (self._known(end, f"coupling {coupling}") for end in (coupling.source, coupling.target))
        if target.clamp is not None and not target.clamp.optional:
            raise ValueError(
                f"coupling {coupling}: population {target.name} is clamped to {target.clamp}, so nothing may enter it; "
                "remove the coupling or the clamp"
            )
        if isinstance(source.clamp, Input) and source.clamp.integer:
            raise ValueError(
                f"coupling {coupling}: population {source.name} holds integers, which the forward pass alone reads; "
                "remove the coupling, or declare Input() without integer"
            )
        for stage in coupling.map.frozen_stages:
            self._check_in_forward(stage, f"coupling {coupling}")
        if source.shape is not None and target.shape is not None:
            check_coupling_shapes(coupling, source.shape, target.shape)

    def _check_in_forward(self, stage: Stage, where: str) -> None:
        if stage not in self.forward:
            raise ValueError(
                f"{where}: stage {stage.name} ({stage.label}) is used at the forward pass, which does not contain it; "
                "add it to forward=, or use the live activity"
            )

    def _check_when(self, rule: Plasticity) -> None:
        if rule.when == "end":
            return
        where = f"plasticity of stage {rule.stage.name}"
        if self.inference is None:
            raise ValueError(f"{where}: it acts {rule.when}, and the network has no inference=Inference(step, steps)")
        if isinstance(rule.when, AtStep) and rule.when.step > self.inference.steps:
            raise ValueError(f"{where}: it acts {rule.when}, and inference takes {self.inference.steps} steps")

    def _check_drive(self, population: Population, drive: float | Drive | None) -> None:
        if isinstance(drive, ForwardValue):
            self._check_in_forward(drive.stage, f"population {population.name}")
            size = drive.stage.output_size
            if size is not None and population.shape not in (None, (size,)):
                raise ValueError(
                    f"population {population.name}: it has {_size_text(population)} units, and stage "
                    f"{drive.stage.name} ({drive.stage.label}) gives {size}"
                )
        elif isinstance(drive, LossGradient) and not self.forward:
            raise ValueError(f"population {population.name}: a loss gradient needs a forward pass; give forward=")

    def _order_instantaneous(self) -> tuple[str, ...]:
        graph = self.graph(p.name for p in self.populations if p.tau == 0)
        try:
            cycle = nx.find_cycle(graph)
        except nx.NetworkXNoCycle:
            return tuple(nx.lexicographical_topological_sort(graph))
        path = " → ".join([cycle[0][0], *(edge[1] for edge in cycle)])
        raise ValueError(
            f"network {self.name!r}: the instantaneous populations {path} form a cycle, so that none can be evaluated "
            "first; give one of them a time constant tau > 0"
        )

    def graph(self, names: Iterable[str]) -> nx.DiGraph[str]:
        """Return who depends on whom among the populations called `names`: an edge a → b where b's equation reads a."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(names)
        for coupling in self.couplings:
            for read in coupling.map.reads(coupling.source, coupling.target):
                if read in graph and coupling.target in graph:
                    graph.add_edge(read, coupling.target)
        return graph


def check_coupling_shapes(coupling: Coupling, source: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Refuse a coupling whose map does not lead from the source's shape to the target's.

    Raises
    ------
    ValueError
        If it does not.
    """
    try:
        given = coupling.map.output_shape(source, target)
    except ValueError as error:
        raise ValueError(f"coupling {coupling}: {error}") from error
    if given != target:
        raise ValueError(
            f"coupling {coupling}: {coupling.map.describe(coupling.source, coupling.target)} has "
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
        raise ValueError(
            f"plasticity of stage {rule.stage.name}: {rule.stage.symbol}({rule.pre}) has "
            f"{' × '.join(map(str, given))} units, and population {rule.post} has {' × '.join(map(str, post))}"
        )


def _all(kind: type[Part], network: str, parts: Iterable[Part]) -> tuple[Part, ...]:
    parts = tuple(parts)
    for part in parts:
        if not isinstance(part, kind):
            raise TypeError(f"network {network!r}: {part!r} is no {kind.__name__}")
    return parts


def _by_name(network: str, populations: Iterable[Population]) -> dict[str, Population]:
    by_name: dict[str, Population] = {}
    for population in _all(Population, network, populations):
        if population.name in by_name:
            raise ValueError(f"network {network!r}: two populations are called {population.name!r}; names must differ")
        stem, _, kind = population.name.rpartition("_")
        if stem in by_name and kind in ("unit", "channel", "row", "column"):
            raise ValueError(
                f"network {network!r}: population {population.name} is called like a dimension of population {stem} in "
                "a trajectory; choose another name"
            )
        by_name[population.name] = population
    if not by_name:
        raise ValueError(f"network {network!r} has no populations")
    return by_name


def _size_text(population: Population) -> str:
    return "from data" if population.shape is None else " × ".join(map(str, population.shape))


def _start_text(initial: float | Drive) -> str:
    return str(initial) if isinstance(initial, Drive) else f"{initial:g}"


def _number(value: float) -> str:
    return "" if value == 1 else f"{value:g} "


def _equation(population: Population, couplings: tuple[Coupling, ...]) -> str:
    x = population.name
    if population.clamp is not None and not population.clamp.optional:
        return f"{x} = {population.clamp}"
    right = "" if population.tau == 0 or population.leak == 0 else f"−{_number(population.leak)}{x}"
    for coupling in couplings:
        sign = "−" if coupling.gain < 0 else "+"
        term = _number(abs(coupling.gain)) + coupling.map.describe(coupling.source, x)
        right += f" {sign} {term}" if right else (f"−{term}" if sign == "−" else term)
    if population.tau == 0:
        left, right = x, (right or "0") if population.leak == 1 else f"({right or '0'}) / {population.leak:g}"
    else:
        left = f"{_number(population.tau)}d{x}/dt"
    clamped = f"        ({x} = {population.clamp} when given)" if population.clamp is not None else ""
    return f"{left} = {right or '0'}{clamped}"


def _plasticity_text(rule: Plasticity) -> str:
    g, number = rule.stage.symbol, rule.stage.name
    pre = f"live {rule.pre}" if rule.presynaptic == "live" else f"{rule.pre} of the forward pass"
    sign = "−" if rule.gain > 0 else "+"
    what = f"Δθ{number} ∝ {sign}(∂{g}/∂θ)ᵀ" if rule.weights is None else f"Δψ{number} ∝ {sign}((∂{g}/∂W)ᵀ"
    end = "" if rule.weights is None else ")ᵀ"
    derivative = "" if rule.derivative in (None, rule.presynaptic) else f", f' {rule.derivative}"
    when = "at the end" if rule.when == "end" else str(rule.when)
    regularizer = "" if rule.regularizer is None else f", with {rule.regularizer}"
    return f"{what} {rule.post}{end}, pre = {pre}{derivative}, {when}{regularizer}"
