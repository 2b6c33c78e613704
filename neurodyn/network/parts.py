"""The parts of a declaration: populations, couplings, plasticity, and what may be observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn.checks import not_negative, number, one_of
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.stages import Stage
from neurodyn.network.drives import Drive
from neurodyn.network.maps import Activity, Identity, Map, takes_several
from neurodyn.network.regularizers import Regularizer
from neurodyn.network.timing import AtStep, OnSpike, When
from neurodyn.network.vectors import (
    ByValue,
    Vector,
    bounds_text,
    is_number,
    largest_of,
    least_of,
    text_of,
    uniform,
    vector,
)

Size = int | tuple[int, ...]

_TAKEN = ("time", "step", "sample", "network", "rule", "acts")
"""What a trajectory calls dimensions and variables of its own."""


def _check_name(what: str, name: str) -> None:
    """Refuse a name that no variable of a trajectory may have."""
    if not (isinstance(name, str) and name.isidentifier()):
        raise InvalidValueError(f"{what} {name!r}: a name consists of letters, digits and underscores")
    if name in _TAKEN:
        raise InvalidValueError(
            f"{what} {name!r}: a trajectory has a dimension or a variable of that name; choose another"
        )


@dataclass(frozen=True, eq=False)
class Population(ByValue):
    """A population of units, which obeys τ dx/dt = −leak · x + Σ gain · map(source), plus noise.

    It is *dynamic*; or *instantaneous* with τ = 0, where it equals Σ gain · map(source) / leak at every moment; or
    *clamped* to a drive.

    Parameters
    ----------
    name
        Letters, digits and underscores; the name of its variable in a trajectory.
    size
        The number of units, or the shape (channels, rows, columns) of an image; None takes it from the data.
    tau
        The time constant τ ≥ 0, in units of time; a number, or a tensor of the population's shape, one for each unit.
        Like the other tensors here, it may require a gradient, for `nd.activity`.
    leak
        The leak, ≥ 0; likewise.
    initial
        Where a dynamic population starts: a number, a tensor of its shape, or a drive such as `ForwardValue(stage)`.
    clamp
        The drive that holds it, e.g. `Input()`. A drive that is absent (`Target(optional=True)` in a run without
        targets) leaves the population free.
    noise
        σ ≥ 0, a number or a tensor of its shape: σ dW is added to dx, with W of a Wiener process for each unit.
    bounds
        (low, high), where the state of a dynamic population stays: dx/dt is 0 where it would lead outside, and each
        step is clipped. Numbers, of which one may be infinite, or tensors of its shape. A drive that holds the
        population may lead elsewhere.

    Raises
    ------
    TypeError, ValueError
        If the name, the size, τ, the leak, the start, the noise or the bounds are not as above.

    Notes
    -----
    Activity is a rate, or a membrane potential without spikes: a threshold with a reset, as of integrate-and-fire
    neurons, is beyond what is declared here.

    Examples
    --------
    >>> import neurodyn as nd
    >>> nd.Population("x", 300, tau=2.0).role
    'dynamic'
    >>> nd.Population("e", 300, tau=0.0).role
    'instantaneous'
    >>> nd.Population("image", (1, 28, 28), clamp=nd.Input()).shape
    (1, 28, 28)
    """

    name: str
    size: Size | None = None
    tau: Vector = 1.0
    leak: Vector = 1.0
    initial: Vector | Drive = 0.0
    clamp: Drive | None = None
    noise: Vector = 0.0
    bounds: tuple[Vector, Vector] | None = None

    def __post_init__(self) -> None:
        _check_name("population", self.name)
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        if self.size is not None and not (sizes and all(_counts(n) for n in sizes)):
            raise InvalidValueError(
                f"population {self.name}: its size is a positive number of units, or a tuple of them, not {self.size!r}"
            )
        if self.clamp is not None and not isinstance(self.clamp, Drive):
            raise InvalidTypeError(
                f"population {self.name}: clamp must be a drive such as Input(), not {type(self.clamp).__name__}"
            )
        if self.size is not None:
            shape = tuple(int(n or 0) for n in sizes)
            object.__setattr__(self, "size", shape if isinstance(self.size, tuple) else shape[0])
        for what in ("tau", "leak", "initial", "noise"):
            value = getattr(self, what)
            if what != "initial" or not isinstance(value, Drive):
                object.__setattr__(self, what, self._numbers(what, value))
        if least_of(self.tau) == 0 < largest_of(self.tau):
            raise InvalidValueError(
                f"population {self.name}: tau is 0 for some units and not for others; make two populations of them"
            )
        if self.instantaneous and self.leakless:
            raise InvalidValueError(f"population {self.name}: an instantaneous population needs a leak > 0")
        if self.noisy and (self.instantaneous or (self.clamp is not None and not self.clamp.optional)):
            raise InvalidValueError(
                f"population {self.name}: it is {self.role}, and noise enters the change dx of a dynamic population; "
                "leave noise out"
            )
        if self.instantaneous and not is_number(self.initial, 0.0):
            raise InvalidValueError(
                f"population {self.name}: it is instantaneous, and equals its input from the start; leave initial out"
            )
        if self.bounds is not None:
            object.__setattr__(self, "bounds", self._checked_bounds(self.bounds))
            if not isinstance(self.initial, Drive):
                self.check_within("its start", torch.as_tensor(self.initial))

    def _checked_bounds(self, bounds: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
        where = f"population {self.name}: bounds"
        if self.instantaneous or (self.clamp is not None and not self.clamp.optional):
            raise InvalidValueError(
                f"population {self.name}: it is {self.role}, and bounds are for a dynamic population; leave them out"
            )
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise InvalidTypeError(f"{where} are (low, high), not {bounds!r}")
        low, high = (
            sign * math.inf if is_number(end, sign * math.inf) else self._numbers(what, end)
            for what, end, sign in zip(("bounds, low", "bounds, high"), bounds, (-1.0, 1.0), strict=True)
        )
        if bool((torch.as_tensor(low) >= torch.as_tensor(high)).any()):
            raise InvalidValueError(f"{where}: low must be below high, and they are {bounds_text((low, high))}")
        return low, high

    def check_within(self, what: str, value: Tensor) -> None:
        """Refuse values, shape (…, units), that the bounds do not hold.

        Raises
        ------
        ValueError
            If there is one; the message calls them `what`.
        """
        if self.bounds is None:
            return
        low, high = self.bounds
        outside = (value < low) | (value > high)
        if bool(outside.any()):
            raise InvalidValueError(
                f"population {self.name}: {what} has {int(outside.sum())} values outside its bounds "
                f"{bounds_text(self.bounds)}; start inside, or change the bounds"
            )

    def _numbers(self, what: str, value: Vector) -> Vector:
        """Return a number, or one for each unit where they differ."""
        where = f"population {self.name}: {what}"
        numbers = vector(where, value)
        if isinstance(numbers, Tensor):
            if self.shape is None:
                raise InvalidValueError(
                    f"{where} is a tensor, one for each unit, and their number is unknown; declare size="
                )
            if numbers.ndim == 0:  # one number for all units that requires a gradient
                numbers = numbers.expand(self.shape)
            if tuple(numbers.shape) != self.shape:
                raise InvalidValueError(
                    f"{where} has the shape {tuple(numbers.shape)}, and the population {self.shape}"
                )
            numbers = uniform(numbers)
        if what in ("tau", "leak", "noise") and least_of(numbers) < 0:
            raise InvalidValueError(f"{where} must be ≥ 0, not {text_of(numbers)}")
        return numbers

    @property
    def instantaneous(self) -> bool:
        """Whether τ = 0."""
        return is_number(self.tau, 0.0)

    @property
    def noisy(self) -> bool:
        """Whether a unit has noise."""
        return largest_of(self.noise) > 0

    @property
    def leakless(self) -> bool:
        """Whether a unit has no leak."""
        return least_of(self.leak) == 0

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, e.g. (300,) or (32, 14, 14); None if the data are to tell."""
        return self.size if self.size is None or isinstance(self.size, tuple) else (self.size,)

    @property
    def role(self) -> Literal["dynamic", "instantaneous", "clamped"]:
        """What becomes of it in time, when every drive is present."""
        if self.clamp is not None:
            return "clamped"
        return "instantaneous" if self.instantaneous else "dynamic"


