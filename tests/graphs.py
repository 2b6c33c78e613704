"""Modules whose computation graphs are no chains, with data; what the tests of their capture and relaxation share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodyn.layers.capture import capture
from neurodyn.layers.operations import Operation
from tests.problems import tensor


class Residual(nn.Module):
    """A residual block with batch normalisation, activations in place, pooling and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 3, 3, padding=1)
        self.readout = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.norm(self.conv1(x)), 0.1, inplace=True)
        x = x + self.conv2(h)
        x.tanh_()
        return self.readout(F.adaptive_avg_pool2d(x, 2).flatten(1))


class Attention(nn.Module):
    """Attention written by hand, with a mask, a residual and a normalisation before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.out = nn.Linear(6, 6)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), x.shape[1], 2, 3).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (self.heads(layer(h)) for layer in (self.query, self.key, self.value))
        scores = q @ k.mT / 3**0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


class Language(nn.Module):
    """Embedded words and positions, fused attention, and a readout by the words' own embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 6), nn.Embedding(4, 6)
        self.norm, self.qkv = nn.LayerNorm(6), nn.Linear(6, 18)
        self.dropout = nn.Dropout(0.2)

    def forward(self, index: Tensor) -> Tensor:
        samples, length = index.shape
        x = self.words(index) + self.places(torch.arange(length))
        q, k, v = self.qkv(self.norm(x)).view(samples, length, 3, 2, 3).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return (x + self.dropout(mixed)) @ self.words.weight.T


class Recurrent(nn.Module):
    """An LSTM cell unrolled in time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.readout = nn.LSTMCell(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for time in range(x.shape[1]):
            state = self.cell(x[:, time], state)
        assert state is not None
        return self.readout(state[0])


class Layered(nn.Module):
    """Recurrent layers of PyTorch's, read at every time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(3, 4, num_layers=2, batch_first=True)
        self.readout = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.layer(x)[0])


class Shared(nn.Module):
    """Values and weights that are used more than once, a scale for each sample, and a part without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.Linear(6, 6), nn.Linear(12, 3)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x).tanh()
        b = self.layer(a) * a + self.frozen(a).detach()
        c = b * b / b.norm(dim=1)[:, None]
        return self.readout(torch.cat([c, a, c], 1)[:, 3:15])


@dataclass(frozen=True)
class Case:
    """A module in double precision and in evaluation mode, with data."""

    module: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def operations(self) -> tuple[Operation, ...]:
        return capture(self.module, self.inputs)

    def loss(self) -> Tensor:
        """Return the batch mean of ½‖y − t‖²."""
        return 0.5 * (self.module(self.inputs) - self.targets).square().sum() / len(self.inputs)

    def gradients(self) -> list[Tensor]:
        """Return what `torch.autograd` gives for each parameter that requires a gradient."""
        learning = [p for p in self.module.parameters() if p.requires_grad]
        return list(torch.autograd.grad(self.loss(), learning))


def words(samples: int) -> Tensor:
    return torch.randint(11, (samples, 4), generator=torch.Generator().manual_seed(0))


_MODULES: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "residual block": (Residual, lambda: tensor(4, 3, 6, 6)),
    "attention": (Attention, lambda: tensor(4, 5, 6)),
    "language model": (Language, lambda: words(4)),
    "LSTM cells": (Recurrent, lambda: tensor(4, 3, 3)),
    "recurrent layers": (Layered, lambda: tensor(4, 2, 3)),
    "transformer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), lambda: tensor(4, 5, 6)),
    "shared": (Shared, lambda: tensor(4, 6)),
}
NAMES = tuple(_MODULES)


def make(name: str) -> Case:
    build, draw = _MODULES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module, inputs = build().double().eval(), draw()
        output = module(inputs)  # lazy layers draw their weights here
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    return Case(module, inputs, tensor(*output.shape, seed=2))


@cache
def case(name: str) -> Case:
    """Return a case that is not to be changed."""
    return make(name)


@cache
def operations(name: str) -> tuple[Operation, ...]:
    """Return the captured graph of `case(name)`."""
    return case(name).operations
