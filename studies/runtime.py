"""What an update of the weights costs: backprop, IL, Z-IL and Fa-Z-IL, in perceptrons of 64 to 2048 units a layer.

All rules take turns in one run, so that the machine's noise falls on all alike; their cost is given as the ratio of
their median to backprop's. An update is the gradient of a batch, by `nd.backward` or automatic differentiation, and a
step of gradient descent.

After Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation? — Exact Implementation of
Backpropagation in Predictive Coding Networks" (2020), §5.2 and table 4, measured there on ImageNet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common.claims import PC, Row, holds, write_rows
from common.options import Options as StudyOptions
from common.options import parse
from common.report import table, write
from common.training import loss
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import neurodyn as nd
from benchmarks.measure import machine, ratio, rounds
from neurodyn import plot
from neurodyn.models import predictive_coding as pc

BACKPROP = "BP"
RULES: Mapping[str, dict[str, Any]] = {
    "IL": {"learning": "il", "steps": 20},
    "Z-IL": {"learning": "z-il"},
    "Fa-Z-IL": {"learning": "fa-z-il"},
}
PUBLISHED = {
    "cpu": {BACKPROP: 3.1, "IL": 19.2, "Z-IL": 3.6, "Fa-Z-IL": 3.6},
    "gpu": {BACKPROP: 3.7, "IL": 56.3, "Z-IL": 4.1, "Fa-Z-IL": 4.2},
}
"""Table 4, in ms."""
INPUTS, OUTPUTS = 784, 10
IMAGENET = "ImageNet"


@dataclass(frozen=True)
class Options(StudyOptions):
    """What to run; of several seeds, the medians are shown.

    Parameters
    ----------
    widths
        The units of a hidden layer.
    hidden
        How many hidden layers.
    batch
        The size of a batch.
    seconds
        About how long each network is timed; three rounds at least.
    threads
        Of PyTorch on the CPU; one is least disturbed by what else the machine does.
    imagenet
        Also a convolutional network for ImageNet's images and classes (the paper does not tell its own), in batches of
        16.
    """

    once = ("widths",)

    out: Path = Path("results/runtime")
    seeds: tuple[int, ...] = (0,)
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    hidden: int = 3
    batch: int = 64
    seconds: float = 5.0
    threads: int = 1
    imagenet: bool = False

    def draw(self, network: str, seed: int) -> tuple[nn.Sequential, Tensor, Tensor]:
        """Return a network, named by its width, and a batch of inputs and targets."""
        generator = torch.Generator().manual_seed(seed)
        if network == IMAGENET:
            module, classes, inputs = alexnet(seed), 1000, torch.rand(16, 3, 224, 224, generator=generator)
        else:
            module, classes = perceptron(int(network), self.hidden, seed), OUTPUTS
            inputs = torch.rand(self.batch, INPUTS, generator=generator)
        targets = torch.eye(classes)[torch.arange(len(inputs)) % classes]
        return module.to(self.device), inputs.to(self.device), targets.to(self.device)


PAPER = Options(full=True, imagenet=True)
"""Some minutes on two cores."""


def alexnet(seed: int) -> nn.Sequential:
    """Return the layers of AlexNet, without dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()),
            *(nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)),
        )


def perceptron(width: int, hidden: int, seed: int) -> nn.Sequential:
    return nd.mlp([INPUTS, *[width] * hidden, OUTPUTS], activation="sigmoid", seed=seed)


