"""The figures of the study of training by GAIT-prop: accuracies, and what the regularizer does."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common.learning_curves import caption, draw, statistics, zoom
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from neurodyn import plot

LOOKS: Mapping[str, dict[str, Any]] = {
    "BP": {"color": plot.GREY, "linewidth": 3, "alpha": 0.5},
    "BP, regularized": {"color": plot.BLACK, "linestyle": "--", "linewidth": 1},
    "GAIT-prop": {"color": plot.SKY},
    "GAIT-prop, regularized": {"color": plot.BLUE, "linestyle": "--"},
    "TP": {"color": plot.ORANGE},
    "TP, regularized": {"color": plot.VERMILION, "linestyle": "--"},
}


def draw_networks(found: xr.Dataset) -> Figure:
    """Return the figure: a panel for each network, and the peak accuracy against depth."""
    panels = found.sizes["network"] + 1
    columns = 2 if panels == 4 else min(3, panels)
    rows = -(-panels // columns)
    *_, tower = found.network.values
    figure, grid = plt.subplots(rows, columns, figsize=(3.7 * columns, 3.1 * rows + 0.4), squeeze=False)
    axes = grid.ravel()
    shown = found.isel(epoch=slice(1, None))
    for ax, letter, network in zip(axes, "abcdefghij", found.network.values, strict=False):
        for rule, look in LOOKS.items():
            draw(ax, shown.test_accuracy.sel(network=network, rule=rule), rule, **look)
        layers = str(found.layers.sel(network=network).item())
        title = f"tower {layers}" if network == tower else f"{network}, {layers.partition('-')[0]} units a layer"
        ax.set(xlabel="epoch", ylabel="test accuracy (%)", title=f"({letter}) {title}")
        zoom(ax, shown.test_accuracy.sel(network=network))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    draw_peaks(axes[panels - 1], found, "abcdefghij"[panels - 1])
    for ax in axes[panels:]:
        ax.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LOOKS), fontsize=8)
    caption(figure, found)
    return figure


def draw_regularizer(found: xr.Dataset, scanned: xr.Dataset) -> Figure:
    """Return the figure of what the regularizer does: orthogonality and angles over the training, and the scan of λ."""
    figure, (left, centre, right) = plt.subplots(1, 3, figsize=(12, 4.2))
    rules: dict[str, Any] = {"BP": ":", "BP, regularized": "-.", "GAIT-prop": "-", "GAIT-prop, regularized": "--"}
    shown = dict(zip(found.network.values[-3:], (plot.GREEN, plot.ORANGE, plot.BLUE), strict=True))
    for (network, colour), (rule, style) in product(shown.items(), rules.items()):
        at = found.sel(network=network, rule=rule)
        draw(left, at.orthogonality.isel(epoch=slice(1, None)), f"{network}, {rule}", color=colour, linestyle=style)
        if rule.startswith("GAIT"):
            draw(centre, at.update_angle, f"{network}, {rule}", color=colour, linestyle=style)
    left.set(yscale="log", ylim=(1e-4, None), xlabel="epoch", ylabel="‖W Wᵀ − diag‖ / ‖W Wᵀ‖, mean")
    left.set_title("(a) Rows that cease to be orthogonal")
    handles = [Line2D([], [], color=colour, label=network) for network, colour in shown.items()]
    handles += [Line2D([], [], color=plot.GREY, linestyle=style, label=rule) for rule, style in rules.items()]
    left.legend(handles=handles, fontsize=7, loc="lower right", ncols=2)
    centre.set(xlabel="epoch", ylabel="angle to backprop's update, mean (°)", title="(b) Updates of GAIT-prop")
    centre.set_ylim(0, 1.6 * centre.get_ylim()[1])  # which leaves room for the legend
    centre.legend(fontsize=7, loc="upper left")
    for ax in (left, centre):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    places = range(scanned.sizes["strength"])
    colours = dict(zip(scanned.start.values, (plot.GREEN, plot.VERMILION, plot.BLUE), strict=True))
    for (start, colour), rule in product(colours.items(), scanned.rule.values):
        mean, error = statistics(scanned.test_accuracy.isel(epoch=-1).sel(start=start, rule=rule))
        style = "o:" if rule == "BP" else "o-"
        right.errorbar(places, mean, error, fmt=style, markersize=4, color=colour, label=f"{start}, {rule}")
    right.set_xticks(places, [f"{strength:g}" for strength in scanned.strength.values])
    right.set(xlabel="λ of the regularizer", ylabel="test accuracy at the end (%)", title="(c) How much it takes")
    right.legend(fontsize=7)
    caption(figure, found)
    return figure


def draw_peaks(ax: Axes, found: xr.Dataset, letter: str) -> None:
    """Draw the peak accuracy of each network, as figures 2B and 3C do, rule beside rule."""
    peaks = found.test_accuracy.max("epoch")
    at = np.arange(found.sizes["network"])
    for place, (rule, look) in enumerate(LOOKS.items()):
        mean, error = statistics(peaks.sel(rule=rule))
        shift = 0.14 * (place - (len(LOOKS) - 1) / 2)
        ax.errorbar(at + shift, mean, error, fmt="o", markersize=4, color=look["color"], label=rule)
    ax.set_xticks(at, [str(name).replace(" hidden", "") for name in found.network.values])
    ax.set(xlabel="hidden layers, linear, or tower", ylabel="peak test accuracy (%)")
    ax.set_title(f"({letter}) Peak accuracy")
