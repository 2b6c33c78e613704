"""What is proved alike, and what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurodyn.layers.alike import Comparison, Difference
from neurodyn.layers.feedback import FeedbackWeights
from neurodyn.layers.stages import Stage


class Holder(nn.Module):
    """Holds anything."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Point:
    x: float
    note: str = field(default="", compare=False)


class Further(Point):
    """A subclass that is no dataclass of its own, and holds more."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__(x)
        vars(self)["y"] = y


class Nothing:
    pass


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: float) -> None:
        self.x = x


def plain(x: float = 0.0) -> float:
    return x


class Method:
    def call(self) -> None:
        pass


ALIKE: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "numbers": lambda: [1, 2.0, True, None, 1j, np.float32(2.0)],
    "containers": lambda: {"a": (1, [2]), "b": {3}},
    "torch's values": lambda: [torch.float64, torch.device("cpu"), torch.Size([2])],
    "tensors": lambda: torch.ones(2),
    "arrays": lambda: np.arange(3),
    "a function": lambda: plain,
    "a partial": lambda: partial(plain, x=1.0),
    "a dataclass": lambda: Point(1.0),
    "a dataclass, aside from what it does not compare": lambda: Point(1.0, note=str(id(object()))),
    "more than a dataclass": lambda: Further(1.0, 2.0),
    "nothing": Nothing,
    "a module": lambda: nn.Dropout(0.5),
}
UNLIKE: dict[str, tuple[Any, Any]] = {
    "numbers": (1.0, 1.0 + 1e-15),
    "types": (1, 1.0),
    "a flag and a number": (True, 1),
    "lengths": ([1], [1, 2]),
    "keys": ({"a": 1}, {"b": 1}),
    "tensors": (torch.ones(2), torch.zeros(2)),
    "precisions": (torch.ones(2), torch.ones(2).double()),
    "arrays": (np.arange(3), np.arange(3) + 1),
    "functions": (lambda: 1, lambda: 1),
    "closures of a partial": (partial(plain, x=1.0), partial(plain, x=2.0)),
    "dataclasses": (Point(1.0), Point(2.0)),
    "more than dataclasses": (Further(1.0, 2.0), Further(1.0, 3.0)),
    "slots": (Slotted(1.0), Slotted(1.0)),
    "generators": (torch.Generator(), torch.Generator()),
    "methods": (Method().call, FeedbackWeights(Stage(nn.Linear(2, 2)), seed=0, learned=True).gradient),
    "modules": (nn.Dropout(0.5), nn.Dropout(0.4)),
    "modules in lists": ([nn.Linear(2, 2)], [nn.Linear(2, 2)]),
}


@pytest.mark.parametrize("name", ALIKE)
def test_alike(name: str) -> None:
    make = ALIKE[name]
    Comparison(learning=True).pair("it", Holder(make()), Holder(make()))


@pytest.mark.parametrize("name", UNLIKE)
def test_unlike(name: str) -> None:
    one, other = UNLIKE[name]
    with pytest.raises(Difference, match=r"it: .*value"):
        Comparison(learning=True).pair("it", Holder(one), Holder(other))
    Comparison(learning=True).pair("it", Holder(one), Holder(one))


def test_whether_parameters_learn_counts_where_they_are_to_learn_alone() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.bias.requires_grad_(False)
    Comparison(learning=False).pair("it", one, other)
    with pytest.raises(Difference, match="it: parameter bias is frozen, and learns in the first"):
        Comparison(learning=True).pair("it", one, other)
    with pytest.raises(Difference, match="it: parameter bias learns, and is frozen in the first"):
        Comparison(learning=True).pair("it", other, one)


@pytest.mark.parametrize("tied", [(True, False), (False, True)])
def test_what_is_shared_is_shared_in_both(tied: tuple[bool, bool]) -> None:
    def stages(shared: bool) -> list[Stage]:
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        if shared:
            second.weight = first.weight
        return [Stage(first, "1"), Stage(second, "2")]

    Comparison(learning=True).stages(stages(tied[0]), stages(tied[0]))
    with pytest.raises(Difference, match="stage 2: Linear: parameter weight is shared with another part"):
        Comparison(learning=True).stages(*map(stages, tied))


def test_captured_operations_are_compared_by_their_graphs() -> None:
    from neurodyn.layers.capture import capture

    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale, self.layer = scale, nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.scale * self.layer(x))

    one, same, other = (capture(Scaled(scale), torch.zeros(2, 3)) for scale in (0.5, 0.5, 0.7))
    Comparison(learning=True).stages(one, same)
    with pytest.raises(Difference, match=r"0\.7, and 0\.5 in the first"):
        Comparison(learning=True).stages(one, other)
