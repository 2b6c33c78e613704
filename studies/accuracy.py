"""Test accuracy of every rule beside backprop, over data sets and seeds.

A perceptron learns by activation relaxation, as it is and fully simplified (learned feedback weights, no derivative in
the relaxation), and by predictive coding (IL, Z-IL, Fa-Z-IL); a network of square orthogonal layers, whose outputs
beyond the classes are auxiliary, by GAIT-prop with the orthogonality regularizer, and by backprop with it. Backprop
trains both from the same weights and on the same batches, so that differences are paired. What each paper claims is
judged: of rules that should be backprop, by how far the first update is off backprop's; of the others, by the accuracy,
where the 95 % interval and half a point count. The seeds are trained at once; a run that was stopped goes on where it
was; and `torchrun --nproc-per-node=2 studies/accuracy.py` shares every batch among processes.

After figure 2 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain" (2020); figures 2 and 3 of N. Ahmad, M. A. J. van Gerven, L. Ambrogioni,
"GAIT-prop" (2020); and §5.1 of Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation?" (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from common.claims import AR, GAIT, PC, Row, write_rows
from common.learning_curves import agreement, draw, means_of, plus_minus, zoom
from common.options import ActivationName, DatasetName, check_pool, check_root, images, parse, pooled
from common.options import Options as StudyOptions
from common.report import table, write
from common.training import loss
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn
from torch.nn.utils import get_total_norm

import neurodyn as nd
from neurodyn import plot
from neurodyn.checks import needed
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.train.parallel import Processes

Declare = Callable[[nn.Sequential, int], nd.Network | nn.Module]

GAMMA, STRENGTH = 1e-3, 0.1
"""GAIT-prop's γ and λ."""
STEP = 0.1
"""The integration step of IL: Euler's method grows unstable at larger ones, as the weights of a wide network grow."""
EXACT = 1e-4
"""A relative difference of updates in float32 that is rounding."""
SHOWN = {"train_accuracy": "training accuracy", "test_accuracy": "test accuracy"}


@dataclass(frozen=True)
class Rule:
    """A rule of learning.

    Parameters
    ----------
    label
        For tables and figures.
    declare
        A function of a module and a seed, that returns what learns.
    reference
        The rule that it is compared with: backprop of the same module, or of a regularized rule regularized backprop.
    paper
        What its paper says of it.
    where
        Which paper, and where in it.
    claim
        What of that is judged: that it makes the update of backprop, another one, or that it is as accurate; or None.
    look
        Of its curves.
    square
        Whether it trains the square network, and not the perceptron.
    """

    label: str
    declare: Declare
    reference: str
    paper: str
    where: tuple[str, str]
    claim: Literal["update", "other update", "accuracy"] | None
    look: Mapping[str, Any]
    square: bool = False


def backprop(module: nn.Sequential, seed: int) -> nn.Module:
    return module


def simplified(module: nn.Sequential, seed: int) -> nd.Network:
    return ar.network(module, feedback="learned", relaxation_derivative="none", seed=seed)


def gait(module: nn.Sequential, seed: int) -> nd.Network:
    return tp.network(module, rule="gait", gamma=GAMMA).regularized(nd.Orthogonality(STRENGTH))


def regularized(module: nn.Sequential, seed: int) -> nd.Network:
    """Return backprop with the regularizer: activation relaxation, whose gradient is backprop's."""
    return ar.network(module).regularized(nd.Orthogonality(STRENGTH))


REFERENCE = {"color": plot.GREY, "linewidth": 4, "alpha": 0.45}
RULES: Mapping[str, Rule] = {
    "backprop": Rule("backprop", backprop, "backprop", "MNIST: about 98 % (AR, 2nd paper)", (AR, ""), None, REFERENCE),
    "ar": Rule(
        "AR",
        lambda module, seed: ar.network(module),
        "backprop",
        "nearly identical to backprop (fig. 2)",
        (AR, "figure 2"),
        "accuracy",
        {"color": plot.BLUE},
    ),
    "ar-simplified": Rule(
        "AR simplified",
        simplified,
        "backprop",
        "as AR, with more variance (fig. 3)",
        (AR, "figure 3 c"),
        "accuracy",
        {"color": plot.ORANGE},
    ),
    "il": Rule(
        "IL",
        lambda module, seed: pc.network(module, step=STEP),
        "backprop",
        "differs from backprop (fig. 3)",
        (PC, "figure 3"),
        "other update",
        {"color": plot.PURPLE},
    ),
    "z-il": Rule(
        "Z-IL",
        lambda module, seed: pc.network(module, learning="z-il"),
        "backprop",
        "equal to backprop",
        (PC, "§3, figure 3"),
        "update",
        {"color": plot.VERMILION, "linestyle": "--"},
    ),
    "fa-z-il": Rule(
        "Fa-Z-IL",
        lambda module, seed: pc.network(module, learning="fa-z-il"),
        "backprop",
        "the same result as Z-IL",
        (PC, "§4"),
        "update",
        {"color": plot.SKY, "linestyle": ":", "linewidth": 2},
    ),
    "backprop-square": Rule(
        "backprop, square",
        backprop,
        "backprop-square",
        "as GAIT-prop",
        (GAIT, ""),
        None,
        {**REFERENCE, "color": plot.GREEN},
        square=True,
    ),
    "backprop-regularized": Rule(
        "backprop, square, regularized",
        regularized,
        "backprop-square",
        "–",
        (GAIT, ""),
        None,
        {"color": plot.BLACK, "linestyle": ":"},
        square=True,
    ),
    "gait": Rule(
        "GAIT-prop, square, regularized",
        gait,
        "backprop-regularized",
        "indistinguishable from backprop (figs. 2, 3)",
        (GAIT, "figures 2 A, 3 A"),
        "accuracy",
        {"color": plot.GREEN, "linestyle": "-."},
        square=True,
    ),
}

