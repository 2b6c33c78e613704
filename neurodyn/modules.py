"""Ready-made feedforward modules: plain `torch.nn` ones, with reproducible weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "linear": nn.Identity,
}


def mlp(
    sizes: Sequence[int],
    *,
    activation: str = "tanh",
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
        f: "tanh", "relu", "sigmoid", "leaky_relu", "softplus" or "linear".
    seed
        Of the weights, which are PyTorch's default; the global random state is left as it was.
    device, dtype
        Of the weights; PyTorch's defaults if None.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    ValueError
        If there are fewer than two sizes, one is not positive, or the activation is unknown.
    """
    if len(sizes) < 2 or any(not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"sizes of mlp: at least two positive numbers of units, not {list(sizes)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation of mlp: one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1]).to(device, dtype)
