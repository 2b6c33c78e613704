"""Activation relaxation (AR): the activities relax to the gradients of backprop.

B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical Approximation to
Backpropagation in the Brain" (2020).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from neurodyn import (
    Coupling,
    Feedback,
    ForwardValue,
    Input,
    LossGradient,
    Network,
    Plasticity,
    Population,
    cut,
)
from neurodyn.losses import Loss, squared_error


def network(
    module: nn.Module,
    *,
    output: Literal["clamped", "relaxing"] = "clamped",
    loss: Loss = squared_error,
) -> Network:
    """Declare the AR network of a feedforward module, cut after the activations: x_l = g_l(x_{l−1}).

    From the forward pass, x_l(0) = x̄_l, all layers relax in parallel to x_l = ∂ℒ/∂x̄_l (eqs. 4–5)::

        dx_l/dt = −x_l + J_{l+1}ᵀ x_{l+1},    J_{l+1} = ∂g_{l+1}/∂x_l at x̄_l
        ΔW_l ∝ −(x_l ⊙ f'(h_l)) x̄_{l−1}ᵀ     (eq. 1)

    Parameters
    ----------
    module
        An `nn.Sequential` of Linear, Conv2d, activations, pooling, flatten and other differentiable layers.
    output
        The output population x_L is "clamped" to ∂ℒ/∂x̄_L, or "relaxing" to it with leak 1 (eq. 2).
    loss
        One value per sample.

    Returns
    -------
    Network
        Populations `s` (the input) and `x1` … `xL`.

    Raises
    ------
    ValueError
        If a layer cannot be part of a stage, or an option is unknown.
    """
    if output not in ("clamped", "relaxing"):
        raise ValueError(f"output is 'clamped' or 'relaxing', not {output!r}")
    stages = cut(module)
    names = ["s", *(f"x{stage.name}" for stage in stages)]
    top = names[-1]
    populations = [Population("s", stages[0].input_size, clamp=Input())]
    populations += [
        Population(f"x{stage.name}", stage.output_size, initial=ForwardValue(stage)) for stage in stages[:-1]
    ]
    couplings = [
        Coupling(above, below, Feedback(stage))
        for below, above, stage in zip(names[1:], names[2:], stages[1:], strict=False)
    ]
    if output == "clamped":
        populations.append(
            Population(top, stages[-1].output_size, initial=ForwardValue(stages[-1]), clamp=LossGradient())
        )
    else:
        populations.append(Population(top, stages[-1].output_size, initial=ForwardValue(stages[-1])))
        populations.append(Population("error", stages[-1].output_size, clamp=LossGradient()))
        couplings.append(Coupling("error", top))
    plasticity = [
        Plasticity(stage, pre, post)
        for stage, pre, post in zip(stages, names, names[1:], strict=False)
        if stage.parameters
    ]
    return Network("activation relaxation", populations, couplings, plasticity, forward=stages, loss=loss)
