"""Activation relaxation (AR): the activities relax to the gradients of backprop.

B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical Approximation to
Backpropagation in the Brain" (2020), and "Investigating the Scalability and Biological Plausibility of the Activation
Relaxation Algorithm" (2020), the second paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from neurodyn import (
    Coupling,
    Drive,
    Feedback,
    FeedbackWeights,
    ForwardValue,
    Input,
    LossGradient,
    Network,
    Observable,
    Plasticity,
    Population,
    Stage,
    capture,
    cut,
)
from neurodyn.checks import one_of, whole
from neurodyn.errors import InvalidValueError
from neurodyn.layers.losses import Loss, squared_error
from neurodyn.network.drives import Data
from neurodyn.network.maps import Activity
from neurodyn.randomness import seeded

_OPTIONS = {
    "feedback": ("transpose", "fixed", "learned"),
    "relaxation_derivative": ("frozen", "live", "none"),
    "weight_derivative": ("frozen", "live", "none"),
    "presynaptic": ("frozen", "live"),
    "input": ("relaxing", "clamped"),
    "output": ("clamped", "relaxing"),
    "simplified": ("all", "convolutional", "fully connected"),
}


def network(
    module: nn.Module,
    *,
    feedback: Literal["transpose", "fixed", "learned"] = "transpose",
    relaxation_derivative: Literal["frozen", "live", "none"] = "frozen",
    weight_derivative: Literal["frozen", "live", "none"] = "frozen",
    presynaptic: Literal["frozen", "live"] = "frozen",
    input: Literal["relaxing", "clamped"] = "relaxing",
    output: Literal["clamped", "relaxing"] = "clamped",
    simplified: Literal["all", "convolutional", "fully connected"] = "all",
    loss: Loss = squared_error,
    seed: int = 0,
) -> Network:
    """Declare the AR network of a feedforward module, cut after the activations: x_l = g_l(x_{l−1}).

    From the forward pass, x_l(0) = x̄_l, all layers relax in parallel to x_l = ∂ℒ/∂x̄_l (eqs. 4–5)::

        dx_l/dt = −x_l + J_{l+1}ᵀ x_{l+1},    J_{l+1} = ∂g_{l+1}/∂x_l = diag(f'(h_{l+1})) W_{l+1} at x̄_l
        ΔW_l ∝ −(x_l ⊙ f'(h_l)) x̄_{l−1}ᵀ     (eq. 1)

    The options make it more plausible, each alone or together.

    Parameters
    ----------
    module
        An `nn.Sequential` of Linear, Conv2d, activations, pooling, flatten and other differentiable layers.
    feedback
        The way back: the "transpose" Wᵀ; or "fixed" random weights ψ, as in feedback alignment; or ψ that are "learned"
        along with W, Δψ_l = (ΔW_l)ᵀ (eq. 6).
    relaxation_derivative
        f' in the relaxation: at the "frozen" forward pass; at the "live" activity, f'(W_{l+1} x_l) (second paper, §2);
        or "none" (eq. 7).
    weight_derivative
        f' in the weight update, likewise.
    presynaptic
        x_{l−1} in the weight update: the "frozen" x̄_{l−1}, or the "live" activity, which destroys learning (second
        paper, figure 1d).
    input
        Where the first stage's weight update reads its live activity x_0: the input layer is "relaxing" from s like all
        others, as in algorithm 1 and in the authors' code; or it stays "clamped" to s.
    output
        The output population x_L is "clamped" to ∂ℒ/∂x̄_L, or "relaxing" to it with leak 1 (eq. 2).
    simplified
        Which stages `feedback` and the derivatives' "none" apply to: "all", those with a convolution ("convolutional"),
        or the others ("fully connected") (second paper, figure 2).
    loss
        One value per sample.
    seed
        Of the feedback weights, drawn from N(0, 0.05²).

    Returns
    -------
    Network
        Populations `s` (the input) and `x1` … `xL`, and `x0` where a weight update reads it; observable `energy`
        (eq. 9), which is 0 at the start but for the output, and not bounded above, nor below unless the activations
        saturate.

    Raises
    ------
    ValueError
        If a layer cannot be part of a stage, an option is unknown, or no stage is of the kind to be simplified.
    """
    options = {
        "feedback": feedback,
        "relaxation_derivative": relaxation_derivative,
        "weight_derivative": weight_derivative,
        "presynaptic": presynaptic,
        "input": input,
        "output": output,
        "simplified": simplified,
    }
    for option, value in options.items():
        one_of(option, value, _OPTIONS[option])
    stages = cut(module)
    chosen = {stage for stage in stages if simplified == "all" or (simplified == "convolutional") == _convolves(stage)}
    if not chosen:
        raise InvalidValueError(f"simplified: the module has no {simplified} stage; 'all' simplifies those that it has")
    input_relaxes = input == "relaxing" and "live" in (presynaptic, weight_derivative)
    seed = whole("seed of the feedback weights", seed, least=0)
    names = ["x0" if input_relaxes else "s", *(f"x{stage.name}" for stage in stages)]
    # Of each stage another seed, that no other seed of a network gives too.
    seeds = np.random.SeedSequence(seed).generate_state(len(stages)).tolist()

    populations = [Population("s", stages[0].input_size, clamp=Input())]
    if input_relaxes:
        populations.append(Population("x0", stages[0].input_size, initial=_NetworkInput()))
    populations += [Population(f"x{stage.name}", stage.output_size, initial=ForwardValue(stage)) for stage in stages]
    couplings: list[Coupling] = []
    plasticity: list[Plasticity] = []
    for stage, below, above, own_seed in zip(stages, names, names[1:], seeds, strict=False):
        simple, fed_back = stage in chosen, below != "s"
        weights = None
        if fed_back and simple and feedback != "transpose" and stage.weighted:
            weights = FeedbackWeights(stage, seed=own_seed, learned=feedback == "learned")
        if fed_back:
            without = relaxation_derivative == "none"
            point: Literal["frozen", "live"] = "live" if relaxation_derivative == "live" else "frozen"
            way_back = Feedback(stage, point, weights=weights, derivative=not (without and simple))
            couplings.append(Coupling(above, below, way_back))
        if stage.parameters:
            derivative = "frozen" if weight_derivative == "none" and not simple else weight_derivative
            learned = weights if feedback == "learned" else None
            for target in (None, learned) if learned else (None,):
                plasticity.append(
                    Plasticity(stage, below, above, presynaptic=presynaptic, derivative=derivative, weights=target)
                )

    _teach(populations, couplings, output)
    layers = {above: (stage, (below,)) for stage, below, above in zip(stages, names, names[1:], strict=False)}
    return Network(
        "activation relaxation",
        populations,
        couplings,
        plasticity,
        forward=stages,
        loss=loss,
        observables=[Observable("energy", _Energy(layers, names[0]), "energy E (eq. 9)")],
    )


def graph(
    module: nn.Module,
    example_input: Tensor,
    *,
    output: Literal["clamped", "relaxing"] = "clamped",
    loss: Loss = squared_error,
) -> Network:
    """Declare the AR network of any module's computation graph: automatic differentiation by relaxation.

    Each differentiable value of the graph, x̄_j = f_j(x̄_i, …) of its parents i, is a population, and each edge is a
    feedback coupling. From the forward pass, x_i(0) = x̄_i, all relax in parallel to x_i = ∂ℒ/∂x̄_i (appendix A, eqs. 12
    and 13)::

        dx_i/dt = −x_i + Σ_{j ∈ children(i)} (∂f_j/∂x_i)ᵀ x_j at x̄
        Δθ ∝ −Σ_j (∂f_j/∂θ)ᵀ x_j     over all j that read the parameters θ

    Parameters
    ----------
    module
        Any module of one input tensor and one output tensor, as `neurodyn.capture` takes it: with residual blocks,
        attention, recurrent layers (unrolled in time), embeddings, shared weights.
    example_input
        Shape (sample, …); floating-point numbers, or the integers that an embedding reads.
    output
        The output population is "clamped" to ∂ℒ/∂x̄_L, or "relaxing" to it with leak 1 (eq. 2).
    loss
        One value per sample.

    Returns
    -------
    Network
        Populations `s` (the input) and one for each operation, e.g. `x_linear_1`; its stages tell what each computes,
        and in which part of the module. Observable `energy`.

    Raises
    ------
    TypeError
        If there is no module, or no tensor.
    ValueError
        If the module cannot be captured, or the option is unknown.
    """
    one_of("output", output, _OPTIONS["output"])
    operations = capture(module, example_input)
    below = {
        operation: ["s" if source == "input" else f"x_{source.name}" for source in operation.sources]
        for operation in operations
    }
    populations = [
        Population("s", tuple(example_input.shape[1:]), clamp=Input(integer=not example_input.is_floating_point()))
    ]
    couplings: list[Coupling] = []
    plasticity: list[Plasticity] = []
    for operation, parents in below.items():
        x = f"x_{operation.name}"
        populations.append(Population(x, operation.shape, initial=ForwardValue(operation)))
        for argument, parent in enumerate(parents):
            if parent != "s":
                couplings.append(Coupling(x, parent, Feedback(operation, argument=argument)))
        if operation.parameters:
            plasticity.append(Plasticity(operation, parents[0], x))
    _teach(populations, couplings, output)
    return Network(
        "activation relaxation on a graph",
        populations,
        couplings,
        plasticity,
        forward=operations,
        loss=loss,
        observables=[
            Observable(
                "energy",
                _Energy({f"x_{operation.name}": (operation, parents) for operation, parents in below.items()}),
                "energy E (eq. 9)",
            )
        ],
    )


def _teach(populations: list[Population], couplings: list[Coupling], output: str) -> None:
    """Bring ∂ℒ/∂x̄_L to the output population, which is the last one."""
    top = populations[-1]
    if output == "clamped":
        populations[-1] = replace(top, clamp=LossGradient())
    else:
        populations.append(Population("error", top.size, clamp=LossGradient()))
        couplings.append(Coupling("error", top.name))


def cnn(classes: int = 10, *, input_shape: Sequence[int] = (3, 32, 32), seed: int = 0) -> nn.Sequential:
    """Build the CNN of the second paper: conv 32, max-pool, conv 64, 64, 120, classes; tanh, linear output.

    Parameters
    ----------
    classes
        The number of outputs.
    input_shape
        Channels, rows and columns of an input in [0, 1].
    seed
        Of the weights; the global random state is left as it was.

    Returns
    -------
    torch.nn.Sequential
        Kernels are 5 × 5, or 3 × 3 for inputs of fewer than 16 rows.

    Raises
    ------
    ValueError
        If the input is too small for two convolutions and the pooling between them.
    """
    if not isinstance(input_shape, Sequence) or len(input_shape) != 3:
        raise InvalidValueError(f"input_shape of cnn: channels, rows and columns, not {input_shape!r}")
    channels, rows, columns = (whole("input_shape of cnn", n, least=1) for n in input_shape)
    classes, seed = whole("classes of cnn", classes, least=1), whole("seed of cnn", seed, least=0)
    kernel = 5 if min(rows, columns) >= 16 else 3
    sides = [((side - kernel + 1) // 2) - kernel + 1 for side in (rows, columns)]
    if min(sides) < 1:
        raise InvalidValueError(f"input_shape of cnn: {rows} × {columns} is too small; at least 8 × 8")
    with seeded(seed), torch.device("cpu"):  # whose generator is seeded
        module = nn.Sequential(
            nn.Conv2d(channels, 32, kernel),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(64 * sides[0] * sides[1], 64),
            nn.Tanh(),
            nn.Linear(64, 120),
            nn.Tanh(),
            nn.Linear(120, classes),
        )
    return module.to(torch.get_default_device())


class _NetworkInput(Drive):
    """The input s, where a population starts from it."""

    def value(self, population: str, data: Data) -> Tensor:
        return data.inputs["s"]

    def __str__(self) -> str:
        return "s"


def _convolves(stage: Stage) -> bool:
    return any(isinstance(layer, nn.Conv2d) for layer in stage.layers)


@dataclass(frozen=True)
class _Energy:
    """E = Σ_l ½‖x_l‖² − ½‖g_l(x_{l−1})‖² (eq. 9), and of an input layer that relaxes ½‖x_0‖² − ½‖s‖².

    Parameters
    ----------
    layers
        Of each population the stage g_l, and the names of the populations that it reads.
    input_layer
        The name of x_0.
    """

    layers: Mapping[str, tuple[Stage, Sequence[str]]]
    input_layer: str = "s"

    def __call__(self, activity: Activity) -> Tensor:
        predicted = {
            name: stage.at(*(activity[x] for x in below)).value for name, (stage, below) in self.layers.items()
        }
        if self.input_layer != "s":
            predicted[self.input_layer] = activity["s"]
        return 0.5 * torch.stack([_square(activity[name]) - _square(mu) for name, mu in predicted.items()]).sum(0)


def _square(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1)
