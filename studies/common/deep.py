"""Networks of many layers: plain and residual perceptrons, and the scaling of μPC."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A layer of weights after the activation: gain · W f(x) + b, with x added to it if it is residual."""

    def __init__(self, inputs: int, outputs: int, gain: float, *, residual: bool, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.gain, self.residual = gain, residual

    def forward(self, x: Tensor) -> Tensor:
        change = self.gain * self.linear(x.tanh())
        return x + change if self.residual else change


def build(sizes: tuple[int, int, int], layers: int, kind: str, seed: int) -> nn.Sequential:
    """Return a perceptron of tanh units with PyTorch's own weights; residual blocks have a gain of 1/√L.

    Parameters
    ----------
    sizes
        Of input, hidden layers and output.
    layers, kind, seed
        L, plain or residual, and of the weights.
    """
    inputs, width, outputs = sizes
    residual = kind == "residual"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = [
            Block(width, width, layers**-0.5 if residual else 1.0, residual=residual, bias=True)
            for _ in range(layers - 2)
        ]
        return nn.Sequential(nn.Linear(inputs, width), *blocks, Block(width, outputs, 1.0, residual=False, bias=True))


def scaled(sizes: tuple[int, int, int], layers: int, name: str, seed: int) -> nn.Sequential:
    """Return the network of μPC, or a plain one, whose every layer has a gain of 1/√n; weights are from N(0, 1)."""
    inputs, width, outputs = sizes
    residual = name.startswith("μPC")
    gain = (width * layers) ** -0.5 if residual else width**-0.5
    blocks = [Block(width, width, gain, residual=residual, bias=False) for _ in range(layers - 2)]
    first = Block(inputs, width, inputs**-0.5, residual=False, bias=False)
    last = Block(width, outputs, 1 / width if residual else width**-0.5, residual=False, bias=False)
    module = nn.Sequential(first, *blocks, last)
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        nn.init.normal_(weight, generator=generator)
    return module
