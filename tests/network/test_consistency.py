"""Parts of a network that do not fit each other are refused by name."""

import pytest
from torch import nn

import neurodyn as nd
from tests.couplings import populations, two


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: nd.Network("n", []), "network 'n' has no populations"),
        (lambda: nd.Network("n", [nd.Population("a"), nd.Population("a")]), "two populations are called 'a'"),
        (
            lambda: nd.Network("n", [nd.Population("a"), nd.Population("a_unit")]),
            "population a_unit is called like a dimension of population a",
        ),
        (lambda: two(nd.Coupling("a", "c")), "coupling a → c: there is no population 'c'; there are a, b"),
        (lambda: two(nd.Coupling("c", "a")), "coupling c → a: there is no population 'c'"),
        (
            lambda: nd.Network("n", [nd.Population("a", 3), nd.Population("b", 4)], [nd.Coupling("a", "b")]),
            "coupling a → b: a has 3 units, and population b has 4",
        ),
        (
            lambda: nd.Network("n", [nd.Population("a", (2, 3)), nd.Population("b", 6)], [nd.Coupling("a", "b")]),
            "coupling a → b: a has 2 × 3 units, and population b has 6",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Forward(nn.Linear(3, 4)))),
            r"coupling a → b: Linear\(a\) has 4 units, and population b has 3",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Forward(nn.Linear(4, 3)))),
            r"coupling a → b: stage Linear \(Linear\(4 → 3\)\) does not take an input of 3 a sample",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Feedback(nn.Linear(3, 4), "live"))),
            "coupling a → b: its feedback takes 4 units, and the source has 3",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Feedback(nn.Linear(4, 3), "live"))),
            "stage Linear .* does not take an input of 3 .*; Feedback leads back, to what the stage reads",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Inverse(nn.Linear(4, 4)))),
            r"coupling a → b: stage Linear \(Linear\(4 → 4\)\) does not take an input of 3 a sample",
        ),
        (
            lambda: two(nd.Coupling("a", "b"), clamp=nd.Input()),
            "coupling a → b: population b is clamped to input, so nothing may enter it; remove the coupling or the",
        ),
        (
            lambda: two(nd.Coupling("a", "b"), nd.Coupling("b", "a"), tau=0.0),
            "network 'two': the instantaneous populations a → b → a form a cycle.*time constant",
        ),
        (
            lambda: two(nd.Coupling("a", "a"), tau=0.0),
            "the instantaneous populations a → a form a cycle",
        ),
        (
            lambda: two(nd.Coupling("a", "b", nd.Feedback(nn.Tanh()))),
            r"coupling a → b: stage Tanh \(Tanh\) is used at the forward pass.*add it to forward=",
        ),
        (
            lambda: two(initial=nd.ForwardValue(nd.Stage(nn.Tanh(), "1"))),
            r"population a: stage 1 \(Tanh\) is used at the forward pass",
        ),
        (lambda: two(clamp=nd.LossGradient()), "population a: a loss gradient needs a forward pass; give forward="),
        (
            lambda: nd.Network("n", populations(), forward=[nd.Stage(nn.Linear(3, 3), "1")]),
            r"network 'n': a forward pass starts from one population clamped to Input\(\), and there are 0",
        ),
    ],
)
def test_a_network_that_does_not_hold_together_is_refused(declare, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declare()


def test_a_forward_value_has_the_size_of_its_population() -> None:
    stage = nd.Stage(nn.Linear(3, 4), "1")
    with pytest.raises(ValueError, match=r"population b: it has 3 units, and stage 1 \(Linear\(3 → 4\)\) gives 4"):
        nd.Network(
            "n",
            [nd.Population("a", 3, clamp=nd.Input()), nd.Population("b", 3, initial=nd.ForwardValue(stage))],
            forward=[stage],
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"post": "c"}, "plasticity of stage 1: there is no population 'c'; there are a, b"),
        ({"pre": "c"}, "plasticity of stage 1: there is no population 'c'"),
        ({"presynaptic": "frozen"}, "plasticity of stage 1: stage 1 .* is used at the forward pass"),
        ({"presynaptic": "thawed"}, "plasticity of stage 1: presynaptic is 'frozen' or 'live', not 'thawed'"),
        ({"when": "sometimes"}, "plasticity of stage 1: when is 'end'.*, not 'sometimes'"),
        ({"stage": nd.Stage(nn.Tanh(), "2")}, r"plasticity of stage 2 \(Tanh\): it has no parameters to learn"),
    ],
)
def test_plasticity_that_makes_no_sense_is_refused(settings, message: str) -> None:
    rule = {"stage": nd.Stage(nn.Linear(3, 3), "1"), "pre": "a", "post": "b", "presynaptic": "live", **settings}
    with pytest.raises(ValueError, match=message):
        nd.Network("n", populations(), plasticity=[nd.Plasticity(**rule)])


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (nd.Stage(nn.Linear(3, 4), "1"), r"plasticity of stage 1: g1\(a\) has 4 units, and population b has 3"),
        (nd.Stage(nn.Linear(4, 3), "1"), r"stage 1 \(Linear\(4 → 3\)\) does not take an input of 3 a sample"),
    ],
)
def test_plasticity_fits_its_populations(stage: nd.Stage, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nd.Network("n", populations(), plasticity=[nd.Plasticity(stage, "a", "b", presynaptic="live")])


def test_a_stage_stands_once_in_the_forward_pass() -> None:
    stage = nd.Stage(nn.Linear(3, 3), "1")
    with pytest.raises(ValueError, match="network 'n': a stage stands twice in forward="):
        nd.Network("n", [nd.Population("s", 3, clamp=nd.Input())], forward=[stage, stage])
