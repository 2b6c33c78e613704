"""Learning: what a relaxation leaves in the parameters' `.grad`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neurodyn.checks import flag, positive, users
from neurodyn.errors import DivergenceError, InvalidTypeError, InvalidValueError
from neurodyn.layers.losses import per_sample
from neurodyn.layers.stacked import of_samples
from neurodyn.layers.stage_point import StagePoint
from neurodyn.network.network import Network
from neurodyn.network.plasticity import Plasticity
from neurodyn.network.regularizers import Regularizer
from neurodyn.progress import Late
from neurodyn.simulation.inference import refuse_to_set_aside, run_inference
from neurodyn.solvers import Exact, Solver, steady
from neurodyn.solvers.base import refuse_delays
from neurodyn.solvers.choice import check_solver, for_trajectory
from neurodyn.solvers.equilibrium import swept, to_equilibrium
from neurodyn.system.binding import computed
from neurodyn.system.bound import check_network
from neurodyn.system.inputs import Inputs
from neurodyn.system.numbers import sums_are_finite
from neurodyn.system.state import State
from neurodyn.system.system import System

_TRANSFORM = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
"""Tells the innermost transform of `torch.func` that is on; PyTorch makes no promise that it is there."""


@dataclass(frozen=True)
class Lesson:
    """What a batch leaves behind, beside the gradients."""

    output: Tensor | None
    """That of the forward pass, shape (sample, …); None for a network without one."""
    losses: Tensor | None
    """Those of the output, shape (sample,); None without an output or targets."""
    iterations: int | None
    """The steps of discrete inference, or the evaluations of the vector field that a relaxation took; None where one
    sweep gave the equilibrium."""


def backward(
    network: Network,
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    duration: float | None = None,
    solver: Solver | None = None,
    progress: bool | None = None,
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
        How, with a duration; by default what `simulate` takes.
    progress
        As for `simulate`.

    Returns
    -------
    Tensor or None
        The loss of the forward pass, averaged over the samples; None for a network without a forward pass or targets.

    Raises
    ------
    ValueError
        If the network declares no plasticity, a solver is given without a duration, a duration is given to a network
        whose plasticity acts at steps of its inference, a transform of `torch.func` is on, or data do not fit.
    DivergenceError
        If the relaxation grows without bound, or the gradients are not finite; `.grad` is then as it was.

    Warns
    -----
    RuntimeWarning
        As `equilibrium`, where the network goes to one.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> module = nd.mlp([3, 2, 2], seed=0)
    >>> x, t = torch.ones(1, 3), torch.zeros(1, 2)
    >>> loss = nd.backward(nd.models.activation_relaxation.network(module), x, t)
    >>> found = [parameter.grad.clone() for parameter in module.parameters()]
    >>> exact = torch.autograd.grad(0.5 * (module(x) - t).square().sum(), list(module.parameters()))
    >>> all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, exact))
    True
    """
    if progress is not None:
        flag("progress", progress)
    losses = learn(network, inputs, targets, duration=duration, solver=solver, progress=progress).losses
    return None if losses is None else losses.mean()


@torch.no_grad()
def learn(
    network: Network,
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    duration: float | None = None,
    solver: Solver | None = None,
    progress: bool | None = None,
) -> Lesson:
    """Do as `backward`, given the same, and tell more of it; of stacked networks, averaged over the samples of each."""
    check_network(network)
    if _TRANSFORM is not None and _TRANSFORM() is not None:
        raise InvalidValueError(
            "a transform of torch.func (grad, jvp, vmap, …) is on around this call, which leaves what it finds in "
            ".grad, and returns a loss without a graph; call it outside"
        )
    if not network.plasticity:
        raise InvalidValueError(f"network {network.name!r} declares no plasticity, so nothing can learn")
    if duration is None and solver is not None:
        raise InvalidValueError(
            "solver: it is used only with duration=; without one the network goes to its equilibrium"
        )
    if duration is not None:
        duration = positive("duration", duration)
    if solver is not None:
        check_solver(solver)
    if duration is not None and any(rule.when != "end" for rule in network.plasticity):
        raise InvalidValueError(
            f"duration: the plasticity of network {network.name!r} acts at steps of its inference; leave duration out"
        )
    if duration is not None and solver is None:
        refuse_to_set_aside(network, "a relaxation for a duration without solver=")

    def compute(system: System) -> tuple[list[Tensor | None], tuple[tuple[nn.Parameter, ...], int | None]]:
        return _learn(system, duration, solver, progress)

    still = "learning at the end of a relaxation"
    # The declaration's own way, and closed forms, are a matter of the duration; others are steered by what they find.
    way = (duration, solver) if solver is None or type(solver) is Exact else None
    found, (parameters, iterations) = computed(network, inputs, targets, compute, way=way, still=still)
    output, losses, *gradients = found
    _write(parameters, gradients)
    return Lesson(output, losses, iterations)