def updates(module: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Callable[[], None]]:
    """Return what updates the weights, by backprop and by each rule."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)

    def update(gradient: Callable[[], object]) -> None:
        optimizer.zero_grad()
        gradient()
        optimizer.step()

    ways: dict[str, Callable[[], None]] = {BACKPROP: partial(update, lambda: loss(module, inputs, targets).backward())}
    for name, rule in RULES.items():
        ways[name] = partial(update, partial(nd.backward, pc.network(module, **rule), inputs, targets))
    return ways


def measure(ways: Mapping[str, Callable[[], None]], seconds: float) -> xr.Dataset:
    """Time the updates in rounds."""
    times = rounds(ways, seconds=seconds)
    medians = np.array([np.median(taken) for taken in times.values()])
    quartiles = np.array([ratio(taken, times[BACKPROP])[1:] for taken in times.values()])
    return xr.Dataset(
        {
            "milliseconds": ("rule", 1e3 * medians, {"units": "ms", "long_name": "median time of an update"}),
            "ratio": ("rule", medians / medians[0], {"long_name": "ratio of the medians to backprop's"}),
            "low": ("rule", quartiles[:, 0], {"long_name": "lower quartile of the ratios round by round"}),
            "high": ("rule", quartiles[:, 1], {"long_name": "upper quartile of the ratios round by round"}),
            "rounds": len(times[BACKPROP]),
        },
        {"rule": list(times)},
    )


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print its table."""
    print(options.setting(PAPER), flush=True)
    torch.set_num_threads(options.threads)
    networks = [*map(str, options.widths), *([IMAGENET] if options.imagenet else [])]
    with options.progress(total=len(options.seeds) * len(networks), unit="network") as bar:

        def timed(network: str, seed: int) -> xr.Dataset:
            measured = measure(updates(*options.draw(network, seed)), options.seconds)
            bar.update()
            return measured

        by_seed = [xr.concat([timed(network, seed) for network in networks], "network") for seed in options.seeds]
    times = xr.concat(by_seed, "seed").assign_coords(network=networks, seed=list(options.seeds))

    about = {
        "setting": f"{INPUTS}-{'-'.join(['width'] * options.hidden)}-{OUTPUTS}, logistic, batches of {options.batch}, "
        "float32",
        "device": options.device,
        **{key: str(value) for key, value in machine().items()},
    }
    print(f"{about['setting']}; {about['processor']}, {about['threads']} threads; GPU: {about['gpu']}")
    shown = times.median("seed", keep_attrs=True)
    published = PUBLISHED["cpu" if torch.device(options.device).type == "cpu" else "gpu"]
    print(f"\n{options.device}: ms an update, and ratio to backprop")
    print(summary(shown, published))
    print(
        "\nA step of IL multiplies by the weights between hidden layers twice, backprop three times in all: where that "
        "is what\ncosts, 20 steps tend to 13 times backprop."
    )
    with plot.style():
        figure = draw(shown.sel(network=list(map(str, options.widths))), published)
    files = write(options.out, {"runtime": figure}, {"runtime": times}, about)
    print(write_rows(options, f"{about['setting']}; {about['processor']}", rows(shown, published)))
    print("\n" + files)


def rows(times: xr.Dataset, published: Mapping[str, float]) -> list[Row]:
    """Return what came out beside the paper's table 4."""
    made = []
    for rule in RULES:
        ratios = times.ratio.sel(rule=rule)
        low, high, theirs = float(ratios.min()), float(ratios.max()), published[rule] / published[BACKPROP]
        ours = f"{low:.2f} to {high:.2f} times backprop, by network; at the widest {float(ratios[-1]):.2f}"
        verdict = holds(low <= 1.25 * theirs and high >= theirs / 1.25, f"{high / theirs:.2g} times that at most")
        made.append(
            Row(PC, "table 4", "ImageNet", f"{rule}: {theirs:.2f} times backprop's time an update", ours, verdict)
        )
    return made


def summary(times: xr.Dataset, published: Mapping[str, float]) -> str:
    def cells(milliseconds: Mapping[str, float]) -> list[str]:
        return [f"{ms:.2f} ({ms / milliseconds[BACKPROP]:.2f})" for ms in milliseconds.values()]

    rows = []
    for network in times.network.to_numpy():
        taken = dict(zip(times.rule.to_numpy(), times.milliseconds.sel(network=network).to_numpy(), strict=True))
        name = network if network == IMAGENET else f"width {network}"
        rows.append([name, *cells(taken), f"{times['rounds'].sel(network=network).item():.0f}"])
    rows.append(["paper, table 4", *cells(published), ""])
    return table(["", *published, "rounds"], rows)


def draw(times: xr.Dataset, published: Mapping[str, float]) -> Figure:
    figure = plt.figure(figsize=(9, 3.8))
    left, right = figure.subplots(1, 2)
    widths = times.network.to_numpy().astype(int)
    colours = (plot.BLACK, plot.VERMILION, plot.BLUE, plot.GREEN)
    for name, colour, marker in zip(times.rule.to_numpy(), colours, "xos^", strict=True):
        at = times.sel(rule=name)
        left.plot(widths, at.milliseconds, marker=marker, markersize=4, color=colour, label=name)
        if name == BACKPROP:
            continue
        right.plot(widths, at.ratio, marker=marker, markersize=4, color=colour, label=name)
        right.fill_between(widths, at.low, at.high, color=colour, alpha=0.2, linewidth=0)
        right.axhline(published[name] / published[BACKPROP], color=colour, linestyle=":")
    right.axhline(1, color=plot.BLACK, linewidth=0.6)
    left.set(xscale="log", yscale="log", xlabel="units of a hidden layer", ylabel="time of an update (ms)")
    left.set_title("Median")
    right.set(xscale="log", yscale="log", xlabel="units of a hidden layer", ylabel="ratio to backprop")
    right.set_title("Ratio and quartiles; dotted: paper, table 4")
    right.yaxis.set_major_locator(FixedLocator([1, 1.5, 2, 3, 5, 10, 20]))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_locator(NullLocator())
    for ax in (left, right):
        ax.xaxis.set_major_locator(FixedLocator(widths.tolist()))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.legend()
    return figure


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
