"""Target propagation against its recursion in arithmetic of 80 digits, backprop, and SciPy."""

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.layers.losses import Loss, squared_error
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import target_propagation as tp
from tests.problems import Example, tensor

RULES = ("tp", "itp", "gait")
MODULES: dict[str, Callable[..., nn.Sequential]] = {
    "square, random": lambda **settings: tp.tower([5] * 5, outputs=3, seed=1, **settings),
    "square, orthogonal": lambda **settings: tp.tower([5] * 5, weights="orthogonal", seed=2, **settings),
    "tower": lambda **settings: tp.tower([8, 7, 7, 5, 3], seed=3, **settings),
    "linear output": lambda **settings: nd.mlp([4] * 5, activation="leaky_relu", seed=4, **settings),
}


def example(kind: str, dtype: torch.dtype = torch.float64, **settings) -> Example:
    module = MODULES[kind](dtype=dtype, **settings)
    with torch.no_grad():
        for number, layer in enumerate(linears(module)):
            layer.bias.copy_(0.3 * tensor(layer.out_features, seed=number))
        inputs = tensor(4, {"tower": 8, "linear output": 4}.get(kind, 5)).to(dtype)
        return Example(module, inputs, tensor(*module(inputs).shape, seed=7).to(dtype))


def linears(module: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in module if isinstance(layer, nn.Linear)]


def updates(network: nd.Network, data: Example, **settings) -> list[Tensor]:
    data.module.zero_grad()
    nd.backward(network, data.inputs, data.targets, **settings)
    return [parameter.grad for parameter in data.module.parameters() if parameter.grad is not None]


