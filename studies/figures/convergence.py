"""The figures of the study of convergence: relaxation and precision, and the papers' own setting and energy."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neurodyn import plot


def draw(trajectory: xr.Dataset, sweep: xr.Dataset, precision: xr.Dataset) -> Figure:
    """Return the figure of the three panels."""
    figure, axes = plt.subplot_mosaic("ab;cc", figsize=(10, 8), height_ratios=(1.15, 1))
    draw_relaxation(axes["a"], trajectory)
    draw_sweep(axes["b"], sweep)
    draw_precision(axes["c"], precision)
    return figure


def draw_papers(papers: xr.Dataset, energies: xr.Dataset, *, step: float, iterations: int) -> Figure:
    """Return the figure of the papers' own setting, so many steps of a size, and of the energy."""
    figure, ((left, right), (below_left, below_right)) = plt.subplots(2, 2, figsize=(10, 7.5))
    colours = plt.colormaps["viridis"](np.linspace(0, 0.85, papers.sizes["layer"] - 1))
    for layer, colour in zip(papers.layer.values[:-1], colours, strict=True):
        for weights, style in (("first", "-o"), ("learned", "--s")):
            at = papers.angle.sel(layer=layer, weights=weights)
            left.plot(papers.iterations, at, style, markersize=3, color=colour, label=f"W{layer}, {weights} weights")
    left.set(yscale="log", ylim=(1e-4, 180), ylabel="angle to backprop's update (°)")
    left.set_title(f"(a) Updates after n steps of {step:g}")
    for order in papers.order.values:
        right.plot(papers.iterations, papers.factor.sel(order=order), "-o", markersize=3, label=f"k = {order}")
    right.set(yscale="log", ylim=(1e-10, 1), ylabel="C(n, k) (1 − h)ⁿ⁻ᵏ hᵏ")
    right.set_title(f"(b) What is left of the start, h = {step:g}")
    for ax in (left, right):
        ax.axvline(iterations, color=plot.GREY, linewidth=0.8, linestyle="--")
        ax.set_xlabel("iterations n (dashed: the papers')")
        ax.legend(fontsize=7)
    for weights, style in zip(energies.weights.values, ("-", "--", ":"), strict=True):
        at = energies.sel(weights=weights)
        below_left.plot(at.time, at.energy, style, color=plot.BLACK, label=f"{weights} weights")
        for layer, colour in zip(at.layer_above.values, colours, strict=True):
            label = f"through W{layer}, {weights}"
            below_right.plot(at.length, at.along.sel(layer_above=layer), style, color=colour, label=label)
    below_left.set(xlabel="time (τ)", ylabel="energy E, mean of the samples", title="(c) Energy while AR relaxes")
    below_right.set(xscale="log", xlabel="length r of x along v", ylabel="E / (r²/2)")
    below_right.set_title("(d) Far out, where it grows least")
    below_left.set_xlim(0, float(energies.time[-1]) / 2)
    below_left.set_yscale("symlog", linthresh=10)
    below_right.set_yscale("symlog", linthresh=2)
    for ax in (below_left, below_right):
        ax.axhline(0.0, color=plot.GREY, linewidth=0.8, linestyle=":")
        ax.legend(fontsize=7, loc="center right")
    return figure


def draw_relaxation(ax: Axes, trajectory: xr.Dataset) -> None:
    for layer in trajectory.layer.values:
        distance = trajectory.distance.sel(layer=layer)
        (line,) = ax.plot(trajectory.time, distance.mean("seed"), label=layer)
        ax.fill_between(trajectory.time, distance.min("seed"), distance.max("seed"), alpha=0.3, color=line.get_color())
    expected = trajectory.distance_expected.mean("seed")
    ax.plot(trajectory.time, expected.transpose("time", ...), ":", color="black")
    ax.set(yscale="log", xlabel="time (τ)", ylabel="mean squared distance to backprop")
    seeds = trajectory.sizes["seed"]
    drawn = f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
    ax.set_title(f"(a) Relaxation; {drawn}; dots: closed form")
    ax.legend()


def draw_sweep(ax: Axes, sweep: xr.Dataset) -> None:
    farthest, layers = sweep.distance.max("layer"), sweep.sizes["layer"]
    shades = plt.colormaps["viridis"](np.linspace(0, 0.95, sweep.sizes["step"]))
    for step, colour in zip(sweep.step.values, shades, strict=True):
        look = {"color": plot.VERMILION, "linewidth": 2.5} if step == 1 else {"color": colour}
        ax.plot(sweep.iteration, farthest.sel(step=step), label=f"{step:g}", **look)
    ax.axvline(layers, color=plot.GREY, linewidth=0.8, linestyle="--")
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(0, int(sweep.iteration[-1]))
    ax.set(yscale="log", ylim=(1e-36, 1e12), xlabel="iteration", ylabel="mean squared distance, farthest layer")
    ticks = sorted({0, 1, layers, 100})
    ax.set_xticks(ticks, map(str, ticks))
    ax.set_title(f"(b) Euler's method: exact after {layers} steps of 1")
    ax.legend(title="step h (τ)", loc="lower left")


def draw_precision(ax: Axes, precision: xr.Dataset) -> None:
    colours = {"Euler": plot.BLACK, "Heun": plot.GREY, "RK4": plot.PURPLE, "Stabilized": plot.SKY}
    colours |= {"heun_euler": plot.ORANGE, "adaptive_heun": plot.ORANGE, "bosh3": plot.GREEN}
    colours |= {"dopri5": plot.BLUE, "tsit5": plot.VERMILION}
    looks = {"": "s--", "Adaptive": "o-", "torchdiffeq": "o:"}
    for name in dict.fromkeys(precision.solver.values):
        runs = precision.sel(solver=name)
        family, _, method = name.rpartition(" ")
        face = "white" if family == "torchdiffeq" else None
        ax.plot(
            runs.evaluations, runs.error, looks[family], color=colours[method], markerfacecolor=face, ms=4, label=name
        )
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="vector-field evaluations", ylabel=f"{precision.error.attrs['long_name']} τ, worst layer")
    ax.set_title("(c) What precision costs")
    ax.legend(loc="lower left")