if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = needed("tyro", extra="studies").extras.literal_type_from_choices(RULES)


@dataclass(frozen=True)
class Options(StudyOptions):
    """What to run.

    Parameters
    ----------
    rules
        By which rules to learn.
    dataset
        On which data sets; all but digits are downloaded, unless `root` or NEURODYN_DATA names a folder.
    root
        A folder with the data sets' files, or subsets in their format.
    pool
        Images are averaged over squares of so many pixels a side, which makes the square network narrower.
    epochs
        Of training.
    hidden
        The units of the perceptron's hidden layers. The square network has as many layers, all as wide as the input.
    activation
        The perceptron's; the square network's is leaky ReLU.
    rate, square_rate
        Adam's learning rate for the perceptron, and for the square network.
    batch
        How many samples an update averages over.
    reach
        A test accuracy in per cent; the table tells after how many epochs it is reached.
    """

    once = ("rules", "dataset")

    out: Path = Path("results/accuracy")
    seeds: tuple[int, ...] = tuple(range(10))
    rules: tuple[RuleName, ...] = tuple(RULES)
    dataset: tuple[DatasetName, ...] = ("digits",)
    root: Path | None = None
    pool: int = 1
    epochs: int = 12
    hidden: tuple[int, ...] = (300, 300, 100)
    activation: ActivationName = "relu"
    rate: float = 1e-3
    square_rate: float = 1e-3
    batch: int = 64
    reach: float = 95.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_root(self.root, self.dataset)
        check_pool(self.pool, self.dataset)

    def load(self, dataset: str) -> tuple[nd.data.Samples, nd.data.Samples]:
        """Return the training and the test set of a data set, as vectors."""
        return pooled(dataset, self.root, True, self.pool)

    def build(self, rule: Rule, inputs: int, classes: int, seed: int) -> nn.Sequential:
        """Return the module that a rule trains."""
        if not rule.square:
            return nd.mlp([inputs, *self.hidden, classes], activation=self.activation, seed=seed)
        return tp.tower([inputs] * (len(self.hidden) + 2), outputs=classes, weights="orthogonal", seed=seed)

    def checkpoint(self, dataset: str, name: str) -> Path:
        """Return the folder of a run's checkpoint, which bears its settings, but for the number of epochs."""
        square = RULES[name].square
        layers = f"{len(self.hidden)}-hidden" if square else "-".join(map(str, [*self.hidden, self.activation]))
        settings = [layers, f"rate-{self.square_rate if square else self.rate:g}", f"batch-{self.batch}"]
        settings += [f"pool-{self.pool}"] * (self.pool > 1)
        return self.out / "runs" / dataset / name / "_".join([*settings, "seeds-" + "-".join(map(str, self.seeds))])


PAPER = Options(full=True, dataset=("mnist", "fashion-mnist"), epochs=10)
"""The data sets and epochs of the first paper's figure 2."""


def train(options: Options, dataset: str, name: str, device: torch.device) -> xr.Dataset:
    """Train all seeds by a rule, and return their history; NaN from the epoch on in which one diverged."""
    samples, test = options.load(dataset)
    inputs, targets = samples[0]
    rule = RULES[name]
    modules = {seed: options.build(rule, len(inputs), len(targets), seed) for seed in options.seeds}
    try:
        history = nd.train.fit(
            [rule.declare(module, seed) for seed, module in modules.items()],
            samples,
            test,
            epochs=options.epochs,
            batch_size=options.batch,
            learning_rate=options.square_rate if rule.square else options.rate,
            seeds=options.seeds,
            device=device,
            checkpoint=options.checkpoint(dataset, name),
            progress=not options.quiet,
        )
    except nd.train.DivergedError as error:
        history = error.history
        if Processes().rank == 0:
            print(f"{rule.label} on {dataset}: {error}")
    off = ("seed", first_update(options, dataset, name, device))
    return measured(history, options).assign(first_update=off)


