"""Learning: what `backward` leaves in `.grad`, against `torch.autograd` and what `loss.backward()` does."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils.data import TensorDataset

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from tests.problems import ACTIVATIONS, EXAMPLES, Example, cnn, mlp, tensor


def learned(example: Example, **settings) -> list[Tensor | None]:
    """Let the AR network of a module learn from nothing, and return its parameters' `.grad`."""
    example.module.zero_grad()
    nd.backward(ar.network(example.module, **settings), example.inputs, example.targets)
    return [p.grad for p in example.module.parameters()]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_backward_equals_autograd(name: str, activation: str) -> None:
    example = EXAMPLES[name](activation)
    network = ar.network(example.module)
    loss = nd.backward(network, example.inputs, example.targets)
    expected = 0.5 * (example.module(example.inputs) - example.targets).square().sum(1).mean()
    assert loss is not None
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    for parameter, gradient in zip(example.module.parameters(), example.gradients(), strict=True):
        assert parameter.grad is not None
        assert float((parameter.grad - gradient).abs().max()) < 1e-9


@pytest.mark.parametrize("name", EXAMPLES)
def test_single_precision(name: str) -> None:
    single, double = EXAMPLES[name](dtype=torch.float32), EXAMPLES[name]()
    for mine, reference in zip(learned(single), double.gradients(), strict=True):
        assert mine is not None
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-5)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Shift(nn.Module):
    """Two biases with an axis for the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(1, 6))
        self.more = nn.Parameter(torch.randn(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift + self.more


def pruned() -> nn.Module:
    layer = nn.Linear(6, 6)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def made_anew(layer: nn.Module) -> nn.Module:
    """Return a layer whose bias stands before its weights, as after each way to take pruning or a norm off."""
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.remove(layer, "weight")
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight"]
    return layer


def fixed(name: str) -> nn.Module:
    layer = nn.Linear(6, 6)
    values = layer.get_parameter(name).detach()
    delattr(layer, name)
    layer.register_buffer(name, values)
    return layer


def with_a_parameter(layer: nn.Module) -> nn.Module:
    layer.register_parameter("unused", nn.Parameter(torch.zeros(2)))
    return layer


LAYERS: dict[str, Callable[[], list[nn.Module]]] = {
    "one linear": lambda: [nn.Linear(8, 3)],
    "no bias": lambda: [nn.Linear(8, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)],
    "no activation": lambda: [nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)],
    "activation at the end": lambda: [nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3), nn.Sigmoid()],
    "softmax at the end": lambda: [nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(1)],
    "activation first": lambda: [nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)],
    "relu in place": lambda: [nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)],
    "relu in place first": lambda: [nn.ReLU(inplace=True), nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)],
    "nested": lambda: [nn.Sequential(nn.Linear(8, 6), nn.Sequential(nn.GELU())), nn.Sequential(nn.Linear(6, 3))],
    "prelu": lambda: [nn.Linear(8, 6), nn.PReLU(), nn.Linear(6, 6), nn.PReLU(6), nn.Linear(6, 3)],
    "glu": lambda: [nn.Linear(8, 12), nn.GLU(), nn.Linear(6, 3)],
    "layer norm": lambda: [nn.Linear(8, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)],
    "batch norm": lambda: [nn.Linear(8, 6), nn.BatchNorm1d(6).eval(), nn.Tanh(), nn.Linear(6, 3)],
    "dropout": lambda: [nn.Linear(8, 6), nn.Dropout(0.5).eval(), nn.Tanh(), nn.Linear(6, 3)],
    "residual": lambda: [nn.Linear(8, 6), Residual(), Residual(), nn.Linear(6, 3)],
    "shift": lambda: [nn.Linear(8, 6), nn.Tanh(), Shift(), nn.Linear(6, 3), nn.Tanh()],
    "weight norm": lambda: [nn.Linear(8, 6), nn.Tanh(), parametrizations.weight_norm(nn.Linear(6, 3))],
    "pruned": lambda: [nn.Linear(8, 6), nn.Tanh(), pruned(), nn.Tanh(), nn.Linear(6, 3)],
    "weights made anew": lambda: [made_anew(nn.Linear(8, 6)), nn.Tanh(), made_anew(nn.Linear(6, 3))],
    "kernel made anew": lambda: [
        *(nn.Unflatten(1, (2, 2, 2)), made_anew(nn.Conv2d(2, 3, 1)), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)),
    ],
    "fixed weights": lambda: [nn.Linear(8, 6), nn.Tanh(), fixed("weight"), nn.Tanh(), nn.Linear(6, 3)],
    "fixed bias": lambda: [nn.Linear(8, 6), nn.Tanh(), fixed("bias"), nn.Tanh(), nn.Linear(6, 3)],
    "unused parameters": lambda: [with_a_parameter(nn.Linear(8, 6)), with_a_parameter(nn.Tanh()), nn.Linear(6, 3)],
    "convolution over a reshaped input": lambda: [
        *(nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 3, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)),
    ],
}


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_backward_of_any_module_equals_autograd(layers, samples: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(*layers()).double()
    inputs, targets = tensor(samples, 8), tensor(samples, 3)
    nd.backward(ar.network(module), inputs.clone(), targets)
    found = [p.grad for p in module.parameters()]
    expected = torch.autograd.grad(
        0.5 * (module(inputs.clone()) - targets).square().sum() / samples,
        list(module.parameters()),
        materialize_grads=True,
    )
    for mine, reference in zip(found, expected, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)


def test_feedback_learns_from_weights_made_anew() -> None:
    plain = nn.Linear(6, 3, dtype=torch.float64)
    anew = nn.Linear(6, 3, dtype=torch.float64)
    anew.load_state_dict(plain.state_dict())
    weight = nn.Parameter(anew.weight.detach())
    del anew.weight
    anew.weight = weight
    below, inputs, targets = nn.Linear(4, 6, dtype=torch.float64), tensor(5, 4), tensor(5, 3)
    found = []
    for layer in (plain, anew):
        network = ar.network(nn.Sequential(below, nn.Tanh(), layer), feedback="learned")
        nd.backward(network, inputs, targets)
        found.append([layer.weight.grad, layer.bias.grad, *(psi.grad for _, psi in network.feedback_parameters())])
    torch.testing.assert_close(*found)


def test_shared_weights_gather_both_gradients() -> None:
    layer = nn.Linear(6, 6, dtype=torch.float64)
    module = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(6, 3, dtype=torch.float64))
    tied = nn.Linear(3, 3, dtype=torch.float64)
    tied.register_parameter("bias", module[4].get_parameter("bias"))
    module.append(nn.Tanh()).append(tied)
    example = Example(module, tensor(4, 6), tensor(4, 3))
    for mine, reference in zip(learned(example), example.gradients(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)


def test_gradients_are_accumulated() -> None:
    example = mlp()
    network = ar.network(example.module)
    nd.backward(network, example.inputs, example.targets)
    first = [p.grad for p in example.module.parameters()]
    once = [g.clone() for g in first if g is not None]
    nd.backward(network, example.inputs, example.targets)
    for parameter, mine, single in zip(example.module.parameters(), first, once, strict=True):
        assert parameter.grad is mine  # in place, as loss.backward() does
        torch.testing.assert_close(parameter.grad, 2 * single)


def test_gradients_are_nobody_elses() -> None:
    """They share no memory with each other, with the data, or between calls."""
    example = mlp()
    inputs, targets = example.inputs.clone(), example.targets.clone()
    first = [g.clone() for g in learned(example) if g is not None]
    kept = [p.grad for p in example.module.parameters()]
    pointers = [g.data_ptr() for g in kept if g is not None]
    assert len(set(pointers)) == len(pointers)
    for gradient in kept:
        assert gradient is not None
        gradient.add_(1.0)
    assert torch.equal(example.inputs, inputs)
    assert torch.equal(example.targets, targets)
    assert all(map(torch.equal, first, [g for g in learned(example) if g is not None]))


def test_a_gradient_for_one_sample_does_not_share_its_activity() -> None:
    module = nn.Sequential(nn.Linear(8, 6), Shift()).double()
    inputs, targets = tensor(1, 8), tensor(1, 6)
    nd.backward(ar.network(module), inputs, targets)
    nd.backward(ar.network(module), inputs, targets)
    expected = 2 * (module(inputs) - targets).detach()
    torch.testing.assert_close(module[1].shift.grad, expected)
    torch.testing.assert_close(module[1].more.grad, expected)
    torch.testing.assert_close(module[0].bias.grad, expected[0])


def test_frozen_parameters_stay_without_gradient() -> None:
    example = mlp()
    parameters = list(example.module.parameters())
    for parameter in parameters[:3]:
        parameter.requires_grad_(False)
    found = learned(example)
    assert found[:3] == [None] * 3
    for parameter in parameters:
        parameter.requires_grad_(True)
    for mine, reference in zip(found[3:], example.gradients()[3:], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)


def test_a_wholly_frozen_module_is_let_be() -> None:
    example = mlp()
    example.module.requires_grad_(False)
    assert learned(example) == [None] * 6


@pytest.mark.parametrize(
    "loss",
    [
        lambda y, t: (y - t).abs().sum(1),
        lambda y, t: functional.cross_entropy(y, t.softmax(1), reduction="none"),
        lambda y, t: functional.huber_loss(y, t, reduction="none").sum(1),
        lambda y, t: (y - t).square().mean(1),
    ],
    ids=["absolute", "cross entropy", "huber", "mean squared"],
)
def test_other_losses(loss) -> None:
    example = mlp()
    found = nd.backward(ar.network(example.module, loss=loss), example.inputs, example.targets)
    expected = loss(example.module(example.inputs), example.targets).mean()
    assert found is not None
    torch.testing.assert_close(found, expected.detach())
    gradients = torch.autograd.grad(expected, list(example.module.parameters()))
    for parameter, gradient in zip(example.module.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [functional.mse_loss, lambda y, t: (y - t).square()], ids=["mean", "elementwise"])
def test_a_loss_gives_one_value_a_sample(loss) -> None:
    example = mlp()
    network = ar.network(example.module, loss=loss)
    with pytest.raises(ValueError, match=r"the loss must return one value per sample, shape \(6,\).*reduction='none'"):
        nd.backward(network, example.inputs, example.targets)


def test_a_relaxation_that_stops_early() -> None:
    """Learning takes the activities that the relaxation has reached."""
    example = mlp()
    network = ar.network(example.module)
    example.module.zero_grad()
    nd.backward(network, example.inputs, example.targets, duration=1.5, solver=nd.Euler(0.1))
    run = nd.simulate(network, example.inputs, example.targets, duration=1.5, solver=nd.Euler(0.1))
    first = nd.cut(example.module)[0].at(example.inputs)
    expected = first.gradient(torch.tensor(run.x1.values[-1]) / len(example.inputs))
    for parameter, gradient in zip(example.module.parameters(), expected, strict=False):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(example.gradients()[0], expected[0], rtol=1e-3)


def test_a_long_relaxation_reaches_the_equilibrium() -> None:
    example = cnn()
    network = ar.network(example.module)
    nd.backward(network, example.inputs, example.targets, duration=60.0)
    for parameter, gradient in zip(example.module.parameters(), example.gradients(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_an_optimizer_trains_the_module_as_usual() -> None:
    example, twin = mlp(), mlp()
    optimizers = [torch.optim.SGD(e.module.parameters(), lr=0.1, momentum=0.9) for e in (example, twin)]
    network = ar.network(example.module)
    for _ in range(5):
        for optimizer in optimizers:
            optimizer.zero_grad()
        nd.backward(network, example.inputs, example.targets)
        (0.5 * (twin.module(twin.inputs) - twin.targets).square().sum(1).mean()).backward()
        for optimizer in optimizers:
            optimizer.step()
    for mine, reference in zip(example.module.parameters(), twin.module.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-11, atol=1e-13)


def test_live_presynaptic_activity() -> None:
    """A delta rule: y relaxes to s + t, and Δw = −post · live pre."""
    stage = nd.Stage(nn.Linear(3, 3, dtype=torch.float64), "1")
    network = nd.Network(
        "delta",
        [nd.Population("s", 3, clamp=nd.Input()), nd.Population("y", 3), nd.Population("z", 3)],
        [nd.Coupling("s", "y", gain=2.0), nd.Coupling("y", "z", gain=-1.0)],
        [nd.Plasticity(stage, "y", "z", presynaptic="live", gain=-0.5)],
    )
    s = tensor(4, 3)
    assert nd.backward(network, s) is None
    weight, bias = stage.parameters
    torch.testing.assert_close(weight.grad, -0.5 * (-2 * s).t() @ (2 * s) / 4)
    torch.testing.assert_close(bias.grad, -0.5 * (-2 * s).mean(0))


def test_the_module_and_the_state_of_torch_stay_as_they_were() -> None:
    example = mlp()
    before = copy.deepcopy(example.module.state_dict())
    with torch.enable_grad():
        nd.backward(ar.network(example.module), example.inputs, example.targets)
        assert torch.is_grad_enabled()
    after = example.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"solver": nd.Euler(0.1)}, ValueError, "solver: it is used only with duration="),
        ({"duration": 0.0}, ValueError, "duration must be positive and finite, not 0"),
        ({"duration": "10"}, TypeError, "duration must be a number, not str"),
    ],
)
def test_bad_arguments_are_named(settings, kind: type[Exception], message: str) -> None:
    example = mlp()
    with pytest.raises(kind, match=message):
        nd.backward(ar.network(example.module), example.inputs, example.targets, **settings)
    assert all(p.grad is None for p in example.module.parameters())


def test_what_is_no_network_or_no_batch_is_named() -> None:
    example, data = mlp(), nd.data.digits()[0]
    with pytest.raises(TypeError, match="network must be a Network, not Sequential; a module needs one"):
        nd.backward(example.module, example.inputs, example.targets)  # type: ignore[arg-type]
    for batch in (data, TensorDataset(example.inputs, example.targets), (example.inputs, example.targets)):
        with pytest.raises(TypeError, match=r"inputs of population s must be a torch tensor, not .*; pass the"):
            nd.backward(ar.network(example.module), batch)  # type: ignore[arg-type]


def test_a_network_without_plasticity_cannot_learn() -> None:
    with pytest.raises(ValueError, match="network 'n' declares no plasticity, so nothing can learn"):
        nd.backward(nd.Network("n", [nd.Population("x", 1)]), None)


@pytest.mark.parametrize(
    "declare",
    [
        lambda module: ar.network(module, feedback="learned"),
        lambda module: ar.graph(module, torch.ones(2, 4, dtype=torch.float64, device="cpu")),
        lambda module: pc.network(module, initial_noise=0.1),
    ],
)
def test_the_default_device_does_not_count_where_there_are_tensors(declare: Callable[[nn.Module], nd.Network]) -> None:
    """A device without memory stands for a GPU: what is made on it, cannot be read, such as the steps of Adam."""
    inputs, targets = tensor(5, 4), tensor(5, 2)
    histories = []
    how: dict[str, Any] = {"epochs": 2, "batch_size": 3, "optimizer": "sgd", "progress": False}
    for device in ("cpu", "meta"):
        with torch.device(device):
            module = nd.mlp([4, 3, 2], seed=0, device="cpu", dtype=torch.float64)
            data = inputs, targets
            histories.append(nd.train.fit(declare(module), data, data, **how))
    xr.testing.assert_identical(*(each.drop_vars("seconds").drop_attrs() for each in histories))


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: torch.func.grad(f)(x),
        lambda f, x: torch.func.vmap(f)(x),
    ],
    ids=["grad", "vmap"],
)
def test_transforms_around_it_are_refused(transform: Callable[..., Any]) -> None:
    example = mlp()
    network = ar.network(example.module)

    def loss(inputs: Tensor) -> Tensor | None:
        return nd.backward(network, inputs, example.targets)

    with pytest.raises(ValueError, match=r"a transform of torch\.func .* is on around this call"):
        transform(loss, example.inputs)
    assert all(p.grad is None for p in example.module.parameters())


def test_data_that_do_not_fit_leave_no_gradient() -> None:
    example = mlp()
    with pytest.raises(ValueError, match="targets have the shape"):
        nd.backward(ar.network(example.module), example.inputs, example.targets[:, :-1])
    assert all(p.grad is None for p in example.module.parameters())


@pytest.mark.parametrize("settings", [{"learning": "il", "steps": 4, "step": 0.1}, {"learning": "z-il"}])
def test_hooks_of_a_parameter_see_the_gradient_of_the_whole_batch_once(settings) -> None:
    example = mlp()
    network, (weight, *_) = pc.network(example.module, **settings), example.module.parameters()
    nd.backward(network, example.inputs, example.targets)
    assert weight.grad is not None
    plain, seen = weight.grad.clone(), []

    def clamp(gradient: Tensor) -> Tensor:
        seen.append(gradient)
        return gradient.clamp(-1e-3, 1e-3)

    def halve(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad /= 2

    first = weight.register_hook(clamp)

    second = weight.register_post_accumulate_grad_hook(halve)
    nd.backward(network, example.inputs, example.targets)  # adds to what is there, and then halves
    torch.testing.assert_close(seen, [plain], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weight.grad, (plain + plain.clamp(-1e-3, 1e-3)) / 2, rtol=1e-12, atol=1e-12)
    first.remove()
    second.remove()
    weight.grad = None
    nd.backward(network, example.inputs, example.targets)
    torch.testing.assert_close(weight.grad, plain, rtol=1e-12, atol=1e-12)


def test_a_batch_that_fails_leaves_the_gradients_of_hooked_parameters() -> None:
    example = mlp()
    network, weight = ar.network(example.module), next(iter(example.module.parameters()))
    weight.grad = torch.ones_like(weight)
    weight.register_hook(lambda gradient: 2 * gradient)
    with pytest.raises(ValueError, match="stop"):
        nd.backward(network, example.inputs, example.targets, duration=1.0, solver=Stops())
    torch.testing.assert_close(weight.grad, torch.ones_like(weight))


class Stops(nd.Solver):
    def integrate(self, *_, **__):
        raise ValueError("stop")
