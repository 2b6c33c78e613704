"""Activation relaxation on computation graphs: a residual network, an LSTM unrolled in time, and a transformer.

Every differentiable value of the module's graph is a population, every edge a feedback coupling, and all relax in
parallel to what `torch.autograd` gives. (a–c) How each node's relative distance to its gradient falls in time, by the
node's depth, the longest path from it to the output. (d) How many iterations of Euler's method bring every node to
within 10⁻³ of its gradient, by the depth of the graph, which is that of its deepest node, and (e) in units of what is
predicted from that depth L alone, for a chain of couplings by 1: after n iterations of a step h, what is left is the
probability that fewer than L of n draws hit, each with probability h. With a step of 1, no graph takes more than L.

After appendix A of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain" (2020), which derives it for directed acyclic graphs and names these
architectures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from common.claims import AR, Row, holds, write_rows
from common.options import DataOptions, parse
from common.report import number_of, table, write
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from scipy.stats import nbinom
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import activation_relaxation as ar

SAMPLES = 16
TOLERANCE = 1e-3
EXACT = 1e-10
"""A relative distance of gradients in float64 that is rounding."""
STEPS = (0.1, 0.5, 1.0)
SAVED = 201
TRIED = 33
"""How many numbers of iterations are looked at before their range is narrowed."""


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a connection that skips them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.GroupNorm(2, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(self.conv1(x)).relu()
        return (x + self.norm2(self.conv2(h))).relu()


class ResNet(nn.Module):
    """A convolution, residual blocks, and a readout of the mean over the image."""

    def __init__(self, shape: tuple[int, ...], classes: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape[0], 4, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(4) for _ in range(blocks)))
        self.readout = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.blocks(self.stem(x)).mean((2, 3)))


class LSTM(nn.Module):
    """An LSTM cell that reads an image in equal parts, one after the other, and a readout at the end."""

    def __init__(self, shape: tuple[int, ...], classes: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.cell = nn.LSTMCell(prod(shape) // steps, 16)
        self.readout = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for part in x.flatten(1).unflatten(1, (self.steps, -1)).unbind(1):
            state = self.cell(part, state)
        assert state is not None, "at least one step"
        return self.readout(state[0])


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each after a normalisation and beside a connection that skips it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(samples, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v)
        x = x + self.mix(heads.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


class Transformer(nn.Module):
    """Transformer blocks over the rows of an image, and a readout of their mean."""

    def __init__(self, shape: tuple[int, ...], classes: int, blocks: int) -> None:
        super().__init__()
        channels, rows, columns = shape
        self.embed = nn.Linear(channels * columns, 16)
        self.places = nn.Parameter(0.1 * torch.randn(rows, 16))
        self.blocks = nn.Sequential(*(TransformerBlock(16) for _ in range(blocks)))
        self.readout = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)
        return self.readout(self.blocks(self.embed(rows) + self.places).mean(1))


Build = Callable[[tuple[int, ...], int, int], nn.Module]
ARCHITECTURES: Mapping[str, tuple[Build, str]] = {
    "ResNet": (ResNet, "blocks"),
    "LSTM": (LSTM, "time steps"),
    "transformer": (Transformer, "blocks"),
}
"""How each is built, and what its size counts."""


@dataclass(frozen=True)
class Options(DataOptions):
    """What to run; of several seeds, the largest distances count.

    Parameters
    ----------
    sizes
        For (d): how many residual blocks, time steps and transformer blocks the networks have; the number of pixels
        must be a multiple of each.
    blocks
        For (a) and (c): the residual blocks and the transformer blocks.
    steps
        For (b): the time steps of the LSTM.
    """

    once = ("sizes",)

    out: Path = Path("results/graphs")
    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 1
    steps: int = 4


PAPER = Options(full=True, dataset="mnist", sizes=(1, 2, 4, 8, 16))
"""A larger setting; the paper gives none."""


class Case:
    """A network of an architecture, a batch in float64, and the gradients that its nodes should find."""

    def __init__(self, options: Options, architecture: str, size: int, seed: int) -> None:
        train, _ = options.load(flatten=False)
        batch = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
        self.inputs, self.targets = (part.to(options.device, torch.float64) for part in train[batch])
        shape, pixels = tuple(self.inputs.shape[1:]), prod(self.inputs.shape[1:])
        build, unit = ARCHITECTURES[architecture]
        if architecture == "LSTM" and pixels % size:
            raise ValueError(f"sizes, steps: an image of {pixels} values has no {size} equal parts for {size} {unit}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = build(shape, self.targets.shape[1], size).to(options.device, torch.float64)
        self.architecture, self.size, self.unit = architecture, size, unit
        self.network = ar.graph(self.module, self.inputs)
        self.gradients = nd.analysis.backprop(self.network, self.inputs, self.targets)
        self.depths = depths(self.network)
        self.depth = max(self.depths.values())

    def __str__(self) -> str:
        return f"{self.architecture}, {self.size} {self.unit if self.size > 1 else self.unit.removesuffix('s')}"

    def distance(self, duration: float, solver: nd.Solver, save_at: int | np.ndarray) -> xr.DataArray:
        """Return each node's distance to its gradient in units of the gradient, root mean squares over all samples.

        Nodes whose gradient is 0, such as what a first cell state of 0 multiplies, have none.
        """
        trajectory = nd.simulate(
            self.network,
            self.inputs,
            self.targets,
            duration=duration,
            solver=solver,
            save_at=save_at,
            record=[str(name) for name in self.gradients.data_vars],
        )
        squares = (self.gradients**2).mean()
        ratios = nd.analysis.squared_distance(trajectory, self.gradients) / squares
        ratios = ratios[[name for name, square in squares.data_vars.items() if square > 0]]
        attributes = {"units": "1", "long_name": "relative distance to the gradient of autograd"}
        return (ratios**0.5).to_dataarray("node").assign_attrs(attributes)


def depths(network: nd.Network) -> dict[str, int]:
    """Return the longest path, in couplings, from each population that takes part to the output."""
    graph = network.graph(p.name for p in network.populations if p.name not in network.inputs)
    depth: dict[str, int] = {}
    for name in nx.topological_sort(graph):
        depth[name] = max((depth[child] + 1 for child in graph.predecessors(name)), default=0)
    return depth


def relax(cases: Sequence[Case]) -> xr.Dataset:
    """Return how each node relaxes, farthest of all seeds, and what learning at the equilibrium makes of it."""
    case = cases[0]
    paths = [each.distance(1.5 * each.depth + 20.0, nd.Exact(), SAVED) for each in cases]
    distance = xr.concat(paths, "seed", combine_attrs="override").max("seed", keep_attrs=True)
    depth = ("node", [case.depths[name] for name in distance.node.values], {"units": "1", "long_name": "depth"})
    stages = {f"x_{stage.name}": stage.label for stage in case.network.forward}
    label = ("node", [stages[name] for name in distance.node.values])
    found = xr.Dataset({"distance": distance.assign_coords(depth=depth, label=label)})
    return found.assign_attrs(
        nodes=len(case.depths),
        nodes_without_gradient=len(case.depths) - found.sizes["node"],
        edges=len(case.network.couplings),
        parameters=sum(p.numel() for p in case.module.parameters()),
        gradient_error=max(map(gradient_error, cases)),
        what=str(case),
    )


def gradient_error(case: Case) -> float:
    """Return the distance of all parameters' `.grad` at the equilibrium to autograd's, relative to its norm."""
    loss = 0.5 * (case.module(case.inputs) - case.targets).square().sum() / SAMPLES
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(case.module.parameters()))])
    case.module.zero_grad()
    nd.backward(case.network, case.inputs, case.targets)
    found = torch.cat([p.grad.flatten() for p in case.module.parameters() if p.grad is not None])
    return float((found - expected).norm() / expected.norm())


def iterations(case: Case, step: float) -> int:
    """Return after how many iterations of Euler's method all nodes are and stay within the tolerance."""
    solver = nd.Exact(euler_step=step)  # the iterates of Euler's method, at once
    iterates = np.unique(np.geomspace(1, 3 * ceil((case.depth + 10) / step), TRIED).round())
    while True:
        distance = case.distance(iterates[-1] * step, solver, step * iterates).max("node").values
        if distance[-1] > TOLERANCE:
            raise ValueError(f"{case}: not at its gradients after {iterates[-1]:g} iterations of {step:g}")
        before, first = bracket(distance, np.append(iterates[0] - 1, iterates))
        if first - before == 1:
            return int(first)
        iterates = np.unique(np.linspace(before + 1, first, TRIED).round())


