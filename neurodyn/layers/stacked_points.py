"""What a layer of several networks at once contributes to a stage, by batched products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neurodyn.layers.points import Conv2dPoint, LayerPoint, has_room, in_order
from neurodyn.layers.repeated import constant
from neurodyn.layers.stacked import Stacked, by_member


class StackedLinearPoint(LayerPoint):
    """`nn.Linear` of several networks at once, by batched products of matrices."""

    feedback_needs_forward = False
    layer: Stacked

    def __init__(self, layer: Stacked) -> None:
        super().__init__(layer)
        self._weight = layer.get_parameter("weight").detach()
        bias = layer._parameters.get("bias")
        self._bias = None if bias is None else bias.detach().unsqueeze(1)

    def forward(self, x: Tensor, /) -> Tensor:
        rows, transposed = by_member(x, self._weight), self._weight.mT
        y = rows @ transposed if self._bias is None else torch.baddbmm(self._bias, rows, transposed)
        return y.view(*x.shape[:-1], -1)

    def feedback(self, v: Tensor) -> Tensor:
        return (by_member(v, self._weight) @ self._weight).view(*v.shape[:-1], -1)

    def add_feedback(self, v: Tensor, out: Tensor, gain: float) -> None:
        out.view(self.layer.members, -1, out.shape[-1]).baddbmm_(by_member(v, self._weight), self._weight, alpha=gain)

    def feedback_through(self, v: Tensor, weights: Tensor) -> Tensor:
        return (by_member(v, self._weight) @ weights.mT).view(*v.shape[:-1], -1)

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        x, v = by_member(x, self._weight), by_member(v, self._weight)
        return in_order(self.layer, v.mT @ x, None if self._bias is None else v.sum(1))

    def scaled_gradient(self, x: Tensor, v: Tensor, gain: float) -> tuple[Tensor, ...]:
        if not has_room(v):
            return super().scaled_gradient(x, v, gain)
        x, v = by_member(x, self._weight), by_member(v, self._weight)
        nothing = constant(lambda: x.new_empty(1, 1, 1))
        weight = torch.baddbmm(nothing, v.mT, x, beta=0, alpha=gain)
        return in_order(self.layer, weight, None if self._bias is None else v.sum(1).mul_(gain))


class StackedConv2dPoint(LayerPoint):
    """`nn.Conv2d` of several networks, one after the other: one grouped convolution takes up to three times as long."""

    layer: Stacked

    def __init__(self, layer: Stacked) -> None:
        super().__init__(layer)
        weights, biases = layer.get_parameter("weight"), layer._parameters.get("bias")
        assert isinstance(layer.member, nn.Conv2d)
        self._points = [
            Conv2dPoint(layer.member, weight.detach(), None if biases is None else biases[place].detach())
            for place, weight in enumerate(weights)
        ]

    def forward(self, x: Tensor, /) -> Tensor:
        return self._each(lambda point, x: point.forward(x), x)

    def feedback(self, v: Tensor) -> Tensor:
        return self._each(lambda point, v: point.feedback(v), v)

    def feedback_through(self, v: Tensor, weights: Tensor) -> Tensor:
        own = iter(weights)
        return self._each(lambda point, v: point.feedback_through(v, next(own)), v)

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        parts = zip(self._points, x.chunk(len(self._points)), v.chunk(len(self._points)), strict=True)
        return tuple(torch.stack(each) for each in zip(*(p.gradient(*part) for p, *part in parts), strict=True))

    def _each(self, function: Callable[[Conv2dPoint, Tensor], Tensor], x: Tensor) -> Tensor:
        return torch.cat([function(*each) for each in zip(self._points, x.chunk(len(self._points)), strict=True)])
