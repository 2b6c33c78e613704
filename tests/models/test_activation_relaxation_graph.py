"""Activation relaxation on computation graphs, against autograd and against its equations written as plain loops."""

import copy
from collections import Counter
from functools import cache
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.layers.points import AutogradPoint
from neurodyn.models import activation_relaxation as ar
from neurodyn.structure.cache import structure_of
from tests.graphs import NAMES, Case, case, make
from tests.problems import tensor


def network(example: Case, **options) -> nd.Network:
    return ar.graph(example.module, example.inputs, **options)


@cache
def network_of(name: str) -> nd.Network:
    return network(case(name))


def distance(found: xr.Dataset, expected: xr.Dataset) -> float:
    return max(float(abs(found[name] - expected[name]).max()) for name in expected.data_vars)


class Diamond(nn.Module):
    """a = tanh(W s), b = a ⊙ a, c = a + b, y = V c: b uses a twice, and a has two children."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 3, dtype=torch.float64), nn.Linear(3, 2, dtype=torch.float64)

    def forward(self, s: Tensor) -> Tensor:
        a = self.first(s).tanh()
        return self.last(a + a * a)


@cache
def diamond() -> Case:
    """Return a case that is not to be changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(Diamond(), tensor(5, 4), tensor(5, 2, seed=1))


@cache
def network_of_diamond(output: Literal["clamped", "relaxing"] = "clamped") -> nd.Network:
    return network(diamond(), output=output)


