"""Training the variants of activation relaxation beside backprop, as the papers do: test accuracy, and angles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from ablation import in_processes, loss
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from report import table
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.utils.data import Dataset
from tqdm import tqdm

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar
from neurodyn.structure.cache import structure_of

BATCH = 64
ITERATIONS = 100
STEP = 0.1
SIGMA = 0.05
"""The papers' batches, relaxation by Euler's method, and standard deviation of the weights."""
PROBE = 256
"""How many training samples the angles of the updates are measured on."""
LARGEST_WEIGHT = 1e6
"""A run with a larger weight has diverged."""
BACKPROP = "backprop"
BASELINE = "AR"

Place = Literal["lower right", "center right"]

Variants = Mapping[str, Mapping[str, Any]]
"""The options of `ar.network`, by the name of the variant."""


@dataclass(frozen=True)
class Training:
    """How networks are trained.

    Parameters
    ----------
    dataset
        A name in `nd.data.DATASETS`.
    build
        A function of the shape of an input, the number of classes and a seed, that returns a network.
    epochs
        Of plain gradient descent; whole batches of 64 alone.
    rate
        η of the papers, for the gradient of Σ‖y − t‖² summed over the units and the samples of a batch. `.grad` is that
        of ½‖y − t‖² averaged over the batch, and so gets 2 · 64 · η.
    device
        Where.
    """

    dataset: str
    build: Callable[[tuple[int, ...], int, int], nn.Sequential]
    epochs: int
    rate: float
    device: str = "cpu"

    def __str__(self) -> str:
        return (
            f"{self.dataset}, {self.epochs} epochs of SGD in batches of {BATCH}, rate {self.rate:g} for the summed "
            f"squared error, {ITERATIONS} iterations of {STEP:g}"
        )


def perceptron(
    shape: tuple[int, ...], classes: int, seed: int, *, hidden: Sequence[int], activation: str
) -> nn.Sequential:
    """Return a perceptron with weights from N(0, 0.05²) and no biases yet, as in the authors' code."""
    module = nd.mlp([prod(shape), *hidden, classes], activation=activation, seed=seed)
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


@lru_cache(maxsize=1)
def load(dataset: str) -> tuple[nd.data.Samples, nd.data.Samples]:
    """Return the training and the test set, of images."""
    return nd.data.DATASETS[dataset](flatten=False)


def accuracy(module: nn.Module, samples: Dataset[tuple[Tensor, Tensor]], device: str) -> float:
    """Return the percentage of samples classified correctly."""
    correct = 0
    with torch.no_grad():
        for batch in torch.arange(len(samples)).split(1000):  # type: ignore[arg-type]
            inputs, targets = (part.to(device) for part in samples[batch])
            correct += int((module(inputs).argmax(1) == targets.argmax(1)).sum())
    return 100 * correct / len(samples)  # type: ignore[arg-type]


def train(training: Training, options: Mapping[str, Any] | None, seed: int) -> xr.Dataset:
    """Train a network by activation relaxation with some options, or by backprop without, and measure every epoch.

    Returns
    -------
    xarray.Dataset
        `test_accuracy` in per cent, dimension `epoch`, the start included; `update_angle` to the gradient of backprop,
        and `feedback_angle` between ψ and Wᵀ, in degrees, dimensions `epoch` and `layer`. NaN from the epoch in which
        the run diverged, and `feedback_angle` where there is no ψ.
    """
    samples, test = load(training.dataset)
    inputs, targets = (part.to(training.device) for part in samples[:PROBE])
    module = training.build(tuple(inputs.shape[1:]), targets.shape[1], seed).to(training.device)
    network = ar.network(module, seed=seed, **(options or {}))
    by_backprop = lambda x, t: loss(module, x, t).backward()  # noqa: E731
    learn = by_backprop if options is None else partial(relax, network)
    parameters = [*module.parameters(), *(psi for _, psi in network.feedback_parameters())]
    optimizer = torch.optim.SGD(parameters, lr=2 * BATCH * training.rate)
    order = torch.Generator().manual_seed(seed)

    layers = [stage.name for stage in network.forward]
    moments = {"epoch": np.arange(training.epochs + 1), "layer": layers}
    measured = {
        "test_accuracy": np.full(training.epochs + 1, np.nan),
        "update_angle": np.full((training.epochs + 1, len(layers)), np.nan),
        "feedback_angle": np.full((training.epochs + 1, len(layers)), np.nan),
    }

    def gradients(learn: Callable[[Tensor, Tensor], Any]) -> list[Tensor]:
        optimizer.zero_grad()
        learn(inputs, targets)
        return [torch.cat([given(p).flatten() for p in stage.parameters]) for stage in network.forward]

    for epoch in range(training.epochs + 1):
        try:
            if epoch > 0:
                for batch in torch.randperm(len(samples), generator=order)[: len(samples) // BATCH * BATCH].split(
                    BATCH
                ):
                    optimizer.zero_grad()
                    learn(*(part.to(training.device) for part in samples[batch]))
                    optimizer.step()
                    if not get_total_norm(parameters, torch.inf) <= LARGEST_WEIGHT:  # also if it is NaN
                        raise nd.DivergenceError("a weight has grown without bound", epoch, "")
            pairs = zip(gradients(learn), gradients(by_backprop), strict=True)
            measured["update_angle"][epoch] = [angle(found, exact) for found, exact in pairs]
        except nd.DivergenceError:
            break
        measured["test_accuracy"][epoch] = accuracy(module, test, training.device)
        for name, psi in network.feedback_parameters():
            weight = network.forward[layers.index(name)].parameters[0]
            transposed = weight.T if weight.ndim == 2 else weight
            measured["feedback_angle"][epoch, layers.index(name)] = angle(psi, transposed)
    dims = {name: ("epoch", "layer")[: values.ndim] for name, values in measured.items()}
    return xr.Dataset({name: (dims[name], values) for name, values in measured.items()}, moments)


