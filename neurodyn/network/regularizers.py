"""Regularizers: what plasticity adds to a stage's update for the sake of its weights alone, whatever the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neurodyn.checks import positive
from neurodyn.layers.kernels import linear


class Regularizer(ABC):
    """A penalty on the weights of a stage. Subclass it for one of one's own, which defines `penalty`.

    Its gradient enters once an update, whatever the batch; biases have none.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> class Decay(nd.Regularizer):
    ...     def penalty(self, weights):
    ...         return 0.005 * weights.square().sum()
    >>> net = nd.models.activation_relaxation.network(nd.mlp([3, 2])).regularized(Decay())
    >>> type(net.plasticity[0].regularizer).__name__
    'Decay'
    """

    @abstractmethod
    def penalty(self, weights: Tensor) -> Tensor:
        """Return the penalty of weights of two or more axes, the first one that of the outputs, as a scalar."""

    def gradient(self, weights: Tensor) -> Tensor:
        """Return the gradient of the penalty, shaped like the weights, which are to be read, and not written into.

        By default it is found by automatic differentiation; a formula, such as that of `Orthogonality`, may be faster.
        """
        with torch.enable_grad():
            own = weights.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.penalty(own), own)
        return gradient


@dataclass(frozen=True)
class Orthogonality(Regularizer):
    """λ ‖(W Wᵀ) ⊙ (J − I)‖², with J all ones: it makes the rows of W orthogonal, of any length.

    A convolution's W is its kernel with a row for each output channel.

    Parameters
    ----------
    strength
        λ > 0.

    Raises
    ------
    TypeError, ValueError
        If λ is not positive.

    Notes
    -----
    The paper speaks of rows, as here. The authors' code stores Wᵀ and applies the same formula to it, that is, to the
    columns of W.

    References
    ----------
    Ahmad et al., "GAIT-prop" (2020), eq. 23.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> bool(torch.allclose(nd.Orthogonality(0.1).gradient(torch.eye(3)), torch.zeros(3, 3)))
    True
    """

    strength: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", positive("strength of Orthogonality", self.strength))

    def penalty(self, weights: Tensor) -> Tensor:
        return self.strength * self._overlaps(weights).square().sum()

    def gradient(self, weights: Tensor) -> Tensor:
        overlaps = self._overlaps(weights)
        return linear(overlaps, weights.flatten(1).t()).mul_(4.0 * self.strength).view_as(weights)

    def _overlaps(self, weights: Tensor) -> Tensor:
        """Return the inner products of different rows, (W Wᵀ) ⊙ (J − I)."""
        rows = weights.flatten(1)
        products = linear(rows, rows)
        return products - products.diagonal().diag_embed()
