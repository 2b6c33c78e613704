"""Target propagation: TP, incremental TP (ITP), GAIT-prop, and the circuit with weak feedback.

N. Ahmad, M. A. J. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically plausible learning rule derived from
backpropagation of error" (2020).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from neurodyn import (
    Coupling,
    ForwardDeviation,
    ForwardValue,
    Identity,
    Input,
    Inverse,
    InverseDeviation,
    LossGradient,
    Map,
    Modulated,
    Network,
    Plasticity,
    Population,
    Stage,
    cut,
)
from neurodyn.checks import number, one_of, whole
from neurodyn.errors import InvalidValueError
from neurodyn.layers.activations import NAMED
from neurodyn.layers.inverses import check_invertible
from neurodyn.layers.losses import Loss, squared_error
from neurodyn.layers.modules import FirstUnits, Weights, check_sizes, empty_linear, initialize


def network(
    module: nn.Module,
    *,
    rule: Literal["tp", "itp", "gait"] = "tp",
    gamma: float = 1e-3,
    form: Literal["deviation", "naive"] = "deviation",
    loss: Loss = squared_error,
) -> Network:
    """Declare the target populations of a feedforward module, cut after the activations: y_l = g_l(y_{l−1}).

    From the forward pass, t_l(0) = y_l, the targets relax to (eqs. 5, 12 and 17)::

        dt_{l−1}/dt = −t_{l−1} + g_l⁻¹(t_l)                             "tp"
        dt_{l−1}/dt = −t_{l−1} + g_l⁻¹((1 − γ) y_l + γ t_l)             "itp"
        dt_{l−1}/dt = −t_{l−1} + g_l⁻¹((1 − ε_l) ⊙ y_l + ε_l ⊙ t_l)     "gait", ε_l = γ f'(h_l)² (eq. 16)
        ΔW_l ∝ −γ^{−(L−l)} (f'(h_l) ⊙ (y_l − t_l)) y_{l−1}ᵀ     (eqs. 4, 13, 18 and 21; without γ for "tp")

    The top is t_L = y_L − ∂ℒ/∂y_L, which for the squared error is the target itself. One sweep from the top solves all.

    Units of a layer that the next one does not read (`FirstUnits`) are auxiliary: their target is their forward value.
    Where an activation takes values in a range only, targets outside it are refused, not clipped.

    Parameters
    ----------
    module
        An `nn.Sequential` of square Linear layers, FirstUnits, and LeakyReLU, Tanh, Sigmoid, Softplus or no activation.
    rule
        "tp": the target itself is propagated; "itp": a small increment towards it; "gait": one that the derivatives
        adjust, which for orthogonal W_l and γ → 0 gives the updates of backprop.
    gamma
        γ in (0, 1], of "itp" and "gait".
    form
        "deviation" carries d_l = (y_l − t_l) / γ^{L−l}, which float32 holds at any γ and depth, and reads t_l off it.
        "naive" carries t_l: the difference y_l − t_l drowns in rounding as γ^{L−l} nears the machine epsilon.
    loss
        One value per sample.

    Returns
    -------
    Network
        Populations `s` (the input), `y1` … `yL` (the forward pass), `t1` … `tL`, and `d1` … `dL`, which in the naive
        form is y_l − t_l without the factor. "gait" adds the increments `i2` … `iL`, f'(h_l)² ⊙ d_l; the naive form,
        for "itp" and "gait", the mixtures `m2` … `mL` to which g_l⁻¹ is applied.

    Raises
    ------
    TypeError, ValueError
        If a stage has no inverse, γ is not in (0, 1], or an option is unknown.
    """
    one_of("rule", rule, ("tp", "itp", "gait"))
    one_of("form", form, ("deviation", "naive"))
    stages = _invertible_stages(module)
    gamma = _checked_gamma(gamma, len(stages))
    scales = [1.0 if rule == "tp" else gamma**above for above in reversed(range(len(stages)))]
    populations = [
        Population("s", stages[0].input_size, clamp=Input()),
        *(Population(f"y{stage.name}", stage.output_size, clamp=ForwardValue(stage)) for stage in stages),
    ]
    if form == "deviation":
        more, couplings = _deviations(stages, scales, rule)
        gains = [1.0] * len(stages)
    else:
        more, couplings = _targets(stages, gamma, rule)
        gains = [1.0 / scale for scale in scales]
    plasticity = [
        Plasticity(stage, f"y{lower.name}" if lower else "s", f"d{stage.name}", gain=gain)
        for lower, stage, gain in zip([None, *stages], stages, gains, strict=False)
    ]
    return Network(
        f"target propagation ({rule})", [*populations, *more], couplings, plasticity, forward=stages, loss=loss
    )


def _deviations(stages: Sequence[Stage], scales: Sequence[float], rule: str) -> tuple[list[Population], list[Coupling]]:
    """Declare d_l = (y_l − t_l) / scale_l as dynamic, and t_l as read off it."""
    populations = [Population(f"d{stage.name}", stage.output_size) for stage in stages[:-1]]
    populations.append(Population(f"d{stages[-1].name}", stages[-1].output_size, clamp=LossGradient()))
    populations += [Population(f"t{stage.name}", stage.output_size, tau=0.0) for stage in stages]
    couplings: list[Coupling] = []
    for stage, scale in zip(stages, scales, strict=True):
        d, y, t = (f"{letter}{stage.name}" for letter in "dyt")
        couplings += [Coupling(y, t), Coupling(d, t, gain=-scale)]
    for lower, stage, scale in zip(stages, stages[1:], scales, strict=False):
        source = f"d{stage.name}"
        if rule == "gait":
            source = f"i{stage.name}"
            populations.append(Population(source, stage.output_size, tau=0.0))
            couplings.append(Coupling(f"d{stage.name}", source, Modulated(Identity(), stage, 2)))
        couplings.append(Coupling(source, f"d{lower.name}", InverseDeviation(stage, scale)))
    return populations, couplings


def _targets(stages: Sequence[Stage], gamma: float, rule: str) -> tuple[list[Population], list[Coupling]]:
    """Declare t_l as dynamic, and d_l = y_l − t_l as read off it."""
    top = f"t{stages[-1].name}"
    populations = [Population("error", stages[-1].output_size, clamp=LossGradient())]
    couplings = [Coupling("error", top, gain=-1.0), Coupling(f"y{stages[-1].name}", top)]
    for stage in stages:
        n, size = stage.name, stage.output_size
        initial, tau = (0.0, 0.0) if stage is stages[-1] else (ForwardValue(stage), 1.0)
        populations += [Population(f"t{n}", size, tau=tau, initial=initial), Population(f"d{n}", size, tau=0.0)]
        couplings += [Coupling(f"y{n}", f"d{n}"), Coupling(f"t{n}", f"d{n}", gain=-1.0)]
    for lower, stage in pairwise(stages):
        y, t, source = f"y{stage.name}", f"t{stage.name}", f"t{stage.name}"
        if rule != "tp":
            source = f"m{stage.name}"
            populations.append(Population(source, stage.output_size, tau=0.0))
            share = _share(Identity(), stage, rule)
            couplings += [
                Coupling(y, source),
                Coupling(y, source, share, gain=-gamma),
                Coupling(t, source, share, gain=gamma),
            ]
        couplings.append(Coupling(source, f"t{lower.name}", Inverse(stage)))
    return populations, couplings


def weak_feedback(
    module: nn.Module,
    *,
    gamma: float = 1e-3,
    rule: Literal["itp", "gait"] = "itp",
    loss: Loss = squared_error,
) -> Network:
    """Declare the circuit in which input and weak feedback are present together: one activity y_l per layer.

    From the forward pass, y_l(0) = ȳ_l (§6 and the supplementary material)::

        dy_l/dt = −y_l + (1 − γ) g_l(y_{l−1}) + γ g_{l+1}⁻¹(y_{l+1})     for l < L
        dy_L/dt = −y_L + (1 − γ) g_L(y_{L−1}) + γ t,                     t = ȳ_L − ∂ℒ/∂ȳ_L

    At its equilibrium, (y_l − ȳ_l) / γ = (t_l − ȳ_l) (1 + O(γ)) with the targets t_l of ITP. For "gait",
    ε_l = γ f'(h_l)² takes the place of γ in the equation of y_l, and the targets are those of GAIT-prop.

    What the feedback leaves in y_l is of the order γ^{L−l+1}. So the populations carry the scaled deviation
    (ȳ_l − y_l) / γ^{L−l+1}, whose equations are the same, and y_l is read off it.

    Parameters
    ----------
    module
        As for `network`.
    gamma
        γ in (0, 1], the strength of the feedback. The loop gain of adjacent layers is γ (1 − γ).
    rule
        "itp" or "gait".
    loss
        One value per sample.

    Returns
    -------
    Network
        Populations `s` (the input), `forward1` … `forwardL` (ȳ_l), `error` (∂ℒ/∂ȳ_L), `y1` … `yL`, and `d1` … `dL`: the
        scaled deviation, for "gait" divided by f'(h_l)². At the equilibrium, it is that of `network` up to O(γ). "gait"
        carries `i1` … `iL`, f'(h_l)² ⊙ d_l.

    Raises
    ------
    TypeError, ValueError
        If a stage has no inverse, γ is not in (0, 1], or an option is unknown.
    """
    one_of("rule", rule, ("itp", "gait"))
    stages = _invertible_stages(module)
    gamma = _checked_gamma(gamma, len(stages))
    scales = [gamma ** (1 + above) for above in reversed(range(len(stages)))]
    carrier = "d" if rule == "itp" else "i"
    populations = [
        Population("s", stages[0].input_size, clamp=Input()),
        *(Population(f"forward{stage.name}", stage.output_size, clamp=ForwardValue(stage)) for stage in stages),
        Population("error", stages[-1].output_size, clamp=LossGradient()),
    ]
    couplings: list[Coupling] = []
    for place, (stage, scale) in enumerate(zip(stages, scales, strict=True)):
        n, size, carried = stage.name, stage.output_size, f"{carrier}{stage.name}"
        populations += [Population(carried, size), Population(f"y{n}", size, tau=0.0)]
        couplings += [Coupling(f"forward{n}", f"y{n}"), Coupling(carried, f"y{n}", gain=-scale)]
        if rule == "gait":
            populations.append(Population(f"d{n}", size, tau=0.0))
            couplings.append(Coupling(carried, f"d{n}", Modulated(Identity(), stage, -2)))
        if place > 0:
            source = f"{carrier}{stages[place - 1].name}"
            below = ForwardDeviation(stage, scales[place - 1])
            if rule == "gait":
                couplings.append(Coupling(source, carried, below, gain=gamma))
                couplings.append(Coupling(source, carried, Modulated(below, stage, 2), gain=-(gamma**2)))
            elif gamma < 1.0:
                couplings.append(Coupling(source, carried, below, gain=gamma * (1.0 - gamma)))
        source = "error"
        above: Map = Identity()
        if place + 1 < len(stages):
            source = f"{carrier}{stages[place + 1].name}"
            above = InverseDeviation(stages[place + 1], scales[place + 1])
        couplings.append(Coupling(source, carried, _share(above, stage, rule)))
    plasticity = [
        Plasticity(stage, f"forward{lower.name}" if lower else "s", f"d{stage.name}")
        for lower, stage in zip([None, *stages], stages, strict=False)
    ]
    return Network(f"weak feedback ({rule})", populations, couplings, plasticity, forward=stages, loss=loss)


def tower(
    sizes: Sequence[int],
    *,
    outputs: int | None = None,
    activation: str = "leaky_relu",
    weights: Weights = "xavier",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Build an invertible network of layers that do not widen: W_l is square, n_l × n_l, and reads n_l units below.

    The other n_{l−1} − n_l units of layer l − 1 are auxiliary: no synapses lead on from them (§7). Each layer, the last
    one too, has the activation, as in the authors' code.

    Parameters
    ----------
    sizes
        n_0, n_1, …, n_L, none larger than the one before: [784, 784, 500, 200, 10]; a network of fixed width is
        [784, 784, …].
    outputs
        The outputs that are read, e.g. the classes; the other units of the last layer are auxiliary, too, and the
        targets have this many units. All by default.
    activation
        "leaky_relu" (slope 0.1), "linear", "tanh", "sigmoid" or "softplus".
    weights
        "xavier", from N(0, 1/n_l), "orthogonal", "scaled", or PyTorch's "default", as `initialize` draws them.
    seed
        Of the weights; the global random state is left as it was.
    device, dtype
        Of the weights; PyTorch's defaults if None.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    ValueError
        If a size is not as above, the activation has no inverse, or the weights are unknown.
    """
    sizes = check_sizes("tower", sizes, activation)
    if any(after > before for before, after in pairwise(sizes)):
        raise InvalidValueError(f"sizes of tower: no layer may be wider than the one before, as in {list(sizes)}")
    if outputs is not None and not 1 <= (outputs := whole("outputs of tower", outputs, least=0)) <= sizes[-1]:
        raise InvalidValueError(f"outputs of tower: from 1 to the {sizes[-1]} units of the last layer, not {outputs}")
    layers: list[nn.Module] = []
    for before, units in pairwise(sizes):
        if units < before:
            layers.append(FirstUnits(units))
        layers += [empty_linear(units, units, device, dtype), NAMED[activation]()]
    if outputs is not None and outputs < sizes[-1]:
        layers.append(FirstUnits(outputs))
    module = nn.Sequential(*layers)
    _invertible_stages(module)
    initialize(module, weights, seed=seed)
    return module


def _invertible_stages(module: nn.Module) -> list[Stage]:
    stages = cut(module)
    for stage in stages:
        check_invertible(stage.layers, stage.name)
    return stages


def _checked_gamma(gamma: float, depth: int) -> float:
    gamma = number("gamma", gamma)
    if not 0.0 < gamma <= 1.0:
        raise InvalidValueError(f"gamma must lie in (0, 1], not {gamma!r}")
    if gamma**depth < sys.float_info.min:
        raise InvalidValueError(f"gamma = {gamma!r} to the power of the {depth} layers underflows; take a larger gamma")
    return gamma


def _share(map_: Map, stage: Stage, rule: str) -> Map:
    """Return the share of `map_` that ε_l = γ f'(h_l)² lets through for "gait", without the γ; else all of it."""
    return Modulated(map_, stage, 2) if rule == "gait" else map_
