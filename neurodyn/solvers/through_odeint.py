"""Gradients through torchdiffeq: through its steps, or by its adjoint, backwards in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.solvers.torchdiffeq import TorchDiffEq
from neurodyn.system.system import System
from neurodyn.system.traced import Blocks, TracedField, all_activity


def check_odeint(system: System, what: str) -> None:
    """Refuse a system whose field is not smooth in time, or random, or reads the past.

    Raises
    ------
    ValueError
        If it is so; `what` begins the message.
    """
    system.refuse_delays(what, "use nd.RK4(step) or nd.Adaptive(), with adjoint='direct' or 'checkpointed'")
    if system.bounds:
        raise InvalidValueError(
            f"{what} takes no bounds, and population {next(iter(system.bounds))} has some; use nd.RK4(step)"
        )
    if system.noisy:
        raise InvalidValueError(f"{what} takes no noise, and population {system.noisy[0]} has some; use nd.Euler(step)")
    if any(signal.jumps.size for signal in system.timeline.signals):
        raise InvalidValueError(f"{what} takes no signal that jumps; interpolate it linearly, or use nd.RK4(step)")


def through_odeint(field: TracedField, solver: TorchDiffEq, times: NDArray[np.float64]) -> Tensor:
    """Return the states at some times, shape (time, sample, unit), with the graph of torchdiffeq's steps."""
    from torchdiffeq import odeint  # here, because it takes long to import

    return _solved(odeint, field, solver.with_graph_free_steps(), times)


def backsolved(
    make: Callable[[Callable[[Tensor], Tensor]], TracedField], solver: TorchDiffEq, times: NDArray[np.float64]
) -> Blocks:
    """Return the activity of the free populations, shape (time, sample, …), whose gradients the adjoint gives.

    The adjoint λ' = −Jᵀ λ runs backwards in time beside x, and the integrals of −λᵀ ∂F/∂θ give the gradients by every
    tensor θ that F depends on, through the frozen forward pass too: the memory does not grow with the run.

    Parameters
    ----------
    make
        Makes the field, given what a tensor of the data or the declaration that requires a gradient is taken by.
    solver
        The method, forth and back, and its tolerances.
    times
        The times, increasing.

    References
    ----------
    R. T. Q. Chen et al., "Neural Ordinary Differential Equations" (2018).
    """
    from torchdiffeq import odeint_adjoint  # here, because it takes long to import

    given: dict[int, tuple[Tensor, Tensor]] = {}

    def take(tensor: Tensor) -> Tensor:
        # One leaf for each, or what lies between it and the leaves that it was made of would count twice.
        return given.setdefault(id(tensor), (tensor, tensor.detach().requires_grad_()))[1]

    field = make(take)
    start = field.rows(field.start)
    replaced = list(given.values())
    known = {id(leaf) for _, leaf in replaced}
    still = start.detach()
    reached = _leaves(field(still, 0.0), field.everything(still, 0.0), start)  # what is read off the state counts, too
    kept = [leaf for leaf in reached if id(leaf) not in known]
    leaves = [*(leaf for _, leaf in replaced), *kept]
    originals = [*(tensor for tensor, _ in replaced), *kept]
    states = _solved(odeint_adjoint, field, solver, times, adjoint_params=tuple(leaves))
    activity = all_activity(field, times.tolist(), states)
    if not (originals and torch.is_grad_enabled()):
        return activity
    connected = _Connected.apply(leaves, len(originals), *originals, *activity.values())  # type: ignore[no-untyped-call]
    return dict(zip(activity, connected, strict=True))


def _solved(
    odeint: Callable[..., Tensor], field: TracedField, solver: TorchDiffEq, times: NDArray[np.float64], **more: Any
) -> Tensor:
    start = field.rows(field.start)
    moments = np.concatenate([[0.0], times[times > 0]])
    at = torch.as_tensor(moments, device=start.device)
    states = solver.solve(odeint, lambda t, x: field(x, float(t.detach())), start, at, **more)
    return states[len(moments) - len(times) :]


class _Connected(torch.autograd.Function):
    """Values as they are, whose gradients by some leaves are those by the tensors that these stand for."""

    @staticmethod
    def forward(ctx: Any, leaves: Sequence[Tensor], count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.leaves, ctx.values = leaves, tensors[count:]
        return tuple(value.detach() for value in ctx.values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        known = [pair for pair in zip(ctx.values, gradients, strict=True) if pair[0].requires_grad]
        values, theirs = zip(*known, strict=True)
        found = torch.autograd.grad(values, ctx.leaves, theirs, allow_unused=True, retain_graph=True)
        return None, None, *found, *[None] * len(gradients)


def _leaves(*values: Tensor) -> list[Tensor]:
    """Return the leaves that the graphs of some tensors reach."""
    found: dict[int, Tensor] = {}
    seen: set[Any] = set()
    open_ = [value.grad_fn for value in values if value.grad_fn is not None]
    while open_:
        node = open_.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
        open_ += [after for after, _ in node.next_functions if after is not None]
    return list(found.values())
