"""Maps of a stage: at frozen and at live operating points, and with the present weights."""

import pytest
import torch
from torch import nn

import neurodyn as nd
from tests.couplings import field, linear, one_coupling, vjp
from tests.problems import mlp, tensor


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
    module = nn.Sequential(linear(4, 3), nn.Tanh())
    stage = nd.Stage(module, "1")
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
        torch.testing.assert_close(slope.activity["e"], module(x).detach())
        torch.testing.assert_close(slope.activity["x"], vjp(module, x, e))


def test_feedback_of_an_affine_stage_from_what_is_held_reads_no_point() -> None:
    module = linear(4, 3)
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 4), nd.Population("y", 4)]
    back = nd.Coupling("u", "x", nd.Feedback(module, at="y"))
    network = nd.Network("held", populations, [back, nd.Coupling(nd.Prospective("x"), "y")])
    u = tensor(2, 3)
    found = nd.equilibrium(network, u)
    for name in "xy":
        torch.testing.assert_close(torch.tensor(found[name].values), u @ module.weight.detach())


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


def test_a_map_may_be_made_of_any_module() -> None:
    assert nd.Forward(nn.Tanh()).stage.name == "Tanh"
    with pytest.raises(TypeError, match=r"nn\.Module layers"):
        nd.Forward(torch.tanh)  # type: ignore[arg-type]


def test_the_operating_point_is_frozen_or_live() -> None:
    with pytest.raises(ValueError, match="is 'frozen' or 'live', not 'melted'"):
        nd.Feedback(nn.Tanh(), "melted")  # type: ignore[arg-type]
