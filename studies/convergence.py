"""Activation relaxation converges to the gradients of backprop.

(a) A multilayer perceptron's activities relax, and their distance to the gradients falls as the closed form says.
(b) The same by Euler's method with steps from 0.01 to 2.05: a step of 1 is exact after as many iterations as there are
layers, and a step above 2 diverges. (c) What each solver pays for its precision.

After figure 1 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain" (2020).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common.options import ActivationName, DataOptions, parse
from common.report import write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar

BATCH = 64
DURATION = 20.0
"""Of the recorded relaxation, in time constants."""
KEPT_SAMPLES = 4
"""How many samples of the batch are written; distances are over all of them."""
STEPS = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 1.9, 2.05)
ITERATIONS = 200
PRECISION_AT = 10.0
"""The time at which the solvers' errors are measured."""
DEMANDED = 1e-6
"""The error for which the table tells the cost."""


@dataclass(frozen=True)
class Options(DataOptions):
    """What to run; a seed draws weights and a batch of 64 samples, and the sweep of steps and solvers takes the first.

    Parameters
    ----------
    layers
        The units of the hidden layers; the data give those of the input and the output.
    activation
        The hidden units' nonlinearity.
    """

    out: Path = Path("results/convergence")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    layers: tuple[int, ...] = (300, 300, 100)
    activation: ActivationName = "tanh"


PAPER = Options(full=True, dataset="mnist", activation="relu")


@dataclass(frozen=True)
class Case:
    """A network, a batch in float64, and the gradients that it should find."""

    network: nd.Network
    inputs: Tensor
    targets: Tensor
    gradients: xr.Dataset

    @classmethod
    def draw(cls, options: Options, seed: int) -> Case:
        train, _ = options.load()
        batch = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:BATCH]
        inputs, targets = (part.to(options.device, torch.float64) for part in train[batch])
        sizes = [inputs.shape[1], *options.layers, targets.shape[1]]
        module = nd.mlp(sizes, activation=options.activation, seed=seed, device=options.device, dtype=torch.float64)
        # The output relaxes too, as in the paper's eq. 2, so that all L layers do.
        network = ar.network(module, output="relaxing")
        return cls(network, inputs, targets, nd.analysis.backprop(network, inputs, targets))

    def simulate(self, duration: float, solver: nd.Solver, save_at: int | Sequence[float] | None = None) -> xr.Dataset:
        """Return the trajectory of the layers' populations."""
        return nd.simulate(
            self.network,
            self.inputs,
            self.targets,
            duration=duration,
            solver=solver,
            save_at=save_at,
            record=[str(name) for name in self.gradients.data_vars],
        )


def by_layer(distances: xr.Dataset) -> xr.DataArray:
    """Stack one variable a layer along a dimension `layer`."""
    return distances.to_dataarray("layer").assign_attrs(
        units="1", long_name="mean squared distance to the backprop gradients"
    )


def relax(case: Case) -> xr.Dataset:
    """Record the relaxation of a few samples, and the distance to the gradients over all of them."""
    trajectory = case.simulate(DURATION, nd.Adaptive("dopri5", rtol=1e-8, atol=1e-10), save_at=101)
    closed_form = case.simulate(DURATION, nd.Exact(), save_at=101)
    return trajectory.isel(sample=slice(KEPT_SAMPLES)).assign(
        distance=by_layer(nd.analysis.squared_distance(trajectory, case.gradients)),
        distance_expected=by_layer(nd.analysis.squared_distance(closed_form, case.gradients)).assign_attrs(
            long_name="the same in closed form"
        ),
    )


def iterate(case: Case, step: float) -> xr.Dataset:
    """Return the distance to the gradients after each iteration of Euler's method."""
    with warnings.catch_warnings():
        # This study goes beyond the stability limit on purpose.
        warnings.filterwarnings("ignore", message=".*beyond the stability limit")
        trajectory = case.simulate(ITERATIONS * step, nd.Euler(step))
    distance = by_layer(nd.analysis.squared_distance(trajectory, case.gradients)).rename(time="iteration")
    iteration = ("iteration", np.arange(ITERATIONS + 1), {"units": "1", "long_name": "iteration"})
    return xr.Dataset({"distance": distance.assign_coords(iteration=iteration)})


