"""The figure of the study of spikes: how often φ finds the moment, when units spike, and those of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neurodyn import plot


def draw(depth: xr.Dataset, cause: xr.Dataset, rasters: Mapping[str, xr.Dataset], window: int) -> Figure:
    """Return the figure; `window` is the t_d at which it tells when units spike."""
    figure = plt.figure(figsize=(11, 8.5))
    axes = figure.subplots(2, 2)
    draw_detection(axes[0, 0], depth, cause)
    draw_outcomes(axes[0, 1], cause.sel(window=window))
    for ax, letter, data in zip(axes[1], "cd", rasters.values(), strict=True):
        draw_raster(ax, data)
        ax.set_title(f"({letter}) Spikes of one sample, t_d = 1")
    return figure


def draw_detection(ax: Axes, depth: xr.Dataset, cause: xr.Dataset) -> None:
    lines = {"logistic, the worst depth": depth.detected.mean("seed").min("layers")}
    for case in ("single", "relu", "pooled", "longer"):
        shown = cause.sel(case=case)
        lines[str(shown.name.item()).replace("convolutions, ", "")] = shown.detected.mean("seed")
    colours = (plot.BLUE, plot.SKY, plot.GREEN, plot.VERMILION, plot.ORANGE)
    places = range(depth.sizes["window"])
    for (label, values), colour, marker in zip(lines.items(), colours, "ov^sD", strict=True):
        ax.plot(places, 100 * values, marker=marker, color=colour, label=label, markersize=4)
    ax.plot(places, depth.published, "x--", color=plot.BLACK, label="paper, table 3")
    ax.set(xlabel="window t_d (steps)", ylabel="spike at L − l only, of units\nwith an error there (%)")
    ax.set_xticks(places, [str(each) for each in depth.window.values])
    ax.set_title("(a) How often φ finds the moment")
    ax.legend(loc="lower right")


def draw_outcomes(ax: Axes, cause: xr.Dataset) -> None:
    shares = 100 * cause.share.mean("seed")
    places = range(len(shares))
    start = np.zeros(len(shares))
    for outcome, colour in zip(cause.outcome.values, (plot.BLUE, plot.ORANGE, plot.VERMILION, "#BBBBBB"), strict=True):
        width = shares.sel(outcome=outcome).to_numpy()
        ax.barh(places, width, left=start, color=colour, label=outcome)
        start += width
    ax.set_yticks(places, [fill(str(name), 32) for name in cause.name.to_numpy()], fontsize=7)
    ax.invert_yaxis()
    ax.set(xlabel="units (%)", xlim=(0, 100))
    ax.set_title(f"(b) When units spike, t_d = {cause.window.item()}", pad=22)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=4, fontsize=7.5, columnspacing=1, handlelength=1)


def draw_raster(ax: Axes, data: xr.Dataset) -> None:
    spikes, layer = data.spikes.to_numpy(), data.layer.to_numpy()
    last = int(layer.max())
    time, unit = np.nonzero(spikes)
    again = np.cumsum(spikes, 0)[time, unit] > 1
    in_time = time == last - layer[unit]
    groups = {
        "at L − l": (in_time, plot.BLUE),
        "first at another step": (~in_time & ~again, plot.VERMILION),
        "again": (~in_time & again, plot.ORANGE),
    }
    for label, (chosen, colour) in groups.items():
        if chosen.any():
            ax.scatter(time[chosen], unit[chosen], s=16, marker="|", linewidths=1.6, color=colour, label=label)
    for edge in np.flatnonzero(np.diff(layer)) + 0.5:
        ax.axhline(edge, color=plot.GREY, linewidth=0.4)
    middles = [float(np.flatnonzero(layer == number).mean()) for number in range(1, last + 1)]
    ax.set_yticks(middles, [str(number) for number in range(1, last + 1)])
    ax.set_xticks(range(0, len(spikes), 2))
    ax.set(xlabel="inference step t", ylabel=f"layer l ({np.bincount(layer).max()} units of each)")
    ax.set_xlim(-0.5, len(spikes) - 0.5)
    ax.legend(title=data.attrs["case"].partition(", T")[0], loc="upper right", frameon=True, framealpha=0.9)
