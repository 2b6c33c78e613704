"""The circuit with weak feedback in its own linear algebra: many networks at once, their equilibria and eigenvalues.

The activity is carried as the scaled deviation from the forward pass, u_l = (y_l − ȳ_l) / γ^{L−l+1}, which is of order
1. Leaky ReLU units make the field linear in pieces, so that its Jacobian is exact, and so are Newton's steps.
`continued` finds the equilibria over γ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.analysis.spectrum import of_matrix

Rule = Literal["itp", "gait"]
InitialWeights = Literal["xavier", "orthogonal"]

RULES: dict[Rule, str] = {"itp": "ITP", "gait": "GAIT-prop"}
WEIGHTS: dict[InitialWeights, str] = {"xavier": "random", "orthogonal": "orthogonal"}
CLASSES = ("stable", "unstable", "not found")
NEWTON, PSEUDO = 30, 80
"""The most iterations of Newton's method, and of pseudo-transient continuation."""
TOLERANCE = 1e-10
"""Of |du/dt| at an equilibrium, relative to 1 + |u|."""


@dataclass(frozen=True)
class WeakCircuits:
    """Circuits of L layers of n leaky ReLU units, in float64, one a row.

    Parameters
    ----------
    weights
        W_l, shape (row, L, n, n).
    hidden
        The forward pass's pre-activations h̄_l, shape (row, L, n).
    target
        t − ȳ_L, shape (row, n).
    slope
        Of the units below 0, shape (row,).
    gait
        Whether ε_l = γ f'(h̄_l)² takes the place of γ.
    """

    weights: Tensor
    hidden: Tensor
    target: Tensor
    slope: Tensor
    gait: bool

    @classmethod
    def of(cls, weights: Tensor, inputs: Tensor, targets: Tensor, slope: Tensor, *, gait: bool) -> WeakCircuits:
        """Run the forward pass: inputs and targets of shape (row, n)."""
        value, hidden = inputs, []
        for layer in range(weights.shape[1]):
            hidden.append((weights[:, layer] @ value[..., None])[..., 0])
            value = hidden[-1] * _slopes(hidden[-1], slope[:, None])
        return cls(weights, torch.stack(hidden, 1), targets - value, slope, gait)

    def field(self, activity: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """Return du/dt, shape (row, L n), and its Jacobian, shape (row, L n, L n)."""
        rows, layers, n, _ = self.weights.shape
        slope = self.slope[:, None]
        inverse = self._inverse
        u = activity.view(rows, layers, n)
        rate, jacobian = -u.clone(), torch.zeros(rows, layers, n, layers, n).to(u)
        jacobian.view(rows, layers * n, layers * n).diagonal(dim1=1, dim2=2).fill_(-1.0)
        forward = self.hidden * _slopes(self.hidden, slope[..., None])
        for layer in range(layers):
            share = _slopes(self.hidden[:, layer], slope).square() if self.gait else torch.ones_like(u[:, layer])
            scale = gamma ** (layers - layer)
            if layer > 0:
                weight = self.weights[:, layer]
                moved = scale * gamma * (weight @ u[:, layer - 1, :, None])[..., 0]
                change, slopes = _change(self.hidden[:, layer], moved, slope)
                let_through = 1.0 - gamma * share
                rate[:, layer] += let_through * change / scale
                jacobian[:, layer, :, layer - 1] = (let_through * slopes * gamma)[..., None] * weight
            if layer + 1 < layers:
                above = scale / gamma
                change, slopes = _change(forward[:, layer + 1], above * u[:, layer + 1], 1 / slope)
                back = inverse[:, layer + 1]
                rate[:, layer] += share * (back @ (change / above)[..., None])[..., 0]
                jacobian[:, layer, :, layer + 1] = share[..., None] * back * slopes[:, None]
            else:
                rate[:, layer] += share * self.target
        return rate.flatten(1), jacobian.reshape(rows, layers * n, layers * n)

    @property
    def _inverse(self) -> Tensor:
        return torch.linalg.inv(self.weights)

    def start(self) -> Tensor:
        """Return the forward pass, u = 0."""
        return torch.zeros_like(self.hidden).flatten(1)

    def abscissa(self, activity: Tensor, gamma: float) -> Tensor:
        """Return the largest real part of an eigenvalue, shape (row,); NaN where the activity is NaN."""
        known = activity.isfinite().all(1)
        found = torch.full_like(self.slope, torch.nan)
        if bool(known.any()):
            _, jacobian = self.take(known).field(activity[known], gamma)
            found[known] = torch.tensor([of_matrix(each.numpy(force=True)).abscissa for each in jacobian]).to(found)
        return found

    def in_target_units(self, activity: Tensor) -> Tensor:
        """Return u_l, of GAIT-prop's circuit divided by f'(h̄_l)²: what compares with (t_l − ȳ_l) / γ^{L−l}."""
        return activity / _slopes(self.hidden, self.slope[:, None, None]).square().flatten(1) if self.gait else activity

    def take(self, rows: Tensor) -> WeakCircuits:
        """Return some of the circuits."""
        return WeakCircuits(self.weights[rows], self.hidden[rows], self.target[rows], self.slope[rows], self.gait)

    def equilibrium(self, start: Tensor, gamma: float, *, follow: bool) -> Tensor:
        """Return u where du/dt = 0, shape (row, L n); NaN where the iteration does not end at one.

        Parameters
        ----------
        start
            Where to begin; a row of NaN begins nowhere.
        gamma
            The strength of the feedback.
        follow
            Follow the circuit in time, by implicit Euler steps that grow as it comes to rest; this finds what the
            circuit would settle to. Otherwise take Newton's steps, which find unstable equilibria as well.
        """
        found = torch.full_like(start, torch.nan)
        open_rows = start.isfinite().all(1).nonzero()[:, 0]
        values = start[open_rows]
        circuits = self.take(open_rows)
        step, before = torch.full((len(values),), 0.5).to(values), torch.full((len(values),), torch.inf).to(values)
        for _ in range(PSEUDO if follow else NEWTON):
            rate, jacobian = circuits.field(values, gamma)
            size = rate.norm(dim=1)
            at_rest = size <= TOLERANCE * (1 + values.norm(dim=1))
            found[open_rows[at_rest]] = values[at_rest]
            going = ~at_rest & (size < 1e12)
            if not bool(going.any()):
                break
            if not bool(going.all()):
                open_rows, values, rate, jacobian = (part[going] for part in (open_rows, values, rate, jacobian))
                size, step, before, circuits = size[going], step[going], before[going], circuits.take(going)
            matrix = -jacobian
            if follow:
                step = (
                    (step * (before / size).clamp(0.3, 3.0)).clamp(1e-2, 1e8) if bool(before.isfinite().all()) else step
                )
                before = size
                matrix.diagonal(dim1=1, dim2=2).add_((1 / step)[:, None])
            values = values + torch.linalg.solve_ex(matrix, rate)[0]
        return found


def continued(circuits: WeakCircuits, gammas: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Find an equilibrium of every circuit at every γ, and its spectral abscissa.

    Newton's method begins at the equilibrium of the γ before and at the forward pass; where that finds none that is
    stable, the circuit is followed in time from there, and at last continued from the γ after. A stable equilibrium
    comes before an unstable one.

    Returns
    -------
    Tensor
        The scaled deviation, shape (gamma, row, L n); NaN where none is found.
    Tensor
        The abscissa, shape (gamma, row).
    """
    start = circuits.start()
    found = torch.full((len(gammas), *start.shape), torch.nan).to(start)
    growth = torch.full((len(gammas), len(start)), torch.nan).to(start)

    def attempt(place: int, begin: Tensor, *, follow: bool) -> None:
        wanted = ~(growth[place] < 0)
        if bool(wanted.any()):
            begin = torch.where(wanted[:, None], begin, torch.nan)
            tried = circuits.equilibrium(begin, gammas[place], follow=follow)
            new = circuits.abscissa(tried, gammas[place])
            better = (new < 0) | (growth[place].isnan() & new.isfinite())
            found[place] = torch.where(better[:, None], tried, found[place])
            growth[place] = torch.where(better, new, growth[place])

    for place in range(len(gammas)):
        before = found[place - 1] if place else start
        for begin in (before, start):
            attempt(place, begin, follow=False)
        attempt(place, torch.where(before.isfinite(), before, start), follow=True)
    for place in reversed(range(len(gammas) - 1)):
        attempt(place, found[place + 1], follow=False)
    return found, growth


def conditioned(width: int, layers: int, condition: float, seed: int) -> Tensor:
    """Draw weights U diag(s) Vᵀ with random orthogonal U and V, and s spaced evenly in the logarithm, of mean 0."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(-0.5, 0.5, width, dtype=torch.float64)
    left, right = (
        torch.linalg.qr(torch.randn(layers, width, width, generator=generator, dtype=torch.float64))[0] for _ in "UV"
    )
    return (left * condition**spread) @ right


def expected_abscissa(gamma: NDArray[np.float64], layers: int) -> NDArray[np.float64]:
    """Return −1 + 2 √(γ(1 − γ)) cos(π/(L + 1)): a chain of L units with the loop gain γ(1 − γ) between neighbours."""
    return -1.0 + 2.0 * np.sqrt(gamma * (1.0 - gamma)) * np.cos(np.pi / (layers + 1))


def shares(growth: xr.DataArray, over: Sequence[str]) -> dict[str, xr.DataArray]:
    """Return the share of each of `CLASSES`, by the abscissa."""
    return dict(zip(CLASSES, (each.mean(over) for each in (growth < 0, growth >= 0, growth.isnull())), strict=True))


def _slopes(values: Tensor, slope: Tensor) -> Tensor:
    """Return the slope of a leaky ReLU, or with 1/slope of its inverse."""
    return torch.where(values > 0, torch.ones_like(values), slope.expand_as(values))


def _change(base: Tensor, by: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(base + by) − f(base), exact where no kink lies between, and f'(base + by)."""
    there = base + by
    own, slopes = _slopes(base, slope), _slopes(there, slope)
    return torch.where(own == slopes, own * by, slopes * there - own * base), slopes
