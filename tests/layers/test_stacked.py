"""A stacked layer against its members side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurodyn.layers.choice import layer_point
from neurodyn.layers.inverses import StageInverse, forward_difference
from neurodyn.layers.stacked import Stacked, StackedTensors, of_samples

COUNT = 3


class Sum(nn.Module):
    """Reads two values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(5, 3, dtype=torch.float64) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) + self.second(y)


class Tied(nn.Module):
    """Uses one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5, dtype=torch.float64)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class Padded(nn.Module):
    """Reads embeddings, some of which are padding, in each of the ways to call one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 4, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        indices, weight = (2 * x.tanh()).round().abs().long(), self.embedding.weight
        others = torch.embedding(weight, indices, 2) + torch.ops.aten.embedding.default(weight, indices, 1)
        return self.embedding(indices) * x.unsqueeze(-1) + others.tanh() + functional.embedding(indices, weight, -3)


class Replacing(nn.Module):
    """Replaces one unit of several."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.select_scatter(x @ self.weight.t(), x[:, 1].sin(), 1, -2)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight


def parametrised(layer: nn.Module) -> nn.Module:
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


MEMBERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear of rows": (lambda: nn.Linear(5, 3), (2, 5)),
    "convolution": (lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2, stride=2), (2, 6, 5)),
    "convolution without bias": (lambda: nn.Conv2d(2, 4, (1, 2), bias=False), (2, 3, 4)),
    "two values": (Sum, (5,)),
    "several layers": (lambda: nn.Sequential(nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 3)), (5,)),
    "normalisation": (lambda: nn.BatchNorm1d(5).eval(), (5,)),
    "all samples": (lambda: nn.Softmax(0), (5,)),
    "tied": (Tied, (5,)),
    "padded embeddings": (Padded, (5,)),
    "one unit replaced": (Replacing, (5,)),
    "parametrised": (lambda: parametrised(nn.Linear(5, 3)), (5,)),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_stacked_layer_is_its_members_side_by_side(name: str) -> None:
    make, shape = MEMBERS[name]
    torch.manual_seed(0)
    members = [make().double() for _ in range(COUNT)]
    arguments = 2 if isinstance(members[0], Sum) else 1
    blocks = [torch.randn(4, *shape, dtype=torch.float64) for _ in members]
    expected, onto, cotangents = [], [], []
    for own, block in zip(members, blocks, strict=True):
        x = [block.clone().requires_grad_() for _ in range(arguments)]
        value = own(*x)
        expected.append(value.detach())
        cotangents.append(torch.randn_like(value))
        onto.append(torch.autograd.grad(value, [*own.parameters(), *x], cotangents[-1]))
    v = torch.cat(cotangents)
    stacked = Stacked(members, StackedTensors())
    x = [torch.cat(blocks)] * arguments
    point = layer_point(stacked)
    torch.testing.assert_close(stacked(*x).detach(), torch.cat(expected))
    torch.testing.assert_close(point.forward(*x), torch.cat(expected))
    gradients = [torch.stack(each) for each in zip(*onto, strict=True)]
    count = len(list(stacked.parameters()))
    for found, gradient in zip(point.gradient(x[0], v), gradients[:count], strict=True):
        torch.testing.assert_close(found, gradient)
    if arguments == 1:
        torch.testing.assert_close(point.feedback(v), gradients[count].flatten(0, 1))
        out = torch.ones_like(x[0])
        point.add_feedback(v, out, -2.0)
        torch.testing.assert_close(out, 1 - 2 * gradients[count].flatten(0, 1))
    else:
        for place in range(arguments):
            torch.testing.assert_close(point.feedback_to(place, v), gradients[count + place].flatten(0, 1))


@pytest.mark.parametrize("member", [lambda: nn.Linear(5, 3), lambda: nn.Conv2d(2, 4, 3)])
def test_feedback_weights_are_each_members_own(member: Callable[[], nn.Module]) -> None:
    members = [member().double() for _ in range(COUNT)]
    x = torch.randn(6, *((5,) if isinstance(members[0], nn.Linear) else (2, 6, 6)), dtype=torch.float64)
    points = [layer_point(own) for own in members]
    v = [torch.randn_like(point.forward(block)) for point, block in zip(points, x.chunk(COUNT), strict=True)]
    shape = members[0].get_parameter("weight").shape
    weights = torch.randn(COUNT, *(shape[::-1] if len(shape) == 2 else shape), dtype=torch.float64)
    expected = [point.feedback_through(*own) for point, *own in zip(points, v, weights, strict=True)]
    point = layer_point(Stacked(members, StackedTensors()))
    point.forward(x)
    torch.testing.assert_close(point.feedback_through(torch.cat(v), weights), torch.cat(expected))


@pytest.mark.parametrize("bias", [True, False])
def test_an_inverse_is_each_members_own(bias: bool) -> None:
    torch.manual_seed(0)
    members = [nn.Linear(4, 4, bias=bias, dtype=torch.float64) for _ in range(COUNT)]
    stacked = Stacked(members, StackedTensors())
    x, v = (torch.randn(6, 4, dtype=torch.float64) for _ in range(2))
    y = stacked(x).detach()
    inverse = StageInverse([stacked], "1")
    torch.testing.assert_close(inverse(y), x)
    forth = forward_difference([stacked], v, 0.1, [x, y])
    torch.testing.assert_close(forth, (y - stacked(x - 0.1 * v).detach()) / 0.1)
    torch.testing.assert_close(inverse.difference(forth, 0.1, [x, y]), v)
    with torch.no_grad():
        stacked.get_parameter("weight")[1, 0] = stacked.get_parameter("weight")[1, 1]
    with pytest.raises(ValueError, match="stage 1 cannot be inverted"):
        StageInverse([stacked], "1")


def test_copies_are_read_and_written_and_share_no_memory() -> None:
    members = [nn.Linear(2, 2) for _ in range(COUNT)]
    tensors = StackedTensors()
    stacked = tensors.stack([member.weight for member in members])
    versions = [member.weight._version for member in members]
    tensors.write_back()
    assert [member.weight._version for member in members] == versions
    with torch.no_grad():
        stacked.mul_(2.0)
    before = [member.weight.detach().clone() for member in members]
    tensors.write_back()
    for member, own in zip(members, before, strict=True):
        torch.testing.assert_close(member.weight.detach(), 2.0 * own)
    with torch.no_grad():
        members[1].weight.fill_(7.0)
    tensors.read()
    torch.testing.assert_close(stacked[1].detach(), torch.full((2, 2), 7.0))
    assert tensors.stack([member.weight for member in members]) is stacked


def test_numbers_are_laid_out_along_the_samples() -> None:
    numbers = of_samples([1.0, 2.0], torch.zeros(4, 3, 2))
    torch.testing.assert_close(numbers.expand(4, 3, 2)[:, 0, 0], torch.tensor([1.0, 1.0, 2.0, 2.0]))


def test_sparse_gradients_are_refused() -> None:
    members = [nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2)) for _ in range(2)]
    with pytest.raises(ValueError, match="Embedding of several networks: its gradients are sparse"):
        Stacked(members, StackedTensors())
