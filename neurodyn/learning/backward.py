"""Learning: what a relaxation leaves in the parameters' `.grad`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neurodyn.checks import positive
from neurodyn.errors import InvalidValueError
from neurodyn.layers.losses import per_sample
from neurodyn.layers.stages import StagePoint
from neurodyn.network.network import Network
from neurodyn.network.parts import Plasticity
from neurodyn.simulation.inference import infer
from neurodyn.solvers import Adaptive, Solver, steady
from neurodyn.solvers.base import Unrecorded
from neurodyn.solvers.equilibrium import to_equilibrium
from neurodyn.system.bound import Inputs
from neurodyn.system.system import State, System, bound


@dataclass(frozen=True)
class Lesson:
    """What a batch leaves behind, beside the gradients.

    Parameters
    ----------
    output
        That of the forward pass, shape (sample, …); None for a network without one.
    iterations
        The steps of discrete inference, or the evaluations of the vector field that a relaxation took; None where one
        sweep gave the equilibrium.
    """

    output: Tensor | None
    iterations: int | None


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

    The network runs its discrete inference, if it declares one, and otherwise relaxes to its equilibrium, or for the
    duration given. Hooks on the gradient of a parameter (`register_hook`, `register_post_accumulate_grad_hook`) are
    called as autograd calls them, with the gradient of the batch.

    Parameters
    ----------
    network
        The declaration, with plasticity.
    inputs, targets
        As for `simulate`.
    duration
        How long to relax, in units of time, instead.
    solver
        How, with a duration; by default `Adaptive()`.

    Returns
    -------
    Tensor or None
        The loss of the forward pass, averaged over the samples; None for a network without a forward pass or targets.

    Raises
    ------
    ValueError
        If the network declares no plasticity, a solver is given without a duration, a duration is given to a network
        whose plasticity acts at steps of its inference, or data do not fit.
    DivergenceError
        If the relaxation grows without bound.
    """
    lesson = learn(network, inputs, targets, duration=duration, solver=solver)
    if lesson.output is None or targets is None:
        return None
    return per_sample(network.loss, lesson.output, targets).mean()


@torch.no_grad()
def learn(
    network: Network,
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    duration: float | None = None,
    solver: Solver | None = None,
    members: int = 1,
) -> Lesson:
    """Do what `backward` does, and tell more of it.

    Parameters
    ----------
    network, inputs, targets, duration, solver
        As for `backward`.
    members
        How many networks of equally many samples are stacked in this one: gradients are averaged over the samples of a
        member.
    """
    if not network.plasticity:
        raise InvalidValueError(f"network {network.name!r} declares no plasticity, so nothing can learn")
    if duration is None and solver is not None:
        raise InvalidValueError(
            "solver: it is used only with duration=; without one the network goes to its equilibrium"
        )
    if duration is not None and any(rule.when != "end" for rule in network.plasticity):
        raise InvalidValueError(
            f"duration: the plasticity of network {network.name!r} acts at steps of its inference; leave duration out"
        )
    with bound(network, inputs, targets) as system:
        return _learn(system, duration, solver, members)


def _learn(system: System, duration: float | None, solver: Solver | None, members: int) -> Lesson:
    network = system.network
    learns = {id(rule): rule.learns for rule in network.plasticity}

    def act(rule: Plasticity, state: State, post: Tensor) -> None:
        def point(where: str) -> StagePoint:
            if where == "frozen":
                return system.points.frozen(rule.stage)
            return system.points.live(rule.stage, rule.pre, state.activity)

        gradients = point(rule.presynaptic).layer_gradients(
            post * (rule.gain * members / system.samples),
            at=None if rule.derivative in (None, "none") else point(rule.derivative),
            derivative=rule.derivative != "none",
        )
        if rule.weights is None:
            _add(learns[id(rule)], [gradient for layer in gradients.values() for gradient in layer])
        else:
            _add(learns[id(rule)], rule.weights.gradient(gradients).values())

    with _through_hooks(parameter for parameters in learns.values() for parameter in parameters):
        if duration is None and network.inference is not None:
            infer(system, network.inference, act)
            iterations: int | None = network.inference.steps
        else:
            state, iterations = _relax(system, duration, solver)
            for rule in network.plasticity:
                act(rule, state, state.activity[rule.post])
        for rule in network.plasticity:
            for parameter in learns[id(rule)]:
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)  # the rule never acted
            if rule.regularizer is not None:
                own_axes = 1 if members == 1 else 2  # those of a bias; stacked parameters have the member as the first
                weights = [parameter for parameter in learns[id(rule)] if parameter.ndim > own_axes]
                _add(weights, [_per_member(rule.regularizer.gradient, weight.detach(), members) for weight in weights])
    forward = system.data.forward
    return Lesson(None if forward is None else forward.output.clone(), iterations)  # another batch overwrites it


def _relax(system: System, duration: float | None, solver: Solver | None) -> tuple[State, int | None]:
    if duration is None and system.structure.acyclic:
        state = system.new_state()
        system.sweep(state)
        return state, None
    if duration is None:
        state, report = to_equilibrium(system, steady())
        return state, report.evaluations
    positive("duration", duration)
    state = system.initial_state()
    solver = Adaptive() if solver is None else solver
    solver.check(system)
    report = solver.integrate(system, state, duration, Unrecorded())
    system.settle(state)
    return state, report.evaluations


def has_gradient_hooks(parameter: Tensor) -> bool:
    """Tell whether a parameter has hooks that `torch.autograd` calls with its gradient, or after adding it."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


@contextmanager
def _through_hooks(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Hand the gradient of what is added inside to autograd, for it to call the hooks of a parameter, and to add it.

    As after `loss.backward()`, hooks see the sum of what the batch teaches, once.
    """
    before = {parameter: parameter.grad for parameter in parameters if has_gradient_hooks(parameter)}
    found: dict[nn.Parameter, Tensor | None] = {}
    for parameter in before:
        parameter.grad = None
    try:
        yield
        found = {parameter: parameter.grad for parameter in before}
    finally:
        for parameter, gradient in before.items():
            parameter.grad = gradient
    with torch.enable_grad():
        for parameter, gradient in found.items():
            if gradient is not None:
                parameter.view_as(parameter).backward(gradient)  # type: ignore[no-untyped-call]


def _per_member(gradient: Callable[[Tensor], Tensor], weights: Tensor, members: int) -> Tensor:
    return gradient(weights) if members == 1 else torch.stack([gradient(each) for each in weights])


def _add(parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.requires_grad:
            parameter.grad = gradient.contiguous() if parameter.grad is None else parameter.grad.add_(gradient)