class Prospective(str):
    """A source u + τ du/dt: what a population will be about τ later, if what enters it stays as it is.

    It does not lag behind what enters u, with whose couplings it is instantaneous. It is recorded as `u_prospective`.

    Parameters
    ----------
    population
        The name of u, a dynamic population without noise and bounds.

    Raises
    ------
    TypeError
        If that is no name.

    References
    ----------
    P. Haider et al., "Latent equilibrium", NeurIPS (2021).

    Examples
    --------
    >>> import neurodyn as nd
    >>> populations = [nd.Population("i", 1, clamp=nd.Input()), nd.Population("u", 1, tau=5.0), nd.Population("r", 1)]
    >>> couplings = [nd.Coupling("i", "u"), nd.Coupling(nd.Prospective("u"), "r")]
    >>> print(nd.Network("prospective", populations, couplings).equations())
    i = input
    5 du/dt = −u + i
    dr/dt = −r + (u + τ du/dt)
    u_prospective = u + 5 du/dt
    """

    population: str

    def __new__(cls, population: str) -> Prospective:
        if not isinstance(population, str):
            raise InvalidTypeError(f"Prospective: the name of a population, not {type(population).__name__}")
        source = super().__new__(cls, f"{population}_prospective")
        source.population = population
        return source

    def __getnewargs__(self) -> tuple[str]:
        return (self.population,)

    def __repr__(self) -> str:
        return f"Prospective({self.population!r})"


