"""Inverses of stages, and differences about an operating point that keep their digits however small they are.

Targets close to the forward pass, t = ȳ − s v with s ≪ 1, are lost to rounding once s is below the machine epsilon. So
the scaled deviation v is carried in their place, and a stage hands on a difference quotient of it, such as
[g⁻¹(ȳ) − g⁻¹(ȳ − s v)] / s. It is taken layer by layer: a linear layer's is linear, and an activation's has a closed
form in which nothing cancels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidValueError
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.points import ACTIVATIONS, computes, is_plain
from neurodyn.layers.stacked import Stacked, by_member, member_of

_WORST_ERROR = 0.01
"""The relative error of a known solution above which a matrix is too badly conditioned: two correct digits."""


Scale = float | Tensor
"""s > 0 of scaled deviations: one for all samples, or one for each, shape (sample,)."""


@dataclass(frozen=True)
class Differences:
    """The difference quotients of an invertible activation f, for any v and any scale s > 0.

    Parameters
    ----------
    forward
        `forward(layer, x, y, v, s)` returns [f(x) − f(x − s v)] / s, given y = f(x).
    inverse
        `inverse(layer, y, v, s)` returns [f⁻¹(y) − f⁻¹(y − s v)] / s.
    """

    forward: Callable[[Any, Tensor, Tensor, Tensor, Scale], Tensor]
    inverse: Callable[[Any, Tensor, Tensor, Scale], Tensor]


def _scaled(function: Callable[[Tensor], Tensor], u: Tensor, scale: Scale) -> Tensor:
    """Return function(s u) / s of a function with function(u) = u + O(u²), also where s u underflows."""
    small = u * scale
    return torch.where(small.abs() < torch.finfo(u.dtype).tiny ** 0.5, u, function(small) / scale)


def _bent(x: Tensor, v: Tensor, scale: Scale, above: float, below: float) -> Tensor:
    """Return [f(x) − f(x − s v)] / s of f(x) = above · x for x > 0 and below · x elsewhere.

    The path of length v, in units of s, is split at the kink, and each part takes its slope.
    """
    tiny = torch.finfo(x.dtype).tiny
    kink = x / (scale.clamp_min(tiny) if isinstance(scale, Tensor) else max(scale, tiny))
    positive = torch.minimum(v - kink.clamp(max=0.0), kink.clamp(min=0.0))
    return torch.add(above * positive, v - positive, alpha=below)


def _tanh_forward(layer: nn.Module, x: Tensor, y: Tensor, v: Tensor, scale: Scale) -> Tensor:
    # tanh a − tanh b = tanh(a − b) (1 − tanh a tanh b)
    return _scaled(torch.tanh, v, scale) * (1.0 - y * torch.tanh(x - scale * v))


def _tanh_inverse(layer: nn.Module, y: Tensor, v: Tensor, scale: Scale) -> Tensor:
    # artanh a − artanh b = artanh((a − b) / (1 − a b))
    return _scaled(torch.atanh, v / (1.0 - y * (y - scale * v)), scale)


def _sigmoid_forward(layer: nn.Module, x: Tensor, y: Tensor, v: Tensor, scale: Scale) -> Tensor:
    # sigmoid x = (1 + tanh(x/2)) / 2
    return 0.25 * _scaled(torch.tanh, v, 0.5 * scale) * (1.0 - (2.0 * y - 1.0) * torch.tanh(0.5 * (x - scale * v)))


def _sigmoid_inverse(layer: nn.Module, y: Tensor, v: Tensor, scale: Scale) -> Tensor:
    # logit a − logit b = log(1 + (a − b) / (b (1 − a)))
    return _scaled(torch.log1p, v / ((y - scale * v) * (1.0 - y)), scale)


def _softplus_forward(layer: nn.Softplus, x: Tensor, y: Tensor, v: Tensor, scale: Scale) -> Tensor:
    # log((1 + eᵃ) / (1 + eᵇ)) = log(1 + sigmoid(b) (eᵃ⁻ᵇ − 1))
    rise = _scaled(torch.expm1, layer.beta * v, scale)
    return _scaled(torch.log1p, torch.sigmoid(layer.beta * (x - scale * v)) * rise, scale) / layer.beta


def _softplus_inverse(layer: nn.Softplus, y: Tensor, v: Tensor, scale: Scale) -> Tensor:
    # f⁻¹(a) = a + log(1 − e⁻ᵃ), and (1 − e⁻ᵃ) / (1 − e⁻ᵇ) = 1 ± e^(−min(a, b)) (1 − e^(−|a − b|)) / (1 − e⁻ᵇ)
    a, b, difference = layer.beta * y, layer.beta * (y - scale * v), layer.beta * v
    rise = _scaled(lambda u: -torch.expm1(-u), difference.abs(), scale).copysign(difference)
    ratio = torch.exp(-torch.minimum(a, b)) * rise / -torch.expm1(-b)
    return v + _scaled(torch.log1p, ratio, scale) / layer.beta


DIFFERENCES: dict[type[nn.Module], Differences] = {
    nn.Identity: Differences(lambda f, x, y, v, s: v, lambda f, y, v, s: v),
    nn.LeakyReLU: Differences(
        lambda f, x, y, v, s: _bent(x, v, s, 1.0, f.negative_slope),
        lambda f, y, v, s: _bent(y, v, s, 1.0, 1.0 / f.negative_slope),
    ),
    nn.Tanh: Differences(_tanh_forward, _tanh_inverse),
    nn.Sigmoid: Differences(_sigmoid_forward, _sigmoid_inverse),
    nn.Softplus: Differences(_softplus_forward, _softplus_inverse),
}


def check_invertible(layers: Sequence[nn.Module], stage: str) -> None:
    """Refuse layers that have no inverse, whatever their weights.

    Parameters
    ----------
    layers
        The layers of a stage.
    stage
        The name of the stage, for messages.

    Raises
    ------
    ValueError
        If a layer has no inverse; the message says what would have one.
    """
    for given in layers:
        layer = member_of(given)
        name = type(layer).__name__
        if not is_plain(layer):
            raise InvalidValueError(
                f"stage {stage} has no inverse: a hook changes what its {name} computes, or a forward of its own; "
                "remove it"
            )
        if computes(layer, nn.Linear):
            outputs, inputs = layer.weight.shape  # type: ignore[misc]
            if outputs != inputs:
                fix = "no layer may be wider than the one that it reads"
                if outputs < inputs:
                    fix = f"FirstUnits({outputs}) and then Linear({outputs}, {outputs}) make the others auxiliary"
                raise InvalidValueError(
                    f"stage {stage} has no inverse: its weights are {outputs} × {inputs}, and only a square matrix can "
                    f"be inverted; {fix}"
                )
        elif type(layer) is nn.LeakyReLU and layer.negative_slope <= 0:
            raise InvalidValueError(
                f"stage {stage} has no inverse: LeakyReLU needs a positive slope, not {layer.negative_slope}"
            )
        elif type(layer) not in (FirstUnits, nn.Flatten, *DIFFERENCES) or not computes(layer, type(layer)):
            raise InvalidValueError(
                f"stage {stage} has no inverse: {name} is not invertible; use square Linear layers with LeakyReLU, "
                "Tanh, Sigmoid, Softplus or no activation"
            )
        if isinstance(given, Stacked) and "weight" not in given._parameters:
            raise InvalidValueError(
                f"stage {stage} has no inverse for several networks at once, as {name} works its weights out; run or "
                "train each network by itself"
            )


def needs_forward(layers: Sequence[nn.Module]) -> bool:
    """Tell whether the layers' inverse depends on what they read in the forward pass."""
    return any(isinstance(layer, (FirstUnits, nn.Flatten)) for layer in layers)


