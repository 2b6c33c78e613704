"""Activation relaxation without weight transport, and without nonlinear derivatives.

A perceptron learns (a) with feedback weights ψ of its own in place of Wᵀ, which learn by Δψ = (ΔW)ᵀ; (b) without f' in
the relaxation; (c) with both simplifications; (d) with ψ that stay as they were drawn, as in feedback alignment. Test
accuracy is shown beside backprop's, and how ψ comes to point along Wᵀ, and the update along backprop's gradient. A
second figure: training and test accuracy of AR and backprop, as in the paper's figure 2; and for a range of learning
rates, of how many seeds the training diverges with Wᵀ, and with ψ that learn or stay.

After figures 2 and 3 of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Activation Relaxation: A Local Dynamical
Approximation to Backpropagation in the Brain" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common.claims import AR, Row, holds, write_rows
from common.learning_curves import (
    BACKPROP,
    BASELINE,
    PerceptronOptions,
    Variants,
    agreement,
    beside,
    caption,
    compare,
    draw,
    draw_accuracy,
    draw_angles,
    draw_feedback,
    equivalent,
    means_of,
    plus_minus,
    summary,
    zoom,
)
from common.options import parse
from common.report import number_of, table, write
from matplotlib.figure import Figure

from neurodyn import plot

LEARNED, FIXED = "learned ψ", "fixed ψ"
WITHOUT, BOTH, FIXED_WITHOUT = "no derivative", "learned ψ, no derivative", "fixed ψ, no derivative"
NO_DERIVATIVE: dict[str, Any] = {"relaxation_derivative": "none"}
VARIANTS: Variants = {
    BASELINE: {},
    LEARNED: {"feedback": "learned"},
    WITHOUT: NO_DERIVATIVE,
    BOTH: {"feedback": "learned", **NO_DERIVATIVE},
    FIXED: {"feedback": "fixed"},
    FIXED_WITHOUT: {"feedback": "fixed", **NO_DERIVATIVE},
}
FACTORS = (0.25, 1.0, 4.0)
"""The learning rates of the scan, in units of the rate that is asked for."""
SCANNED = (BASELINE, LEARNED, FIXED)


@dataclass(frozen=True)
class Options(PerceptronOptions):
    """What to run.

    Parameters
    ----------
    scan_epochs
        Of training at each learning rate of the scan.
    """

    epochs: int = 15
    scan_epochs: int = 5
    out: Path = Path("results/simplifications")


PAPER = Options(full=True, dataset="mnist", epochs=10, scan_epochs=10, rate=0.0005, seeds=tuple(range(5)))


def scan(options: Options) -> xr.Dataset:
    """Train with Wᵀ and with ψ at several learning rates."""
    variants = {name: VARIANTS[name] for name in SCANNED}
    rates = [factor * options.rate for factor in FACTORS]
    trials = [replace(options, rate=rate, epochs=options.scan_epochs) for rate in rates]
    found = [compare(trial, trial.build, variants).test_accuracy.isel(epoch=-1, drop=True) for trial in trials]
    rate = xr.Variable("rate", rates, {"units": "1", "long_name": "rate for the summed squared error"})
    return xr.concat(found, rate, combine_attrs="drop_conflicts").to_dataset()


def diverges_from(scanned: xr.Dataset, variant: str) -> float:
    """Return the lowest rate at which any seed diverges; infinity if none does."""
    lost = scanned.test_accuracy.sel(variant=variant).isnull().any("seed")
    return float(scanned.rate[lost].min()) if bool(lost.any()) else np.inf


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found, scanned = compare(options, options.build, VARIANTS), scan(options)
    about = {"layers": "-".join(map(str, options.layers)), "activation": options.activation}
    with plot.style():
        figures = {"simplifications": figure(found), "simplifications_training": draw_training(found, scanned)}
        files = write(options.out, figures, {"simplifications": found, "rates": scanned}, about)
    print(f"Activation relaxation simplified: {options.activation}, hidden layers {about['layers']}")
    here = f"{options}, {options.activation}, hidden layers {about['layers']}"
    claims = write_rows(options, here, [*rows(found), rate_row(scanned, options.scan_epochs)])
    print(summary(found), rate_table(scanned), claims, files, sep="\n\n")


def rate_row(scanned: xr.Dataset, epochs: int) -> Row:
    """Return what came out beside the paper's tendency to diverge."""
    least = {name: diverges_from(scanned, name) for name in SCANNED}
    parts = [f"{name} {'at none' if np.isinf(value) else f'from {value:g} on'}" for name, value in least.items()]
    ours = f"of rates up to {float(scanned.rate.max()):g}, {number_of(epochs, 'epoch')}, diverges: {', '.join(parts)}; "
    ours += number_of(scanned.sizes["seed"], "seed")
    verdict = holds(least[FIXED] < min(least[LEARNED], least[BASELINE]), "not at lower rates than the others")
    return Row(AR, "§3.1", "rate not told", "fixed ψ diverges where learned ψ are stable", ours, verdict)


