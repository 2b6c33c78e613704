"""What the growth of relaxations is measured by."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from benchmarks import growth

FIRST = 1000
"""How many numbers a way asks for first; each takes 4 bytes."""


@pytest.fixture
def tiny(monkeypatch) -> None:
    monkeypatch.setattr(growth, "sizes", lambda: iter([({"width": 4, "depth": 3, "batch": 2}, [4] * 4)]))
    monkeypatch.setattr(growth, "BUDGET", 0.0)


def ways(found: Mapping[str, Callable[[], int | None]]) -> growth.Peers:
    @contextmanager
    def peers(module, x, t) -> Iterator[Mapping[str, Callable[[], int | None]]]:
        yield found

    return peers


def test_each_way_has_its_costs(tiny) -> None:
    found = growth.measured("cpu", ways({"PC equilibrium": lambda: None}), progress=False).isel(point=0)
    seconds = found["seconds"]
    assert (seconds.sel(way=["neurodyn", "backprop"]) > 0).all()
    assert (seconds.sel(way="torchdiffeq", relaxation=["PC to t = 20", "PC equilibrium", "weak feedback"]) > 0).all()
    assert seconds.sel(way="diffrax").notnull().values.tolist() == [False, True, False, False]
    # Weak feedback, of another kind, takes no fewer evaluations by time than by its equilibrium.
    counted = found["evaluations"]
    assert (counted.sel(way="neurodyn")[:3] >= 1).all()
    assert counted.sel(way="neurodyn", relaxation="weak feedback") < counted.sel(
        way="torchdiffeq", relaxation="weak feedback"
    )
    assert (found["memory"].sel(way=["neurodyn", "backprop"]) > 0).all()


@pytest.mark.parametrize("count", [1, 3])
def test_memory_is_what_is_taken_at_once(count: int) -> None:
    def way() -> None:
        kept = [torch.empty(FIRST) for _ in range(count)]
        del kept
        torch.empty(FIRST)

    assert count * 4 * FIRST <= growth._memory(way) < count * 4 * FIRST + 1000


@pytest.mark.parametrize("apart", [False, True])
def test_what_takes_too_long_counts_as_none(apart: bool, monkeypatch) -> None:
    monkeypatch.setattr(growth, "LONGEST", 0.05)

    def endless() -> None:
        while True:
            time.sleep(0.0)

    assert np.isnan(growth._costs(endless, apart=apart)).all()
