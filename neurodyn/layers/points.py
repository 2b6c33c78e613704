"""What one layer of a feedforward module contributes to a stage: value, feedback, parameter gradient.

Linear, Conv2d and the common activations have hand-written paths; every other layer goes through `torch.autograd`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from neurodyn.errors import InvalidTypeError
from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.computation import Computation
from neurodyn.layers.kernels import add_linear, linear, max_pool2d, scaled_linear
from neurodyn.layers.modules import FirstUnits
from neurodyn.layers.sparse import SparseLinear

_ROUNDED = 1.01
"""What makes a bound on a norm one in spite of the rounding of its sums."""


class LayerPoint(ABC):
    """One layer at an operating point, which `forward` sets and `feedback` and `gradient` refer to."""

    feedback_needs_forward = True
    """Whether `feedback` depends on the operating point, and so needs `forward` to have run there."""
    gradient_needs_forward = False
    """Whether `gradient` needs `forward` to have run at the operating point."""
    takes_rows = False
    """Whether `feedback` and `feedback_through` take several v side by side, shape (row, sample, …), as well."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    @abstractmethod
    def forward(self, x: Tensor, /) -> Tensor:
        """Return the layer's value at `x`, shape (sample, …), and make `x` the operating point."""

    @abstractmethod
    def feedback(self, v: Tensor) -> Tensor:
        """Return Jᵀ v, with v shaped like the layer's value and J its Jacobian at the operating point.

        It is v itself, or a view of it, where J does no more than that.
        """

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """Return Σ_sample (∂value/∂θ)ᵀ v at input `x` for each parameter θ of the layer, in its own order.

        There are none, as here, where the layer has no parameters.
        """
        return ()

    def scaled_gradient(self, x: Tensor, v: Tensor, gain: float) -> tuple[Tensor, ...]:
        """Return gain times the `gradient`."""
        return self.gradient(x, v * gain)

    def add_feedback(self, v: Tensor, out: Tensor, gain: float) -> None:
        """Add gain · Jᵀ v to `out`."""
        out.add_(self.feedback(v), alpha=gain)

    def feedback_norm(self, weights: Tensor | None, rows: int) -> float | Tensor | None:
        """Return a bound on ‖Jᵀ v‖₂ / ‖v‖₂ of a sample, at any operating point; None, as here, where none is known.

        Parameters
        ----------
        weights
            Feedback weights ψ in place of the transposed ones; None for these.
        rows
            How many samples the product with v has: the bound takes no longer than that many samples do.
        """
        return None

    def feedback_to(self, argument: int, v: Tensor) -> Tensor:
        """Return Jᵀ v, with J the Jacobian by one of several values that the layer reads, counted from 0."""
        raise InvalidTypeError(f"{type(self.layer).__name__} reads one value, and has no argument {argument}")

    def feedback_through(self, v: Tensor, weights: Tensor) -> Tensor:
        """Return what feedback weights ψ, in place of the transposed ones, make of v."""
        raise InvalidTypeError(f"{type(self.layer).__name__} has no feedback weights; Linear and Conv2d have")


class LinearPoint(LayerPoint):
    """`nn.Linear`: y = W x + b."""

    feedback_needs_forward = False
    takes_rows = True

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        weight, bias = layer.weight, layer.bias
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self._transposed = self.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            return functional.linear(x, self.weight, self.bias)
        return linear(x, self.weight, self.bias)

    def feedback(self, v: Tensor) -> Tensor:
        return linear(v, self._transposed) if v.ndim == 2 else v @ self.weight

    def add_feedback(self, v: Tensor, out: Tensor, gain: float) -> None:
        if v.ndim != 2:
            super().add_feedback(v, out, gain)
        else:
            add_linear(v, self._transposed, out, gain)

    def feedback_through(self, v: Tensor, weights: Tensor) -> Tensor:
        return linear(v, weights) if v.ndim == 2 else v @ weights.t()

    def feedback_norm(self, weights: Tensor | None, rows: int) -> Tensor:
        return spectral_bound(self.weight if weights is None else weights, rows)

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        x, v = x.flatten(0, -2), v.flatten(0, -2)
        weight = linear(v.t(), x.t())
        return in_order(self.layer, weight, None if self.bias is None else v.sum(0))

    def scaled_gradient(self, x: Tensor, v: Tensor, gain: float) -> tuple[Tensor, ...]:
        if not has_room(v):
            return super().scaled_gradient(x, v, gain)
        x, v = x.flatten(0, -2), v.flatten(0, -2)
        weight = scaled_linear(v.t(), x.t(), gain)
        return in_order(self.layer, weight, None if self.bias is None else v.sum(0).mul_(gain))


