import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar

F64 = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
rows: Any = [[1.0]]


def layers(out=4, inn=5, *, bias=True, seed=0, dtype=F64):
    """Return a sparse layer, and the dense one that computes the same."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, inn, generator=generator, dtype=dtype)
    weight[torch.rand(out, inn, generator=generator) < 0.6] = 0.0
    weight[0] = 0.0  # a row and a column without entries
    weight[:, 1] = 0.0
    dense = nn.Linear(inn, out, bias=bias, dtype=dtype)
    with torch.no_grad():
        dense.weight.copy_(weight)
    return nd.SparseLinear(weight.to_sparse_csr(), dense.bias), dense


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("samples", [1, 3])
def test_value_feedback_and_gradient_are_those_of_the_dense_layer(bias, samples):
    sparse, dense = layers(bias=bias)
    x, v = torch.randn(samples, 5, dtype=F64), torch.randn(samples, 4, dtype=F64)
    one, other = nd.Stage(sparse), nd.Stage(dense)
    assert (one.affine, one.input_size, one.output_size) == (True, 5, 4)
    torch.testing.assert_close(one.at(x).value, other.at(x).value)
    torch.testing.assert_close(one.at(x).feedback(v), other.at(x).feedback(v))
    torch.testing.assert_close(sparse(x), dense(x))
    values, *biases = one.at(x).gradient(v)
    weight, *wanted = other.at(x).gradient(v)
    torch.testing.assert_close(values, weight[dense.weight != 0])
    torch.testing.assert_close(biases, wanted)
    assert "SparseLinear(5 → 4)" in str(one)


@pytest.mark.parametrize("given", [torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_coo, torch.Tensor.clone])
def test_weights_are_taken_in_any_layout(given):
    _, dense = layers()
    layer = nd.SparseLinear(given(dense.weight.detach()), dense.bias)
    assert layer.weight.layout == torch.sparse_csr
    torch.testing.assert_close(layer.weight.to_dense(), dense.weight.detach())
    assert len(layer.values) == int((dense.weight != 0).sum())
    again = copy.deepcopy(layer).double()
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again.weight.to_dense(), dense.weight.detach())


def test_the_way_back_sees_each_entry_as_it_is_and_is_copied():
    """However small an entry is beside the others, whose sum is not moved by it."""
    layer = nd.SparseLinear(torch.tensor([[1e-4, 1e6], [0.0, 1.0]]))
    point, v = nd.Stage(layer).at(torch.ones(1, 2)), torch.tensor([[1.0, 0.0]])
    assert point.feedback(v)[0, 0] == layer.values[0]
    layer.values.data[0] = 2e-4
    for own in (layer, copy.deepcopy(layer)):
        assert nd.Stage(own).at(torch.ones(1, 2)).feedback(v)[0, 0] == layer.values[0]


def test_autograd_differentiates_it_twice():
    sparse, _ = layers()
    x = torch.randn(2, 5, dtype=F64, requires_grad=True)

    def function(values, x):
        return torch.func.functional_call(sparse, {"values": values}, (x,)).tanh()

    assert gradcheck(function, [sparse.values, x])
    assert gradgradcheck(function, [sparse.values, x])


def recurrent(layer):
    populations = [nd.Population("u", 5, clamp=nd.Input()), nd.Population("x", 4), nd.Population("y", 5)]
    stage = nd.Stage(layer)
    couplings = [
        nd.Coupling("u", "x", nd.Forward(stage)),
        nd.Coupling("x", "y", nd.Feedback(stage, "live"), gain=0.5),
        nd.Coupling("y", "x", nd.Forward(nn.Sequential(nn.Tanh(), layer))),
    ]
    return nd.Network("recurrent", populations, couplings)


def test_networks_of_it_run_as_dense_ones():
    sparse, dense = layers()
    u = torch.randn(3, 5, dtype=F64)
    for solver in (None, nd.RK4(0.1)):
        for change in (lambda values: None, lambda values: values.data.mul_(2.0), lambda values: values.mul_(0.5)):
            with torch.no_grad():
                change(sparse.values)
                dense.weight.copy_(sparse.weight.to_dense())
            one, other = (nd.simulate(recurrent(each), u, duration=2.0, solver=solver) for each in (sparse, dense))
            for name in "xy":
                torch.testing.assert_close(torch.tensor(one[name].values), torch.tensor(other[name].values))
    found = [nd.activity(recurrent(each), u, duration=1.0, solver=nd.RK4(0.1))["y"].sum() for each in (sparse, dense)]
    (values,), (weight,) = (
        torch.autograd.grad(loss, [parameter])
        for loss, parameter in zip(found, (sparse.values, dense.weight), strict=True)
    )
    torch.testing.assert_close(values, weight[dense.weight != 0])
    torch.testing.assert_close(
        torch.tensor(nd.analysis.stability(recurrent(sparse), u).abscissa.values),
        torch.tensor(nd.analysis.stability(recurrent(dense), u).abscissa.values),
    )


def test_learning_rules_give_the_gradients_of_backprop():
    first, second = layers(4, 5)[0], layers(3, 4, seed=1)[0]
    module = nn.Sequential(first, nn.Tanh(), second)
    x, t = torch.randn(3, 5, dtype=F64), torch.randn(3, 3, dtype=F64)
    nd.backward(ar.network(module), x, t)
    found = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    (0.5 * (module(x) - t).square().sum(1)).mean().backward()
    for one, parameter in zip(found, module.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-6, rtol=1e-5)


def test_what_it_is_not_is_refused():
    weight = torch.eye(3)
    for call, message in [
        (lambda: nd.SparseLinear(torch.eye(3, dtype=torch.int64)), r"weight of SparseLinear must be a floating-point"),
        (lambda: nd.SparseLinear(rows), r"must be a floating-point tensor, not list"),
        (lambda: nd.SparseLinear(torch.ones(3)), r"has the shape \(out, in\), by rows"),
        (lambda: nd.SparseLinear(weight, torch.ones(2)), r"bias of SparseLinear has the shape \(3,\)"),
        (lambda: nd.SparseLinear(weight.to("meta")), r"must be a tensor with data, not one on the meta device"),
        (lambda: nd.SparseLinear(weight / 0.0), r"weight of SparseLinear must be finite"),
        (lambda: nd.Inverse(nd.SparseLinear(weight)), r"SparseLinear is not invertible"),
        (lambda: nd.FeedbackWeights(nd.Stage(nd.SparseLinear(weight)), seed=0, learned=False), r"feedback weights"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    two = [recurrent(layers(seed=seed)[0]) for seed in (0, 0)]
    with pytest.raises(ValueError, match=r"sparse layers do not run at once; run one by one"):
        nd.simulate(two, torch.randn(1, 5, dtype=F64), duration=1.0)
