"""The same work as people write it by hand: plain PyTorch, and plain torchdiffeq."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchdiffeq import odeint


def weights(module: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Return (W_l, b_l) of every Linear layer."""
    return [(layer.weight.detach(), layer.bias.detach()) for layer in module if isinstance(layer, nn.Linear)]


def relaxation_loop(module: nn.Sequential, x: Tensor, t: Tensor, *, step: float, steps: int) -> list[Tensor]:
    """Activation relaxation of a tanh MLP with a linear output: Euler steps, all layers in parallel."""
    layers = weights(module)
    values = [x]
    for number, (w, b) in enumerate(layers, start=1):
        h = values[-1] @ w.T + b
        values.append(h if number == len(layers) else torch.tanh(h))
    derivatives = [1 - v * v for v in values[1:-1]] + [torch.ones_like(values[-1])]
    activity = [*values[1:-1], values[-1] - t]
    for _ in range(steps):
        slopes = [
            -activity[i] + (activity[i + 1] * derivatives[i + 1]) @ layers[i + 1][0] for i in range(len(activity) - 1)
        ]
        for value, slope in zip(activity, slopes, strict=False):
            value += step * slope
    return activity


class Inference:
    """Predictive coding of a tanh MLP, dx_l/dt = −ε_l + f'(x_l) ⊙ (W_{l+1}ᵀ ε_{l+1}), for torchdiffeq."""

    def __init__(self, module: nn.Sequential, x: Tensor, t: Tensor) -> None:
        self.layers, self.x, self.t = weights(module), x, t
        self.evaluations = 0

    def start(self) -> tuple[Tensor, ...]:
        """Return the forward pass's pre-activations of the hidden layers."""
        values: list[Tensor] = []
        for number, (w, b) in enumerate(self.layers[:-1]):
            values.append((torch.tanh(values[-1]) if number else self.x) @ w.T + b)
        return tuple(values)

    def __call__(self, time: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return dx/dt."""
        self.evaluations += 1
        active = [self.x, *(torch.tanh(v) for v in values)]
        errors = [v - (a @ w.T + b) for v, a, (w, b) in zip([*values, self.t], active, self.layers, strict=True)]
        return tuple(
            -errors[i] + (1 - active[i + 1] ** 2) * (errors[i + 1] @ self.layers[i + 1][0]) for i in range(len(values))
        )

    def euler(self, step: float, steps: int) -> tuple[Tensor, ...]:
        """Return the hidden layers' activity after Euler steps."""
        with torch.no_grad():
            values = self.start()
            for _ in range(steps):
                values = tuple(v + step * slope for v, slope in zip(values, self(torch.zeros(()), values), strict=True))
        return values

    def learn(self, module: nn.Sequential, step: float, steps: int) -> None:
        """Add to `.grad` the gradients of the energy, Σ ½‖ε_l‖² a sample, after Euler steps."""
        values = self.euler(step, steps)
        layers = [layer for layer in module if isinstance(layer, nn.Linear)]
        active = [self.x, *(torch.tanh(v) for v in values)]
        errors = [v - layer(a) for v, a, layer in zip([*values, self.t], active, layers, strict=True)]
        energy = 0.5 * torch.stack([e.square().sum(1) for e in errors]).sum(0).mean()
        energy.backward()

    def relax(self, duration: float, method: str, rtol: float, atol: float) -> tuple[Tensor, ...]:
        """Return the hidden layers' activity after a duration."""
        times = torch.tensor([0.0, duration], dtype=self.x.dtype)
        return tuple(v[-1] for v in odeint(self, self.start(), times, rtol=rtol, atol=atol, method=method))
