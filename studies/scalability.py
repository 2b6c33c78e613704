"""Activation relaxation simplified in a convolutional network: feedback weights that learn, and no derivatives.

The network has two convolutions and three fully connected layers. Feedback weights ψ that learn take the place of Wᵀ,
or f' is dropped from the relaxation and from the weight update, or both: (a) in the convolutions alone, (b) in the
fully connected layers alone, (c) in all. The ψ of a convolution is a kernel of the same shape, and learns by the same
update. A control keeps the ψ of the fully connected layers as they were drawn, which tells what learning them does.
Since W and ψᵀ learn by the same update, their difference stays as it was drawn, and they align only as far as they
outgrow it; weight decay, as Kolen and Pollack have it, lets it die out, here beside AR with the same decay.

After figure 2 and appendix C of B. Millidge, A. Tschantz, A. K. Seth, C. L. Buckley, "Investigating the Scalability and
Biological Plausibility of the Activation Relaxation Algorithm" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import xarray as xr
from common.claims import AR_SCALE, Row, write_rows
from common.learning_curves import (
    BASELINE,
    DECAY,
    CurveOptions,
    Variants,
    agreement,
    caption,
    compare,
    convolutional,
    draw_accuracy,
    draw_feedback,
    equivalent,
    plus_minus,
    summary,
)
from common.options import parse
from common.report import write
from matplotlib.figure import Figure

from neurodyn import plot

LEARNED: dict[str, Any] = {"feedback": "learned"}
WITHOUT: dict[str, Any] = {"relaxation_derivative": "none", "weight_derivative": "none"}
SIMPLIFICATIONS: dict[str, dict[str, Any]] = {"learned ψ": LEARNED, "no derivative": WITHOUT, "both": LEARNED | WITHOUT}
LAYERS = {"convolutional": "conv.", "fully connected": "fully conn.", "all": "all"}
VARIANTS: Variants = {BASELINE: {}} | {
    f"{name}, {label}": options | {"simplified": layers}
    for layers, label in LAYERS.items()
    for name, options in SIMPLIFICATIONS.items()
}
FIXED, WITH_DECAY, AR_DECAY = "fixed ψ, fully conn.", "learned ψ, fully conn., decay", "AR, decay"
LEARNED_FULLY = "learned ψ, fully conn."
RATE_OF_DECAY = 0.01
"""λ of the weight decay; an update of the rate η shrinks the difference between W and ψᵀ by 1 − ηλ."""
CONTROLS: Variants = {
    FIXED: {"feedback": "fixed", "simplified": "fully connected"},
    AR_DECAY: {DECAY: RATE_OF_DECAY},
    WITH_DECAY: {**VARIANTS[LEARNED_FULLY], DECAY: RATE_OF_DECAY},
}
SIMPLIFIED = [name for name in VARIANTS if name != BASELINE]
VARIANTS = {**VARIANTS, **CONTROLS}


@dataclass(frozen=True)
class Options(CurveOptions):
    """What to run."""

    epochs: int = 12
    out: Path = Path("results/scalability")


PAPER = Options(full=True, dataset="cifar10", epochs=30, rate=0.0005, seeds=tuple(range(10)))
"""For a GPU; the rate and the epochs are those of the authors' code."""


def main(options: Options) -> None:
    """Run the study, write its results and its figure, and print a summary."""
    print(options.setting(PAPER), flush=True)
    found = compare(options, convolutional, VARIANTS)
    with plot.style():
        files = write(options.out, {"scalability": figure(found)}, {"scalability": found}, {})
    print("Activation relaxation simplified in a CNN: conv 32, pool, conv 64, 64, 120; tanh")
    here = f"{options}; CNN: conv 32, pool, conv 64, 64, 120, tanh"
    print(summary(found), *verdicts(found), write_rows(options, here, rows(found)), files, sep="\n\n")


def rows(found: xr.Dataset) -> list[Row]:
    """Return what came out beside the paper's figure 2."""
    figures = dict.fromkeys(SIMPLIFIED, "figure 2")
    setting = "CIFAR-10, 30 epochs of SGD, rate 0.0005"
    return equivalent(found, figures, paper=AR_SCALE, setting=setting, claim="equivalent to AR throughout")


def verdicts(found: xr.Dataset) -> list[str]:
    """Say what of the paper's claim holds here, and what learning ψ does in the fully connected layers."""
    end = found.test_accuracy.isel(epoch=-1)
    baseline = end.sel(variant=BASELINE)
    said = {name: agreement(end.sel(variant=name) - baseline) for name in SIMPLIFIED}
    learned = end.sel(variant=LEARNED_FULLY) - end.sel(variant=FIXED)
    angles = found.feedback_angle.isel(epoch=-1).mean("seed")
    aligned = [
        f"{name} {' '.join(f'{float(each):.0f}°' for each in angles.sel(variant=name).dropna('layer'))}"
        for name in (LEARNED_FULLY, WITH_DECAY, FIXED)
    ]
    decayed = end.sel(variant=WITH_DECAY) - end.sel(variant=AR_DECAY)
    cost = end.sel(variant=AR_DECAY) - baseline
    over = found.test_accuracy.sel(variant=LEARNED_FULLY) - found.test_accuracy.sel(variant=BASELINE)
    moments = sorted({max(1, round(share * over.epoch.values[-1])) for share in (1 / 3, 2 / 3, 1)})
    course = ", ".join(f"{plus_minus(over.sel(epoch=epoch), '+')} after epoch {epoch}" for epoch in moments)
    return [
        "The paper (figure 2, CIFAR-10, after longer training): performance is equivalent to AR throughout. Here:\n"
        + "\n".join(f"  {name}: {text}" for name, text in said.items()),
        f"In the fully connected layers, learned ψ less fixed ψ: {plus_minus(learned, '+')} points; angles between "
        f"ψ and Wᵀ at the end:\n{', '.join(aligned)}.\n"
        f"Over the training, learned ψ less AR: {course}.\n"
        f"With weight decay of {RATE_OF_DECAY:g}: AR less AR without it, {plus_minus(cost, '+')} points; learned ψ\n"
        f"less AR, both with it, {agreement(decayed)}.",
    ]


def figure(found: xr.Dataset) -> Figure:
    picture = plt.figure(figsize=(13, 4.6))
    axes = picture.subplots(1, 4)
    for ax, letter, (layers, label) in zip(axes, "abc", LAYERS.items(), strict=False):
        control = [FIXED, WITH_DECAY] if label == LAYERS["fully connected"] else []
        draw_accuracy(ax, found, [*(f"{name}, {label}" for name in SIMPLIFICATIONS), *control])
        ax.set_title(f"({letter}) {layers.capitalize()}{'' if layers == 'all' else ' layers'} simplified")
    draw_feedback(axes[-1], found, "both, all")
    axes[-1].set_title("(d) Both in all layers")
    caption(picture, found)
    return picture


if __name__ == "__main__":
    main(parse(PAPER, __doc__))
