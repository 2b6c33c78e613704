"""Couplings: what each map adds to dx/dt, alone, added up, at frozen and at live operating points."""

import pytest
import torch
from torch import Tensor, nn

import neurodyn as nd
from tests.problems import mlp, tensor


def field(network: nd.Network, inputs=None, initial=None) -> dict[str, Tensor]:
    """Return dx/dt at the start."""
    system = nd.System(network, inputs, initial=initial)
    state, slope = system.initial_state(), system.new_state()
    system.field(state, slope)
    return {name: slope.activity[name].clone() for name in system.dynamic}


def one_coupling(source: tuple[int, ...], target: tuple[int, ...], map_: nd.Map, clamped: bool = False) -> nd.Network:
    """Return a network with one coupling a → b, of gain −2, into a population of time constant ½ and no leak."""
    return nd.Network(
        "one coupling",
        [
            nd.Population("a", source, clamp=nd.Input()) if clamped else nd.Population("a", source),
            nd.Population("b", target, tau=0.5, leak=0.0),
        ],
        [nd.Coupling("a", "b", map_, gain=-2.0)],
    )


def linear(before: int, after: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(before, after, dtype=torch.float64)


class Squares(nd.Map):
    def apply(self, source: Tensor) -> Tensor:
        return source**2


class PairSums(nd.Map):
    linear = True

    def apply(self, source: Tensor) -> Tensor:
        return source[:, ::2] + source[:, 1::2]

    def output_shape(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
        return (source[0] // 2,)


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


def vjp(module: nn.Module, point: Tensor, v: Tensor) -> Tensor:
    point = point.clone().requires_grad_()
    return torch.autograd.grad(module(point), point, v)[0]


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


def test_frozen_feedback_uses_the_forward_pass() -> None:
    example = mlp()
    first, second, _ = nd.cut(example.module)
    network = nd.Network(
        "frozen",
        [nd.Population("s", 12, clamp=nd.Input()), nd.Population("x1", 9), nd.Population("x2", 7)],
        [nd.Coupling("x2", "x1", nd.Feedback(second))],
        forward=[first, second],
    )
    x1, x2 = tensor(6, 9), tensor(6, 7)
    module = nn.Sequential(*second.layers)
    expected = vjp(module, first.forward(example.inputs), x2) - x1
    torch.testing.assert_close(field(network, example.inputs, {"x1": x1, "x2": x2})["x1"], expected)


def test_live_points_follow_the_activity() -> None:
    stage = nd.Stage(STAGE, "1")
    network = nd.Network(
        "pair",
        [nd.Population("x", 4, leak=0.0), nd.Population("e", 3, leak=0.0)],
        [nd.Coupling("x", "e", nd.Forward(stage)), nd.Coupling("e", "x", nd.Feedback(stage, "live"))],
    )
    system = nd.System(network, initial={"x": tensor(2, 4), "e": tensor(2, 3)})
    for seed in range(3):
        state, slope = system.initial_state(), system.new_state()
        state.flat.copy_(tensor(system.size, seed=seed))
        system.field(state, slope)
        x, e = state.activity["x"], state.activity["e"]
        torch.testing.assert_close(slope.activity["e"], STAGE(x).detach())
        torch.testing.assert_close(slope.activity["x"], vjp(STAGE, x, e))


def test_feedback_of_an_affine_stage_does_not_read_its_target() -> None:
    """Otherwise what the target gives on would be worked out before the target itself."""
    stage = nd.Stage([nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 2, 2, dtype=torch.float64), nn.Flatten()], "1")
    network = nd.Network(
        "down and up",
        [nd.Population("a", 8, clamp=nd.Input()), nd.Population("b", 9, tau=0.0), nd.Population("c", 8)],
        [nd.Coupling("a", "b", nd.Feedback(stage, "live")), nd.Coupling("b", "c", nd.Forward(stage))],
    )
    a = tensor(2, 8)
    found = nd.equilibrium(network, a)
    b = vjp(nn.Sequential(*stage.layers), torch.zeros(2, 9, dtype=torch.float64), a)
    torch.testing.assert_close(torch.tensor(found.b.values), b)
    torch.testing.assert_close(torch.tensor(found.c.values), stage.forward(b))


def test_an_inverse_follows_the_weights() -> None:
    layer = linear(4, 4)
    network = one_coupling((4,), (4,), nd.Inverse(layer), clamped=True)
    a = tensor(2, 4)
    before = field(network, a)["b"]
    with torch.no_grad():
        layer.weight.mul_(2.0)
        layer.bias.zero_()
    after = field(network, a)["b"]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, -4.0 * torch.linalg.solve(layer.weight.detach(), a.t()).t())


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


def test_a_map_may_be_made_of_any_module() -> None:
    assert nd.Forward(nn.Tanh()).stage.name == "Tanh"
    with pytest.raises(TypeError, match=r"nn\.Module layers"):
        nd.Forward(torch.tanh)  # type: ignore[arg-type]


def test_the_operating_point_is_frozen_or_live() -> None:
    with pytest.raises(ValueError, match="is 'frozen' or 'live', not 'melted'"):
        nd.Feedback(nn.Tanh(), "melted")  # type: ignore[arg-type]


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