def distance(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """The relative distance of each tensor to what is expected."""
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


Numbers = NDArray[np.object_]


def exact(values: Tensor) -> Numbers:
    return np.vectorize(Decimal, otypes=[object])(values.detach().double().numpy())


def solve(matrix: Numbers, right: Numbers) -> Numbers:
    """Gauss–Jordan elimination with pivoting."""
    rows, n = np.concatenate([matrix, right], 1), len(matrix)
    for i in range(n):
        pivot = i + int(np.argmax(np.abs(rows[i:, i])))
        rows[[i, pivot]] = rows[[pivot, i]]
        rows[i] = rows[i] / rows[i, i]
        for j in range(n):
            if j != i:
                rows[j] = rows[j] - rows[j, i] * rows[i]
    return rows[:, n:]


def recursion(data: Example, rule: str, gamma: float, error: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Algorithm 1, and its relatives, word for word; return the targets t_1 … t_L, and ΔW_1, Δb_1, ΔW_2, …."""
    slopes = [layer.negative_slope for layer in data.module if isinstance(layer, nn.LeakyReLU)]
    slopes += [1.0] * (len(linears(data.module)) - len(slopes))
    with localcontext() as context:
        context.prec = 80
        weights = [exact(layer.weight) for layer in linears(data.module)]
        biases = [exact(layer.bias) for layer in linears(data.module)]
        y, derivatives = [exact(data.inputs)], []
        for w, b, slope in zip(weights, biases, slopes, strict=True):
            h = y[-1][:, : w.shape[1]] @ w.T + b
            derivatives.append(np.vectorize(Decimal)(np.where(h > 0, 1.0, slope)))
            y.append(h * derivatives[-1])
        top = exact(data.targets) if error is None else y[-1][:, : error.shape[1]] - exact(error)
        targets = [np.concatenate([top, y[-1][:, top.shape[1] :]], 1)]
        factor = Decimal(1)
        found: list[Numbers] = []
        for place in range(len(weights) - 1, -1, -1):
            w, here = weights[place], derivatives[place]
            delta = factor * here * (y[place + 1] - targets[0])
            found = [delta.T @ y[place][:, : w.shape[1]] / len(delta), delta.sum(0) / len(delta), *found]
            if place == 0:
                break
            epsilon = {"tp": Decimal(1), "itp": Decimal(gamma), "gait": Decimal(gamma) * here**2}[rule]
            mixed = (1 - epsilon) * y[place + 1] + epsilon * targets[0]
            back = solve(w, (np.where(mixed > 0, mixed, mixed / Decimal(slopes[place])) - biases[place]).T).T
            targets = [np.concatenate([back, y[place][:, w.shape[1] :]], 1), *targets]
            factor /= 1 if rule == "tp" else Decimal(gamma)
        return tuple([torch.tensor(a.astype(float)) for a in each] for each in (targets, found))  # type: ignore[return-value]


@pytest.mark.parametrize("gamma", [1.0, 0.3, 1e-3, 1e-8])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", MODULES)
def test_updates_and_targets_are_those_of_the_recursion(kind: str, rule: Any, gamma: float) -> None:
    data = example(kind)
    network = tp.network(data.module, rule=rule, gamma=gamma)
    targets, expected = recursion(data, rule, gamma)
    torch.testing.assert_close(updates(network, data), expected, rtol=1e-9, atol=1e-10)
    found = nd.equilibrium(network, data.inputs, data.targets)
    for number, target in enumerate(targets, start=1):
        t = torch.tensor(found[f"t{number}"].values)
        torch.testing.assert_close(t, target[:, : t.shape[1]], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", MODULES)
def test_the_naive_form_is_the_same_where_rounding_is_small(kind: str, rule: Any) -> None:
    data = example(kind)
    found = [updates(tp.network(data.module, rule=rule, gamma=0.5, form=form), data) for form in ("naive", "deviation")]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
    naive, deviation = (
        nd.equilibrium(tp.network(data.module, rule=rule, gamma=0.5, form=form), data.inputs, data.targets)
        for form in ("naive", "deviation")
    )
    for name in ("t1", "t2", "t3", "t4"):
        np.testing.assert_allclose(naive[name], deviation[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("weights", ["orthogonal", "xavier"])
def test_float32_holds_eight_layers_of_deviations_and_not_three_of_targets(weights: Any) -> None:
    module = tp.tower([16] * 9, weights=weights, seed=1, dtype=torch.float32)
    data = Example(module, tensor(5, 16).float(), tensor(5, 16, seed=1).float())
    _, expected = recursion(data, "gait", 1e-3)
    assert max(distance(updates(tp.network(module, rule="gait"), data), expected)) < 1e-3
    naive = distance(updates(tp.network(module, rule="gait", form="naive"), data), expected)[::2]
    assert naive[-1] < 1e-5  # W_L, whose target is given
    if weights == "orthogonal":  # others may stretch deviations on the way down
        assert naive[-3] > 0.1
        assert min(naive[:-3]) > 100


def cross_entropy(output: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, targets, reduction="none")


LOSSES: dict[str, Loss] = {"squared error": squared_error, "cross entropy": cross_entropy}


def labelled(sizes: list[int], loss: str, **settings) -> Example:
    """A network with random biases and a batch, the targets being probabilities for the cross entropy."""
    module = tp.tower(sizes, dtype=torch.float64, **settings)
    with torch.no_grad():
        for number, layer in enumerate(linears(module)):
            layer.bias.copy_(0.1 * tensor(layer.out_features, seed=number))
        inputs = tensor(6, sizes[0])
        targets = tensor(*module(inputs).shape, seed=1)
        return Example(module, inputs, targets.softmax(1) if loss == "cross entropy" else targets)


def gradients(data: Example, loss: Loss) -> list[Tensor]:
    value = loss(data.module(data.inputs), data.targets).mean()
    return list(torch.autograd.grad(value, list(data.module.parameters())))


@pytest.mark.parametrize("gamma", [1e-9, 1e-30])
@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ([20] * 6, {"outputs": 4}),
        ([24, 20, 20, 13, 4], {}),
        ([10] * 4, {"activation": "tanh"}),
        ([10] * 4, {"activation": "softplus", "outputs": 3}),
        ([12, 7, 7], {"activation": "sigmoid"}),
        ([9, 9, 9, 5], {"activation": "linear"}),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_gait_of_orthogonal_weights_is_backprop(sizes, settings, gamma: float, loss: str) -> None:
    data = labelled(sizes, loss, weights="orthogonal", seed=5, **settings)
    network = tp.network(data.module, rule="gait", gamma=gamma, loss=LOSSES[loss])
    assert max(distance(updates(network, data), gradients(data, LOSSES[loss]))) < 1e-6


@pytest.mark.parametrize("rule", RULES)
def test_any_loss_sets_the_target_of_the_top(rule: Any) -> None:
    data = labelled([7, 6, 6, 4], "cross entropy", seed=2)
    output = data.module(data.inputs).detach().requires_grad_()
    (error,) = torch.autograd.grad(cross_entropy(output, data.targets).sum(), output)
    targets, expected = recursion(data, rule, 1e-2, error)
    network = tp.network(data.module, rule=rule, gamma=1e-2, loss=cross_entropy)
    torch.testing.assert_close(updates(network, data), expected, rtol=1e-9, atol=1e-11)
    found = nd.equilibrium(network, data.inputs, data.targets)
    np.testing.assert_allclose(found.t3, (output - error).detach(), rtol=1e-12)
    np.testing.assert_allclose(found.t1, targets[0], rtol=1e-10)


@pytest.mark.parametrize("rule", ["itp", "gait"])
def test_random_weights_do_not_give_backprop(rule: Any) -> None:
    data = labelled([10] * 4, "squared error", seed=1)
    assert max(distance(updates(tp.network(data.module, rule=rule), data), data.gradients())) > 0.5


@pytest.mark.parametrize("rule", RULES)
def test_auxiliary_units_keep_their_value_and_their_weights(rule: Any) -> None:
    data = labelled([9, 8, 8, 5], "squared error", seed=3, outputs=2)
    network = tp.network(data.module, rule=rule, gamma=0.1)
    found = nd.equilibrium(network, data.inputs, data.targets)
    assert found.t2.shape == (6, 8)
    assert found.t3.shape == (6, 2)
    np.testing.assert_array_equal(found.t2[:, 5:], found.y2[:, 5:])
    assert abs(found.t2[:, :5] - found.y2[:, :5]).min() > 0
    top = updates(network, data)[-2:]
    assert not top[0][2:].any()
    assert not top[1][2:].any()
    assert top[0][:2].all()


def test_other_rules_train_a_tower_too() -> None:
    data = labelled([9, 8, 8, 5], "squared error", seed=3, outputs=2)
    torch.testing.assert_close(updates(ar.network(data.module), data), data.gradients())


def scipy_trajectory(rhs: Callable, start: list[NDArray], times: NDArray) -> list[NDArray]:
    """Integrate dx/dt = rhs([x_1, …]) with SciPy; return each x_l, shape (time, …)."""
    splits = np.cumsum([x.size for x in start])[:-1]

    def unpack(flat: NDArray) -> list[NDArray]:
        return [part.reshape(x.shape) for part, x in zip(np.split(flat, splits), start, strict=True)]

    def flat_rhs(_: float, flat: NDArray) -> NDArray:
        return np.concatenate([slope.ravel() for slope in rhs(unpack(flat))])

    flat = np.concatenate([x.ravel() for x in start])
    solution = solve_ivp(flat_rhs, (0.0, times[-1]), flat, "DOP853", t_eval=times, rtol=1e-8, atol=1e-8)
    return [np.stack(each) for each in zip(*(unpack(y) for y in solution.y.T), strict=True)]


class Layers:
    """A square network in NumPy: its forward pass, its stages and their inverses."""

    def __init__(self, data: Example) -> None:
        self.w = [layer.weight.detach().numpy() for layer in linears(data.module)]
        self.b = [layer.bias.detach().numpy() for layer in linears(data.module)]
        self.depth = len(self.w)
        self.values = [data.inputs.numpy()]
        for place in range(self.depth):
            self.values.append(self.forward(place, self.values[-1]))
        self.slopes = [np.where(y > 0, 1.0, 0.1) for y in self.values[1:]]

    def forward(self, place: int, x: NDArray) -> NDArray:
        h = x @ self.w[place].T + self.b[place]
        return np.where(h > 0, h, 0.1 * h)

    def inverse(self, place: int, y: NDArray) -> NDArray:
        return np.linalg.solve(self.w[place], (np.where(y > 0, y, 10 * y) - self.b[place]).T).T

    def epsilon(self, rule: str, gamma: float, place: int) -> Any:
        return {"tp": 1.0, "itp": gamma, "gait": gamma * self.slopes[place] ** 2}[rule]


@pytest.mark.parametrize("form", ["deviation", "naive"])
@pytest.mark.parametrize("rule", RULES)
def test_targets_relax_as_the_equations_say(rule: Any, form: Any) -> None:
    data = labelled([5] * 4, "squared error", seed=4)
    layers, gamma, top = Layers(data), 0.3, data.targets.numpy()

    def rhs(t: list[NDArray]) -> list[NDArray]:
        slopes = []
        for place in range(1, layers.depth):
            above, y = [*t, top][place], layers.values[place + 1]
            epsilon = layers.epsilon(rule, gamma, place)
            slopes.append(layers.inverse(place, (1 - epsilon) * y + epsilon * above) - t[place - 1])
        return slopes

    times = np.linspace(0.0, 6.0, 13)
    expected = scipy_trajectory(rhs, layers.values[1:-1], times)
    network = tp.network(data.module, rule=rule, gamma=gamma, form=form)
    found = nd.simulate(
        network, data.inputs, data.targets, duration=6.0, save_at=times, solver=nd.Adaptive(rtol=1e-8, atol=1e-8)
    )
    for name, reference in zip(["t1", "t2"], expected, strict=True):
        np.testing.assert_allclose(found[name], reference, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.t3, np.broadcast_to(top, found.t3.shape), rtol=1e-12)


@pytest.mark.parametrize(("rule", "gamma"), [("itp", 1.0), ("itp", 0.01), ("gait", 1.0), ("gait", 0.3)])
def test_the_circuit_relaxes_as_the_equations_say(rule: Any, gamma: float) -> None:
    data = labelled([5] * 4, "squared error", seed=5)
    layers, top = Layers(data), data.targets.numpy()

    def rhs(y: list[NDArray]) -> list[NDArray]:
        slopes = []
        for place in range(layers.depth):
            epsilon = layers.epsilon(rule, gamma, place)
            below = layers.values[0] if place == 0 else y[place - 1]
            back = top if place == layers.depth - 1 else layers.inverse(place + 1, y[place + 1])
            slopes.append((1 - epsilon) * layers.forward(place, below) + epsilon * back - y[place])
        return slopes

    times = np.linspace(0.0, 5.0, 11)
    expected = scipy_trajectory(rhs, layers.values[1:], times)
    network = tp.weak_feedback(data.module, rule=rule, gamma=gamma)
    found = nd.simulate(
        network, data.inputs, data.targets, duration=5.0, save_at=times, solver=nd.Adaptive(rtol=1e-8, atol=1e-8)
    )
    for name, reference in zip(["y1", "y2", "y3"], expected, strict=True):
        np.testing.assert_allclose(found[name], reference, rtol=1e-4, atol=1e-4)


def deviations(network: nd.Network, data: Example, count: int) -> list[Tensor]:
    found = nd.equilibrium(network, data.inputs, data.targets)
    return [torch.tensor(found[f"d{number}"].values).double() for number in range(1, count + 1)]


@pytest.mark.parametrize("gamma", [1e-3, 1e-5])
@pytest.mark.parametrize("seed", range(3))
def test_the_circuit_carries_the_targets_of_itp(seed: int, gamma: float) -> None:
    data = labelled([30] * 5, "squared error", seed=seed)
    expected = deviations(tp.network(data.module, rule="itp", gamma=gamma), data, 4)
    found = deviations(tp.weak_feedback(data.module, gamma=gamma), data, 4)
    # Each loop between the layer and the top adds γ: 1 at the top, 3 at the first two layers.
    for distances, loops in zip(distance(found, expected), [3, 3, 2, 1], strict=True):
        assert distances < (loops + 0.1) * gamma


@pytest.mark.parametrize("gamma", [0.2, 1e-3])
def test_loops_of_a_linear_circuit_multiply_its_targets_by_a_number(gamma: float) -> None:
    data = labelled([6] * 5, "squared error", seed=1, activation="linear")
    expected = deviations(tp.network(data.module, rule="itp", gamma=gamma), data, 4)
    found = deviations(tp.weak_feedback(data.module, gamma=gamma), data, 4)
    # With J x_{l−1} = x_l / r_l, eliminated from below: x_l (1 − γ (1 − γ) / r_l) = J⁻¹ x_{l+1}.
    r = [1.0]
    for _ in range(3):
        r.append(1.0 - gamma * (1.0 - gamma) / r[-1])
    factors = [1.0 / float(np.prod(r[place:])) for place in range(4)]
    for a, b, factor in zip(found, expected, factors, strict=True):
        torch.testing.assert_close(a, factor * b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_circuit_with_adjusted_feedback_carries_the_targets_of_gait(seed: int) -> None:
    data = labelled([12] * 5, "squared error", seed=seed)

    def distances(gamma: float) -> list[float]:
        expected = deviations(tp.network(data.module, rule="gait", gamma=gamma), data, 4)
        return distance(deviations(tp.weak_feedback(data.module, rule="gait", gamma=gamma), data, 4), expected)

    near, far = distances(1e-7), distances(1e-6)
    assert max(near) < 1e-3
    for a, b in zip(near, far, strict=True):
        assert b / a == pytest.approx(10.0, rel=0.1)
    itp = deviations(tp.network(data.module, rule="itp", gamma=1e-7), data, 4)
    gait = deviations(tp.weak_feedback(data.module, rule="gait", gamma=1e-7), data, 4)
    assert min(distance(gait, itp)[:-1]) > 0.1


def test_the_circuit_in_float32() -> None:
    data = labelled([10] * 5, "squared error", seed=1, weights="orthogonal")
    expected = deviations(tp.network(data.module, rule="itp"), data, 4)
    single = Example(data.module.float(), data.inputs.float(), data.targets.float())
    found = deviations(tp.weak_feedback(single.module), single, 4)
    assert max(distance(found, expected)) < 3.1e-3


@pytest.mark.parametrize("rule", ["itp", "gait"])
def test_the_circuit_learns_as_its_rule(rule: Any) -> None:
    data = labelled([9, 8, 8, 5], "squared error", seed=3, outputs=2)
    expected = updates(tp.network(data.module, rule=rule, gamma=1e-6), data)
    found = updates(tp.weak_feedback(data.module, rule=rule, gamma=1e-6), data)
    assert max(distance(found, expected)) < 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_a_relaxation_that_stops_early_learns_from_where_it_is(rule: Any) -> None:
    data = labelled([6] * 4, "squared error", seed=1)
    network = tp.network(data.module, rule=rule)
    settled = updates(network, data)
    torch.testing.assert_close(updates(network, data, duration=60.0), settled, rtol=1e-4, atol=1e-6)
    early = updates(network, data, duration=1.0)
    torch.testing.assert_close(early[-2:], settled[-2:])  # the top's target is there from the start
    assert distance(early, settled)[0] > 0.1


@pytest.mark.parametrize("declare", [tp.network, tp.weak_feedback])
@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (nd.mlp([6, 5, 4]), {}, r"stage 1 has no inverse: its weights are 5 × 6.*FirstUnits\(5\)"),
        (nd.mlp([4, 4, 6]), {}, "stage 2 has no inverse: its weights are 6 × 4.*no layer may be wider"),
        (nd.mlp([4, 4, 4], activation="relu"), {}, "stage 1 has no inverse: ReLU is not invertible; use square Linear"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), {}, "stage 1 has no inverse: Conv2d"),
        (nd.mlp([4, 4, 4]), {"gamma": 0.0}, r"gamma must lie in \(0, 1\], not 0.0"),
        (nd.mlp([4, 4, 4]), {"gamma": 1.5}, r"gamma must lie in \(0, 1\], not 1.5"),
        (nd.mlp([4, 4, 4]), {"gamma": -0.1}, r"gamma must lie in \(0, 1\], not -0.1"),
        (nd.mlp([4, 4, 4]), {"gamma": float("nan")}, "gamma must be finite, not nan"),
        (nd.mlp([4] * 5), {"gamma": 1e-100}, "gamma = 1e-100 to the power of the 4 layers underflows"),
        (nd.mlp([4, 4, 4]), {"rule": "bp"}, "rule is .* not 'bp'"),
    ],
)
def test_what_cannot_be_declared_is_refused(declare, module: nn.Module, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declare(module, **settings)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="form is 'deviation' or 'naive', not 'scaled'"):
        tp.network(nd.mlp([4, 4]), form="scaled")  # type: ignore[arg-type]


@pytest.mark.parametrize("declare", [tp.network, tp.weak_feedback])
@pytest.mark.parametrize("run", [nd.equilibrium, nd.backward])
def test_a_singular_matrix_is_refused(declare, run) -> None:
    data = labelled([5] * 4, "squared error", seed=1)
    with torch.no_grad():
        linears(data.module)[1].weight[0] = linears(data.module)[1].weight[1]
    with pytest.raises(
        ValueError, match=r"stage 2 cannot be inverted in torch.float64: .* condition number is [0-9.]+e"
    ):
        run(declare(data.module), data.inputs, data.targets)


@pytest.mark.parametrize("form", ["deviation", "naive"])
def test_targets_outside_the_range_of_an_activation_are_refused_not_clipped(form: Any) -> None:
    data = labelled([5] * 4, "squared error", seed=1, activation="sigmoid", weights="orthogonal")
    one_hot = torch.eye(5, dtype=torch.float64)[[0, 1, 2, 3, 4, 0]]
    network = tp.network(data.module, rule="tp", form=form)
    message = r"stage 3 cannot be inverted here: Sigmoid takes values in \(0, 1\).*nothing was clipped"
    with pytest.raises(ValueError, match=message):
        nd.equilibrium(network, data.inputs, one_hot)
    near = tp.network(data.module, rule="itp", form=form, gamma=1e-3)  # an increment towards it is inside
    assert np.isfinite(nd.equilibrium(near, data.inputs, one_hot).t2).all()
    inside = data.module(0.9 * data.inputs).detach()  # so that every layer has a target
    assert np.isfinite(nd.equilibrium(network, data.inputs, inside).t1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [4]}, "sizes of tower: at least two"),
        ({"sizes": [4, 5]}, "sizes of tower: no layer may be wider than the one before"),
        ({"sizes": [4, 4], "outputs": 5}, "outputs of tower: from 1 to the 4 units of the last layer, not 5"),
        ({"sizes": [4, 4], "outputs": 0}, "outputs of tower: from 1 to the 4 units"),
        ({"sizes": [4, 4], "activation": "relu"}, "stage 1 has no inverse: ReLU"),
        ({"sizes": [4, 4], "activation": "cube"}, "activation of tower: one of tanh, .* not 'cube'"),
        (
            {"sizes": [4, 4], "weights": "zero"},
            "weights: one of 'scaled', 'default', 'xavier', 'orthogonal', not 'zero'",
        ),
    ],
)
def test_a_tower_refuses_what_it_cannot_build(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tp.tower(**arguments)


def test_a_tower_is_a_plain_module_with_reproducible_weights() -> None:
    torch.manual_seed(3)
    expected_next = torch.rand(3)
    torch.manual_seed(3)
    a, b = (tp.tower([9, 9, 6, 4], outputs=2, seed=5, weights="orthogonal", dtype=d) for d in (torch.float64, None))
    assert torch.equal(torch.rand(3), expected_next)
    assert [repr(layer).split("(")[0] for layer in a] == [
        *("Linear", "LeakyReLU", "FirstUnits", "Linear", "LeakyReLU", "FirstUnits", "Linear", "LeakyReLU", "FirstUnits")
    ]
    for first, second in zip(linears(a), linears(b), strict=True):
        torch.testing.assert_close(first.weight.float(), second.weight)
        w = first.weight.detach()
        torch.testing.assert_close(w @ w.t(), torch.eye(len(w), dtype=torch.float64), rtol=0, atol=1e-14)
        assert not first.bias.any()
    assert a(tensor(3, 9)).shape == (3, 2)
    state = a.state_dict()
    again = tp.tower([9, 9, 6, 4], outputs=2, seed=6, dtype=torch.float64)
    again.load_state_dict(state)
    torch.testing.assert_close(again(tensor(3, 9)), a(tensor(3, 9)))


def test_the_equations_can_be_read() -> None:
    text = str(tp.network(tp.tower([6, 5, 5]), rule="gait", gamma=0.01))
    assert "dd1/dt = −d1 + (g2⁻¹(ḡ2) − g2⁻¹(ḡ2 − 0.01 i2)) / 0.01" in text
    assert "i2 = f'(h2)² ⊙ d2" in text
    assert "t1 = y1 − 0.01 d1" in text
    assert "g1 = FirstUnits(5), Linear(5 → 5), LeakyReLU" in text
    text = str(tp.weak_feedback(tp.tower([5, 5, 5]), gamma=0.01))
    assert "dd2/dt = −d2 + error + 0.0099 (g2(x̄) − g2(x̄ − 0.0001 d1)) / 0.0001" in text.replace(
        "−d2 + 0.0099 (g2(x̄) − g2(x̄ − 0.0001 d1)) / 0.0001 + error",
        "−d2 + error + 0.0099 (g2(x̄) − g2(x̄ − 0.0001 d1)) / 0.0001",
    )


@pytest.mark.parametrize("form", ["deviation", "naive"])
def test_linear_targets_have_their_trajectory_in_closed_form(form: Any) -> None:
    data = labelled([8, 8, 6, 4], "squared error", seed=1, activation="linear", outputs=3)
    network = tp.network(data.module, rule="itp", gamma=0.1, form=form)
    exact_flow = nd.simulate(network, data.inputs, data.targets, duration=3.0, save_at=7, solver=nd.Exact())
    solver = nd.Adaptive(rtol=1e-10, atol=1e-12)
    integrated = nd.simulate(network, data.inputs, data.targets, duration=3.0, save_at=7, solver=solver)
    for name in ("t1", "t2", "t3", "d1", "d2", "d3"):
        np.testing.assert_allclose(exact_flow[name], integrated[name], rtol=1e-8, atol=1e-8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("declare", [tp.network, tp.weak_feedback])
def test_a_gpu_gives_the_updates_of_the_cpu(declare) -> None:
    data = labelled([16] * 9, "squared error", seed=1, weights="orthogonal")
    expected = updates(declare(data.module, rule="gait"), data)
    data.module.to("cuda", torch.float32)
    on_gpu = Example(data.module, data.inputs.to("cuda", torch.float32), data.targets.to("cuda", torch.float32))
    found = [gradient.cpu() for gradient in updates(declare(data.module, rule="gait"), on_gpu)]
    assert max(distance(found, expected)) < 1e-3
