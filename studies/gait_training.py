"""Training by backprop, TP and GAIT-prop: networks of fixed width, and towers that narrow, with auxiliary units.

(1) Test accuracy over the epochs for 1 to 6 hidden layers as wide as the input, each rule with and without the
orthogonality regularizer, backprop too, so that what the regularizer does is not taken for what GAIT-prop does; (2) the
same of a linear network, and (3) of a tower. Weights start orthogonal, as leaky ReLU layers in float64. (4) Over the
training, how far the weights are from orthogonal rows, and the update from backprop's. (5) Why it turns away: its angle
to backprop's in the networks that GAIT-prop has trained without regularizer, with a smaller γ, in float32, and with
weights made orthogonal, in which alone W⁻¹, which carries its targets, is Wᵀ. (6) A scan of the regularizer's λ, from
orthogonal and from random (Xavier) weights, and in the tower.

After figures 2 and 3 of N. Ahmad, M. A. J. van Gerven, L. Ambrogioni, "GAIT-prop: A biologically plausible learning
rule derived from backpropagation of error" (2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from common.claims import GAIT, Row, holds, write_rows
from common.gait_update import ALL, AS_IT_IS, CHANGES, GAMMA, SINGLE, SMALLER, Name, orthogonality, turned, update_angle
from common.learning_curves import agreement, means_of, plus_minus
from common.options import ImageOptions, parse
from common.report import table, write
from common.training import Learning, fit
from figures.gait_training import draw_networks, draw_regularizer
from torch import Tensor

import neurodyn as nd
from neurodyn import plot
from neurodyn.errors import InvalidValueError
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import target_propagation as tp

BATCH = 60
"""The paper's."""
TOWER, LINEAR = "tower", "linear"
STRENGTHS = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
"""λ of the scan."""
PROBE = 256
"""How many training samples the angle of the updates is measured on."""
ALIGNED = 1.0
"""The angle in degrees within which updates are called equal."""

Start = Literal["orthogonal", "xavier"]


@dataclass(frozen=True)
class Rule:
    """A rule of learning, Adam's learning rate, and λ of the regularizer; 0 is none."""

    name: Name
    rate: float
    strength: float = 0.0

    def declare(
        self, sizes: Sequence[int], outputs: int, seed: int, activation: str = "leaky_relu", start: Start = "orthogonal"
    ) -> Learning:
        """Return what learns; backprop with a regularizer is activation relaxation, whose gradient is the same."""
        how: dict[str, Any] = {"activation": activation, "weights": start, "seed": seed, "dtype": torch.float64}
        module = tp.tower(sizes, outputs=outputs, **how)
        if not self.strength:
            return module if self.name == "bp" else tp.network(module, rule=self.name, gamma=GAMMA)
        network = ar.network(module) if self.name == "bp" else tp.network(module, rule=self.name, gamma=GAMMA)
        return network.regularized(nd.Orthogonality(self.strength))


RULES: Mapping[str, Rule] = {
    "BP": Rule("bp", 1e-3),
    "BP, regularized": Rule("bp", 1e-3, 0.1),
    "GAIT-prop": Rule("gait", 1e-3),
    "GAIT-prop, regularized": Rule("gait", 1e-3, 0.1),
    "TP": Rule("tp", 1e-3),
    "TP, regularized": Rule("tp", 1e-3, 10.0),
}
"""For digits, with 24 updates an epoch: ten times the paper's rate of BP and GAIT-prop, a hundred times TP's, and a
hundredth of its λ of TP, with which the few updates that there are do little but keep the weights orthogonal."""
PAPERS: Mapping[str, Rule] = {
    "BP": Rule("bp", 1e-4),
    "BP, regularized": Rule("bp", 1e-4, 0.1),
    "GAIT-prop": Rule("gait", 1e-4),
    "GAIT-prop, regularized": Rule("gait", 1e-4, 0.1),
    "TP": Rule("tp", 1e-5),
    "TP, regularized": Rule("tp", 1e-5, 1000.0),
}


