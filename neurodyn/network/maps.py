"""Coupling maps: what a population makes of the activity of another.

Four maps say most: `Identity`, `Forward`, `Feedback` and `Inverse`; `Modulated` scales another unit by unit, and
`Pointwise` is a function of one or several sources. A new one subclasses `Map` and defines `apply`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neurodyn.checks import flag, one_of, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.inverses import check_invertible, needs_forward
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.stages import ForwardPass, Stage, StagePoint

Names = Any
"""The name of a coupling's source, or a tuple of the names of several: a map of one's own knows which it takes."""
Shapes = Any
"""Likewise, the shape of one sample of the source, or a tuple of several."""
Activity = Mapping[str, Tensor]
"""The activity of every population, by name; each of shape (sample, …)."""


class OperatingPoints:
    """The operating points that the maps of a network share: frozen ones, and live ones that follow a population.

    A live point is worked out once per evaluation of the vector field, however many couplings refer to it.
    """

    def __init__(self, forward: ForwardPass | None) -> None:
        self._forward = forward
        # By the id of the stage, which the point keeps alive: torch.compile of PyTorch 2.8 takes no stage for a key.
        self._live: dict[tuple[int, str], StagePoint] = {}
        self._current: dict[tuple[int, str], StagePoint] = {}
        self._lasting: dict[tuple[int, str], StagePoint] = {}
        self.echoes: Collection[str] = ()
        """What delayed couplings read, which changes with the time alone."""

    def frozen(self, stage: Stage) -> StagePoint:
        """Return the stage at the forward pass."""
        assert self._forward is not None, "Network refuses a frozen stage outside the forward pass"
        return self._forward.points[stage]

    def live(self, stage: Stage, population: str, activity: Activity) -> StagePoint:
        """Return the stage at the present activity of a population."""
        key = (id(stage), population)
        point = self._lasting.get(key) or self._current.get(key)
        if point is None:
            if key not in self._live:
                self._live[key] = StagePoint(stage)
            point = self._live[key]
            (self._lasting if population in self.echoes else self._current)[key] = point
            point.move_to(activity[population])
        return point

    def expire(self, populations: Collection[str] | None = None) -> None:
        """Say that the activity of populations (all if None) has changed, so that live points are worked out anew."""
        if populations is None:
            self._current.clear()
            return
        for key in [key for key in self._current if key[1] in populations]:
            del self._current[key]

    def expire_echoes(self) -> None:
        """Say that what delayed couplings read has changed."""
        for key in [key for key in self._lasting if key[1] in self.echoes]:
            del self._lasting[key]

    def forget(self) -> None:
        """Say that the batch has changed, so that every live point is worked out anew."""
        self._current.clear()
        self._lasting.clear()
        for point in self._live.values():
            point.move_to()

    def take_from_forward(self, stage: Stage, population: str, *, lasting: bool) -> None:
        """Say that a population holds what the stage read in the forward pass: for good, or until it expires."""
        (self._lasting if lasting else self._current)[id(stage), population] = self.frozen(stage)


class Term(ABC):
    """A coupling's map, bound to data."""

    @abstractmethod
    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        """Add gain · map(source) to `out`, shaped like the target."""

    def value(self, activity: Activity) -> Tensor | None:
        """Return map(source), shaped like the target, where it comes as one tensor; None elsewhere.

        It may be the activity itself, or what is kept of an operating point: to be read, and not for long.
        """
        return None

    def renew(self) -> bool:
        """Take up another batch, and weights that may have changed, in the buffers at hand.

        False, as here, says that the map has to be bound anew.
        """
        return False

    def assign(self, activity: Activity, out: Tensor, gain: float) -> None:
        """Write gain · map(source) into `out`."""
        value = self.value(activity)
        if value is None:
            self.add(activity, out.zero_(), gain)
        else:
            torch.mul(value, gain, out=out)


