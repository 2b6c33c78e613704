"""Ready-made feedforward modules: plain `torch.nn` ones, with reproducible weights."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn.checks import listed, usable_device, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.activations import NAMED
from neurodyn.randomness import seeded

Weights = Literal["scaled", "default", "xavier", "orthogonal"]
_WEIGHTS = ("scaled", "default", "xavier", "orthogonal")


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

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> nd.FirstUnits(2)(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, 2.0]]
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.out_features = whole("units of FirstUnits", units, least=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the first n units of `x`, shape (…, units)."""
        if x.shape[-1] < self.out_features:
            raise InvalidValueError(f"{self} reads a layer of at least as many units, and this one has {x.shape[-1]}")
        return x[..., : self.out_features]

    def extra_repr(self) -> str:
        return str(self.out_features)


def mlp(
    sizes: Sequence[int],
    *,
    activation: str = "tanh",
    weights: Weights = "scaled",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Build a multilayer perceptron x_l = f(W_l x_{l−1} + b_l), with a linear output layer.

    With the "scaled" weights, an untrained network predicts almost nothing. What the output layer then learns first is
    the targets, and not to cancel its own random output, from which learned feedback weights would learn a way back
    that opposes the way forth.

    Parameters
    ----------
    sizes
        The number of units of each layer, the input first.
    activation
        f: "tanh", "relu", "sigmoid", "leaky_relu" (slope 0.1), "softplus" or "linear".
    weights
        "scaled", "default", which is PyTorch's, "xavier" or "orthogonal": as `initialize` draws them.
    seed
        Of the weights; the global random state is left as it was.
    device, dtype
        Of the weights; PyTorch's defaults if None.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two sizes, one is no positive integer, the activation or the weights are unknown, the
        seed is no integer ≥ 0, the device is not there, or the dtype is not floating-point.

    Examples
    --------
    >>> import neurodyn as nd
    >>> nd.mlp([4, 3, 2], activation="relu")
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    sizes = check_sizes("mlp", sizes, activation)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [empty_linear(before, after, device, dtype), NAMED[activation]()]
    module = nn.Sequential(*layers[:-1])
    initialize(module, weights, seed=seed)
    return module


def empty_linear(inputs: int, outputs: int, device: torch.device | str | None, dtype: torch.dtype | None) -> nn.Linear:
    """Return a Linear whose weights are still to be drawn.

    Raises
    ------
    TypeError, ValueError
        If the device is not there, or the dtype is not floating-point.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InvalidTypeError(f"dtype of the weights must be floating-point, such as torch.float64, not {dtype!r}")
    device = torch.get_default_device() if device is None else usable_device("device of the weights", device)
    return nn.Linear(inputs, outputs, device="meta", dtype=dtype).to_empty(device=device)


def check_sizes(what: str, sizes: Sequence[int], activation: str) -> list[int]:
    """Return sizes as Python's integers; refuse fewer than two, one that is not positive, and an unknown activation."""
    if isinstance(sizes, AbstractSet):
        raise InvalidTypeError(f"sizes of {what} must be a list, as a set has no order: {sizes!r}")
    counts = listed(f"sizes of {what}", sizes)
    if len(counts) < 2 or any(not isinstance(n, Integral) or isinstance(n, bool) or n < 1 for n in counts):
        raise InvalidValueError(f"sizes of {what}: at least two positive numbers of units, not {list(counts)}")
    if not isinstance(activation, str) or activation not in NAMED:
        raise InvalidValueError(f"activation of {what}: one of {', '.join(NAMED)}, not {activation!r}")
    return [int(n) for n in counts]


@torch.no_grad()
def initialize(module: nn.Module, weights: Weights = "scaled", *, seed: int = 0) -> None:
    """Draw the weights W and biases b of every Linear in a module anew.

    The same seed gives the same weights in every dtype, up to its rounding; the global random state is left as it was.

    Parameters
    ----------
    module
        The module; it is changed in place.
    weights
        "scaled": W from N(0, 1 / n_in); of the last layer of the module from N(0, 1 / n_in²), unless an activation
        follows; b = 0. "default": PyTorch's. "xavier": W from N(0, 2 / (n_in + n_out)), b = 0. "orthogonal": W with
        orthonormal rows (or columns, where there are fewer), uniformly distributed, b = 0.
    seed
        Of the draw.

    Raises
    ------
    TypeError, ValueError
        If there is no module, the weights are unknown, or the seed is no integer ≥ 0.

    References
    ----------
    "scaled": Y. LeCun et al., "Efficient BackProp" (1998), §4.6; and for the last layer G. Yang and E. J. Hu, "Feature
    learning in infinite-width neural networks" (2021), as "maximal update".
    """
    if not isinstance(weights, str) or weights not in _WEIGHTS:
        raise InvalidValueError(f"weights: one of {', '.join(map(repr, _WEIGHTS))}, not {weights!r}")
    if not isinstance(module, nn.Module):
        raise InvalidTypeError(f"module: weights are drawn for an nn.Module, not a {type(module).__name__}")
    seed = whole("seed of the weights", seed, least=0)
    layers = [layer for layer in module.modules() if not list(layer.children())]
    with seeded(seed):
        for layer in layers:
            if not isinstance(layer, nn.Linear):
                continue
            parameters = dict(layer.named_parameters())
            # On the CPU, whose generator is seeded, whatever the default device is.
            drawn = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="cpu")
            if missing := {name for name, _ in drawn.named_parameters()} - set(parameters):
                raise InvalidValueError(
                    f"module: {layer} makes its {' and '.join(sorted(missing))} of other parameters, as one that is "
                    "pruned does; draw its weights before"
                )
            if weights != "default":
                drawn.double()  # so that orthogonal weights are so in every dtype
                if weights == "orthogonal":
                    nn.init.orthogonal_(drawn.weight)
                elif weights == "xavier":
                    nn.init.xavier_normal_(drawn.weight)
                else:
                    nn.init.normal_(drawn.weight, 0.0, layer.in_features ** (-1.0 if layer is layers[-1] else -0.5))
                if drawn.bias is not None:
                    drawn.bias.zero_()
            for name, values in drawn.named_parameters():
                parameters[name].copy_(values)
