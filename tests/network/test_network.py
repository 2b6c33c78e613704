"""A network: what it takes, and how it is read."""

import pytest
import torch
from torch import nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from tests.couplings import populations, two
from tests.problems import wilson_cowan


@pytest.mark.parametrize(
    ("declare", "part", "message"),
    [
        (lambda part: nd.Population("a", 3, clamp=part), torch.ones(3), "population a: clamp must be a drive such as"),
        (nd.ForwardValue, nn.Tanh(), "a forward value is that of a neurodyn Stage, not of a Tanh"),
        (lambda part: nd.Plasticity(part, "a", "b"), nn.Linear(2, 2), "plasticity: its stage is a neurodyn Stage, not"),
        (lambda part: nd.Network("n", [part]), "a", "network 'n': 'a' is no Population"),
        (
            lambda part: nd.Network("n", part),
            nd.Population("a"),
            r"network 'n': one Population is given where a list is; write \[Population\(…\)\]",
        ),
        (
            lambda part: nd.Network(part, [nd.Population("a")]),
            3,
            "name of Network must be text, not int; it comes first",
        ),
        (lambda part: nd.Network("n", populations(), inference=part), 3, "network 'n': inference is Inference"),
        (
            lambda part: nd.Coupling(part, "a"),
            nd.Population("b"),
            "source and target are names of populations",
        ),
        (lambda part: nd.Plasticity(nd.Stage(nn.Linear(2, 2)), "a", part), 1, "pre and post are names of populations"),
        (lambda part: nd.Network("n", populations(), [part]), "a → b", "network 'n': 'a → b' is no Coupling"),
        (lambda part: nd.Network("n", populations(), plasticity=[part]), "a", "network 'n': 'a' is no Plasticity"),
        (lambda part: nd.Network("n", populations(), forward=[part]), nn.Tanh(), r"Tanh\(\) is no Stage; nd\.cut\("),
    ],
)
def test_parts_of_another_kind_are_refused(declare, part, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        declare(part)


@pytest.mark.parametrize("loss", ["mse", nn.MSELoss, None, 1.0])
def test_a_loss_is_a_function(loss) -> None:
    with pytest.raises(TypeError, match="network 'n': loss is a function of the outputs and the targets"):
        nd.Network("n", [nd.Population("a")], loss=loss)
    with pytest.raises(TypeError, match="loss is a function of the outputs and the targets"):
        ar.network(nd.mlp([2, 2]), loss=loss)


def test_a_network_is_read_by_name() -> None:
    network = wilson_cowan().network
    assert network["E"].tau == 1.0
    assert "E" in network
    assert "X" not in network
    assert network["hE"].role == "instantaneous"
    assert network["P"].role == "clamped"
    assert network.inputs == ("P",)
    assert [c.source for c in network.into("hI")] == ["E", "I"]
    with pytest.raises(ValueError, match="network 'Wilson–Cowan': there is no population 'X'; there are P, hE"):
        network["X"]


def test_a_stage_is_listed_once() -> None:
    stage = nd.Stage(nn.Linear(3, 3), "1")
    network = two(
        nd.Coupling("a", "b", nd.Forward(stage)),
        nd.Coupling("b", "a", nd.Feedback(stage, "live"), gain=-1.0),
    )
    assert network.stages == (stage,)
