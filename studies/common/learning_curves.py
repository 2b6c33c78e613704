"""Training the variants of activation relaxation beside backprop, as the papers do: test accuracy, and angles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import t as student
from torch import Tensor, nn

import neurodyn as nd
from common.claims import Row
from common.options import ActivationName, ImageOptions
from common.report import number_of, table
from common.training import Learning, angle, fit
from neurodyn import plot
from neurodyn.layers.losses import squared_error
from neurodyn.models import activation_relaxation as ar
from neurodyn.structure.cache import structure_of

BATCH = 64
ITERATIONS = 100
STEP = 0.1
SIGMA = 0.05
"""The papers' batches, relaxation by Euler's method, and standard deviation of the weights."""
PROBE = 256
"""How many training samples the angles of the updates are measured on."""
BACKPROP = "backprop"
BASELINE = "AR"

DECAY = "weight_decay"
Variants = Mapping[str, Mapping[str, Any]]
"""The options of `ar.network`, by the name of the variant; `DECAY` is the optimizer's, of W and ψ alike, not of it."""

Build = Callable[[tuple[int, ...], int, int], nn.Sequential]
"""A function of the shape of an input, the number of classes and a seed, that returns a network."""


@dataclass(frozen=True)
class CurveOptions(ImageOptions):
    """What the studies of learning curves are asked for.

    Parameters
    ----------
    rate
        η, the learning rate, for the squared error summed over a batch of 64. The papers' 0.0005 is slow on so few
        digits.
    """

    rate: float = 0.002

    def __str__(self) -> str:
        return (
            f"{self.images}, {number_of(self.epochs, 'epoch')} of SGD in batches of {BATCH}, rate {self.rate:g} for "
            f"the summed squared error, {ITERATIONS} iterations of {STEP:g}"
        )


@dataclass(frozen=True)
class PerceptronOptions(CurveOptions):
    """The same of a perceptron.

    Parameters
    ----------
    layers
        The units of the hidden layers; the data give those of the input and the output.
    activation
        The hidden units' nonlinearity.
    """

    layers: tuple[int, ...] = (300, 300, 100)
    activation: ActivationName = "relu"

    def build(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Sequential:
        """Return a perceptron with weights from N(0, 0.05²) and no biases yet, as in the authors' code."""
        module = nd.mlp([prod(shape), *self.layers, classes], activation=self.activation, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, 0.0, SIGMA, generator=generator)
            else:
                nn.init.zeros_(parameter)
        return nn.Sequential(nn.Flatten(), *module)


def convolutional(shape: tuple[int, ...], classes: int, seed: int) -> nn.Sequential:
    """Return the second paper's CNN, with PyTorch's own weights: N(0, 0.05²) is too little for kernels of 3 × 3 × 1."""
    return ar.cnn(classes, input_shape=shape, seed=seed)


def relaxation(network: nd.Network) -> dict[str, Any]:
    """Return the papers' 100 iterations: in closed form, or step by step where a derivative is live."""
    clamped = frozenset(p.name for p in network.populations if p.clamp is not None)
    solver = nd.Exact(euler_step=STEP) if structure_of(network, clamped).linear else nd.Euler(STEP)
    return {"duration": ITERATIONS * STEP, "solver": solver}


def update_angle(learning: Learning, inputs: Tensor, targets: Tensor) -> xr.DataArray:
    """Return the angle of each layer's update to the gradient of backprop, in degrees; NaN if it does not relax."""
    stages = learning.forward if isinstance(learning, nd.Network) else nd.cut(learning)
    output = inputs
    for stage in stages:
        output = stage.apply(output)
    flat = [parameter for stage in stages for parameter in stage.parameters]
    exact = torch.autograd.grad(squared_error(output, targets).mean(), flat)
    found: Sequence[Tensor] = exact
    if isinstance(learning, nd.Network):
        for parameter in flat:
            parameter.grad = None
        try:
            nd.backward(learning, inputs, targets, **relaxation(learning))
        except nd.DivergenceError:
            return by_layer(stages, [np.nan] * len(stages))
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in flat]
    pairs = iter([*zip(found, exact, strict=True)])
    by_stage = [zip(*(next(pairs) for _ in stage.parameters), strict=True) for stage in stages]
    return by_layer(stages, [angle(*(torch.cat([g.flatten() for g in side]) for side in sides)) for sides in by_stage])


def feedback_angle(learning: Learning) -> xr.DataArray:
    """Return the angle between each layer's ψ and Wᵀ, in degrees; NaN where there is no ψ."""
    stages = learning.forward if isinstance(learning, nd.Network) else nd.cut(learning)
    feedback = dict(learning.feedback_parameters()) if isinstance(learning, nd.Network) else {}
    angles = [np.nan] * len(stages)
    for place, stage in enumerate(stages):
        if stage.name in feedback:
            weight = stage.parameters[0]
            angles[place] = angle(feedback[stage.name], weight.T if weight.ndim == 2 else weight)
    return by_layer(stages, angles)


