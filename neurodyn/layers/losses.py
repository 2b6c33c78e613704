"""Losses: what a network's output costs, one value per sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError

Loss = Callable[[Tensor, Tensor], Tensor]
"""A function of the outputs and the targets, both (sample, …), that returns one value per sample.

That of a sample depends on no other, the function writes into neither argument, and draws no random numbers.
"""


def check_loss(where: str, loss: Loss) -> None:
    """Refuse what is no loss.

    Raises
    ------
    TypeError
        If it is no function, such as the name of one.
    """
    if not callable(loss) or isinstance(loss, type):
        raise InvalidTypeError(
            f"{where}: loss is a function of the outputs and the targets that returns one value per sample, such as "
            f"lambda y, t: (y - t).square().sum(1), not {loss!r}"
        )


def squared_error(output: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of each sample, ½‖y − t‖².

    Parameters
    ----------
    output, targets
        y and t, shape (sample, …) both.

    Returns
    -------
    Tensor
        Shape (sample,).
    """
    return (output - targets).square_().flatten(1).sum(1).mul_(0.5)


def loss_gradient(loss: Loss, output: Tensor, targets: Tensor) -> Tensor:
    """Return ∂ℒ/∂y of each sample; with a graph where the gradient mode is on.

    Parameters
    ----------
    loss
        The loss, one value per sample.
    output, targets
        y and t, shape (sample, …).

    Returns
    -------
    Tensor
        Shaped like `output`.

    Raises
    ------
    ValueError
        If the loss does not return one value per sample, or has no derivative.
    """
    if loss is squared_error:
        return output - targets
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        y = output if output.requires_grad else output.detach().requires_grad_()
        losses = per_sample(loss, y, targets)
        check_differentiable(losses)
        (gradient,) = torch.autograd.grad(losses.sum(), y, create_graph=graph)
    return gradient


def per_sample(loss: Loss, output: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each sample, shape (sample,).

    Raises
    ------
    TypeError, ValueError
        If the loss returns anything else than one value per sample.
    """
    losses = loss(output, targets)
    check_per_sample(losses, len(output))
    return losses


def check_per_sample(losses: object, samples: int) -> None:
    """Refuse what a loss returns, unless it is one value per sample."""
    if not isinstance(losses, Tensor):
        raise InvalidTypeError(f"the loss must return a tensor of one value per sample, not {type(losses).__name__}")
    if losses.shape != (samples,):
        raise InvalidValueError(
            f"the loss must return one value per sample, shape ({samples},), and returned {tuple(losses.shape)}; "
            "with a torch loss, pass reduction='none' and sum over the units"
        )
    if losses.is_complex():
        raise InvalidTypeError(f"the loss must return real numbers, not {losses.dtype}; take it of a real output")


def check_differentiable(losses: Tensor) -> None:
    """Refuse what a loss returns where no graph leads back to the output."""
    if not losses.requires_grad:
        raise InvalidValueError(
            "the loss has no derivative by the output; let it be a differentiable torch function of that, without "
            "detach or NumPy"
        )