@dataclass(frozen=True)
class Options(ImageOptions):
    """What to run; `--full` also takes the paper's rates and λ, and trains for days on two cores.

    Parameters
    ----------
    hidden
        The numbers of hidden layers of fixed width; the width is that of the input, 64 for digits. The middle one is
        also trained as a linear network, and in the scan of λ.
    tower
        The units of the tower's layers after the input, none wider than the one before.
    """

    once = ("hidden",)

    out: Path = Path("results/gait_training")
    hidden: tuple[int, ...] = (1, 3, 6)
    tower: tuple[int, ...] = (64, 40, 20, 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = (self.pixels, *self.tower)
        if any(after > before for before, after in pairwise(widths)):
            raise InvalidValueError(
                f"tower: no layer is wider than the one before, and the first not than the {self.pixels} inputs, not "
                f"{' '.join(map(str, self.tower))}"
            )
        classes = 100 if self.dataset == "cifar100" else 10
        if self.tower[-1] < classes:
            raise InvalidValueError(f"tower: at least {classes} units in its last layer, not {self.tower[-1]}")


PAPER = Options(
    full=True,
    dataset="mnist",
    hidden=(1, 2, 3, 4, 5, 6),
    tower=(784, 500, 200, 10),
    epochs=50,
    seeds=tuple(range(5)),
)


def compare(options: Options) -> tuple[xr.Dataset, xr.Dataset]:
    """Train every network by every rule, from the same weights and with the same batches.

    Accuracies, in per cent, are NaN if the run diverged. The second dataset has what turns GAIT-prop's update away.
    """
    rules = PAPERS if options.full else RULES
    networks = {f"{hidden} hidden": (wide(options, hidden), "leaky_relu") for hidden in options.hidden}
    networks[LINEAR] = (wide(options, middle(options)), "linear")
    networks[TOWER] = (options.tower, "leaky_relu")
    runs, causes = [], []
    for (sizes, activation), name in options.progress(list(product(networks.values(), rules)), unit="rule"):
        history, trained = train(options, rules[name], sizes, activation, "orthogonal")
        runs.append(history)
        if name == "GAIT-prop":
            causes.append(turned(trained, options.seeds, probe_of(options)))
    found = grid(runs, {"network": list(networks), "rule": list(rules)})
    inputs = len(options.load()[0][0][0])
    layers = ["-".join(map(str, (inputs, *sizes))) for sizes, _ in networks.values()]
    settings = {
        "rate": ([rule.rate for rule in rules.values()], "learning rate of Adam"),
        "strength": ([rule.strength for rule in rules.values()], "λ of the orthogonality regularizer; 0: none"),
    }
    found = found.assign_coords(layers=("network", layers))
    coords = {name: ("rule", values, {"units": "1", "long_name": what}) for name, (values, what) in settings.items()}
    return found.assign_coords(coords), xr.concat(causes, xr.Variable("network", list(networks)))


def scan(options: Options, found: xr.Dataset) -> xr.Dataset:
    """Train by backprop and GAIT-prop with each λ, from orthogonal and random weights, and in the tower.

    What `compare` has trained is taken from what it found.
    """
    rules = PAPERS if options.full else RULES
    deep = f"{middle(options)} hidden"
    starts: dict[str, tuple[str, tuple[int, ...], Start]] = {
        f"{deep}, orthogonal start": (deep, wide(options, middle(options)), "orthogonal"),
        f"{deep}, random start": (deep, wide(options, middle(options)), "xavier"),
        f"{TOWER}, orthogonal start": (TOWER, options.tower, "orthogonal"),
    }
    names = {name: rules[name] for name in ("BP", "GAIT-prop")}
    runs = []
    tasks = list(product(starts.values(), names.values(), STRENGTHS))
    for (network, sizes, start), rule, strength in options.progress(tasks, unit="λ"):
        wanted = replace(rule, strength=strength)
        known = [name for name, each in rules.items() if each == wanted and start == "orthogonal"]
        if known:
            runs.append(found.sel(network=network, rule=known[0], drop=True))
        else:
            runs.append(train(options, wanted, sizes, "leaky_relu", start)[0])
    return grid(runs, {"start": list(starts), "rule": list(names), "strength": list(STRENGTHS)})


def wide(options: Options, hidden: int) -> tuple[int, ...]:
    """Return the units of a network as wide as the input, after the input."""
    return (len(options.load()[0][0][0]),) * (hidden + 1)


def middle(options: Options) -> int:
    """Return the number of hidden layers in the middle of those asked for."""
    return options.hidden[len(options.hidden) // 2]


def probe_of(options: Options) -> list[Tensor]:
    """Return the inputs and targets on which the angle of the updates is measured."""
    return [part.to(options.device, torch.float64) for part in options.load()[0][:PROBE]]


def train(
    options: Options, rule: Rule, sizes: Sequence[int], activation: str, start: Start
) -> tuple[xr.Dataset, list[Learning]]:
    """Train a network of all seeds, and return how that went, and the networks."""
    data = options.load()
    inputs, outputs = map(len, data[0][0])
    history, networks = fit(
        partial(rule.declare, (inputs, *sizes), outputs, activation=activation, start=start),
        options,
        options.seeds,
        data=data,
        metrics={"orthogonality": orthogonality, "update_angle": partial(update_angle, rule.name, probe_of(options))},
        batch_size=BATCH,
        learning_rate=rule.rate,
    )
    return history.where(history.test_accuracy.isel(epoch=-1).notnull()), networks


def grid(runs: Sequence[xr.Dataset], dims: Mapping[str, Sequence[Any]]) -> xr.Dataset:
    """Put runs, the last dimension running fastest, into one dataset."""
    labels = {**dims, "seed": runs[0].seed.values, "epoch": runs[0].epoch.values}
    shape = [len(values) for values in labels.values()]
    found = xr.Dataset(
        {
            name: (tuple(labels), np.reshape([run[name].transpose("seed", "epoch") for run in runs], shape), own.attrs)
            for name, own in runs[0].data_vars.items()
        },
        {name: list(values) for name, values in labels.items()},
    )
    found["epoch"].attrs = runs[0].epoch.attrs
    found["orthogonality"].attrs = {"units": "1", "long_name": "‖W Wᵀ − diag‖ / ‖W Wᵀ‖, mean of the layers"}
    found["update_angle"].attrs = {
        "units": "degree",
        "long_name": "angle of the update to backprop's, mean of the layers",
    }
    return found


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found, causes = compare(options)
    scanned = scan(options, found)
    about = {"dataset": options.dataset, "activation": "leaky_relu", "dtype": "float64"}
    about["training"] = f"{options.images}, {options.epochs} epochs of Adam in batches of {BATCH}, γ = {GAMMA:g}"
    found, scanned = found.assign_attrs(about), scanned.assign_attrs(about)
    with plot.style():
        figures = {"gait_training": draw_networks(found), "gait_training_regularizer": draw_regularizer(found, scanned)}
        files = write(options.out, figures, {"gait_training": found, "scan": scanned, "causes": causes}, about)
    layers = ", ".join(f"{each.item()} ({each.network.item()})" for each in found.layers)
    here = f"{about['training']}, leaky ReLU, float64; {layers}"
    claims = write_rows(options, here, [*rows(found), cause_row(causes), scan_row(scanned)])
    print(summary(found), cause_table(causes), scan_table(scanned), claims, files, sep="\n\n")


def rows(found: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figures 2 and 3."""
    end = found.test_accuracy.isel(epoch=-1)
    setting = "MNIST, 784 units a layer or a tower, Adam"
    made = []
    for network in map(str, found.network.values):
        where = "figure 2 C" if network == LINEAR else "figure 3 B" if network == TOWER else "figure 2 A"
        rules = ("GAIT-prop", "BP") if network == LINEAR else ("GAIT-prop, regularized", "BP, regularized")
        one, other = (end.sel(network=network, rule=rule) for rule in rules)
        ours = f"{network}: {plus_minus(one)} % ({rules[0]}), {plus_minus(other)} % ({rules[1]}), difference "
        ours += f"{plus_minus(one - other, '+')}; {means_of(found.sizes['seed'])}"
        claim = "GAIT-prop is indistinguishable from backprop"
        made.append(Row(GAIT, where, setting, claim, ours, agreement(one - other).partition(" (")[0]))
    nonlinear = [name for name in found.network.values if name != LINEAR]
    behind = (end.sel(rule="TP") - end.sel(rule="BP")).sel(network=nonlinear)
    means = behind.mean("seed")
    ours = (
        f"{float(means.min()):+.1f} to {float(means.max()):+.1f} points, by network; {means_of(behind.sizes['seed'])}"
    )
    lower = holds(float(means.max()) < 0, "not in all of these networks")
    claim = "TP suffers from lower accuracy in nonlinear networks"
    made.append(Row(GAIT, "figure 2 A", setting, claim, ours, lower))
    return made


def cause_row(causes: xr.Dataset) -> Row:
    """Return what came out beside the paper's reason for the regularizer."""
    at = causes.angle.sel(network=TOWER).mean("seed")
    ours = ", ".join(f"{float(at.sel(change=change)):.2g}° ({change})" for change in CHANGES)
    others = float(at.sel(change=[AS_IT_IS, SMALLER, SINGLE]).min())
    ours = f"tower, trained without regularizer: angle to backprop's update {ours}; {means_of(causes.sizes['seed'])}"
    verdict = holds(float(at.sel(change=ALL)) < ALIGNED < others, "the weights alone do not explain it")
    claim = "GAIT-prop makes backprop's update where W is orthogonal, and departs from it where it is not"
    return Row(GAIT, "§5, eq. 21", "derived", claim, ours, verdict)


def scan_row(scanned: xr.Dataset) -> Row:
    """Return whether a regularizer makes GAIT-prop as accurate as backprop from random weights, and how strong."""
    (start,) = (str(name) for name in scanned.start.values if "random" in str(name))
    end = scanned.test_accuracy.isel(epoch=-1).sel(start=start)
    best = end.sel(rule="BP", strength=0.0)
    gaps = end.sel(rule="GAIT-prop") - best
    ours = ", ".join(f"{plus_minus(gaps.sel(strength=s), '+')} (λ = {s:g})" for s in scanned.strength.values)
    ours = f"{start}: GAIT-prop less BP without regularizer {ours}; {means_of(scanned.sizes['seed'])}"
    enough = [agreement(gaps.sel(strength=s)).startswith("agrees") for s in scanned.strength.values]
    claim = "beyond the paper: from random weights too, a regularizer makes GAIT-prop as accurate as backprop"
    return Row(GAIT, "§5, eq. 23", "orthogonal start", claim, ours, holds(any(enough), "with none of these λ"))


def cause_table(causes: xr.Dataset) -> str:
    """Return the table of what turns GAIT-prop's update away from backprop's."""
    rows = [[change, *(plus_minus(at) for at in causes.angle.sel(change=change))] for change in CHANGES]
    rows.append(["largest condition of W", *(plus_minus(at) for at in causes.condition)])
    title = "Angle (°) of GAIT-prop's update to backprop's in the networks that it has trained without regularizer"
    return "\n".join([title, table(["", *map(str, causes.network.values)], rows)])


def summary(found: xr.Dataset) -> str:
    """Return the table of what every rule came to."""
    peaks = found.test_accuracy.max("epoch")
    rows = []
    for rule in found.rule.values:
        at = found.sel(rule=rule)
        strength = float(at.strength)
        rows.append(
            [
                str(rule),
                f"{float(at.rate):g}",
                f"{strength:g}" if strength else "",
                *(plus_minus(peaks.sel(rule=rule, network=network)) for network in found.network.values),
            ]
        )
    diverged = int(found.test_accuracy.isel(epoch=-1).isnull().sum())
    return "\n".join(
        [
            f"{found.attrs['training']}, float64, orthogonal weights at the start",
            f"Peak test accuracy (%), {means_of(found.sizes['seed'])}; the tower is "
            f"{found.layers.sel(network=TOWER).item()}; {diverged} runs diverged",
            "",
            table(["", "rate", "λ", *map(str, found.network.values)], rows),
            "",
            f"After the last epoch, {means_of(found.sizes['seed'])}, differences of the same seeds",
            differences(found),
            "",
            *verdicts(found),
        ]
    )


def differences(found: xr.Dataset) -> str:
    """Return the table of what the regularizer does, what GAIT-prop does, and what becomes of weights and updates."""
    end = found.isel(epoch=-1)
    accuracy = end.test_accuracy

    def less(one: str, other: str) -> xr.DataArray:
        return accuracy.sel(rule=one) - accuracy.sel(rule=other)

    lines: dict[str, tuple[xr.DataArray, str]] = {
        "the regularizer: BP, regularized, less BP": (less("BP, regularized", "BP"), "+"),
        "GAIT-prop less BP": (less("GAIT-prop", "BP"), "+"),
        "GAIT-prop less BP, both regularized": (less("GAIT-prop, regularized", "BP, regularized"), "+"),
    }
    for rule in ("BP", "BP, regularized", "GAIT-prop", "GAIT-prop, regularized"):
        lines[f"training accuracy (%), {rule}"] = (end.train_accuracy.sel(rule=rule), "")
    for rule in ("GAIT-prop", "GAIT-prop, regularized"):
        lines[f"angle to backprop's update (°), {rule}"] = (end.update_angle.sel(rule=rule), "")
    rows = [
        [name, *(plus_minus(values.sel(network=network), sign) for network in found.network.values)]
        for name, (values, sign) in lines.items()
    ]
    orthogonal = [
        [f"‖W Wᵀ − diag‖ / ‖W Wᵀ‖, {rule}", *(f"{float(value):.2g}" for value in values.mean("seed"))]
        for rule in ("BP", "BP, regularized", "GAIT-prop", "GAIT-prop, regularized")
        for values in [end.orthogonality.sel(rule=rule).transpose("network", "seed")]
    ]
    return table(["", *map(str, found.network.values)], [*rows, *orthogonal])


def verdicts(found: xr.Dataset) -> list[str]:
    """Say beside the paper's claims what came out here."""
    accuracy = found.test_accuracy.isel(epoch=-1)
    claims = {
        "GAIT-prop is indistinguishable from BP (figures 2 and 3), both regularized": (
            "GAIT-prop, regularized",
            "BP, regularized",
            list(found.network.values),
        ),
        "… in a linear network without regularizer (figure 2C)": ("GAIT-prop", "BP", [LINEAR]),
        "… GAIT-prop, regularized, beside BP without regularizer": (
            "GAIT-prop, regularized",
            "BP",
            list(found.network.values),
        ),
        "… neither regularized": ("GAIT-prop", "BP", list(found.network.values)),
    }
    lines = []
    for claim, (one, other, networks) in claims.items():
        parts = [
            f"{network} {agreement((accuracy.sel(rule=one) - accuracy.sel(rule=other)).sel(network=network))}"
            for network in networks
        ]
        lines.append(f"{claim}: {'; '.join(parts)}.")
    nonlinear = [name for name in found.network.values if name != LINEAR]
    behind = (accuracy.sel(rule="BP") - accuracy.sel(rule="TP")).sel(network=nonlinear).mean("seed")
    lines.append(
        f"TP is less accurate than BP where networks are not linear (figure 2): by {float(behind.min()):.1f} to "
        f"{float(behind.max()):.1f} points."
    )
    angles = found.update_angle.isel(epoch=-1).sel(rule="GAIT-prop").mean("seed")
    gaps = (accuracy.sel(rule="GAIT-prop") - accuracy.sel(rule="BP")).mean("seed")
    order = "; ".join(
        f"{network} {float(angles.sel(network=network)):.0f}°, {float(gaps.sel(network=network)):+.1f} points, "
        f"{behind_by(found, network)}"
        for network in map(str, found.network.values)
    )
    lines.append(
        "What goes with the difference between GAIT-prop and BP without regularizer: W ceases to be orthogonal, the "
        f"update\nturns away from backprop's, and GAIT-prop lags. Angle, difference, and where it ends:\n{order}."
    )
    return lines


def behind_by(found: xr.Dataset, network: str) -> str:
    """Say after how many epochs BP had the accuracy, without regularizer, with which GAIT-prop ends."""
    accuracy = found.test_accuracy.sel(network=network).mean("seed")
    reached = accuracy.sel(rule="BP") >= accuracy.sel(rule="GAIT-prop").isel(epoch=-1)
    last = int(found.epoch[-1])
    return f"BP's after {int(found.epoch[reached][0])} of {last} epochs" if bool(reached.any()) else "above BP's"


def scan_table(scanned: xr.Dataset) -> str:
    """Return the table of the scan of λ, and the weakest regularizer that suffices."""
    end = scanned.isel(epoch=-1)
    rows, lines = [], []
    for start in scanned.start.values:
        best = end.test_accuracy.sel(start=start, rule="BP", strength=0.0)
        for rule in scanned.rule.values:
            at = end.sel(start=start, rule=rule)
            rows.append([f"{start}, {rule}", *(plus_minus(at.test_accuracy.sel(strength=s)) for s in STRENGTHS)])
        angles = end.update_angle.sel(start=start, rule="GAIT-prop")
        rows.append([f"{start}, angle of GAIT-prop (°)", *(plus_minus(angles.sel(strength=s)) for s in STRENGTHS)])
        gaps = end.test_accuracy.sel(start=start, rule="GAIT-prop") - best
        enough = [f"{s:g}" for s in STRENGTHS if agreement(gaps.sel(strength=s)).startswith("agrees")]
        lines.append(f"{start}: GAIT-prop equals BP without regularizer at λ = {', '.join(enough) or 'none of these'}.")
    header = ["λ", *(f"{strength:g}" for strength in STRENGTHS)]
    return "\n".join(["Test accuracy (%) after the last epoch, by λ", table(header, rows), "", *lines])


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
