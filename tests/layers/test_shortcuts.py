"""Noted operations are made once, and where their value is to be, and give what they gave."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neurodyn.layers.repeated import Repeated

STATE = torch.empty(2, 3, 4)
WEIGHT = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        self.made[operation._schema.name.removeprefix("aten::")] += 1
        return operation(*given, **(options or {}))


def twice(x: Tensor) -> Sequence[Tensor]:
    return (torch.exp(x) @ WEIGHT + torch.exp(x),)


def before_and_after(x: Tensor) -> Sequence[Tensor]:
    STATE[0].copy_(x)
    first = torch.exp(STATE[0])
    STATE[0].add_(1.0)
    return (first + torch.exp(STATE[0]),)


def beside(x: Tensor) -> Sequence[Tensor]:
    STATE[0].copy_(x)
    first = torch.exp(STATE[0])
    STATE[1].copy_(x)
    return (first + torch.exp(STATE[0]),)


def written_later(x: Tensor) -> Sequence[Tensor]:
    first, second = torch.exp(x), torch.exp(x)
    second.add_(1.0)
    return (first * second,)


def returned_twice(x: Tensor) -> Sequence[Tensor]:
    return torch.exp(x), torch.exp(x).t(), torch.exp(x)


def copied(x: Tensor) -> Sequence[Tensor]:
    STATE[0].copy_(torch.mm(x, WEIGHT))
    return (STATE[0] * 2.0,)


def copied_and_read(x: Tensor) -> Sequence[Tensor]:
    value = torch.mm(x, WEIGHT)
    STATE[0].copy_(value)
    return (STATE[0] * value,)


def copied_to_what_it_reads(x: Tensor) -> Sequence[Tensor]:
    STATE[0].copy_(x)
    STATE[0].copy_(torch.mm(STATE[0], WEIGHT))
    return (STATE[0] * 2.0,)


def copied_in_another_form(x: Tensor) -> Sequence[Tensor]:
    STATE[0].copy_(torch.mm(x[:1], WEIGHT))
    return (STATE[0] * 2.0,)


@torch.no_grad()
@pytest.mark.parametrize(
    ("function", "operation", "count"),
    [
        (twice, "exp", 1),
        (before_and_after, "exp", 2),
        (beside, "exp", 1),
        (written_later, "exp", 2),
        (returned_twice, "exp", 3),
        (copied, "copy_", 0),
        (copied_and_read, "copy_", 1),
        (copied_to_what_it_reads, "copy_", 2),
        (copied_in_another_form, "copy_", 1),
    ],
)
def test_operations_are_made_as_often_as_they_must(
    function: Callable[[Tensor], Sequence[Tensor]], operation: str, count: int
) -> None:
    repeated: Repeated[None] = Repeated([STATE, WEIGHT])
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        repeated.made([x], lambda: (function(x), None))
    other = x + 0.5
    with Counted() as counted:
        done = repeated.again([other])
    assert done is not None
    found = [each for each in done[0] if each is not None]
    assert counted.made[operation] == count
    assert len({each.data_ptr() for each in found}) == len(found)
    for own, wanted in zip(found, function(other), strict=True):
        assert torch.equal(own, wanted)
