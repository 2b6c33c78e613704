"""The updates of TP, ITP and GAIT-prop against those of backprop, with random and with orthogonal weights.

(1) Scatter plots of the updates of an untrained network of fixed width, as in figure 1 of the paper, and (2) the angle
between them, layer by layer. (3) The angle of the first layer against γ, in float32 and float64: the naive form takes
the difference between forward values and targets that agree up to γ^{L−l}, the deviation form carries it.

After N. Ahmad, M. A. J. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically plausible learning rule derived from
backpropagation of error" (2020), §6.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common.claims import GAIT, Row, holds, write_rows
from common.options import DataOptions, parse
from common.report import table, write
from common.training import angle, loss
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

import neurodyn as nd
from neurodyn import plot
from neurodyn.models import target_propagation as tp

Rule = Literal["tp", "itp", "gait"]
Form = Literal["deviation", "naive"]
InitialWeights = Literal["xavier", "orthogonal"]

BATCH = 60
"""The paper's."""
GAMMAS = tuple(10.0**-n for n in range(9))
GAMMA = 1e-3
"""The paper's, of the scatter plots."""
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
POINTS = 400
"""Of a layer in a scatter plot."""
ALIGNED = 1.0
"""The angle in degrees within which updates are called equal."""
RULES: dict[Rule, str] = {"tp": "TP", "itp": "ITP", "gait": "GAIT-prop"}
COLOURS: dict[Rule, str] = {"tp": plot.VERMILION, "itp": plot.GREEN, "gait": plot.BLUE}
WEIGHTS: dict[InitialWeights, str] = {"xavier": "random", "orthogonal": "orthogonal"}


@dataclass(frozen=True)
class Options(DataOptions):
    """What to run; the scatter plots show the first seed.

    Parameters
    ----------
    hidden
        The number of hidden layers, each as wide as the input; so is the output, whose other units are auxiliary.
    """

    hidden: int = 4
    out: Path = Path("results/alignment")


PAPER = Options(full=True, dataset="mnist", seeds=tuple(range(5)))
"""About 10 minutes."""


@dataclass(frozen=True)
class Case:
    """An untrained network in float64, a batch, and the updates ΔW_l of backprop."""

    module: nn.Sequential
    inputs: Tensor
    targets: Tensor
    backprop: list[Tensor]

    @classmethod
    def draw(cls, options: Options, weights: InitialWeights, seed: int) -> Case:
        train, _ = options.load()
        batch = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:BATCH]
        inputs, targets = (part.to(options.device, torch.float64) for part in train[batch])
        sizes = [inputs.shape[1]] * (options.hidden + 2)
        like: dict[str, Any] = {"device": options.device, "dtype": torch.float64}
        module = tp.tower(sizes, outputs=targets.shape[1], weights=weights, seed=seed, **like)
        loss(module, inputs, targets).backward()
        return cls(module, inputs, targets, _updates(module))

    def updates(self, rule: Rule, gamma: float, precision: torch.dtype, form: Form) -> list[Tensor] | None:
        """Return ΔW_l by a rule; None where it is refused: numbers of this precision end, or it has no inverse."""
        module = deepcopy(self.module).to(precision)
        network = tp.network(module, rule=rule, gamma=gamma, form=form)
        module.zero_grad()
        try:
            nd.backward(network, self.inputs.to(precision), self.targets.to(precision))
        except ValueError:
            return None
        return _updates(module)


def _updates(module: nn.Module) -> list[Tensor]:
    """Return −∂/∂W_l, layer by layer, from what the gradients hold."""
    found = []
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            assert layer.weight.grad is not None
            found.append(-layer.weight.grad.double())
    return found


def angles(found: Sequence[Tensor] | None, backprop: Sequence[Tensor]) -> list[float]:
    """Return the angle between updates, layer by layer, in degrees; NaN where there are none."""
    if found is None:
        return [np.nan] * len(backprop)
    return [angle(ours, exact) for ours, exact in zip(found, backprop, strict=True)]


