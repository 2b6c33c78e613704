"""The variants of activation relaxation, against their equations written as plain loops, one layer after the other."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from tests.problems import Example, cnn, mlp, tensor

ITERATIONS, STEP = 100, 0.1
"""Of the papers."""


@dataclass(frozen=True)
class Loop:
    """The equations of a perceptron of tanh units with a linear output, as they stand in the papers.

    Parameters
    ----------
    example
        The perceptron and its data.
    psi
        The feedback weights of each layer, shape (in, out), by its number; Wᵀ where there are none.
    top_down
        Whether a layer uses what the layer above has become in the same iteration, as in the authors' code.
    """

    example: Example
    psi: Mapping[int, Tensor]
    relaxation_derivative: str = "frozen"
    weight_derivative: str = "frozen"
    presynaptic: str = "frozen"
    input: str = "relaxing"
    output: str = "clamped"
    top_down: bool = False
    iterations: int = ITERATIONS

    @property
    def layers(self) -> list[nn.Linear]:
        return [layer for layer in self.example.module if isinstance(layer, nn.Linear)]

    def f(self, layer: int, h: Tensor) -> Tensor:
        return h if layer == len(self.layers) else torch.tanh(h)

    def h(self, layer: int, x: Tensor) -> Tensor:
        linear = self.layers[layer - 1]
        return x @ linear.weight.T + linear.bias

    def slope(self, which: str, layer: int, frozen: Tensor, live: Tensor) -> Tensor:
        """Return f' of a layer, given x_{l−1} of the forward pass and of now."""
        h = self.h(layer, live if which == "live" else frozen)
        if which == "none" or layer == len(self.layers):
            return torch.ones_like(h)
        return 1 - torch.tanh(h) ** 2

    @torch.no_grad()
    def gradients(self) -> list[Tensor]:
        """ΔW_l and Δb_l after the relaxation, the first layer first."""
        last = len(self.layers)
        bar = [self.example.inputs]
        for layer in range(1, last + 1):
            bar.append(self.f(layer, self.h(layer, bar[-1])))
        error = bar[last] - self.example.targets
        x = list(bar)
        if self.output == "clamped":
            x[last] = error
        lowest, highest = (0 if self.input == "relaxing" else 1), (last if self.output == "relaxing" else last - 1)
        for _ in range(self.iterations):
            above = x if self.top_down else list(x)
            for layer in range(highest, lowest - 1, -1):
                if layer == last:
                    into = error
                else:
                    slope = self.slope(self.relaxation_derivative, layer + 1, bar[layer], x[layer])
                    back = self.psi.get(layer + 1, self.layers[layer].weight.T)
                    into = (above[layer + 1] * slope) @ back.T
                x[layer] = x[layer] + STEP * (into - x[layer])
        found = []
        for layer in range(1, last + 1):
            delta = x[layer] * self.slope(self.weight_derivative, layer, bar[layer - 1], x[layer - 1])
            before = x[layer - 1] if self.presynaptic == "live" else bar[layer - 1]
            found += [delta.T @ before / len(error), delta.sum(0) / len(error)]
        return found


def psi_of(network: nd.Network) -> dict[int, Tensor]:
    return {int(name): parameter.detach() for name, parameter in network.feedback_parameters()}


