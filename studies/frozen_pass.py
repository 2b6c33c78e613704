"""Activation relaxation without a memory of the forward pass: four assumptions dropped, of which one is needed.

While it relaxes, AR refers to the forward pass in three places: f' in the relaxation, f' in the weight update, and the
presynaptic activity in the weight update. A perceptron learns with each of them taken at the live activity instead:
(a) f' in the relaxation, (b) f' in the weight update, (c) both, (d) the presynaptic activity. In the authors' code the
input layer relaxes too, so that in (d) the first layer, as all others, learns from activity that has become a gradient;
(d) is shown also with the input clamped.

After figures 1 and 3 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Investigating the Scalability and
Biological Plausibility of the Activation Relaxation Algorithm" (2020).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import tyro
import xarray as xr
from learning_curves import (
    BASELINE,
    Training,
    Variants,
    caption,
    compare,
    draw,
    draw_accuracy,
    draw_angles,
    perceptron,
    summary,
)
from matplotlib.figure import Figure
from report import write

import neurodyn as nd
from neurodyn import plot
from neurodyn.layers.modules import ACTIVATIONS

if TYPE_CHECKING:
    DatasetName = str
    ActivationName = str
else:
    DatasetName = tyro.extras.literal_type_from_choices(nd.data.DATASETS)
    ActivationName = tyro.extras.literal_type_from_choices(ACTIVATIONS)

RELAXATION: dict[str, Any] = {"relaxation_derivative": "live"}
WEIGHTS: dict[str, Any] = {"weight_derivative": "live"}
PRESYNAPTIC: dict[str, Any] = {"presynaptic": "live"}
PANELS: dict[str, Variants] = {
    "(a) f' in the relaxation": {"live f', relaxation": RELAXATION},
    "(b) f' in the weight update": {"live f', weights": WEIGHTS},
    "(c) f' in both": {"live f', both": RELAXATION | WEIGHTS},
    "(d) Presynaptic activity": {
        "live presynaptic": PRESYNAPTIC,
        "live presynaptic, input clamped": PRESYNAPTIC | {"input": "clamped"},
    },
}
VARIANTS: Variants = {BASELINE: {}} | {name: options for panel in PANELS.values() for name, options in panel.items()}


@dataclass(frozen=True)
class Options:
    """What to run.

    Parameters
    ----------
    dataset
        The inputs and targets; all but digits are downloaded, unless NEURODYN_DATA names a folder that has them.
    layers
        The units of the hidden layers; the data give those of the input and the output.
    activation
        The hidden units' nonlinearity.
    epochs
        Of training.
    rate
        The learning rate, for the squared error summed over a batch of 64. The paper's is 0.0005.
    seeds
        Of the weights and the order of the samples.
    processes
        How many networks are trained at a time.
    device
        Where to compute, e.g. cpu or cuda.
    full
        The paper's layers, rate and seeds, 10 epochs, and MNIST unless another data set is named; some hours.
    out
        The folder for the results.
    """

    dataset: DatasetName = "digits"
    layers: tuple[int, ...] = (100, 100, 50)
    activation: ActivationName = "tanh"
    epochs: int = 10
    rate: float = 0.002
    seeds: tuple[int, ...] = (0, 1, 2)
    processes: int = os.cpu_count() or 1
    device: str = "cpu"
    full: bool = False
    out: Path = Path("results/frozen_pass")

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds: give at least one")


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    if options.full:
        dataset = "mnist" if options.dataset == "digits" else options.dataset
        layers, seeds = (300, 300, 100), tuple(range(10))
        options = replace(options, dataset=dataset, layers=layers, epochs=10, rate=0.0005, seeds=seeds)
    build = partial(perceptron, hidden=options.layers, activation=options.activation)
    training = Training(options.dataset, build, options.epochs, options.rate, options.device)
    found = compare(training, VARIANTS, options.seeds, options.processes)
    about = {"layers": "-".join(map(str, options.layers)), "activation": options.activation}
    with plot.style():
        files = write(options.out, {"frozen_pass": figure(found)}, {"frozen_pass": found}, about)
    print(
        f"Activation relaxation with a forward pass that is not frozen: {options.activation}, layers {about['layers']}"
    )
    print(summary(found), files, sep="\n\n")


def figure(found: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(11, 6.8))
    axes = picture.subplot_mosaic("abe;cde")
    for letter, (title, variants) in zip("abcd", PANELS.items(), strict=True):
        draw_accuracy(axes[letter], found, variants, legend="center right" if letter == "d" else "lower right")
        axes[letter].set_title(title)
    for name in VARIANTS:
        if name != BASELINE:
            draw(axes["e"], found.update_angle.sel(variant=name).mean("layer"), name)
    draw_angles(axes["e"], "angle of the update to backprop's (°)")
    axes["e"].set_ylim(0, 120)
    axes["e"].set_title("(e) The update, mean of the layers")
    caption(picture, found)
    return picture


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
