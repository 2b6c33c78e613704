"""The figure of the study of depth: each rule's update and time, and whom error reaches in μPC."""

from __future__ import annotations

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurodyn import plot

COLOURS = (plot.BLACK, plot.GREY, plot.PURPLE, plot.VERMILION, plot.SKY, plot.BLUE, plot.GREEN, plot.ORANGE)


def draw(rules: xr.Dataset, received: xr.Dataset, trained: xr.Dataset, timed: tuple[str, str]) -> Figure:
    """Return the figure; of networks of one kind and precision, `timed`, updates have been timed."""
    colours = dict(zip(rules.rule.values, COLOURS, strict=True))
    kinds, precisions = rules.kind.values, rules.precision.values
    figure = plt.figure(figsize=(12.5, 7.2))
    axes = figure.subplots(2, 3)
    for ax, letter, kind in zip(axes[0], "ab", kinds, strict=False):
        for (rule, colour), precision in product(colours.items(), precisions):
            at = rules.off.sel(rule=rule, precision=precision, kind=kind)
            if at.notnull().any():
                style, label = ("o-", rule) if precision == "float32" else ("o:", None)
                face = "white" if rule == "Fa-Z-IL, repaired φ" else None
                ax.plot(at.layers, at.mean("seed"), style, ms=4, mfc=face, color=colour, label=label)
        ax.set(xscale="log", yscale="log", xlabel="layers L", ylabel="|Δθ − Δθ_BP| / |Δθ_BP|")
        ax.set_title(f"({letter}) Update, {kind}; dotted: float64")
        plain_ticks(ax, rules)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    for (kind, colour), precision in product(zip(kinds, (plot.BLUE, plot.ORANGE), strict=True), precisions):
        at = 100 * rules.unseen.sel(kind=kind, precision=precision).mean("seed")
        style = "o-" if precision == "float32" else "s:"
        axes[0, 2].plot(at.layers, at, style, markersize=4, color=colour, label=f"{kind}, {precision}")
    axes[0, 2].set(xscale="log", xlabel="layers L", ylabel="hidden units (%)")
    axes[0, 2].set_title("(c) Error below the value's rounding")
    axes[0, 2].legend(fontsize=7)
    plain_ticks(axes[0, 2], rules)
    for rule, colour in colours.items():
        at = rules.ratio.sel(rule=rule, kind=timed[0], precision=timed[1]).mean("seed")
        axes[1, 0].plot(at.layers, at, "o-", markersize=3, color=colour)
    axes[1, 0].set(xscale="log", yscale="log", xlabel="layers L", ylabel="time in units of backprop's")
    axes[1, 0].set_title("(d) Time of an update, {}, {}".format(*timed))
    plain_ticks(axes[1, 0], rules)
    shades = plt.colormaps["viridis"](np.linspace(0, 0.85, received.sizes["steps"]))
    for network, style in (("μPC", "-"), ("plain PC", ":")):
        for steps, shade in zip(received.steps.values, shades, strict=True):
            at = received.share.sel(network=network, steps=steps).mean("seed")
            label = f"{network}, {steps} steps"
            axes[1, 1].plot(at.layer, at.where(at > 0), style, color=shade, label=label)
    axes[1, 1].set(yscale="log", ylim=(1e-8, None), xlabel="layer", ylabel="|ΔW| / |ΔW of backprop|")
    axes[1, 1].set_title("(e) Who receives error, before training")
    axes[1, 1].legend(fontsize=7)
    looks = zip(trained.network.values, (plot.GREY, plot.BLUE, plot.ORANGE, plot.VERMILION), strict=True)
    for network, colour in looks:
        at = trained.moved.sel(network=network)
        axes[1, 2].plot(at.layer, at.mean("seed"), "o-", markersize=3, color=colour, label=network)
    axes[1, 2].set(yscale="log", xlabel="layer", ylabel="|W − W(0)| / |W(0)|", title="(f) Who has moved")
    for ax in axes[1, 1:]:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1, 2].legend(fontsize=7)
    return figure


def plain_ticks(ax: Axes, rules: xr.Dataset) -> None:
    ax.set_xticks(rules.layers, [str(number) for number in rules.layers.values], minor=False)
    ax.set_xticks([], minor=True)
