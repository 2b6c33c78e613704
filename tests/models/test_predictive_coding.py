"""Predictive coding against backprop, against the paper's algorithms written as plain loops, and against SciPy."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.layers.kinds import is_activation
from neurodyn.models import predictive_coding as pc
from neurodyn.simulation.inference import run_inference
from tests.problems import Array, Example, Problem, cnn, mlp, random, sigmoid, tensor


def deep(layers: int, activation: str = "tanh", seed: int = 0, widths: tuple[int, ...] = (7, 5, 8)) -> Example:
    """Return an MLP of so many stages, with the widths in turn and inputs for six samples."""
    sizes = [widths[i % len(widths)] for i in range(layers + 1)]
    module = nd.mlp(sizes, activation=activation, seed=seed, dtype=torch.float64)
    return Example(module, tensor(6, sizes[0], seed=seed), tensor(6, sizes[-1], seed=seed))


def learn(example: Example, **options) -> list[Tensor]:
    """Return the gradients that predictive coding finds, one tensor a parameter."""
    example.module.zero_grad()
    nd.backward(pc.network(example.module, **options), example.inputs, example.targets)
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in example.module.parameters()]


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def relative_distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    a, b = (torch.cat([t.detach().flatten() for t in tensors]) for tensors in (found, expected))
    return float((a - b).norm() / b.norm())


class ByHand:
    """The paper's inference on F = Σ ½‖x_l − g_l(x_{l−1})‖², with every derivative by `torch.autograd`.

    The module's layers are cut before each activation, by counting.
    """

    def __init__(self, example: Example) -> None:
        layers = list(example.module)
        starts = [0] + [i for i, layer in enumerate(layers) if is_activation(layer)]
        self.stages = [nn.Sequential(*layers[a:b]) for a, b in pairwise([*starts, len(layers)])]
        self.values = [example.inputs]
        for stage in self.stages:
            self.values.append(stage(self.values[-1]).detach())
        self.values[-1] = example.targets

    def errors(self) -> list[Tensor]:
        with torch.no_grad():
            return [x - g(below) for g, below, x in zip(self.stages, self.values, self.values[1:], strict=False)]

    def energy(self, values: list[Tensor]) -> Tensor:
        pairs = zip(self.stages, values, values[1:], strict=False)
        return torch.stack([0.5 * (x - g(below)).square().sum() for g, below, x in pairs]).sum()

    def step(self, gamma: float) -> None:
        """x_l ← x_l − γ ∂F/∂x_l (eq. 7) for every hidden layer."""
        hidden = [x.clone().requires_grad_() for x in self.values[1:-1]]
        if hidden:
            slopes = torch.autograd.grad(self.energy([self.values[0], *hidden, self.values[-1]]), hidden)
            self.values[1:-1] = [x.detach() - gamma * slope for x, slope in zip(hidden, slopes, strict=True)]

    def gradient(self, number: int, gate: Tensor | None = None) -> list[Tensor]:
        """Return ∂F/∂θ of a stage (eq. 9), averaged over the samples, for the error units that a gate lets through."""
        stage, error = self.stages[number], self.errors()[number]
        error = error if gate is None else error * gate
        prediction = stage(self.values[number])
        return list(torch.autograd.grad(prediction, list(stage.parameters()), -error / len(error)))

    def il(self, gamma: float, steps: int) -> list[Tensor]:
        """Algorithm 1."""
        for _ in range(steps):
            self.step(gamma)
        return [g for number in range(len(self.stages)) for g in self.gradient(number)]

    def z_il(self, gamma: float) -> list[Tensor]:
        """Algorithm 1, with stage l updated at step L − l (C2)."""
        found: list[Tensor] = []
        for number in reversed(range(len(self.stages))):
            found = self.gradient(number) + found
            self.step(gamma)
        return found

    def fa_z_il(self, gamma: float, steps: int, window: int) -> list[Tensor]:
        """Algorithm 2, presented for so many steps."""
        found = [[torch.zeros_like(p) for p in stage.parameters()] for stage in self.stages]
        past: list[list[Tensor]] = []
        for _ in range(steps + 1):
            now = self.errors()
            for number, error in enumerate(now):
                gate = error != 0
                for earlier in past[-window:]:
                    gate &= earlier[number] == 0
                update = self.gradient(number, gate)
                found[number] = [a + b for a, b in zip(found[number], update, strict=True)]
            past.append(now)
            self.step(gamma)
        return [g for gradients in found for g in gradients]


# Equality with backprop


@pytest.mark.parametrize("learning", ["z-il", "fa-z-il"])
@pytest.mark.parametrize("layers", range(1, 9))
@settings(max_examples=6)
@given(
    st.sampled_from(["tanh", "sigmoid"]),
    st.integers(0, 2**16),
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
)
def test_z_il_and_fa_z_il_equal_backprop(learning, layers, activation, seed, widths) -> None:
    example = deep(layers, activation, seed, tuple(widths))
    assert largest_difference(learn(example, learning=learning), example.gradients()) < 1e-10


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_z_il_of_a_cnn_equals_backprop(activation) -> None:
    example = cnn(activation)
    assert largest_difference(learn(example, learning="z-il"), example.gradients()) < 1e-10


def test_fa_z_il_of_a_cnn_with_average_pooling_equals_backprop() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 2, bias=False),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).double()
    example = Example(module, tensor(4, 2, 12, 13), tensor(4, 5))
    assert largest_difference(learn(example, learning="fa-z-il"), example.gradients()) < 1e-10


@pytest.mark.parametrize("learning", ["z-il", "fa-z-il"])
def test_single_precision_is_close_to_double(learning) -> None:
    single = learn(mlp(dtype=torch.float32), learning=learning)
    double = learn(mlp(), learning=learning)
    assert relative_distance([g.double() for g in single], double) < 1e-5


def test_an_error_has_the_absolute_precision_of_the_values() -> None:
    """So in single precision, the smallest errors lose most digits."""
    for dtype, least, most in [(torch.float32, 1e-4, 0.1), (torch.float64, 1e-13, 1e-8)]:
        module = nd.mlp([8] * 9, activation="sigmoid", dtype=dtype)
        example = Example(module, tensor(6, 8).to(dtype), tensor(6, 8).to(dtype))
        found, expected = learn(example, learning="z-il"), example.gradients()
        assert least < relative_distance(found[:1], expected[:1]) < most
        assert relative_distance(found[-2:], expected[-2:]) < 10 * torch.finfo(dtype).eps


def test_the_loss_returned_is_that_of_the_forward_pass() -> None:
    example = mlp()
    loss = nd.backward(pc.network(example.module, learning="z-il"), example.inputs, example.targets)
    expected = 0.5 * (example.module(example.inputs) - example.targets).square().sum(1).mean()
    torch.testing.assert_close(loss, expected.detach())


def test_gradients_add_to_what_is_there_and_frozen_parameters_stay() -> None:
    example = mlp()
    first, *_ = example.module.parameters()
    first.requires_grad_(False)
    network = pc.network(example.module, learning="z-il")
    for _ in range(2):
        nd.backward(network, example.inputs, example.targets)
    first.requires_grad_()
    expected = example.gradients()
    assert first.grad is None
    found = [p.grad for p in example.module.parameters() if p.grad is not None]
    assert largest_difference(found, [2 * g for g in expected[1:]]) < 1e-10


def test_weights_shared_by_two_layers_add_their_gradients_up() -> None:
    shared = nn.Linear(6, 6, dtype=torch.float64)
    module = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(6, 3, dtype=torch.float64))
    example = Example(module, tensor(4, 6), tensor(4, 3))
    assert largest_difference(learn(example, learning="z-il"), example.gradients()) < 1e-10


def test_an_epoch_of_z_il_leaves_the_weights_of_backprop() -> None:
    train, _ = nd.data.digits()
    inputs, labels = train.inputs.double(), train.labels
    targets = nn.functional.one_hot(labels, 10).double()
    modules = [nd.mlp([64, 30, 20, 10], seed=3, dtype=torch.float64) for _ in range(2)]
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9) for module in modules]
    network = pc.network(modules[0], learning="z-il")
    for batch in torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0)).split(32):
        for optimizer in optimizers:
            optimizer.zero_grad()
        nd.backward(network, inputs[batch], targets[batch])
        (0.5 * (modules[1](inputs[batch]) - targets[batch]).square().sum(1).mean()).backward()
        for optimizer in optimizers:
            optimizer.step()
    found, expected = (list(module.parameters()) for module in modules)
    assert relative_distance(found, expected) < 1e-12
    assert relative_distance(found, list(nd.mlp([64, 30, 20, 10], seed=3, dtype=torch.float64).parameters())) > 0.1


# The algorithms as plain loops

EXAMPLES: dict[str, Callable[[], Example]] = {
    "tanh": mlp,
    "sigmoid": lambda: deep(4, "sigmoid", seed=1),
    "relu": lambda: deep(5, "relu", seed=2),
    "cnn": lambda: cnn("relu"),
}


@pytest.mark.parametrize("make", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("step", [0.5, 0.1, 1.0])
@pytest.mark.parametrize("steps", [0, 1, 3, 20])
def test_il_is_the_papers_algorithm(make, step, steps) -> None:
    found = learn(make(), steps=steps, step=step)
    assert largest_difference(found, ByHand(make()).il(step, steps)) < 1e-12


def test_il_takes_twenty_steps_of_a_half_unless_told_otherwise() -> None:
    assert largest_difference(learn(mlp()), ByHand(mlp()).il(0.5, 20)) < 1e-12


@pytest.mark.parametrize("make", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("step", [0.1, 0.5, 2.0])
def test_z_il_with_any_step_is_the_papers_algorithm(make, step) -> None:
    found = learn(make(), learning="z-il", step=step)
    assert largest_difference(found, ByHand(make()).z_il(step)) < 1e-12


@pytest.mark.parametrize("make", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize(("step", "steps", "window"), [(1.0, 3, 4), (1.0, 8, 1), (0.5, 12, 2), (1.0, 0, 4)])
def test_fa_z_il_is_the_papers_algorithm(make, step, steps, window) -> None:
    found = learn(make(), learning="fa-z-il", step=step, steps=steps, spike_window=window)
    assert largest_difference(found, ByHand(make()).fa_z_il(step, steps, window)) < 1e-12


@pytest.mark.parametrize("learning", ["z-il", "fa-z-il"])
def test_relaxing_c3_alone_scales_each_layer_by_a_power_of_the_step(learning) -> None:
    example = deep(4)
    scaled = [0.3 ** (3 - number // 2) * g for number, g in enumerate(example.gradients())]
    assert largest_difference(learn(example, learning=learning, step=0.3), scaled) < 1e-12


# Fa-Z-IL where feedback is exactly 0


def silent_feedback(example: Example) -> list[Tensor]:
    """Return for each stage which units have an error of exactly 0 at step L − l."""
    hand = ByHand(example)
    silent: list[Tensor] = []
    for number in reversed(range(len(hand.stages))):
        silent.insert(0, hand.errors()[number] == 0)
        hand.step(1.0)
    return silent


def max_pooling() -> Example:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 2), nn.Tanh(), nn.MaxPool2d(2)]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 4)).double()
    return Example(module, tensor(5, 1, 12, 12), tensor(5, 4))


@pytest.mark.parametrize("make", [lambda: deep(4, "relu"), max_pooling], ids=["ReLU", "max-pooling"])
def test_fa_z_il_departs_from_backprop_where_feedback_is_exactly_zero(make) -> None:
    """The paper (§4) counts a detection that fails at ε = 0 as harmless; but the unit spikes later, when it should not.

    Its layer's prediction changes a step after L − l, with the layer below, and the silence before is long enough. The
    first layer, whose input is clamped, is spared; so is the last, which has no feedback.
    """
    example = make()
    stages = len(silent_feedback(example))
    assert all(silent.any() for silent in silent_feedback(example)[:-1])
    found, backprop = learn(example, learning="fa-z-il"), example.gradients()
    distances = [relative_distance(found[2 * i : 2 * i + 2], backprop[2 * i : 2 * i + 2]) for i in range(stages)]
    assert distances[0] < 1e-12
    assert distances[-1] < 1e-12
    assert all(distance > 0.01 for distance in distances[1:-1])
    errors = nd.simulate(
        pc.network(example.module, step=1.0),
        example.inputs,
        example.targets,
        duration=stages - 1,
        solver=nd.Euler(1.0),
        record=[f"e{number}" for number in range(1, stages + 1)],
    )
    for number, silent in enumerate(silent_feedback(example), start=1):
        spikes = nd.analysis.spikes(errors[f"e{number}"], 4).values
        due = stages - number
        np.testing.assert_array_equal(spikes[due], ~silent.numpy())
        assert not spikes[:due].any()
        assert not (spikes[due + 1 :] & ~silent.numpy()).any()
        assert spikes[due + 1 :].any() == (1 < number < stages)


def tied_pooling() -> Example:
    """Return a network whose first pooling has ties in most of its windows: it sees mostly blank images."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 2), nn.ReLU(), nn.MaxPool2d(2)]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 4)).double()
    inputs = (tensor(5, 1, 12, 12) > 2).double()
    value = layers[1](layers[0].double()(inputs)).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert ((value == value.amax(4, keepdim=True)).sum(4) > 1).double().mean() > 0.5
    return Example(module, inputs, tensor(5, 4))


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("step", [1.0, 0.5])
@pytest.mark.parametrize(
    "make",
    [lambda: deep(6, "relu"), lambda: deep(4, "tanh"), max_pooling, tied_pooling],
    ids=["ReLU", "tanh", "max", "ties"],
)
def test_a_unit_that_waits_for_its_own_value_to_move_learns_as_in_z_il(make, step, window) -> None:
    example = make()
    moved = learn(example, learning="fa-z-il", spike="moved", step=step, spike_window=window)
    assert relative_distance(moved, learn(example, learning="z-il", step=step)) < 1e-12