class Map:
    """What a coupling does to the activity of its source. Subclass it for a map of one's own.

    A subclass defines `apply`, and `output_shape` where the target has another shape than the source. It sets
    `linear` if the map is linear (or affine) in the source, so that solvers may rely on it. Of several sources,
    `apply` takes one tensor each, and `linear` means that it is so in all of them jointly; `source` is in the other
    methods a tuple of all names, or of all shapes, in the coupling's order. Networks with such a map
    are stacked where its settings are known to be equal: where it is a frozen dataclass, or defines an equality.

    A solver evaluates a map as often as it likes, and that of a clamped source once a run. So a map is a function of
    its source alone: it does not write into it (no `x.mul_(2)`), draws no random numbers (noise is a drive's, such as
    `Noisy`), remembers nothing from one evaluation to the next, and makes of each sample what it would make of it alone
    (no mean over the first axis). It may have kinks and jumps, and no value (NaN) or an exception where it is not
    defined. Before a run, each map is asked a few times for each shape of data, where the run starts and beside, and
    refused if it is otherwise, or not `linear` or `homogeneous` where it says so.

    Examples
    --------
    >>> import neurodyn as nd
    >>> class Square(nd.Map):
    ...     def apply(self, x):
    ...         return x.square()
    >>> populations = [nd.Population("x", 1, clamp=nd.Constant(3.0)), nd.Population("y", 1)]
    >>> net = nd.Network("square", populations, [nd.Coupling("x", "y", Square())])
    >>> nd.equilibrium(net, None).y.item()
    9.0
    """

    linear: bool = False
    homogeneous: bool = False
    """Whether a source of exactly 0 gives exactly 0, so that the coupling of a silent population can be skipped."""
    stage: Stage | None = None
    """The stage that the map uses, if any."""
    frozen: bool = False
    """Whether the map needs its stage's operating point from the forward pass."""
    stacked_numbers: tuple[str, ...] = ()
    """The fields of a dataclass whose numbers may differ among stacked networks: there a tuple, one a network."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage that the map uses."""
        return () if self.stage is None else (self.stage,)

    @property
    def frozen_stages(self) -> tuple[Stage, ...]:
        """Those whose operating point the map needs from the forward pass."""
        return self.stages if self.frozen else ()

    @property
    def feedback_weights(self) -> FeedbackWeights | None:
        """The feedback weights ψ that the map uses, if any."""
        return None

    def apply(self, *source: Any, **_: Any) -> Tensor:
        """Return the map of the source's activity.

        Parameters
        ----------
        source
            The activity itself, shape (sample, …), of each source: to be read, and not to be written into.

        Returns
        -------
        Tensor
            Shape (sample, …), of the same dtype on the same device; it may be the source, or share its memory.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither apply nor bind")

    def output_shape(self, source: Shapes, target: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample of map(source), given those of source and target."""
        if isinstance(source[0], int):
            return tuple(source)
        first: tuple[int, ...] = source[0]
        if any(shape != first for shape in source):
            raise InvalidValueError(
                f"{type(self).__name__} takes sources of one shape, and these have {', '.join(map(_shape, source))} "
                "units; a map of one's own may say otherwise in output_shape"
            )
        return first

    def reads(self, source: Names, target: str) -> tuple[str, ...]:
        """Name the populations whose live activity the map depends on."""
        return names_of(source)

    def adjoint_to(self, other: Map) -> bool:
        """Tell whether this map is the transposed Jacobian of `other` at the live activity, as in a gradient flow."""
        return False

    def describe(self, source: Names, target: str) -> str:
        """Return map(source) as it stands in an equation."""
        return f"{type(self).__name__}({', '.join(names_of(source))})"

    def bind(self, points: OperatingPoints, source: Names, target: str) -> Term:
        """Bind the map to a network's operating points."""
        return _Applied(self, names_of(source))


class _Applied(Term):
    def __init__(self, map_: Map, sources: tuple[str, ...]) -> None:
        self._map, self._sources = map_, sources

    def renew(self) -> bool:
        return True

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        value = self._map.apply(*[activity[source] for source in self._sources])
        if value.shape != out.shape:
            # Broadcasting would hide the mistake.
            raise InvalidValueError(
                f"{type(self._map).__name__}.apply makes the shape {tuple(value.shape)} of population "
                f"{', '.join(self._sources)}, "
                f"and the target has {tuple(out.shape)}; say so in output_shape, or change apply"
            )
        out.add_(value, alpha=gain)