def relax(network: nd.Network, inputs: Tensor, targets: Tensor) -> None:
    """Learn from the papers' 100 iterations: in closed form, or step by step where a derivative is live."""
    clamped = frozenset(p.name for p in network.populations if p.clamp is not None)
    solver = nd.Exact(euler_step=STEP) if structure_of(network, clamped).linear else nd.Euler(STEP)
    nd.backward(network, inputs, targets, duration=ITERATIONS * STEP, solver=solver)


def given(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()


def angle(a: Tensor, b: Tensor) -> float:
    """Return the angle between two tensors, taken as vectors, in degrees."""
    a, b = (part.detach().double().flatten() for part in (a, b))
    a, b = a / torch.linalg.vector_norm(a), b / torch.linalg.vector_norm(b)
    # Precise at small angles too, unlike the arc cosine of a · b.
    return float(2 * torch.rad2deg(torch.atan2(torch.linalg.vector_norm(a - b), torch.linalg.vector_norm(a + b))))


def compare(training: Training, variants: Variants, seeds: Sequence[int], processes: int) -> xr.Dataset:
    """Train a network by backprop and by every variant, with the same seeds.

    Returns
    -------
    xarray.Dataset
        What `train` measures, with dimensions `variant` (backprop first) and `seed` before it.
    """
    options: dict[str, Mapping[str, Any] | None] = {BACKPROP: None, **variants}
    tasks = [(training, each, seed) for each in options.values() for seed in seeds]
    runs: dict[int, xr.Dataset] = {}
    with tqdm(total=len(tasks), unit="run", disable=None) as bar:
        for number, run in in_processes(train, tasks, processes):
            runs[number] = run
            bar.update()
    by_variant = [
        xr.concat([runs[first + at] for at in range(len(seeds))], xr.Variable("seed", list(seeds)))
        for first in range(0, len(tasks), len(seeds))
    ]
    found = xr.concat(by_variant, xr.Variable("variant", list(options)))
    found["epoch"].attrs = {"units": "1", "long_name": "epoch"}
    found["test_accuracy"].attrs = {"units": "percent", "long_name": "test accuracy"}
    found["update_angle"].attrs = {"units": "degree", "long_name": "angle between the update and backprop's gradient"}
    found["feedback_angle"].attrs = {"units": "degree", "long_name": "angle between ψ and the transposed weights"}
    return found.assign_attrs(training=str(training))


def draw(ax: Axes, values: xr.DataArray, label: str, **look: Any) -> None:
    """Draw the mean over seeds against the epoch, and a band of its standard error; diverged runs are left out."""
    mean, error = statistics(values)
    (line,) = ax.plot(values.epoch, mean, label=label, **look)
    ax.fill_between(values.epoch, mean - error, mean + error, color=line.get_color(), alpha=0.25, linewidth=0)


def caption(figure: Figure, found: xr.Dataset) -> None:
    """Say above a figure what was trained, and what its lines and bands are."""
    seeds = found.sizes["seed"]
    bands = "" if seeds == 1 else f"\nLines: mean of {seeds} seeds; bands: its standard error"
    figure.suptitle(f"{found.attrs['training']}{bands}", x=0.01, ha="left", fontsize=9, color=plot.GREY)


def draw_accuracy(ax: Axes, found: xr.Dataset, variants: Iterable[str], legend: Place = "lower right") -> None:
    """Draw the test accuracy of some variants beside those of backprop and of AR as it is."""
    references: dict[str, dict[str, Any]] = {
        BACKPROP: {"color": plot.GREY, "linewidth": 3, "alpha": 0.5},
        BASELINE: {"color": plot.BLACK},
    }
    colours = (plot.BLUE, plot.VERMILION, plot.GREEN, plot.PURPLE)
    looks = {name: {"color": colour} for name, colour in zip(variants, colours, strict=False)}
    for name, look in {**references, **looks}.items():
        draw(ax, found.test_accuracy.sel(variant=name), name, **look)
    ax.set(xlabel="epoch (1)", ylabel="test accuracy (%)", ylim=(0, 100))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc=legend, fontsize=8)


def draw_feedback(ax: Axes, found: xr.Dataset, variant: str) -> None:
    """Draw the angle between ψ and Wᵀ, layer by layer."""
    angles = found.feedback_angle.sel(variant=variant).dropna("layer", how="all")
    for layer in angles.layer.values:
        draw(ax, angles.sel(layer=layer), f"ψ{layer}")
    draw_angles(ax, "angle between ψ and Wᵀ (°)")


def draw_angles(ax: Axes, label: str) -> None:
    """Label the axes of angles that have been drawn, with 90° as what chance gives, and the legend above."""
    ax.axhline(90, color=plot.GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel="epoch (1)", ylabel=label, ylim=(0, 145))
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
            f"After the last epoch, mean of {seeds} seeds ± its standard error; angles by layer, the first one first",
            "",
            table(header, rows),
        ]
    )


def plus_minus(values: xr.DataArray, sign: str = "") -> str:
    mean, error = (float(value) for value in statistics(values))
    return "–" if np.isnan(mean) else f"{mean:{sign}.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def degrees(values: xr.DataArray) -> str:
    means = values.mean("seed").dropna("layer").values
    return " ".join(f"{mean:.0f}" for mean in means)