def test_waiting_for_its_own_value_does_not_suffice_for_the_first_layer_in_a_long_presentation() -> None:
    """Its predictions never move; where all that a unit feeds was passed over, feedback comes late, and moves it."""
    example = max_pooling()
    assert relative_distance(learn(example, learning="fa-z-il", spike="moved", steps=8), example.gradients()) > 0.01
    dense = deep(4, "relu")
    assert relative_distance(learn(dense, learning="fa-z-il", spike="moved", steps=8), dense.gradients()) < 1e-12


# Exact silence, and spikes


def still_silent(trajectory: xr.Dataset, layers: int) -> Iterator[Array]:
    """Yield each layer's errors at the steps before feedback reaches it."""
    for number in range(1, layers + 1):
        yield trajectory[f"e{number}"].values[: layers - number]


@settings(max_examples=40)
@given(
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1, 7, 64]),
    st.sampled_from(["tanh", "sigmoid", "relu"]),
    st.lists(st.sampled_from([1, 3, 7, 16, 31, 65]), min_size=3, max_size=6),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([1.0, 0.1]),
)
def test_errors_are_exactly_zero_until_feedback_reaches_them(
    dtype, samples, activation, sizes, error_tau, step
) -> None:
    module = nd.mlp(sizes, activation=activation, dtype=dtype)
    inputs, targets = tensor(samples, sizes[0]).to(dtype), tensor(samples, sizes[-1]).to(dtype)
    layers = len(sizes) - 1
    network = pc.network(module, error_tau=error_tau)
    trajectory = nd.simulate(network, inputs, targets, duration=layers * step, solver=nd.Euler(step))
    assert all((errors == 0).all() for errors in still_silent(trajectory, layers))
    assert (trajectory[f"e{layers}"].values[-1] != 0).any()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 7, 64])
