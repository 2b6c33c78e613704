"""Gradients through a trajectory: the activity in time with its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.checks import one_of, positive
from neurodyn.errors import InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.deviations import ForwardDeviation, InverseDeviation
from neurodyn.network.network import Network
from neurodyn.network.wrapping import unwrapped
from neurodyn.randomness import seeded
from neurodyn.simulation.inference import refuse_to_set_aside
from neurodyn.simulation.save_at import SaveAt, save_times
from neurodyn.simulation.seeds import take_seed
from neurodyn.solvers.base import Solver
from neurodyn.solvers.choice import check_solver, for_gradients
from neurodyn.solvers.differentiable import closed_form, refused_closed_form
from neurodyn.solvers.exact import Exact
from neurodyn.solvers.fixed import FixedStep
from neurodyn.solvers.through_odeint import backsolved, check_odeint, through_odeint
from neurodyn.solvers.through_steps import along_steps
from neurodyn.solvers.torchdiffeq import TorchDiffEq
from neurodyn.system.bound import check_network
from neurodyn.system.continued import Starts
from neurodyn.system.inputs import Inputs, Targets
from neurodyn.system.noise import Seed, entropy_of
from neurodyn.system.system import System
from neurodyn.system.traced import TracedField, all_activity, by_name

Adjoint = Literal["direct", "checkpointed", "backsolve"]


def activity(
    network: Network,
    inputs: Inputs,
    targets: Targets = None,
    *,
    duration: float,
    save_at: SaveAt = None,
    solver: Solver | None = None,
    adjoint: Adjoint = "direct",
    initial: Starts | None = None,
    seed: Seed = None,
) -> dict[str, Tensor]:
    """Return the activity of a network in time, for `torch.autograd` to differentiate.

    The graph reaches back to the inputs, the targets, the values of signals, the initial states, the parameters of the
    stages, through the forward pass too, the feedback weights, and to `tau`, `leak`, `gain`, `initial`, `noise` and
    constants that are tensors which require a gradient. `nd.simulate` gives the same values, faster, labelled, and
    without a graph.

    Parameters
    ----------
    network
        The declaration, of one network.
    inputs, targets, initial
        As for `nd.simulate`; tensors may require gradients.
    duration
        How long, in units of time.
    save_at
        As for `nd.simulate`.
    solver
        `Euler`, `Heun`, `RK4`, `FixedStep`, `Adaptive`, `TorchDiffEq`; or `Exact`, the closed form, for a linear,
        acyclic network under tensors. By default `Exact` where that serves and `Adaptive` elsewhere, with the accuracy
        that `nd.simulate` takes; for "backsolve" `TorchDiffEq`, which is the one that it takes.
    adjoint
        How gradients come back. "direct": through the solver's steps, all kept; discretise, then differentiate.
        "checkpointed": the same, with √n of n steps kept at a time, and each step taken twice. "backsolve": by the
        adjoint λ' = −Jᵀ λ, integrated backwards in time beside x, which is anew in error by the solver's tolerance;
        memory does not grow with the run. It takes no noise, no bounds, no delays, no signals that jump, and no cycles
        of instantaneous populations that are solved for. "direct" and "checkpointed" take all of these; with delays,
        checkpoints keep the states of the steps, too, without their graphs.
    seed
        Of the noise, as for `nd.simulate`.

    Returns
    -------
    dict
        The activity of each population that is not clamped, by name; shape (time, sample, …).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a map cannot be differentiated; the message names it.
    DivergenceError
        If the activity becomes non-finite.

    References
    ----------
    T. Chen et al., "Training deep nets with sublinear memory cost" (2016); R. T. Q. Chen et al., "Neural Ordinary
    Differential Equations" (2018).

    Examples
    --------
    >>> import neurodyn as nd, torch
    >>> tau = torch.tensor([2.0], requires_grad=True)
    >>> decay = nd.Network("decay", [nd.Population("x", 1, tau=tau, initial=1.0)])
    >>> x = nd.activity(decay, None, duration=2.0, save_at=[2.0], solver=nd.RK4(0.01))["x"]
    >>> x.sum().backward()  # of e^{−t/τ} by τ: t/τ² e^{−t/τ}
    >>> round(tau.grad.item(), 4)
    0.1839
    """
    check_network(network)
    one_of("adjoint", adjoint, ("direct", "checkpointed", "backsolve"))
    duration = positive("duration", duration)
    if solver is not None:
        check_solver(solver)
    for coupling in network.couplings:
        map_ = unwrapped(coupling.map)
        if isinstance(map_, (ForwardDeviation, InverseDeviation)):
            raise InvalidValueError(
                f"coupling {coupling}: {type(map_).__name__} carries scaled deviations, and takes the weights as "
                "constants; declare the activity itself, with Forward and Inverse"
            )
    with torch.no_grad():
        with nullcontext() if seed is None else seeded(entropy_of(seed)):  # from which Noisy drives draw
            system = System(network, _plain(inputs), _plain(targets), initial=_plain(initial))
        if not system.dynamic:
            raise InvalidValueError(
                f"network {network.name!r} has no dynamic population, so there is nothing to integrate; "
                "torch.autograd differentiates what it computes at once"
            )
        system.timeline.check_span(duration)
        take_seed(system, seed, solver)
        if solver is None:
            refuse_to_set_aside(network, "activity without solver=")
            solver = for_gradients(system, steps=isinstance(save_at, str), backwards=adjoint == "backsolve")
        times = save_times(save_at, duration, solver, system.timeline.origin)
        solver.check(system)
        _check_adjoint(system, solver, adjoint, times)

    def field_of(take: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> TracedField:
        checkpointed = adjoint == "checkpointed"
        return TracedField(system, inputs, targets, initial, take=take, checkpointed=checkpointed)

    if adjoint == "backsolve":
        assert isinstance(solver, TorchDiffEq), "checked above"
        assert times is not None
        return backsolved(field_of, solver, times)
    field = field_of()
    if isinstance(solver, TorchDiffEq):
        assert times is not None, "checked above"
        return all_activity(field, times.tolist(), through_odeint(field, solver, times))
    if isinstance(solver, Exact):
        moments = solver.moments(duration, times)
        return all_activity(field, moments.tolist(), closed_form(field, moments, solver.euler_step))
    _, states = along_steps(field, solver, duration, times, checkpointed=adjoint == "checkpointed")
    return by_name(field, states)


def _check_adjoint(system: System, solver: Solver, adjoint: Adjoint, times: NDArray[np.float64] | None) -> None:
    """Refuse a solver that does not go with the way of the gradients, or with the system."""
    if isinstance(solver, Exact):
        refused = refused_closed_form(system)
        if refused is not None:
            raise InvalidValueError(f"solver: {refused}; use nd.RK4(step)")
    if isinstance(solver, FixedStep) and solver.compile:
        raise InvalidValueError("compile: steps with a graph are not compiled; leave compile out")
    if isinstance(solver, TorchDiffEq):
        check_odeint(system, "adjoint='backsolve'" if adjoint == "backsolve" else "solver: TorchDiffEq")
        if adjoint == "direct" and solver.method == "scipy_solver":
            raise InvalidValueError("solver: SciPy's steps have no graph; take adjoint='backsolve', or another method")
        if times is None:
            raise InvalidValueError("save_at: torchdiffeq tells no steps; give a number of points or an array of times")
    if adjoint == "backsolve":
        system.refuse_loops("adjoint='backsolve'")
    if adjoint == "backsolve" and not isinstance(solver, TorchDiffEq):
        raise InvalidValueError(
            f"adjoint='backsolve' is torchdiffeq's, and solver is {solver!r}; give nd.TorchDiffEq(), or leave it out"
        )
    if adjoint == "checkpointed" and isinstance(solver, (Exact, TorchDiffEq)):
        raise InvalidValueError(
            f"adjoint='checkpointed' goes through steps of one's own, and solver is {solver!r}; give nd.RK4(step) or "
            "nd.Adaptive()"
        )


def _plain(given: Any) -> Any:
    """Return tensors, one or by name, without their graph; what else is given as it is."""
    if isinstance(given, Tensor):
        return given.detach()
    if isinstance(given, Mapping) and not isinstance(given, xr.Dataset):
        return {name: _plain(value) for name, value in given.items()}
    return given
