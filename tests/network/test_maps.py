"""Maps: what each adds to dx/dt, alone and added up; maps of one's own."""

import pytest
import torch
from torch import Tensor, nn

import neurodyn as nd
from tests.couplings import PairSums, Squares, field, linear, one_coupling, vjp
from tests.problems import tensor

STAGE = nn.Sequential(linear(4, 3), nn.Tanh())
MATRIX = linear(4, 4)
SQUARE = nn.Sequential(MATRIX, nn.LeakyReLU(0.2))
MAPS = {
    "identity": (nd.Identity(), (4,), (4,), lambda a, b: a),
    "identity of an image": (nd.Identity(), (2, 3, 3), (2, 3, 3), lambda a, b: a),
    "forward": (nd.Forward(STAGE), (4,), (3,), lambda a, b: STAGE(a)),
    "inverse": (nd.Inverse(SQUARE), (4,), (4,), lambda a, b: inverse_of_square(a)),
    "feedback": (nd.Feedback(STAGE, at="b"), (3,), (4,), lambda a, b: vjp(STAGE, b, a)),
    "affine feedback": (nd.Feedback(linear(4, 3), "live"), (3,), (4,), lambda a, b: vjp(linear(4, 3), b, a)),
    "own": (Squares(), (4,), (4,), lambda a, b: a * a),
    "own of another shape": (PairSums(), (4,), (2,), lambda a, b: a.unflatten(1, (2, 2)).sum(2)),
}


def inverse_of_square(a: Tensor) -> Tensor:
    before = torch.where(a > 0, a, a / 0.2) - MATRIX.bias
    return torch.linalg.solve(MATRIX.weight, before.t()).t()


@pytest.mark.parametrize("clamped", [False, True])
@pytest.mark.parametrize(("map_", "source", "target", "expected"), MAPS.values(), ids=MAPS)
def test_a_coupling_adds_gain_times_map(map_, source, target, expected, clamped: bool) -> None:
    a, b = tensor(3, *source, seed=1), tensor(3, *target, seed=2)
    network = one_coupling(source, target, map_, clamped)
    slope = field(network, a, {"b": b}) if clamped else field(network, initial={"a": a, "b": b})
    torch.testing.assert_close(slope["b"], -2.0 / 0.5 * expected(a, b).detach())


def test_couplings_between_the_same_populations_add_up() -> None:
    network = nd.Network(
        "several",
        [nd.Population("a", 4), nd.Population("b", 4, leak=0.5)],
        [nd.Coupling("a", "b", gain=2.0), nd.Coupling("a", "b", gain=3.0), nd.Coupling("a", "b", Squares())],
    )
    a, b = tensor(2, 4, seed=1), tensor(2, 4, seed=2)
    torch.testing.assert_close(field(network, initial={"a": a, "b": b})["b"], 5 * a + a * a - 0.5 * b)


def test_a_population_may_excite_itself() -> None:
    network = nd.Network("self", [nd.Population("a", 3)], [nd.Coupling("a", "a", gain=0.25)])
    a = tensor(2, 3)
    torch.testing.assert_close(field(network, initial={"a": a})["a"], -0.75 * a)


def test_a_map_with_another_shape_than_it_says_is_refused() -> None:
    class Mean(nd.Map):
        def apply(self, source: Tensor) -> Tensor:
            return source.mean(1, keepdim=True)

    with pytest.raises(ValueError, match=r"Mean\.apply makes the shape \(3, 1\) of population a.*target has \(3, 4\)"):
        field(one_coupling((4,), (4,), Mean()), initial={"a": tensor(3, 4)})


def test_a_map_needs_apply() -> None:
    class Nothing(nd.Map):
        pass

    with pytest.raises(NotImplementedError, match="Nothing defines neither apply nor bind"):
        field(one_coupling((4,), (4,), Nothing()), initial={"a": tensor(3, 4)})


def test_what_a_run_binds_is_not_applied_within_another_map() -> None:
    with pytest.raises(NotImplementedError, match="Forward is computed by a coupling and not by apply"):
        nd.Forward(torch.nn.Tanh()).apply(tensor(3, 4))


def test_the_stage_of_a_map_is_a_stage() -> None:
    class Gated(nd.Map):
        def __init__(self) -> None:
            self.stage = nd.Forward(torch.nn.Tanh())  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"`stage` of Gated is the nd\.Stage that it uses, not Forward"):
        nd.Coupling("a", "b", Gated())


@pytest.mark.parametrize(
    ("map_", "linear"),
    [
        (nd.Identity(), True),
        (nd.Forward(nn.Linear(2, 2)), True),
        (nd.Forward(nn.Tanh()), False),
        (nd.Feedback(nn.Tanh()), True),
        (nd.Feedback(nn.Tanh(), "live"), False),
        (nd.Feedback(nn.Linear(2, 2), "live"), True),
        (nd.Inverse(nn.Linear(2, 2)), True),
        (nd.Inverse(nn.Tanh()), False),
        (Squares(), False),
        (PairSums(), True),
    ],
)
def test_maps_know_whether_they_are_linear(map_: nd.Map, linear: bool) -> None:
    assert map_.linear is linear


@pytest.mark.parametrize(("map_", "source", "target", "expected"), MAPS.values(), ids=MAPS)
def test_a_homogeneous_map_takes_nothing_to_nothing(map_, source, target, expected) -> None:
    if map_.homogeneous:
        slope = field(one_coupling(source, target, map_), initial={"b": tensor(1, *target).squeeze(0)})
        assert not slope["b"].any()


def test_a_map_of_ones_own_that_changes_the_shape_is_told_how_to_say_so() -> None:
    class Total(nd.Map):
        def apply(self, x: Tensor) -> Tensor:
            return x.sum(1, keepdim=True)

    populations = [nd.Population("u", 3), nd.Population("x", 1)]
    with pytest.raises(ValueError, match=r"Total\(u\) has 3 units, and population x has 1; .* output_shape"):
        nd.Network("total", populations, [nd.Coupling("u", "x", Total())])
    with pytest.raises(ValueError, match=r"u has 3 units, and population x has 1$"):
        nd.Network("total", populations, [nd.Coupling("u", "x")])
