"""Maps of another map: modulation by the derivative of a stage."""

import pytest
import torch
from torch import nn

import neurodyn as nd
from tests.problems import tensor


@pytest.mark.parametrize("power", [2, 1, -2])
@pytest.mark.parametrize(
    ("layers", "f"),
    [
        ([nn.Linear(4, 3), nn.Tanh()], torch.tanh),
        ([nn.Tanh(), nn.Linear(4, 3)], lambda h: h),
        ([nn.Linear(4, 6), nn.Tanh(), nn.Sigmoid(), nd.FirstUnits(3)], lambda h: torch.sigmoid(torch.tanh(h))[:, :3]),
        ([nn.Linear(4, 3), nn.ELU()], nn.functional.elu),
    ],
)
def test_modulation_is_the_derivative_of_the_last_activations(layers, f, power: int) -> None:
    stage = nd.Stage(nn.Sequential(*layers).double(), "1")
    network = nd.Network(
        "modulated",
        [
            nd.Population("s", 4, clamp=nd.Input()),
            nd.Population("a", 3, initial=nd.ForwardValue(stage)),
            nd.Population("b", 3, tau=0.0),
        ],
        [nd.Coupling("a", "b", nd.Modulated(nd.Identity(), stage, power), gain=-2.0), nd.Coupling("a", "b")],
        forward=[stage],
    )
    s = tensor(5, 4)
    system = nd.System(network, s)
    state = system.initial_state()
    system.settle(state)
    last = max(i for i, each in enumerate(layers) if isinstance(each, nn.Linear))
    h = nn.Sequential(*layers[: last + 1])(s).detach().requires_grad_()
    slope = torch.autograd.grad(f(h).sum(), h)[0][:, :3]
    a = state.activity["a"]
    torch.testing.assert_close(state.activity["b"], a - 2.0 * slope**power * a)


def test_modulation_by_what_is_no_activation_is_refused() -> None:
    stage = nd.Stage([nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)], "1")
    with pytest.raises(ValueError, match=r"stage 1 .* ends in MaxPool2d, which is no activation"):
        nd.Modulated(nd.Identity(), stage, 2)


def test_the_stages_of_a_modulated_map_are_checked() -> None:
    populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("a", 3), nd.Population("b", 3)]
    first, other = nd.Stage(nn.Linear(3, 3), "1"), nd.Stage(nn.Linear(3, 3), "2")
    for modulated in (
        nd.Modulated(nd.InverseDeviation(other, 0.1), first, 2),
        nd.Modulated(nd.InverseDeviation(first, 0.1), other, 2),
    ):
        with pytest.raises(ValueError, match=r"coupling a → b: stage 2 .* is used at the forward pass"):
            nd.Network("n", populations, [nd.Coupling("a", "b", modulated)], forward=[first])
    network = nd.Network(
        "n", populations, [nd.Coupling("a", "b", nd.Modulated(nd.Forward(other), first, 2))], forward=[first]
    )
    assert set(network.stages) == {first, other}


def test_what_is_wrapped_is_found_however_deep() -> None:
    stage = nd.cut(nd.models.target_propagation.tower([3, 3]))[0]
    deep = nd.Modulated(nd.Modulated(nd.InverseDeviation(stage, 0.1), stage, 2), stage, -2)
    populations = [nd.Population("s", 3, clamp=nd.Input()), nd.Population("a", 3), nd.Population("b", 3)]
    network = nd.Network("n", populations, [nd.Coupling("a", "b", deep)], forward=[stage])
    with pytest.raises(ValueError, match="InverseDeviation carries scaled deviations"):
        nd.activity(network, tensor(2, 3), duration=1.0)
    with pytest.raises(ValueError, match="Modulated takes one source"):
        nd.Coupling(("a", "b"), "b", nd.Modulated(nd.Modulated(nd.Identity(), stage, 2), stage, 2))
