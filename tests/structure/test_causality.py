"""What a declaration tells of the start, and of what each step of inference has to evaluate."""

from dataclasses import dataclass

import pytest
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from neurodyn.network.drives import Data
from neurodyn.structure.causality import Schedule, Step, read_start

MODULE = nd.mlp([5, 4, 3, 2])
LEARNING, PREDICTION = frozenset({"s", "x3"}), frozenset({"s"})


def schedule(network: nd.Network, clamped: frozenset[str], steps: int) -> Schedule:
    return Schedule(network, clamped, read_start(network, clamped), steps)


def test_after_a_forward_pass_all_errors_but_the_clamped_outputs_are_zero() -> None:
    network = pc.network(MODULE)
    learning = read_start(network, LEARNING)
    assert learning.silent == {"e1", "e2"}
    assert learning.resting == {"x1"}
    prediction = read_start(network, PREDICTION)
    assert prediction.silent == {"e1", "e2", "e3"}
    assert prediction.resting == {"x1", "x2", "x3"}
    g1, g2, _ = network.forward
    assert learning.holds == {"s": "input", "x1": g1, "x2": g2, "x3": None, "e1": "zero", "e2": "zero", "e3": None}


def test_slow_errors_start_at_zero_and_rest_where_their_prediction_is_met() -> None:
    start = read_start(pc.network(MODULE, error_tau=0.1), LEARNING)
    assert start.silent == {"e1", "e2", "e3"}
    assert start.resting == {"x1", "x2", "e1", "e2"}


def test_nothing_is_known_of_a_noisy_start_or_one_given_elsewhere() -> None:
    noisy = read_start(pc.network(MODULE, initial_noise=0.1), LEARNING)
    assert not noisy.silent
    assert not noisy.resting
    elsewhere = read_start(pc.network(MODULE), LEARNING, overridden={"x2"})
    assert elsewhere.silent == {"e1"}
    assert not elsewhere.resting
    without_forward = nd.Network("plain", [nd.Population("s", clamp=nd.Input()), nd.Population("x", 2, initial=1.0)])
    assert read_start(without_forward, {"s"}).holds == {"s": None, "x": None}


@dataclass(frozen=True)
class Doubled(nd.Input):
    """A drive that is an input, but not the one that the forward pass reads."""

    def value(self, population: str, data: Data) -> Tensor:
        return 2 * super().value(population, data)


def error(gain: float = -1.0, leak: float = 1.0, clamp: nd.Drive | None = None) -> nd.Network:
    """Declare one error, c = a − g(s) with a = leak · x / leak, and change a thing or two."""
    stage = nd.Stage(nn.Linear(3, 2), "1")
    return nd.Network(
        "one error",
        [
            nd.Population("s", 3, clamp=clamp or nd.Input()),
            nd.Population("x", 2, leak=0.0, initial=nd.ForwardValue(stage)),
            nd.Population("a", 2, tau=0.0, leak=leak),
            nd.Population("c", 2, tau=0.0),
        ],
        [nd.Coupling("x", "a", gain=4.0), nd.Coupling("a", "c"), nd.Coupling("s", "c", nd.Forward(stage), gain=gain)],
        forward=[stage],
    )


def test_balance_is_seen_through_instantaneous_populations() -> None:
    assert read_start(error(leak=4.0), {"s"}).silent == {"c"}
    assert not read_start(error(leak=2.0), {"s"}).silent
    assert not read_start(error(leak=4.0, gain=1.0), {"s"}).silent
    assert not read_start(error(leak=4.0, gain=-2.0), {"s"}).silent
    assert not read_start(error(leak=4.0, clamp=Doubled()), {"s"}).silent


def test_z_il_is_a_wave_from_the_output() -> None:
    plan = schedule(pc.network(MODULE, learning="z-il"), LEARNING, 2).plan(
        {0: range(2, 3), 1: range(1, 2), 2: range(1)}
    )
    assert tuple(plan.values()) == (
        Step(settle=("e3",), advance=("x2",), silent=frozenset({"e1", "e2"})),
        Step(settle=("e2",), advance=("x1",), silent=frozenset({"e1"})),
        Step(settle=("e1",), advance=(), silent=frozenset()),
    )


def test_a_plan_ends_with_the_last_rule_and_leaves_out_what_no_rule_can_feel() -> None:
    times = schedule(pc.network(MODULE), LEARNING, 9)
    assert not times.plan({})
    wave = times.plan({2: range(4, 5)})
    assert [step.settle for step in wave.values()] == [
        ("e3",),
        ("e2", "e3"),
        ("e1", "e2", "e3"),  # which e3 feels two steps later, through x1 and x2
        ("e2", "e3"),
        ("e3",),
    ]
    assert times.plan({2: range(4, 5)}, 3) == {3: wave[3], 4: wave[4]}
    assert list(times.plan({0: range(3, 7)})) == list(range(7))
    only_top = times.plan({2: range(1)})
    assert only_top == {0: Step(settle=("e3",), advance=(), silent=frozenset({"e1", "e2"}))}


@pytest.mark.parametrize(
    ("name", "learning", "prediction"), [("e3", 0, None), ("e2", 1, None), ("e1", 2, None), ("s", 0, 0)]
)
def test_a_population_wakes_when_the_change_arrives(name, learning, prediction) -> None:
    network = pc.network(MODULE)
    assert schedule(network, LEARNING, 5).wakes(name) == learning
    assert schedule(network, PREDICTION, 5).wakes(name) == prediction


def test_what_would_wake_after_the_last_step_does_not() -> None:
    assert schedule(pc.network(MODULE), LEARNING, 1).wakes("e1") is None