def first_update(options: Options, dataset: str, name: str, device: torch.device) -> list[float]:
    """Return how far a rule's first update, without regularizer, is off backprop's, relative to it, for each seed."""
    samples, _ = options.load(dataset)
    inputs, targets = (part.to(device) for part in samples[: options.batch])
    found = []
    for seed in options.seeds:
        rule = RULES[name]
        module = options.build(rule, inputs.shape[1], targets.shape[1], seed).to(device)
        exact = torch.autograd.grad(loss(module, inputs, targets), list(module.parameters()))
        network = rule.declare(module, seed)
        if isinstance(network, nd.Network):
            nd.backward(network, inputs, targets)
            off = [
                (part.grad - one) for part, one in zip(module.parameters(), exact, strict=True) if part.grad is not None
            ]
            found.append(float(get_total_norm(off) / get_total_norm(exact)))
        else:
            found.append(0.0)
    return found


def measured(history: xr.Dataset, options: Options) -> xr.Dataset:
    """Take from a history what is shown, over all epochs, with accuracies in per cent."""
    moments = {"seed": list(options.seeds), "epoch": np.arange(1, options.epochs + 1)}
    if not history.sizes.get("epoch"):  # none was completed
        history = xr.Dataset({v: (("seed", "epoch"), np.empty((len(options.seeds), 0))) for v in SHOWN}, {"epoch": []})
    found = history[[*SHOWN, *({"seconds"} & set(history))]].reindex(moments)
    for name, long_name in SHOWN.items():
        found[name] = (100 * found[name]).assign_attrs(units="percent", long_name=long_name)
    found["epoch"].attrs = {"units": "1", "long_name": "epoch"}
    return found


def verdict(found: xr.Dataset, dataset: str, name: str) -> str:
    """Judge what a rule's paper claims of it, by this run."""
    rule = RULES[name]
    if rule.claim is None:
        return "–"
    off = float(found.first_update.sel(dataset=dataset, rule=name).mean())
    if rule.claim == "accuracy":
        own = differences(found).sel(dataset=dataset, rule=name).isel(epoch=-1)
        return "–" if bool(own.isnull().all()) else agreement(own).partition(" (")[0]
    equal = off < EXACT
    return "agrees" if equal == (rule.claim == "update") else f"differs: its update is {100 * off:.2g} % off"


def differences(found: xr.Dataset) -> xr.DataArray:
    """Return the test accuracy less that of the rule's reference, in percentage points; NaN without the reference."""
    references = [RULES[str(name)].reference for name in found.rule.values]
    compared = found.test_accuracy.reindex(rule=references).assign_coords(rule=found.rule)
    return (found.test_accuracy - compared).assign_attrs(units="percentage points", long_name="less backprop")


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    with nd.train.launched(options.device) as device:
        first = Processes().rank == 0
        if first:
            print(options.setting(PAPER), flush=True)
        runs = [
            xr.concat(
                [train(options, dataset, name, device) for name in options.rules], labels_of("rule", options.rules)
            )
            for dataset in options.dataset
        ]
    if not first:
        return
    found = xr.concat(runs, labels_of("dataset", options.dataset))
    about = {
        "hidden": "-".join(map(str, options.hidden)),
        "activation": options.activation,
        "rates": f"{options.rate:g} (perceptron), {options.square_rate:g} (square)",
        "batch": str(options.batch),
    }
    with plot.style():
        files = write(options.out, {"accuracy": figure(found)}, {"accuracy": found}, about)
    print(
        f"Hidden layers {about['hidden']}, {options.activation}; "
        f"Adam, rates {about['rates']}, batches of {options.batch}"
    )
    trained = float(found.seconds.sum()) if "seconds" in found else None
    claims = write_rows(options, here(about, options), rows(found, options.pool), seconds=trained)
    print(summary(found, options.reach), claims, files, sep="\n\n")


def here(about: Mapping[str, str], options: Options) -> str:
    """Return the setting in words."""
    data = ", ".join(images(dataset, options.pool) for dataset in options.dataset)
    return (
        f"{data}; hidden layers {about['hidden']}, {options.activation}, and square; "
        f"{options.epochs} epochs of Adam, rates {about['rates']}, batches of {options.batch}"
    )


