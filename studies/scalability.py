"""Activation relaxation simplified in a convolutional network: feedback weights that learn, and no derivatives.

The network has two convolutions and three fully connected layers. Feedback weights ψ that learn take the place of Wᵀ,
or f' is dropped from the relaxation and from the weight update, or both: (a) in the convolutions alone, (b) in the
fully connected layers alone, (c) in all. The ψ of a convolution is a kernel of the same shape, and learns by the same
update.

After figure 2 and appendix C of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Investigating the Scalability and
Biological Plausibility of the Activation Relaxation Algorithm" (2020).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
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
    convolutional,
    draw_accuracy,
    draw_feedback,
    summary,
)
from matplotlib.figure import Figure
from report import write

import neurodyn as nd
from neurodyn import plot

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = tyro.extras.literal_type_from_choices(nd.data.DATASETS)

LEARNED: dict[str, Any] = {"feedback": "learned"}
WITHOUT: dict[str, Any] = {"relaxation_derivative": "none", "weight_derivative": "none"}
SIMPLIFICATIONS: Variants = {"learned ψ": LEARNED, "no derivative": WITHOUT, "both": LEARNED | WITHOUT}
LAYERS = {"convolutional": "conv.", "fully connected": "fully conn.", "all": "all"}
VARIANTS: Variants = {BASELINE: {}} | {
    f"{name}, {label}": options | {"simplified": layers}
    for layers, label in LAYERS.items()
    for name, options in SIMPLIFICATIONS.items()
}


@dataclass(frozen=True)
class Options:
    """What to run.

    Parameters
    ----------
    dataset
        The inputs and targets; all but digits are downloaded, unless NEURODYN_DATA names a folder that has them.
    epochs
        Of training.
    rate
        The learning rate, for the squared error summed over a batch of 64. The authors' 0.0005 is slow on few digits.
    seeds
        Of the weights, the feedback weights and the order of the samples.
    processes
        How many networks are trained at a time.
    device
        Where to compute, e.g. cpu or cuda.
    full
        The paper's seeds and the authors' rate and epochs, and CIFAR-10 unless another data set is named; for a GPU.
    out
        The folder for the results.
    """

    dataset: DatasetName = "digits"
    epochs: int = 12
    rate: float = 0.002
    seeds: tuple[int, ...] = (0, 1, 2)
    processes: int = os.cpu_count() or 1
    device: str = "cpu"
    full: bool = False
    out: Path = Path("results/scalability")

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds: give at least one")


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    if options.full:
        dataset = "cifar10" if options.dataset == "digits" else options.dataset
        options = replace(options, dataset=dataset, epochs=30, rate=0.0005, seeds=tuple(range(10)))
    training = Training(options.dataset, convolutional, options.epochs, options.rate, options.device)
    found = compare(training, VARIANTS, options.seeds, options.processes)
    with plot.style():
        files = write(options.out, {"scalability": figure(found)}, {"scalability": found}, {})
    print("Activation relaxation simplified in a CNN: conv 32, pool, conv 64, 64, 120; tanh")
    print(summary(found), files, sep="\n\n")


def figure(found: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(13, 3.6))
    axes = picture.subplots(1, 4)
    for ax, letter, (layers, label) in zip(axes, "abc", LAYERS.items(), strict=False):
        draw_accuracy(ax, found, [f"{name}, {label}" for name in SIMPLIFICATIONS])
        ax.set_title(f"({letter}) {layers.capitalize()}{'' if layers == 'all' else ' layers'} simplified")
    draw_feedback(axes[-1], found, "both, all")
    axes[-1].set_title("(d) Both in all layers")
    caption(picture, found)
    return picture


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
