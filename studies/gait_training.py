"""Training by backprop, TP and GAIT-prop: networks of fixed width, and towers that narrow, with auxiliary units.

(1) Test accuracy over the epochs for 1 to 6 hidden layers as wide as the input, TP and GAIT-prop with and without the
orthogonality regularizer. (2) The same in a tower. Weights start orthogonal, as leaky ReLU layers in float64.

After figures 2 and 3 of N. Ahmad, M. A. J. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically plausible learning
rule derived from backpropagation of error" (2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common.learning_curves import draw, plus_minus
from common.options import TrainingOptions, parse
from common.report import table, write
from common.training import fit
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import target_propagation as tp

BATCH = 60
"""The paper's."""
GAMMA = 1e-3
TOWER = "tower"


@dataclass(frozen=True)
class Rule:
    """A rule of learning, Adam's learning rate, and λ of the regularizer; 0 is none."""

    name: Literal["bp", "tp", "gait"]
    rate: float
    strength: float = 0.0

    def declare(self, sizes: Sequence[int], outputs: int, seed: int) -> nn.Module | nd.Network:
        """Return a network with orthogonal weights; a plain module for backprop."""
        module = tp.tower(sizes, outputs=outputs, weights="orthogonal", seed=seed, dtype=torch.float64)
        if self.name == "bp":
            return module
        network = tp.network(module, rule=self.name, gamma=GAMMA)
        return network.regularized(nd.Orthogonality(self.strength)) if self.strength else network


RULES: Mapping[str, Rule] = {
    "BP": Rule("bp", 1e-3),
    "GAIT-prop": Rule("gait", 1e-3),
    "GAIT-prop, regularized": Rule("gait", 1e-3, 0.1),
    "TP": Rule("tp", 1e-3),
    "TP, regularized": Rule("tp", 1e-3, 10.0),
}
"""For digits, with 24 updates an epoch: ten times the paper's rate of BP and GAIT-prop, a hundred times TP's, and a
hundredth of its λ of TP, with which the few updates that there are do little but keep the weights orthogonal."""
PAPERS: Mapping[str, Rule] = {
    "BP": Rule("bp", 1e-4),
    "GAIT-prop": Rule("gait", 1e-4),
    "GAIT-prop, regularized": Rule("gait", 1e-4, 0.1),
    "TP": Rule("tp", 1e-5),
    "TP, regularized": Rule("tp", 1e-5, 1000.0),
}
LOOKS: Mapping[str, dict[str, Any]] = {
    "BP": {"color": plot.GREY, "linewidth": 3, "alpha": 0.5},
    "GAIT-prop": {"color": plot.SKY},
    "GAIT-prop, regularized": {"color": plot.BLUE, "linestyle": "--"},
    "TP": {"color": plot.ORANGE},
    "TP, regularized": {"color": plot.VERMILION, "linestyle": "--"},
}


@dataclass(frozen=True)
class Options(TrainingOptions):
    """What to run; `--full` also takes the paper's rates and λ, and trains for days on two cores.

    Parameters
    ----------
    hidden
        The numbers of hidden layers of fixed width; the width is that of the input, 64 for digits.
    tower
        The units of the tower's layers after the input, none wider than the one before.
    """

    out: Path = Path("results/gait_training")
    hidden: tuple[int, ...] = (1, 3, 6)
    tower: tuple[int, ...] = (64, 40, 20, 10)


PAPER = Options(
    full=True,
    dataset="mnist",
    hidden=(1, 2, 3, 4, 5, 6),
    tower=(784, 500, 200, 10),
    epochs=50,
    seeds=tuple(range(5)),
)


def compare(options: Options) -> xr.Dataset:
    """Train every network by every rule, from the same weights and with the same batches.

    The test accuracy, in per cent, is NaN if the run diverged.
    """
    rules, data = PAPERS if options.full else RULES, options.load()
    inputs, outputs = map(len, data[0][0])
    networks = {f"{hidden} hidden": (inputs,) * (hidden + 1) for hidden in options.hidden}
    networks[TOWER] = options.tower
    accuracy = []
    for sizes, rule in options.progress(list(product(networks.values(), rules.values())), unit="rule"):
        history, _ = fit(
            partial(rule.declare, (inputs, *sizes), outputs),
            options,
            options.seeds,
            data=data,
            batch_size=BATCH,
            learning_rate=rule.rate,
        )
        trained = history.test_accuracy.isel(epoch=slice(1, None))
        accuracy.append(trained.where(trained.isel(epoch=-1).notnull()))
    dims: dict[str, Any] = {
        "network": list(networks),
        "rule": list(rules),
        "seed": list(options.seeds),
        "epoch": np.arange(1, options.epochs + 1),
    }
    shape = [len(values) for values in dims.values()]
    found = xr.Dataset({"test_accuracy": (tuple(dims), np.reshape(accuracy, shape))}, dims)
    found["test_accuracy"].attrs = {"units": "percent", "long_name": "test accuracy"}
    found["epoch"].attrs = {"units": "1", "long_name": "epoch"}
    layers = ("-".join(map(str, (inputs, *sizes))) for sizes in networks.values())
    settings = {
        "rate": ([rule.rate for rule in rules.values()], "learning rate of Adam"),
        "strength": ([rule.strength for rule in rules.values()], "λ of the orthogonality regularizer; 0: none"),
    }
    found = found.assign_coords(layers=("network", list(layers)))
    return found.assign_coords(
        {name: ("rule", values, {"units": "1", "long_name": what}) for name, (values, what) in settings.items()}
    )


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found = compare(options)
    about = {"dataset": options.dataset, "activation": "leaky_relu", "dtype": "float64"}
    about["training"] = f"{options.dataset}, {options.epochs} epochs of Adam in batches of {BATCH}, γ = {GAMMA:g}"
    found = found.assign_attrs(about)
    with plot.style():
        files = write(options.out, {"gait_training": picture(found)}, {"gait_training": found}, about)
    print(summary(found), files, sep="\n\n")