class SparseLinearPoint(LayerPoint):
    """`SparseLinear`: y = W x + b, by sparse products with W and Wᵀ."""

    feedback_needs_forward = False
    takes_rows = True
    layer: SparseLinear

    def __init__(self, layer: SparseLinear) -> None:
        super().__init__(layer)
        self._weight = layer.weight
        self._transposed: Tensor | None = None
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        self._transposed = None  # a run may have begun, with other weights
        y = self._product(self._weight, x)
        return y if self._bias is None else y.add_(self._bias)

    def feedback(self, v: Tensor) -> Tensor:
        if self._transposed is None:
            self._transposed = self.layer.transposed()
        return self._product(self._transposed, v)

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        x, v = x.flatten(0, -2), v.flatten(0, -2)
        values = self.layer.pattern.correlation(v, x)
        return in_order(self.layer, values, None if self._bias is None else v.sum(0))

    @staticmethod
    def _product(matrix: Tensor, x: Tensor) -> Tensor:
        return (matrix @ x.flatten(0, -2).t()).t().view(*x.shape[:-1], len(matrix))


class Conv2dPoint(LayerPoint):
    """`nn.Conv2d` with zero padding given in numbers."""

    layer: nn.Conv2d

    def __init__(self, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(layer)
        self.weight, self.bias = weight, bias
        assert not isinstance(layer.padding, str), "layer_point gives a padding in words to AutogradPoint"
        self._geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self._input_shape: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self._input_shape = tuple(x.shape)
        return functional.conv2d(x, self.weight, self.bias, *self._geometry)

    def feedback(self, v: Tensor) -> Tensor:
        return self.feedback_through(v, self.weight)

    def feedback_through(self, v: Tensor, weights: Tensor) -> Tensor:
        result: Tensor = conv2d_input(self._input_shape, weights, v, *self._geometry)  # type: ignore[no-untyped-call]
        return result

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        weight = conv2d_weight(x, tuple(self.weight.shape), v, *self._geometry)  # type: ignore[no-untyped-call]
        return in_order(self.layer, weight, None if self.bias is None else v.sum((0, 2, 3)))


class ActivationPoint(LayerPoint):
    """An activation with a known derivative, whose value is kept in one buffer as the operating point moves.

    A new one for each batch takes up to a tenth more of a convolutional network's time, for the pages of memory.
    """

    takes_rows = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self._activation = next(ACTIVATIONS[kind] for kind in type(layer).__mro__ if kind in ACTIVATIONS)
        self._x: Tensor | None = None
        self._y: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        self._y = self._activation.value(self.layer, x, self._y)
        return self._y

    def feedback(self, v: Tensor) -> Tensor:
        assert self._x is not None, "StagePoint runs forward before feedback"
        assert self._y is not None
        return self._activation.feedback(self.layer, self._x, self._y, v)

    def feedback_norm(self, weights: Tensor | None, rows: int) -> float:
        return self._activation.steepest(self.layer)


class MaxPool2dPoint(LayerPoint):
    """`nn.MaxPool2d`: the feedback reaches the largest of each window."""

    layer: nn.MaxPool2d

    def __init__(self, layer: nn.MaxPool2d) -> None:
        super().__init__(layer)
        self._window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        y, self._places = max_pool2d(x, *self._window)
        return y

    def feedback(self, v: Tensor) -> Tensor:
        window = [(each, each) if isinstance(each, int) else each for each in self._window[:-1]]
        back: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            v, self._x, *window, self._window[-1], self._places
        )
        return back


