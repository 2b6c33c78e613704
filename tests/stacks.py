"""Stacks of layers that tests of stages share."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune


class Residual(nn.Module):
    """A residual block that works in place on what it is given."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(units, units), nn.Tanh(), nn.Linear(units, units))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Overwriting(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.weight).tanh_()


class Tied(nn.Module):
    """One weight in two places."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.first = nn.Linear(units, units)
        self.second = nn.Linear(units, units, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.sin(self.first(x)))


class SequentialWithSkip(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class SquaredLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


def pruned() -> nn.Module:
    layer = nn.Linear(6, 6)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def with_a_hook() -> nn.Module:
    layer = nn.Linear(6, 4)
    layer.register_forward_hook(lambda _, inputs, output: 3 * output)
    return layer


VECTOR_LAYERS = {
    "linear": lambda: [nn.Linear(6, 4)],
    "no bias": lambda: [nn.Linear(6, 4, bias=False)],
    "linear, tanh": lambda: [nn.Linear(6, 4), nn.Tanh()],
    "tanh, linear": lambda: [nn.Tanh(), nn.Linear(6, 4)],
    "two linears": lambda: [nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 6)],
    "sigmoid alone": lambda: [nn.Sigmoid()],
    "identity": lambda: [nn.Identity()],
    "relu in place": lambda: [nn.ReLU(inplace=True)],
    "leaky relu": lambda: [nn.Linear(6, 6), nn.LeakyReLU(0.1, inplace=True)],
    "softplus": lambda: [nn.Softplus(beta=2.0, threshold=1.0), nn.Linear(6, 6)],
    "gelu": lambda: [nn.GELU(), nn.Linear(6, 6)],
    "prelu": lambda: [nn.Linear(6, 6), nn.PReLU(6)],
    "glu": lambda: [nn.Linear(6, 6), nn.GLU()],
    "softmax": lambda: [nn.Linear(6, 6), nn.Softmax(1)],
    "layer norm": lambda: [nn.LayerNorm(6), nn.Linear(6, 2)],
    "batch norm": lambda: [nn.BatchNorm1d(6).eval(), nn.Linear(6, 2)],
    "dropout": lambda: [nn.Dropout(0.5).eval(), nn.Linear(6, 2)],
    "dropout of nothing": lambda: [nn.Dropout(0.0), nn.Linear(6, 2)],
    "residual": lambda: [Residual(6), nn.Linear(6, 2)],
    "residual last": lambda: [nn.Linear(6, 6), Residual(6)],
    "overwriting": lambda: [Overwriting(6)],
    "tied": lambda: [Tied(6)],
    "skip": lambda: [SequentialWithSkip(nn.Linear(6, 6), nn.Tanh())],
    "nested": lambda: [nn.Sequential(nn.Sequential(nn.Linear(6, 5)), nn.Tanh()), nn.Sequential(), nn.Linear(5, 3)],
    "subclass": lambda: [SquaredLinear(6, 3)],
    "weight norm": lambda: [parametrizations.weight_norm(nn.Linear(6, 3))],
    "orthogonal": lambda: [parametrizations.orthogonal(nn.Linear(6, 6)), nn.Tanh()],
    "pruned": lambda: [pruned(), nn.Tanh()],
    "hook": lambda: [with_a_hook()],
    "unflatten": lambda: [nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.Tanh(), nn.Flatten()],
    "bilinear form of a sequence": lambda: [nn.Unflatten(1, (2, 3)), nn.Linear(3, 4)],
}
IMAGE_LAYERS = {
    "conv": lambda: [nn.Conv2d(4, 3, 3)],
    "no bias": lambda: [nn.Conv2d(4, 3, 3, bias=False), nn.Tanh()],
    "strides": lambda: [nn.Conv2d(4, 3, 3, stride=2, padding=1), nn.ReLU(inplace=True)],
    "uneven": lambda: [nn.Conv2d(4, 2, (3, 2), stride=(3, 1), padding=(0, 1))],
    "same": lambda: [nn.Conv2d(4, 3, 3, padding="same"), nn.Tanh()],
    "valid": lambda: [nn.Conv2d(4, 3, 3, padding="valid")],
    "circular": lambda: [nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular")],
    "groups": lambda: [nn.Conv2d(4, 8, 3, groups=2)],
    "depthwise": lambda: [nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.Tanh()],
    "dilation": lambda: [nn.Conv2d(4, 3, 2, dilation=3)],
    "transposed": lambda: [nn.ConvTranspose2d(4, 3, 2, stride=2)],
    "max pool": lambda: [nn.Conv2d(4, 3, 3), nn.Tanh(), nn.MaxPool2d(2)],
    "max pool of many channels": lambda: [
        nn.Conv2d(4, 9, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d((3, 2), stride=2, padding=1, dilation=(1, 2), ceil_mode=True),
    ],
    "average pool": lambda: [nn.AvgPool2d(2), nn.Conv2d(4, 3, 2)],
    "adaptive pool": lambda: [nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)],
    "flatten first": lambda: [nn.Flatten(), nn.Linear(4 * 7 * 6, 5)],
    "group norm": lambda: [nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3)],
    "batch norm": lambda: [nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3).eval(), nn.ReLU()],
    "channel prelu": lambda: [nn.Conv2d(4, 3, 3), nn.PReLU(3)],
}
CASES = [
    *(pytest.param(layers, (6,), id=f"vector: {name}") for name, layers in VECTOR_LAYERS.items()),
    *(pytest.param(layers, (4, 7, 6), id=f"image: {name}") for name, layers in IMAGE_LAYERS.items()),
]


def build(layers, dtype: torch.dtype = torch.float64) -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [layer.to(dtype) for layer in layers()]


def run(layers: list[nn.Module], x: Tensor) -> Tensor:
    """Apply layers to a copy of x, with a graph."""
    y = x.clone()
    for layer in layers:
        y = layer(y)
    return y