def by_layer(stages: Sequence[nd.Stage], angles: Sequence[float]) -> xr.DataArray:
    names = [stage.name for stage in stages]
    return xr.DataArray(angles, {"layer": names}, attrs={"units": "degree"})


def compare(options: CurveOptions, build: Build, variants: Variants) -> xr.Dataset:
    """Train a network by backprop and by every variant, with the same seeds.

    Returns
    -------
    xarray.Dataset
        `test_accuracy` in per cent, and in degrees `update_angle` to the gradient of backprop, and `feedback_angle`
        between ψ and Wᵀ, over `layer`; over `variant`, backprop first, `seed` and `epoch`, the start included. NaN
        from the epoch in which a run diverged, and where there is no ψ.
    """
    samples, test = options.load(flatten=False)
    probe = [part.to(options.device) for part in samples[:PROBE]]
    shape, classes = tuple(probe[0].shape[1:]), probe[1].shape[1]

    def declare(variant: Mapping[str, Any] | None, seed: int) -> Learning:
        module = build(shape, classes, seed).to(options.device)
        if variant is None:
            return module
        return ar.network(module, seed=seed, **{name: value for name, value in variant.items() if name != DECAY})

    named: dict[str, Mapping[str, Any] | None] = {BACKPROP: None, **variants}
    runs = []
    for variant in options.progress(named.values(), unit="variant"):
        first = declare(variant, options.seeds[0])
        history, _ = fit(
            partial(declare, variant),
            options,
            options.seeds,
            data=(samples, test),
            metrics={"update_angle": lambda learning: update_angle(learning, *probe), "feedback_angle": feedback_angle},
            batch_size=BATCH,
            # `.grad` is that of ½‖y − t‖² averaged over a batch, and the papers' that of Σ‖y − t‖².
            optimizer=partial(
                torch.optim.SGD, lr=2 * BATCH * options.rate, weight_decay=(variant or {}).get(DECAY, 0.0)
            ),
            **(relaxation(first) if isinstance(first, nd.Network) else {}),
        )
        runs.append(history)
    found = xr.concat(runs, xr.Variable("variant", list(named)), combine_attrs="override")
    found["update_angle"].attrs["long_name"] = "angle between the update and backprop's gradient"
    found["feedback_angle"].attrs["long_name"] = "angle between ψ and the transposed weights"
    return found.assign_attrs(training=str(options))


def draw(ax: Axes, values: xr.DataArray, label: str, **look: Any) -> None:
    """Draw the mean over seeds against the epoch, and a band of its standard error; diverged runs are left out."""
    mean, error = statistics(values)
    if bool(mean.isel(epoch=-1).isnull()):
        label += ": diverged"
    (line,) = ax.plot(values.epoch, mean, label=label, **look)
    ax.fill_between(values.epoch, mean - error, mean + error, color=line.get_color(), alpha=0.25, linewidth=0)


