"""Activation relaxation as the paper declares it: its equations, its equilibrium, and its way there."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from tests.problems import ACTIVATIONS, EXAMPLES, Array, Example, cnn, mlp


def backprop(example: Example) -> dict[str, Tensor]:
    """Return ∂ℒ/∂x̄_l of each sample by `torch.autograd`, x̄_l after each stage of the network."""
    values, x = [], example.inputs
    for stage in nd.cut(example.module):
        x = nn.Sequential(*stage.layers)(x)
        values.append(x)
    gradients = torch.autograd.grad(0.5 * (x - example.targets).square().sum(), values)
    return {f"x{number}": gradient for number, gradient in enumerate(gradients, start=1)}


def largest_error(found, expected: dict[str, Tensor]) -> float:
    assert set(expected) <= set(found.data_vars)
    return max(float(np.abs(found[name].values - value.numpy()).max()) for name, value in expected.items())


def test_the_declaration_reads_like_the_paper() -> None:
    network = ar.network(mlp().module)
    assert network.equations().splitlines() == [
        "s = input",
        "dx1/dt = −x1 + J2(x̄)ᵀ x2",
        "dx2/dt = −x2 + J3(x̄)ᵀ x3",
        "x3 = ∂ℒ/∂x̄ at the output",
    ]
    assert [population.size for population in network.populations] == [12, 9, 7, 5]


def test_a_relaxing_output_has_an_equation_of_its_own() -> None:
    network = ar.network(mlp().module, output="relaxing")
    assert "dx3/dt = −x3 + error" in network.equations().splitlines()


@pytest.mark.parametrize("output", ["clamped", "relaxing"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_equilibrium_is_backprop(name: str, activation: str, output) -> None:
    example = EXAMPLES[name](activation)
    found = nd.equilibrium(ar.network(example.module, output=output), example.inputs, example.targets)
    assert largest_error(found, backprop(example)) < 1e-9
    assert found.converged == 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_relaxation_starts_from_the_forward_pass(name: str) -> None:
    example = EXAMPLES[name]()
    run = nd.simulate(ar.network(example.module), example.inputs, example.targets, duration=0.1, solver=nd.Euler(0.1))
    x = example.inputs
    for stage in nd.cut(example.module)[:-1]:
        x = stage.forward(x)
        np.testing.assert_allclose(run[f"x{stage.name}"][0], x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_relaxation_ends_at_backprop(name: str) -> None:
    example = EXAMPLES[name]("relu")
    network = ar.network(example.module, output="relaxing")
    run = nd.simulate(network, example.inputs, example.targets, duration=60.0, save_at=[60.0])
    assert largest_error(run.isel(time=-1), backprop(example)) < 1e-6


def deviation(example: Example, output: str, coefficients: Array) -> dict[str, Array]:
    """Return e_l = Σ_k c_k N^k e(0), with N the map that feeds each layer from the one above, by autograd."""
    stages = [nn.Sequential(*stage.layers) for stage in nd.cut(example.module)]
    values = [example.inputs]
    for stage in stages:
        values.append(stage(values[-1]).detach())
    gradients = list(backprop(example).values())
    e = [value - gradient for value, gradient in zip(values[1:], gradients, strict=True)]
    if output == "clamped":
        e[-1] = torch.zeros_like(e[-1])
    total = [coefficients[0] * part for part in e]
    for c in coefficients[1:]:
        points = [value.clone().requires_grad_() for value in values[1:-1]]
        outputs = [stage(point) for stage, point in zip(stages[1:], points, strict=True)]
        e = [*torch.autograd.grad(outputs, points, e[1:]), torch.zeros_like(e[-1])]
        total = [sum_ + c * part for sum_, part in zip(total, e, strict=True)]
    return {f"x{number}": part.numpy() for number, part in enumerate(total, start=1)}


@pytest.mark.parametrize("output", ["clamped", "relaxing"])
@pytest.mark.parametrize("step", [0.1, 1.0, 1.9])
def test_euler_iterates_have_their_closed_form(step: float, output) -> None:
    """e_n = Σ_k C(n, k) (1 − h)^(n − k) h^k N^k e(0): the frozen system is nilpotent, plus a leak."""
    example = mlp()
    network = ar.network(example.module, output=output)
    run = nd.simulate(network, example.inputs, example.targets, duration=8 * step, solver=nd.Euler(step))
    gradients = backprop(example)
    for n in range(9):
        c = [math.comb(n, k) * (1 - step) ** (n - k) * step**k if k <= n else 0.0 for k in range(3)]
        for name, e in deviation(example, output, np.array(c)).items():
            np.testing.assert_allclose(run[name][n] - gradients[name].numpy(), e, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("output", ["clamped", "relaxing"])
def test_the_flow_has_its_closed_form(output) -> None:
    """e(t) = exp(−t) Σ_k t^k / k! N^k e(0)."""
    example = cnn()
    network = ar.network(example.module, output=output)
    solver = nd.Adaptive("dopri5", 1e-9, 1e-10)
    run = nd.simulate(network, example.inputs, example.targets, duration=5.0, solver=solver, save_at=4)
    gradients = backprop(example)
    for moment in run.time.values:
        c = [math.exp(-moment) * moment**k / math.factorial(k) for k in range(4)]
        for name, e in deviation(example, output, np.array(c)).items():
            found = run[name].sel(time=moment) - gradients[name].numpy()
            np.testing.assert_allclose(found, e, rtol=0, atol=1e-7)


def test_a_step_of_one_ends_after_as_many_iterations_as_there_are_layers() -> None:
    example = mlp()
    run = nd.simulate(ar.network(example.module), example.inputs, example.targets, duration=4.0, solver=nd.Euler(1.0))
    errors = [largest_error(run.isel(time=n), backprop(example)) for n in range(5)]
    assert errors[1] > 1e-3
    assert max(errors[2:]) < 1e-12


def test_two_is_the_stability_limit() -> None:
    example = mlp()
    network = ar.network(example.module)
    inside = nd.simulate(
        network, example.inputs, example.targets, duration=400.0, solver=nd.Euler(1.9), save_at="steps"
    )
    assert largest_error(inside.isel(time=-1), backprop(example)) < 1e-6
    with pytest.warns(UserWarning, match="beyond the stability limit 2 of Euler"):
        outside = nd.simulate(
            network, example.inputs, example.targets, duration=400.0, solver=nd.Euler(2.1), save_at="steps"
        )
    assert largest_error(outside.isel(time=-1), backprop(example)) > 1e6


def test_backprop_of_the_analysis_is_autograd() -> None:
    for make in EXAMPLES.values():
        example = make()
        for inputs in (example.inputs, example.inputs.clone().requires_grad_()):
            found = nd.analysis.backprop(ar.network(example.module), inputs, example.targets)
            assert largest_error(found, backprop(example)) < 1e-13


def test_backprop_of_a_frozen_module_and_of_one_that_works_in_place() -> None:
    example = mlp("relu")
    expected = backprop(example)
    plain = nd.analysis.backprop(ar.network(example.module), example.inputs, example.targets)
    in_place = nn.Sequential(*(nn.ReLU(inplace=True) if isinstance(f, nn.ReLU) else f for f in example.module))
    in_place.requires_grad_(False)
    found = nd.analysis.backprop(ar.network(in_place), example.inputs, example.targets)
    assert largest_error(found, expected) < 1e-13
    xr.testing.assert_allclose(found, plain, rtol=0, atol=1e-13)


def test_the_distance_to_backprop_falls_to_nothing() -> None:
    example = mlp()
    network = ar.network(example.module)
    run = nd.simulate(network, example.inputs, example.targets, duration=30.0, solver=nd.Euler(0.1))
    reference = nd.analysis.backprop(network, example.inputs, example.targets)
    distance = nd.analysis.squared_distance(run, reference)
    for name in ("x1", "x2"):
        by_hand = ((run[name].values - reference[name].values) ** 2).mean((1, 2))
        np.testing.assert_allclose(distance[name], by_hand, rtol=1e-12)
        assert distance[name].dims == ("time",)
        assert float(distance[name][-1]) < 1e-15
    with pytest.raises(ValueError, match="trajectory and reference share no population"):
        nd.analysis.squared_distance(run[["x1"]], reference[["x2"]])


def test_backprop_needs_a_forward_pass() -> None:
    network = nd.Network("n", [nd.Population("s", 1, clamp=nd.Input())])
    with pytest.raises(ValueError, match="network 'n' has no forward pass, so backprop has nothing to differentiate"):
        nd.analysis.backprop(network, torch.ones(1, 1), torch.ones(1, 1))


@pytest.mark.parametrize("layers", [[nn.Linear(4, 3)], [nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1)]])
def test_a_single_stage_has_nothing_to_relax(layers: list[nn.Module]) -> None:
    module = nn.Sequential(*layers).double()
    example = Example(module, mlp().inputs[:, :4].clone(), mlp().targets[:, :3].clone())
    network = ar.network(module)
    run = nd.simulate(network, example.inputs, example.targets, duration=1.0, save_at=3)
    for n in range(3):
        assert largest_error(run.isel(time=n), backprop(example)) < 1e-13
    nd.backward(network, example.inputs, example.targets)
    for parameter, gradient in zip(module.parameters(), example.gradients(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(ValueError, match=r"output is .*'clamped'.*'relaxing', not 'free'"):
        ar.network(mlp().module, output="free")  # type: ignore[arg-type]


def test_a_recurrent_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="stage 2: LSTM cannot be part of a stage"):
        ar.network(nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)))
