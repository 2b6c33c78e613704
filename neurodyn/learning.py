"""Learning: what a relaxation leaves in the parameters' `.grad`."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.losses import per_sample
from neurodyn.network import Network, Plasticity
from neurodyn.simulate import to_equilibrium
from neurodyn.solvers import Adaptive, Solver, steady
from neurodyn.solvers.base import Unrecorded, positive
from neurodyn.stages import StagePoint
from neurodyn.system import Inputs, State, System


@torch.no_grad()
def backward(
    network: Network,
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    duration: float | None = None,
    solver: Solver | None = None,
) -> Tensor | None:
    """Relax a network and add what its plasticity found to the parameters' `.grad`, as `loss.backward()` does.

    Parameters
    ----------
    network
        The declaration, with plasticity.
    inputs, targets
        As for `simulate`.
    duration
        How long to relax, in units of time; None relaxes to the equilibrium.
    solver
        How, with a duration; by default `Adaptive()`.

    Returns
    -------
    Tensor or None
        The loss of the forward pass, averaged over the samples; None for a network without a forward pass or targets.

    Raises
    ------
    ValueError
        If the network declares no plasticity, a solver is given without a duration, or data do not fit.
    DivergenceError
        If the relaxation grows without bound.
    """
    if not network.plasticity:
        raise ValueError(f"network {network.name!r} declares no plasticity, so nothing can learn")
    if duration is None and solver is not None:
        raise ValueError("solver: it is used only with duration=; without one the network goes to its equilibrium")
    system = System(network, inputs, targets)
    if duration is None:
        state, _ = to_equilibrium(system, steady())
    else:
        positive("duration", duration)
        solver = Adaptive() if solver is None else solver
        solver.check(system)
        state = system.initial_state()
        solver.integrate(system, state, duration, Unrecorded())
        system.settle(state)
    for rule in network.plasticity:
        point = _operating_point(rule, system, state)
        for parameter, gradient in zip(rule.stage.parameters, point.gradient(state.activity[rule.post]), strict=True):
            if parameter.requires_grad:
                accumulate(parameter, gradient, rule.gain / system.samples)
    forward = system.data.forward
    if forward is None or targets is None:
        return None
    return per_sample(network.loss, forward.output, targets).mean()


def _operating_point(rule: Plasticity, system: System, state: State) -> StagePoint:
    if rule.presynaptic == "frozen":
        return system.points.frozen(rule.stage)
    return rule.stage.at(state.activity[rule.pre])


def accumulate(parameter: Tensor, gradient: Tensor, scale: float) -> None:
    """Add scale · gradient to a parameter's `.grad`."""
    if parameter.grad is None:
        parameter.grad = gradient.mul_(scale) if gradient._base is None else gradient * scale
    else:
        parameter.grad.add_(gradient, alpha=scale)