def rows(found: xr.Dataset, pool: int = 1) -> list[Row]:
    """Return what each rule came to beside its paper's claim; images were averaged over squares of `pool` pixels."""
    made = []
    gap = differences(found).isel(epoch=-1)
    for dataset, name in ((str(d), str(n)) for d in found.dataset.values for n in found.rule.values):
        rule = RULES[name]
        if rule.claim is None:
            continue
        at = {"dataset": dataset, "rule": name}
        ours = f"{images(dataset, pool)}: {plus_minus(found.test_accuracy.isel(epoch=-1).sel(at))} %, "
        ours += f"{plus_minus(gap.sel(at), '+')} points beside {RULES[rule.reference].label}, "
        plain = RULES[rule.reference].reference
        if plain != rule.reference and plain in found.rule:
            end = found.test_accuracy.isel(epoch=-1).sel(dataset=dataset)
            ours += f"{plus_minus(end.sel(rule=name) - end.sel(rule=plain), '+')} beside {RULES[plain].label}, "
        off = 100 * float(found.first_update.sel(at).mean())
        ours += f"first update {off:.2g} % off; " if off < 10 else f"first update {off:.0f} % off; "
        ours += means_of(found.sizes["seed"])
        there = "784-300-300-100-10, SGD" if rule.where[0] == AR else "784 units a layer" if rule.square else "MLP"
        made.append(Row(*rule.where, there, f"{rule.label}: {rule.paper}", ours, verdict(found, dataset, name)))
    return made


def labels_of(name: str, values: tuple[str, ...]) -> xr.DataArray:
    return xr.DataArray(list(values), dims=name, name=name)


def figure(found: xr.Dataset) -> Figure:
    """Return the learning curves, a row for each data set."""
    rows = found.sizes["dataset"]
    drawing, axes = plt.subplots(rows, 3, figsize=(11, 3.2 * rows + 0.7), squeeze=False)
    gap = differences(found)
    panels = [(found.train_accuracy, "training accuracy (%)"), (found.test_accuracy, "test accuracy (%)")]
    for row, dataset in zip(axes, found.dataset.values, strict=True):
        for ax, (values, label) in zip(row, [*panels, (gap, "test accuracy less backprop's (points)")], strict=True):
            for name in found.rule.values:
                rule = RULES[str(name)]
                if values is gap and rule.reference == name:
                    continue
                draw(ax, values.sel(dataset=dataset, rule=name), rule.label, **rule.look)
            ax.set(xlabel="epoch", ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        row[2].axhline(0.0, color=plot.BLACK, linewidth=0.6)
        for ax, title in zip(row, ("training, before each update", "test", "beside backprop"), strict=True):
            ax.set_title(f"{dataset}: {title}")
        zoom(row[0], found.train_accuracy.sel(dataset=dataset))
        zoom(row[1], found.test_accuracy.sel(dataset=dataset))
    handles, labels = axes[0][1].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    drawing.suptitle(f"Lines and bands: {means_of(found.sizes['seed'])}", x=0.01, ha="left")
    return drawing


def summary(found: xr.Dataset, reach: float) -> str:
    """Return the tables that are printed."""
    header = ["rule", "training", "test", "best", f"epochs to {reach:g}", "less backprop", "gap", "update off (%)"]
    header += ["the paper says", "here"]
    gap = differences(found)
    blocks = []
    for dataset in found.dataset.values:
        rows = []
        for name in map(str, found.rule.values):
            rule, here = RULES[name], found.sel(dataset=dataset, rule=name)
            own, last = gap.sel(dataset=dataset, rule=name), {"epoch": -1}
            alone = rule.reference == name or bool(own.isnull().all())
            rows.append(
                [
                    rule.label,
                    plus_minus(here.train_accuracy.isel(last)),
                    plus_minus(here.test_accuracy.isel(last)),
                    plus_minus(here.test_accuracy.max("epoch")),
                    epochs_to(here.test_accuracy, reach),
                    "–" if alone else plus_minus(own.isel(last), "+"),
                    "–" if alone else f"{float(np.abs(own.mean('seed')).max()):.1f}",
                    "–" if rule.reference == name else f"{100 * float(here.first_update.mean()):.2g}",
                    rule.paper,
                    verdict(found, str(dataset), name),
                ]
            )
        blocks.append(
            f"{dataset}, after {found.sizes['epoch']} epochs: accuracy in per cent, {means_of(found.sizes['seed'])}\n"
            f"{table(header, rows)}"
        )
    blocks.append(
        "Beside backprop of the same network: the test accuracy's difference in points at the end, paired by seed;\n"
        "the largest difference of the means at any epoch; and how far the first update is off backprop's."
    )
    return "\n\n".join(blocks)


def epochs_to(accuracy: xr.DataArray, reach: float) -> str:
    """Return after how many epochs a test accuracy is reached, mean of the seeds; "–" if one does not reach it."""
    reached = accuracy >= reach
    if not bool(reached.any("epoch").all()):
        return "–"
    return plus_minus((reached.argmax("epoch") + 1).astype(float))


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
