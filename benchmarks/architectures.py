"""Modules beyond perceptrons: a residual network, a transformer, and convolutions with max pooling."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_CHANNELS = (32, 32, 32, 64, 64, 128, 128, 256, 256)
_GROUPS = 8


class _Block(nn.Module):
    """Two convolutions beside a way around them; it halves the image where it doubles the channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.last = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(_GROUPS, outputs) for _ in range(2)])
        self.around = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.around(x) + self.norms[1](self.last(inner)))


def resnet() -> nn.Sequential:
    """Return a residual network of 8 blocks, 2.8 M parameters, for images of 3 × 32 × 32."""
    torch.manual_seed(0)
    blocks = [_Block(*channels) for channels in pairwise(_CHANNELS)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_CHANNELS[-1], 10)]
    return nn.Sequential(nn.Conv2d(3, _CHANNELS[0], 3, padding=1), nn.ReLU(), *blocks, *head)


class _Layer(nn.Module):
    """Attention, and a perceptron of four times the units, each normalised before and added."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(units) for _ in range(2)])
        self.read, self.attended = nn.Linear(units, 3 * units), nn.Linear(units, units)
        self.wide, self.narrow = nn.Linear(units, 4 * units), nn.Linear(4 * units, units)

    def forward(self, x: Tensor) -> Tensor:
        samples, tokens, units = x.shape
        read = self.read(self.norms[0](x)).view(samples, tokens, 3, self.heads, -1)
        query, key, value = read.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, -1)
        x = x + self.attended((weights @ value).transpose(1, 2).reshape(samples, tokens, units))
        added: Tensor = x + self.narrow(functional.gelu(self.wide(self.norms[1](x))))
        return added


def transformer(units: int = 128, heads: int = 4, layers: int = 6, features: int = 64) -> nn.Sequential:
    """Return a transformer of 6 layers, 1.2 M parameters, for tokens of 64 features."""
    torch.manual_seed(0)
    inner = [_Layer(units, heads) for _ in range(layers)]
    return nn.Sequential(nn.Linear(features, units), *inner, nn.LayerNorm(units), nn.Linear(units, features))


def vgg() -> nn.Sequential:
    """Return three convolutions, each with ReLU and max pooling, for images of 3 × 32 × 32."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, 16, 32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 10))
