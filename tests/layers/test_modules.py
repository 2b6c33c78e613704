"""Ready-made modules: sizes, weights that a seed fixes, and units that are not read."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import neurodyn as nd
from neurodyn.layers.activations import NAMED
from neurodyn.layers.modules import initialize
from tests.problems import tensor

WEIGHTS = ("scaled", "default", "xavier", "orthogonal")


def linears(module: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in module if isinstance(layer, nn.Linear)]


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5), activation=st.sampled_from(list(NAMED)))
@settings(max_examples=30, deadline=None)
def test_an_mlp_alternates_layers_and_activations(sizes: list[int], activation: str) -> None:
    module = nd.mlp(sizes, activation=activation)
    assert [(layer.in_features, layer.out_features) for layer in linears(module)] == list(pairwise(sizes))
    assert [type(layer) for layer in list(module)[1::2]] == [type(NAMED[activation]())] * (len(sizes) - 2)
    assert len(module) == 2 * len(sizes) - 3


def test_the_default_weights_are_those_of_pytorch() -> None:
    torch.manual_seed(4)
    expected = [nn.Linear(5, 4), nn.Linear(4, 3)]
    for layer, own in zip(linears(nd.mlp([5, 4, 3], weights="default", seed=4)), expected, strict=True):
        assert torch.equal(layer.weight, own.weight)
        assert torch.equal(layer.bias, own.bias)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_seed_fixes_the_weights_in_every_precision_and_nothing_else(weights) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    single, double, other = (
        nd.mlp([6, 5, 4], weights=weights, seed=seed, dtype=dtype)
        for seed, dtype in ((1, torch.float32), (1, torch.float64), (2, torch.float32))
    )
    assert torch.equal(torch.rand(2), expected)
    for a, b, c in zip(single.parameters(), double.parameters(), other.parameters(), strict=True):
        assert (a.dtype, b.dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(a, b.float())
        assert a.ndim == 1 or not torch.equal(a, c)


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (4, 7), (7, 4)])
def test_orthogonal_weights_are_so_to_double_precision(rows: int, columns: int) -> None:
    (layer,) = linears(nd.mlp([columns, rows], weights="orthogonal", dtype=torch.float64))
    w = layer.weight.detach()
    product = w @ w.t() if rows <= columns else w.t() @ w
    torch.testing.assert_close(product, torch.eye(min(rows, columns), dtype=torch.float64), rtol=0, atol=1e-14)
    assert not layer.bias.any()


def test_xavier_weights_have_their_variance() -> None:
    (layer,) = linears(nd.mlp([300, 100], weights="xavier", seed=3))
    assert layer.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert abs(layer.weight.mean().item()) < 1e-3
    assert not layer.bias.any()


def test_scaled_weights_have_their_variance_and_an_output_that_is_next_to_nothing() -> None:
    hidden, output = linears(nd.mlp([400, 300, 200], seed=3))
    assert hidden.weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert output.weight.std().item() == pytest.approx(1 / 300, rel=0.02)
    assert not any(layer.bias.any() for layer in (hidden, output))
    with_activation = nn.Sequential(nn.Linear(300, 200), nn.Tanh())
    initialize(with_activation, seed=3)
    assert linears(with_activation)[0].weight.std().item() == pytest.approx(300**-0.5, rel=0.02)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_initialize_draws_a_module_anew_in_place(weights) -> None:
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Sequential(nn.Linear(4, 3)))
    parameters = list(module.parameters())
    initialize(module, weights, seed=7)
    assert [id(p) for p in module.parameters()] == [id(p) for p in parameters]
    first = [p.detach().clone() for p in parameters]
    initialize(module, weights, seed=8)
    initialize(module, weights, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first, module.parameters(), strict=True))
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [3]}, "sizes of mlp: at least two positive numbers"),
        ({"sizes": {3, 2}}, "sizes of mlp must be a list, as a set has no order"),
        ({"sizes": [3, 0]}, "sizes of mlp: at least two positive numbers"),
        ({"sizes": [3, 2.0]}, "sizes of mlp: at least two positive numbers"),
        ({"sizes": [3, 2], "activation": "swish"}, "activation of mlp: one of tanh.*, not 'swish'"),
        (
            {"sizes": [3, 2], "weights": "ones"},
            "weights: one of 'scaled', 'default', 'xavier', 'orthogonal', not 'ones'",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        nd.mlp(**arguments)


def test_initialize_draws_weights_wherever_their_layer_has_them() -> None:
    module, other = nd.mlp([4, 3, 2], seed=0), nd.mlp([4, 3, 2], seed=0)
    prune.random_unstructured(module[0], "weight", 0.5)
    with pytest.raises(ValueError, match=r"Linear.* makes its weight of other parameters.* draw its weights before"):
        initialize(module, "xavier", seed=3)
    prune.remove(module[0], "weight")
    assert next(iter(module[0]._parameters)) == "bias"
    initialize(module, "xavier", seed=3)
    initialize(other, "xavier", seed=3)
    assert torch.equal(module[0].get_parameter("weight"), other[0].get_parameter("weight"))
    assert torch.equal(module[0].get_parameter("bias"), other[0].get_parameter("bias"))


def test_first_units_are_read_and_the_others_are_not() -> None:
    x = tensor(3, 5).requires_grad_()
    y = nd.FirstUnits(2)(x)
    assert torch.equal(y, x[:, :2])
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient[:, :2].all()
    assert not gradient[:, 2:].any()
    with pytest.raises(ValueError, match=r"FirstUnits\(6\) reads a layer of at least as many units, .* has 5"):
        nd.FirstUnits(6)(x)


@pytest.mark.parametrize(("units", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_first_units_are_a_positive_number(units, error: type[Exception]) -> None:
    with pytest.raises(error, match="units of FirstUnits must be an integer ≥ 1"):
        nd.FirstUnits(units)


@pytest.mark.parametrize("before_activation", [False, True])
def test_a_stage_begins_at_the_units_that_it_reads(before_activation: bool) -> None:
    module = nn.Sequential(
        *(nd.FirstUnits(6), nn.Linear(6, 6), nn.Tanh()),
        *(nd.FirstUnits(4), nn.Linear(4, 4), nn.Tanh(), nd.FirstUnits(2)),
    ).double()
    stages = nd.cut(module, before_activation=before_activation)
    names = [[type(layer).__name__ for layer in stage.layers] for stage in stages]
    if before_activation:
        assert names == [["FirstUnits", "Linear"], ["Tanh", "FirstUnits", "Linear"], ["Tanh", "FirstUnits"]]
    else:
        assert names == [["FirstUnits", "Linear", "Tanh"], ["FirstUnits", "Linear", "Tanh", "FirstUnits"]]
        assert [stage.output_size for stage in stages] == [6, 2]
    x = tensor(3, 8).requires_grad_()
    y, points = module(x), []
    here = x.detach()
    for stage in stages:
        points.append(stage.at(here))
        here = points[-1].value
    torch.testing.assert_close(here, y)
    v = tensor(3, 2, seed=1)
    expected = torch.autograd.grad(y, [x, *module.parameters()], v)
    found: list[torch.Tensor] = []
    for point in reversed(points):
        found = [*point.gradient(v), *found]
        v = point.feedback(v)
    torch.testing.assert_close([v, *found], list(expected))
