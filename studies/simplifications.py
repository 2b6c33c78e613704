"""Activation relaxation without weight transport, and without nonlinear derivatives.

A perceptron learns (a) with feedback weights ψ of its own in place of Wᵀ, which learn by Δψ = (ΔW)ᵀ; (b) without f' in
the relaxation; (c) with both simplifications; (d) with ψ that stay as they were drawn, as in feedback alignment. Test
accuracy is shown beside backprop's, and how ψ comes to point along Wᵀ, and the update along backprop's gradient.

After figure 3 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain" (2020).
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
    draw_feedback,
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

LEARNED, FIXED = "learned ψ", "fixed ψ"
WITHOUT, BOTH, FIXED_WITHOUT = "no derivative", "learned ψ, no derivative", "fixed ψ, no derivative"
NO_DERIVATIVE: dict[str, Any] = {"relaxation_derivative": "none"}
VARIANTS: Variants = {
    BASELINE: {},
    LEARNED: {"feedback": "learned"},
    WITHOUT: NO_DERIVATIVE,
    BOTH: {"feedback": "learned", **NO_DERIVATIVE},
    FIXED: {"feedback": "fixed"},
    FIXED_WITHOUT: {"feedback": "fixed", **NO_DERIVATIVE},
}


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
        The learning rate, for the squared error summed over a batch of 64. The paper's 0.0005 is slow on so few digits.
    seeds
        Of the weights, the feedback weights and the order of the samples.
    processes
        How many networks are trained at a time.
    device
        Where to compute, e.g. cpu or cuda.
    full
        The paper's epochs, rate and seeds, and MNIST unless another data set is named.
    out
        The folder for the results.
    """

    dataset: DatasetName = "digits"
    layers: tuple[int, ...] = (300, 300, 100)
    activation: ActivationName = "relu"
    epochs: int = 15
    rate: float = 0.002
    seeds: tuple[int, ...] = (0, 1, 2)
    processes: int = os.cpu_count() or 1
    device: str = "cpu"
    full: bool = False
    out: Path = Path("results/simplifications")

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds: give at least one")


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    if options.full:
        dataset = "mnist" if options.dataset == "digits" else options.dataset
        options = replace(options, dataset=dataset, epochs=10, rate=0.0005, seeds=tuple(range(5)))
    build = partial(perceptron, hidden=options.layers, activation=options.activation)
    training = Training(options.dataset, build, options.epochs, options.rate, options.device)
    found = compare(training, VARIANTS, options.seeds, options.processes)
    about = {"layers": "-".join(map(str, options.layers)), "activation": options.activation}
    with plot.style():
        files = write(options.out, {"simplifications": figure(found)}, {"simplifications": found}, about)
    print(f"Activation relaxation simplified: {options.activation}, hidden layers {about['layers']}")
    print(summary(found), files, sep="\n\n")


def figure(found: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(13, 6.8))
    axes = picture.subplots(2, 4)
    panels = {
        "(a) Feedback weights that learn": [LEARNED],
        "(b) No derivative in the relaxation": [WITHOUT],
        "(c) Both simplifications": [BOTH],
        "(d) Feedback weights that stay": [FIXED, FIXED_WITHOUT],
    }
    for ax, (title, variants) in zip(axes[0], panels.items(), strict=True):
        draw_accuracy(ax, found, variants)
        ax.set_title(title)
    for ax, name, letter in zip(axes[1], (LEARNED, BOTH, FIXED), "efg", strict=False):
        draw_feedback(ax, found, name)
        ax.set_title(f"({letter}) {name}")
    for name in VARIANTS:
        if name != BASELINE:
            draw(axes[1, 3], found.update_angle.sel(variant=name).mean("layer"), name)
    draw_angles(axes[1, 3], "angle of the update to backprop's (°)")
    axes[1, 3].set_title("(h) The update, mean of the layers")
    caption(picture, found)
    return picture


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
