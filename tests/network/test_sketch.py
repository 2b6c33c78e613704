"""What a picture shows of a network survives as text in a dataset, and nothing else is taken for it."""

import pytest
import torch

import neurodyn as nd
from neurodyn.errors import InvalidValueError
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.network.sketch import Sketch, sketch
from tests.problems import PROBLEMS


@pytest.mark.parametrize("name", PROBLEMS)
def test_its_text_gives_back_all_but_the_numbers(name):
    shown = sketch(PROBLEMS[name]().network)
    again = Sketch.read(shown.text())
    assert (again.name, again.nodes) == (shown.name, shown.nodes)
    assert [(str(a), a.kind, a.map, a.negative) for a in again.arrows] == [
        (str(a), a.kind, a.map, a.negative) for a in shown.arrows
    ]
    assert again.text() == shown.text()


def test_networks_that_differ_in_numbers_alone_have_the_same_text():
    module = nd.mlp([4, 4, 4], activation="leaky_relu")
    one, other = (sketch(tp.weak_feedback(module, gamma=gamma)) for gamma in (0.1, 0.2))
    assert one != other
    assert one.text() == other.text()


@pytest.mark.parametrize(
    ("gain", "negative", "mark"),
    [
        (-1.0, True, ""),
        (-2.0, True, "×2"),
        (torch.tensor([-2.0, -1.0]), True, "×[1 … 2]"),
        (torch.tensor([-2.0, 1.0]), False, "×[-2 … 1]"),
        (torch.tensor([-2.0, 0.0]), False, "×[-2 … 0]"),
    ],
)
def test_gains_that_differ_from_unit_to_unit_keep_their_signs(gain, negative, mark):
    populations = [nd.Population("a", 2), nd.Population("b", 2)]
    (arrow,) = sketch(nd.Network("n", populations, [nd.Coupling("a", "b", gain=gain)])).arrows
    assert (arrow.negative, arrow.mark) == (negative, mark)


def test_runs_and_inferences_carry_it():
    network = pc.network(nd.mlp([4, 3, 2], seed=0), steps=2)
    inputs, targets = nd.data.digits()[0][:2]
    inputs, targets = inputs[:, :4], targets[:, :2]
    for run in (nd.infer(network, inputs, targets), nd.equilibrium(network, inputs, targets)):
        assert run.attrs["diagram"] == sketch(network).text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"name":"a","nodes":[["x"]],"arrows":[]}',
        '{"name":"a","nodes":[],"arrows":[["a","b","coupling"]]}',
    ],
)
def test_other_text_is_no_diagram(text):
    with pytest.raises(InvalidValueError, match="no diagram"):
        Sketch.read(text)