class LayerInverse(ABC):
    """The inverse of one layer."""

    def __init__(self, layer: nn.Module, stage: str) -> None:
        self.layer, self.stage = layer, stage

    @abstractmethod
    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        """Return the layer's input that gives `y`, where the forward pass read `x`."""

    @abstractmethod
    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        """Return [inverse(y) − inverse(y − s v)] / s at the forward pass, which read `x` and gave `y`."""


class _LinearInverse(LayerInverse):
    """x = W⁻¹ (y − b), with the W and b of each network where the layer is a stacked one."""

    def __init__(self, layer: nn.Module, stage: str) -> None:
        super().__init__(layer, stage)
        self._factors = _factorise(layer, stage)
        bias: Tensor | None = getattr(layer, "bias", None)
        self._bias = None if bias is None else bias.detach()

    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        if self._bias is not None:
            y = (by_member(y, self._factors.lu) - self._bias.unsqueeze(-2)).view_as(y)
        return self._factors.solve(y)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        return self._factors.solve(v)


class _ActivationInverse(LayerInverse):
    """x = f⁻¹(y), for y in the open interval of values that f takes."""

    def __init__(self, layer: nn.Module, stage: str) -> None:
        super().__init__(layer, stage)
        inverse = ACTIVATIONS[type(layer)].inverse
        assert inverse is not None, "check_invertible comes first"
        self._inverse = inverse
        self._low, self._high = ACTIVATIONS[type(layer)].range
        self._differences = DIFFERENCES[type(layer)]

    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        self._check_range(y)
        return self._inverse(self.layer, y)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        scale = _beside(v, scale)
        self._check_range(y, y - scale * v)
        return self._differences.inverse(self.layer, y, v, scale)

    def _check_range(self, *values: Tensor) -> None:
        if self._low == -float("inf") and self._high == float("inf"):
            return
        for y in values:
            if not bool(((y > self._low) & (y < self._high)).all()):
                raise InvalidValueError(
                    f"stage {self.stage} cannot be inverted here: {type(self.layer).__name__} takes values in "
                    f"({self._low:g}, {self._high:g}), and the activity or target given spans "
                    f"[{y.min():.4g}, {y.max():.4g}]; nothing was clipped: bring the targets inside, e.g. 0.1 and 0.9 "
                    "for 0 and 1, or closer to the forward pass"
                )


