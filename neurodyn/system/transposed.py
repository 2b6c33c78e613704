"""Products with transposed Jacobians, through which gradients go, in a checkpoint too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Function = Callable[..., Tensor]
"""A function of x and weights."""

Product = Callable[[Function, Tensor, Sequence[Tensor], Tensor], Tensor]
"""Either of the following."""


def transposed(function: Function, x: Tensor, weights: Sequence[Tensor], v: Tensor) -> Tensor:
    """Return Jᵀ v, J = ∂f(x, weights)/∂x, with its graph.

    Parameters
    ----------
    function
        f.
    x, weights
        Where; gradients go to both.
    v
        Shaped like f(x, weights).
    """
    product: Tensor = torch.func.vjp(lambda at: function(at, *weights), x)[1](v)[0]
    return product


def transposed_anew(function: Function, x: Tensor, weights: Sequence[Tensor], v: Tensor) -> Tensor:
    """Return the same, to be worked out anew on the way back, as within a checkpoint, which `torch.func` refuses."""
    product: Tensor = _Transposed.apply(function, v, x, *weights)  # type: ignore[no-untyped-call]
    return product


class _Transposed(torch.autograd.Function):
    """The product, of which nothing but its arguments is kept: the graph of f would be that of a step kept for good."""

    @staticmethod
    def forward(ctx: Any, function: Function, *given: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*given)
        with saved_tensors_hooks(_same, _same):  # a checkpoint would begin anew for what is used at once
            return _product(function, *given, graph=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()  # to be differentiated once more
        with torch.enable_grad():
            own = [
                each.view_as(each) if again and each.requires_grad else each.detach().requires_grad_()
                for each in ctx.saved_tensors
            ]
            product = _product(ctx.function, *own, graph=True)
            found = torch.autograd.grad(product, own, gradient, create_graph=again, allow_unused=True)
        return None, *found


def _product(function: Function, v: Tensor, x: Tensor, *weights: Tensor, graph: bool) -> Tensor:
    vjp = torch.autograd.functional.vjp
    product: Tensor = vjp(lambda at: function(at, *weights), x, v, create_graph=graph)[1]  # type: ignore[no-untyped-call]
    return product


def _same(tensor: Tensor) -> Tensor:
    return tensor
