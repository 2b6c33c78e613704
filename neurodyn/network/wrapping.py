"""Maps that are another map, changed unit by unit."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neurodyn.checks import whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.stage_point import StagePoint
from neurodyn.layers.stages import Stage
from neurodyn.network.maps import Activity, Map, Names, OperatingPoints, Shapes, Term
from neurodyn.network.names import as_factor


@dataclass(frozen=True)
class Wrapping(Map):
    """A map that is another one, changed unit by unit."""

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


def unwrapped(map_: Map) -> Map:
    """Return the map within all that wrap it."""
    while isinstance(map_, Wrapping):
        map_ = map_.map
    return map_


def modulating(map_: Map) -> tuple[Stage, ...]:
    """Return the stages by whose derivatives at the forward pass a map is modulated."""
    stages = []
    while isinstance(map_, Modulated):
        stages.append(map_.stage)
        map_ = map_.map
    return tuple(stages)


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
        return f"f'(h{self.stage.mark}){power} ⊙ {as_factor(self.map.describe(source, target))}"

    def bind(self, points: OperatingPoints, source: Names, target: str) -> Term:
        return _ModulatedTerm(self.map.bind(points, source, target), points.frozen(self.stage), self.power)


class Scaled(Term):
    """Another term, times a factor for each unit of the target, of all samples or of each."""

    def __init__(self, term: Term, factor: Tensor) -> None:
        self._term, self._factor = term, factor
        self._value: Tensor | None = None

    def renew(self) -> bool:
        return self._term.renew()

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        if self._value is None or self._value.shape != out.shape:
            self._value = torch.empty_like(out)
        self._term.assign(activity, self._value, gain)
        out.addcmul_(self._factor, self._value)

    def assign(self, activity: Activity, out: Tensor, gain: float) -> None:
        self._term.assign(activity, out, gain)
        out.mul_(self._factor)

    def each(self, activity: Activity, rows: Tensor) -> Tensor | None:
        value = self._term.each(activity, rows)
        return None if value is None else value * self._factor

    def add_with_jump(self, activity: Activity, out: Tensor, gain: float, jump: Tensor) -> None:
        value, by = torch.zeros_like(out), torch.zeros_like(out)
        self._term.add_with_jump(activity, value, gain, by)
        out.addcmul_(self._factor, value)
        jump.addcmul_(self._factor, by)

    def norm(self, activity: Activity, rows: int) -> float | Tensor | None:
        norm = self._term.norm(activity, rows)
        return None if norm is None else norm * self._factor.abs().max()


class _ModulatedTerm(Scaled):
    def __init__(self, term: Term, point: StagePoint, power: int) -> None:
        super().__init__(term, point.slope.pow_(power))
        self._point, self._power = point, power

    def renew(self) -> bool:
        self._factor.copy_(self._point.slope.pow_(self._power))
        return super().renew()
