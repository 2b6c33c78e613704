"""Predictive coding (PC): value and error populations, and the rules IL, Z-IL and Fa-Z-IL.

Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation? — Exact Implementation of Backpropagation
in Predictive Coding Networks" (2020). The paper numbers layers from the output: its layer k is l = L − k here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn import (
    AtStep,
    Coupling,
    Drive,
    Feedback,
    Forward,
    ForwardValue,
    Inference,
    Input,
    Network,
    Noisy,
    Observable,
    OnSpike,
    Plasticity,
    Population,
    Target,
    cut,
)
from neurodyn.checks import number, one_of, whole
from neurodyn.errors import InvalidValueError
from neurodyn.network.maps import Activity
from neurodyn.network.timing import When


def network(
    module: nn.Module,
    *,
    learning: Literal["il", "z-il", "fa-z-il"] = "il",
    error_tau: float = 0.0,
    steps: int | Literal["equilibrium"] | None = None,
    step: float | None = None,
    spike_window: int = 4,
    spike: Literal["error", "moved"] = "error",
    initial_noise: float = 0.0,
) -> Network:
    """Declare the PC network of a feedforward module, cut before the activations.

    Predictions are μ_l = g_l(x_{l−1}) = W_l f(x_{l−1}) + b_l. Value populations x_l and error populations e_l
    (figure 1; eqs. 5 and 7)::

        e_l = x_l − g_l(x_{l−1})
        dx_l/dt = −e_l + J_{l+1}(x_l)ᵀ e_{l+1},    J_{l+1}ᵀ e_{l+1} = f'(x_l) ⊙ (W_{l+1}ᵀ e_{l+1})
        ΔW_l ∝ e_l f(x_{l−1})ᵀ     (eq. 9)

    From the forward pass (C1). With targets, x_L is clamped to them (learning); without, it is free, and all relaxes to
    the forward pass (prediction).

    Parameters
    ----------
    module
        An `nn.Sequential` of Linear, Conv2d, activations, pooling, flatten and other differentiable layers.
    learning
        When W_l learns: at the end of inference ("il"); at inference step L − l ("z-il", C2), which with a step of 1
        (C3) equals backprop; or when its error units spike ("fa-z-il"), which needs no control signal and equals
        "z-il" where feedback reaches every unit (see `spike`).
    error_tau
        The time constant of the error populations; 0 makes them instantaneous, as in the paper.
    steps
        How many steps inference takes: for "il" t_c, 20 by default, or "equilibrium"; for "fa-z-il" how long the pair
        is presented, by default L − 1, which just reaches the first layer. "z-il" takes L − 1.
    step
        The integration step γ of discrete inference; 0.5 by default for "il", and 1 otherwise.
    spike_window
        t_d of φ, for "fa-z-il".
    spike
        Which error units spike, for "fa-z-il". "error", as in the paper: those whose error leaves 0. A unit whose
        feedback is exactly 0 at step L − l (an inactive ReLU, what max-pooling passes over) then spikes a step later,
        when its prediction changes, and the rule departs from backprop. "moved": of those, the ones whose error is by
        how much their own value has moved in the last step, e_l(t) = x_l(t) − x_l(t−1), so that the prediction stood
        still. This is as local, needs no control signal, and equals "z-il" with ReLU and max pooling, in as many steps
        as just reach the first layer, unless a window's maximum changes its place on the way, to a unit whose
        prediction stands still.
    initial_noise
        σ of Gaussian noise on the start x_l(0) = μ_l of the hidden layers (ablation of C1).

    Returns
    -------
    Network
        Populations `s` (the input), `x1` … `xL`, `e1` … `eL`; observable `energy`, F = Σ_l ½‖e_l‖² (eq. 6).

    Raises
    ------
    TypeError, ValueError
        If a layer cannot be part of a stage, none has weights, or an option is not as above.

    Notes
    -----
    At the equilibrium the layers share the output's mismatch: to first order in it e_l = A_lᵀ (Σ_k A_k A_kᵀ)⁻¹ (t − y)
    with A_l = ∂y/∂x_l, where backprop has A_lᵀ (t − y).

    An error is a difference of values, and has their absolute precision: where it is far smaller than they are, as in
    the first layers of deep sigmoid networks, single precision leaves few of its digits.
    """
    one_of("learning", learning, ("il", "z-il", "fa-z-il"))
    stages = cut(module, before_activation=True)
    initial_noise = number("initial_noise", initial_noise)
    spike_window = whole("window of spikes", spike_window, least=1)
    one_of("spike", spike, ("error", "moved"))
    if spike != "error" and learning != "fa-z-il":
        raise InvalidValueError(f"spike: {learning!r} does not wait for spikes; only 'fa-z-il' does")
    if spike == "moved" and error_tau:
        raise InvalidValueError("spike: errors that lag, error_tau > 0, are at no step by how much a value has moved")
    if not any(stage.parameters for stage in stages):
        raise InvalidValueError("no stage of the module has weights, so that no error population has anything to teach")
    values = [f"x{stage.name}" for stage in stages]
    errors = [f"e{stage.name}" for stage in stages]
    below = ["s", *values[:-1]]

    populations = [Population("s", stages[0].input_size, clamp=Input())]
    for x, stage in zip(values[:-1], stages, strict=False):
        start: Drive = ForwardValue(stage)
        if initial_noise:
            start = Noisy(start, initial_noise)
        populations.append(Population(x, stage.output_size, leak=0.0, initial=start))
    top = stages[-1]
    populations.append(
        Population(values[-1], top.output_size, leak=0.0, initial=ForwardValue(top), clamp=Target(optional=True))
    )
    populations += [Population(e, stage.output_size, tau=error_tau) for e, stage in zip(errors, stages, strict=True)]

    couplings: list[Coupling] = []
    for x, e, source, stage in zip(values, errors, below, stages, strict=True):
        couplings += [Coupling(x, e), Coupling(source, e, Forward(stage), gain=-1.0), Coupling(e, x, gain=-1.0)]
    for x, e_above, stage in zip(values, errors[1:], stages[1:], strict=False):
        couplings.append(Coupling(e_above, x, Feedback(stage, "live")))

    inference = _inference(learning, steps, step, len(stages))
    plasticity = [
        Plasticity(
            stage,
            pre,
            e,
            _when(learning, len(stages) - number, OnSpike(spike_window, x if spike == "moved" else None)),
            presynaptic="live",
            gain=-1.0,
        )
        for number, (stage, pre, x, e) in enumerate(zip(stages, below, values, errors, strict=True), start=1)
        if stage.parameters
    ]
    return Network(
        f"predictive coding ({learning})",
        populations,
        couplings,
        plasticity,
        forward=stages,
        inference=inference,
        observables=[Observable("energy", _Energy(tuple(errors)), "energy F, Σ ½‖e‖²")],
    )


def _inference(learning: str, steps: int | str | None, step: float | None, layers: int) -> Inference | None:
    if not (steps is None or isinstance(steps, str)):
        steps = whole("steps", steps, least=0)
    if learning == "z-il" and steps is not None:
        raise InvalidValueError(
            f"steps: 'z-il' takes as many steps as there are layers to reach, {layers - 1}; leave it out"
        )
    if steps == "equilibrium":
        if learning != "il":
            raise InvalidValueError(f"steps: only 'il' learns at the equilibrium, not {learning!r}")
        if step is not None:
            raise InvalidValueError("step: the equilibrium is reached without steps of inference; leave it out")
        return None
    if isinstance(steps, str):
        raise InvalidValueError(f"steps is a number of steps or 'equilibrium', not {steps!r}")
    by_default = step is None and steps is None
    if steps is None:
        steps = 20 if learning == "il" else layers - 1
    if step is None:
        step = 0.5 if learning == "il" else 1.0
    return Inference(step, steps, by_default=by_default)


def _when(learning: str, distance: int, spike: OnSpike) -> When:
    rules: dict[str, When] = {"il": "end", "z-il": AtStep(distance), "fa-z-il": spike}
    return rules[learning]


@dataclass(frozen=True)
class _Energy:
    """F = Σ_l ½‖e_l‖² (eq. 6) of the populations called `errors`."""

    errors: tuple[str, ...]

    def __call__(self, activity: Activity) -> Tensor:
        return 0.5 * torch.stack([activity[e].square().flatten(1).sum(1) for e in self.errors]).sum(0)
