"""What populations are held at, or start from."""

import pytest
import torch

import neurodyn as nd
from tests.problems import mlp, tensor


def held_at(drive: nd.Drive) -> nd.Network:
    return nd.Network("held", [nd.Population("s", clamp=nd.Input()), nd.Population("x", 5, clamp=drive)])


def test_noisy_targets_are_needed_as_targets_are() -> None:
    inputs, targets = tensor(200, 3), torch.zeros(200, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"population x is held at target .* needs targets; none are given"):
        nd.System(held_at(nd.Noisy(nd.Target(), 0.5)), inputs)
    torch.manual_seed(0)
    system = nd.System(held_at(nd.Noisy(nd.Target(), 0.5)), inputs, targets)
    assert 0.45 < float(system.clamped["x"].std()) < 0.55


def test_optional_noisy_targets_leave_their_population_free_where_none_are_given() -> None:
    network = held_at(nd.Noisy(nd.Target(optional=True), 0.5))
    assert "x" not in nd.System(network, tensor(2, 3)).clamped
    assert "x" in nd.System(network, tensor(2, 3), tensor(2, 5)).clamped


@pytest.mark.parametrize("initial", [1.0, nd.ForwardValue(nd.cut(mlp().module)[0])])
def test_an_instantaneous_population_starts_from_its_input(initial) -> None:
    with pytest.raises(ValueError, match="population x: it is instantaneous, and equals its input from the start"):
        nd.Population("x", 9, tau=0.0, initial=initial)