@dataclass(frozen=True)
class Pointwise(Map):
    """f(source, …): a function of one or several sources, unit by unit.

    Parameters
    ----------
    function
        f, of one tensor a source, each of shape (sample, …), that returns one of that shape. As `Map.apply`, it
        depends on its arguments alone, and does not write into them.
    text
        How it stands in an equation, with a place {} for each source, such as "{} · {}"; by default the function's
        name, or f where it has none.

    Raises
    ------
    TypeError
        If there is no function, or the text is none.

    Examples
    --------
    >>> import neurodyn as nd
    >>> gated = nd.Coupling(("u", "x"), "y", nd.Pointwise(lambda u, x: u * x, text="{} · {}"))
    >>> populations = [nd.Population(name, 3) for name in "uxy"]
    >>> print(nd.Network("gated", populations, [gated]).equations().splitlines()[-1])
    dy/dt = −y + u · x
    """

    function: Callable[..., Tensor]
    text: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InvalidTypeError(f"Pointwise: a function of tensors, not {type(self.function).__name__}")
        if isinstance(self.function, (Stage, nn.Module)) or (
            isinstance(self.function, type) and issubclass(self.function, nn.Module)
        ):
            raise InvalidTypeError("Pointwise: a function of tensors; a module or a stage is nd.Forward(module)")
        if self.text is not None and not isinstance(self.text, str):
            raise InvalidTypeError(f"text of Pointwise: text with a place {{}} for each source, not {self.text!r}")

    def apply(self, *sources: Tensor) -> Tensor:
        return self.function(*sources)

    def describe(self, source: Names, target: str) -> str:
        names = names_of(source)
        if self.text is None:
            name = getattr(self.function, "__name__", "f")
            return f"{name if name.isidentifier() else 'f'}({', '.join(names)})"
        try:
            places = [field for _, field, _, _ in Formatter().parse(self.text) if field is not None]
            text = self.text.format(*names)
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise InvalidValueError(
                f"text of Pointwise: {self.text!r} has a place {{}} for each of {', '.join(names)} ({error})"
            ) from error
        if len({*range(len(places))} if "" in places else {*places}) != len(names):
            raise InvalidValueError(f"text of Pointwise: {self.text!r} has a place {{}} for each of {', '.join(names)}")
        return text


@dataclass(frozen=True)
class Identity(Map):
    """The source's activity itself.

    Examples
    --------
    >>> import neurodyn as nd
    >>> nd.Coupling("a", "b").map
    Identity()
    """

    linear = True
    homogeneous = True

    def apply(self, source: Tensor) -> Tensor:
        return source

    def adjoint_to(self, other: Map) -> bool:
        return isinstance(other, Identity)

    def describe(self, source: str, target: str) -> str:
        return source

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _IdentityTerm(source) if type(self) is Identity else super().bind(points, source, target)


class _IdentityTerm(Term):
    def __init__(self, source: str) -> None:
        self._source = source

    def renew(self) -> bool:
        return True

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        out.add_(activity[self._source], alpha=gain)

    def value(self, activity: Activity) -> Tensor:
        return activity[self._source]


@dataclass(frozen=True, init=False, repr=False)
class OfStage(Map):
    """A map that a stage defines."""

    stage: Stage = field()

    def __init__(self, stage: Stage | nn.Module) -> None:
        own = stage if isinstance(stage, Stage) else Stage(stage)
        self._set(stage=own, linear=own.affine)

    def _set(self, **values: object) -> None:
        vars(self).update(values)  # as `__init__` of a frozen dataclass must

    def _refuse_several(self) -> None:
        if self.stage.arguments > 1:
            raise InvalidValueError(
                f"{type(self).__name__} of stage {self.stage.name} ({self.stage.label}): the stage reads "
                f"{self.stage.arguments} values, and a coupling has one source; such a stage takes Feedback alone, by "
                "its transposed Jacobian at the frozen forward pass"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.stage})"