# What the recurrent layers and the transformer come down to, the cells and the attention do.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("recurrent layers", "transformer")])
def test_the_equilibrium_is_reverse_mode_differentiation(name: str) -> None:
    example, net = case(name), network_of(name)
    expected_loss, expected = example.loss().detach(), example.gradients()
    example.module.zero_grad()
    loss = nd.backward(net, example.inputs, example.targets)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=1e-12)
    learning = [p for p in example.module.parameters() if p.requires_grad]
    for parameter, gradient in zip(learning, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-9)
    assert all(p.grad is None for p in example.module.parameters() if not p.requires_grad)
    found = nd.equilibrium(net, example.inputs, example.targets)
    assert distance(found, nd.analysis.backprop(net, example.inputs, example.targets)) < 1e-9


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("residual block", {"conv1": "x_conv2d_1", "conv2": "x_conv2d_2", "readout": "x_linear_1"}),
        ("attention", {"norm": "x_layer_norm_1", "query": "x_linear_1", "value": "x_linear_3", "out": "x_linear_4"}),
        ("language model", {"words": "x_embedding_1", "norm": "x_layer_norm_1", "qkv": "x_linear_1"}),
    ],
)
def test_inner_populations_hold_the_gradients_that_hooks_see(name: str, parts: dict[str, str]) -> None:
    example = case(name)
    seen: dict[str, Tensor] = {}

    def keep(part: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            output.register_hook(lambda gradient: seen.__setitem__(part, gradient))

        return hook

    handles = [example.module.get_submodule(part).register_forward_hook(keep(part)) for part in parts]
    loss = example.loss() * len(example.inputs)
    for handle in handles:
        handle.remove()
    torch.autograd.grad(loss, list(example.module.parameters()))
    found = nd.equilibrium(network_of(name), example.inputs, example.targets)
    for part, population in parts.items():
        torch.testing.assert_close(torch.tensor(found[population].values), seen[part], rtol=0, atol=1e-9)


@pytest.mark.parametrize("output", ["clamped", "relaxing"])
def test_the_dynamics_are_those_of_the_paper(output: Literal["clamped", "relaxing"]) -> None:
    example = diamond()
    module, step, iterations = example.module, 0.3, 12
    assert isinstance(module, Diamond)
    with torch.no_grad():
        h = module.first(example.inputs)
        a = h.tanh()
        y = module.last(a + a * a)
        error = y - example.targets
        # In the graph's own names: the linear map and the tanh are nodes apart.
        x = {"linear_1": h, "tanh_1": a, "mul_1": a * a, "add_1": a + a * a, "linear_2": y}
        if output == "clamped":
            x["linear_2"] = error
        states = [x]
        for _ in range(iterations):
            into = {
                "linear_1": x["tanh_1"] * (1 - a * a),
                "tanh_1": 2 * a * x["mul_1"] + x["add_1"],
                "mul_1": x["add_1"],
                "add_1": x["linear_2"] @ module.last.weight,
                "linear_2": error,
            }
            x = {name: value + step * (into[name] - value) for name, value in x.items()}
            if output == "clamped":
                x["linear_2"] = error
            states.append(x)
    net = network_of_diamond(output)
    found = nd.simulate(net, example.inputs, example.targets, duration=iterations * step, solver=nd.Euler(step))
    for name in x:
        expected = torch.stack([state[name] for state in states])
        torch.testing.assert_close(torch.tensor(found[f"x_{name}"].values), expected, rtol=1e-12, atol=1e-13)


def test_the_energy_is_that_of_the_paper() -> None:
    example, net = diamond(), network_of_diamond()
    found = nd.simulate(net, example.inputs, example.targets, duration=1.0, record=[*names(net), "energy"], save_at=3)
    x = {name: torch.tensor(found[f"x_{name}"].values) for name in ("linear_1", "tanh_1", "mul_1", "add_1", "linear_2")}
    module = example.module
    assert isinstance(module, Diamond)
    with torch.no_grad():
        predicted = {
            "linear_1": module.first(example.inputs).expand(3, -1, -1),
            "tanh_1": x["linear_1"].tanh(),
            "mul_1": x["tanh_1"] ** 2,
            "add_1": x["tanh_1"] + x["mul_1"],
            "linear_2": module.last(x["add_1"]),
        }
    expected = sum(0.5 * ((x[name] ** 2).sum(-1) - (predicted[name] ** 2).sum(-1)) for name in x)
    torch.testing.assert_close(torch.tensor(found.energy.values), expected, rtol=1e-12, atol=1e-12)


def names(net: nd.Network) -> list[str]:
    return [population.name for population in net.populations if population.name.startswith("x_")]


def test_a_step_of_one_is_exact_after_as_many_iterations_as_the_longest_path() -> None:
    example, net = diamond(), network_of_diamond()
    exact = nd.analysis.backprop(net, example.inputs, example.targets)
    path = nd.simulate(net, example.inputs, example.targets, duration=4.0, solver=nd.Euler(1.0))
    # From the clamped output back: add, mul, tanh, linear.
    assert distance(path.isel(time=4), exact) < 1e-12
    assert distance(path.isel(time=3)[["x_linear_1"]], exact[["x_linear_1"]]) > 1e-3
    assert distance(path.isel(time=3)[["x_tanh_1"]], exact[["x_tanh_1"]]) < 1e-12


def test_the_closed_form_is_the_flow_and_its_euler_iterates() -> None:
    example, net = diamond(), network_of_diamond()
    assert structure_of(net, frozenset({"s"})).rate == 1.0
    data = (example.inputs, example.targets)
    flow = nd.simulate(net, *data, duration=5.0, save_at=6)
    assert flow.solver.startswith("Exact")
    stepped = nd.simulate(net, *data, duration=5.0, save_at=6, solver=nd.Adaptive(rtol=1e-10, atol=1e-12))
    assert distance(flow, stepped[names(net)]) < 1e-7
    iterates = nd.simulate(net, *data, duration=5.0, solver=nd.Exact(euler_step=0.1), save_at="steps")
    loop = nd.simulate(net, *data, duration=5.0, solver=nd.Euler(0.1))
    assert distance(iterates, loop[names(net)]) < 1e-12


def test_a_relaxation_that_stops_early_leaves_its_own_gradient() -> None:
    example, net = diamond(), network_of_diamond()
    example.module.zero_grad()
    nd.backward(net, example.inputs, example.targets, duration=1.0, solver=nd.Euler(0.5))
    end = nd.simulate(net, example.inputs, example.targets, duration=1.0, solver=nd.Euler(0.5)).isel(time=-1)
    x = torch.tensor(end.x_linear_1.values)
    weight = example.module.get_parameter("first.weight")
    torch.testing.assert_close(weight.grad, x.T @ example.inputs / len(x), rtol=1e-12, atol=1e-14)


def test_updates_of_shared_weights_add_up() -> None:
    example, net = case("shared"), network_of("shared")
    example.module.zero_grad()
    found = nd.equilibrium(net, example.inputs, example.targets)
    nd.backward(net, example.inputs, example.targets)
    weight = example.module.get_parameter("layer.weight")
    with torch.no_grad():
        pre = [example.inputs, (example.inputs @ weight.T + example.module.get_parameter("layer.bias")).tanh()]
    post = [torch.tensor(found[name].values) for name in ("x_linear_1", "x_linear_2")]
    expected = sum(x.T @ s for x, s in zip(post, pre, strict=True)) / len(example.inputs)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-12, atol=1e-13)


