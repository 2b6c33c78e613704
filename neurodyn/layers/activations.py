"""The activations that have hand-written paths: one record each, with all that the library knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurodyn.layers.kernels import tanh

aten = torch.ops.aten

Scale = float | Tensor
"""s > 0 of scaled deviations: one for all samples, or one for each, shape (sample,)."""


@dataclass(frozen=True)
class Inverse:
    """The inverse of an activation f, and difference quotients that keep their digits for any v and any scale s > 0."""

    value: Callable[[Any, Tensor], Tensor]
    """`value(layer, y)` returns f⁻¹(y)."""
    forward_difference: Callable[[Any, Tensor, Tensor, Tensor, Scale], Tensor]
    """`forward_difference(layer, x, y, v, s)` returns [f(x) − f(x − s v)] / s, given y = f(x)."""
    difference: Callable[[Any, Tensor, Tensor, Scale], Tensor]
    """`difference(layer, y, v, s)` returns [f⁻¹(y) − f⁻¹(y − s v)] / s."""
    range: tuple[float, float] = (-inf, inf)
    """The open interval (low, high) of values that f takes."""


@dataclass(frozen=True)
class Activation:
    """An elementwise nonlinearity f."""

    name: str
    """As `mlp` takes it."""
    value: Callable[[Any, Tensor, Tensor | None], Tensor]
    """`value(layer, x, out)` returns f(x), written to `out` unless that is None."""
    feedback: Callable[[Any, Tensor, Tensor, Tensor], Tensor]
    """`feedback(layer, x, y, v)` returns f'(x) ⊙ v, given y = f(x)."""
    make: Callable[[], nn.Module]
    """Makes the layer that `mlp` takes."""
    kinked: bool = False
    """Whether its derivative jumps somewhere."""
    steepest: Callable[[Any], float] = lambda f: 1.0
    """`steepest(layer)` returns the largest |f'|."""
    bend: Callable[[Any], float] | None = None
    """`bend(layer)` returns by how much f' is larger above 0 than below; None where that is not its one kink."""
    inverse: Inverse | None = None
    """None when f has none."""


def beside(v: Tensor, scale: Scale) -> Scale:
    """Lay scales, one a sample, out so that they multiply v."""
    return scale.view(-1, *[1] * (v.ndim - 1)) if isinstance(scale, Tensor) else scale


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


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: Activation(
        "tanh",
        lambda f, x, out: tanh(x, out),
        lambda f, x, y, v: aten.tanh_backward(v, y),
        nn.Tanh,
        inverse=Inverse(lambda f, y: torch.atanh(y), _tanh_forward, _tanh_inverse, (-1.0, 1.0)),
    ),
    nn.ReLU: Activation(
        "relu",
        lambda f, x, out: torch.clamp_min(x, 0.0, out=out),
        lambda f, x, y, v: aten.threshold_backward(v, x, 0.0),
        nn.ReLU,
        kinked=True,
        bend=lambda f: 1.0,
    ),
    nn.Sigmoid: Activation(
        "sigmoid",
        lambda f, x, out: torch.sigmoid(x, out=out),
        lambda f, x, y, v: aten.sigmoid_backward(v, y),
        nn.Sigmoid,
        steepest=lambda f: 0.25,
        inverse=Inverse(lambda f, y: torch.logit(y), _sigmoid_forward, _sigmoid_inverse, (0.0, 1.0)),
    ),
    nn.LeakyReLU: Activation(
        "leaky_relu",
        lambda f, x, out: functional.leaky_relu(x, f.negative_slope),
        lambda f, x, y, v: aten.leaky_relu_backward(v, x, f.negative_slope, False),
        partial(nn.LeakyReLU, 0.1),  # the slope of GAIT-prop
        kinked=True,
        steepest=lambda f: max(1.0, abs(f.negative_slope)),
        bend=lambda f: 1.0 - f.negative_slope,
        inverse=Inverse(
            lambda f, y: functional.leaky_relu(y, 1.0 / f.negative_slope),
            lambda f, x, y, v, s: _bent(x, v, s, 1.0, f.negative_slope),
            lambda f, y, v, s: _bent(y, v, s, 1.0, 1.0 / f.negative_slope),
        ),
    ),
    nn.Softplus: Activation(
        "softplus",
        lambda f, x, out: functional.softplus(x, f.beta, f.threshold),
        lambda f, x, y, v: aten.softplus_backward(v, x, f.beta, f.threshold),
        nn.Softplus,
        inverse=Inverse(
            lambda f, y: torch.where(y * f.beta > f.threshold, y, torch.log(torch.expm1(f.beta * y)) / f.beta),
            _softplus_forward,
            _softplus_inverse,
            (0.0, inf),
        ),
    ),
    nn.Identity: Activation(
        "linear",
        lambda f, x, out: x,
        lambda f, x, y, v: v,
        nn.Identity,
        inverse=Inverse(lambda f, y: y, lambda f, x, y, v, s: v, lambda f, y, v, s: v),
    ),
}

NAMED: dict[str, Callable[[], nn.Module]] = {each.name: each.make for each in ACTIVATIONS.values()}
"""What makes an activation, by its name."""