@dataclass(frozen=True, init=False, repr=False)
class Forward(OfStage):
    """g(source): the stage at the source's live activity.

    Parameters
    ----------
    stage
        A `Stage`, or any `nn.Module`, which becomes one.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> recurrent = nd.Coupling("x", "x", nd.Forward(torch.nn.Tanh()), gain=2.0)
    >>> print(nd.Network("bistable", [nd.Population("x", 1, initial=0.1)], [recurrent]).equations())
    dx/dt = −x + 2 Tanh(x)
    """

    def __init__(self, stage: Stage | nn.Module) -> None:
        super().__init__(stage)
        self._refuse_several()

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        return self.stage.output_shape(source)

    def adjoint_to(self, other: Map) -> bool:
        return isinstance(other, Feedback) and other.adjoint_to(self)

    def describe(self, source: str, target: str) -> str:
        return f"{self.stage.symbol}({source})"

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _ForwardTerm(self.stage, points, source)


class _ForwardTerm(Term):
    def __init__(self, stage: Stage, points: OperatingPoints, source: str) -> None:
        self._stage, self._points, self._source = stage, points, source

    def renew(self) -> bool:
        return True

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        out.add_(self.value(activity), alpha=gain)

    def value(self, activity: Activity) -> Tensor:
        # With the very bits of the forward pass: a population in balance must stay so exactly.
        return self._points.live(self._stage, self._source, activity).value


@dataclass(frozen=True, init=False, repr=False)
class Feedback(OfStage):
    """Jᵀ source: the transposed Jacobian J = ∂g/∂x of the stage, from its output's side back to its input's.

    Parameters
    ----------
    stage
        A `Stage`, or any `nn.Module`, which becomes one. It leads from the coupling's target to its source.
    point
        Where J is taken: at the "frozen" forward pass, the default, or at the "live" activity of the coupling's
        target, or of `at`. A target that is neither the source of a `Forward` of the stage nor `pre` of its plasticity
        is no place to take J at: then `at` has to say where.
    weights
        Feedback weights ψ in place of the transposed ones.
    derivative
        Whether the derivatives f' of the stage's activations are applied.
    argument
        Which of several values that the stage reads J is by, counted from 0: the one that the coupling's target holds.
    at
        Of a live J, the population at whose activity it is taken, in place of the coupling's target; a point is "live"
        where this is given.

    Examples
    --------
    >>> import neurodyn as nd
    >>> first, second = nd.cut(nd.mlp([4, 3, 2]))
    >>> nd.Coupling("x2", "x1", nd.Feedback(second, "frozen")).text
    'J2(x̄)ᵀ x2'
    """

    point: Literal["frozen", "live"] = "frozen"
    weights: FeedbackWeights | None = None
    derivative: bool = True
    argument: int = 0
    at: str | None = None
    homogeneous = True

    def __init__(
        self,
        stage: Stage | nn.Module,
        point: Literal["frozen", "live"] | None = None,
        *,
        weights: FeedbackWeights | None = None,
        derivative: bool = True,
        argument: int = 0,
        at: str | None = None,
    ) -> None:
        super().__init__(stage)
        if at is not None and not isinstance(at, str):
            raise InvalidTypeError(
                f"Feedback of stage {self.stage.name}: at is the name of a population, not {type(at).__name__}"
            )
        if at is not None and point == "frozen":
            raise InvalidValueError(
                f"Feedback of stage {self.stage.name}: at={at!r} is where a live J is taken, and point is 'frozen', "
                "the forward pass; leave one of the two out"
            )
        point = ("frozen" if at is None else "live") if point is None else point
        derivative = flag(f"derivative of Feedback of stage {self.stage.name}", derivative)
        argument = whole(f"argument of Feedback of stage {self.stage.name}", argument, least=0)
        if point != "frozen" or weights is not None or not derivative:
            self._refuse_several()
        if argument not in range(self.stage.arguments):
            raise InvalidValueError(
                f"Feedback of stage {self.stage.name} ({self.stage.label}): argument counts the values that the stage "
                f"reads, from 0 to {self.stage.arguments - 1}, and is not {argument!r}"
            )
        one_of(f"point of Feedback of stage {self.stage.name}", point, ("frozen", "live"))
        if weights is not None and not isinstance(weights, FeedbackWeights):
            raise InvalidTypeError(
                f"Feedback of stage {self.stage.name}: weights are FeedbackWeights, not {type(weights).__name__}"
            )
        if weights is not None and weights.stage is not self.stage:
            raise InvalidValueError(
                f"Feedback of stage {self.stage.name} takes feedback weights of that stage, not {weights}"
            )
        self._set(point=point, weights=weights, derivative=derivative, argument=argument, at=at)
        self._set(frozen=point == "frozen", linear=point == "frozen" or self.stage.affine)

    @property
    def feedback_weights(self) -> FeedbackWeights | None:
        return self.weights

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        expected = self.stage.output_shape(target, self.argument)
        if source != expected:
            raise InvalidValueError(f"its feedback takes {_shape(expected)} units, and the source has {_shape(source)}")
        return target

    def reads(self, source: str, target: str) -> tuple[str, ...]:
        return (source,) if self.linear else (source, self.at or target)

    def adjoint_to(self, other: Map) -> bool:
        live = not self.frozen and self.at is None
        jacobian = self.weights is None and self.derivative and (live or self.stage.affine)
        return jacobian and isinstance(other, Forward) and other.stage is self.stage

    def describe(self, source: str, target: str) -> str:
        if self.stage.arguments > 1:
            return f"(∂{self.stage.symbol}/∂{target})ᵀ {source}"
        at = "x̄" if self.frozen else self.at or target
        matrix = f"W{self.stage.mark}ᵀ" if self.weights is None else f"ψ{self.stage.mark}"
        if not self.derivative:
            return f"{matrix} {source}"
        if self.weights is not None:
            return f"{matrix} (f'({at}) ⊙ {source})"
        return f"J{self.stage.mark}({at})ᵀ {source}"

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _FeedbackTerm(self, points, source, target)