def picture(found: xr.Dataset) -> Figure:
    """Return the figure: a panel for each network, and the peak accuracy against depth."""
    panels = found.sizes["network"] + 1
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.7 * columns, 3.1 * rows + 0.4), squeeze=False)
    axes = grid.ravel()
    for ax, letter, network in zip(axes, "abcdefgh", found.network.values, strict=False):
        for rule, look in LOOKS.items():
            draw(ax, found.test_accuracy.sel(network=network, rule=rule), rule, **look)
        layers = str(found.layers.sel(network=network).item())
        title = f"tower {layers}" if network == TOWER else f"{network}, {layers.partition('-')[0]} units a layer"
        ax.set(xlabel="epoch (1)", ylabel="test accuracy (%)", ylim=(0, 101), title=f"({letter}) {title}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    draw_peaks(axes[panels - 1], found, "abcdefgh"[panels - 1])
    for ax in axes[panels:]:
        ax.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LOOKS), fontsize=8)
    figure.suptitle(
        f"{found.attrs['training']}\nLines: mean of {found.sizes['seed']} seeds; bands and bars: its standard error",
        x=0.01,
        ha="left",
        fontsize=9,
        color=plot.GREY,
    )
    return figure


def draw_peaks(ax: Axes, found: xr.Dataset, letter: str) -> None:
    """Draw the peak accuracy of each network, as figures 2B and 3C do, rule beside rule."""
    peaks = found.test_accuracy.max("epoch")
    at = np.arange(found.sizes["network"])
    for place, (rule, look) in enumerate(LOOKS.items()):
        values = peaks.sel(rule=rule)
        error = values.std("seed", ddof=1) / np.sqrt(values.count("seed")) if values.sizes["seed"] > 1 else None
        shift = 0.14 * (place - (len(LOOKS) - 1) / 2)
        ax.errorbar(at + shift, values.mean("seed"), error, fmt="o", markersize=4, color=look["color"], label=rule)
    ax.set_xticks(at, [str(name).replace(" hidden", "") for name in found.network.values])
    ax.set(xlabel="hidden layers, or tower", ylabel="peak test accuracy (%)", ylim=(0, 101))
    ax.set_title(f"({letter}) Peak accuracy")


def summary(found: xr.Dataset) -> str:
    """Return the table of what every rule came to."""
    peaks = found.test_accuracy.max("epoch")
    rows = []
    for rule in found.rule.values:
        at = found.sel(rule=rule)
        strength = float(at.strength)
        rows.append(
            [
                str(rule),
                f"{float(at.rate):g}",
                f"{strength:g}" if strength else "",
                *(plus_minus(peaks.sel(rule=rule, network=network)) for network in found.network.values),
            ]
        )
    rule, rate = "GAIT-prop, regularized", found.test_accuracy.isel(epoch=-1)
    less = float((rate.sel(rule="BP") - rate.sel(rule=rule)).max("network").mean("seed"))
    diverged = int(rate.isnull().sum())
    return "\n".join(
        [
            f"{found.attrs['training']}, float64, orthogonal weights at the start",
            f"Peak test accuracy (%), mean ± standard error of {found.sizes['seed']} seeds; the tower is "
            f"{found.layers.sel(network=TOWER).item()}",
            "",
            table(["", "rate", "λ", *map(str, found.network.values)], rows),
            "",
            f"{rule}, is behind BP by at most {less:.1f} after the last epoch; {diverged} runs diverged.",
            "The paper, on MNIST and 784 units a layer (figures 2 and 3, without numbers in the text): GAIT-prop is "
            "indistinguishable from\nBP at every depth and in the tower; TP is less accurate in networks that are not "
            "linear.",
        ]
    )


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
