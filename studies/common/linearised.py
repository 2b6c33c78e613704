"""Predictive coding linearised at its equilibrium: the largest step of Euler's method, and what lagging errors do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import jacrev, vmap

import neurodyn as nd


@dataclass(frozen=True)
class Linearisation:
    """The errors ε(x) and the energy F = ½‖ε‖² of the hidden values x, around the equilibrium x* of each sample.

    With instantaneous errors dδx/dt = −H δx. With τ_ε dε/dt = −ε + x − μ::

        d/dt (δx, δε) = [[C, −Aᵀ], [A/τ_ε, −1/τ_ε]] (δx, δε),    A = ∂ε/∂x,    C = AᵀA − H = Σ_k ε_k ∂²μ_k/∂x²

    C vanishes in a linear network. Each singular value σ of A then makes τ_ε λ² + λ + σ² = 0, which decays for every
    τ_ε, and oscillates where τ_ε > 1/(4σ²). Curved predictions can feed the oscillation: C > 0 counts as a negative
    leak, and wins where the leak of the errors, 1/τ_ε, has become small.

    Parameters
    ----------
    values
        x*, shape (sample, n): one hidden layer after the other.
    errors
        ε(x*), shape (sample, m): one layer after the other, the output's included.
    slope
        A, shape (sample, m, n).
    hessian
        H = ∂²F/∂x², shape (sample, n, n).
    """

    values: Tensor
    errors: Tensor
    slope: Tensor
    hessian: Tensor

    @cached_property
    def curvature(self) -> Tensor:
        """C, shape (sample, n, n)."""
        return self.slope.mT @ self.slope - self.hessian

    @property
    def largest_step(self) -> Tensor:
        """Return 2/λ_max(H), the bound on Euler's step γ, shape (sample,)."""
        return 2.0 / torch.linalg.eigvalsh(self.hessian)[:, -1]

    @property
    def oscillation_tau(self) -> Tensor:
        """Return 1/(4 σ_max²), the τ_ε from which on a linear network oscillates, shape (sample,)."""
        return 0.25 / torch.linalg.matrix_norm(self.slope, 2).square()

    def jacobian(self, error_tau: Tensor) -> Tensor:
        """Return the matrix above, shape (sample, n + m, n + m), with τ_ε > 0 of shape (sample,) or ()."""
        rate = (1.0 / error_tau).reshape(-1, 1, 1)
        samples, count, _ = self.slope.shape
        leak = rate * torch.eye(count).to(rate).expand(samples, -1, -1)
        upper = torch.cat([self.curvature, -self.slope.mT], 2)
        lower = torch.cat([rate * self.slope, -leak], 2)
        return torch.cat([upper, lower], 1)

    def critical_tau(self, taus: Tensor, growth: Tensor) -> Tensor:
        """Return the smallest τ_ε at which an eigenvalue's real part reaches 0, shape (sample,); inf if none does.

        Parameters
        ----------
        taus, growth
            Increasing τ_ε, shape (tau,), and the largest real part at each, shape (tau, sample).
        """
        first = (growth > 0).int().argmax(0)
        below, above = taus[(first - 1).clamp_min(0)], taus[first]
        for _ in range(12):
            middle = (below * above).sqrt()
            grows = torch.linalg.eigvals(self.jacobian(middle)).real.amax(1) > 0
            below, above = torch.where(grows, below, middle), torch.where(grows, middle, above)
        return torch.where((growth > 0).any(0), (below * above).sqrt(), torch.inf)


def linearise(network: nd.Network, inputs: Tensor, targets: Tensor) -> Linearisation:
    """Linearise a PC network of fully connected layers at its equilibrium, by automatic differentiation.

    Parameters
    ----------
    network
        As `pc.network` declares it, with instantaneous errors.
    inputs, targets
        Shape (sample, units), float64.
    """
    stages = network.forward
    hidden = [f"x{stage.name}" for stage in stages[:-1]]
    found = nd.equilibrium(network, inputs, targets, record=hidden, tolerance=1e-4)
    sizes = [found[name].shape[1] for name in hidden]
    values = torch.cat([torch.as_tensor(found[name].to_numpy()) for name in hidden], 1).to(inputs)

    def errors(flat: Tensor, source: Tensor, target: Tensor) -> Tensor:
        layers = [source, *flat.split(sizes), target]
        predicted = [
            torch.nn.Sequential(*stage.layers)(below) for stage, below in zip(stages, layers[:-1], strict=True)
        ]
        return torch.cat([x - mu for x, mu in zip(layers[1:], predicted, strict=True)])

    def energy(flat: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return 0.5 * errors(flat, source, target).square().sum()

    gradient, hessian = vmap(jacrev(energy)), vmap(jacrev(jacrev(energy)))
    for _ in range(3):  # Newton's method, from where the relaxation ended
        step = torch.linalg.solve(hessian(values, inputs, targets), gradient(values, inputs, targets))
        values = (values - step).detach()
    return Linearisation(
        values,
        vmap(errors)(values, inputs, targets).detach(),
        vmap(jacrev(errors))(values, inputs, targets).detach(),
        hessian(values, inputs, targets).detach(),
    )