class _FirstUnitsInverse(LayerInverse):
    """The units read take what comes back; the others, which are auxiliary, keep their value of the forward pass."""

    layer: FirstUnits

    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        assert x is not None, "needs_forward tells that it is needed"
        return torch.cat([y, x[..., self.layer.out_features :]], -1)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        padded = torch.zeros_like(x)
        padded[..., : self.layer.out_features] = v
        return padded


class _FlattenInverse(LayerInverse):
    def value(self, y: Tensor, x: Tensor | None) -> Tensor:
        assert x is not None, "needs_forward tells that it is needed"
        return y.reshape(x.shape)

    def difference(self, v: Tensor, scale: Scale, x: Tensor, y: Tensor) -> Tensor:
        return v.reshape(x.shape)


def _layer_inverse(layer: nn.Module, stage: str) -> LayerInverse:
    if isinstance(member_of(layer), nn.Linear):
        return _LinearInverse(layer, stage)
    own = {FirstUnits: _FirstUnitsInverse, nn.Flatten: _FlattenInverse}
    return own.get(type(layer), _ActivationInverse)(layer, stage)


class StageInverse:
    """The inverse of a stage g: layers in sequence. It is factorised once and valid until the weights change.

    Parameters
    ----------
    layers
        The layers of the stage, in the order of the forward pass.
    name
        The name of the stage, for messages.

    Raises
    ------
    ValueError
        If a layer has no inverse, or its matrix is singular or too badly conditioned for its precision.
    """

    def __init__(self, layers: Sequence[nn.Module], name: str) -> None:
        check_invertible(layers, name)
        self._inverses = [_layer_inverse(layer, name) for layer in layers]

    def __call__(self, y: Tensor, at: Sequence[Tensor] | None = None) -> Tensor:
        """Return g⁻¹(y).

        Parameters
        ----------
        y
            Shaped like g's value, (sample, …).
        at
            What the forward pass gave: the stage's input, then the value of each layer. Needed where `needs_forward`.

        Raises
        ------
        ValueError
            If `y` is outside the values that an activation takes.
        """
        for place in reversed(range(len(self._inverses))):
            y = self._inverses[place].value(y, None if at is None else at[place])
        return y

    def difference(self, v: Tensor, scale: Scale, at: Sequence[Tensor]) -> Tensor:
        """Return [g⁻¹(ȳ) − g⁻¹(ȳ − s v)] / s, correct to rounding for every s > 0.

        Parameters
        ----------
        v
            The scaled deviation, shaped like g's value, (sample, …).
        scale
            s > 0, or one for each sample.
        at
            What the forward pass gave: the stage's input, then the value of each layer, ȳ the last.

        Raises
        ------
        ValueError
            If ȳ or ȳ − s v is outside the values that an activation takes.
        """
        for place in reversed(range(len(self._inverses))):
            v = self._inverses[place].difference(v, scale, at[place], at[place + 1])
        return v