@dataclass(frozen=True, eq=False)
class Coupling(ByValue):
    """A coupling: gain · map(source) enters the target.

    Parameters
    ----------
    source
        The name of the population that it comes from, or a tuple of several names, where the map takes several;
        `Prospective(name)` in place of a name takes u + τ du/dt.
    target
        The name of the population that it leads to.
    map
        What the target receives of the source's activity.
    gain
        The factor; a number, or a tensor of the target's shape, one for each of its units.
    delay
        d ≥ 0, in units of time: what enters the target at time t is the map of the sources' activity at t − d. Before
        time 0, it was what it is then. A live Jacobian in the map is that of the present.

    Examples
    --------
    >>> import neurodyn as nd
    >>> inhibition = nd.Coupling("a", "b", gain=-2)
    >>> print(inhibition, inhibition.text)
    a → b a
    """

    source: str | tuple[str, ...]
    target: str
    map: Map = field(default_factory=Identity)
    gain: Vector = 1.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.source, (tuple, list)):
            sources = tuple(self.source)
            if not sources:
                raise InvalidValueError(f"coupling {sources} → {self.target}: at least one source")
            object.__setattr__(self, "source", sources[0] if len(sources) == 1 else sources)
        for end in (*self.sources, self.target):
            if not isinstance(end, str):
                raise InvalidTypeError(
                    f"coupling {self}: source and target are names of populations, not {type(end).__name__}"
                )
        if len(set(self.sources)) < len(self.sources):
            raise InvalidValueError(f"coupling {self}: a source stands twice; name each once")
        if not isinstance(self.map, Map):
            raise InvalidTypeError(
                f"coupling {self}: its map is a neurodyn Map such as Forward(stage), not "
                f"{type(self.map).__name__}{_map_meant(self.map)}"
            )
        if len(self.sources) > 1 and not takes_several(self.map):
            raise InvalidValueError(
                f"coupling {self}: {type(self.map).__name__} takes one source; several are for nd.Pointwise(function), "
                "or a map of one's own"
            )
        self.map.describe(self.source, self.target)  # refuses a text that does not fit
        gain = vector(f"coupling {self}: its gain", self.gain)
        if least_of(gain) == 0 == largest_of(gain):
            raise InvalidValueError(f"coupling {self}: its gain must be finite and not 0, not {self.gain!r}")
        object.__setattr__(self, "gain", gain)
        object.__setattr__(self, "delay", not_negative(f"coupling {self}: its delay", self.delay))

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the populations that it comes from."""
        return self.source if isinstance(self.source, tuple) else (self.source,)

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the populations whose live activity it depends on."""
        return self.map.reads(self.source, self.target)

    @property
    def text(self) -> str:
        """What enters the target, but for the gain, as it stands in an equation."""
        ago = f"(t − {self.delay:g})" if self.delay else ""
        read = tuple(
            (f"({name.population} + τ d{name.population}/dt)" if isinstance(name, Prospective) else name) + ago
            for name in self.sources
        )
        text = self.map.describe(read if len(read) > 1 else read[0], self.target)
        for name in read:
            text = text.replace(f"({name})", name if name.startswith("(") else f"({name})")
        return text

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.sources))} → {self.target}"


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

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> stage = nd.Stage(torch.nn.Linear(3, 2), "1")
    >>> populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("x", 2, clamp=nd.LossGradient())]
    >>> net = nd.Network("delta rule", populations, [], [nd.Plasticity(stage, "s", "x")], forward=[stage])
    >>> loss = nd.backward(net, torch.ones(1, 3), torch.zeros(1, 2))
    >>> tuple(stage.parameters[0].grad.shape)
    (2, 3)
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
            raise InvalidTypeError(f"plasticity: its stage is a neurodyn Stage, not {type(self.stage).__name__}")
        for end in (self.pre, self.post):
            if not isinstance(end, str):
                raise InvalidTypeError(
                    f"plasticity of stage {self.stage.name}: pre and post are names of populations, not "
                    f"{type(end).__name__}"
                )
        object.__setattr__(self, "gain", number(f"plasticity of stage {self.stage.name}: its gain", self.gain))
        if not self.stage.parameters:
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name} ({self.stage.label}): it has no parameters to learn"
            )
        if not isinstance(self.when, (AtStep, OnSpike)) and not (isinstance(self.when, str) and self.when == "end"):
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name}: when is 'end', AtStep(n) or OnSpike(window), not {self.when!r}"
            )
        one_of(f"plasticity of stage {self.stage.name}: presynaptic", self.presynaptic, ("frozen", "live"))
        if self.derivative is not None:
            one_of(f"plasticity of stage {self.stage.name}: derivative", self.derivative, ("frozen", "live", "none"))
        if self.stage.arguments > 1 and (self.presynaptic, self.derivative or "frozen") != ("frozen", "frozen"):
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name} ({self.stage.label}): it reads {self.stage.arguments} values, "
                "which are known at the frozen forward pass alone; leave presynaptic and derivative out"
            )
        if self.weights is not None and not isinstance(self.weights, FeedbackWeights):
            raise InvalidTypeError(
                f"plasticity of stage {self.stage.name}: weights are FeedbackWeights, not {type(self.weights).__name__}"
            )
        if self.weights is not None and self.weights.stage is not self.stage:
            raise InvalidValueError(f"plasticity of stage {self.stage.name}: {self.weights} belong to another stage")
        if self.regularizer is not None and not isinstance(self.regularizer, Regularizer):
            raise InvalidTypeError(
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
        mover = {self.when.moved_by} if isinstance(self.when, OnSpike) and self.when.moved_by is not None else set()
        return frozenset({self.post, self.pre} if live else {self.post}) | mover

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
        Letters, digits and underscores; the name of its variable in a trajectory.
    value
        A function of every population's activity, a mapping by name, that returns shape (sample,): of each sample what
        it would return of it alone, without writing into the activity, and the same whenever it is asked.
    long_name
        What it is, for axes and tables.

    Examples
    --------
    >>> import neurodyn as nd
    >>> norm = nd.Observable("norm", lambda activity: activity["x"].square().sum(1), "‖x‖²")
    >>> net = nd.Network("leak", [nd.Population("x", 2, initial=1.0)], observables=[norm])
    >>> run = nd.simulate(net, None, duration=1.0, save_at=2, record="norm")
    >>> run.norm.values.astype(float).round(3).tolist()
    [[2.0], [0.271]]
    """

    name: str
    value: Callable[[Activity], Tensor]
    long_name: str

    def __post_init__(self) -> None:
        _check_name("observable", self.name)
        if not callable(self.value):
            raise InvalidTypeError(
                f"observable {self.name}: its value is a function of the activity, not {type(self.value).__name__}"
            )
        if not isinstance(self.long_name, str):
            raise InvalidTypeError(
                f"observable {self.name}: its long_name is text, not {type(self.long_name).__name__}"
            )


def _map_meant(given: object) -> str:
    """Say which map was meant, where that can be told."""
    if isinstance(given, Stage):
        return "; write nd.Forward(stage)"
    if isinstance(given, nn.Module):
        of_torch = type(given).__module__.startswith("torch.nn.") and not list(given.children())
        return f"; write nd.Forward({f'nn.{given}' if of_torch else 'module'})"
    if isinstance(given, type) and issubclass(given, Map):
        return f"; that is the class: write {given.__name__}(…)"
    return ""


def _counts(value: object) -> bool:
    """Tell whether a value is a positive number of units."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 < int(value) < 2**63