def solvers() -> list[tuple[str, nd.Solver]]:
    """Return every solver of neurodyn and three of torchdiffeq, each at several steps or tolerances."""

    def tolerances(digits: int) -> list[float]:
        return [10.0**-n for n in range(2, digits + 1)]

    steps = [1.0, 0.5, 0.2, 0.1, 0.05, 0.02]
    families: dict[str, tuple[Callable[[float], nd.Solver], list[float]]] = {
        "Euler": (nd.Euler, steps),
        "Heun": (nd.Heun, steps),
        "RK4": (nd.RK4, steps),
        "Adaptive heun_euler": (lambda tol: nd.Adaptive("heun_euler", tol, tol), tolerances(6)),
        "Adaptive bosh3": (lambda tol: nd.Adaptive("bosh3", tol, tol), tolerances(9)),
        "Adaptive dopri5": (lambda tol: nd.Adaptive("dopri5", tol, tol), tolerances(12)),
        "Adaptive tsit5": (lambda tol: nd.Adaptive("tsit5", tol, tol), tolerances(12)),
        "Stabilized": (lambda tol: nd.Stabilized(tol, tol), tolerances(8)),
        "torchdiffeq adaptive_heun": (lambda tol: nd.TorchDiffEq("adaptive_heun", tol, tol), tolerances(6)),
        "torchdiffeq bosh3": (lambda tol: nd.TorchDiffEq("bosh3", tol, tol), tolerances(9)),
        "torchdiffeq dopri5": (lambda tol: nd.TorchDiffEq("dopri5", tol, tol), tolerances(12)),
    }
    return [(name, make(setting)) for name, (make, settings) in families.items() for setting in settings]


def measure(case: Case, solver: nd.Solver, truth: xr.Dataset) -> xr.Dataset:
    """Return what a solver costs, and its error, the root mean square in the layer where that is largest."""
    end = case.simulate(PRECISION_AT, solver, save_at=[PRECISION_AT]).isel(time=-1)
    error = float(by_layer(nd.analysis.squared_distance(end, truth)).max()) ** 0.5
    return xr.Dataset(
        {
            "error": ((), error, {"units": "1", "long_name": f"RMS error at t = {PRECISION_AT:g}"}),
            "evaluations": ((), end.attrs["evaluations"], {"units": "1", "long_name": "vector-field evaluations"}),
            "setting": ((), end.attrs["solver"]),
        }
    )


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    runs = solvers()
    with options.progress(total=len(options.seeds) + len(STEPS) + len(runs), unit="run") as bar:

        def done(result: xr.Dataset) -> xr.Dataset:
            bar.update()
            return result

        cases = [Case.draw(options, seed) for seed in options.seeds]
        seeds = xr.Variable("seed", list(options.seeds))
        trajectory = xr.concat([done(relax(case)) for case in cases], seeds, combine_attrs="drop_conflicts")
        case = cases[0]
        steps = xr.Variable("step", list(STEPS), {"units": "tau", "long_name": "Euler step"})
        sweep = xr.concat([done(iterate(case, step)) for step in STEPS], steps)
        truth = case.simulate(PRECISION_AT, nd.Exact(), save_at=[PRECISION_AT]).isel(time=-1)
        names = xr.Variable("solver", [name for name, _ in runs])
        precision = xr.concat([done(measure(case, solver, truth)) for _, solver in runs], names)

    sizes = [case.inputs.shape[1], *options.layers, case.targets.shape[1]]
    about = {"dataset": options.dataset, "layers": "-".join(map(str, sizes)), "activation": options.activation}
    results = {"trajectory": trajectory, "sweep": sweep, "work_precision": precision}
    results = {name: data.assign_attrs(about) for name, data in results.items()}
    with plot.style():
        files = write(options.out, {"convergence": draw(*results.values())}, results, about)
    print(summary(*results.values()), files, sep="\n")