def forward_difference(layers: Sequence[nn.Module], v: Tensor, scale: Scale, at: Sequence[Tensor]) -> Tensor:
    """Return [g(x̄) − g(x̄ − s v)] / s of a stage g, correct to rounding for every s > 0.

    Parameters
    ----------
    layers
        The layers of the stage, each invertible.
    v
        The scaled deviation, shaped like g's input, (sample, …).
    scale
        s > 0, or one for each sample.
    at
        What the forward pass gave: x̄, then the value of each layer.
    """
    for layer, x, y in zip(layers, at, at[1:], strict=False):
        if isinstance(member_of(layer), nn.Linear):
            weight: Tensor = layer.weight.detach()  # type: ignore[operator]
            v = (by_member(v, weight) @ weight.mT).view_as(y)
        elif isinstance(layer, (FirstUnits, nn.Flatten)):
            v = layer(v)
        else:
            v = DIFFERENCES[type(layer)].forward(layer, x, y, v, _beside(v, scale))
    return v


def _beside(v: Tensor, scale: Scale) -> Scale:
    """Lay scales, one a sample, out so that they multiply v."""
    return scale.view(-1, *[1] * (v.ndim - 1)) if isinstance(scale, Tensor) else scale


@dataclass(frozen=True)
class _Factors:
    """Wᵀ = P L U, and W's image of a fixed vector, by which a change of the weights is noticed."""

    image: Tensor
    lu: Tensor
    pivots: Tensor

    def solve(self, y: Tensor) -> Tensor:
        """Return W⁻¹ y for each row of `y`, shape (…, units)."""
        # Rows times Wᵀ, so that nothing has to be laid out anew for LAPACK, which stores matrices by columns.
        x: Tensor = torch.linalg.lu_solve(self.lu, self.pivots, by_member(y, self.lu), left=False)
        return x.reshape(y.shape)


_FACTORS: WeakKeyDictionary[nn.Module, _Factors] = WeakKeyDictionary()


def _factorise(layer: nn.Module, stage: str) -> _Factors:
    """Return the factors of a layer's weights, those kept from the last time if the weights are the same."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    if weight.dtype not in (torch.float32, torch.float64):
        raise InvalidValueError(f"stage {stage} cannot be inverted in {weight.dtype}; use float32 or float64")
    # PyTorch's version counter does not see a change through `.data`, but the image W r does.
    probe = torch.arange(1, weight.shape[-1] + 1, dtype=weight.dtype, device=weight.device).cos_()
    image = weight @ probe
    kept = _FACTORS.get(layer)
    if (
        kept is not None
        and (kept.image.dtype, kept.image.device) == (image.dtype, image.device)
        and torch.equal(kept.image, image)
    ):
        return kept
    lu, pivots, _ = torch.linalg.lu_factor_ex(weight.mT)
    factors = _Factors(image, lu, pivots)
    # How well a known solution comes back tells the conditioning for one solve; its number is for the message.
    errors = torch.linalg.vector_norm(factors.solve(image) - probe, dim=-1) / torch.linalg.vector_norm(probe)
    if not bool((errors <= _WORST_ERROR).all()):
        worst = torch.linalg.cond(weight.double()).max()
        raise InvalidValueError(
            f"stage {stage} cannot be inverted in {weight.dtype}: its weights' condition number is "
            f"{float(worst):.3g}; start from orthogonal weights, keep them near with "
            "the Orthogonality regularizer" + (", or use float64" if weight.dtype == torch.float32 else "")
        )
    _FACTORS[layer] = factors
    return factors