class _FeedbackTerm(Term):
    def __init__(self, map_: Feedback, points: OperatingPoints, source: str, target: str) -> None:
        self._map, self._points, self._source, self._target = map_, points, source, map_.at or target
        self._weights = None if map_.weights is None else map_.weights.tensors
        self._plain = map_.weights is None and map_.derivative and not map_.argument
        self._fixed = points.frozen(map_.stage) if map_.frozen else None

    def renew(self) -> bool:
        if not self._map.frozen:
            self._fixed = None
        return True

    def _point(self, activity: Activity) -> StagePoint:
        if self._fixed is not None:
            return self._fixed
        if self._map.linear:  # J is the same everywhere, so that only the shape of the target's activity matters
            self._fixed = self._map.stage.at(torch.zeros_like(activity[self._target]))
            return self._fixed
        return self._points.live(self._map.stage, self._target, activity)

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        if self._plain:
            self._point(activity).add_feedback(activity[self._source], out, gain)
        else:
            out.add_(self.value(activity), alpha=gain)

    def value(self, activity: Activity) -> Tensor:
        map_ = self._map
        return self._point(activity).feedback(
            activity[self._source], map_.argument, weights=self._weights, derivative=map_.derivative
        )


@dataclass(frozen=True, init=False, repr=False)
class Inverse(OfStage):
    """g⁻¹(source): the inverse of the stage, from its output's side back to its input's.

    Parameters
    ----------
    stage
        A `Stage`, or any `nn.Module`, which becomes one; its layers must be invertible. Units that the stage does not
        read (`FirstUnits`) keep their value of the forward pass.

    Raises
    ------
    ValueError
        If a layer has no inverse.

    Examples
    --------
    >>> import neurodyn as nd
    >>> stages = nd.cut(nd.models.target_propagation.tower([3, 3, 3]))
    >>> nd.Coupling("t2", "t1", nd.Inverse(stages[1])).text
    'g2⁻¹(t2)'
    """

    def __init__(self, stage: Stage | nn.Module) -> None:
        super().__init__(stage)
        self._refuse_several()
        check_invertible(self.stage.layers, self.stage.name)
        self._set(frozen=needs_forward(self.stage.layers))

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        expected = self.stage.output_shape(target)
        if source != expected:
            raise InvalidValueError(f"its inverse takes {_shape(expected)} units, and the source has {_shape(source)}")
        return target

    def describe(self, source: str, target: str) -> str:
        return f"{self.stage.symbol}⁻¹({source})"

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _InverseTerm(self.stage, points.frozen(self.stage) if self.frozen else None, source)


class _InverseTerm(Term):
    def __init__(self, stage: Stage, point: StagePoint | None, source: str) -> None:
        self._stage, self._point, self._source = stage, point, source
        self.renew()

    def renew(self) -> bool:
        self._inverse = self._stage.inverted()
        self._at = None if self._point is None else self._point.values
        return True

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        out.add_(self._inverse(activity[self._source], self._at), alpha=gain)