def test_errors_of_a_cnn_are_exactly_zero_until_feedback_reaches_them(memory, dtype, samples) -> None:
    example = cnn(dtype=dtype)
    inputs = tensor(samples, 2, 12, 10).to(dtype).to(memory_format=memory)
    targets = tensor(samples, 3).to(dtype)
    for parameter in example.module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory)
    network = pc.network(example.module)
    trajectory = nd.simulate(network, inputs, targets, duration=3.0, solver=nd.Euler(1.0))
    assert all((errors == 0).all() for errors in still_silent(trajectory, 4))


SPIKING: dict[str, Callable[[torch.dtype], Example]] = {
    "tanh": lambda dtype: mlp(dtype=dtype),
    "relu": lambda dtype: mlp("relu", dtype=dtype),
    "cnn": lambda dtype: cnn("relu", dtype=dtype),
}


@pytest.mark.parametrize("make", SPIKING.values(), ids=SPIKING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("steps", [2, 7])
def test_spikes_of_a_trajectory_are_those_of_the_gate(make, dtype, window, steps) -> None:
    example: Example = make(dtype)
    network = pc.network(example.module, learning="fa-z-il", steps=steps, spike_window=window)
    assert network.inference is not None
    gated: dict[str, list[Tensor]] = {rule.post: [] for rule in network.plasticity}
    system = nd.System(network, example.inputs, example.targets)
    with torch.no_grad():
        run_inference(system, network.inference, lambda rule, _, post: gated[rule.post].append(post.clone()))
    trajectory = nd.simulate(network, example.inputs, example.targets, duration=steps, solver=nd.Euler(1.0))
    for name, found in gated.items():
        spikes = nd.analysis.spikes(trajectory[name], window)
        expected = [e.where(s, 0) for e, s in zip(trajectory[name], spikes, strict=True) if s.any()]
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a != 0, b != 0)
            np.testing.assert_allclose(a, b, rtol=0, atol=100 * torch.finfo(dtype).eps)


