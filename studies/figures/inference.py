"""The figures of the study of inference: steps that settle, the flow that they sample, and errors that lag."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from neurodyn import plot


def numbered(data: xr.Dataset, prefix: str) -> dict[float, xr.DataArray]:
    """Return the variables whose name is a prefix and a number, by that number."""
    names = [str(name) for name in data.data_vars if str(name).startswith(prefix)]
    return {float(name.removeprefix(prefix)): data[name] for name in names}


def draw_inference(energy: xr.Dataset, steps: xr.Dataset) -> Figure:
    figure = plt.figure(figsize=(12, 3.9))
    left, centre, right = figure.subplots(1, 3)
    runs = numbered(energy, "euler_")
    shades = plt.colormaps["viridis"](np.linspace(0, 0.95, len(runs)))
    for (gamma, run), shade in zip(runs.items(), shades, strict=True):
        marker = "" if gamma < 0.2 else "o"
        left.plot(run[f"time_{gamma:g}"], run, marker=marker, markersize=3, color=shade, label=f"{gamma:g}")
    left.plot(energy.time, energy.flow, ":", color=plot.BLACK, label="flow")
    top = 100 * energy.flow[0].item()
    left.set(yscale="log", ylim=(0.7 * energy.flow.min().item(), top), xlabel="time nγ (τ)", ylabel="energy F, mean")
    left.set_title("(a) Energy in time")
    left.legend(title="step γ", ncols=2, fontsize=8)

    colours = dict(zip(dict.fromkeys(steps.network.to_numpy()), (plot.BLUE, plot.VERMILION, plot.GREEN), strict=False))
    for network in range(steps.sizes["network"]):
        part = steps.isel(network=network)
        first = part.weights.item() == "first"
        colour, marker, fill_style = colours[part.network.item()], "o" if first else "^", "full" if first else "none"
        label = f"{part.network.item()}, {part.weights.item()} weights"
        centre.plot(part.gamma, part.excess.mean("sample"), "-" if first else "--", color=colour)
        centre.plot(part.bound.min(), 1e-8, marker, color=colour, fillstyle=fill_style, markersize=5)
        right.plot(part.bound, part.measured, marker, color=colour, fillstyle=fill_style, markersize=4, label=label)
    centre.set(xscale="log", yscale="log", ylim=(3e-9, 1e3), xlim=(0.05, 3), xlabel="step γ (τ)")
    centre.set_ylabel(f"(F − F*) / (F(0) − F*) after {steps.attrs['iterations']} steps, mean")
    centre.set_title("(b) Where Euler ceases to settle (dashed: learned)\nmarks: smallest 2/λ_max of the samples")
    limits = [0.95 * steps.bound.min().item(), 1.05 * steps.bound.max().item()]
    right.plot(limits, limits, color=plot.GREY, linewidth=0.8)
    right.set(xscale="log", yscale="log", xlabel="2/λ_max (τ)", ylabel="smallest γ that does not settle (τ)")
    for axis in (centre.xaxis, right.xaxis, right.yaxis):
        axis.set_major_locator(FixedLocator([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2]))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    right.set_title(f"(c) Sample by sample, {steps.sizes['sample']} a network")
    right.legend(fontsize=7.5)
    return figure


def draw_continuous(continuous: xr.Dataset, lags: xr.Dataset) -> Figure:
    figure = plt.figure(figsize=(12, 7))
    axes = figure.subplots(2, 3)
    draw_flow(axes[0, 0], axes[0, 1], continuous)
    draw_lags(axes[0, 2], lags)
    draw_spectrum(axes[1, 0], axes[1, 1], lags)
    draw_disturbances(axes[1, 2], lags)
    return figure


def draw_flow(left: Axes, right: Axes, continuous: xr.Dataset) -> None:
    left.plot(continuous.time, continuous.flow, color=plot.BLACK, label="flow")
    runs = numbered(continuous, "euler_")
    for step, colour, marker in zip((0.05, 0.1, 0.2), (plot.BLUE, plot.GREEN, plot.VERMILION), "o^s", strict=True):
        run = runs[step]
        left.plot(run[f"time_{step:g}"], run, marker, markersize=3.5, color=colour, label=f"γ = {step:g}", alpha=0.8)
    left.set(xlabel="time (τ)", ylabel="value x₁ of one unit", xlim=(-0.1, 6))
    left.set_title("(a) Euler's iterates sample the flow")
    left.legend()
    right.loglog(continuous.step, continuous.distance, "o-")
    small = continuous.isel(step=-1)
    right.loglog(continuous.step, small.distance / small.step * continuous.step, ":", color=plot.GREY, label="∝ γ")
    right.set(xlabel="step γ (τ)", ylabel="largest distance from the flow")
    right.set_title("(b) … the better, the smaller γ")
    right.legend()


def draw_lags(ax: Axes, lags: xr.Dataset) -> None:
    part = lags.sel(weights="first")
    for error_tau, value in numbered(part, "value_").items():
        ax.plot(part.time, value, label=f"{error_tau:g}", linewidth=1.2)
    ax.set(xlabel="time (τ)", ylabel="value x₁ of one unit")
    ax.set_title("(c) Error units that lag")
    ax.legend(title="τ_ε (τ)")


def draw_spectrum(left: Axes, right: Axes, lags: xr.Dataset) -> None:
    for weights, colour in zip(lags.weights.values, (plot.BLUE, plot.VERMILION), strict=True):
        part = lags.sel(weights=weights)
        for ax, values in ((left, part.growth), (right, part.frequency)):
            ax.plot(part.tau, values.mean("sample"), color=colour, label=f"{weights} weights")
            ax.fill_between(part.tau, values.min("sample"), values.max("sample"), color=colour, alpha=0.25, linewidth=0)
        left.axvline(part.critical.median(), color=colour, linestyle=":", linewidth=1)
        right.axvline(part.oscillation.median(), color=colour, linestyle=":", linewidth=1)
    left.axhline(0, color=plot.GREY, linewidth=0.6)
    left.set(xscale="log", xlabel="time constant of the errors τ_ε (τ)", ylabel="largest Re λ (1/τ)")
    left.set_title("(d) Growth rate; dotted: median critical τ_ε")
    left.legend()
    right.set(xscale="log", xlabel="time constant of the errors τ_ε (τ)", ylabel="largest Im λ (1/τ)")
    right.set_title("(e) Frequency; dotted: 1/(4σ²_max)")


def draw_disturbances(ax: Axes, lags: xr.Dataset) -> None:
    part = lags.sel(weights="first")
    for factor in part.factor.values:
        at = part.sel(factor=factor)
        (line,) = ax.semilogy(at.moment, at.distance_from_rest, linewidth=0.9, label=f"{factor:g}")
        expected = at.distance_from_rest[0] * np.exp(at.predicted * at.moment)
        ax.semilogy(at.moment, expected, "--", color=line.get_color(), linewidth=1.2)
    ax.set(xlabel="time (τ)", ylabel="distance from equilibrium")
    ax.set_title("(f) A disturbance; dashed: exp(Re λ t)")
    ax.legend(title="τ_ε / critical")