@dataclass(frozen=True)
class Wrapping(Map):
    """A map that is another one, changed unit by unit.

    Parameters
    ----------
    map
        The other one.
    """

    map: Map

    def __post_init__(self) -> None:
        vars(self).update(linear=self.map.linear, homogeneous=self.map.homogeneous)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.map.stages

    @property
    def frozen_stages(self) -> tuple[Stage, ...]:
        return self.map.frozen_stages

    @property
    def feedback_weights(self) -> FeedbackWeights | None:
        return self.map.feedback_weights

    def output_shape(self, source: Shapes, target: tuple[int, ...]) -> tuple[int, ...]:
        return self.map.output_shape(source, target)

    def reads(self, source: Names, target: str) -> tuple[str, ...]:
        return self.map.reads(source, target)


@dataclass(frozen=True)
class Modulated(Wrapping):
    """f'(h)ⁿ ⊙ map(source): another map, whose output a stage's derivative at the forward pass scales unit by unit.

    Parameters
    ----------
    map
        The other map.
    stage
        The stage whose activations f, after its last layer with weights, give f'(h); one of the network's `forward`.
    power
        n.

    Raises
    ------
    TypeError, ValueError
        If `map`, `stage` or `power` is not as above, or the stage's last layers are no activations, so that its units
        have no derivative f'(h) of their own.

    Examples
    --------
    >>> import neurodyn as nd
    >>> stage, *_ = nd.cut(nd.mlp([3, 3, 3]))
    >>> nd.Coupling("d1", "i1", nd.Modulated(nd.Identity(), stage, 2)).text
    "f'(h1)² ⊙ d1"
    """

    stage: Stage = field()
    power: int
    frozen = True

    def __post_init__(self) -> None:
        stage = self.stage
        if not isinstance(self.map, Map) or not isinstance(stage, Stage):
            raise InvalidTypeError(
                f"Modulated takes a neurodyn Map and a Stage, not {type(self.map).__name__} and {type(stage).__name__}"
            )
        super().__post_init__()
        vars(self).update(power=whole("power of Modulated", self.power, least=-(2**31)))
        for place in range(stage.first_of_output, len(stage.layers)):
            layer = stage.layers[place]
            if place not in stage.activations and not isinstance(layer, (FirstUnits, nn.Flatten)):
                raise InvalidValueError(
                    f"stage {stage.name} ({stage.label}) ends in {type(layer).__name__}, which is no activation, so "
                    "its units have no derivative f'(h) of their own"
                )

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage, *self.map.stages)

    @property
    def frozen_stages(self) -> tuple[Stage, ...]:
        return (self.stage, *self.map.frozen_stages)

    def describe(self, source: Names, target: str) -> str:
        power = str(self.power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"f'(h{self.stage.mark}){power} ⊙ {self.map.describe(source, target)}"

    def bind(self, points: OperatingPoints, source: Names, target: str) -> Term:
        return _ModulatedTerm(self.map.bind(points, source, target), points.frozen(self.stage), self.power)


class _ModulatedTerm(Term):
    def __init__(self, term: Term, point: StagePoint, power: int) -> None:
        self._term, self._point, self._power = term, point, power
        self._factor = point.slope.pow_(power)
        self._value = torch.empty_like(self._factor)

    def renew(self) -> bool:
        self._factor.copy_(self._point.slope.pow_(self._power))
        return self._term.renew()

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        self._term.assign(activity, self._value, gain)
        out.addcmul_(self._factor, self._value)

    def assign(self, activity: Activity, out: Tensor, gain: float) -> None:
        self._term.assign(activity, out, gain)
        out.mul_(self._factor)


def names_of(source: Names) -> tuple[str, ...]:
    """Return the names of a coupling's sources."""
    return (source,) if isinstance(source, str) else tuple(source)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def takes_several(map_: Map) -> bool:
    """Tell whether a map may be one of several sources: a function, or a map of someone's own."""
    while isinstance(map_, Wrapping):
        map_ = map_.map
    return not isinstance(map_, (Identity, OfStage))
