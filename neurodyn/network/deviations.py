"""Coupling maps of scaled deviations from the forward pass: Forward and Inverse, without loss of digits.

With x = x̄ − s v, a population may carry the deviation v in place of the activity x, however small the scale s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neurodyn.checks import positive
from neurodyn.layers.inverses import Scale, check_invertible, forward_difference
from neurodyn.layers.stages import Stage, StagePoint
from neurodyn.network.maps import Activity, Inverse, Map, OperatingPoints, Term


class ForwardDeviation(Map):
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
    """

    homogeneous = True
    frozen = True

    def __init__(self, stage: Stage | nn.Module, scale: float | tuple[float, ...]) -> None:
        self.stage: Stage = stage if isinstance(stage, Stage) else Stage(stage)
        check_invertible(self.stage.layers, self.stage.name)
        self.scale = _checked("scale of ForwardDeviation", scale)
        self.linear = self.stage.affine

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        return self.stage.output_shape(source)

    def describe(self, source: str, target: str) -> str:
        g = self.stage.symbol
        return _quotient(f"{g}(x̄)", f"{g}(x̄ − ", source, self.scale)

    def stacked(self, others: Sequence[Map]) -> Map:
        return ForwardDeviation(self.stage, _scales(self, others))

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _ForwardDeviationTerm(points.frozen(self.stage), self.scale, source)


class _ForwardDeviationTerm(Term):
    def __init__(self, point: StagePoint, scale: float | tuple[float, ...], source: str) -> None:
        self._layers, self._at = point.stage.layers, point.values
        self._scale, self._source = _of_samples(scale, self._at[0]), source

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        out.add_(forward_difference(self._layers, activity[self._source], self._scale, self._at), alpha=gain)


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
    """

    homogeneous = True

    def __init__(self, stage: Stage | nn.Module, scale: float | tuple[float, ...]) -> None:
        super().__init__(stage)
        self.scale = _checked("scale of InverseDeviation", scale)
        self.frozen = True

    def describe(self, source: str, target: str) -> str:
        g, y = f"{self.stage.symbol}⁻¹", f"ḡ{self.stage.mark}"
        return _quotient(f"{g}({y})", f"{g}({y} − ", source, self.scale)

    def stacked(self, others: Sequence[Map]) -> Map:
        return InverseDeviation(self.stage, _scales(self, others))

    def bind(self, points: OperatingPoints, source: str, target: str) -> Term:
        return _InverseDeviationTerm(points.frozen(self.stage), self.scale, source)


class _InverseDeviationTerm(Term):
    def __init__(self, point: StagePoint, scale: float | tuple[float, ...], source: str) -> None:
        self._inverse, self._at = point.stage.inverted(), point.values
        self._scale, self._source = _of_samples(scale, self._at[0]), source

    def add(self, activity: Activity, out: Tensor, gain: float) -> None:
        out.add_(self._inverse.difference(activity[self._source], self._scale, self._at), alpha=gain)


def _checked(what: str, scale: float | tuple[float, ...]) -> float | tuple[float, ...]:
    return tuple(positive(what, each) for each in scale) if isinstance(scale, tuple) else positive(what, scale)


def _scales(own: ForwardDeviation | InverseDeviation, others: Sequence[Map]) -> float | tuple[float, ...]:
    scales: tuple[float, ...] = tuple(vars(other).get("scale", own.scale) for other in others)
    return scales[0] if len(set(scales)) == 1 else scales


def _of_samples(scale: float | tuple[float, ...], like: Tensor) -> Scale:
    if not isinstance(scale, tuple):
        return scale
    return torch.tensor(scale, dtype=like.dtype, device=like.device).repeat_interleave(len(like) // len(scale))


def _quotient(value: str, shifted: str, source: str, scale: float | tuple[float, ...]) -> str:
    if scale == 1.0:
        return f"({value} − {shifted}{source}))"
    s = f"{scale:g}" if not isinstance(scale, tuple) else f"[{', '.join(f'{each:g}' for each in scale)}]"
    return f"({value} − {shifted}{s} {source})) / {s}"