def predicted(depth: float, step: float) -> float:
    """Return after how many iterations a chain of couplings by 1 is within the tolerance."""
    return float(depth + nbinom.isf(TOLERANCE, depth, step))


def bracket(distance: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Return the moment from which on a distance is within the tolerance, and the one before it.

    Parameters
    ----------
    distance
        Shape (moment,), of all but the first moment.
    moments
        Increasing; the first precedes all distances.
    """
    above = np.flatnonzero(distance > TOLERANCE)
    place = above[-1] + 1 if len(above) else 0
    return moments[place : place + 2]


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    shown = {"ResNet": options.blocks, "LSTM": options.steps, "transformer": options.blocks}
    cases = [(name, size) for name, own in shown.items() for size in sorted({own, *options.sizes})]
    relaxations: dict[str, xr.Dataset] = {}
    runs: list[tuple[str, int, int, int, list[list[int]]]] = []
    for name, size in options.progress(cases, unit="network"):
        drawn = [Case(options, name, size, seed) for seed in options.seeds]
        if size == shown[name]:
            relaxations[name] = relax(drawn)
        if size in options.sizes:
            counts = [[iterations(case, step) for case in drawn] for step in STEPS]
            runs.append((name, size, drawn[0].depth, len(drawn[0].depths), counts))
    scaling = xr.Dataset(
        {
            "iterations": (
                ("run", "step", "seed"),
                [row[-1] for row in runs],
                {"units": "1", "long_name": f"iterations until every node is within {TOLERANCE:g}"},
            ),
            "depth": ("run", [row[2] for row in runs], {"units": "1", "long_name": "depth of the graph"}),
            "nodes": ("run", [row[3] for row in runs], {"units": "1", "long_name": "nodes of the graph"}),
        },
        {
            "architecture": ("run", [row[0] for row in runs]),
            "size": ("run", [row[1] for row in runs], {"units": "1", "long_name": "blocks or time steps"}),
            "step": ("step", list(STEPS), {"units": "tau", "long_name": "Euler step"}),
            "seed": list(options.seeds),
        },
    )
    scaling["predicted"] = (("run", "step"), [[predicted(row[2], step) for step in STEPS] for row in runs])
    scaling["predicted"].attrs = {"units": "1", "long_name": "iterations that a chain of the same depth takes"}
    about = {"dataset": options.dataset, "seeds": " ".join(map(str, options.seeds))}
    with plot.style():
        picture = figure(relaxations, scaling)
        datasets = {f"relaxation_{name.lower()}": data for name, data in relaxations.items()}
        files = write(options.out, {"graphs": picture}, datasets | {"scaling": scaling}, about)
    claims = write_rows(options, f"{options.dataset}, float64, {SAMPLES} samples", rows(relaxations, scaling))
    print(summary(relaxations, scaling), claims, files, sep="\n\n")


def rows(relaxations: Mapping[str, xr.Dataset], scaling: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's appendix A."""
    seeds = number_of(scaling.sizes["seed"], "seed")
    made = []
    for name, found in relaxations.items():
        ratio = (scaling.iterations / scaling.predicted).isel(run=scaling.architecture == name)
        made.append(
            Row(
                AR,
                "appendix A",
                "derived, not run",
                f"{name}: AR equals backprop on the computation graph",
                f"{found.what}: gradient off by {found.gradient_error:.1e}, worst of {seeds}; Euler takes "
                f"{float(ratio.min()):.2f} to {float(ratio.max()):.2f} times a chain's iterations",
                holds(found.gradient_error < EXACT, "more than rounding"),
            )
        )
    return made


def figure(relaxations: Mapping[str, xr.Dataset], scaling: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(13, 7.5))
    axes = list(picture.subplots(2, 3).flat)
    for letter, ax, found in zip("abc", axes, relaxations.values(), strict=False):
        draw_nodes(ax, found)
        ax.set_title(f"({letter}) {found.what}: {found.nodes} nodes, depth {int(found.depth.max())}")
    draw_scaling(axes[3], scaling)
    draw_ratio(axes[4], scaling)
    axes[5].set_axis_off()
    return picture


def draw_nodes(ax: Axes, found: xr.Dataset) -> None:
    norm = Normalize(0, float(found.depth.max()))
    for node in found.node[np.argsort(-found.depth.values, kind="stable")]:
        line = found.distance.sel(node=node)
        ax.plot(found.time, line, color=plt.colormaps["viridis_r"](norm(float(line.depth))), linewidth=0.9)
    ax.axhline(TOLERANCE, color=plot.GREY, linestyle="--", linewidth=0.8)
    ax.set(yscale="log", ylim=(1e-6, None), xlabel="time (τ)", ylabel="distance to autograd, relative")
    ax.margins(x=0)
    bar = ScalarMappable(norm, "viridis_r")
    ax.figure.colorbar(bar, ax=ax, label="depth of the node (couplings)", ticks=MaxNLocator(integer=True))


def draw_scaling(ax: Axes, scaling: xr.Dataset) -> None:
    colours = dict(zip(STEPS, (plot.BLUE, plot.ORANGE, plot.VERMILION), strict=True))
    markers = dict(zip(ARCHITECTURES, "os^", strict=True))
    depth = np.arange(int(0.9 * scaling.depth.min()), 1.1 * float(scaling.depth.max()))
    for step, colour in colours.items():
        ax.plot(depth, [predicted(each, step) for each in depth], ":", color=colour, linewidth=1)
        for name, marker in markers.items():
            runs = scaling.isel(run=scaling.architecture == name)
            counts = runs.iterations.sel(step=step)
            spread = [counts.mean("seed") - counts.min("seed"), counts.max("seed") - counts.mean("seed")]
            ax.errorbar(runs.depth, counts.mean("seed"), spread, fmt=marker, color=colour, markersize=5)
    handles = [Line2D([], [], linestyle="", marker=m, color=plot.GREY, label=n) for n, m in markers.items()]
    handles += [Line2D([], [], color=c, label=f"step {h:g} τ") for h, c in colours.items()]
    handles += [Line2D([], [], linestyle=":", color=plot.GREY, label="a chain")]
    ax.legend(handles=handles, loc="lower right", ncols=2)
    ax.set(yscale="log", ylabel="iterations")
    _along_depth(ax)
    ax.set_ylim(float(scaling.iterations.min()) / 6, None)  # which leaves room for the legend
    ax.set_title(f"(d) Until every node is within {TOLERANCE:g}")


def draw_ratio(ax: Axes, scaling: xr.Dataset) -> None:
    """Draw the measured iterations in units of those predicted from the depth, the mean and range of the seeds."""
    ratio = scaling.iterations / scaling.predicted
    for step, colour in zip(STEPS, (plot.BLUE, plot.ORANGE, plot.VERMILION), strict=True):
        for name, marker in zip(ARCHITECTURES, "os^", strict=True):
            at = ratio.isel(run=scaling.architecture == name).sel(step=step)
            spread = [at.mean("seed") - at.min("seed"), at.max("seed") - at.mean("seed")]
            depth = scaling.depth.isel(run=scaling.architecture == name)
            ax.errorbar(depth, at.mean("seed"), spread, fmt=f"{marker}-", color=colour, markersize=5, linewidth=0.8)
    ax.axhline(1.0, color=plot.GREY, linestyle=":", linewidth=1)
    ax.set_ylabel("iterations, measured / predicted")
    _along_depth(ax)
    ax.set_title("(e) Beside a chain of the same depth")


def _along_depth(ax: Axes) -> None:
    ax.set(xscale="log", xlabel="depth of the graph (couplings)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())


def summary(relaxations: Mapping[str, xr.Dataset], scaling: xr.Dataset) -> str:
    """Return the tables that are printed."""
    nodes = [
        [
            found.what,
            f"{found.nodes:d}",
            f"{found.edges:d}",
            f"{int(found.depth.max())}",
            f"{found.parameters:d}",
            f"{found.gradient_error:.1e}",
            f"{arrival(found).min():.1f}",
            f"{arrival(found).max():.1f}",
        ]
        for found in relaxations.values()
    ]
    header = ["network", "nodes", "couplings", "depth", "parameters", ".grad error", "first node (τ)", "last node (τ)"]
    runs = [
        [f"{run.architecture.item()} {run['size'].item()}", f"{run.nodes.item()}", f"{run.depth.item()}"]
        + [counted(run.iterations.sel(step=step), float(run.predicted.sel(step=step))) for step in run.step.values]
        for _, run in scaling.groupby("run", squeeze=False)
        for run in [run.squeeze("run")]
    ]
    return "\n\n".join(
        [
            "Activation relaxation on computation graphs, float64. The error of .grad is relative to autograd's, over "
            f"all\nparameters; a node has arrived when its relative distance is and stays within {TOLERANCE:g}.",
            table(header, nodes),
            f"Iterations of Euler's method until every node is within {TOLERANCE:g}, range of {scaling.sizes['seed']} "
            "seeds (predicted for a chain\nof the same depth):",
            table(["network, size", "nodes", "depth", *(f"step {step:g}" for step in scaling.step.values)], runs),
            beside_a_chain(scaling),
        ]
    )


def counted(iterations: xr.DataArray, chain: float) -> str:
    """Return the range of the seeds, and what a chain takes."""
    low, high = int(iterations.min()), int(iterations.max())
    return f"{low}{f'–{high}' if high > low else ''} ({chain:.0f})"


def beside_a_chain(scaling: xr.Dataset) -> str:
    """Say how far the depth alone predicts the iterations."""
    ratio = scaling.iterations / scaling.predicted
    parts = [
        f"{float(at.min()):.2f} to {float(at.max()):.2f} times ({name}, step {step:g})"
        for step in scaling.step.values
        for name in ARCHITECTURES
        for at in [ratio.sel(step=step).isel(run=scaling.architecture == name)]
    ]
    return fill(f"Measured beside a chain of the same depth: {', '.join(parts)}.", 120)


def arrival(found: xr.Dataset) -> np.ndarray:
    """Return the time from which on each node is within the tolerance, the output, which is held there, left out."""
    moving = found.distance.isel(node=found.depth > 0).transpose("node", "time")
    times = np.append(moving.time.values, np.inf)
    return np.array([bracket(line[1:], times)[1] for line in moving.values])


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
