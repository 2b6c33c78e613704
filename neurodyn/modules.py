"""Ready-made feedforward modules: plain `torch.nn` ones, with reproducible weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn.checks import whole

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "softplus": nn.Softplus,
    "linear": nn.Identity,
}
"""By name; the slope 0.1 of the leaky ReLU is that of GAIT-prop."""

Weights = Literal["default", "xavier", "orthogonal"]
_DRAWS: dict[str, Callable[..., Tensor]] = {"xavier": nn.init.xavier_normal_, "orthogonal": nn.init.orthogonal_}


class FirstUnits(nn.Module):
    """The first n units of a layer: y = x_{1…n}. The others are auxiliary, without synapses onto the next layer.

    An inverse leaves the auxiliary units at their value of the forward pass.

    Parameters
    ----------
    units
        n.

    Raises
    ------
    TypeError, ValueError
        If n is no integer ≥ 1.

    References
    ----------
    Ahmad et al., "GAIT-prop" (2020), §7, "Auxiliary units and information loss".
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        whole("units of FirstUnits", units, least=1)
        self.out_features = units

    def forward(self, x: Tensor) -> Tensor:
        """Return the first n units of `x`, shape (…, units)."""
        if x.shape[-1] < self.out_features:
            raise ValueError(f"{self} reads a layer of at least as many units, and this one has {x.shape[-1]}")
        return x[..., : self.out_features]

    def extra_repr(self) -> str:
        return str(self.out_features)


def mlp(
    sizes: Sequence[int],
    *,
    activation: str = "tanh",
    weights: Weights = "default",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Build a multilayer perceptron x_l = f(W_l x_{l−1} + b_l), with a linear output layer.

    Parameters
    ----------
    sizes
        The number of units of each layer, the input first.
    activation
        f: "tanh", "relu", "sigmoid", "leaky_relu" (slope 0.1), "softplus" or "linear".
    weights
        "default": PyTorch's; "xavier" or "orthogonal": as `initialize` draws them.
    seed
        Of the weights; the global random state is left as it was.
    device, dtype
        Of the weights; PyTorch's defaults if None.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    ValueError
        If there are fewer than two sizes, one is not positive, or the activation or the weights are unknown.
    """
    check_sizes("mlp", sizes, activation)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    module = nn.Sequential(*layers[:-1]).to(device, dtype)
    if weights != "default":
        initialize(module, weights, seed=seed)
    return module


def check_sizes(what: str, sizes: Sequence[int], activation: str) -> None:
    """Refuse sizes that are not at least two positive numbers of units, and an unknown activation.

    Raises
    ------
    ValueError
        If they are not.
    """
    if len(sizes) < 2 or any(not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"sizes of {what}: at least two positive numbers of units, not {list(sizes)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation of {what}: one of {', '.join(ACTIVATIONS)}, not {activation!r}")


@torch.no_grad()
def initialize(module: nn.Module, weights: Literal["xavier", "orthogonal"], *, seed: int = 0) -> None:
    """Draw the weights W of every Linear in a module anew, and set its biases to 0.

    The same seed gives the same weights in every dtype, up to its rounding; the global random state is left as it was.

    Parameters
    ----------
    module
        The module; it is changed in place.
    weights
        "xavier": from N(0, 2 / (n_in + n_out)). "orthogonal": orthonormal rows (or columns, where there are fewer),
        uniformly distributed.
    seed
        Of the draw.

    Raises
    ------
    ValueError
        If the weights are unknown.
    """
    if weights not in _DRAWS:
        raise ValueError(f"weights: 'default', {', '.join(map(repr, _DRAWS))}, not {weights!r}")
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            weight = torch.empty(layer.weight.shape, dtype=torch.float64)
            _DRAWS[weights](weight, generator=generator)
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.zero_()