# Trajectories against SciPy


def equations(
    layers: list[int], activation: str, error_tau: float = 0.0, *, learning: bool, seed: int = 0
) -> tuple[Problem, Tensor]:
    """Return a PC network with its equations in NumPy, from a random start, and its targets."""
    module = nd.mlp(layers, activation=activation, seed=seed, dtype=torch.float64)
    weights = [(p.weight.detach().numpy(), p.bias.detach().numpy()) for p in module if isinstance(p, nn.Linear)]
    rates_and_slopes: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
        "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    }
    f, df = rates_and_slopes[activation]
    top, samples = len(layers) - 1, 3
    inputs, targets = random(samples, layers[0], seed=seed), random(samples, layers[-1], seed=seed)
    free = range(1, top if learning else top + 1)
    start = {f"x{i}": random(samples, layers[i], seed=seed + i) for i in free}
    if error_tau:
        start |= {f"e{i}": random(samples, layers[i], seed=seed + 10 + i, scale=0.1) for i in range(1, top + 1)}

    def rhs(y: dict[str, Array]) -> dict[str, Array]:
        x = [inputs] + [y.get(f"x{i}", targets) for i in range(1, top + 1)]
        rates = [inputs, *(f(value) for value in x[1:])]
        mismatch = [x[i] - rates[i - 1] @ weights[i - 1][0].T - weights[i - 1][1] for i in range(1, top + 1)]
        e = [np.zeros(0)] + ([y[f"e{i}"] for i in range(1, top + 1)] if error_tau else mismatch)
        slopes = {f"x{i}": -e[i] + (df(x[i]) * (e[i + 1] @ weights[i][0]) if i < top else 0.0) for i in free}
        if error_tau:
            slopes |= {f"e{i}": (mismatch[i - 1] - e[i]) / error_tau for i in range(1, top + 1)}
        return slopes

    return Problem(pc.network(module, error_tau=error_tau), start, rhs, torch.tensor(inputs)), torch.tensor(targets)


