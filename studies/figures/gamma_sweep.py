"""The figures of the study of γ: divergence from backprop by step and moment of learning."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common.learning_curves import plus_minus, statistics
from common.report import short
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from neurodyn import plot


def draw_training(training: xr.Dataset) -> Figure:
    layers = training.hidden.to_numpy()
    figure = plt.figure(figsize=(4 * len(layers) + 1, 7))
    axes = figure.subplots(2, len(layers), squeeze=False)
    names = {"test_error": "test error: |difference|\n(percentage points)", "weights": "final weights: Σ ‖θ − θ_BP‖"}
    for row, (name, title) in zip(axes, names.items(), strict=True):
        values = training[name].mean("seed", skipna=False)
        positive = values.where(values > 1e-6)
        norm = LogNorm(positive.min().item(), positive.max().item())
        for ax, hidden in zip(row, layers, strict=True):
            draw_cells(ax, training[name].sel(hidden=hidden), training.diverged.sel(hidden=hidden), norm)
            moved = short(training.backprop_moved.sel(hidden=hidden).mean().item())
            error = plus_minus(training.backprop_test_error.sel(hidden=hidden).isel(epoch=-1))
            own = f"moved {moved}" if name == "weights" else f"ends at {error} %"
            ax.set_title(f"{hidden} hidden; backprop itself {own}")
            ax.set(xlabel="integration step γ", ylabel="update at t" if ax is row[0] else "")
        image = plt.cm.ScalarMappable(norm, "cividis")
        bar = figure.colorbar(image, ax=list(row), label=title, pad=0.01)
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if name == "weights" else (1.0, 2.0, 5.0)))
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_formatter("")
    return figure


def draw_cells(ax: Axes, values: xr.DataArray, diverged: xr.DataArray, norm: LogNorm) -> None:
    mean, errors = (each.transpose("time", "gamma").to_numpy() for each in statistics(values))
    shown = np.where(diverged.any("seed").transpose("time", "gamma"), np.nan, mean)
    failed = diverged.sum("seed").transpose("time", "gamma").to_numpy()
    seeds = diverged.sizes["seed"]
    low, high = norm.vmin or 0.0, norm.vmax or 1.0
    ax.imshow(np.maximum(shown, low), norm=norm, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        number = failed[row, column]
        text = f"✗ {number}/{seeds}" if number else "0" if value < 1e-6 else short(value)
        if not number and value >= 1e-6 and seeds > 1:
            text += f"\n±{short(float(errors[row, column]))}"
        dark = not number and value < np.sqrt(low * high)
        ax.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
    ax.set_xticks(range(values.sizes["gamma"]), [f"{gamma:g}" for gamma in values.gamma.values])
    ax.set_yticks(range(values.sizes["time"]), values.time.values)
    ax.set_facecolor("#DDDDDD")


def draw_near(close: xr.Dataset, factors: xr.DataArray, training: xr.Dataset) -> Figure:
    """Draw the divergence close to γ = 1, the factor on each layer's update, and which trainings diverge."""
    figure = plt.figure(figsize=(12, 4))
    left, centre, right = figure.subplots(1, 3)
    away = abs(close.gamma - 1)
    for hidden, colour in zip(close.hidden.values, (plot.BLUE, plot.VERMILION, plot.GREEN), strict=False):
        for side, style in ((close.gamma < 1, "o-"), (close.gamma > 1, "s--")):
            mean, error = statistics(close.weights.sel(hidden=hidden).where(side, drop=True))
            label = f"{hidden} hidden, γ {'<' if style == 'o-' else '>'} 1"
            left.errorbar(away.where(side, drop=True), mean, error, fmt=style, ms=4, color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel="|γ − 1|", ylabel="final weights: Σ ‖θ − θ_BP‖")
    left.set_title("(a) Close to γ = 1, t = l")
    left.legend(fontsize=7)
    for above in factors.above.values:
        (line,) = centre.plot(factors.gamma, factors.sel(above=above), "o", markersize=4, label=f"L − l = {above}")
        centre.plot(factors.gamma, factors.gamma ** float(above), ":", color=line.get_color())
    centre.set(xscale="log", yscale="log", xlabel="integration step γ (τ)", ylabel="|ΔW_l| / |ΔW_l of backprop|")
    centre.set_title("(b) Each layer's update; dotted: γ^(L−l)")
    centre.legend(fontsize=8)
    lost = (training.diverged.mean("seed") > 0).sum("hidden").transpose("time", "gamma")
    right.imshow(lost, cmap="Greys", vmin=0, vmax=2 * training.sizes["hidden"], aspect="auto")
    for row, column in np.ndindex(lost.shape):
        at = training.diverged.isel(time=row, gamma=column).any("seed")
        deep = " ".join(str(hidden) for hidden in training.hidden.values[at.to_numpy()])
        right.text(column, row, deep, ha="center", va="center", fontsize=7.5)
    right.set_xticks(range(training.sizes["gamma"]), [f"{gamma:g}" for gamma in training.gamma.values])
    right.set_yticks(range(training.sizes["time"]), training.time.values)
    right.set(xlabel="integration step γ (τ)", ylabel="update at t", title="(c) Numbers of hidden layers that diverge")
    return figure