def rate_table(scanned: xr.Dataset) -> str:
    """Return the table of the scan of rates."""
    rows = []
    for name in scanned.variant.values:
        at = scanned.test_accuracy.sel(variant=name)
        lost = at.isnull().sum("seed").values
        rows.append([str(name), *(f"✗ {n}" if n else plus_minus(at.isel(rate=place)) for place, n in enumerate(lost))])
    header = ["test accuracy (%), by rate; ✗: so many seeds diverge", *(f"{rate:g}" for rate in scanned.rate.values)]
    return table(header, rows)


def draw_training(found: xr.Dataset, scanned: xr.Dataset) -> Figure:
    """Return the figure of training and test accuracy, as the paper's figure 2, and of the rates."""
    picture, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    titles = {"train_accuracy": "(a) Training, before each update", "test_accuracy": "(b) Test"}
    for ax, (measure, title) in zip(axes, titles.items(), strict=False):
        values = found[measure].sel(variant=[BACKPROP, BASELINE]).isel(epoch=slice(1, None))
        draw(ax, values.sel(variant=BACKPROP), BACKPROP, color=plot.GREY, linewidth=3, alpha=0.5)
        draw(ax, values.sel(variant=BASELINE), BASELINE, color=plot.BLACK)
        ax.set(xlabel="epoch", ylabel=f"{measure.partition('_')[0]} accuracy (%)".replace("train ", "training "))
        ax.set_title(title)
        ax.xaxis.get_major_locator().set_params(integer=True)
        zoom(ax, values)
        ax.legend(loc="lower right", fontsize=8)
    colours = dict(zip([BACKPROP, *SCANNED], (plot.GREY, plot.BLACK, plot.BLUE, plot.VERMILION), strict=True))
    for name, colour in colours.items():
        share = 100 * scanned.test_accuracy.sel(variant=name).isnull().mean("seed")
        axes[2].plot(scanned.rate, share, "o-", markersize=4, color=colour, label=name)
    axes[2].set(xscale="log", xlabel="learning rate", ylabel="seeds that diverge (%)", title="(c) Learning rate")
    axes[2].set_xticks(scanned.rate, [f"{rate:g}" for rate in scanned.rate.values])
    axes[2].set_xticks([], minor=True)
    axes[2].legend(fontsize=8)
    caption(picture, found)
    return picture


def rows(found: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figures 2 and 3."""
    setting = "MNIST, 784-300-300-100-10, ReLU, 10 epochs of SGD"
    say: dict[str, str] = {"paper": AR, "setting": setting}
    made = equivalent(
        found,
        {BASELINE: "figure 2, right"},
        claim="test curves largely indistinguishable",
        reference=BACKPROP,
        **say,
    )
    gap = (found.train_accuracy.sel(variant=BASELINE) - found.train_accuracy.sel(variant=BACKPROP)).isel(epoch=-1)
    ours = f"{plus_minus(gap, '+')} points beside {BACKPROP} in the last epoch; {means_of(gap.sizes['seed'])}"
    claim = f"{BASELINE}: training curves largely indistinguishable"
    made.append(Row(AR, "figure 2, left", setting, claim, ours, agreement(gap).partition(" (")[0]))
    figures = {LEARNED: "figure 3 a", WITHOUT: "figure 3 b", BOTH: "figure 3 c"}
    made += equivalent(found, figures, claim="effectively no difference in performance", **say)
    gap, ours = beside(found, FIXED, LEARNED)
    lower = holds(float(gap.fillna(-np.inf).mean()) < 0, "not lower than with learned ψ")
    claim = "fixed ψ: a lower accuracy than learned ψ, with a tendency to diverge"
    made.append(Row(AR, "§3.1", setting, claim, ours, lower))
    return made


def figure(found: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(13, 7.6))
    axes = picture.subplots(2, 4)
    panels = {
        "(a) Feedback weights that learn": [LEARNED],
        "(b) No derivative in the relaxation": [WITHOUT],
        "(c) Both simplifications": [BOTH],
        "(d) Feedback weights that stay": [FIXED, FIXED_WITHOUT],
    }
    for ax, (title, variants) in zip(axes[0], panels.items(), strict=True):
        draw_accuracy(ax, found, variants)
        ax.set_title(title)
    for ax, name, letter in zip(axes[1], (LEARNED, BOTH, FIXED), "efg", strict=False):
        draw_feedback(ax, found, name)
        ax.set_title(f"({letter}) {name}")
    for name in VARIANTS:
        if name != BASELINE:
            draw(axes[1, 3], found.update_angle.sel(variant=name).mean("layer"), name)
    draw_angles(axes[1, 3], "angle of the update to backprop's (°)")
    axes[1, 3].set_title("(h) The update, mean of the layers")
    caption(picture, found)
    return picture


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
