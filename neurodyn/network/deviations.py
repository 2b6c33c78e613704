"""Coupling maps of scaled deviations from the forward pass: Forward and Inverse, without loss of digits.

With x = x̄ − s v, a population may carry the deviation v in place of the activity x, however small the scale s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from neurodyn.checks import positive
from neurodyn.errors import InvalidValueError
from neurodyn.layers.activations import Scale
from neurodyn.layers.inverses import check_invertible, forward_difference
from neurodyn.layers.stacked import of_samples
from neurodyn.layers.stages import Stage
from neurodyn.network.maps import Activity, OperatingPoints, Term
from neurodyn.network.stage_maps import Inverse, OfStage

Difference = Callable[[Tensor, Scale, Sequence[Tensor]], Tensor]
"""A function of the deviation, its scale, and the values of the layers at the forward pass."""


@dataclass(frozen=True, init=False, repr=False)
class ForwardDeviation(OfStage):
    """[g(x̄) − g(x̄ − s · source)] / s: `Forward`, of deviations from the forward pass.

    Parameters
    ----------
    stage
        A `Stage`, or any `nn.Module`, which becomes one; its layers must be invertible. One of the network's `forward`.
    scale
        s > 0; or several, one for each of as many equal blocks of the samples.

    Raises
    ------
    ValueError
        If a layer has no inverse, or the scale is not positive.

    Examples
    --------
    >>> import neurodyn as nd
    >>> _, second = nd.cut(nd.mlp([3, 3, 3]))
    >>> nd.Coupling("d1", "d2", nd.ForwardDeviation(second, 0.01)).text
    '(g2(x̄) − g2(x̄ − 0.01 d1)) / 0.01'
    """

    scale: float | tuple[float, ...]
    homogeneous = True
    frozen = True
    stacked_numbers = ("scale",)

    def __init__(self, stage: Stage | nn.Module, scale: float | tuple[float, ...]) -> None:
        super().__init__(stage)
        check_invertible(self.stage.layers, self.stage.name)
        self._set(scale=_checked("scale of ForwardDeviation", scale))

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        return self.stage.output_shape(source)

    def describe(self, source: str, target: str) -> str:
        g = self.stage.symbol
        return _quotient(f"{g}(x̄)", f"{g}(x̄ − ", source, self.scale)

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        difference = partial(forward_difference, self.stage.layers)
        return _DeviationTerm(difference, points.frozen(self.stage).values, self.scale, source)


@dataclass(frozen=True, init=False, repr=False)
class InverseDeviation(Inverse):
    """[g⁻¹(ȳ) − g⁻¹(ȳ − s · source)] / s with ȳ = g(x̄): `Inverse`, of deviations from the forward pass.

    Units that the stage does not read (`FirstUnits`) do not deviate.

    Parameters
    ----------
    stage
        A `Stage`, or any `nn.Module`, which becomes one; its layers must be invertible. One of the network's `forward`.
    scale
        s > 0; or several, one for each of as many equal blocks of the samples.

    Raises
    ------
    ValueError
        If a layer has no inverse, or the scale is not positive.

    Examples
    --------
    >>> import neurodyn as nd
    >>> stages = nd.cut(nd.models.target_propagation.tower([3, 3, 3]))
    >>> nd.Coupling("d2", "d1", nd.InverseDeviation(stages[1], 0.01)).text
    '(g2⁻¹(ḡ2) − g2⁻¹(ḡ2 − 0.01 d2)) / 0.01'
    """

    scale: float | tuple[float, ...]
    homogeneous = True
    stacked_numbers = ("scale",)

    def __init__(self, stage: Stage | nn.Module, scale: float | tuple[float, ...]) -> None:
        super().__init__(stage)
        self._set(scale=_checked("scale of InverseDeviation", scale), frozen=True)

    def describe(self, source: str, target: str) -> str:
        g, y = f"{self.stage.symbol}⁻¹", f"ḡ{self.stage.mark}"
        return _quotient(f"{g}({y})", f"{g}({y} − ", source, self.scale)

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        difference = self.stage.inverted().difference
        return _DeviationTerm(difference, points.frozen(self.stage).values, self.scale, source)


class _DeviationTerm(Term):
    def __init__(
        self, difference: Difference, at: Sequence[Tensor], scale: float | tuple[float, ...], source: str
    ) -> None:
        self._difference, self._at, self._source = difference, at, source
        self._scale: Scale = of_samples(scale, at[0]).flatten() if isinstance(scale, tuple) else scale

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        out.add_(self._difference(activity[self._source], self._scale, self._at), alpha=gain)


def _checked(what: str, scale: float | tuple[float, ...]) -> float | tuple[float, ...]:
    if isinstance(scale, tuple) and not scale:
        raise InvalidValueError(f"{what}: there are none; give one, or one for each block of the samples")
    return tuple(positive(what, each) for each in scale) if isinstance(scale, tuple) else positive(what, scale)


def _quotient(value: str, shifted: str, source: str, scale: float | tuple[float, ...]) -> str:
    if scale == 1.0:
        return f"({value} − {shifted}{source}))"
    s = f"{scale:g}" if not isinstance(scale, tuple) else f"[{', '.join(f'{each:g}' for each in scale)}]"
    return f"({value} − {shifted}{s} {source})) / {s}"
