"""What populations are held at, or start from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
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


def test_noisy_inputs_are_held_and_read() -> None:
    inputs = tensor(400, 3)
    network = nd.Network(
        "noisy input",
        [nd.Population("s", 3, clamp=nd.Noisy(nd.Input(), 0.5)), nd.Population("x", 3)],
        [nd.Coupling("s", "x")],
    )
    run = nd.simulate(network, inputs, duration=1.0, save_at=2, record=["s", "x"])
    assert 0.45 < float((run.s[0] - inputs.numpy()).std()) < 0.55
    np.testing.assert_allclose(run.x[1], (1 - np.exp(-1.0)) * run.s[0], rtol=1e-10)


@pytest.mark.parametrize("learning", ["il", "z-il"])
def test_a_forward_pass_starts_from_inputs_with_their_noise(learning: Any) -> None:
    example = mlp()
    network = pc.network(example.module, learning=learning)
    clamps = [replace(p, clamp=nd.Noisy(nd.Input(), 0.3)) if p.name == "s" else p for p in network.populations]
    torch.manual_seed(3)
    nd.backward(network.with_dynamics(clamps, network.couplings), example.inputs, example.targets)
    found = [p.grad for p in example.module.parameters()]
    example.module.zero_grad()
    torch.manual_seed(3)
    nd.backward(network, example.inputs + 0.3 * torch.randn_like(example.inputs), example.targets)
    for own, parameter in zip(found, example.module.parameters(), strict=True):
        torch.testing.assert_close(own, parameter.grad)


class Given(nd.Drive):
    def __init__(self, given: Any) -> None:
        self.given = given

    def value(self, population: str, data: Any) -> Tensor:
        return self.given

    def __str__(self) -> str:
        return "given"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(4, 5), r"population x: given gives torch\.float32"),
        (torch.zeros(4, 5, dtype=torch.int64), r"population x: given gives torch\.int64"),
        (1.0, "population x: given gives a float, and not a tensor"),
        (torch.zeros(4, dtype=torch.float64), "population x: given has the shape|not know|units"),
        (torch.zeros(3, 5, dtype=torch.float64), "population x: given has 3 samples, and the run has 4"),
    ],
)
def test_what_a_drive_gives_has_the_kind_of_the_run(given: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        nd.System(held_at(Given(given)), tensor(4, 3))
    from_there = nd.Network("n", [nd.Population("s", clamp=nd.Input()), nd.Population("x", 5, initial=Given(given))])
    with pytest.raises((TypeError, ValueError), match=message):
        nd.System(from_there, tensor(4, 3))


def test_what_takes_no_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="integers take no noise"):
        nd.Noisy(nd.Noisy(nd.Input(integer=True), 1.0), 1.0)
    with pytest.raises(TypeError, match="noise is added to a drive such as Input"):
        nd.Noisy(1.0, 0.1)  # type: ignore[arg-type]


def test_inputs_are_given_to_what_is_clamped_to_them() -> None:
    with pytest.raises(ValueError, match=r"population x: inputs are given to populations that are clamped to them"):
        nd.Network("n", [nd.Population("x", 1, initial=nd.Input())])