def _learn(
    system: System, duration: float | None, solver: Solver | None, progress: bool | None
) -> tuple[list[Tensor | None], tuple[tuple[nn.Parameter, ...], int | None]]:
    """Return the output, the losses and the gradients; and the parameters that these are of, and the iterations."""
    network = system.network
    members = network.members
    learns = {id(rule): rule.learns for rule in network.plasticity}
    gains = _gains(network)
    found: dict[nn.Parameter, Tensor] = {}
    """What the rules found, kept until all of it is known to be finite."""

    def act(rule: Plasticity, state: State, post: Tensor) -> None:
        def point(where: str) -> StagePoint:
            if where == "frozen":
                return system.points.frozen(rule.stage)
            return system.points.live(rule.stage, rule.pre, state.activity)

        own = gains.get(id(rule))
        gradients = point(rule.presynaptic).layer_gradients(
            post if own is None else post * of_samples(own, post),
            (rule.gain if own is None else 1.0) * members / system.samples,
            at=None if rule.derivative in (None, "none") else point(rule.derivative),
            derivative=rule.derivative != "none",
        )
        if rule.weights is None:
            _add(found, learns[id(rule)], [gradient for layer in gradients.values() for gradient in layer])
        else:
            _add(found, learns[id(rule)], rule.weights.gradient(gradients).values())

    if duration is None and network.inference is not None:
        with Late(wanted=progress, total=network.inference.steps, unit="step", desc=network.name) as bar:
            run_inference(system, network.inference, act, bar)
        iterations: int | None = network.inference.steps
    else:
        state, iterations = _relax(system, duration, solver, progress)
        for rule in network.plasticity:
            act(rule, state, state.activity[rule.post])
    penalized: dict[nn.Parameter, list[Regularizer]] = {}
    for rule in network.plasticity:
        if rule.regularizer is not None:
            own_axes = 1 if members == 1 else 2  # those of a bias; stacked parameters have the member as the first
            weights = [
                p
                for p in dict.fromkeys(learns[id(rule)])
                if p.requires_grad and p.ndim > own_axes and rule.regularizer not in penalized.setdefault(p, [])
            ]
            for weight in weights:
                penalized[weight].append(rule.regularizer)
            _add(found, weights, [_penalized(rule, weight.detach(), members) for weight in weights])
    _check(found, network)
    parameters = tuple(p for p in dict.fromkeys(itertools.chain(*learns.values())) if p.requires_grad)
    forward, targets = system.data.forward, system.data.targets
    output = None if forward is None else forward.output.clone()  # another batch overwrites it
    losses = None if output is None or targets is None else per_sample(network.loss, output, targets)
    gradients = [found[p] if p in found else torch.zeros_like(p) for p in parameters]  # 0 where no rule ever acted
    return [output, losses, *gradients], (parameters, iterations)


def _relax(
    system: System, duration: float | None, solver: Solver | None, progress: bool | None
) -> tuple[State, int | None]:
    if duration is None and system.structure.acyclic:
        return swept(system, system.new_state()), None
    if duration is None:
        with Late(wanted=progress, unit="τ", desc=system.network.name) as bar:
            state, report = to_equilibrium(system, steady(), progress=bar)
        return state, report.evaluations
    state = system.initial_state()
    solver = for_trajectory(system).solver if solver is None else solver
    refuse_delays(system, solver)
    solver.check(system)
    with Late(wanted=progress, total=duration, unit="τ", desc=system.network.name) as bar:
        evaluations = solver.advance(system, state, duration, progress=bar)
    system.settle(state, duration)
    return state, evaluations


def _gains(network: Network) -> dict[int, tuple[float, ...]]:
    """Return the gains of each rule, by its `id`, where they differ among stacked networks."""
    each = zip(network.plasticity, *(own.plasticity for own in network.stacked), strict=True)
    gains = {id(rule): tuple(its.gain for its in those) for rule, *those in each}
    return {key: values for key, values in gains.items() if len(set(values)) > 1}


def _penalized(rule: Plasticity, weights: Tensor, members: int) -> Tensor:
    """Return the gradient of a rule's penalty, in memory of its own; of stacked networks, that of each."""
    assert rule.regularizer is not None
    where = f"plasticity of stage {rule.stage.name}: gradient of {type(rule.regularizer).__name__}"
    gradients: list[Tensor] = []
    for own in [weights] if members == 1 else weights:
        before = own._version
        with users(where):
            gradient = rule.regularizer.gradient(own)
        if own._version != before:
            raise InvalidValueError(f"{where}: it wrote into the weights; work on a copy, weights.clone()")
        if not isinstance(gradient, Tensor):
            raise InvalidTypeError(f"{where}: it returns a tensor shaped like the weights, not {gradient!r}")
        if gradient.shape != own.shape:  # broadcasting would hide the mistake
            raise InvalidValueError(
                f"{where}: it is shaped like the weights, {tuple(own.shape)}, and not {tuple(gradient.shape)}"
            )
        # It may be the weights themselves, and is kept as their `.grad`.
        gradients.append(gradient.clone() if gradient.data_ptr() == own.data_ptr() else gradient.to(own))
    return gradients[0] if members == 1 else torch.stack(gradients)


def _add(found: dict[nn.Parameter, Tensor], parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor]) -> None:
    """Add up gradients for the parameters that require one."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.requires_grad:
            before = found.get(parameter)
            found[parameter] = gradient.contiguous() if before is None else before.add_(gradient)


def _check(found: dict[nn.Parameter, Tensor], network: Network) -> None:
    """Refuse gradients that are not finite."""
    if sums_are_finite(found.values()):
        return
    for rule in network.plasticity:
        for parameter in rule.learns:
            if parameter in found and not bool(torch.isfinite(found[parameter]).all()):
                raise DivergenceError(
                    f"the gradients of stage {rule.stage.name} are not finite: the activity of {rule.pre} and "
                    f"{rule.post} is too large for the products of {parameter.dtype}",
                    math.inf,
                    rule.post,
                )


def _write(parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor | None]) -> None:
    """Add gradients to `.grad`, as autograd would, hooks included."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient is not None, "each has one"
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            with torch.enable_grad():
                parameter.view_as(parameter).backward(gradient)  # type: ignore[no-untyped-call]
        else:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
