"""The same work as people write it by hand: plain PyTorch, and plain torchdiffeq."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchdiffeq import odeint


def weights(module: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Return (W_l, b_l) of every Linear layer."""
    return [(layer.weight.detach(), layer.bias.detach()) for layer in module if isinstance(layer, nn.Linear)]


def stacked_weights(modules: Sequence[nn.Sequential]) -> list[tuple[Tensor, Tensor]]:
    """Return (W_l, b_l) of every Linear layer of modules of the same sizes, with the module as the first axis."""
    layers = zip(*map(weights, modules), strict=True)
    return [(torch.stack([w for w, _ in layer]), torch.stack([b for _, b in layer])) for layer in layers]


def stacked_gradients(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor, t: Tensor) -> list[Tensor]:
    """Return the gradients of ½‖y − t‖², averaged over each one's samples, of tanh MLPs with a linear output.

    Activation relaxation's at its equilibrium, with one batched product of matrices for all modules at once.

    Parameters
    ----------
    layers
        Their weights, as `stacked_weights` returns them.
    x, t
        Inputs and targets, shape (module, sample, unit).
    """
    values = [x]
    for place, (w, b) in enumerate(layers):
        h = torch.baddbmm(b.unsqueeze(1), values[-1], w.mT)
        values.append(torch.tanh(h) if place + 1 < len(layers) else h)
    error = (values.pop() - t) / x.shape[1]
    found: list[Tensor] = []
    for (w, _), value in zip(reversed(layers), reversed(values), strict=True):
        found = [error.mT @ value, error.sum(1), *found]
        error = (error @ w) * (1 - value * value)
    return found


class Relaxation:
    """Activation relaxation of a tanh MLP with a linear output, dx_l/dt = −x_l + W_{l+1}ᵀ (x_{l+1} ⊙ f'(h_{l+1}))."""

    def __init__(self, module: nn.Sequential, x: Tensor, t: Tensor) -> None:
        layers, self.start = weights(module), []
        for w, b in layers[:-1]:
            x = torch.tanh(x @ w.T + b)
            self.start.append(x)
        w, b = layers[-1]
        self.output = x @ w.T + b - t
        self.weights = [w for w, _ in layers[1:]]
        self.derivatives = [*(1 - v * v for v in self.start[1:]), torch.ones_like(self.output)]

    def __call__(self, time: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return dx/dt of the hidden layers."""
        above = zip(values, [*values[1:], self.output], self.derivatives, self.weights, strict=True)
        return tuple(-value + (upper * derivative) @ w for value, upper, derivative, w in above)

    def euler(self, step: float, steps: int) -> list[Tensor]:
        """Return the hidden layers' activity after Euler steps, all layers in parallel."""
        for _ in range(steps):
            for value, slope in zip(self.start, self(torch.zeros(()), self.start), strict=True):
                value += step * slope
        return self.start

    def trajectory(self, times: Tensor, method: str, rtol: float = 1e-4, atol: float = 1e-5) -> tuple[Tensor, ...]:
        """Return the hidden layers' activity at times, which are the steps of a method without step control."""
        found: tuple[Tensor, ...] = odeint(self, tuple(self.start), times, rtol=rtol, atol=atol, method=method)
        return found


class Inference:
    """Predictive coding of a tanh MLP, dx_l/dt = −ε_l + f'(x_l) ⊙ (W_{l+1}ᵀ ε_{l+1}), for torchdiffeq."""

    def __init__(self, module: nn.Sequential, x: Tensor, t: Tensor) -> None:
        self.layers, self.x, self.t = weights(module), x, t
        w, b = self.layers[0]
        self.first = torch.addmm(b, x, w.T)
        """W₁ x₀ + b₁, which does not change."""
        self.evaluations = 0

    def start(self) -> tuple[Tensor, ...]:
        """Return the forward pass's pre-activations of the hidden layers."""
        values: list[Tensor] = []
        for w, b in self.layers[:-1]:
            values.append(torch.addmm(b, torch.tanh(values[-1]), w.T) if values else self.first)
        return tuple(values)

    def __call__(self, time: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return dx/dt."""
        self.evaluations += 1
        active = [torch.tanh(v) for v in values]
        predicted = [self.first, *(torch.addmm(b, a, w.T) for a, (w, b) in zip(active, self.layers[1:], strict=True))]
        errors = [v - p for v, p in zip([*values, self.t], predicted, strict=True)]
        return tuple(
            -errors[i] + (1 - active[i] ** 2) * (errors[i + 1] @ self.layers[i + 1][0]) for i in range(len(values))
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


class Chain:
    """dx₀/dt = −x₀ + W₀ u and dx_i/dt = −x_i + W_i x_{i−1} from rest, u piecewise linear: a closed form a piece.

    What W_i … W_0 make of all values of u are one product each, and what they make of the state is carried along.
    """

    def __init__(self, weights: Sequence[Tensor], values: Tensor, span: float) -> None:
        self._weights, self._values = list(weights), values
        depth = len(self._weights)
        k = torch.arange(depth + 2, dtype=torch.float64)
        powers = span**k * torch.exp(-torch.lgamma(k + 1) - span)
        once = 1 - powers.cumsum(0)  # ∫ e⁻ˢ sᵏ/k!
        twice = span * once[:depth] - k[1 : depth + 1] * once[1 : depth + 1]
        self._c, self._d, self._g = powers.tolist(), once.tolist(), (twice / span).tolist()

    @torch.no_grad()
    def __call__(self) -> list[np.ndarray]:
        """Return the end of all."""
        made = [self._values.flatten(0, 1)]
        for weight in self._weights:
            made.append(made[-1] @ weight.t())
        drives = [each.view_as(self._values) for each in made[1:]]
        states = [[torch.zeros_like(drives[0][0])] * (place + 1) for place in range(len(drives))]
        for piece in range(len(self._values) - 1):
            states = [self._after(place, own, drives[place], piece) for place, own in enumerate(states)]
        return [own[0].cpu().numpy() for own in states]

    def _after(self, place: int, own: Sequence[Tensor], drive: Tensor, piece: int) -> list[Tensor]:
        after = []
        for power in range(len(own)):
            total = self._d[place - power] * drive[piece]
            total = total.add_(drive[piece + 1] - drive[piece], alpha=self._g[place - power])
            for further in range(len(own) - power):
                total = total.add_(own[power + further], alpha=self._c[further])
            after.append(total)
        return after
