"""What the tests of training share: rules, data, and a training loop by hand."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp

Learning = nd.Network | nn.Module
SAMPLES = 22
"""With batches of 8, the last one of an epoch has 6."""


def mlp(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    return nd.mlp([6, 7, 5, 4], seed=seed, dtype=dtype)


def tower(seed: int = 0) -> nn.Sequential:
    return tp.tower([6, 6, 5, 4], weights="orthogonal", seed=seed, dtype=torch.float64)


RULES: Mapping[str, Callable[[int], Learning]] = {
    "backprop": mlp,
    "AR": lambda seed: ar.network(mlp(seed)),
    "AR simplified": lambda seed: ar.network(
        mlp(seed), feedback="learned", relaxation_derivative="none", weight_derivative="none", seed=seed
    ),
    "IL": lambda seed: pc.network(mlp(seed), steps=5),
    "Z-IL": lambda seed: pc.network(mlp(seed), learning="z-il"),
    "Fa-Z-IL": lambda seed: pc.network(mlp(seed), learning="fa-z-il"),
    "GAIT": lambda seed: tp.network(tower(seed), rule="gait").regularized(nd.Orthogonality(0.1)),
}


def classes(samples: int = SAMPLES, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return points around four centres, and to which each belongs, one-hot."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    labels = torch.randint(4, (samples,), generator=generator)
    noise = torch.randn(samples, 6, generator=generator, dtype=torch.float64)
    return (centres[labels] + 0.5 * noise).to(dtype), nn.functional.one_hot(labels, 4).to(dtype)


def parameters(network: Learning) -> list[nn.Parameter]:
    """Return all parameters, fixed ones too, feedback weights last."""
    if isinstance(network, nn.Module):
        return list(network.parameters())
    own = [parameter for stage in network.stages for parameter in stage.parameters]
    return [*own, *(weights for _, weights in network.feedback_parameters())]


def teach(network: Learning, inputs: Tensor, targets: Tensor) -> None:
    """Fill `.grad`, as one does by hand."""
    if isinstance(network, nn.Module):
        (0.5 * (network(inputs) - targets).square().sum(1).mean()).backward()
    else:
        nd.backward(network, inputs, targets)


def by_hand(
    network: Learning, optimizer: torch.optim.Optimizer, data: nd.train.Data, *, epochs: int, seed: int = 0
) -> None:
    for epoch in range(1, epochs + 1):
        for inputs, targets in nd.train.batches(data, 8, seed=seed, epoch=epoch):
            optimizer.zero_grad()
            teach(network, inputs, targets)
            optimizer.step()


def trained(network: Learning) -> list[nn.Parameter]:
    return [parameter for parameter in parameters(network) if parameter.requires_grad]


def equal(one: Learning, other: Learning) -> bool:
    """Tell whether two networks have the same parameters, to the bit."""
    return all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


def distance(one: Learning, other: Learning) -> float:
    """Return the largest difference of two networks' parameters."""
    return max(float((a - b).detach().abs().max()) for a, b in zip(parameters(one), parameters(other), strict=True))