def zoom(ax: Axes, values: xr.DataArray) -> None:
    """Show the range of all curves from a third of the training on, and not the first epochs, which would flatten it.

    Parameters
    ----------
    ax
        Where they are drawn.
    values
        Over `seed`, `epoch` and whatever is drawn in one panel.
    """
    means = values.mean("seed")
    ends = means.isel(epoch=slice(means.sizes["epoch"] // 3, None))
    lowest, highest = float(ends.min()), float(means.max())
    if np.isfinite(lowest):
        margin = max(0.08 * (highest - lowest), 0.5)
        ax.set_ylim(max(0.0, lowest - margin), min(100.5, highest + margin))


def caption(figure: Figure, found: xr.Dataset) -> None:
    """Say above a figure what was trained, and what its lines and bands are."""
    figure.suptitle(
        f"{found.attrs['training']}\n{means_of(found.sizes['seed'])}", x=0.01, ha="left", fontsize=9, color=plot.GREY
    )


def draw_accuracy(ax: Axes, found: xr.Dataset, variants: Iterable[str]) -> None:
    """Draw the test accuracy of some variants beside those of backprop and of AR as it is."""
    references: dict[str, dict[str, Any]] = {
        BACKPROP: {"color": plot.GREY, "linewidth": 3, "alpha": 0.5},
        BASELINE: {"color": plot.BLACK},
    }
    colours = (plot.BLUE, plot.VERMILION, plot.GREEN, plot.PURPLE, plot.SKY)
    looks = {name: {"color": colour} for name, colour in zip(variants, colours, strict=False)}
    for name, look in {**references, **looks}.items():
        draw(ax, found.test_accuracy.sel(variant=name), name, **look)
    ax.set(xlabel="epoch", ylabel="test accuracy (%)")
    zoom(ax, found.test_accuracy.sel(variant=[*references, *looks]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), fontsize=8, ncols=2)  # within, it would hide curves


def draw_feedback(ax: Axes, found: xr.Dataset, variant: str) -> None:
    """Draw the angle between ψ and Wᵀ, layer by layer."""
    angles = found.feedback_angle.sel(variant=variant).dropna("layer", how="all")
    for layer in angles.layer.values:
        draw(ax, angles.sel(layer=layer), f"ψ{layer}")
    draw_angles(ax, "angle between ψ and Wᵀ (°)")
    ax.set_xlim(-0.05 * float(angles.epoch[-1]), 1.05 * float(angles.epoch[-1]))  # where all seeds have diverged, too


def draw_angles(ax: Axes, label: str) -> None:
    """Label the axes of angles that have been drawn, with 90° as what chance gives, and the legend above."""
    ax.axhline(90, color=plot.GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel="epoch", ylabel=label, ylim=(0, 145))
    ax.set_yticks(range(0, 91, 30))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, loc="upper right")


def statistics(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the mean over the seeds that have not diverged, and its standard error; NaN for a single one."""
    runs = values.count("seed")
    variance = ((values - values.mean("seed")) ** 2).sum("seed") / (runs - 1).where(runs > 1)
    return values.mean("seed"), (variance / runs) ** 0.5


def summary(found: xr.Dataset) -> str:
    """Return the table of what every variant came to."""
    end = found.isel(epoch=-1)
    seeds = found.sizes["seed"]
    exact = end.test_accuracy.sel(variant=BACKPROP)
    rows = []
    for name in found.variant.values:
        run = end.sel(variant=name)
        difference = run.test_accuracy - exact
        diverged = int(run.test_accuracy.isnull().sum())
        rows.append(
            [
                str(name),
                plus_minus(run.test_accuracy),
                "" if name == BACKPROP else plus_minus(difference, "+"),
                degrees(run.update_angle),
                degrees(run.feedback_angle),
                f"{diverged} of {seeds}" if diverged else "",
            ]
        )
    header = ["", "test accuracy (%)", "less backprop's", "update, backprop (°)", "ψ, Wᵀ (°)", "diverged"]
    return "\n".join(
        [
            found.attrs["training"],
            f"(the rate for .grad, that of half the error averaged over a batch, is {2 * BATCH} times as large)",
            f"After the last epoch, {means_of(seeds)}; angles by layer, the first one first",
            "",
            table(header, rows),
        ]
    )


def means_of(seeds: int) -> str:
    """Say what numbers and curves of so many seeds are."""
    return "one seed" if seeds == 1 else f"mean of {seeds} seeds ± its standard error"


def equivalent(
    found: xr.Dataset, names: Mapping[str, str], *, paper: str, setting: str, claim: str, reference: str = BASELINE
) -> list[Row]:
    """Return a row for each variant that a paper says to perform as another, by the figure that says so."""
    made = []
    for name, where in names.items():
        gap, ours = beside(found, name, reference)
        made.append(Row(paper, where, setting, f"{name}: {claim}", ours, agreement(gap).partition(" (")[0]))
    return made


NEAR = 0.5
"""A difference of accuracies, in points, that does not matter here."""


def agreement(difference: xr.DataArray) -> str:
    """Say whether paired differences over `seed`, in points, agree with 0, by the 95 % interval of their mean.

    It differs if 0 lies outside of that, by Student's t for so many seeds, and the mean is larger than `NEAR`; agrees
    if the interval stays within twice `NEAR`; and is undecided otherwise.
    """
    mean, error = (float(value) for value in statistics(difference))
    text = plus_minus(difference, "+")
    if np.isnan(mean):
        return f"diverged ({text})"
    if np.isnan(error):
        return f"undecided with one seed ({text})"
    seeds = int(difference.count())
    half = float(student.ppf(0.975, seeds - 1)) * error
    if abs(mean) > half and abs(mean) > NEAR:
        return f"differs ({text})"
    if abs(mean) + half <= 2 * NEAR:
        return f"agrees ({text})"
    return f"undecided: {seeds} seeds are too few ({text})"


def beside(found: xr.Dataset, name: str, reference: str = BASELINE) -> tuple[xr.DataArray, str]:
    """Return the test accuracy of a variant at the end less that of another, and both as text."""
    end = found.test_accuracy.isel(epoch=-1)
    gap = end.sel(variant=name) - end.sel(variant=reference)
    diverged = int(end.sel(variant=name).isnull().sum())
    text = f"{plus_minus(end.sel(variant=name))} %, {plus_minus(gap, '+')} points beside {reference}"
    text += f", {diverged} of {gap.sizes['seed']} diverged" * bool(diverged)
    return gap, f"{text}; {means_of(gap.sizes['seed'])}"


def plus_minus(values: xr.DataArray, sign: str = "") -> str:
    mean, error = (float(value) for value in statistics(values))
    return "–" if np.isnan(mean) else f"{mean:{sign}.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def degrees(values: xr.DataArray) -> str:
    means = values.mean("seed").dropna("layer").values
    return " ".join(f"{mean:.0f}" for mean in means)
