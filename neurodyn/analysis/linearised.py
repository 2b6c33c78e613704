"""The linearisation of a network's dynamics about a point: J = ∂F/∂x whole, or its products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.network.network import Network
from neurodyn.network.vectors import plain
from neurodyn.solvers.base import steady
from neurodyn.solvers.equilibrium import to_equilibrium
from neurodyn.solvers.rows import Rows
from neurodyn.system.agreement import jacobian
from neurodyn.system.binding import bound
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets
from neurodyn.system.system import System
from neurodyn.system.traced import TracedField

DENSE = 500
"""Up to how many units of a sample the Jacobian is worked out whole."""
DECLARE_WITHOUT = "declare it without, as with delays a state is a function of time"
"""What to do about a delay."""


class Linearised:
    """dx/dt = F(x) of a system, and its derivatives, on matrices (sample, unit)."""

    def __init__(self, system: System, inputs: Inputs, targets: Targets) -> None:
        with torch.no_grad():
            self.field = TracedField(system, inputs, targets, None)
            taus = {name: self.field.zeros[name] + plain(self.field.network[name].tau) for name in system.dynamic}
            self.tau = self.field.rows(taus)
        self.system = system
        slides = system.structure.kinks_at_units and not system.structure.windows
        self._sliding = Rows(system) if slides else None

    @property
    def units(self) -> int:
        """How many dynamic units a sample has."""
        return sum(self.field.widths)

    @property
    def small(self) -> bool:
        """Whether the Jacobian is worked out whole."""
        return self.units <= DENSE

    @torch.no_grad()
    def slope(self, x: Tensor) -> Tensor:
        """Return F(x), or Filippov's solution where F jumps at units' kinks."""
        return self.field(x) if self._sliding is None else self._sliding(x) / self.tau

    @torch.no_grad()
    def free(self, x: Tensor) -> Tensor:
        """Tell of each unit whether no bound, nor its kink, holds it, shape (sample, unit)."""
        if self._sliding is not None:
            return ~self._sliding.held(x)
        if self.field.bounds is None:
            return torch.ones_like(x, dtype=torch.bool)
        low, high = self.field.bounds
        return ~(((x <= low) | (x >= high)) & (self.slope(x) == 0))

    @torch.no_grad()
    def refuse_repelled(self, x: Tensor) -> None:
        """Refuse states where a unit rests at a kink that F leads away from just above, where F has no derivative."""
        repelled = [] if self._sliding is None else self._sliding.repelled(x).nonzero()[:, 0].tolist()
        if repelled:
            where = f"{'sample' if len(repelled) == 1 else 'samples'} {', '.join(map(str, repelled))}"
            raise InvalidValueError(
                f"at: in {where} a unit rests at 0, and dx/dt jumps there to where it leads away: the equilibrium is "
                "unstable, and no eigenvalue tells how; leave it out, or start elsewhere"
            )

    def matrix(self, x: Tensor) -> Tensor:
        """Return J at x, shape (sample, unit, unit)."""
        x, slope = self._traced(x)
        return jacobian(slope, x)

    def transposed(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v ↦ Jᵀ v at x, shape (sample, unit)."""
        x, slope = self._traced(x)
        return lambda v: _gradient(slope, x, v)

    def product(self, x: Tensor, v: Tensor) -> Tensor:
        """Return J v at x, shape (sample, unit)."""
        x, slope = self._traced(x)
        # Jᵀ u is linear in u, so that its own transposed derivative is J.
        u = torch.zeros_like(x).requires_grad_()
        with torch.enable_grad():
            back = _gradient(slope, x, u, create_graph=True)
        return _gradient(back, u, v)

    def _traced(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            return x, self.field(x)


@contextmanager
def linearised(
    network: Network, inputs: Inputs, targets: Targets, at: Starts | None, what: str
) -> Iterator[Linearised]:
    """Bind a network for a while, refusing noise and what varies in time; `what` names what it is for.

    Raises
    ------
    ValueError
        If something does not fit, or the network has no dynamic population.
    """
    with bound(network, inputs, targets, initial=at, still=what) as system:
        if not system.dynamic:
            raise InvalidValueError(f"network {network.name!r} has no dynamic population, and {what} needs one")
        system.refuse_delays(what, DECLARE_WITHOUT)
        yield Linearised(system, inputs, targets)


@torch.no_grad()
def point_of(about: Linearised, at: Starts | None) -> Tensor:
    """Return the point that is given, shape (sample, unit); by default the equilibrium that the dynamics reach.

    Raises
    ------
    ValueError
        If they reach none.
    """
    system = about.system
    if at is not None:
        return about.field.rows(system.initial_state().activity)
    state, report = to_equilibrium(system, steady())
    if not report.converged:
        raise InvalidValueError(
            f"at: network {system.network.name!r} has not reached an equilibrium, its max |τ dx/dt| is "
            f"{report.residual:.3g}; say where, with at=, which may be a point of "
            "nd.analysis.continuation where it has turned unstable"
        )
    return about.field.rows(state.activity)


def labels(about: Linearised, dim: str) -> dict[str, tuple[str, list[str] | list[int], dict[str, str]]]:
    """Return coordinates that tell the populations and units along a dimension of all dynamic units."""
    names: list[str] = []
    units: list[int] = []
    for name, width in zip(about.system.dynamic, about.field.widths, strict=True):
        names += [name] * width
        units += range(width)
    return {
        f"{dim}_population": (dim, names, {"units": "1", "long_name": f"population of the {dim}"}),
        f"{dim}_unit": (dim, units, {"units": "1", "long_name": f"unit of the {dim} within its population"}),
    }


def _gradient(of: Tensor, by: Tensor, v: Tensor, *, create_graph: bool = False) -> Tensor:
    if not of.requires_grad:
        return torch.zeros_like(by)
    (found,) = torch.autograd.grad(
        of, by, v, retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return found
