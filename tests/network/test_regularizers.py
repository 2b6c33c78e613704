"""Regularizers against autograd, and in the learning of any rule."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from tests.problems import EXAMPLES, Example, tensor

RULES: dict[str, Callable[[nn.Module], nd.Network]] = {
    "AR": ar.network,
    "IL": pc.network,
    "Z-IL": lambda module: pc.network(module, learning="z-il"),
    "Fa-Z-IL": lambda module: pc.network(module, learning="fa-z-il", spike_window=1, steps=8),
}


def found(network: nd.Network, data: Example) -> list[Tensor]:
    data.module.zero_grad()
    nd.backward(network, data.inputs, data.targets)
    return [parameter.grad for parameter in data.module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (3, 2, 2, 3)])
def test_the_gradient_of_orthogonality_is_that_of_its_penalty(shape: tuple[int, ...]) -> None:
    weights = tensor(*shape).requires_grad_()
    regularizer = nd.Orthogonality(0.7)
    rows = weights.detach().flatten(1)
    products = rows @ rows.t()
    expected = 0.7 * sum(float(products[i, j] ** 2) for i in range(len(rows)) for j in range(len(rows)) if i != j)
    penalty = regularizer.penalty(weights)
    torch.testing.assert_close(penalty.item(), expected)
    (gradient,) = torch.autograd.grad(penalty, weights)
    torch.testing.assert_close(regularizer.gradient(weights.detach()), gradient)


def test_orthogonal_rows_of_any_length_have_no_penalty() -> None:
    rows = torch.linalg.qr(tensor(6, 6))[0][:4] * torch.tensor([[0.1], [1.0], [2.0], [30.0]])
    regularizer = nd.Orthogonality(1.0)
    assert float(regularizer.penalty(rows)) < 1e-20
    assert regularizer.gradient(rows).abs().max() < 1e-9


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("rule", RULES)
def test_any_rule_adds_it_once_an_update_and_to_weights_alone(rule: str, kind: str) -> None:
    data = EXAMPLES[kind]()
    plain, network = RULES[rule](data.module), RULES[rule](data.module).regularized(nd.Orthogonality(0.3))
    difference = [b - a for a, b in zip(found(plain, data), found(network, data), strict=True)]
    for parameter, added in zip(data.module.parameters(), difference, strict=True):
        weights = parameter.detach()
        expected = nd.Orthogonality(0.3).gradient(weights) if weights.ndim > 1 else torch.zeros_like(weights)
        torch.testing.assert_close(added, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("declare", [tp.network, tp.weak_feedback])
def test_targets_learn_with_it_too(declare) -> None:
    module = tp.tower([7, 6, 6, 4], outputs=3, seed=1, dtype=torch.float64)
    data = Example(module, tensor(5, 7), tensor(5, 3))
    plain, network = declare(module), declare(module).regularized(nd.Orthogonality(0.1))
    difference = [b - a for a, b in zip(found(plain, data), found(network, data), strict=True)]
    penalty = sum((nd.Orthogonality(0.1).penalty(p) for p in module.parameters() if p.ndim > 1), torch.zeros(()))
    parameters = list(module.parameters())
    expected = torch.autograd.grad(penalty, parameters, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(difference, list(expected), rtol=1e-9, atol=1e-10)


def test_feedback_weights_have_none() -> None:
    module = nd.mlp([6, 5, 4], dtype=torch.float64)
    data = Example(module, tensor(5, 6), tensor(5, 4))

    def of_feedback(network: nd.Network) -> list[Tensor]:
        found(network, data)
        return [p.grad for _, p in network.feedback_parameters() if p.grad is not None]

    plain = of_feedback(ar.network(module, feedback="learned", seed=1))
    regularized = of_feedback(ar.network(module, feedback="learned", seed=1).regularized(nd.Orthogonality(0.3)))
    assert plain
    torch.testing.assert_close(plain, regularized)


def test_the_network_itself_stays_as_it_was_and_says_what_it_carries() -> None:
    network = ar.network(nd.mlp([4, 3, 2]))
    regularized = network.regularized(nd.Orthogonality(0.3))
    assert all(rule.regularizer is None for rule in network.plasticity)
    assert "with Orthogonality(strength=0.3)" in str(regularized)
    assert "Orthogonality" not in str(network)


def test_descent_along_it_makes_weights_orthogonal() -> None:
    module = nn.Linear(6, 6, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(0.5 * tensor(6, 6))
    network = ar.network(module).regularized(nd.Orthogonality(0.02))
    x = torch.zeros(1, 6, dtype=torch.float64)
    optimizer = torch.optim.SGD([module.weight], lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        nd.backward(network, x, module(x).detach())
        optimizer.step()
    weight = module.weight.detach()
    products = weight @ weight.t()
    assert (products - products.diagonal().diag()).abs().max() < 1e-3
    assert products.diagonal().min() > 0.1


@pytest.mark.parametrize("strength", [0.0, -1.0, float("inf")])
def test_a_strength_that_is_not_positive_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength of Orthogonality must be positive"):
        nd.Orthogonality(strength)


def test_a_penalty_alone_has_its_gradient_by_autograd() -> None:
    class Lasso(nd.Regularizer):
        """0.1 Σ|w|."""

        def penalty(self, weights: Tensor) -> Tensor:
            return 0.1 * weights.abs().sum()

    module = nd.mlp([3, 4, 2])
    x = torch.ones(2, 3)
    nd.backward(ar.network(module).regularized(Lasso()), x, module(x).detach())  # no error to learn from
    for parameter in module.parameters():
        expected = 0.1 * parameter.detach().sign() if parameter.ndim == 2 else torch.zeros_like(parameter)
        torch.testing.assert_close(parameter.grad, expected)


def test_what_is_no_regularizer_is_refused() -> None:
    with pytest.raises(TypeError, match=r"plasticity of stage 1: its regularizer is a Regularizer .*, not 0\.1"):
        ar.network(nd.mlp([4, 3])).regularized(0.1)  # type: ignore[arg-type]


class Own(nd.Regularizer):
    """½‖W‖², or another gradient in its place."""

    def __init__(self, gradient: Callable[[Tensor], object]) -> None:
        self.own = gradient

    def penalty(self, weights: Tensor) -> Tensor:
        return 0.5 * weights.square().sum()

    def gradient(self, weights: Tensor) -> Tensor:
        return self.own(weights)  # type: ignore[return-value]


def test_a_gradient_that_is_the_weights_themselves_does_not_share_their_memory() -> None:
    data = EXAMPLES["mlp"]()
    network = RULES["Fa-Z-IL"](data.module).regularized(Own(lambda weights: weights))
    data.module.zero_grad()
    before = [parameter.detach().clone() for parameter in data.module.parameters()]
    for _ in range(2):
        nd.backward(network, data.inputs)  # no target: nothing but the penalty leaves a gradient
    for parameter, was in zip(data.module.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), was)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 2 * was if was.ndim > 1 else torch.zeros_like(was))


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (lambda weights: weights[:1], "it is shaped like the weights"),
        (lambda weights: weights.sum(), "it is shaped like the weights"),
        (lambda weights: 0.1, "returns a tensor"),
        (lambda weights: weights.mul_(1.0), "wrote into the weights"),
    ],
)
def test_a_gradient_that_is_none_of_the_weights_is_refused(gradient: Callable[[Tensor], object], message: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    network = ar.network(module).regularized(Own(gradient))
    with pytest.raises((TypeError, ValueError), match=f"stage 1: gradient of Own: .*{message}"):
        nd.backward(network, torch.ones(1, 2), torch.ones(1, 2))


def test_a_penalty_of_weights_that_several_rules_change_enters_once() -> None:
    (stage,) = nd.cut(nn.Sequential(nn.Linear(2, 2)))
    populations = [nd.Population("s", 2, clamp=nd.Input()), nd.Population("x", 2, clamp=nd.LossGradient())]
    weights = stage.parameters[0]
    gradients: list[Tensor] = []
    for regularizer in (None, nd.Orthogonality(0.3)):
        rules = [nd.Plasticity(stage, "s", "x", gain=gain) for gain in (1.0, 0.5)]
        network = nd.Network("n", populations, [], rules, forward=[stage]).regularized(regularizer)
        weights.grad = None
        nd.backward(network, torch.ones(1, 2), torch.ones(1, 2))
        assert weights.grad is not None
        gradients.append(weights.grad)
    torch.testing.assert_close(gradients[1] - gradients[0], nd.Orthogonality(0.3).gradient(weights.detach()))
