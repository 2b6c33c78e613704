"""What is made for batch after batch comes to the same by its operations alone, or is made as it is written."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from neurodyn.layers.repeated import Repeated, constant, expect, steered

WEIGHT = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
BUFFER = torch.empty(4, 3)


def batch(seed: int, offset: float = 0.0) -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) + offset


def products(x: Tensor) -> Tensor:
    return torch.tanh(x @ WEIGHT.t())


def in_place(x: Tensor) -> Tensor:
    torch.mul(x, 2.0, out=BUFFER)
    BUFFER[1:].add_(1.0)
    return BUFFER.view(2, 6)[:, :3]


def by_autograd(x: Tensor) -> Tensor:
    with torch.enable_grad():
        own = x.clone().requires_grad_()
        value = functional.layer_norm(torch.sigmoid(own @ WEIGHT), (3,)).square().sum()
    return torch.autograd.grad(value, own)[0]


def in_parts(x: Tensor) -> Tensor:
    first, second = x.split(2)
    return torch.cat([second, first.t().reshape(2, 3)])


def with_room(x: Tensor) -> Tensor:
    room = torch.empty(2, 4, 3)
    torch.add(x, 1.0, out=room[0])
    torch.mul(x, x, out=room[1])
    return room.sum(0)


def overwritten(x: Tensor) -> Tensor:
    value = x * 2.0
    first = value.sum()
    value.zero_()
    return value.view(3, 4).add_(first).t() + x


def through_views(x: Tensor) -> Tensor:
    value = x * 2.0
    wide = value.view(2, 6)
    wide.view(4, 3).add_(x)  # the same view of the memory as `value`, which is written to
    return value.expand(4, 3).t().t() @ wide.view(3, 4)


def of_room(x: Tensor) -> Tensor:
    room = torch.empty_like(x)
    return room.copy_(x).mul_(3.0)


def with_coefficients(x: Tensor) -> Tensor:
    return x * constant(lambda: torch.as_tensor([1.0, 2.0, 3.0], dtype=torch.float64)).to(x.dtype)


def made(function: Callable[[Tensor], Tensor], repeated: Repeated[str], x: Tensor) -> Tensor:
    done = repeated.again([x])
    if done is None:
        done = repeated.made([x], lambda: ([function(x), None], "rest"))
    (found, nothing), rest = done
    assert found is not None
    assert nothing is None
    assert rest == "rest"
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    "function",
    [products, in_place, by_autograd, in_parts, with_room, through_views, of_room, overwritten, with_coefficients],
)
def test_operations_alone_give_the_same(function: Callable[[Tensor], Tensor]) -> None:
    repeated: Repeated[str] = Repeated([WEIGHT])
    for seed in range(6):
        assert torch.equal(made(function, repeated, batch(seed)).clone(), function(batch(seed)))
    assert repeated.noted


@torch.no_grad()
def test_weights_count_as_they_are() -> None:
    weight = WEIGHT.clone()
    repeated: Repeated[str] = Repeated([weight])
    for seed in range(6):
        weight.mul_(1.5)
        found = made(lambda x: x @ weight.t(), repeated, batch(seed))
        assert torch.equal(found, batch(seed) @ weight.t())
    assert repeated.noted


@torch.no_grad()
@pytest.mark.parametrize("function", [with_room, of_room, in_place])
def test_results_are_not_overwritten(function: Callable[[Tensor], Tensor]) -> None:
    repeated: Repeated[str] = Repeated([])
    for seed in range(3):
        made(function, repeated, batch(seed))
    found = [made(function, repeated, batch(seed)) for seed in range(3, 6)]
    assert repeated.noted
    for seed, each in enumerate(found, 3):
        assert torch.equal(each, function(batch(seed)))


def of_its_numbers(x: Tensor) -> Tensor:
    return x * float(x.sum())


def of_its_sign(x: Tensor) -> Tensor:
    return x if bool((x > 0).any()) else -x


def of_those_above_zero(x: Tensor) -> Tensor:
    return x.new_ones(1) * x[x > 0].numel()


def of_numbers_in_secret(x: Tensor) -> Tensor:
    steered()
    return x * sum(x.detach().flatten().numpy().tolist())


def at_random(x: Tensor) -> Tensor:
    return torch.dropout(x, 0.5, True)


def of_something_unknown(x: Tensor) -> Tensor:
    return x @ WEIGHT


@torch.no_grad()
@pytest.mark.parametrize(
    "function",
    [of_its_numbers, of_its_sign, of_those_above_zero, of_numbers_in_secret, at_random, of_something_unknown],
)
def test_what_may_take_another_course_is_made_as_it_is_written(function: Callable[[Tensor], Tensor]) -> None:
    repeated: Repeated[str] = Repeated([])
    for seed in range(5):
        torch.manual_seed(seed)
        found = made(function, repeated, batch(seed))
        torch.manual_seed(seed)
        assert torch.equal(found, function(batch(seed)))
    assert not repeated.noted


@torch.no_grad()
def test_what_differs_for_the_third_batch_is_made_as_it_is_written() -> None:
    factors = iter([2.0, 2.0, 3.0, 3.0, 3.0])
    repeated: Repeated[str] = Repeated([])
    found = [made(lambda x: x * next(factors), repeated, batch(seed)) for seed in range(5)]
    assert not repeated.noted
    for seed, (each, factor) in enumerate(zip(found, [2.0, 2.0, 3.0, 3.0, 3.0], strict=True)):
        assert torch.equal(each, batch(seed) * factor)


@torch.no_grad()
def test_what_takes_long_is_made_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurodyn.layers.repeated.AFTER", -1.0)
    repeated: Repeated[str] = Repeated([])
    for seed in range(3):
        made(products, repeated, batch(seed))
    assert repeated.hopeless


def above(tensors: Sequence[Tensor], limit: int) -> bool:
    return bool((tensors[0] > limit).all())


def root(x: Tensor) -> Tensor:
    return x.sqrt() if expect(above, [x], 0) else torch.zeros_like(x)


@torch.no_grad()
def test_either_answer_of_a_condition_is_noted() -> None:
    repeated: Repeated[str] = Repeated([])
    for seed in range(4):
        assert torch.equal(made(root, repeated, batch(seed)), torch.zeros(4, 3))
    assert repeated.noted
    assert torch.equal(made(root, repeated, batch(5, offset=9.0)), batch(5, offset=9.0).sqrt())


@torch.no_grad()
@pytest.mark.parametrize(("held", "kept"), [(2, False), (20, True)])
def test_operations_that_seldom_hold_are_no_longer_tried(held: int, kept: bool) -> None:
    repeated: Repeated[str] = Repeated([])
    for seed in range(3 + held):
        made(root, repeated, batch(seed, offset=9.0))
    assert repeated.noted
    assert torch.equal(made(root, repeated, batch(99)), torch.zeros(4, 3))
    assert repeated.noted == kept


def test_a_condition_that_fails_takes_the_other_course() -> None:
    repeated: Repeated[str] = Repeated([])
    for seed in range(4):
        made(root, repeated, batch(seed, offset=9.0))
    assert repeated.noted
    assert repeated.again([batch(5)]) is None
    assert torch.equal(made(root, repeated, batch(5)), torch.zeros(4, 3))
    assert torch.equal(made(root, repeated, batch(6, offset=9.0)), batch(6, offset=9.0).sqrt())