def backward(network: nd.Network, example: Example, iterations: int = ITERATIONS) -> list[Tensor]:
    """Return what the papers' relaxation leaves in `.grad`."""
    example.module.zero_grad()
    nd.backward(network, example.inputs, example.targets, duration=iterations * STEP, solver=nd.Euler(STEP))
    return gradients(example.module.parameters())


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return the `.grad` of each parameter, all of which have one."""
    found = [parameter.grad for parameter in parameters]
    assert all(gradient is not None for gradient in found)
    return found  # type: ignore[return-value]


def largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(found, expected, strict=True))


def variants() -> Iterator[dict[str, Any]]:
    """Every combination of the options; the input makes a difference where a weight update reads its live activity."""
    derivative = ("frozen", "live", "none")
    for feedback, relaxation, weight, presynaptic, output in product(
        ("transpose", "fixed", "learned"), derivative, derivative, ("frozen", "live"), ("clamped", "relaxing")
    ):
        for layer in ("relaxing", "clamped") if "live" in (weight, presynaptic) else ("relaxing",):
            yield {
                "feedback": feedback,
                "relaxation_derivative": relaxation,
                "weight_derivative": weight,
                "presynaptic": presynaptic,
                "input": layer,
                "output": output,
            }


@pytest.mark.parametrize("options", list(variants()), ids=lambda options: " ".join(options.values()))
def test_every_variant_equals_its_equations(options):
    example, iterations = mlp(), 25  # in which all that differs between the variants has long reached every layer
    network = ar.network(example.module, seed=3, **options)
    equations = {option: value for option, value in options.items() if option != "feedback"}
    expected = Loop(example, psi_of(network), **equations, iterations=iterations).gradients()
    assert largest_difference(backward(network, example, iterations), expected) < 1e-13

    for name, parameter in network.feedback_parameters():
        if options["feedback"] == "fixed":
            assert parameter.grad is None
        else:
            weight = network.forward[int(name) - 1].parameters[0]
            found, change = gradients([parameter, weight])
            assert torch.equal(found, change.T)
    psi = psi_of(network)
    layers = range(1 if network.populations[1].name == "x0" else 2, 4)
    assert list(psi) == ([] if options["feedback"] == "transpose" else list(layers))

    single = mlp(dtype=torch.float32)
    approximate = backward(ar.network(single.module, seed=3, **options), single, iterations)
    assert largest_difference(approximate, expected) < 2e-4


AUTHORS: dict[str, dict[str, Any]] = {
    "default": {},
    "learned ψ": {"feedback": "learned"},
    "fixed ψ": {"feedback": "fixed"},
    "no derivative": {"relaxation_derivative": "none"},
    "learned ψ, no derivative": {"feedback": "learned", "relaxation_derivative": "none"},
    "live derivative, relaxation": {"relaxation_derivative": "live"},
    "live derivative, weights": {"weight_derivative": "live"},
    "live derivative, both": {"relaxation_derivative": "live", "weight_derivative": "live"},
    "live presynaptic": {"presynaptic": "live"},
}


@pytest.mark.parametrize("options", AUTHORS.values(), ids=AUTHORS.keys())
def test_layers_relaxed_in_turn_from_the_top_as_in_the_authors_code_agree_after_100_iterations(options):
    # Their sizes, but for the input; weights from N(0, 0.05²), no biases, 64 samples.
    module = nd.mlp([64, 300, 300, 100, 10])
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, 0.0, 0.05, generator=generator)
        else:
            nn.init.zeros_(parameter)
    inputs = torch.rand(64, 64, generator=generator)
    targets = nn.functional.one_hot(torch.arange(64) % 10, 10).float()
    example = Example(module, inputs, targets)
    network = ar.network(module, **options)
    equations = {option: value for option, value in options.items() if option != "feedback"}
    in_turn = Loop(example, psi_of(network), top_down=True, **equations).gradients()
    assert largest_difference(backward(network, example), in_turn) < 2e-4


ACTIVATIONS = (nn.Tanh, nn.Sigmoid, nn.ReLU)


def layerwise(
    example: Example, psi: Mapping[str, Tensor], simple: Callable[[nd.Stage], bool], relaxation: bool, weight: bool
) -> list[Tensor]:
    """Return the gradients at the equilibrium, by `torch.autograd` of one layer at a time, each with its ψ."""
    stages = nd.cut(example.module)
    values = [example.inputs]
    for stage in stages:
        values.append(stage.forward(values[-1]))
    x = values[-1] - example.targets
    changes: list[Tensor] = []
    for stage, below in zip(stages[::-1], values[-2::-1], strict=True):
        at = [below]
        for layer in stage.layers:
            at.append(layer(at[-1]).detach())
        forth = copy.deepcopy(stage.layers)
        back = copy.deepcopy(stage.layers)
        if stage.name in psi:
            (linear,) = (layer for layer in back if isinstance(layer, (nn.Linear, nn.Conv2d)))
            tensor = psi[stage.name]
            linear.weight = nn.Parameter(tensor.T if isinstance(linear, nn.Linear) else tensor)
        delta, v = x, x
        for place in range(len(at) - 2, -1, -1):
            before = at[place].clone().requires_grad_()
            activation = isinstance(forth[place], ACTIVATIONS)
            parameters = list(forth[place].parameters())
            if parameters:
                found = torch.autograd.grad(forth[place](before), parameters, delta / len(x))
                changes = [*found, *changes]
            if not (activation and simple(stage) and not weight):
                (delta,) = torch.autograd.grad(forth[place](before), before, delta)
            if not (activation and simple(stage) and not relaxation):
                (v,) = torch.autograd.grad(back[place](before), before, v)
        x = v
    return changes


def convolves(stage: nd.Stage) -> bool:
    return any(isinstance(layer, nn.Conv2d) for layer in stage.layers)


SIMPLE = {
    "all": lambda stage: True,
    "convolutional": convolves,
    "fully connected": lambda stage: not convolves(stage),
}


@pytest.mark.parametrize("simplified", SIMPLE)
@pytest.mark.parametrize("feedback", ["transpose", "fixed", "learned"])
@pytest.mark.parametrize(("relaxation", "weight"), [(True, True), (False, True), (False, False)])
def test_simplified_convolutions_or_fully_connected_layers(simplified, feedback, relaxation, weight):
    example = cnn()
    network = ar.network(
        example.module,
        feedback=feedback,
        relaxation_derivative="frozen" if relaxation else "none",
        weight_derivative="frozen" if weight else "none",
        simplified=simplified,
    )
    simple = SIMPLE[simplified]
    psi = dict(network.feedback_parameters())
    # The first stage has no way back.
    wanted = [] if feedback == "transpose" else [stage.name for stage in network.forward[1:] if simple(stage)]
    assert list(psi) == wanted

    example.module.zero_grad()
    nd.backward(network, example.inputs, example.targets)
    psi_values = {name: parameter.detach() for name, parameter in psi.items()}
    expected = layerwise(example, psi_values, simple, relaxation, weight)
    assert largest_difference(gradients(example.module.parameters()), expected) < 1e-12
    for name, parameter in psi.items():
        if feedback == "fixed":
            assert parameter.grad is None
        else:
            found, change = gradients([parameter, network.forward[int(name) - 1].parameters[0]])
            assert torch.equal(found, change if change.ndim == 4 else change.T)


def test_the_cnn_of_the_paper_learns_with_every_simplification():
    module = ar.cnn(10, input_shape=(1, 8, 8))
    assert [tuple(p.shape) for p in module.parameters() if p.ndim > 1] == [
        (32, 1, 3, 3),
        (64, 32, 3, 3),
        (64, 64),
        (120, 64),
        (10, 120),
    ]
    network = ar.network(module, feedback="learned", relaxation_derivative="none", weight_derivative="none")
    assert [p.shape for _, p in network.feedback_parameters()] == [(64, 32, 3, 3), (64, 64), (64, 120), (120, 10)]
    train, _ = nd.data.digits(flatten=False)
    inputs, targets = train[:128]
    optimizer = torch.optim.Adam([*module.parameters(), *(p for _, p in network.feedback_parameters())], lr=0.003)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nd.backward(network, inputs, targets)
        assert loss is not None
        losses.append(float(loss))
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_learned_feedback_keeps_its_distance_to_the_transpose():
    # Δψ = (ΔW)ᵀ, so that ψ − Wᵀ is conserved, and the angle between them falls as W grows.
    example = mlp()
    network = ar.network(example.module, feedback="learned", relaxation_derivative="none")
    optimizer = torch.optim.SGD([*example.module.parameters(), *(p for _, p in network.feedback_parameters())], lr=0.1)

    def gaps() -> list[Tensor]:
        weights = {stage.name: stage.parameters[0].detach().T for stage in network.forward}
        return [psi.detach() - weights[name] for name, psi in network.feedback_parameters()]

    before = gaps()
    start = [p.detach().clone() for p in example.module.parameters()]
    for _ in range(10):
        optimizer.zero_grad()
        nd.backward(network, example.inputs, example.targets)
        optimizer.step()
    assert largest_difference(list(example.module.parameters()), start) > 0.01
    assert largest_difference(gaps(), before) < 1e-13


def test_feedback_weights_are_reproducible_differ_by_layer_and_leave_the_random_state_alone():
    module = nd.mlp([8] * 5)
    before = torch.random.get_rng_state()
    draws = [psi_of(ar.network(module, feedback="fixed", seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    for layer, draw in draws[0].items():
        assert torch.equal(draw, draws[1][layer])
    different = [*draws[0].values(), *draws[2].values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_a_module_converted_after_the_declaration_is_refused_by_the_name_of_the_feedback_weights():
    example = mlp(dtype=torch.float32)
    network = ar.network(example.module, feedback="learned")
    example.module.to(torch.float64)
    inputs, targets = example.inputs.double(), example.targets.double()
    with pytest.raises(
        TypeError, match=r"the feedback weights of stage 2 is torch\.float32 .* bring both to one dtype"
    ):
        nd.simulate(network, inputs, targets, duration=1.0)
    for _, parameter in network.feedback_parameters():
        parameter.data = parameter.data.double()
    assert nd.simulate(network, inputs, targets, duration=1.0)["x1"].dtype == "float64"


@pytest.mark.parametrize("feedback", ["transpose", "fixed", "learned"])
@pytest.mark.parametrize("relaxation_derivative", ["frozen", "none", "live"])
@pytest.mark.parametrize("output", ["clamped", "relaxing"])
def test_frozen_variants_are_linear_and_have_a_closed_form_and_live_ones_do_not(
    feedback, relaxation_derivative, output
):
    example = mlp()
    network = ar.network(
        example.module,
        feedback=feedback,
        relaxation_derivative=relaxation_derivative,
        weight_derivative="live",
        output=output,
    )
    structure = nd.System(network, example.inputs, example.targets).structure
    solver = nd.simulate(network, example.inputs, example.targets, duration=1.0).attrs["solver"]
    if relaxation_derivative == "live":
        assert not structure.linear
        assert not structure.acyclic
        assert solver.startswith("Adaptive")
        with pytest.raises(ValueError, match=r"not linear, so it has no closed form"):
            nd.simulate(network, example.inputs, example.targets, duration=1.0, solver=nd.Exact())
    else:
        assert structure.linear
        assert structure.acyclic
        assert structure.rate == 1.0
        assert solver.startswith("Exact")
        loop = Loop(example, psi_of(network), relaxation_derivative, "live", output=output).gradients()
        example.module.zero_grad()
        nd.backward(network, example.inputs, example.targets, duration=10.0, solver=nd.Exact(euler_step=0.1))
        assert largest_difference(gradients(example.module.parameters()), loop) < 1e-13


def energy(network: nd.Network, example: Example, **settings) -> Tensor:
    """Return the energy of each sample at time 0, shape (sample,)."""
    run = nd.simulate(
        network, example.inputs, example.targets, duration=1.0, save_at=[0.0], record=["energy"], **settings
    )
    return torch.tensor(run["energy"].values[0])


def test_energy_is_zero_at_the_start_but_for_the_output():
    example = mlp()
    several: list[dict[str, Any]] = [
        {},
        {"presynaptic": "live"},
        {"feedback": "learned", "relaxation_derivative": "none"},
    ]
    for options in several:
        assert float(energy(ar.network(example.module, output="relaxing", **options), example).abs().max()) < 1e-12
        at_output = energy(ar.network(example.module, **options), example)
        output = example.module(example.inputs).detach()
        expected = 0.5 * ((output - example.targets).square() - output.square()).sum(1)
        torch.testing.assert_close(at_output, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("make", [mlp, cnn])
def test_energy_along_a_trajectory_is_its_formula(make):
    example = make()
    network = ar.network(example.module, presynaptic="live", output="relaxing")
    names = ["x0", *(f"x{stage.name}" for stage in network.forward)]
    run = nd.simulate(network, example.inputs, example.targets, duration=4.0, save_at=5, record=[*names, "energy"])
    assert run["energy"].dims == ("time", "sample")
    for time in range(5):
        x = [torch.tensor(run[name].values[time]) for name in names]
        predicted = [example.inputs, *(stage.forward(below) for stage, below in zip(network.forward, x, strict=False))]
        norms = [[part.flatten(1).square().sum(1) for part in parts] for parts in (x, predicted)]
        expected = 0.5 * (sum(norms[0]) - sum(norms[1]))
        torch.testing.assert_close(torch.tensor(run["energy"].values[time]), expected)


def test_the_flow_of_the_energy_is_the_relaxation_at_the_start_but_for_the_target():
    example = Example(nd.mlp([6, 5, 4, 3, 2], dtype=torch.float64), tensor(3, 6), tensor(3, 2))
    network = ar.network(example.module)
    stages = nd.cut(example.module)
    x = [example.inputs]
    for stage in stages:
        x.append(stage.forward(x[-1]).requires_grad_())
    modules = [nn.Sequential(*stage.layers) for stage in stages]
    total = sum(
        0.5 * (above.square().sum() - module(below).square().sum())
        for module, below, above in zip(modules, x, x[1:], strict=False)
    )
    downhill = [-gradient for gradient in torch.autograd.grad(total, x[1:4])]
    system = nd.System(network, example.inputs, example.targets)
    slope = system.new_state()
    system.field(system.initial_state(), slope)
    for name, gradient in zip(("x1", "x2"), downhill, strict=False):
        torch.testing.assert_close(slope.activity[name], gradient, rtol=0, atol=1e-13)
    # The energy knows no target: at the last hidden layer, x_L is ∂ℒ/∂x̄_L = x̄_L − t in place of g_L(x_{L−1}) = x̄_L.
    without_target = slope.activity["x3"] + stages[-1].at(x[3]).feedback(example.targets)
    torch.testing.assert_close(without_target, downhill[2], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("gain", "sign"), [(2.0, -1), (0.5, 1)])
def test_energy_is_bounded_neither_below_nor_above(gain, sign):
    second = nn.Linear(3, 3, bias=False)
    second.weight.data = gain * torch.eye(3)
    module = nn.Sequential(nn.Linear(2, 3), second).double()
    example = Example(module, tensor(1, 2), tensor(1, 3))
    network = ar.network(module)
    values = [float(energy(network, example, initial={"x1": torch.full((1, 3), 10.0**n).double()})) for n in (2, 4, 6)]
    # ½‖x_1‖² − ½‖W x_1‖²
    assert sign * values[0] > 1e3
    for smaller, larger in pairwise(values):
        assert larger / smaller == pytest.approx(1e4, rel=1e-2)


BAD: dict[str, Any] = {
    "feedback": "random",
    "relaxation_derivative": "fixed",
    "weight_derivative": None,
    "presynaptic": "none",
    "input": "frozen",
    "output": "free",
    "simplified": "conv",
}


@pytest.mark.parametrize("option", BAD)
def test_unknown_options_are_refused_with_those_that_exist(option):
    with pytest.raises(ValueError, match=rf"{option} is '.*' or '.*', not {BAD[option]!r}"):
        ar.network(nd.mlp([3, 2, 1]), **{option: BAD[option]})


def test_what_cannot_be_simplified_is_refused():
    with pytest.raises(ValueError, match="has no convolutional stage"):
        ar.network(nd.mlp([3, 2, 1]), feedback="fixed", simplified="convolutional")
    normed = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"stage 2 \(LayerNorm\): there are feedback weights .*; not for LayerNorm"):
        ar.network(normed, feedback="learned")
    with pytest.raises(ValueError, match=r"8 × 7 is too small"):
        ar.cnn(input_shape=(1, 8, 7))