def draw(trajectory: xr.Dataset, sweep: xr.Dataset, precision: xr.Dataset) -> Figure:
    """Return the figure of the three panels."""
    figure, axes = plt.subplot_mosaic("ab;cc", figsize=(10, 8), height_ratios=(1.15, 1))
    draw_relaxation(axes["a"], trajectory)
    draw_sweep(axes["b"], sweep)
    draw_precision(axes["c"], precision)
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
    ax.set_title(
        f"(a) The activities relax to the gradients of backprop.\nMean and range of {seeds} seeds; dots: closed form"
    )
    ax.legend()


def draw_sweep(ax: Axes, sweep: xr.Dataset) -> None:
    farthest, layers = sweep.distance.max("layer"), sweep.sizes["layer"]
    colours = dict(zip(STEPS, plt.colormaps["viridis"](np.linspace(0, 0.95, len(STEPS))), strict=True))
    for step, colour in colours.items():
        look = {"color": plot.VERMILION, "linewidth": 2.5} if step == 1 else {"color": colour}
        ax.plot(sweep.iteration, farthest.sel(step=step), label=f"{step:g}", **look)
    ax.axvline(layers, color=plot.GREY, linewidth=0.8, linestyle="--")
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(0, ITERATIONS)
    ax.set(yscale="log", ylim=(1e-36, 1e12), xlabel="iteration", ylabel="mean squared distance, farthest layer")
    ticks = sorted({0, 1, layers, 100})
    ax.set_xticks(ticks, map(str, ticks))
    ax.set_title(
        f"(b) Euler's method is exact after {layers} iterations at h = 1,\n"
        "and stable for h < 2: a step multiplies by (1 − h) + hN,\n"
        f"for a leak (eigenvalues −1) and a coupling N with N{superscript(layers)} = 0"
    )
    ax.legend(title="step h (τ)", loc="lower left")


def superscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


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
    ax.set(xlabel="vector-field evaluations", ylabel=f"RMS error at t = {PRECISION_AT:g} τ, worst layer")
    ax.set_title("(c) What precision costs: solvers at several steps or tolerances, against the closed form")
    ax.legend(loc="lower left")


def summary(trajectory: xr.Dataset, sweep: xr.Dataset, precision: xr.Dataset) -> str:
    """Return the tables that are printed."""
    about = sweep.attrs
    seeds, layers = trajectory.sizes["seed"], sweep.sizes["layer"]
    distance = trajectory.distance.mean("seed").sel(time=[0, DURATION / 2, DURATION], method="nearest")
    iterates = sweep.distance.max("layer").sel(iteration=[0, layers - 1, layers, ITERATIONS])
    growing = iterates.step[iterates.isel(iteration=-1) > iterates.isel(iteration=0)].values
    reached = precision.where(precision.error <= DEMANDED, drop=True).evaluations.groupby("solver").min()
    cost = reached.astype(int).to_series().sort_values()
    number = "{:.1e}".format
    return f"""\
Activation relaxation on {about["dataset"]}, layers {about["layers"]}, {about["activation"]}, float64

Mean squared distance to the backprop gradients, mean of {seeds} seeds, at three times:
{distance.to_pandas().to_string(float_format=number)}

The same for Euler's method, farthest layer, first seed, after some iterations:
{iterates.to_pandas().to_string(float_format=number)}
Steps that end farther than they began: {", ".join(f"{step:g}" for step in growing)}

Vector-field evaluations of the cheapest run with an RMS error of at most {DEMANDED:g} at t = {PRECISION_AT:g}:
{cost.to_string()}
"""


if __name__ == "__main__":
    torch.set_num_threads(1)  # a batch of 64 gains little from more, and they wait for each other on a busy machine
    main(parse(PAPER, __doc__))
