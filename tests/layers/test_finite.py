"""What is not finite is noticed by noted operations, wherever it is, though they look at few tensors."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neurodyn.layers.finite import told_by_sums
from neurodyn.layers.repeated import Repeated, expect

SHAPES = {"W": (6, 5), "b": (6,), "V": (4, 6), "x": (3, 5), "t": (3, 4)}
STATE = torch.empty(3 * 10)
BLOCKS = STATE[:18].view(3, 6), STATE[18:].view(3, 4)
CONSTANT = torch.ones(3, 4)


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def saturating(W: Tensor, b: Tensor, V: Tensor, x: Tensor, t: Tensor) -> list[Tensor]:
    """Gradients of two layers, by their steps: what is infinite in the first may be lost in tanh."""
    h = torch.tanh(torch.addmm(b, x, W.t()))
    error = torch.sub(torch.mm(h, V.t()), t)
    BLOCKS[1].copy_(error)
    back = BLOCKS[0].copy_(torch.ops.aten.tanh_backward(BLOCKS[1] @ V, h))
    expect(told_by_sums, [STATE])
    return [torch.addmm(CONSTANT[:1, :1], back.t(), x, beta=0, alpha=0.5), back.sum(0), BLOCKS[1].t() @ h]


def overwritten(W: Tensor, b: Tensor, V: Tensor, x: Tensor, t: Tensor) -> list[Tensor]:
    """What is looked at has gone from memory when the result is made."""
    h = BLOCKS[0].copy_(x @ W.t()).add_(b)
    BLOCKS[1].copy_(torch.clamp(h @ V.t(), -1.0, 1.0)).add_(t)
    expect(told_by_sums, [STATE])
    STATE.zero_()
    return [BLOCKS[1] + CONSTANT]


def left_out(W: Tensor, b: Tensor, V: Tensor, x: Tensor, t: Tensor) -> list[Tensor]:
    """Factors of 0, of which the operations take none."""
    made = torch.addmm(b[:4], torch.tanh(x @ W.t()), V.t(), beta=0)
    return [made + torch.mul(t, 0.0).nan_to_num()]


def in_rows(W: Tensor, b: Tensor, V: Tensor, x: Tensor, t: Tensor) -> list[Tensor]:
    """Of some tensors, a part alone is read, or with gaps."""
    return [(x[:, ::2] @ W[:, ::2].t() + b)[:, :4] * t[:1], V[:, 1:].sum(0)]


def empty(W: Tensor, b: Tensor, V: Tensor, x: Tensor, t: Tensor) -> list[Tensor]:
    """Products that nothing is left of."""
    return [torch.mm(W, torch.ones(5, 0)), b + torch.ones(0, 1), torch.mm(V[:0], W) + x[:1], t[:, :0] * x[:, :1]]


def without_units(W: Tensor, b: Tensor, V: Tensor, x: Tensor, t: Tensor) -> list[Tensor]:
    """A layer without units, whose value is finite whatever it is made of."""
    h = torch.addmm(b[:0], x, W[:0].t()) * x[:, :1]
    return [t.tanh() + torch.mm(h, V[:, :0].t()), V.tanh()]


Function = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], list[Tensor]]


def computed(function: Function, given: Sequence[Tensor]) -> tuple[list[Tensor], None]:
    expect(told_by_sums, given)
    found = function(*given)
    expect(told_by_sums, found)
    return found, None


@torch.no_grad()
@pytest.mark.parametrize("function", [saturating, overwritten, left_out, in_rows, empty, without_units])
def test_nothing_that_is_not_finite_passes(function: Function) -> None:
    known = {name: tensor for name, tensor in tensors(0).items() if name in "WbV"}
    for name, value in itertools.product(SHAPES, (math.inf, -math.inf, math.nan)):
        repeated: Repeated[None] = Repeated([*known.values(), STATE, CONSTANT])
        for seed in range(4):
            given = {**tensors(seed), **known}
            batch = [given["x"], given["t"]]
            if repeated.again(batch) is None:
                repeated.made(batch, partial(computed, function, list(given.values())))
        assert repeated.noted
        place = (0,) * given[name].ndim
        kept, given[name][place] = given[name][place].clone(), value
        assert repeated.again(batch) is None, f"{value} in {name}"
        given[name][place] = kept


class Summed(TorchDispatchMode):
    """Notes the shapes of what is summed."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        if operation is torch.ops.aten.sum.default:
            self.shapes.append(tuple(given[0].shape))
        return operation(*given, **(options or {}))


@torch.no_grad()
def test_what_follows_is_not_looked_at() -> None:
    """Of the gradients of two layers: W and b by W x + b, V and the data by the gradients."""
    known = {name: tensor for name, tensor in tensors(0).items() if name in "WbV"}
    repeated: Repeated[None] = Repeated([*known.values(), STATE, CONSTANT])
    for seed in range(3):
        given = {**tensors(seed), **known}
        repeated.made([given["x"], given["t"]], partial(computed, saturating, list(given.values())))
    with Summed() as summed:
        assert repeated.again([given["x"], given["t"]]) is not None
    assert summed.shapes == [(6, 5), (6,), (4, 6), (3, 6)]


@torch.no_grad()
def test_a_condition_that_it_is_not_finite_tells_nothing() -> None:
    repeated: Repeated[None] = Repeated([])

    def compute(x: Tensor) -> tuple[list[Tensor], None]:
        expect(told_by_sums, [x])
        return [x.nan_to_num()], None

    bad, good = torch.full((3,), math.nan), torch.ones(3)
    for _ in range(3):
        repeated.made([bad], lambda: compute(bad))
    assert repeated.again([bad]) is not None
    assert repeated.again([good]) is None