def test_another_loss_and_several_steps_of_learning() -> None:
    def cross_entropy(y: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(y.flatten(0, 1), t.flatten(0, 1), reduction="none").view(len(y), -1).sum(1)

    example = make("language model")
    targets = example.targets.softmax(-1)
    twin = copy.deepcopy(example.module)
    net = network(example, loss=cross_entropy)
    ours, theirs = (torch.optim.SGD(module.parameters(), lr=0.1) for module in (example.module, twin))
    for _ in range(3):
        ours.zero_grad()
        theirs.zero_grad()
        found = nd.backward(net, example.inputs, targets)
        loss = cross_entropy(twin(example.inputs), targets).mean()
        loss.backward()
        torch.testing.assert_close(found, loss.detach(), rtol=1e-11, atol=0)
        ours.step()
        theirs.step()
    for a, b in zip(example.module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_single_precision_agrees_with_double() -> None:
    example = make("residual block")
    exact = example.gradients()
    module = example.module.float()
    inputs, targets = example.inputs.float(), example.targets.float()
    nd.backward(ar.graph(module, inputs), inputs, targets)
    for parameter, gradient in zip(module.parameters(), exact, strict=True):
        torch.testing.assert_close(parameter.grad, gradient.float(), rtol=1e-4, atol=1e-5)


def test_a_graph_that_is_a_chain_relaxes_as_the_network_of_its_layers() -> None:
    module = nd.mlp([4, 3, 2], activation="tanh", seed=0, dtype=torch.float64)
    x, t = tensor(5, 4), tensor(5, 2, seed=1)
    chain = nd.equilibrium(ar.network(module), x, t)
    graph = nd.equilibrium(ar.graph(module, x), x, t)
    torch.testing.assert_close(graph.x_tanh_1.values, chain.x1.values, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(graph.x_linear_2.values, chain.x2.values, rtol=1e-12, atol=1e-14)


def test_misfits_are_refused() -> None:
    example, net = case("attention"), network_of("attention")
    with pytest.raises(ValueError, match="output is 'clamped' or 'relaxing', not 'free'"):
        network(example, output="free")
    with pytest.raises(ValueError, match=r"population s: input has the shape \(4, 4, 6\)"):
        nd.equilibrium(net, example.inputs[:, :4], example.targets)
    with pytest.raises(ValueError, match=r"targets have the shape \(4, 5, 5\)"):
        nd.equilibrium(net, example.inputs, example.targets[..., :5])
    language = case("language model")
    with pytest.raises(ValueError, match=r"stage embedding_1 \(embedding in words\) does not take an input of 4"):
        nd.equilibrium(network_of("language model"), language.inputs + 100, language.targets)
    with pytest.raises(TypeError, match=r"inputs of population s must be a tensor of integers, not torch\.float64"):
        nd.equilibrium(network_of("language model"), language.inputs.double(), language.targets)


def test_a_gradient_works_out_each_transposed_jacobian_once(monkeypatch) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            own = self.norm(x)
            return self.last(x + torch.softmax(own @ own.transpose(1, 2), -1) @ own)

    worked_out: Counter[tuple[int, int]] = Counter()
    original = AutogradPoint.feedback_to

    def counted(self: AutogradPoint, argument: int, v: Tensor) -> Tensor:
        worked_out[id(self), argument] += 1
        return original(self, argument, v)

    x = torch.rand(2, 3, 4)
    network = ar.graph(Attention(), x)
    monkeypatch.setattr(AutogradPoint, "feedback_to", counted)
    nd.backward(network, x, torch.rand(2, 3, 4))
    assert len(worked_out) > 6
    assert set(worked_out.values()) == {1}
