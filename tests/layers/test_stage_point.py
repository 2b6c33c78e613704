"""Stages at an operating point: value, feedback and parameter gradient against `torch.autograd`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.choice import layer_point
from neurodyn.layers.points import AutogradPoint
from tests.problems import tensor
from tests.stacks import CASES, build, run


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_value_feedback_and_gradient_equal_autograd(layers, shape: tuple[int, ...], samples: int) -> None:
    modules = build(layers)
    stage = nd.Stage(modules, "1")
    x = tensor(samples, *shape, seed=1)
    before = x.clone()
    y = run(modules, x.requires_grad_())
    v = tensor(*y.shape, seed=2)
    expected = torch.autograd.grad(y, [x, *stage.parameters], v, retain_graph=True, materialize_grads=True)
    point = stage.at(x.detach())
    for _ in range(2):  # asked for twice, each answer stands on its own
        feedback, gradient = point.feedback(v), point.gradient(v)
    torch.testing.assert_close(point.value, y.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(feedback, expected[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(list(gradient), list(expected[1:]), rtol=1e-12, atol=1e-12)
    assert torch.equal(x, before)
    assert stage.output_shape(shape) == y.shape[1:]


class Doubling(nn.Module):
    """Works in place, and has an attribute of a name that may be anyone's."""

    functional = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2.0)


def test_a_layer_of_ones_own_may_work_in_place() -> None:
    x, v = tensor(2, 3, seed=1), tensor(2, 3, seed=2)
    point = nd.Stage([Doubling()], "1").at(x)
    torch.testing.assert_close(point.value, 2 * tensor(2, 3, seed=1))
    torch.testing.assert_close(point.feedback(v), 2 * v)
    torch.testing.assert_close(x, tensor(2, 3, seed=1))


@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_single_precision_agrees_with_double(layers, shape: tuple[int, ...]) -> None:
    answers = []
    for dtype in (torch.float32, torch.float64):
        stage = nd.Stage(build(layers, dtype))
        x = tensor(2, *shape, seed=1).to(dtype)
        point = stage.at(x)
        v = tensor(*point.value.shape, seed=2).to(dtype)
        answers.append([point.value, point.feedback(v), *point.gradient(v)])
    for single, double in zip(*answers, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_adding_to_a_total(layers, shape: tuple[int, ...]) -> None:
    stage = nd.Stage(build(layers))
    point = stage.at(tensor(2, *shape))
    v = tensor(*point.value.shape, seed=1)
    below = torch.ones(2, *shape, dtype=torch.float64)
    point.add_feedback(v, below, 3.0)
    torch.testing.assert_close(below, 1 + 3 * point.feedback(v))


def test_a_moving_operating_point_leaves_nothing_behind() -> None:
    layers = build(lambda: [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 2)])
    stage = nd.Stage(layers)
    point = stage.at(tensor(3, 6))
    v = tensor(3, 2, seed=9)
    for seed in range(1, 4):
        x = tensor(3, 6, seed=seed)
        point.move_to(x)
        if seed % 2:
            point.feedback(v)  # the value is worked out only as far as it is needed
        fresh = stage.at(x)
        found, expected = ([at.value, at.feedback(v), *at.gradient(v)] for at in (point, fresh))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_feedback_is_the_callers_own() -> None:
    point = nd.Stage(nn.Tanh()).at(tensor(2, 3))
    first = point.feedback(torch.ones(2, 3, dtype=torch.float64))
    kept = first.clone()
    point.feedback(torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(first, kept)


@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    kinds=st.lists(st.sampled_from(list(ACTIVATIONS)), min_size=4, max_size=4),
    samples=st.integers(1, 4),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_any_stack_of_known_layers_equals_autograd(widths, kinds, samples: int, seed: int) -> None:
    layers = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for before, after, kind in zip(widths, widths[1:], kinds, strict=False):
            layers += [nn.Linear(before, after, dtype=torch.float64), kind()]
    stage = nd.Stage(layers)
    x = tensor(samples, widths[0], seed=seed).requires_grad_()
    y = run(layers, x)
    v = tensor(*y.shape, seed=seed + 1)
    expected = torch.autograd.grad(y, [x, *stage.parameters], v)
    point = stage.at(x.detach())
    torch.testing.assert_close([point.feedback(v), *point.gradient(v)], list(expected), rtol=1e-11, atol=1e-12)


def test_plain_layers_take_the_fast_path() -> None:
    fast = [nn.Linear(2, 2), nn.Conv2d(1, 1, 1), nn.Flatten(), *(kind() for kind in ACTIVATIONS)]
    assert not any(isinstance(layer_point(layer), AutogradPoint) for layer in fast)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("layers", "shape"), CASES)
def test_the_gpu_agrees_with_the_cpu(layers, shape: tuple[int, ...]) -> None:
    answers = []
    for device in ("cpu", "cuda"):
        stage = nd.Stage([layer.to(device) for layer in build(layers)])
        point = stage.at(tensor(2, *shape, seed=1).to(device))
        v = tensor(*point.value.shape, seed=2).to(device)
        answers.append([t.cpu() for t in (point.value, point.feedback(v), *point.gradient(v))])
    torch.testing.assert_close(*answers, rtol=1e-10, atol=1e-11)


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.fft(x))


def test_feedback_through_complex_numbers_takes_a_population_anywhere_in_memory() -> None:
    point = nd.Stage(Spectrum()).at(tensor(2, 3))
    v = tensor(13)[1:].view(2, 3, 2)  # no complex number may begin there
    torch.testing.assert_close(point.feedback(v), point.feedback(v.clone()), rtol=0, atol=0)
