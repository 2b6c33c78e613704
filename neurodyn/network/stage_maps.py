"""Maps that a stage defines: its value, its feedback (the transposed Jacobian), and its inverse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn.checks import flag, one_of, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.inverses import check_invertible, needs_forward
from neurodyn.layers.names import shape_text
from neurodyn.layers.stage_point import StagePoint
from neurodyn.layers.stages import Stage
from neurodyn.network.maps import Activity, Map, OperatingPoints, Term


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
        self._set(homogeneous=self.stage.homogeneous)

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

    def value(self, activity: Activity) -> Tensor:
        # With the very bits of the forward pass: a population in balance must stay so exactly.
        return self._points.live(self._stage, self._source, activity).value

    def each(self, activity: Activity, rows: Tensor) -> Tensor:
        return self._stage.each(rows)


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
        where = f"Feedback of stage {self.stage.name}"
        if at is not None and not isinstance(at, str):
            raise InvalidTypeError(f"{where}: at is the name of a population, not {type(at).__name__}")
        if point is not None:
            one_of(f"point of {where}", point, ("frozen", "live"))
        if at is not None and point == "frozen":
            raise InvalidValueError(
                f"{where}: at={at!r} is where a live J is taken, and point is 'frozen', the forward pass; leave one of "
                "the two out"
            )
        point = ("frozen" if at is None else "live") if point is None else point
        derivative = flag(f"derivative of {where}", derivative)
        argument = whole(f"argument of {where}", argument, least=0)
        if point != "frozen" or weights is not None or not derivative:
            self._refuse_several()
        if argument not in range(self.stage.arguments):
            raise InvalidValueError(
                f"{where} ({self.stage.label}): argument counts the values that the stage reads, from 0 to "
                f"{self.stage.arguments - 1}, and is not {argument!r}"
            )
        if weights is not None and not isinstance(weights, FeedbackWeights):
            raise InvalidTypeError(f"{where}: weights are FeedbackWeights, not {type(weights).__name__}")
        if weights is not None and weights.stage is not self.stage:
            raise InvalidValueError(f"{where} takes feedback weights of that stage, not {weights}")
        self._set(point=point, weights=weights, derivative=derivative, argument=argument, at=at)
        self._set(frozen=point == "frozen", linear=point == "frozen" or self.stage.affine)

    @property
    def feedback_weights(self) -> FeedbackWeights | None:
        return self.weights

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        try:
            expected = self.stage.output_shape(target, self.argument)
        except ValueError as error:
            raise InvalidValueError(
                f"{error}; Feedback leads back, to what the stage reads: is it turned round?"
            ) from error
        if source != expected:
            raise InvalidValueError(
                f"its feedback takes {shape_text(expected)} units, and the source has {shape_text(source)}"
            )
        return target

    def reads(self, source: str, target: str) -> tuple[str, ...]:
        return (source,) if self.linear else (source, self.at or target)

    @property
    def jumps_at_units(self) -> bool:
        """Whether it jumps in a unit of the coupling's target as that passes 0, or becomes a maximum, and only so."""
        own = not self.frozen and self.at is None and self.weights is None and self.derivative and not self.argument
        return own and not (self.stage.bend is None and self.stage.windows is None)

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
        self._map, self._points, self._source, self._target, self._at = map_, points, source, target, map_.at or target
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
        return self._points.live(self._map.stage, self._at, activity)

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        if self._plain:
            self._point(activity).add_feedback(activity[self._source], out, gain)
        else:
            super().add(activity, out, gain)

    def value(self, activity: Activity) -> Tensor:
        return self._back(activity, activity[self._source])

    def each(self, activity: Activity, rows: Tensor) -> Tensor | None:
        if not self._map.linear or not self._point(activity).takes_rows:
            return None
        return self._back(activity, rows)

    def norm(self, activity: Activity, rows: int) -> float | Tensor | None:
        map_ = self._map
        return self._point(activity).feedback_norm(
            map_.argument, weights=self._weights, derivative=map_.derivative, rows=rows
        )

    def add_with_jump(self, activity: Activity, out: Tensor, gain: float, jump: Tensor) -> None:
        if self._map.jumps_at_units:
            self._point(activity).add_feedback(activity[self._source], out, gain, jump)
        else:
            self.add(activity, out, gain)

    def _back(self, activity: Activity, v: Tensor) -> Tensor:
        map_ = self._map
        return self._point(activity).feedback(v, map_.argument, weights=self._weights, derivative=map_.derivative)


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
            raise InvalidValueError(
                f"its inverse takes {shape_text(expected)} units, and the source has {shape_text(source)}"
            )
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