@pytest.mark.parametrize("error_tau", [0.0, 0.2])
@pytest.mark.parametrize("learning", [True, False], ids=["learning", "prediction"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_trajectories_are_those_of_the_equations(activation, learning, error_tau) -> None:
    problem, targets = equations([8, 6, 7, 4], activation, error_tau, learning=learning)
    trajectory = nd.simulate(
        problem.network,
        problem.inputs,
        targets if learning else None,
        duration=6.0,
        solver=nd.Adaptive("dopri5", rtol=1e-9, atol=1e-10),
        save_at=13,
        initial=problem.initial,
    )
    assert problem.error(trajectory) < 1e-6
    assert float(abs(trajectory.x2.diff("time")).max()) > 0.1


# Equilibria


def equilibrium(example: Example, targets: Tensor | None = None, **options) -> xr.Dataset:
    targets = example.targets if targets is None else targets
    return nd.equilibrium(pc.network(example.module, **options), example.inputs, targets, tolerance=1e-10)


@pytest.mark.parametrize("make", [mlp, cnn], ids=["mlp", "cnn"])
def test_il_at_the_equilibrium_is_stationary_in_the_energy(make) -> None:
    example: Example = make()
    hand = ByHand(example)
    found = equilibrium(example, steps="equilibrium")
    hidden = [torch.tensor(found[f"x{i}"].values).requires_grad_() for i in range(1, len(hand.stages))]
    values = [example.inputs, *hidden, example.targets]
    slopes = torch.autograd.grad(hand.energy(values), hidden)
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-8
    hand.values = [x.detach() for x in values]
    for number, error in enumerate(hand.errors(), start=1):
        np.testing.assert_allclose(found[f"e{number}"], error, atol=1e-12)
    expected = [g for number in range(len(hand.stages)) for g in hand.gradient(number)]
    assert largest_difference(learn(example, steps="equilibrium"), expected) < 1e-6


def jacobians(example: Example) -> list[Tensor]:
    """Return ∂y/∂x_l at the forward pass for l = 1 … L, each (sample, output, unit); that of the last is 1."""
    hand = ByHand(example)
    values = [example.inputs]
    for stage in hand.stages:
        values.append(stage(values[-1]).detach())
    found = [torch.eye(values[-1].shape[1], dtype=torch.float64).expand(len(values[-1]), -1, -1)]
    for stage, x in zip(hand.stages[:0:-1], values[-2:0:-1], strict=True):
        local = torch.stack([torch.autograd.functional.jacobian(stage, sample) for sample in x])
        found.insert(0, found[0] @ local)
    return found


def shared_errors(example: Example, targets: Tensor) -> list[Tensor]:
    """Return the errors at the equilibrium of the network linearised at its forward pass.

    There e_l = A_lᵀ e_L with A_l = ∂y/∂x_l, and the layers share the output's mismatch: Σ A_l A_lᵀ e_L = t − y.
    """
    to_output = jacobians(example)
    metric = torch.stack([a @ a.mT for a in to_output]).sum(0)
    top = torch.linalg.solve(metric, targets - example.module(example.inputs).detach())
    return [torch.einsum("soi,so->si", a, top) for a in to_output]


def test_a_linear_networks_equilibrium_has_a_closed_form() -> None:
    example = deep(4, "linear")
    found = equilibrium(example, steps="equilibrium")
    for number, error in enumerate(shared_errors(example, example.targets), start=1):
        np.testing.assert_allclose(found[f"e{number}"], error, atol=1e-9)


def test_il_at_the_equilibrium_departs_from_backprop_in_proportion_to_the_output_error_and_by_sharing_it() -> None:
    """As the target tends to the prediction, errors tend to backprop's with the mismatch shared among the layers.

    So they do not tend to those of backprop itself, which puts the whole mismatch on the output.
    """
    example = mlp()
    output = example.module(example.inputs).detach()
    to_shared, to_backprop = [], []
    for scale in (0.2, 0.1, 0.05):
        targets = output + scale * (example.targets - output)
        found = equilibrium(example, targets, steps="equilibrium")
        errors = [torch.tensor(found[f"e{number}"].values) for number in (1, 2, 3)]
        backprop = [torch.einsum("soi,so->si", a, targets - output) for a in jacobians(example)]
        to_shared.append(relative_distance(errors, shared_errors(example, targets)))
        to_backprop.append(relative_distance(errors, backprop))
    assert to_shared[0] < 0.1
    for larger, smaller in pairwise(to_shared):
        assert 1.8 < larger / smaller < 2.2
    assert min(to_backprop) > 0.1
    assert abs(to_backprop[1] - to_backprop[2]) < 0.1 * to_backprop[2]


@pytest.mark.parametrize(("make", "error_tau"), [(mlp, 0.0), (mlp, 0.1), (cnn, 0.0)], ids=["mlp", "mlp, τ", "cnn"])
def test_prediction_relaxes_to_the_forward_pass(make, error_tau) -> None:
    example: Example = make()
    torch.manual_seed(0)
    network = pc.network(example.module, initial_noise=0.1, error_tau=error_tau)
    found = nd.equilibrium(network, example.inputs, tolerance=1e-8)
    x = example.inputs
    for number, stage in enumerate(ByHand(example).stages, start=1):
        x = stage(x)
        np.testing.assert_allclose(found[f"x{number}"], x.detach(), atol=1e-6)
        assert float(abs(found[f"e{number}"]).max()) < 1e-6


def test_without_targets_nothing_moves_and_nothing_is_learned() -> None:
    example = mlp()
    trajectory = nd.simulate(pc.network(example.module), example.inputs, duration=2.0, solver=nd.Euler(0.5))
    for name in trajectory.data_vars:
        assert not trajectory[name].diff("time").any()
    for learning in ("il", "z-il", "fa-z-il"):
        assert nd.backward(pc.network(example.module, learning=learning), example.inputs) is None
        assert not any(p.grad.any() for p in example.module.parameters() if p.grad is not None)


def test_initial_noise_has_the_spread_asked_for_and_spares_the_output() -> None:
    module = nd.mlp([4, 100, 100, 3], dtype=torch.float64)
    inputs = tensor(20, 4)
    torch.manual_seed(0)
    noisy = nd.System(pc.network(module, initial_noise=0.3), inputs).initial_state().activity
    still = nd.System(pc.network(module), inputs).initial_state().activity
    for name in ("x1", "x2"):
        assert 0.28 < float((noisy[name] - still[name]).std()) < 0.32
    assert torch.equal(noisy["x3"], still["x3"])


# Energy and structure


@pytest.mark.parametrize("make", [mlp, cnn], ids=["mlp", "cnn"])
def test_the_energy_is_half_the_squared_errors_and_never_grows(make) -> None:
    example: Example = make()
    network = pc.network(example.module, initial_noise=0.3)
    torch.manual_seed(0)
    errors = [f"e{stage.name}" for stage in network.forward]
    trajectory = nd.simulate(network, example.inputs, example.targets, duration=8.0, record=["energy", *errors])
    energy = trajectory.energy
    assert energy.dims == ("time", "sample")
    squares = [(trajectory[e] ** 2).sum(set(trajectory[e].dims) - {"time", "sample"}) for e in errors]
    np.testing.assert_allclose(energy, 0.5 * sum(squares), rtol=1e-12)
    assert float(energy.diff("time").max()) <= 1e-6
    assert float(energy[-1].sum()) < 0.9 * float(energy[0].sum())


@pytest.mark.parametrize("targets", [True, False])
def test_instantaneous_errors_make_a_gradient_flow(targets) -> None:
    example = mlp()
    for error_tau in (0.0, 0.1):
        system = nd.System(
            pc.network(example.module, error_tau=error_tau), example.inputs, example.targets if targets else None
        )
        assert system.structure.gradient_flow == (error_tau == 0.0)
        assert not system.structure.acyclic


def test_the_flow_is_the_gradient_of_the_energy() -> None:
    example = mlp()
    hand = ByHand(example)
    system = nd.System(pc.network(example.module), example.inputs, example.targets)
    state, slope = system.initial_state(), system.new_state()
    state.flat.copy_(tensor(system.size))
    system.field(state, slope)
    hidden = [state.activity[f"x{i}"].clone().requires_grad_() for i in (1, 2)]
    expected = torch.autograd.grad(hand.energy([example.inputs, *hidden, example.targets]), hidden)
    assert largest_difference([-slope.activity["x1"], -slope.activity["x2"]], list(expected)) < 1e-12


def test_slow_errors_tend_to_instantaneous_ones_with_their_time_constant() -> None:
    example = mlp()

    def values(error_tau: float) -> xr.DataArray:
        network = pc.network(example.module, error_tau=error_tau)
        solver = nd.Adaptive("dopri5", rtol=1e-9, atol=1e-10)
        return nd.simulate(
            network, example.inputs, example.targets, duration=2.0, solver=solver, save_at=[1.0, 2.0], record=["x2"]
        ).x2

    instantaneous = values(0.0)
    distances = [float(abs(values(tau) - instantaneous).max()) for tau in (0.04, 0.02, 0.01)]
    for larger, smaller in pairwise(distances):
        assert 1.8 < larger / smaller < 2.2


# What is evaluated


@pytest.fixture
def evaluations(monkeypatch) -> list[str]:
    """Collect the name of each population that is evaluated."""
    names: list[str] = []

    def noted(original):
        def method(self, name, *arguments, **options):
            names.append(name)
            return original(self, name, *arguments, **options)

        return method

    monkeypatch.setattr(nd.System, "evaluate", noted(nd.System.evaluate))
    return names


@pytest.mark.parametrize("learning", ["z-il", "fa-z-il"])
@pytest.mark.parametrize("layers", range(1, 6))
def test_z_il_evaluates_each_error_once_and_advances_each_value_once(learning, layers, evaluations) -> None:
    learn(deep(layers), learning=learning)
    expected = [f"e{layers}"]
    for number in reversed(range(1, layers)):
        expected += [f"x{number}", f"e{number}"]
    assert evaluations == expected


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_il_evaluates_what_the_change_at_the_output_has_reached(steps, evaluations) -> None:
    learn(deep(4), steps=steps)
    for number in range(1, 5):
        assert evaluations.count(f"e{number}") == max(0, steps + 1 - (4 - number))
        assert evaluations.count(f"x{number}") == (max(0, steps - (3 - number)) if number < 4 else 0)


def test_where_the_start_is_noisy_nothing_is_taken_for_still(evaluations) -> None:
    learn(deep(3), learning="z-il", initial_noise=0.1)
    assert evaluations == ["e3", "e1", "e2", "x1", "x2", "e2", "e1", "x1", "e1"]


def test_fa_z_il_goes_on_from_where_a_unit_has_not_spiked_and_evaluates_what_can_still_reach_it(evaluations) -> None:
    learn(deep(3, "relu"), learning="fa-z-il")
    assert evaluations == ["e3", "x2", "e2", "e3", "x1", "x2", "e1", "e2"]


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning": "zil"}, ValueError, "learning is 'il', 'z-il' or 'fa-z-il', not 'zil'"),
        ({"step": 0.0}, ValueError, "step of inference must be positive"),
        ({"step": -1.0, "learning": "z-il"}, ValueError, "step of inference must be positive"),
        ({"step": float("nan")}, ValueError, "step of inference must be positive"),
        ({"step": "1"}, TypeError, "step of inference must be a number"),
        ({"steps": -1}, ValueError, "steps must be an integer ≥ 0"),
        ({"steps": 2.5}, TypeError, "steps must be an integer ≥ 0"),
        ({"steps": "many"}, ValueError, "steps is a number of steps or 'equilibrium', not 'many'"),
        ({"steps": 3, "learning": "z-il"}, ValueError, "leave it out"),
        ({"steps": "equilibrium", "learning": "fa-z-il"}, ValueError, "only 'il' learns at the equilibrium"),
        ({"steps": "equilibrium", "step": 0.5}, ValueError, "step: the equilibrium is reached without steps"),
        ({"spike_window": 0, "learning": "fa-z-il"}, ValueError, "window of spikes must be an integer ≥ 1"),
        ({"spike_window": -4}, ValueError, "window of spikes must be an integer ≥ 1"),
        ({"spike_window": 1.5, "learning": "fa-z-il"}, TypeError, "window of spikes must be an integer ≥ 1"),
        ({"spike": "value"}, ValueError, "spike is 'error' or 'moved', not 'value'"),
        ({"spike": "moved"}, ValueError, "spike: 'il' does not wait for spikes; only 'fa-z-il' does"),
        ({"spike": "moved", "learning": "fa-z-il", "error_tau": 0.1}, ValueError, "spike: errors that lag"),
        ({"initial_noise": -0.1}, ValueError, "sigma of the noise must be positive"),
        ({"error_tau": -0.1}, ValueError, "tau must be ≥ 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, error, message) -> None:
    with pytest.raises(error, match=message):
        pc.network(nd.mlp([4, 3, 2]), **options)


def test_a_module_that_is_none_or_has_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="no stage of the module has weights"):
        pc.network(nn.Sequential(nn.Tanh(), nn.Flatten()))
    with pytest.raises(TypeError, match=r"nn\.Module"):
        pc.network([4, 3, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be part of a stage"):
        pc.network(nn.Sequential(nn.Linear(4, 3), nn.LSTM(3, 2)))


@pytest.mark.parametrize("learning", ["il", "z-il", "fa-z-il"])
def test_data_that_do_not_fit_are_refused(learning) -> None:
    example = mlp()
    network = pc.network(example.module, learning=learning)
    with pytest.raises(ValueError, match="targets have the shape"):
        nd.backward(network, example.inputs, example.targets[:, :4])
    with pytest.raises(ValueError, match="samples"):
        nd.backward(network, example.inputs, example.targets[:4])
    with pytest.raises(ValueError, match="12"):
        nd.backward(network, example.inputs[:, :9], example.targets)


@pytest.mark.parametrize("learning", ["z-il", "fa-z-il"])
def test_a_duration_is_refused_where_plasticity_acts_at_steps(learning) -> None:
    example = mlp()
    with pytest.raises(ValueError, match=r"duration: the plasticity of network .* acts at steps of its inference"):
        nd.backward(pc.network(example.module, learning=learning), example.inputs, example.targets, duration=3.0)


def test_inference_that_diverges_stops_and_leaves_the_gradients_alone() -> None:
    example = mlp()
    network = pc.network(example.module, steps=3000, step=10.0)
    with pytest.raises(nd.DivergenceError, match=r"population x\d became non-finite within 3000 steps of inference"):
        nd.backward(network, example.inputs, example.targets)
    assert all(p.grad is None for p in example.module.parameters())