def distances(found: Sequence[Tensor] | None, backprop: Sequence[Tensor]) -> list[float]:
    """Return ‖ΔW − ΔW_BP‖ / ‖ΔW_BP‖, layer by layer."""
    if found is None:
        return [np.nan] * len(backprop)
    return [float((ours - exact).norm() / exact.norm()) for ours, exact in zip(found, backprop, strict=True)]


def measure(options: Options) -> xr.Dataset:
    """Compare every rule with backprop, at each γ, in each precision and form."""
    dims: dict[str, list[Any]] = {
        "weights": list(WEIGHTS),
        "rule": list(RULES),
        "precision": list(PRECISIONS),
        "form": list(get_args(Form)),
        "gamma": list(GAMMAS),
        "seed": list(options.seeds),
        "layer": list(range(1, options.hidden + 2)),
    }
    shape = tuple(map(len, dims.values()))
    found = {name: np.full(shape, np.nan) for name in ("angle", "distance")}
    cases = {(weights, seed): Case.draw(options, weights, seed) for weights, seed in product(WEIGHTS, options.seeds)}
    tasks = list(product(WEIGHTS, RULES, PRECISIONS, get_args(Form), GAMMAS, options.seeds))
    for number, task in enumerate(options.progress(tasks, unit="update")):
        weights, rule, precision, form, gamma, seed = task
        case, at = cases[weights, seed], np.unravel_index(number, shape[:6])
        updates = case.updates(rule, gamma, PRECISIONS[precision], form)
        found["angle"][at] = angles(updates, case.backprop)
        found["distance"][at] = distances(updates, case.backprop)
    result = xr.Dataset({name: (tuple(dims), values) for name, values in found.items()}, dims)
    result["angle"].attrs = {"units": "degree", "long_name": "angle between the update and backprop's"}
    result["distance"].attrs = {"units": "1", "long_name": "distance from backprop's update, relative to its norm"}
    result["gamma"].attrs = {"units": "1", "long_name": "γ"}
    return result


def scatter(options: Options) -> xr.Dataset:
    """Return some weights' updates in each layer, in units of the layer's root mean square by backprop."""
    seed = options.seeds[0]
    by_rule: list[NDArray[np.float64]] = []
    by_backprop: list[NDArray[np.float64]] = []
    for weights in WEIGHTS:
        case = Case.draw(options, weights, seed)
        generator = torch.Generator().manual_seed(seed)
        active = [_active(update) for update in case.backprop]
        picks = [torch.randint(update.numel(), (POINTS,), generator=generator) for update in active]
        scales = [update.square().mean().sqrt() for update in active]
        updates = [case.updates(rule, GAMMA, torch.float64, "deviation") for rule in RULES]
        for kept, each in ((by_backprop, case.backprop), *((by_rule, found) for found in updates)):
            assert each is not None, "float64 holds every rule at this γ"
            parts = zip(each, picks, scales, strict=True)
            found = torch.stack([update.flatten()[pick.to(update.device)] / scale for update, pick, scale in parts])
            kept.append(found.numpy(force=True))
    values = {"units": "RMS of backprop's", "long_name": "update of a weight"}
    shape = (len(WEIGHTS), len(RULES), *by_rule[0].shape)
    return xr.Dataset(
        {
            "by_rule": (("weights", "rule", "layer", "point"), np.stack(by_rule).reshape(shape), values),
            "by_backprop": (("weights", "layer", "point"), np.stack(by_backprop), values),
        },
        {"weights": list(WEIGHTS), "rule": list(RULES), "layer": np.arange(1, options.hidden + 2)},
    )


