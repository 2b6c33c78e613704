"""Numbers that are not finite are found, wherever they are."""

import math

import pytest
import torch
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.system.numbers import sums_are_finite

SHAPES = [(3,), (2, 5), (), (200, 200), (0, 4), (129, 128)]
"""Of tensors that are summed up together, and alone."""


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [p for p, shape in enumerate(SHAPES) if math.prod(shape)])
def test_a_number_that_is_not_finite_is_found_in_any_tensor(bad: float, place: int) -> None:
    tensors = [torch.ones(shape) for shape in SHAPES]
    assert sums_are_finite(tensors)
    tensors[place].view(-1)[-1] = bad
    assert not sums_are_finite(tensors)
    assert not sums_are_finite([tensors[place]])


def test_sums_that_overflow_together_alone_are_finite() -> None:
    most = torch.finfo(torch.float32).max
    assert sums_are_finite([torch.full(shape, 0.75 * most) for shape in ((1,), (1, 1), (1,), (1,))])


@pytest.mark.parametrize("run", [nd.equilibrium, lambda *data: nd.simulate(*data, duration=1.0)])
def test_a_batch_after_many_is_looked_at_too(run) -> None:
    first = nn.Linear(3, 3)
    network = nd.models.activation_relaxation.network(nn.Sequential(first, nn.Tanh(), nn.Linear(3, 2)))
    x, t = torch.ones(2, 3), torch.zeros(2, 2)
    for _ in range(4):
        run(network, x, t)
    with pytest.raises(nd.NeurodynError, match="inputs of population"):
        run(network, x * math.nan, t)
    with torch.no_grad():
        first.weight[1, 1] = math.inf
    with pytest.raises(nd.NeurodynError, match="weight of stage"):
        run(network, x, t)


def test_a_drive_of_ones_own_is_looked_at_though_it_is_a_kind_of_input() -> None:
    class Broken(nd.Input):
        def value(self, population: str, data: nd.Data) -> Tensor:
            return data.inputs[population] / 0.0

    network = nd.Network("broken", [nd.Population("s", 2, clamp=Broken()), nd.Population("x", 2)])
    with pytest.raises(nd.NeurodynError, match="population s: input gives 4 values that are NaN or infinite"):
        nd.equilibrium(network, torch.ones(2, 2))