class FlattenPoint(LayerPoint):
    """`nn.Flatten` and `nn.Unflatten`: the feedback takes its shape from the operating point."""

    def forward(self, x: Tensor) -> Tensor:
        self._shape = x.shape
        y: Tensor = self.layer(x)
        return y

    def feedback(self, v: Tensor) -> Tensor:
        return v.reshape(self._shape)


class FirstUnitsPoint(LayerPoint):
    """`FirstUnits`: the feedback reaches the units read, and no others."""

    layer: FirstUnits

    def forward(self, x: Tensor) -> Tensor:
        self._shape = x.shape
        y: Tensor = self.layer(x)
        return y

    def feedback(self, v: Tensor) -> Tensor:
        out = v.new_zeros(self._shape)
        self.add_feedback(v, out, 1.0)
        return out

    def add_feedback(self, v: Tensor, out: Tensor, gain: float) -> None:
        out[..., : self.layer.out_features].add_(v, alpha=gain)


class AutogradPoint(LayerPoint):
    """Any other differentiable layer, through `torch.autograd`; it may read several values."""

    gradient_needs_forward = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self._parameters = {name: p.detach().requires_grad_() for name, p in layer.named_parameters()}

    def forward(self, *x: Tensor) -> Tensor:
        with torch.enable_grad():
            self._x = [each.detach().requires_grad_(each.is_floating_point()) for each in x]
            # Copies, because a layer that works in place would overwrite the populations that it reads.
            in_place = not isinstance(self.layer, Computation)
            copies = tuple([each.clone() for each in self._x] if in_place else self._x)
            parameters = self._parameters
            value = torch.func.functional_call(self.layer, parameters, copies) if parameters else self.layer(*copies)
        if not isinstance(value, Tensor):
            raise InvalidTypeError(f"{type(self.layer).__name__} returns a {type(value).__name__}, not one tensor")
        self._value = value
        return value.detach()

    def feedback(self, v: Tensor) -> Tensor:
        return self.feedback_to(0, v)

    def feedback_to(self, argument: int, v: Tensor) -> Tensor:
        return self._pull_back(v, [self._x[argument]])[0]

    def gradient(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        gradients = self._pull_back(v, list(self._parameters.values()))
        # Of a parameter that is only added, autograd returns v itself, and of two such parameters the same tensor.
        places = [each.untyped_storage().data_ptr() for each in (v, *gradients)]
        return tuple(
            gradient.clone() if place in places[:number] else gradient
            for number, (gradient, place) in enumerate(zip(gradients, places[1:], strict=True), start=1)
        )

    def _pull_back(self, v: Tensor, onto: list[Tensor]) -> tuple[Tensor, ...]:
        if not (onto and self._value.requires_grad):  # a constant has no graph
            return tuple(torch.zeros_like(each) for each in onto)
        if v.storage_offset() % 2:  # a population's block may begin so, where no complex number can
            v = v.clone()
        return torch.autograd.grad(self._value, onto, v, retain_graph=True, materialize_grads=True)


def has_room(v: Tensor) -> bool:
    """Tell whether sums over a batch, scaled afterwards, are within the range of the dtype: not of one of 16 bits."""
    return v.element_size() >= 4


def in_order(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """Return the gradients of W and b in the order of a layer's parameters.

    The bias comes first where the weights were made anew, as `torch.nn.utils.prune.remove` makes them.
    """
    if bias is None:
        return (weight,)
    return (bias, weight) if next(iter(layer._parameters)) == "bias" else (weight, bias)


def spectral_bound(weight: Tensor, rows: int) -> Tensor:
    """Return a bound on ‖W‖₂, by as many products as take no longer than W times some rows does.

    It is ‖W‖₂ ≤ ‖(W Wᵀ)²‖_F^(1/4), a sixth above ‖W‖₂ for random W of 64 × 64; or else ‖W‖₂ ≤ ‖W‖_F.
    """
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    matrix, power = weight, 1.0
    if 2 * min(weight.shape) <= rows:
        matrix, power = weight @ weight.mT if len(weight) < weight.shape[1] else weight.mT @ weight, 0.25
        matrix = matrix @ matrix
    norm: Tensor = torch.linalg.vector_norm(matrix).pow(power)
    return _ROUNDED * norm
