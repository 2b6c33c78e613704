"""The figures of the study of weak feedback: the circuit's equilibrium and relaxation, and where it is stable."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common.weak_circuit import RULES, WEIGHTS, shares
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from neurodyn import plot

SHOWN = (1e-6, 1e-3, 1e-2, 0.1)
"""Of which relaxation is drawn."""
COLOURS = dict(zip(product(WEIGHTS, RULES), (plot.ORANGE, plot.VERMILION, plot.SKY, plot.BLUE), strict=True))


def draw_circuits(found: xr.Dataset, *, gamma: float, weak: float, settled: float) -> Figure:
    """Return the figure of equilibria and relaxation.

    Parameters
    ----------
    found
        What the study measured.
    gamma
        At which the layers' relaxation is drawn.
    weak
        The largest γ whose equilibrium is compared with the targets.
    settled
        How close to the equilibrium the relaxation time ends.
    """
    figure = plt.figure(figsize=(11, 7))
    axes = figure.subplot_mosaic("abc;def")
    draw_layers(axes["a"], found, gamma)
    draw_gammas(axes["b"], found)
    near = found.sel(gamma=found.gamma <= weak)
    distance = near.distance.max("layer").median("seed")
    time = found.relaxation_time.median("seed")
    abscissa = found.abscissa.median(["seed", "sample"])
    share = shares(found.abscissa, ["seed", "sample"])
    for (weights, rule), colour in COLOURS.items():
        look: dict[str, Any] = {"color": colour, "label": f"{RULES[rule]}, {WEIGHTS[weights]}", "markersize": 4}
        marker = "o-" if rule == "itp" else "s--"
        at = {"weights": weights, "rule": rule}
        axes["c"].plot(near.gamma, distance.sel(at), marker, **look)
        axes["d"].plot(found.gamma, time.sel(at), marker, **look)
        axes["e"].plot(found.gamma, abscissa.sel(at), marker, **look)
        axes["f"].plot(found.gamma, 100 * share["stable"].sel(at), marker, **look)
        lost = 100 * share["not found"].sel(at)
        axes["f"].fill_between(found.gamma, 100 - lost, 100, color=colour, alpha=0.15, linewidth=0)
    small = found.gamma.where(found.gamma <= 0.3, drop=True)
    axes["c"].plot(small, (found.sizes["layer"] - 1) * small, ":", color=plot.BLACK, label="(L − 1) γ")
    axes["e"].plot(found.gamma, found.expected, ":", color=plot.BLACK, label="linear circuit, ITP")
    axes["e"].axhline(0, color=plot.GREY, linewidth=0.6)
    axes["c"].set(yscale="log", xscale="log", ylabel="relative distance from the targets")
    axes["d"].set(yscale="log", ylabel=f"time to {settled:g} of the equilibrium (τ)")
    axes["e"].set(ylabel="spectral abscissa, median (1/τ)")
    axes["f"].set(ylabel="samples (%)", ylim=(-4, 104))
    for letter, title in {
        "c": "(c) Equilibrium and targets, farthest layer",
        "d": "(d) Relaxation, slowest layer",
        "e": "(e) Linearised at the equilibrium",
        "f": "(f) Stable; shaded: none found",
    }.items():
        axes[letter].set(xlabel="feedback strength γ", title=title)
    for letter in "ce":
        axes[letter].legend(fontsize=7, loc="upper left")
    return figure


def draw_layers(ax: Axes, found: xr.Dataset, gamma: float) -> None:
    at = found.remaining.sel(weights="xavier", rule="itp", gamma=gamma).isel(seed=0)
    colours = plt.colormaps["viridis"](np.linspace(0, 0.9, found.sizes["layer"]))
    for layer, colour in zip(found.layer.values, colours, strict=True):
        ax.plot(found.time, at.sel(layer=layer), color=colour, label=layer)
    ax.set(yscale="log", xlim=(0, 30), ylim=(1e-6, 3), xlabel="time (τ)", ylabel="distance from equilibrium (relative)")
    ax.set_title(f"(a) Relaxation at γ = {gamma:g}, ITP, random")
    ax.legend(title="layer", fontsize=8)


def draw_gammas(ax: Axes, found: xr.Dataset) -> None:
    at = found.remaining.sel(weights="orthogonal", rule="itp").isel(seed=0, layer=0)
    colours = plt.colormaps["viridis"](np.linspace(0, 0.9, len(SHOWN)))
    for gamma, colour in zip(SHOWN, colours, strict=True):
        ax.plot(found.time, at.sel(gamma=gamma), color=colour, label=f"{gamma:g}")
    ax.set(yscale="log", xlim=(0, 30), ylim=(1e-6, 3), xlabel="time (τ)", ylabel="distance from equilibrium (relative)")
    ax.set_title("(b) Layer 1 for several γ, ITP, orthogonal")
    ax.legend(title="γ", fontsize=8)


def draw_phases(diagrams: xr.Dataset, labels: Mapping[str, str]) -> Figure:
    """Draw the median abscissa as colour, and as text the share that is stable and, in brackets, not found.

    Parameters
    ----------
    diagrams
        Of each variable that is varied beside γ.
    labels
        Of those variables.
    """
    columns = {"linear": "linear, ITP (formula)", "itp": "ITP", "gait": "GAIT-prop"}
    figure, grid = plt.subplots(len(labels), len(columns), figsize=(11.5, 7.5))
    look: dict[str, Any] = {"norm": SymLogNorm(0.1, vmin=-3, vmax=3), "cmap": "PuOr_r", "aspect": "auto"}
    for row, (axis, label) in zip(grid, labels.items(), strict=True):
        for ax, (column, title) in zip(row, columns.items(), strict=True):
            growth = diagrams[f"{axis}_{column}"]
            if column == "linear":
                median = growth
                text = [[f"{value:.2f}" for value in line] for line in growth.values]
            else:
                median, share = growth.median("row"), shares(growth, ["row"])
                text = [
                    [
                        f"{100 * good:.0f}" + (f"\n({100 * lost:.0f})" if lost else "")
                        for good, lost in zip(*line, strict=True)
                    ]
                    for line in zip(share["stable"].values, share["not found"].values, strict=True)
                ]
            image = ax.imshow(median, **look)
            for (y, x), value in np.ndenumerate(median.values):
                dark = abs(value) > 0.35
                ax.text(x, y, text[y][x], ha="center", va="center", fontsize=7, color="white" if dark else "black")
            ax.set_xticks(range(diagrams.sizes["gamma"]), [f"{gamma:g}" for gamma in diagrams.gamma.values])
            ax.set_yticks(range(diagrams.sizes[axis]), [f"{value:g}" for value in diagrams[axis].values])
            if axis == "condition":
                ax.set_xlabel("feedback strength γ")
            if column == "linear":
                ax.set_ylabel(label)
            if axis == "depth":
                ax.set_title(title + ("" if column == "linear" else ": % stable (not found)"))
            for spine in ax.spines.values():
                spine.set_visible(False)
    bar = figure.colorbar(image, ax=grid.ravel().tolist(), label="spectral abscissa at the equilibrium, median (1/τ)")
    bar.set_ticks([-1, -0.3, 0, 0.3, 1, 3], labels=["−1", "−0.3", "0", "0.3", "1", "3"])
    return figure