def _active(update: Tensor) -> Tensor:
    """Return the rows up to the last one that is updated at all: those of auxiliary outputs are not, by any rule."""
    return update[: int(update.abs().amax(1).nonzero().max()) + 1]


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found, points = measure(options), scatter(options)
    width = len(options.load()[0][0][0])
    about = {"dataset": options.dataset, "layers": "-".join([str(width)] * (options.hidden + 2))}
    with plot.style():
        picture = draw(found, points)
        files = write(options.out, {"alignment": picture}, {"alignment": found, "scatter": points}, about)
    print(
        f"Updates of untrained networks against backprop: {about['dataset']}, layers {about['layers']}, leaky ReLU, "
        f"{mean_of(len(options.seeds))}"
    )
    here = f"{about['dataset']}, layers {about['layers']}, leaky ReLU, γ = {GAMMA:g}, float64"
    print(summary(found), write_rows(options, here, rows(found)), files, sep="\n\n")


def rows(found: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figure 1, for the layer whose update is farthest off."""
    at = found.angle.sel(gamma=GAMMA, precision="float64", form="deviation").max("layer")
    claims: list[tuple[Rule, InitialWeights, str, bool]] = [
        ("gait", "orthogonal", "GAIT-prop, orthogonal weights: updates almost perfectly equal backprop's", True),
        ("gait", "xavier", "GAIT-prop, random weights: updates scatter around backprop's", False),
        ("tp", "orthogonal", "TP, orthogonal weights: updates scatter widely", False),
    ]
    made = []
    for rule, weights, claim, equal in claims:
        angles = at.sel(rule=rule, weights=weights)
        near = float(angles.max()) < ALIGNED
        ours = f"angle to backprop's update, farthest layer: {float(angles.min()):.2g}° to {float(angles.max()):.2g}°, "
        ours += mean_of(found.sizes["seed"]).replace("mean", "range")
        verdict = holds(near == equal, f"{'aligned' if near else 'not aligned'} within {ALIGNED:g}°")
        made.append(Row(GAIT, "figure 1", "MNIST, 784 units a layer, untrained", claim, ours, verdict))
    return made


def mean_of(seeds: int) -> str:
    """Say what numbers of so many seeds are."""
    return "one seed" if seeds == 1 else f"mean of {seeds} seeds"


def draw(found: xr.Dataset, points: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(10.5, 10.5))
    axes = picture.subplot_mosaic("abc;def;ghi")
    letters = iter("abcdef")
    for weights, name in WEIGHTS.items():
        for rule in RULES:
            letter = next(letters)
            draw_scatter(axes[letter], points.sel(weights=weights), rule)
            axes[letter].set_title(f"({letter}) {RULES[rule]}, {name} weights")
    axes["a"].legend(title="layer", markerscale=2, fontsize=8, loc="upper left", handletextpad=0.1)
    draw_layers(axes["g"], found)
    for letter, weights in zip("hi", reversed(WEIGHTS), strict=True):
        draw_gammas(axes[letter], found.sel(weights=weights, rule="gait"))
        axes[letter].set_title(f"({letter}) GAIT-prop, {WEIGHTS[weights]} weights, layer 1")
    axes["h"].set(yscale="log")
    axes["i"].set(ylim=(0, 135))
    axes["i"].set_yticks(range(0, 91, 30))
    axes["i"].legend(fontsize=8, loc="lower right")
    picture.suptitle(
        f"Updates: (a–g) at γ = {GAMMA:g}; dashed: equal to backprop's; angles: {mean_of(found.sizes['seed'])}",
        x=0.01,
        ha="left",
        fontsize=9,
        color=plot.GREY,
    )
    return picture


def draw_scatter(ax: Axes, points: xr.Dataset, rule: Rule) -> None:
    colours = plt.colormaps["viridis"](np.linspace(0, 0.9, points.sizes["layer"]))
    largest = float(abs(points.by_rule.sel(rule=rule)).max())
    for layer, colour in zip(points.layer.values, colours, strict=True):
        at = points.sel(layer=layer)
        ax.plot(
            at.by_backprop, at.by_rule.sel(rule=rule), ".", markersize=3, color=colour, label=layer, rasterized=True
        )
    ends = float(abs(points.by_backprop).max())
    ax.plot([-ends, ends], [-ends, ends], "--", color=plot.GREY, linewidth=0.8)
    linear = 10.0
    if largest > 3 * linear:
        ax.set_yscale("symlog", linthresh=linear)
    ax.set(xlabel="update by backprop (its RMS)", ylabel="update (backprop's RMS)")


def draw_layers(ax: Axes, found: xr.Dataset) -> None:
    at = found.angle.sel(gamma=GAMMA, precision="float64", form="deviation")
    for (weights, name), marker, line in zip(WEIGHTS.items(), "so", ("--", "-"), strict=True):
        for rule in RULES:
            values = at.sel(weights=weights, rule=rule).mean("seed")
            look: dict[str, Any] = {
                "color": COLOURS[rule],
                "markersize": 5,
                "markerfacecolor": "white" if marker == "s" else None,
            }
            ax.plot(values.layer, values, marker + line, label=f"{RULES[rule]}, {name}", **look)
    ax.set(xlabel="layer", ylabel="angle to backprop's update (°)", ylim=(-4, 135))
    ax.set_xticks(found.layer)
    ax.set_yticks(range(0, 91, 30))
    ax.set_title("(g) Layer by layer")
    ax.legend(fontsize=7, ncols=2, loc="upper right", columnspacing=0.8, handlelength=1.5)


def draw_gammas(ax: Axes, found: xr.Dataset) -> None:
    looks = {("float32", "naive"): (plot.ORANGE, "s:"), ("float64", "naive"): (plot.VERMILION, "s--")}
    looks |= {("float32", "deviation"): (plot.SKY, "o-"), ("float64", "deviation"): (plot.BLUE, "o-")}
    for (precision, form), (colour, look) in looks.items():
        values = found.angle.sel(precision=precision, form=form).isel(layer=0).mean("seed")
        ax.plot(found.gamma, values, look, color=colour, markersize=4, label=f"{form}, {precision}")
    ax.axhline(90, color=plot.GREY, linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlabel="γ", ylabel="angle to backprop's update (°)")


def summary(found: xr.Dataset) -> str:
    """Return the tables that are printed."""
    at = found.sel(gamma=GAMMA, precision="float64", form="deviation")
    layers = [f"layer {layer}" for layer in found.layer.values]
    rows = []
    for weights, name in WEIGHTS.items():
        for rule in RULES:
            part = at.sel(weights=weights, rule=rule)
            largest = float(part.distance.mean("seed").max())
            rows.append(
                [f"{RULES[rule]}, {name}", *map("{:.3g}".format, part.angle.mean("seed").values), f"{largest:.2g}"]
            )
    by_layer = table([f"angle (°), γ = {GAMMA:g}", *layers, "farthest"], rows)
    kinds = [(form, precision) for form in get_args(Form) for precision in PRECISIONS]
    rows = []
    for weights, name in WEIGHTS.items():
        for form, precision in kinds:
            part = found.angle.sel(weights=weights, rule="gait", form=form, precision=precision).isel(layer=0)
            rows.append([f"{name}, {form}, {precision}", *map("{:.2g}".format, part.mean("seed").values)])
    by_gamma = table(["GAIT-prop, layer 1: angle (°)", *(f"{gamma:.0e}" for gamma in GAMMAS)], rows)
    return "\n\n".join(
        [
            by_layer,
            "(farthest: distance from backprop's update, relative to its norm, in the farthest layer)\n"
            "The paper's figure 1: with orthogonal weights, GAIT-prop's updates almost perfectly equal backprop's; it "
            "gives no numbers.",
            by_gamma,
            "(by γ; nan: refused, as the numbers of the precision end)",
        ]
    )


if __name__ == "__main__":
    torch.set_num_threads(1)  # a batch of 60 gains little from more
    main(parse(PAPER, __doc__))
