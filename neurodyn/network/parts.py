"""The parts of a declaration: populations, couplings, plasticity, and what may be observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal

from torch import Tensor, nn

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.stages import Stage
from neurodyn.network.drives import Drive
from neurodyn.network.maps import Activity, Identity, Map
from neurodyn.network.regularizers import Regularizer
from neurodyn.network.timing import AtStep, OnSpike, When

Size = int | tuple[int, ...]


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
            raise InvalidValueError(f"population {self.name!r}: a name consists of letters, digits and underscores")
        if self.name in ("time", "sample"):
            raise InvalidValueError(
                f"population {self.name!r}: a trajectory has a dimension of that name; choose another"
            )
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        if self.size is not None and (not sizes or any(not isinstance(n, Integral) or n < 1 for n in sizes)):
            raise InvalidValueError(
                f"population {self.name}: its size is a positive number of units, or a tuple of them, not {self.size!r}"
            )
        if self.clamp is not None and not isinstance(self.clamp, Drive):
            raise InvalidTypeError(
                f"population {self.name}: clamp must be a drive such as Input(), not {type(self.clamp).__name__}"
            )
        for what, value in (("tau", self.tau), ("leak", self.leak), ("initial", self.initial)):
            if not isinstance(value, (Real, Drive)):
                raise InvalidTypeError(f"population {self.name}: {what} must be a number, not {type(value).__name__}")
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise InvalidValueError(
                f"population {self.name}: tau must be ≥ 0 (0 makes it instantaneous), not {self.tau!r}"
            )
        if not (math.isfinite(self.leak) and self.leak >= 0):
            raise InvalidValueError(f"population {self.name}: leak must be ≥ 0, not {self.leak!r}")
        if self.tau == 0 and self.leak == 0:
            raise InvalidValueError(f"population {self.name}: an instantaneous population needs a leak > 0")
        if self.tau == 0 and self.initial != 0.0:
            raise InvalidValueError(
                f"population {self.name}: it is instantaneous, and equals its input from the start; leave initial out"
            )
        if not isinstance(self.initial, Drive) and not math.isfinite(self.initial):
            raise InvalidValueError(
                f"population {self.name}: it cannot start from {self.initial!r}; give a finite number"
            )

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
            raise InvalidTypeError(
                f"coupling {self}: its map is a neurodyn Map such as Forward(stage), not {type(self.map).__name__}"
            )
        if not isinstance(self.gain, Real):
            raise InvalidTypeError(f"coupling {self}: its gain must be a number, not {type(self.gain).__name__}")
        if not (math.isfinite(self.gain) and self.gain != 0):
            raise InvalidValueError(f"coupling {self}: its gain must be finite and not 0, not {self.gain!r}")

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
            raise InvalidTypeError(f"plasticity: its stage is a neurodyn Stage, not {type(self.stage).__name__}")
        if not self.stage.parameters:
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name} ({self.stage.label}): it has no parameters to learn"
            )
        if self.when != "end" and not isinstance(self.when, (AtStep, OnSpike)):
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name}: when is 'end', AtStep(n) or OnSpike(window), not {self.when!r}"
            )
        if self.presynaptic not in ("frozen", "live"):
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name}: presynaptic is 'frozen' or 'live', not {self.presynaptic!r}"
            )
        if self.derivative not in ("frozen", "live", "none", None):
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name}: derivative is 'frozen', 'live' or 'none', not "
                f"{self.derivative!r}"
            )
        if self.stage.arguments > 1 and (self.presynaptic, self.derivative or "frozen") != ("frozen", "frozen"):
            raise InvalidValueError(
                f"plasticity of stage {self.stage.name} ({self.stage.label}): it reads {self.stage.arguments} values, "
                "which are known at the frozen forward pass alone; leave presynaptic and derivative out"
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
        A function of every population's activity, a mapping by name, that returns shape (sample,): of each sample what
        it would return of it alone, without writing into the activity, and the same whenever it is asked.
    long_name
        What it is, for axes and tables.
    """

    name: str
    value: Callable[[Activity], Tensor]
    long_name: str
